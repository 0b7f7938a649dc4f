"""Learned attention maps of the embedded example: `python -m lib.demo.attention`.

As `dcls-lcam`, beside the miniatures, on the scenes that they were trained on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from ..commands import lcam
from ..maps.learned.training import Pictures
from ..networks.backbones import Backbone
from ..networks.preprocessing import resize_pictures
from ..people.picture_folders import ArrayPictures
from .delivered import TRAINING, delivered

PICTURES = 256


def demo_pictures(count: int = 0) -> Callable[[Backbone], Pictures]:
    """The first training scenes, as each backbone sees them; 0 for `PICTURES` of them."""
    pictures, _, _ = delivered(TRAINING, count or PICTURES, empty=False)
    return lambda backbone: ArrayPictures(
        resize_pictures(pictures, backbone.preprocessing), "embedded example, training scenes"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    return lcam.main(["--profile", "demo", *words], demo_pictures)


if __name__ == "__main__":
    raise SystemExit(main())
