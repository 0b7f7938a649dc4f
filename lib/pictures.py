"""Picture files as pixels: upright, in colour, refused by name where they are none."""

from __future__ import annotations

import struct
from pathlib import Path

from PIL import Image, ImageOps


def read_picture(path: Path) -> Image.Image:
    """A picture file in RGB: turned as its EXIF says, transparency on white.

    Raises ValueError naming the file if it is no readable picture.
    """
    try:
        with Image.open(path) as opened:
            if opened.mode.startswith(("I", "F")):
                raise OSError(f"its {opened.mode} pixels have no 8-bit meaning; save it as 8-bit")
            upright = ImageOps.exif_transpose(opened).convert("RGBA")
    # Pillow's readers of damaged files raise whatever their format makes of it.
    except (OSError, SyntaxError, ValueError, RuntimeError, TypeError, IndexError, KeyError,
            AttributeError, OverflowError, MemoryError, struct.error,
            Image.DecompressionBombError) as error:  # fmt: skip
        raise ValueError(f"{path} is no readable picture: {error}") from None
    white = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(white, upright).convert("RGB")
