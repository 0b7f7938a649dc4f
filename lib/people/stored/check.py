"""Checking a folder of one's own images and human maps: `dcls-check FOLDER`.

Every file is read as a run reads it, all problems are reported at once, and nothing is scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from ...base.progress_bar import progress_bar
from . import Part, Read, StoredError, StoredImage, layout_in, list_parts
from .folders import LABELS, Files, files_below
from .gaze import BLUR, GAZE
from .layouts import LAYOUTS, Note
from .part import NO_LABEL, STORED_SIZE
from .shards import Shard

CLASSES = 1000
_BATCH = 32  # fewer images are not a whole batch, so `published` scores none of them
_NAMED = 5
_MANY_OUTSIDE = 0.1  # of all fixations


@dataclass
class Found:
    """What a folder contains.

    problems : what is wrong, each with its file, row or record
    classes  : {class index: number of readable images}
    unlabelled : number of readable images without a class
    constant : ids of the images whose human map has a single value
    points, outside : number of gaze points that are used, and of those outside their images,
                      which are skipped
    beside   : number of used gaze points outside the square that models see
    observers : number of observers of each readable image, 0 if they are unknown
    names    : names of all observers, if they have names
    unused   : files that nothing names
    """

    problems: list[str] = field(default_factory=list)
    classes: Counter[int] = field(default_factory=Counter)
    unlabelled: int = 0
    constant: list[str] = field(default_factory=list)
    points: int = 0
    outside: int = 0
    beside: int = 0
    observers: list[int] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    unused: list[str] = field(default_factory=list)

    @property
    def images(self) -> int:
        """The number of readable images."""
        return self.classes.total() + self.unlabelled


def check(
    place: Path,
    classes: int = CLASSES,
    read: Read = Read(),  # noqa: B008 - frozen
) -> Found:
    """Read every image, map, point and label of a folder or shard; no problem raises.

    classes : labels must lie in 0 … classes - 1
    read    : how folders are read

    Returns what was found, with every problem.
    """
    found = Found()
    try:
        parts, found.problems = list_parts(place, read)
    except (StoredError, OSError) as error:
        found.problems.append(str(error))
        return found
    with progress_bar(total=sum(map(len, parts)), unit="image", leave=False) as bar:
        for part in parts:
            _read(part, classes, found, bar)
    if not place.is_dir() or layout_in(place, read) not in LAYOUTS:  # data sets have other files
        found.unused = _unused(place, parts, found.problems)
    return found


def _read(part: Part, classes: int, found: Found, bar: tqdm) -> None:
    for index, image in enumerate(part.read(range(len(part)))):
        bar.update()
        if not isinstance(image, StoredImage):
            found.problems.append(str(image))
        elif image.label != NO_LABEL and not 0 <= image.label < classes:
            found.problems.append(
                f"{part.where(index)}: label {image.label} is outside 0 … {classes - 1}"
            )
        else:
            if image.label == NO_LABEL:
                found.unlabelled += 1
            else:
                found.classes[image.label] += 1
            if image.heatmap.min() == image.heatmap.max():
                found.constant.append(part.image_id(index))
            if (fixations := part.fixations(index)) is not None:
                found.points += len(fixations.at)
                found.outside += fixations.outside
                found.beside += fixations.beside
            _read_observers(part, index, found)


def _read_observers(part: Part, index: int, found: Found) -> None:
    try:
        found.observers.append(len(part.observer_maps(index)))
        found.names.update(part.observers(index))
    except StoredError as error:
        if str(error) not in found.problems:  # one file contains all observers of a shard
            found.problems.append(str(error))


def _unused(place: Path, parts: Sequence[Part], problems: Sequence[str]) -> list[str]:
    """Return the files below a listed folder that neither a list nor a problem names."""
    if not place.is_dir() or any(isinstance(part, Shard) for part in parts):
        return []
    used = {path for part in parts if isinstance(part, Files) for some in part.files
            for path in some}  # fmt: skip
    used |= {place / name for name in (LABELS, *GAZE, BLUR)}
    told = "\n".join(problems)
    names = [
        path.relative_to(place).as_posix()
        for path in files_below(place)[0]
        if path not in used and path.name[0] != "."
    ]
    return sorted(name for name in names if name not in told)


def told(place: Path, found: Found) -> str:
    """Return the findings in words, one line per problem."""
    lines = [f"{place}: images with human maps that can be read: {found.images}"]
    if found.classes:
        numbers = f"{min(found.classes)} to {max(found.classes)}"
        lines[0] += f", of {len(found.classes)} classes ({numbers})"
    if found.unlabelled:
        lines.append(f"without a class: {found.unlabelled}; `--target predicted` needs none")
    if found.points:
        lines.append(
            f"gaze points: {found.points}; outside their images, skipped: {found.outside}; "
            f"outside the {STORED_SIZE} x {STORED_SIZE} square: {found.beside}"
        )
    if found.observers:
        lines.append(f"observers: {_counted(found)}")
    if found.constant:
        lines.append(
            f"human maps with a single value, skipped in means because they rank nothing: "
            f"{len(found.constant)} ({_some(found.constant)})"
        )
    if found.outside > _MANY_OUTSIDE * (found.points + found.outside):
        lines.append(
            "many fixations lie outside their images: if points are in screen pixels, give the "
            "screen's size, such as --gaze screen=1920x1080"
        )
    if 0 < found.images < _BATCH and not found.points:
        lines.append(f"fewer than {_BATCH} images: `--protocols corrected` scores them, "
                     "published scores only whole batches")  # fmt: skip
    if found.unused:
        lines.append(f"files that nothing names: {len(found.unused)} ({_some(found.unused)})")
    notes = [problem for problem in found.problems if isinstance(problem, Note)]
    lines += [f"skipped: {note}" for note in notes]
    problems = [problem for problem in found.problems if problem not in notes]
    lines.append(f"problems: {len(problems)}")
    return "\n".join(lines + [f"  {problem}" for problem in problems])


def _counted(found: Found) -> str:
    fewest, most = min(found.observers), max(found.observers)
    if not most:
        return "unknown"
    each = f"{fewest} to {most} per image" if fewest < most else f"{most} per image"
    return f"{len(found.names)}, {each}" if found.names else each


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + ", …" * (len(names) > _NAMED)
