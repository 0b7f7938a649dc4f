"""The options that say how a folder of images and human maps is read."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ..people.stored import PLAIN
from ..people.stored.fit import CROP, FITS
from ..people.stored.layouts import LAYOUTS


def add_reading(add: Callable[..., object]) -> None:
    """Add them. add : `add_argument` of a parser or group"""
    add("--layout", default="", metavar="NAME",
        help="how --images lie there, where that is not found out: "
        f"{', '.join((*PLAIN, *LAYOUTS))}")  # fmt: skip
    add("--fit", default=CROP, metavar="HOW",
        help=f"how images that are no squares become such, human maps alike: {', '.join(FITS)} "
        f"(default: {CROP}, the centred square)")  # fmt: skip
    add("--gaze", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="how gaze becomes maps: sigma_degrees=1 pixels_per_degree=35 weigh=counts "
        "skip_first=1 screen=1680x1050 placed=letterbox outside='leave out' (docs/data-sets.md; "
        "default: gaze.json, or the data set's own)")  # fmt: skip


def read_as(options: argparse.Namespace) -> dict[str, object]:
    """What was said, as `Study.from_profile` and `lib.people.stored.Read` take it."""
    return {"layout": options.layout, "fit": options.fit, "gaze": tuple(options.gaze)}
