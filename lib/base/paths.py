"""Where files are: beside the package in a checkout, in the working folder for an installation.

A checkout's package is the folder `lib`, with notebooks/, data/ and figures/ beside it. A wheel
contains it as `dcls_alignment`, with the gaze example inside; nothing is ever written there.
"""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = __name__.split(".")[0]  # "lib" in a checkout
NAME = "dcls_alignment"  # the name under which it can be imported everywhere
CODE = Path(__file__).resolve().parents[1]
IS_CHECKOUT = CODE.name == "lib"
STAGING = "DCLS_STAGING"  # the environment variable that names the runner's staging folder
HOME_VARIABLE = "DCLS_ALIGNMENT_HOME"  # names another folder in which an installation writes
_WORKING = CODE.parent if IS_CHECKOUT else Path.cwd()

if IS_CHECKOUT:
    ROOT = _WORKING
    DATA, FIGURES, GAZE = ROOT / "data", ROOT / "figures", ROOT / "data" / "gaze"
    OUTPUT = DATA / "output"
else:
    # The hyphen keeps Python from importing a folder of results as the package.
    ROOT = _WORKING / Path(os.environ.get(HOME_VARIABLE) or "dcls-alignment").expanduser()
    DATA, FIGURES, GAZE = ROOT / "data", ROOT / "figures", CODE / "gaze_example"
    OUTPUT = ROOT / "output"
NOTEBOOKS = ROOT / "notebooks"
DEMO = DATA / "demo"
PHOTOGRAPHS = DATA / "photographs"  # the user's own; they replace those that packages ship
PUBLISHED_SCORES = DATA / "published_scores.csv"  # the user may fill it in

# The end of messages about files that an installation lacks.
ONLY_IN_A_CHECKOUT = (
    "only in a checkout of the project, and this is an installation: `git clone` it and run "
    "`pip install -e .` there"
)


class _Staging:
    folder = ""


def remember_staging() -> None:
    """Remember the runner's staging folder, as a notebook may change its environment."""
    _Staging.folder = os.environ.get(STAGING) or _Staging.folder


def staging() -> str:
    """Return the runner's staging folder, "" where no runner is at work."""
    return os.environ.get(STAGING) or _Staging.folder


def shown(path: Path) -> str:
    """Return the path as messages show it: relative to the project's folder (for an
    installation, to the working folder) if it lies there."""
    return str(path.relative_to(_WORKING)) if path.is_relative_to(_WORKING) else str(path)
