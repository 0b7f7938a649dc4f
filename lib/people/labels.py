"""The classes of a folder's images: told by class folders, by a list, or by nothing.

No human maps are needed. Source of ImageNet's order: timm's `ImageNetInfo`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from timm.data import ImageNetInfo

from ..base.paths import shown
from ..base.tables import unknown_name
from ..base.words import in_lines
from .image_folders import ImageFolderError, annotated_images, listed_images
from .stored import StoredError
from .stored.folders import (
    LABELS,
    class_index,
    inside,
    names_observers,
    read_rows,
    refuse_repeated,
    spelled_once,
)

# How the classes are told.
AUTO, CSV, FOLDERS, IMAGENET, LIST, NONE = "auto", "csv", "folders", "imagenet", "list", "none"
LAYOUTS = (AUTO, CSV, FOLDERS, IMAGENET, LIST, NONE)
_SYNSET = re.compile(r"n\d{8}")
_SHOWN = 3  # problems in a message


@dataclass(frozen=True)
class LabelledImage:
    """An image's file, its path below the folder, its place among all of these, its class."""

    path: Path
    name: str
    place: int
    label: int | None


@dataclass(frozen=True)
class LabelledFolder:
    """Images of a folder.

    layout  : how their classes are told, one of LAYOUTS but "auto"
    classes : how many there are, 0 where the layout does not tell
    names   : of the classes, () where they have none but their numbers
    """

    images: tuple[LabelledImage, ...]
    layout: str
    classes: int = 0
    names: tuple[str, ...] = ()


@cache
def _synsets() -> tuple[str, ...]:
    return tuple(ImageNetInfo().label_names())


def labelled_images(
    folder: Path,
    layout: str = AUTO,
    annotations: Path | None = None,
    classes: int = 0,
    limit: int = 0,
) -> LabelledFolder:
    """The images of a folder with their classes.

    layout : csv      `labels.csv` in the folder: `image,label`, the label a number
             imagenet its folders are synsets (n02123045), of which ImageNet's order makes numbers
             folders  its folders are classes, numbered by name as torchvision's ImageFolder does
             list     what follows each image in `annotations`: a number or a synset
             none     no class is told
             auto     the csv or the list if there is one; else the folders, as synsets for
                      networks of 1000 classes only; else none
    annotations : a text file, one image of the folder at the start of each line: these alone
    classes : how many the network has, 0 for as many as there are; no label may lie outside
    limit   : so many at most, drawn from all by a fixed seed; a smaller limit's are among a
              larger one's. 0 for all
    Raises ImageFolderError (UnknownName for a layout) naming what is wrong.
    """
    if layout not in LAYOUTS:
        raise unknown_name("way of telling classes", layout, LAYOUTS)
    if limit < 0:
        raise ImageFolderError(f"the limit must be 0 or more, got {limit}")
    if not folder.is_dir():
        raise ImageFolderError(f"{folder} is no folder of images")
    if layout == CSV or (layout == AUTO and (folder / LABELS).is_file()):
        if annotations is not None:
            raise ImageFolderError(f"{LABELS} names the images: leave the list out")
        return _made(folder, CSV, _of_csv(folder), classes, (), limit)
    rest = annotated_images(folder, annotations) if annotations else {}
    paths = list(rest) or listed_images(folder)
    own = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if layout == AUTO:
        layout = _found_out(folder, paths, own, list(rest.values()), classes)
    names: tuple[str, ...] = ()
    if layout == LIST:
        if annotations is None:
            raise ImageFolderError("classes from a list need the list")
        labels = [(path, _from_list(rest[path], annotations, path)) for path in paths]
    elif layout in (FOLDERS, IMAGENET):
        names = _synsets() if layout == IMAGENET else tuple(own)
        labels = list(_of_folders(folder, paths, names, layout))
        if classes and len(names) != classes:
            raise ImageFolderError(
                f"{folder} has {len(names)} classes ({_some(names)}), and the network answers by "
                f"{classes}: give the network of this data set, or the whole data set (a class "
                "without images is an empty folder), or tell the classes otherwise "
                f"({', '.join(LAYOUTS[1:])})"
            )
        classes = len(names)
    else:
        labels = [(path, None) for path in paths]
    return _made(folder, layout, labels, classes, names, limit)


def _made(
    folder: Path,
    layout: str,
    labels: Sequence[tuple[Path, int | None]],
    classes: int,
    names: tuple[str, ...],
    limit: int,
) -> LabelledFolder:
    outside = [
        f"{path}: label {label} is outside 0 … {classes - 1}"
        for path, label in labels
        if label is not None and (label < 0 or (classes and label >= classes))
    ]
    if outside:
        raise ImageFolderError(in_lines(outside, _SHOWN))
    taken: Iterable[int] = range(len(labels))
    if 0 < limit < len(labels):
        taken = sorted(np.random.default_rng(0).permutation(len(labels))[:limit].tolist())
    images = tuple(
        LabelledImage(path, path.relative_to(folder).as_posix(), place, label)
        for place in taken
        for path, label in [labels[place]]
    )
    return LabelledFolder(images, layout, classes, names)


def _found_out(
    folder: Path, paths: Sequence[Path], own: Sequence[str], rest: Sequence[str], classes: int
) -> str:
    """How the classes are told, where that was not said."""
    if rest and all(rest):  # somebody wrote them down
        return LIST
    if any(path.parent != folder for path in paths):
        synsets = own and all(_SYNSET.fullmatch(name) for name in own)
        return IMAGENET if synsets and classes in (0, len(_synsets())) else FOLDERS
    return NONE


def _of_folders(
    folder: Path, paths: Sequence[Path], names: Sequence[str], layout: str
) -> Iterator[tuple[Path, int]]:
    number_of = {name: number for number, name in enumerate(names)}
    for path in paths:
        first, *below = path.relative_to(folder).parts
        if not below:
            raise ImageFolderError(
                f"{path} lies beside the class folders: move it into one of them, or tell the "
                f"classes otherwise ({', '.join(LAYOUTS[1:])})"
            )
        if first not in number_of:
            what = "no synset of ImageNet's" if layout == IMAGENET else "no class"
            raise ImageFolderError(f"{path}: its folder {first} is {what}")
        yield path, number_of[first]


def _from_list(text: str, annotations: Path, path: Path) -> int:
    try:
        return _synsets().index(text) if _SYNSET.fullmatch(text) else class_index(text)
    except ValueError:
        raise ImageFolderError(
            f"{shown(annotations)}: {path.name} is followed by {text[:50]!r}, which is no class: a "
            "number from 0, or a synset of ImageNet's"
        ) from None


def _of_csv(folder: Path) -> list[tuple[Path, int]]:
    found: list[tuple[Path, int]] = []
    problems: list[str] = []
    lines: dict[str, int] = {}
    labels: dict[str, int] = {}
    try:
        rows = read_rows(folder / LABELS, ("image", "label"))
    except (StoredError, OSError) as error:
        raise ImageFolderError(str(error)) from None
    known = names_observers(rows)
    for number, row in rows:
        try:
            path, label = inside(folder, row["image"]), class_index(row["label"])
            name = spelled_once(row["image"])
            if known and labels.get(name) == label:  # another observer's row
                continue
            refuse_repeated(lines, name, number)
            labels[name] = label
            found.append((path, label))
        except ValueError as error:
            problems.append(f"{folder / LABELS}, line {number}: {error}")
    if problems:
        raise ImageFolderError(in_lines(problems, _SHOWN))
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 5 else f"{names[0]}, {names[1]} … {names[-1]}"
