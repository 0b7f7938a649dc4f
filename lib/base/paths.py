"""Where things are: in a checkout, beside the package; of an installation, in the working folder.

A checkout's package is the folder `lib`, with notebooks/, data/ and figures/ beside it. A wheel
carries it as `dcls_alignment`, with the example of gaze inside; nothing is ever written there.
"""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = __name__.split(".")[0]  # "lib" in a checkout
NAME = "dcls_alignment"  # by which it can be imported everywhere
CODE = Path(__file__).resolve().parents[1]
IS_CHECKOUT = CODE.name == "lib"
HOME_VARIABLE = "DCLS_ALIGNMENT_HOME"  # of an installation: another folder for what it writes
_WORKING = CODE.parent if IS_CHECKOUT else Path.cwd()

if IS_CHECKOUT:
    ROOT = _WORKING
    DATA, FIGURES, GAZE = ROOT / "data", ROOT / "figures", ROOT / "data" / "gaze"
    OUTPUT = DATA / "output"
else:
    # The hyphen: no folder of results is taken for the package.
    ROOT = _WORKING / Path(os.environ.get(HOME_VARIABLE) or "dcls-alignment").expanduser()
    DATA, FIGURES, GAZE = ROOT / "data", ROOT / "figures", CODE / "gaze_example"
    OUTPUT = ROOT / "output"
NOTEBOOKS = ROOT / "notebooks"
DEMO = DATA / "demo"
PHOTOGRAPHS = DATA / "photographs"  # a user's own, in place of those that packages ship
PUBLISHED_SCORES = DATA / "published_scores.csv"  # for a reader to fill in

# What is said of what an installation lacks.
ONLY_IN_A_CHECKOUT = (
    "only in a checkout of the project, and this is an installation: `git clone` it and run "
    "`pip install -e .` there"
)


def shown(path: Path) -> str:
    """The path as a reader wants it: from the project's folder on (of an installation, from the
    working folder on), if it lies there."""
    return str(path.relative_to(_WORKING)) if path.is_relative_to(_WORKING) else str(path)
