"""Toronto: `fixdens/Original Image Set/1.jpg` … and `fixdens/origfixdata.mat`.

`white` is a cell array; its n-th cell is a matrix of the size of `n.jpg` that is 1 wherever
somebody looked. It has no observers, no order and no durations. A pixel's fixation is assumed to
lie at its centre. The observers' own files (`Raw`) are not in the images' pixels, and are not read.
"""

from __future__ import annotations

from pathlib import Path

from ..part import StoredError
from ..viewing import Looked
from .matlab import read_mat
from .reading import (
    first_folder,
    image_in,
    looked_at,
    marked_pixels,
    told,
)

_PLACES = ("", "fixdens", "eyetrackingdata/fixdens")
_IMAGES, _MARKS = "Original Image Set", "origfixdata.mat"


def holds(folder: Path) -> bool:
    return first_folder(folder, _PLACES, (_IMAGES, _MARKS)) is not None


def read(folder: Path) -> tuple[list[Looked], list[str]]:
    root = first_folder(folder, _PLACES, (_IMAGES, _MARKS))
    if root is None:
        raise StoredError(f"{folder} lacks {_IMAGES} or {_MARKS}: unpack eyetrackingdata.zip here")
    path = root / _MARKS
    cells = read_mat(folder, path, "white")
    if not isinstance(cells, list):
        raise StoredError(f"{path}: white is not a cell array; fetch the file again")
    found, problems, absent = [], [], []
    for number, marks in enumerate(cells, 1):
        try:
            image = image_in(folder, [root / _IMAGES], f"{number}.jpg")
            if image is None:
                absent.append(f"{_IMAGES}/{number}.jpg")
                continue
            at = marked_pixels(marks, image)
            found.append(looked_at(folder, image, [("", at, None)]))
        except ValueError as error:
            problems.append(f"{path}, white{{{number}}}: {error}")
    return told(found, problems, absent, path)
