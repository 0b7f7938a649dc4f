"""What the readers share: names that stay in the folder, fixations as arrays, large JSON."""

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
    """A problem that stops nothing: what is left out although no file is damaged."""

    __slots__ = ()


def first_folder(folder: Path, places: Iterable[str], needs: Sequence[str]) -> Path | None:
    """The first of these subfolders ("" is the folder) in which all the needed paths lie."""
    for place in places:
        if all(is_there(folder / place / need) for need in needs):
            return folder / place
    return None


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder; not where nobody may look."""
    try:
        return path.exists()
    except OSError:
        return False


def files_in(place: Path, pattern: str) -> list[Path]:
    """The files in a folder whose names match, by name; none where there is no such folder.

    Files that begin with a dot are left out: other systems' notes on the files of that name.
    """
    try:
        found = [path for path in place.glob(pattern) if not path.name.startswith(".")]
        return sorted(path for path in found if path.is_file())
    except OSError:
        return []


def folders_in(place: Path) -> list[Path]:
    """The folders in a folder, by name; none where there is no such folder."""
    try:
        return sorted(path for path in place.iterdir() if path.is_dir())
    except OSError:
        return []


def require_within(folder: Path, path: Path) -> Path:
    """The path. Raises StoredError for a link out of the folder, or for what is no file."""
    try:
        found = file_within(folder, path, str(path))
    except ValueError as error:
        raise StoredError(str(error)) from None
    if found is None:
        raise StoredError(f"{path} is not there: fetch it, or choose another folder")
    return found


def file_within(folder: Path, path: Path, name: str) -> Path | None:
    """The path, None where there is no such file.

    name : what errors call it
    Raises ValueError for a link out of the folder, and for what nobody can look at.
    """
    try:
        if not path.is_file():
            return None
        out = leads_out(folder, path)
    except (OSError, RuntimeError) as error:  # too long a name, links in a circle
        raise ValueError(f"{name} cannot be read: {error}") from None
    if out:
        raise ValueError(f"{name} {LEADS_OUT}")
    return path


def image_in(folder: Path, places: Iterable[Path], name: object) -> Path | None:
    """The image of this name in the first place that has it, None for none.

    name : as a data file tells it: a file's name, without any folder
    Raises ValueError for another name, and for a link out of the folder.
    """
    refuse_path(name)
    for place in places:
        if path := file_within(folder, place / str(name), shown(name)):
            return path
    return None


def refuse_path(name: object) -> None:
    """Raise ValueError unless this is a file's name, which leads nowhere."""
    plain = isinstance(name, str) and name.isprintable() and name.strip(". ")
    if not plain or set(str(name)) & set('/\\:"<>|?*'):
        raise ValueError(f"{shown(name)} is no name of a file; a path may not stand here")


def shown(value: object) -> str:
    """Somebody else's value, for a message."""
    return printable(ascii(str(value))[1:-1][:80])


def looked_at(folder: Path, image: Path, trials: Iterable[Trial], plus: float = 0) -> Looked:
    """An image with the fixations of its observers.

    plus : what is added to x and y
    What is marked as lost (a coordinate that is no number, or both -1) is no fixation; the others
    keep their places in the scanpath. Raises ValueError for arrays that do not fit together.
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
                f"{shown(who)} has {len(at)} fixations and {lasted.size} durations: both are needed"
            )
        lost = ~np.isfinite(at).all(1) | (at == -1).all(1)
        if not (np.isfinite(lasted[~lost]) & (lasted[~lost] >= 0)).all():
            raise ValueError(f"{shown(who)} has a duration below 0, or none where others have one")
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
    """(fixation, 2) x, y of the centres of an image's marked pixels, row by row.

    marks : (height, width), not 0 where somebody looked
    Raises ValueError for another size than the image's.
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
    """What a reader returns: without images that nobody looked at; with a word on absent ones.

    absent : the images of which there are fixations and no file, as paths from the folder on
    source : where these fixations lie
    Raises StoredError where nothing at all could be read.
    """
    kept = [each for each in found if len(each.points)]
    problems = list(problems)
    if absent and not found and not problems:
        raise StoredError(
            f"{source} has fixations on {len(absent)} images, and none of them is there, such as "
            f"{shown(absent[0])}: put the data set's images where its authors have them"
        )
    if absent:
        names = printable(some_of([shown(name) for name in absent]))
        everyone = len(found) + len(absent)
        problems.append(
            Note(
                f"{source}: left out for want of their files, {len(absent)} of {everyone} images "
                f"with fixations: {names}"
            )
        )
    if not kept and not problems:
        raise StoredError(f"{source} has no fixations")
    return kept, problems


def read_large_json(folder: Path, path: Path, arrays: Iterable[str] = ()) -> Any:
    """What a JSON file of a data set says.

    arrays : the keys whose lists of numbers become arrays at once, for the sake of memory; null
             is no number
    Raises StoredError naming the file.
    """
    require_within(folder, path)
    keys = tuple(arrays)

    def compact(said: dict) -> dict:
        for key in keys:
            if isinstance(said.get(key), list):
                try:
                    said[key] = np.array(said[key], np.float64)
                except (ValueError, TypeError, OverflowError):
                    said[key] = None  # which is told where it is used
        return said

    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"it is larger than {LARGEST_JSON // 2**30} GiB")
        return json.loads(path.read_bytes(), object_hook=compact)
    except RecursionError:
        raise StoredError(f"{path} cannot be read: it is nested too deep") from None
    except (OSError, ValueError) as error:
        raise StoredError(f"{path} is no readable JSON: {shown(error)}; fetch it again") from None
