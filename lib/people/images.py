"""Image files as pixels: upright, in colour, refused by name where they are none."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

# Whatever a file is called: Pillow hands PostScript, for one, to a program that runs it.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF", "AVIF", "JPEG2000")


_TURNED = range(5, 9)  # EXIF orientations that exchange width and height
MOST_PIXELS = Image.MAX_IMAGE_PIXELS  # 89 million; Pillow itself refuses twice as many


def refuse_huge(width: int, height: int) -> None:
    """Raise ValueError for a size that a header of a few bytes may claim, and no memory holds."""
    if width * height > MOST_PIXELS:
        raise ValueError(_huge(f"{width} x {height} pixels"))


def _huge(size: str) -> str:
    most = MOST_PIXELS // 10**6
    return f"its header says {size}, and at most {most} million pixels are read; make it smaller"


def open_image(source: Path | BinaryIO) -> Image.Image:
    """As Pillow opens a file, if it is of a format that holds pixels and nothing to run, and not
    huge; no pixel is decoded yet. Raises ValueError and what Pillow raises."""
    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it is refused below
            opened = Image.open(source, formats=[f for f in _FORMATS if f in Image.OPEN])
    except Image.DecompressionBombError:
        raise ValueError(_huge("far more")) from None
    try:
        refuse_huge(*opened.size)
    except ValueError:
        opened.close()
        raise
    return opened


def upright_size(path: Path) -> tuple[int, int] | None:
    """Width and height as EXIF turns an image, from its header; None where it has none."""
    try:
        with open_image(path) as opened:
            turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED
            return opened.size[::-1] if turned else opened.size
    except Exception:  # whatever a decoder makes of a damaged file; said when it is read
        return None


def read_image(
    source: Path | BinaryIO, name: str = "", at_least: tuple[int, int] | None = None
) -> Image.Image:
    """An image file in RGB: turned as its EXIF says, transparency on white.

    source   : where the file is, or its bytes as an open file
    name     : what errors call it; "" for the path
    at_least : a size that is enough: JPEGs of twice that or more are decoded at a half or less
    Raises ValueError naming the file if it is no readable image.
    """
    name = name or str(source)
    try:
        with open_image(source) as opened:
            if at_least:
                opened.draft("RGB", at_least)
            if opened.mode.startswith(("I", "F")):
                raise OSError(f"its {opened.mode} pixels have no 8-bit meaning; save it as 8-bit")
            upright = ImageOps.exif_transpose(opened)
            if not upright.has_transparency_data:
                return upright.convert("RGB")
            upright = upright.convert("RGBA")
    except UnidentifiedImageError:
        raise ValueError(f"{name} is no readable image: its format is not known") from None
    # Pillow's readers of damaged files raise whatever their format makes of it.
    except (OSError, SyntaxError, ValueError, RuntimeError, TypeError, IndexError, KeyError,
            AttributeError, OverflowError, MemoryError, struct.error,
            Image.DecompressionBombError) as error:  # fmt: skip
        raise ValueError(f"{name} is no readable image: {error}") from None
    white = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(white, upright).convert("RGB")
