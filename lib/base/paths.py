"""Where things are: every path of the package starts at this file's own place."""

from __future__ import annotations

from pathlib import Path

PACKAGE = __name__.split(".")[0]  # "lib" in a checkout
ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
FIGURES = ROOT / "figures"
DATA = ROOT / "data"
DEMO = DATA / "demo"
OUTPUT = DATA / "output"
PHOTOGRAPHS = DATA / "photographs"  # a user's own, in place of those that packages ship


def shown(path: Path) -> str:
    """The path as a reader wants it: from the project's folder on, if it lies there."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


PUBLISHED_SCORES = DATA / "published_scores.csv"  # for a reader to fill in
