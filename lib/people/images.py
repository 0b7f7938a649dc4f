"""Image files as pixels: upright and in colour; other files are refused by name."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

# Only these, whatever a file is called: Pillow passes PostScript, for example, to an interpreter.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF", "AVIF", "JPEG2000")


_TURNED = range(5, 9)  # EXIF orientations that exchange width and height
MOST_PIXELS = Image.MAX_IMAGE_PIXELS  # 89 million; Pillow itself refuses twice as many


def refuse_huge(width: int, height: int) -> None:
    """Raise ValueError for a size that a small header may claim, but that no memory can hold."""
    if width * height > MOST_PIXELS:
        raise ValueError(_huge(f"{width} x {height} pixels"))


def _huge(size: str) -> str:
    most = MOST_PIXELS // 10**6
    return f"its header says {size}, and at most {most} million pixels are read; make it smaller"


def open_image(source: Path | BinaryIO) -> Image.Image:
    """Open an image file with Pillow, without decoding any pixel.

    Only formats that contain pixels and nothing executable are opened, up to `MOST_PIXELS`.
    Raises ValueError for a larger image, and what Pillow raises.
    """
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
    """Return an image's width and height after its EXIF rotation, from its header, or None."""
    try:
        with open_image(path) as opened:
            turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED
            return opened.size[::-1] if turned else opened.size
    except Exception:  # a damaged file may raise anything; reading it reports the error
        return None


def read_image(
    source: Path | BinaryIO, name: str = "", at_least: tuple[int, int] | None = None
) -> Image.Image:
    """Read an image file in RGB: rotated as its EXIF says, with transparency on white.

    source   : the file's path, or its bytes as an open file
    name     : what errors call the file; "" for its path
    at_least : a sufficient size; a JPEG that is at least twice as large is decoded at half the
               size or less

    Raises ValueError, which names the file, if it is not a readable image.
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
        raise ValueError(f"{name} is not a readable image: its format is unknown") from None
    # For a damaged file, Pillow's readers may raise almost any exception.
    except (OSError, SyntaxError, ValueError, RuntimeError, TypeError, IndexError, KeyError,
            AttributeError, OverflowError, MemoryError, struct.error,
            Image.DecompressionBombError) as error:  # fmt: skip
        raise ValueError(f"{name} is not a readable image: {error}") from None
    white = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(white, upright).convert("RGB")
