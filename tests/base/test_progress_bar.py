"""Bars are text where a terminal, or the runner, reads them, and a widget in JupyterLab."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
import tqdm
import tqdm.notebook

from lib.base.paths import STAGING
from lib.base.progress_bar import progress_bar
from lib.runner.progress import Progress


@pytest.fixture
def forgotten(monkeypatch):
    """tqdm asks once for where it is: at the import of these modules."""
    for name in ("tqdm.auto", "tqdm.autonotebook", "ipykernel.zmqshell"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture
def in_a_kernel(forgotten, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))


def test_a_kernel_shows_a_widget(in_a_kernel, monkeypatch, capsys):
    monkeypatch.delenv(STAGING, raising=False)
    bar = progress_bar(range(3), desc="maps", display=False)
    assert isinstance(bar, tqdm.notebook.tqdm)
    assert list(bar) == [0, 1, 2]
    assert not capsys.readouterr().err  # JupyterLab would print it on red


def test_a_kernel_under_the_runner_writes_the_text_that_the_runner_reads(in_a_kernel, monkeypatch):
    monkeypatch.setenv(STAGING, "somewhere")
    written = io.StringIO()
    assert list(progress_bar(range(3), desc="maps", unit="model", file=written)) == [0, 1, 2]
    running = Progress(io.StringIO()).begin("03_heatmaps")
    running.write(written.getvalue())
    try:
        assert "maps: 100% 3/3" in running.state()
    finally:
        running.end("ok", 0.0)


def test_a_terminal_gets_text(forgotten, monkeypatch, capsys):
    monkeypatch.delenv(STAGING, raising=False)
    with progress_bar(total=2, desc="maps") as bar:
        assert not isinstance(bar, tqdm.notebook.tqdm)
        bar.update(2)
    assert "2/2" in capsys.readouterr().err
