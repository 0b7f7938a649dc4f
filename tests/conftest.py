"""Small, seeded stand-ins; nothing here downloads, and no test needs a GPU."""

from __future__ import annotations

import os
import shutil
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

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib.base.paths import ROOT
from lib.base.tables import Table
from lib.maps.methods import METHODS
from lib.networks.backbones import BACKBONES, THE_EIGHT
from lib.networks.building import build_network
from lib.networks.models import Provenance, StudyModel
from lib.networks.sources import WEIGHTS
from lib.people.stored.shards import Record, encode_jpeg, write_shard
from lib.study import extension
from lib.study.profiles import PROFILES

EIGHT = [b.key for b in THE_EIGHT]
ALL_VARIANTS = [(key, dcls) for key in EIGHT for dcls in (False, True)]
VARIANT_IDS = [f"{key}{'_dcls' if dcls else ''}" for key, dcls in ALL_VARIANTS]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# One backbone of each family.
FAMILIES = ["resnet50", "convnext_tiny", "caformer_s18", "convformer_s18", "fastvit_sa24"]


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
    kept = [(table, list(table)) for table in (BACKBONES, METHODS, WEIGHTS)]
    modules = set(sys.modules)
    monkeypatch.setattr(extension, "_loaded", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for table, keys in kept:
        table.keep(keys)
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(tempfile.gettempdir()):
            del sys.modules[name]


def mini(key: str, dcls: bool = False, classes: int = 5) -> StudyModel:
    """A miniature with random weights whose DCLS positions are spread widely."""
    backbone = BACKBONES[key]
    network = build_network(backbone, dcls, mini=True, num_classes=classes)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(".P"):
                parameter.uniform_(-backbone.dcls.size // 2 + 1, backbone.dcls.size // 2)
    return StudyModel(network, backbone, Provenance(key, "random", "mini")).eval()


def narrow_vgg(key: str) -> StudyModel:
    """VGG-16, of whose layers only the first fully connected one is narrower: a fifth of the
    weights, without which making it takes seconds."""
    network = build_network(BACKBONES[key], False, mlp_ratio=0.05)
    return StudyModel(network, BACKBONES[key], Provenance(key, "random", "full")).eval()


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
def pictures() -> np.ndarray:
    """(4, 224, 224, 3) uint8 with structure at several scales."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (4, 14, 14, 3)).repeat(16, axis=1).repeat(16, axis=2)
    return ((small + rng.integers(0, 64, (4, 224, 224, 3))) // 2).astype(np.uint8)


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    return encode_jpeg(pixels, quality)


def make_record(index: int, label: int = 3, side: int = 256) -> Record:
    rng = np.random.default_rng(index)
    picture = rng.integers(0, 256, (8, 8, 3)).repeat(side // 8, 0).repeat(side // 8, 1)
    heatmap = np.zeros((side, side), dtype=np.uint8)
    row, column = rng.integers(30, side - 60, 2)
    heatmap[row : row + 40, column : column + 50] = rng.integers(100, 255)
    return Record(jpeg(picture.astype(np.uint8)), jpeg(heatmap), label)


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


def copy_lib(folder: Path, *skipped: str) -> None:
    """The package's code into a folder, and what is compiled of it: compiling takes many seconds.

    skipped : names to leave out, beside what another process is writing just now
    """
    ignore = shutil.ignore_patterns("*.pyc.*", "*.nb?.*", *skipped)
    shutil.copytree(ROOT / "lib", folder / "lib", ignore=ignore)


def write_notebook(
    folder: Path, name: str, *cells: str, reads: str = "", writes: str = "", parameters: str = ""
) -> Path:
    """A numbered notebook with these code cells, declared and parametrised as the study's are."""
    tagged = new_code_cell(
        parameters or 'profile: str = "demo"\nlimit: int = 0\nbatch_size: int = 32'
    )
    tagged.metadata["tags"] = ["parameters"]
    contract = f"**Reads** {reads} · **Writes** {writes} · seconds"
    notebook = new_notebook(
        cells=[new_markdown_cell("# A title"), new_markdown_cell(contract), tagged]
        + [new_code_cell(source) for source in cells],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path
