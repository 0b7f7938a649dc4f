"""pysaliency's HDF5 files: `stimuli.hdf5` and `fixations.hdf5`, or pairs with the same ending.

`stimuli_train.hdf5` belongs to `fixations_train.hdf5`. Images must be files (`FileStimuli`) below
the folder; stimuli stored as arrays in the HDF5 file are refused, and the message says what to do.
Fixations may have the types Fixations (1.0 to 1.2), FixationTrains (1.0 to 1.3), Scanpaths and
ScanpathFixations (1.0).

In pysaliency the integer part of x is a pixel's column, from 0. If all coordinates of a file are
integers, they are columns and rows, and fixations are assumed to lie at these pixels' centres.
Otherwise x and y are used unchanged, from the upper left edge.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from ..part import StoredError
from ..viewing import Looked
from .hdf5 import array, member, text, with_hdf5
from .reading import (
    file_within,
    files_in,
    looked_at,
    require_within,
    shown,
    told,
)

_STIMULI, _FIXATIONS = "stimuli", "fixations"
_TRAINS = {"1.0", "1.1", "1.2", "1.3"}
_VERSIONS = {
    "Fixations": {"1.0", "1.1", "1.2"}, "FixationTrains": _TRAINS, "Scanpaths": {"1.0"},
    "ScanpathFixations": {"1.0"},
}  # fmt: skip
_DURATIONS = ("durations", "duration")


def holds(folder: Path) -> bool:
    return bool(_pairs(folder))


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    found = []
    for stimuli in files_in(folder, f"{_STIMULI}*.hdf5"):
        fixations = stimuli.with_name(re.sub(f"^{_STIMULI}", _FIXATIONS, stimuli.name))
        if fixations in files_in(folder, f"{_FIXATIONS}*.hdf5"):
            found.append((stimuli, fixations))
    return found


def read(folder: Path) -> tuple[list[Looked], list[str]]:
    pairs = _pairs(folder)
    if not pairs:
        raise StoredError(f"{folder} lacks stimuli.hdf5 or fixations.hdf5")
    found, problems, absent = [], [], []
    known: dict[Path, Path] = {}
    for stimuli, fixations in pairs:
        names = with_hdf5(require_within(folder, stimuli), _file_names)
        images, who, order, points = with_hdf5(require_within(folder, fixations), _recorded)
        if len(images) and not 0 <= images.min() <= images.max() < len(names):
            raise StoredError(
                f"{fixations}: n goes from {images.min()} to {images.max()}, but {stimuli} has "
                f"{len(names)} images: the two files do not belong together"
            )
        for index in np.unique(images):
            try:
                image = _below(folder, names[index])
                if image is None:
                    absent.append(names[index])
                    continue
                if image in known:
                    raise ValueError(f"{shown(names[index])} is in {known[image].name}, too")
                known[image] = stimuli
                some = images == index
                names_of = who[some] if len(who) else who
                found.append(_of_image(folder, image, names_of, order[some], points[some]))
            except ValueError as error:
                problems.append(f"{stimuli}, image {index}: {error}")
    return told(found, problems, absent, pairs[0][1])


def _of_image(
    folder: Path, image: Path, who: np.ndarray, order: np.ndarray, points: np.ndarray
) -> Looked:
    lost = ~np.isfinite(points[:, :2]).all(1) | (points[:, :2] == -1).all(1)
    checked = looked_at(folder, image, [("", points[~lost, :2], points[~lost, 2])])
    return replace(checked, who=who[~lost] if len(who) else who, order=order[~lost])


def _below(folder: Path, name: str) -> Path | None:
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    outside = posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts
    if outside or not name.isprintable() or not name.strip(". "):
        raise ValueError(
            f"{shown(name)} leads out of the folder: put the images below it and save the stimuli "
            "again with pysaliency"
        )
    path = folder / windows.as_posix()  # also works for files saved on Windows
    return file_within(folder, path, shown(name))


def _kind(file: Any) -> tuple[str, str]:
    return text(file.attrs.get("type", "")), text(file.attrs.get("version", ""))


def _file_names(file: Any) -> list[str]:
    kind, _ = _kind(file)
    if kind == "Stimuli":
        raise StoredError(
            "contains images as arrays, without files: save each as .png below this folder, "
            "then write pysaliency.FileStimuli(filenames).to_hdf5(…) in place of this file"
        )
    if kind != "FileStimuli":
        raise StoredError(f"is of the type {shown(kind) or 'none'}, expected FileStimuli")
    return [text(name) for name in array(member(file, "filenames")).ravel()]


def _recorded(file: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return each fixation's image, observer, position in the scanpath, and x, y, duration."""
    kind, version = _kind(file)
    if version not in _VERSIONS.get(kind, ()):
        known = ", ".join(_VERSIONS)
        raise StoredError(
            f"is of the type {shown(kind) or 'none'} {shown(version)}, expected one of {known} of "
            "a version that is supported: save it again with another version of pysaliency"
        )
    if kind == "ScanpathFixations":
        file = member(file, "scanpaths")
        kind, version = _kind(file)
    images, who, order, points = _one_by_one(file) if kind == "Fixations" else _in_rows(file, kind)
    at = points[:, :2]
    if len(at) and (at[np.isfinite(at)] % 1 == 0).all():
        points[:, :2] += np.where(at == -1, 0, 0.5)
    return images.astype(np.int64), who.astype(str), order, points


