"""Toy notebooks whose results lie below a temporary folder."""

from __future__ import annotations

import pytest
from toy_runs import Runner


@pytest.fixture
def runner(tmp_path, monkeypatch) -> Runner:
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path / "output")
    monkeypatch.setattr("lib.study.places.FIGURES", tmp_path / "figures")
    return Runner(tmp_path)


@pytest.fixture
def figures(runner) -> str:
    """A cell that says where figures belong."""
    return f"from pathlib import Path; FIGURES = Path({str(runner.study.places.figures)!r})"


@pytest.fixture
def declared(runner) -> str:
    return f"`{runner.figure()}`"
