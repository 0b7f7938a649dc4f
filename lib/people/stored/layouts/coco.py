"""COCO-Search18 and COCO-FreeView: images of COCO on a screen of 1680 x 1050, fixations in JSON.

A JSON file is a list of trials: `name` (the image's file), `subject`, `X`, `Y` and `T` (ms), which
include the fixation at the centre with which a trial begins, `length` and `split`. COCO-Search18
also has `task` (what was searched for), `condition` (present or absent) and `correct`. The images
are distributed at the size of the screen, with COCO's own in the middle of black; images of
COCO's own size are assumed to be scaled to fit the screen. X and Y are an eye tracker's positions
on the screen, from its upper left edge, and are used unchanged.

COCO-Search18: `images/<task>/<name>` (target present), `coco_search18_images_TA/<task>/<name>`
(absent), `coco_search18_fixations_*.json`. Where people look depends on the task, so an image that
was searched for two things counts as two, each in its task's folder. All trials count, whether
answered correctly or not. Files of another split repeat trials, which count once.

COCO-FreeView: `COCOFreeView_fixations_*.json`, and the same images, in any of these folders or in
`images` itself; each image counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..part import StoredError
from ..viewing import Looked
from .reading import (
    Trial,
    files_in,
    folders_in,
    image_in,
    looked_at,
    read_large_json,
    refuse_path,
    shown,
    told,
)

SCREEN = (1680, 1050)
_SEARCH = "coco_search18_fixations_*.json"
_FREE = "COCOFreeView_fixations_*.json"
_PRESENT = ("images", "COCOSearch18-images-TP/images")
_ABSENT = ("coco_search18_images_TA", "COCOSearch18-images-TA/coco_search18_images_TA")
_ARRAYS = ("X", "Y", "T")

Find = Callable[[dict[str, Any]], "Path | None"]


def holds_search(folder: Path) -> bool:
    return bool(_files(folder, _SEARCH))


def holds_free(folder: Path) -> bool:
    return bool(_files(folder, _FREE))


def read_search(folder: Path) -> tuple[list[Looked], list[str]]:
    return _read(folder, _SEARCH, lambda trial: _of_task(folder, trial))


def read_free(folder: Path) -> tuple[list[Looked], list[str]]:
    above = [folder / place for place in (*_PRESENT, *_ABSENT)]
    places = [*above, *(task for place in above for task in folders_in(place))]
    known: dict[str, Path | None] = {}

    def find(trial: dict[str, Any]) -> Path | None:
        name = trial.get("name")
        refuse_path(name)
        if name not in known:
            known[name] = image_in(folder, places, name)
        return known[name]

    return _read(folder, _FREE, find)


def _files(folder: Path, pattern: str) -> list[Path]:
    """Return matching files in the folder and one level below, as the archives unpack."""
    return files_in(folder, pattern) + files_in(folder, f"*/{pattern}")


def _of_task(folder: Path, trial: dict[str, Any]) -> Path | None:
    task = trial.get("task")
    refuse_path(task)
    tasks = dict.fromkeys([task, task.replace(" ", "_")])
    places = [folder / place / name for place in (*_PRESENT, *_ABSENT) for name in tasks]
    return image_in(folder, places, trial.get("name"))


def _read(folder: Path, pattern: str, find: Find) -> tuple[list[Looked], list[str]]:
    paths = _files(folder, pattern)
    if not paths:
        raise StoredError(f"{folder} lacks {pattern}")
    problems: list[str] = []
    absent: dict[str, None] = {}
    trials: dict[Path, list[Trial]] = {}
    damaged: set[Path] = set()
    known: set[tuple] = set()
    for path in paths:
        said = read_large_json(folder, path, _ARRAYS)
        if not isinstance(said, list):
            raise StoredError(f"{path} is not a list of trials; fetch it again")
        for number, trial in enumerate(said, 1):
            image = None
            try:
                if not isinstance(trial, dict):
                    raise ValueError("is not a trial")
                image = find(trial)
                if image is None:
                    task = [trial["task"]] if isinstance(trial.get("task"), str) else []
                    absent["/".join([_PRESENT[0], *task, trial["name"]])] = None
                    continue
                made = _trial(trial)
                same = (image, made[0], made[1].tobytes(), made[2].tobytes())
                if same not in known:
                    known.add(same)
                    trials.setdefault(image, []).append(made)
            except ValueError as error:
                problems.append(f"{path}, trial {number}: {error}")
                if image is not None:
                    damaged.add(image)
    found = []
    for image in sorted(trials.keys() - damaged):
        try:
            found.append(looked_at(folder, image, trials[image]))
        except ValueError as error:
            problems.append(f"{image}: {error}")
    return told(found, problems, [*absent], _sources(paths))


def _trial(trial: dict[str, Any]) -> tuple[str, np.ndarray, np.ndarray]:
    subject = trial.get("subject")
    if type(subject) not in (int, str):
        raise ValueError(f"subject is {shown(subject)}, expected a number or a name")
    for name in _ARRAYS:
        if not isinstance(trial.get(name), np.ndarray) or trial[name].ndim != 1:
            raise ValueError(f"{name} is not a list of numbers")
    x, y, lasted = (trial[name] for name in _ARRAYS)
    if not len(x) == len(y) == len(lasted) == trial.get("length", len(x)):
        raise ValueError(
            f"X, Y, T and length say {len(x)}, {len(y)}, {len(lasted)} and "
            f"{shown(trial.get('length'))} fixations"
        )
    return str(subject), np.column_stack([x, y]), lasted


def _sources(paths: Sequence[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
