"""What the readers share: checks of file names, fixations as arrays, large JSON files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....base.words import printable, some_of
from ...images import upright_size
from ..folders import LEADS_OUT, leads_out
from ..part import StoredError
from ..viewing import Looked

IMAGES = (".jpg", ".jpeg", ".png")
LARGEST_JSON = 2**31  # bytes; the data sets' own files have up to some hundred million

# An observer, (fixation, 2 or more) x, y as recorded, and (fixation,) durations or None.
Trial = tuple[str, np.ndarray, "np.ndarray | None"]


class Note(str):
    """A problem that stops nothing: images are skipped although no file is damaged."""

    __slots__ = ()


def first_folder(folder: Path, places: Iterable[str], needs: Sequence[str]) -> Path | None:
    """Return the first subfolder ("" for the folder) that contains all the needed paths."""
    for place in places:
        if all(is_there(folder / place / need) for need in needs):
            return folder / place
    return None


def is_there(path: Path) -> bool:
    """Return whether a file or folder exists; False if it may not be accessed."""
    try:
        return path.exists()
    except OSError:
        return False


def files_in(place: Path, pattern: str) -> list[Path]:
    """Return the files in a folder whose names match, sorted by name; none without the folder.

    Files that begin with a dot are skipped: they are other systems' notes on files.
    """
    try:
        found = [path for path in place.glob(pattern) if not path.name.startswith(".")]
        return sorted(path for path in found if path.is_file())
    except OSError:
        return []


def folders_in(place: Path) -> list[Path]:
    """Return the folders in a folder, sorted by name; none without the folder."""
    try:
        return sorted(path for path in place.iterdir() if path.is_dir())
    except OSError:
        return []


def require_within(folder: Path, path: Path) -> Path:
    """Return the path. Raises StoredError unless it is a file, and not a link out of the folder."""
    try:
        found = file_within(folder, path, str(path))
    except ValueError as error:
        raise StoredError(str(error)) from None
    if found is None:
        raise StoredError(f"{path} does not exist: fetch it, or choose another folder")
    return found


def file_within(folder: Path, path: Path, name: str) -> Path | None:
    """Return the path, or None if the file does not exist.

    name : what errors call it

    Raises ValueError for a link out of the folder, and for a file that may not be accessed.
    """
    try:
        if not path.is_file():
            return None
        out = leads_out(folder, path)
    except (OSError, RuntimeError) as error:  # too long a name, or links in a circle
        raise ValueError(f"{name} cannot be read: {error}") from None
    if out:
        raise ValueError(f"{name} {LEADS_OUT}")
    return path


def image_in(folder: Path, places: Iterable[Path], name: object) -> Path | None:
    """Return the image of this name from the first place that has it, or None.

    name : the name in a data file: a file name without any folder

    Raises ValueError for another kind of name, and for a link out of the folder.
    """
    refuse_path(name)
    for place in places:
        if path := file_within(folder, place / str(name), shown(name)):
            return path
    return None


def refuse_path(name: object) -> None:
    """Raise ValueError unless this is a file name without a path."""
    plain = isinstance(name, str) and name.isprintable() and name.strip(". ")
    if not plain or set(str(name)) & set('/\\:"<>|?*'):
        raise ValueError(f"{shown(name)} is not the name of a file; a path is not allowed here")


def shown(value: object) -> str:
    """Return a foreign value as a message may show it."""
    return printable(ascii(str(value))[1:-1][:80])


def looked_at(folder: Path, image: Path, trials: Iterable[Trial], plus: float = 0) -> Looked:
    """Return an image with the fixations of its observers.

    plus : what is added to x and y

    Entries marked as lost (a NaN coordinate, or both -1) are not fixations; the others keep
    their positions in the scanpath. Raises ValueError for arrays that do not fit together.
    """
    points, names, order = [np.zeros((0, 3))], [], [np.zeros(0, np.int64)]
    for who, recorded, durations in trials:
        at = np.asarray(recorded, np.float64)
        if not at.size:
            continue
        if at.ndim != 2 or at.shape[1] < 2:
            raise ValueError(f"fixations of {shown(who)} are {at.shape}, expected (fixation, 2)")
        at = at[:, :2]
        lasted = np.ones(len(at)) if durations is None else np.asarray(durations, np.float64)
        if lasted.shape != (len(at),):
            raise ValueError(
                f"{shown(who)} has {len(at)} fixations and {lasted.size} durations: the two differ"
            )
        lost = ~np.isfinite(at).all(1) | (at == -1).all(1)
        if not (np.isfinite(lasted[~lost]) & (lasted[~lost] >= 0)).all():
            raise ValueError(f"{shown(who)} has a duration below 0, or lacks one that others have")
        points.append(np.column_stack([at + plus, lasted])[~lost])
        names += [who] * int((~lost).sum())
        order.append(np.flatnonzero(~lost))
    return Looked(
        name=image.relative_to(folder).as_posix(),
        image=image,
        points=np.concatenate(points),
        who=np.array([] if set(names) == {""} else names, str),
        order=np.concatenate(order),
    )


def marked_pixels(marks: object, image: Path) -> np.ndarray:
    """Return x, y of the centres of an image's marked pixels, row by row: (fixation, 2).

    marks : (height, width), not 0 where somebody looked

    Raises ValueError if it does not have the image's size.
    """
    if not isinstance(marks, np.ndarray) or marks.ndim != 2:
        raise ValueError("expected a matrix of the image's size that marks fixations")
    size = upright_size(image)
    if size is not None and marks.shape != size[::-1]:
        raise ValueError(
            f"the matrix is {marks.shape[1]} wide and {marks.shape[0]} high, the image "
            f"{size[0]} and {size[1]}: they do not belong together"
        )
    rows, columns = np.nonzero(marks)
    return np.column_stack([columns, rows]) + 0.5


def told(
    found: Sequence[Looked], problems: Sequence[str], absent: Sequence[str], source: object
) -> tuple[list[Looked], list[str]]:
    """Return what a reader returns: images with fixations, and problems including absent images.

    absent : the images that have fixations but no file, as paths below the folder
    source : where these fixations are stored

    Raises StoredError if nothing could be read.
    """
    kept = [each for each in found if len(each.points)]
    problems = list(problems)
    if absent and not found and not problems:
        raise StoredError(
            f"{source} has fixations on {len(absent)} images, none of which exist, such as "
            f"{shown(absent[0])}: put the data set's images where its authors have them"
        )
    if absent:
        names = printable(some_of([shown(name) for name in absent]))
        everyone = len(found) + len(absent)
        problems.append(
            Note(
                f"{source}: skipped because their files are missing, {len(absent)} of {everyone} "
                f"images with fixations: {names}"
            )
        )
    if not kept and not problems:
        raise StoredError(f"{source} has no fixations")
    return kept, problems


def read_large_json(folder: Path, path: Path, arrays: Iterable[str] = ()) -> Any:
    """Return the content of a data set's JSON file.

    arrays : the keys whose lists of numbers become arrays at once, to save memory; null is not
             a number

    Raises StoredError, which names the file.
    """
    require_within(folder, path)
    keys = tuple(arrays)

    def compact(said: dict) -> dict:
        for key in keys:
            if isinstance(said.get(key), list):
                try:
                    said[key] = np.array(said[key], np.float64)
                except (ValueError, TypeError, OverflowError):
                    said[key] = None  # the place that uses it reports the problem
        return said

    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"it is larger than {LARGEST_JSON // 2**30} GiB")
        return json.loads(path.read_bytes(), object_hook=compact)
    except RecursionError:
        raise StoredError(f"{path} cannot be read: it is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise StoredError(f"{path} is not readable JSON: {shown(error)}; fetch it again") from None
