"""OSIE: `data/eye/fixations.mat` and `data/stimuli/`, as its repository has them.

`fixations` is a cell array; each cell contains a struct with `img`, the image's file, and
`subjects`, a cell array of structs with `fix_x`, `fix_y` and `fix_duration` (ms).

x and y are an eye tracker's positions, with fractions, and are used unchanged, from the upper
left edge. The authors' own script rounds them to MATLAB's pixels, which begin at 1. The two differ
by half a pixel, and the data set does not say which is meant.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..part import StoredError
from ..viewing import Looked
from .matlab import entry, numbers, read_mat, structs
from .reading import Trial, first_folder, image_in, looked_at, told

_PLACES = ("data", "")
_EYE, _IMAGES = "eye/fixations.mat", "stimuli"


def holds(folder: Path) -> bool:
    return first_folder(folder, _PLACES, (_EYE, _IMAGES)) is not None


def read(folder: Path) -> tuple[list[Looked], list[str]]:
    root = first_folder(folder, _PLACES, (_EYE, _IMAGES))
    if root is None:
        raise StoredError(f"{folder} lacks data/{_EYE} or data/{_IMAGES}")
    path = root / _EYE
    found, problems, absent = [], [], []
    value = read_mat(folder, path, "fixations")
    try:
        images = [*structs(value)]
    except ValueError as error:
        raise StoredError(f"{path}, fixations: {error}") from None
    for number, image in enumerate(images, 1):
        try:
            if image is None:
                raise ValueError("is empty")
            name = entry(image, "img")
            file = image_in(folder, [root / _IMAGES], name)
            if file is None:
                absent.append(f"{_IMAGES}/{name}")
                continue
            found.append(looked_at(folder, file, _trials(image)))
        except ValueError as error:
            problems.append(f"{path}, fixations{{{number}}}: {error}")
    return told(found, problems, absent, path)


def _trials(image: dict) -> list[Trial]:
    trials = []
    for number, subject in enumerate(structs(entry(image, "subjects")), 1):
        if subject is not None:
            x, y, lasted = (
                numbers(subject, name).ravel() for name in ("fix_x", "fix_y", "fix_duration")
            )
            if len(x) != len(y):
                raise ValueError(f"subject {number} has {len(x)} fix_x and {len(y)} fix_y")
            trials.append((f"{number:02}", np.column_stack([x, y]), lasted))
    return trials
