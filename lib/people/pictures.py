"""Picture files as pixels: upright, in colour, refused by name where they are none."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

# Whatever a file is called: Pillow hands PostScript, for one, to a program that runs it.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF", "AVIF", "JPEG2000")


def open_picture(source: Path | BinaryIO) -> Image.Image:
    """As Pillow opens a file, if it is of a format that holds pixels and nothing to run."""
    Image.init()
    return Image.open(source, formats=[f for f in _FORMATS if f in Image.OPEN])


def read_picture(
    source: Path | BinaryIO, name: str = "", at_least: tuple[int, int] | None = None
) -> Image.Image:
    """A picture file in RGB: turned as its EXIF says, transparency on white.

    source   : where the file is, or its bytes as an open file
    name     : what errors call it; "" for the path
    at_least : a size that is enough: JPEGs of twice that or more are decoded at a half or less
    Raises ValueError naming the file if it is no readable picture.
    """
    name = name or str(source)
    try:
        with open_picture(source) as opened:
            if at_least:
                opened.draft("RGB", at_least)
            if opened.mode.startswith(("I", "F")):
                raise OSError(f"its {opened.mode} pixels have no 8-bit meaning; save it as 8-bit")
            upright = ImageOps.exif_transpose(opened)
            if not upright.has_transparency_data:
                return upright.convert("RGB")
            upright = upright.convert("RGBA")
    except UnidentifiedImageError:
        raise ValueError(f"{name} is no readable picture: its format is not known") from None
    # Pillow's readers of damaged files raise whatever their format makes of it.
    except (OSError, SyntaxError, ValueError, RuntimeError, TypeError, IndexError, KeyError,
            AttributeError, OverflowError, MemoryError, struct.error,
            Image.DecompressionBombError) as error:  # fmt: skip
        raise ValueError(f"{name} is no readable picture: {error}") from None
    white = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(white, upright).convert("RGB")