def _one_by_one(file: Any) -> tuple[np.ndarray, ...]:
    x, y, images = (array(member(file, name)).ravel() for name in ("x", "y", "n"))
    who = next((array(member(file, n)) for n in ("subject", "subjects") if n in file), None)
    if who is None:
        who = np.zeros(0, str)
    who = _whole(who.ravel())
    if "lengths" in file:  # the length of the path up to here
        order = array(member(file, "lengths")).ravel()
    else:
        order = np.isfinite(array(member(file, "x_hist"))).sum(-1)
    lasted = _found(file, _DURATIONS)
    lasted = np.ones(len(x)) if lasted is None else lasted.ravel()
    _require_alike({"x": x, "y": y, "n": images, "lengths": order, "durations": lasted}, len(x))
    if len(who) != len(x):
        _require_alike({"subject": who}, 0)
    return images, who, order.astype(np.int64), np.column_stack([x, y, lasted]).astype(np.float64)


def _in_rows(file: Any, kind: str) -> tuple[np.ndarray, ...]:
    """Return the same from files with one scanpath per row, padded with NaN."""
    trains = kind == "FixationTrains"
    names = ("train_xs", "train_ys", "train_ns") if trains else ("xs", "ys", "n")
    x, y, images = (array(member(file, name)) for name in names)
    if x.ndim != 2 or x.shape != y.shape:
        raise StoredError(f"{names[0]} is {x.shape} and {names[1]} {y.shape}, expected rows alike")
    if trains:
        who = array(member(file, "train_subjects"))
        group = "scanpath_fixation_attributes"
    else:
        who = _found(member(file, "scanpath_attributes"), ("subject",))
        group = "fixation_attributes"
    lasted = _found(member(file, group), _DURATIONS) if group in file else None
    lasted = np.ones(x.shape) if lasted is None else lasted
    _require_alike({names[2]: images, "durations": lasted}, len(x))
    if lasted.shape != x.shape:
        raise StoredError(f"durations are {lasted.shape}, expected {x.shape}")
    there = np.isfinite(x)
    for name in ("train_lengths", "lengths", "length"):
        if name in file:
            lengths = array(member(file, name))
            _require_alike({name: lengths}, len(x))
            there = np.arange(x.shape[1]) < lengths[:, None]
            break
    row, order = np.nonzero(there)
    points = np.column_stack([each[row, order] for each in (x, y, lasted)]).astype(np.float64)
    if who is None:
        return images[row], np.zeros(0, str), order, points
    _require_alike({"subjects": who}, len(x))
    return images[row], _whole(who)[row], order, points


def _found(group: Any, names: Iterable[str]) -> np.ndarray | None:
    return next((array(member(group, name)) for name in names if name in group), None)


def _whole(who: np.ndarray) -> np.ndarray:
    """Return observers as names: 3.0 becomes "3"."""
    if who.dtype.kind == "f" and (who % 1 == 0).all():
        who = who.astype(np.int64)
    return np.array([text(name) for name in who.tolist()], str)


def _require_alike(arrays: dict[str, np.ndarray], count: int) -> None:
    for name, values in arrays.items():
        if len(values) != count:
            raise StoredError(f"{name} has {len(values)} entries, expected {count}")
