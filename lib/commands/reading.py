"""The options that define how a folder of images and human maps is read."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ..people.stored import PLAIN
from ..people.stored.fit import CROP, FITS
from ..people.stored.layouts import LAYOUTS


def add_reading(add: Callable[..., object]) -> None:
    """Add the options. add : `add_argument` of a parser or group"""
    add("--layout", default="", metavar="NAME",
        help="the layout of --images, if it is not recognised: "
        f"{', '.join((*PLAIN, *LAYOUTS))}")  # fmt: skip
    add("--fit", default=CROP, metavar="HOW",
        help=f"how images and human maps become square: {', '.join(FITS)} "
        f"(default: {CROP}, the centred square)")  # fmt: skip
    add("--gaze", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="how gaze becomes maps: sigma_degrees=1 pixels_per_degree=35 weigh=counts "
        "skip_first=1 screen=1680x1050 placed=letterbox outside='leave out' (docs/data-sets.md; "
        "default: gaze.json, or the data set's own)")  # fmt: skip


def read_as(options: argparse.Namespace) -> dict[str, object]:
    """Return these options as `Study.from_profile` and `lib.people.stored.Read` take them."""
    return {"layout": options.layout, "fit": options.fit, "gaze": tuple(options.gaze)}
