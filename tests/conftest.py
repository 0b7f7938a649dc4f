"""What every test has: one thread a worker, a seed, tables as they were. No test needs a GPU."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

# Workers of pytest-xdist share the processor: more threads would only wait for one another. Before
# torch is imported, and for what tests start as well.
if "PYTEST_XDIST_WORKER" in os.environ:
    for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    # What tests start imports the package dozens of times: compiled once, whatever is set outside.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False

import numpy as np
import pytest
import torch
from stand_ins import CHROMIUM, make_record

from lib.base.tables import Table
from lib.maps.methods import METHODS
from lib.networks.backbones import BACKBONES
from lib.networks.sources import WEIGHTS
from lib.people.stored.shards import write_shard
from lib.study import extension
from lib.study.comparisons import COMPARISONS
from lib.study.profiles import PROFILES


@pytest.fixture(autouse=True)
def _signals_are_heard():
    """As in a terminal: a shell starts what it runs in the background deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def tables(monkeypatch):
    """The tables, and what can be imported, are as before afterwards."""
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
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (4, 14, 14, 3)).repeat(16, axis=1).repeat(16, axis=2)
    return ((small + rng.integers(0, 64, (4, 224, 224, 3))) // 2).astype(np.uint8)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A ClickMe-format shard of 36 records: one whole batch of 32, and four more."""
    path = tmp_path / "val-0.tfrecords"
    write_shard(path, (make_record(i, label=i % 5) for i in range(36)))
    return path


@pytest.fixture
def no_real_data(tmp_path, monkeypatch):
    """The paper profile looks for its files in an empty folder, whatever this machine has."""
    rows = [
        replace(row, data=tmp_path) if row.key == "paper" else row
        for row in PROFILES.values()
    ]  # fmt: skip
    monkeypatch.setattr("lib.study.choices.PROFILES", Table("profile", rows))
