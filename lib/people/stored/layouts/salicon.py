"""SALICON: people moved a mouse to see parts of COCO images sharply.

There are two forms. If a folder contains both, the `.mat` files are read.

- `fixations/train/COCO_train2014_….mat`, one per image: `gaze`, a struct array with an element for
  each observer, whose `fixations` are x, y in MATLAB's pixels, which begin at 1. `location` and
  `timestamp`, the mouse's samples, are not read.
- `annotations/fixations_train2014.json`: for each image and worker a list of pairs. The release of
  2015 has (row, column), beginning at 1. The first one, of 2014, has x, y, beginning at 0, of the
  mouse's samples. The file does not say which; the reader chooses the order in which more of the
  pairs lie in their images.

A pixel's fixation is assumed to lie at its centre. Durations are not recorded. Observers have no
names in `.mat` files: a number there does not identify a person across images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..part import StoredError
from ..viewing import Looked
from .matlab import numbers, read_mat, structs
from .reading import (
    Trial,
    files_in,
    image_in,
    looked_at,
    read_large_json,
    refuse_path,
    shown,
    told,
)

_MATS = ("fixations/train", "fixations/val", "fixations", "train", "val", "")
_MAT = "COCO_*.mat"
_ANNOTATIONS = ("annotations", "annotations/train", "annotations/val", "")
_JSON = "fixations_*2014*.json"
_IMAGES = (
    "images/train", "images/val", "images", "train", "val", "train2014", "val2014",
    "images/train2014", "images/val2014", "",
)  # fmt: skip


def holds(folder: Path) -> bool:
    return any(files_in(folder / place, _MAT) for place in _MATS) or any(
        files_in(folder / place, _JSON) for place in _ANNOTATIONS
    )


def read(folder: Path) -> tuple[list[Looked], list[str]]:
    places = [folder / place for place in _IMAGES]
    if mats := [path for place in _MATS for path in files_in(folder / place, _MAT)]:
        return _read_mats(folder, places, mats)
    annotations = [path for place in _ANNOTATIONS for path in files_in(folder / place, _JSON)]
    if not annotations:
        raise StoredError(f"{folder} has neither fixations/…/{_MAT} nor annotations/{_JSON}")
    found, problems, absent = [], [], []
    for path in annotations:
        _read_json(folder, places, path, found, problems, absent)
    return told(found, problems, absent, annotations[0].parent)


# --- .mat ---------------------------------------------------------------------------------


def _read_mats(
    folder: Path, places: list[Path], paths: list[Path]
) -> tuple[list[Looked], list[str]]:
    found, problems, absent = [], [], []
    for path in paths:
        try:
            image = image_in(folder, places, f"{path.stem}.jpg")
            if image is None:
                absent.append(f"images/{path.stem}.jpg")
                continue
            gaze = structs(read_mat(folder, path, "gaze"))
            # 1 is the first pixel; its centre is at 0.5.
            found.append(looked_at(folder, image, _of_mat(gaze), plus=-0.5))
        except StoredError as error:
            problems.append(str(error))
        except ValueError as error:
            problems.append(f"{path}, gaze: {error}")
    return told(found, problems, absent, paths[0].parent)


def _of_mat(gaze: Iterator[dict | None]) -> list[Trial]:
    trials: list[Trial] = []
    for number, observer in enumerate(gaze, 1):
        if observer is not None:
            trials.append((f"{number:03}", numbers(observer, "fixations"), None))
    return trials


# --- JSON ---------------------------------------------------------------------------------


def _read_json(
    folder: Path,
    places: list[Path],
    path: Path,
    found: list[Looked],
    problems: list[str],
    absent: list[str],
) -> None:
    said = read_large_json(folder, path, ("fixations",))
    for key in ("images", "annotations"):
        if not isinstance(said, dict) or not isinstance(said.get(key), list):
            raise StoredError(f"{path} lacks a list {key}: expected SALICON's annotations")
    names: dict[Any, str] = {}
    sizes: dict[Any, tuple[float, float]] = {}
    for number, image in enumerate(said["images"], 1):
        try:
            refuse_path(image["file_name"])
            names[image["id"]] = image["file_name"]
            sizes[image["id"]] = float(image["width"]), float(image["height"])
        except (KeyError, TypeError, ValueError) as error:
            problems.append(f"{path}, image {number}: {_lacking(error)}")
    trials: dict[Any, list[Trial]] = {}
    damaged = set()
    for number, annotation in enumerate(said["annotations"], 1):
        image = annotation.get("image_id") if isinstance(annotation, dict) else None
        try:
            if image not in names:
                raise ValueError(f"image_id {shown(image)} is not one of its images")
            pairs = annotation.get("fixations")
            if not isinstance(pairs, np.ndarray) or (pairs.size and pairs.shape[1:] != (2,)):
                raise ValueError("fixations is not a list of pairs of numbers")
            who = annotation.get("worker_id", annotation.get("id", number))
            trials.setdefault(image, []).append((str(who), pairs.reshape(-1, 2), None))
        except (TypeError, ValueError) as error:
            problems.append(f"{path}, annotation {number}: {_lacking(error)}")
            if isinstance(image, int | str):
                damaged.add(image)
    rows_first = _rows_first(trials, sizes)
    for image, some in trials.items():
        if image in damaged:
            continue
        try:
            file = image_in(folder, places, names[image])
        except ValueError as error:
            problems.append(f"{path}: {error}")
            continue
        if file is None:
            absent.append(f"images/{names[image]}")
        elif rows_first:
            turned = [(who, pairs[:, ::-1], None) for who, pairs, _ in some]
            found.append(looked_at(folder, file, turned, plus=-0.5))
        else:
            found.append(looked_at(folder, file, some, plus=0.5))


def _rows_first(trials: dict[Any, list[Trial]], sizes: dict[Any, tuple[float, float]]) -> bool:
    """Return whether pairs are (row, column) from 1, also if both orders fit equally well."""
    balance = 0
    for image, some in trials.items():
        width, height = sizes[image]
        for _, pairs, _ in some:
            first, second = pairs.T
            balance += int(((first <= height) & (second <= width)).sum())
            balance -= int(((first < width) & (second < height)).sum())
    return balance >= 0


def _lacking(error: Exception) -> str:
    return f"lacks {error}" if isinstance(error, KeyError) else shown(error)
