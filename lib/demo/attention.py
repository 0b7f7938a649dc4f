"""Train learned attention maps of the embedded example: `python -m lib.demo.attention`.

It works like `dcls-lcam`, beside the miniatures, on the scenes that they were trained on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from ..commands import lcam
from ..maps.learned.training import Images
from ..networks.backbones import Backbone
from ..networks.preprocessing import resize_images
from ..people.image_folders import ArrayImages
from .delivered import TRAINING, delivered

IMAGES = 256


def demo_images(count: int = 0) -> Callable[[Backbone], Images]:
    """The first `count` training scenes as each backbone sees them; 0 means `IMAGES` of them."""
    images, _, _ = delivered(TRAINING, count or IMAGES, empty=False)
    return lambda backbone: ArrayImages(
        resize_images(images, backbone.preprocessing), "embedded example, training scenes"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    return lcam.main(["--profile", "demo", *words], demo_images)


if __name__ == "__main__":
    raise SystemExit(main())
