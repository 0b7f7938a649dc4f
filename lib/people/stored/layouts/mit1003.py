"""MIT1003: `ALLSTIMULI/*.jpeg` and `DATA/<observer>/<image>.mat`, as its archives unpack.

Each `.mat` contains one struct, named after the file (its first 63 characters), with
`DATA(1).eyeData`: x and y of the eye in pixels of the image, 240 samples a second; negative values
are blinks. The data set contains no fixations: the authors' script computes them from the samples.
The code here is an independent implementation of the script's criteria (`fixations_of`); it was
not compared with the script's output.

x and y are used unchanged, from the upper left edge. The authors use their integer part as
MATLAB's row and column, which begin at 1, so an uncertainty of one pixel remains.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from ..part import StoredError
from ..viewing import Looked
from .matlab import numbers, read_mat
from .reading import (
    files_in,
    first_folder,
    folders_in,
    image_in,
    looked_at,
    told,
)

_IMAGES, _DATA = "ALLSTIMULI", "DATA"
_NO_IMAGES = ("shuff_stimnames", "CalibrationData")  # the order of images, and the calibration
_SUFFIXES = (".jpeg", ".jpg")

# The script's criteria: a saccade begins where the eye's speed changes by more than 6 degrees of 34
# pixels per second within five samples. Speeds are means of four steps. A stretch of 50 ms or less
# between two saccades is not a fixation. The slowing down is searched for within 25 samples.
_RATE = 240
_CHANGE = 6 * 34 / (_RATE / 4)  # pixels per sample; the script sums windows of four samples
_SMOOTHED, _APART = 4, 5
_SHORT = 50 * _RATE // 1000
_SOUGHT = 25
_LEAST = 3  # consecutive samples at which a saccade starts


def holds(folder: Path) -> bool:
    return first_folder(folder, ("",), (_IMAGES, _DATA)) is not None


def read(folder: Path) -> tuple[list[Looked], list[str]]:
    observers = folders_in(folder / _DATA)
    files: dict[str, list[Path]] = {}
    for observer in observers:
        for path in files_in(observer, "*.mat"):
            if path.stem not in _NO_IMAGES:
                files.setdefault(path.stem, []).append(path)
    if not files:
        raise StoredError(
            f"{folder / _DATA} has no observer's folder with .mat files: unpack DATA.zip here"
        )
    found, problems, absent = [], [], []
    for stem, paths in sorted(files.items()):
        try:
            image = _image(folder, stem)
        except ValueError as error:
            problems.append(f"{paths[0]}: {error}")
            continue
        if image is None:
            absent.append(f"{_IMAGES}/{stem}{_SUFFIXES[0]}")
            continue
        try:
            trials = []
            for path in paths:
                seen = fixations_of(_samples(folder, path))
                trials.append((path.parent.name, seen[:, :2], seen[:, 2]))
            found.append(looked_at(folder, image, trials))
        except StoredError as error:
            problems.append(str(error))
        except ValueError as error:
            problems.append(f"{path}: {error}")
    return told(found, problems, absent, folder / _DATA)


def _image(folder: Path, stem: str) -> Path | None:
    for suffix in _SUFFIXES:
        if image := image_in(folder, [folder / _IMAGES], stem + suffix):
            return image
    return None


def _samples(folder: Path, path: Path) -> np.ndarray:
    value = {"file": read_mat(folder, path)}
    return numbers(value, "file", "DATA", "eyeData")


def fixations_of(samples: np.ndarray) -> np.ndarray:
    """Return fixations from eye positions: (fixation, 3) x, y, duration in ms.

    samples : (sample, 2 or more) x and y, 240 samples a second

    A fixation lies between two saccades, at the median of its samples. A saccade begins where the
    smoothed speed rises faster than the criterion for three or more samples, and ends with the
    following fall. A stretch between two saccades that is too short belongs to them. Blinks are
    treated like other samples: their fixations lie outside the image.

    Raises ValueError for another shape.
    """
    samples = np.asarray(samples, np.float64)
    if samples.ndim != 2 or samples.shape[1] < 2 or not len(samples):
        raise ValueError(f"eyeData is {samples.shape}, expected (sample, 2): x and y")
    x_and_y = samples[:, :2]
    ends = [(-1, -1), *_saccades(x_and_y), (len(samples), len(samples))]
    fixations = []
    for (_, before), (after, _) in pairwise(ends):
        some = x_and_y[before + 1 : after]
        seen = [column[~np.isnan(column)] for column in some.T]
        if len(some):
            at = [np.median(column) if len(column) else np.nan for column in seen]
            fixations.append([*at, 1000 * len(some) / _RATE])
    return np.array(fixations).reshape(-1, 3)


def _saccades(x_and_y: np.ndarray) -> list[tuple[int, int]]:
    """Return the first and the last sample of each saccade."""
    count = len(x_and_y)
    steps = np.concatenate([[0], np.hypot(*np.diff(x_and_y, axis=0).T)])
    speed = np.convolve(steps, np.full(_SMOOTHED, 1 / _SMOOTHED))[:count]
    change = np.zeros(count)
    if count > _APART + 1:
        change[1 : count - _APART] = speed[_APART + 1 :] - speed[1 : count - _APART]
    falls = change < -_CHANGE
    saccades: list[tuple[int, int]] = []
    for start, end in _runs(change > _CHANGE):
        if end - start + 1 < _LEAST:
            continue
        later = _runs(falls[end + 1 : end + 2 + _SOUGHT])
        if later:
            end += 1 + later[0][1]
        elif np.flatnonzero(change)[-1] <= end:
            end = count - 1  # the trial ends during the saccade
        else:
            continue
        if saccades and start - saccades[-1][1] <= _SHORT:
            saccades[-1] = saccades[-1][0], max(end, saccades[-1][1])
        else:
            saccades.append((start, end))
    if saccades and count - 1 - saccades[-1][1] <= _SHORT:
        saccades[-1] = saccades[-1][0], count - 1
    return saccades


def _runs(which: np.ndarray) -> list[tuple[int, int]]:
    """Return the first and the last position of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], which.astype(np.int8), [0]])))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]
