"""What every test has: one thread a worker, a seed, tables as they were. No test needs a GPU."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

# Workers of pytest-xdist share the processor: more threads would only wait for one another. Before
# torch is imported, and for what tests start as well.
if "PYTEST_XDIST_WORKER" in os.environ:
    for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    # What tests start imports the package dozens of times: compiled once, whatever is set outside.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False

# jsonschema, of nbformat, checks addresses of other alphabets by it, if it is there. No test has any,
# and its grammar takes seconds to be read.
sys.modules.setdefault("rfc3987_syntax", None)

import pytest

# What takes seconds is imported inside the fixtures: the process that hands out the tests to the
# workers reads this file as well, and the workers wait for it.
if TYPE_CHECKING:
    import numpy as np


@pytest.fixture(autouse=True)
def _signals_are_heard():
    """As in a terminal: a shell starts what it runs in the background deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def _forms_are_chosen_quickly(tmp_path_factory):
    """By one round of one image, and remembered for these tests alone: a run's own choice is made of
    eight, while nothing else is at work."""
    from lib.networks import models, rewrites

    chosen = partial(
        rewrites.remembered_form, remembered=tmp_path_factory.mktemp("forms") / "forms.json"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewrites, "PROBED_BATCH", 1)
        patch.setattr(rewrites, "ROUNDS", 1)
        patch.setattr(models, "remembered_form", chosen)
        yield


@pytest.fixture(autouse=True)
def _seeded():
    import torch

    torch.manual_seed(0)


@pytest.fixture
def tables(monkeypatch):
    """The tables, and what can be imported, are as before afterwards."""
    from lib.maps.methods import METHODS
    from lib.networks.backbones import BACKBONES
    from lib.networks.sources import WEIGHTS
    from lib.study import extension
    from lib.study.comparisons import COMPARISONS

    kept = [(table, list(table)) for table in (BACKBONES, METHODS, COMPARISONS, WEIGHTS)]
    modules = set(sys.modules)
    monkeypatch.setattr(extension, "loaded", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for table, keys in kept:
        table.keep(keys)
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(tempfile.gettempdir()):
            del sys.modules[name]


@pytest.fixture(scope="session")
def browser():
    """Chromium, driven by Playwright; skips where there is none."""
    from stand_ins import CHROMIUM

    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def images() -> np.ndarray:
    """(4, 224, 224, 3) uint8 with structure at several scales."""
    import numpy as np

    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (4, 14, 14, 3)).repeat(16, axis=1).repeat(16, axis=2)
    return ((small + rng.integers(0, 64, (4, 224, 224, 3))) // 2).astype(np.uint8)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A ClickMe-format shard of 36 records: one whole batch of 32, and four more."""
    from stand_ins import make_record

    from lib.people.stored.shards import write_shard

    path = tmp_path / "val-0.tfrecords"
    write_shard(path, (make_record(i, label=i % 5) for i in range(36)))
    return path


@pytest.fixture
def no_real_data(tmp_path, monkeypatch):
    """The paper profile looks for its files in an empty folder, whatever this machine has."""
    from lib.base.tables import Table
    from lib.study.profiles import PROFILES

    rows = [
        replace(row, data=tmp_path) if row.key == "paper" else row
        for row in PROFILES.values()
    ]  # fmt: skip
    monkeypatch.setattr("lib.study.choices.PROFILES", Table("profile", rows))


@pytest.fixture
def saved_tables(tmp_path, monkeypatch):
    """A study's tables as notebook 04b leaves them, of made scores."""
    import pandas as pd

    from lib.networks.backbones import THE_EIGHT, variant_name
    from lib.study.study import Study

    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path)
    monkeypatch.chdir(tmp_path)
    tables = Study.from_profile("demo").places.tables
    tables.mkdir(parents=True)
    rows = [
        {"variant": variant_name(backbone.key, dcls), "backbone": backbone.key, "dcls": dcls,
         "method": method, "protocol": protocol, "parameters_millions": 20 + number,
         "score": 0.3 + 0.05 * number - 0.2 * dcls, "low": 0.0, "high": 0.7, "n": 224,
         "ceiling": 0.65753, "reachable": 1.35, "above_control": number > 2}
        for number, backbone in enumerate(THE_EIGHT)
        for dcls in (False, True)
        for method in ("grad_cam", "threshold_grad_cam")
        for protocol in ("published", "corrected")
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tables / "summary.csv", index=False)
    controls = [
        {"protocol": protocol, "reading": "whole", "control": control, "score": score,
         "low": score - 0.02, "high": score + 0.02}
        for protocol in ("published", "corrected")
        for control, score in (("centre", 0.4), ("random", 0.0))
    ]  # fmt: skip
    pd.DataFrame(controls).to_csv(tables / "controls_summary.csv", index=False)
    return tmp_path
