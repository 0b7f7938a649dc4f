"""CAT2000: `Stimuli/<category>/` and `FIXATIONLOCS/<category>/` of its training set.

Each `.mat` of FIXATIONLOCS contains `fixLocs`, a matrix of the image's size that is 1 wherever
somebody looked. It has no observers, no order and no durations, and several fixations of one pixel
count once. A pixel's fixation is assumed to lie at its centre.

Observers are in `allFixData.mat`, as a `containers.Map`, which only MATLAB can read. pysaliency
converts it to HDF5 files with the help of MATLAB or Octave; use these (layout `pysaliency`).
"""

from __future__ import annotations

from pathlib import Path

from ..part import StoredError
from ..viewing import Looked
from .matlab import read_mat
from .reading import (
    IMAGES,
    files_in,
    first_folder,
    folders_in,
    image_in,
    looked_at,
    marked_pixels,
    told,
)

_PLACES = ("", "trainSet")
_IMAGES, _MARKS = "Stimuli", "FIXATIONLOCS"


def holds(folder: Path) -> bool:
    return first_folder(folder, _PLACES, (_IMAGES, _MARKS)) is not None


def read(folder: Path) -> tuple[list[Looked], list[str]]:
    root = first_folder(folder, _PLACES, (_IMAGES, _MARKS))
    if root is None:
        raise StoredError(f"{folder} lacks {_IMAGES} or {_MARKS}: unpack trainSet.zip here")
    found, problems, absent = [], [], []
    for category in folders_in(root / _MARKS):
        place = root / _IMAGES / category.name
        for path in files_in(category, "*.mat"):
            try:
                image = next(
                    filter(None, (image_in(folder, [place], path.stem + s) for s in IMAGES)),
                    None,
                )
                if image is None:
                    absent.append(f"{_IMAGES}/{category.name}/{path.stem}{IMAGES[0]}")
                    continue
                at = marked_pixels(read_mat(folder, path, "fixLocs"), image)
                found.append(looked_at(folder, image, [("", at, None)]))
            except StoredError as error:
                problems.append(str(error))
            except ValueError as error:
                problems.append(f"{path}: {error}")
    return told(found, problems, absent, root / _MARKS)
