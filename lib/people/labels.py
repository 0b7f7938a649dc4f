"""The classes of a folder's images: from class folders, from a list, or unknown.

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

# The ways in which classes are found.
AUTO, CSV, FOLDERS, IMAGENET, LIST, NONE = "auto", "csv", "folders", "imagenet", "list", "none"
LAYOUTS = (AUTO, CSV, FOLDERS, IMAGENET, LIST, NONE)
_SYNSET = re.compile(r"n\d{8}")
_SHOWN = 3  # problems in a message


@dataclass(frozen=True)
class LabelledImage:
    """An image's file, its path below the folder, its position among all of them, and its class."""

    path: Path
    name: str
    place: int
    label: int | None


@dataclass(frozen=True)
class LabelledFolder:
    """The images of a folder, with their classes.

    layout  : how their classes were found, one of LAYOUTS except "auto"
    classes : how many there are; 0 if the layout does not say
    names   : the names of the classes; () if they have only numbers
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
    """Return the images of a folder with their classes.

    layout : csv      `labels.csv` in the folder: `image,label`, where the label is a number
             imagenet its folders are synsets (n02123045), numbered in ImageNet's order
             folders  its folders are classes, numbered by name as in torchvision's ImageFolder
             list     the text after each image in `annotations`: a number or a synset
             none     classes are unknown
             auto     the csv or the list if there is one; otherwise the folders, as synsets only
                      for models with 1000 classes; otherwise none
    annotations : a text file, with one image of the folder at the start of each line; only these
                  images are returned
    classes : how many classes the model has, 0 for as many as the folder has; a label outside
              them is an error
    limit   : at most this many images, drawn from all with a fixed seed; a smaller limit's images
              are among a larger one's. 0 for all

    Raises ImageFolderError (UnknownName for a layout), which names what is wrong.
    """
    if layout not in LAYOUTS:
        raise unknown_name("way of finding classes", layout, LAYOUTS)
    if limit < 0:
        raise ImageFolderError(f"the limit must be 0 or more, got {limit}")
    if not folder.is_dir():
        raise ImageFolderError(f"{folder} is not a folder of images")
    if layout == CSV or (layout == AUTO and (folder / LABELS).is_file()):
        if annotations is not None:
            raise ImageFolderError(f"{LABELS} already names the images: omit the list")
        return _made(folder, CSV, _of_csv(folder), classes, (), limit)
    rest = annotated_images(folder, annotations) if annotations else {}
    paths = list(rest) or listed_images(folder)
    own = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if layout == AUTO:
        layout = _found_out(folder, paths, own, list(rest.values()), classes)
    names: tuple[str, ...] = ()
    if layout == LIST:
        if annotations is None:
            raise ImageFolderError("the layout 'list' needs a list of images and classes")
        labels = [(path, _from_list(rest[path], annotations, path)) for path in paths]
    elif layout in (FOLDERS, IMAGENET):
        names = _synsets() if layout == IMAGENET else tuple(own)
        labels = list(_of_folders(folder, paths, names, layout))
        if classes and len(names) != classes:
            raise ImageFolderError(
                f"{folder} has {len(names)} classes ({_some(names)}), but the model has {classes}: "
                "use the model of this data set, or the whole data set (a class without images is "
                "an empty folder), or another source of classes "
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
    """Return how the classes are stored, if the user did not say it."""
    if rest and all(rest):  # the list gives a class for each image
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
                f"{path} lies beside the class folders: move it into one of them, or use another "
                f"source of classes ({', '.join(LAYOUTS[1:])})"
            )
        if first not in number_of:
            what = "not a synset of ImageNet" if layout == IMAGENET else "not a class"
            raise ImageFolderError(f"{path}: its folder {first} is {what}")
        yield path, number_of[first]


def _from_list(text: str, annotations: Path, path: Path) -> int:
    try:
        return _synsets().index(text) if _SYNSET.fullmatch(text) else class_index(text)
    except ValueError:
        raise ImageFolderError(
            f"{shown(annotations)}: {path.name} is followed by {text[:50]!r}, which is not a "
            "class: write a number from 0, or a synset of ImageNet"
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
            if known and labels.get(name) == label:  # a row of another observer
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
