"""Images with human maps in ordinary files: `.npz` archives, or a folder with `labels.csv`.

Images and maps of 256x256, ClickMe's own size, are used unchanged. Others become squares of that
size (`lib.people.stored.fit`); a map must have its image's proportions. With maps of several
observers, the human map is their mean.
"""

from __future__ import annotations

import csv
import os
import re
import zipfile
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeVar

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

from ...base.words import printable
from ..images import open_image, read_image, refuse_huge
from .fit import Fit
from .part import (
    NO_LABEL,
    NO_OBSERVERS,
    Part,
    StoredError,
    StoredImage,
    digest_of,
    refuse_many_observers,
    refuse_unprintable,
)

T = TypeVar("T")

LABELS = "labels.csv"
PER_PART = 1024  # images, as in a shard
LARGEST = 2**28  # bytes of an unpacked archive
LEADS_OUT = "is a link that leads out of the folder: put the file itself there"
_COLUMNS = ("image", "map")
_MAPS = ("heatmap", "heatmaps")
_PROPORTION = 0.02  # allowed difference between width/height of a map and of its image


class Files(Part):
    """Some images of a folder; `ids` and `files` (one tuple per image) are parallel.

    fit : how images and their maps become squares
    """

    def __init__(self, name: str, ids: Sequence[str], files: Sequence[tuple[Path, ...]], fit: Fit):
        self.name, self.ids, self.files, self.fit = name, ids, files, fit

    def __len__(self) -> int:
        return len(self.ids)

    def image_id(self, index: int) -> str:
        return self.ids[index]

    def where(self, index: int) -> str:
        return str(self.files[index][0])

    def digest(self) -> str:
        contents = digest_of([path for paths in self.files for path in paths])
        return f"{contents} {[*self.ids]} {self.fit.how}"

    def read(self, indices: Sequence[int]) -> Iterator[StoredImage | StoredError]:
        for index in indices:
            try:
                yield self._read(self.one, index)
            except StoredError as error:
                yield error

    def observer_maps(self, index: int) -> np.ndarray:
        return self._read(self.by_observer, index)

    def _read(self, how: Callable[[int], T], index: int) -> T:
        try:
            return how(index)
        except StoredError:
            raise
        except Exception as error:  # a damaged file may raise anything
            raise StoredError(f"{self.where(index)}: {type(error).__name__}: {error}") from None

    @abstractmethod
    def one(self, index: int) -> StoredImage:
        """Read one image. Raises StoredError, which names the file."""

    @abstractmethod
    def by_observer(self, index: int) -> np.ndarray:
        """Return `observer_maps` of one image. Raises StoredError, which names the file."""


def in_parts(folder: Path, count: int) -> Iterator[tuple[str, slice]]:
    name = re.sub(r"[^\w.-]+", "_", folder.absolute().name)[:40] or "images"
    for number, start in enumerate(range(0, count, PER_PART)):
        yield f"{name}-{number}", slice(start, start + PER_PART)


# --- one archive per image --------------------------------------------------------------


class Archives(Files):
    """`.npz` files with `image`, `label`, and `heatmap`, or `heatmaps` of several observers."""

    def one(self, index: int) -> StoredImage:
        image, maps, label = self._opened(index)
        (path,) = self.files[index]
        if isinstance(maps, np.ndarray):
            return _stored(image, maps, label, path, self.fit)
        human = _mean(self._apart(index, image, maps))
        return StoredImage(self.fit.squared(image), human, label)

    def by_observer(self, index: int) -> np.ndarray:
        image, maps, _ = self._opened(index)
        if isinstance(maps, np.ndarray):
            return NO_OBSERVERS
        return self._apart(index, image, maps)

    def _apart(self, index: int, image: Image.Image, maps: list[np.ndarray]) -> np.ndarray:
        (path,) = self.files[index]
        return _fitted_all(((human, path) for human in maps), image, self.fit)

    def _opened(self, index: int) -> tuple[Image.Image, np.ndarray | list[np.ndarray], int]:
        """Return the image, its map or its observers' maps, and its label."""
        (path,) = self.files[index]
        if not zipfile.is_zipfile(path):
            raise StoredError(f"{path} is not an .npz file")
        with zipfile.ZipFile(path) as members:
            size = sum(member.file_size for member in members.infolist())
        if size > LARGEST:
            raise StoredError(f"{path} would unpack to {size / 1e6:.0f} MB: no image needs that")
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                kinds = [key for key in _MAPS if key in archive]
                absent = ["image"] * ("image" not in archive)
                absent += [" or ".join(_MAPS)] * (not kinds)
                if absent:
                    raise StoredError(f"{path} lacks {', '.join(absent)}; has {archive.files}")
                if len(kinds) > 1:
                    raise StoredError(
                        f"{path} has heatmap and also heatmaps, the observers' maps: keep one"
                    )
                image, human = (archive[key] for key in ("image", *kinds))
                label = archive["label"] if "label" in archive else np.array(NO_LABEL)
        except StoredError:
            raise
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise StoredError(f"{path} is not a readable .npz file: {error}") from None
        if image.ndim != 3 or image.shape[2] != 3:
            raise StoredError(f"{path}: image has shape {image.shape}, expected (height, width, 3)")
        if label.size != 1 or not np.issubdtype(label.dtype, np.integer):
            raise StoredError(f"{path}: label is {label.dtype} {label.shape}, expected one integer")
        if "label" in archive.files and label.item() < 0:
            raise StoredError(f"{path}: label is {label.item()}, expected a class index from 0")
        if kinds == ["heatmap"]:
            maps = _as_map(human, path)
        elif human.ndim not in (3, 4) or not len(human):
            raise StoredError(
                f"{path}: heatmaps is {human.dtype} {human.shape}, expected numbers "
                "(observer, height, width)"
            )
        else:
            refuse_many_observers(len(human), path)
            maps = [_as_map(each, path) for each in human]
        return Image.fromarray(_as_bytes(image, path)), maps, int(label.item())


def list_archives(folder: Path, fit: Fit) -> tuple[list[Part], list[str]]:
    """List the folder's `.npz` files by name, including subfolders, and those it cannot read.

    Raises StoredError if there are no such files.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist")
    found, problems = files_below(folder)
    paths = sorted(path for path in found if path.suffix == ".npz")
    if not paths:
        raise StoredError(
            "\n".join(problems)
            or f"{folder} contains no images: neither shards (.tfrecords), nor {LABELS}, nor "
            "gaze.csv, nor .npz files, nor a known data set of gaze (docs/data-sets.md)"
        )
    refuse_unprintable(paths)
    outside = [path for path in paths if path.is_symlink() and leads_out(folder, path)]
    problems += [f"{path} {LEADS_OUT}" for path in outside]
    paths = [path for path in paths if path not in outside]
    ids = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    parts: list[Part] = [
        Archives(name, ids[some], [(path,) for path in paths[some]], fit)
        for name, some in in_parts(folder, len(paths))
    ]
    return parts, problems


def files_below(folder: Path) -> tuple[list[Path], list[str]]:
    """Return all files in a folder and its subfolders, and why some subfolders cannot be listed.

    `Path.rglob` passes over the latter silently.
    """
    problems: list[str] = []

    def refused(error: OSError) -> None:
        problems.append(f"the folder {error.filename} cannot be read: {error.strerror}")

    found = [
        Path(root, name) for root, _, names in os.walk(folder, onerror=refused) for name in names
    ]
    return [path for path in found if path.is_file()], problems


def _as_bytes(image: np.ndarray, path: Path) -> np.ndarray:
    """Return the image as uint8; floats count as 0-1 if none exceeds 1, otherwise as 0-255."""
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in "fiu":
        raise StoredError(f"{path}: the image is {image.dtype}, expected uint8 or floats")
    if not np.isfinite(image).all() or image.min() < 0 or image.max() > 255:
        raise StoredError(f"{path}: the image's values are not in 0-1 or 0-255")
    scale = 255 if np.issubdtype(image.dtype, np.floating) and image.max() <= 1 else 1
    return np.round(image * scale).astype(np.uint8)


def _as_map(heatmap: np.ndarray, path: Path) -> np.ndarray:
    """Return the map as (height, width): uint8 unchanged, anything else as float32."""
    if heatmap.ndim == 3 and heatmap.shape[-1] == 1:
        heatmap = heatmap[..., 0]
    if heatmap.ndim != 2 or not heatmap.size or heatmap.dtype.kind not in "fiu":
        kind = f"{heatmap.dtype} {heatmap.shape}"
        raise StoredError(f"{path}: the map is {kind}, expected numbers (height, width)")
    if heatmap.dtype == np.uint8:
        return heatmap
    heatmap = heatmap.astype(np.float32)
    if not np.isfinite(heatmap).all():
        raise StoredError(f"{path}: the map has values that are not finite")
    return heatmap


# --- images, maps and a list ----------------------------------------------------------


class Listed(Files):
    """Images with a map, or maps of several observers, and a class index from the list.

    names : the observers of each image, parallel to its maps; () if they are unknown
    """

    def __init__(
        self,
        name: str,
        ids: Sequence[str],
        files: Sequence[tuple[Path, ...]],
        labels: Sequence[int],
        names: Sequence[tuple[str, ...]],
        fit: Fit,
    ):
        super().__init__(name, ids, files, fit)
        self.labels, self.names = labels, names

    def digest(self) -> str:
        # Which maps belong to one image; only if there are several, so older scores stay valid.
        several = [*map(len, self.files)] if any(len(paths) > 2 for paths in self.files) else ""
        return f"{super().digest()} {list(self.labels)}{several}"

    def observers(self, index: int) -> Sequence[str]:
        return self.names[index]

    def observers_digest(self) -> str:
        return f"{self.digest()} {list(self.names)}"

    def one(self, index: int) -> StoredImage:
        file, *humans = self.files[index]
        image, label = read_listed_image(file), self.labels[index]
        if not self.names[index]:
            return _stored(image, _read_map(humans[0]), label, humans[0], self.fit)
        return StoredImage(self.fit.squared(image), _mean(self._apart(index, image)), label)

    def by_observer(self, index: int) -> np.ndarray:
        if not self.names[index]:
            return NO_OBSERVERS
        return self._apart(index, read_listed_image(self.files[index][0]))

    def _apart(self, index: int, image: Image.Image) -> np.ndarray:
        file, *humans = self.files[index]
        refuse_many_observers(len(humans), file)
        return _fitted_all(((_read_map(path), path) for path in humans), image, self.fit)


def list_folder(folder: Path, fit: Fit) -> tuple[list[Part], list[str]]:
    """List the images, maps and labels of `labels.csv`, with the columns `image,map,label`.

    Paths start at the folder; labels are class indices. Without the column `label`, images have
    no class. With a column `observer`, an image has a row and a map for each of its observers.

    Returns the parts, and the problems line by line, such as missing files. If the list names
    observers, an image with a problem is skipped completely. Raises StoredError without a list.
    """
    rows = read_rows(folder / LABELS, _COLUMNS)
    known = names_observers(rows)
    lines: dict[str, int] = {}
    images: dict[str, tuple[Path, int]] = {}
    maps: dict[str, dict[str, tuple[Path, int]]] = {}
    damaged: set[str] = set()
    problems = []
    for number, row in rows:
        try:
            image, human = (inside(folder, row[column]) for column in _COLUMNS)
            label = label_of(row)
            name = spelled_once(row["image"])
            who = observer_of(row) if known else ""
            if not known:
                refuse_repeated(lines, name, number)
            of_image = maps.setdefault(name, {})
            if who in of_image:
                raise ValueError(
                    f"repeats {name} and its observer {who} of line {of_image[who][1]}"
                )
            if label != images.setdefault(name, (image, label))[1]:
                raise ValueError(
                    f"the label of {name} is {label} here, {images[name][1]} in a line above"
                )
            of_image[who] = human, number
        except (ValueError, TypeError) as error:
            problems.append(f"{LABELS}, line {number}: {error}")
            if known:  # without one observer the mean would be another map
                damaged.add(spelled_once(row["image"] or ""))
    ids = [name for name in maps if name not in damaged]
    names = [tuple(sorted(maps[name])) for name in ids]
    files = [
        (images[name][0], *(maps[name][who][0] for who in some))
        for name, some in zip(ids, names, strict=True)
    ]
    labels = [images[name][1] for name in ids]
    if not known:
        names = [()] * len(ids)
    parts: list[Part] = [
        Listed(name, ids[some], files[some], labels[some], names[some], fit)
        for name, some in in_parts(folder, len(ids))
    ]
    return parts, problems


_KNOWN_COLUMNS = {"image", "map", "label", "file", "x", "y", "duration", "observer"}


def read_rows(path: Path, columns: Iterable[str]) -> list[tuple[int, dict[str, str]]]:
    """Return a CSV's rows with the numbers of their lines. Raises StoredError.

    columns : columns that it must have; any others are read, too
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not set(columns) <= set(rows.fieldnames or ()):
                has = printable(",".join(rows.fieldnames or ())) or "nothing"
                hint = "; separate columns by commas" if ";" in has else ""
                raise StoredError(f"{path} needs the columns {','.join(columns)}; has {has}{hint}")
            names = rows.fieldnames or ()
            for name in names:
                meant = name.strip().lower()
                if names.count(name) > 1 or (name != meant and meant in _KNOWN_COLUMNS):
                    raise StoredError(
                        f"{path}: the column {name!r} appears twice, or is another spelling of "
                        f"{meant!r}: name each once, in lower case"
                    )
            lines = [(rows.line_num, row) for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise StoredError(f"{path} is not a CSV file in UTF-8: {error}") from None
    if not lines:
        raise StoredError(f"{path} lists no images")
    return lines


def refuse_repeated(lines: dict[str, int], name: str, number: int) -> None:
    """Add a name with the number of its line. Raises ValueError if it is already there."""
    if name in lines:
        raise ValueError(f"repeats {name} of line {lines[name]}")
    lines[name] = number


def names_observers(rows: Sequence[tuple[int, dict[str, str]]]) -> bool:
    """Return whether a CSV has a column `observer` that contains a name."""
    return any((row.get("observer") or "").strip() for _, row in rows)


def observer_of(row: dict[str, str]) -> str:
    """Return the observer in a row of a CSV that names observers. Raises ValueError."""
    name = (row["observer"] or "").strip()
    if not name:
        raise ValueError("lacks an observer: name one in every row, or in none")
    if not name.isprintable():
        raise ValueError(f"the observer {name!a} is not printable text")
    return name


def class_index(text: str | None) -> int:
    """Return a label of `labels.csv` as a number. Raises ValueError."""
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text or ""):
        raise ValueError(f"the label {str(text)[:50]!r} is not a class index, a whole number")
    return int(text)


def label_of(row: dict[str, str]) -> int:
    """Return the label in a row, NO_LABEL if there is no such column. Raises ValueError."""
    if "label" not in row:
        return NO_LABEL
    label = class_index(row["label"])
    if label < 0:
        raise ValueError(f"label {label} is outside 0 …; if there are no classes, omit the column")
    return label


def spelled_once(text: str) -> str:
    """Return the one spelling of a path that names its image: a/./b.png becomes a/b.png."""
    return PurePosixPath(text).as_posix()


def inside(folder: Path, text: str | None) -> Path:
    """Return a listed path, which must not lead out of the folder. Raises ValueError."""
    if not text:
        raise ValueError("lacks a path")
    if not text.isprintable():
        raise ValueError(f"{text!a} is not printable text; rename the file")
    windows, posix = PureWindowsPath(text), PurePosixPath(text)
    if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise ValueError(f"{text} leads out of the folder; paths start at the folder of {LABELS}")
    path = folder / posix
    try:
        if not path.is_file():
            raise ValueError(f"{text} does not exist")
    except OSError:  # the name is too long
        raise ValueError(f"{text[:100]} … does not exist: no file has so long a name") from None
    if leads_out(folder, path):
        raise ValueError(f"{text} {LEADS_OUT}")
    return path


def leads_out(folder: Path, path: Path) -> bool:
    return not path.resolve().is_relative_to(folder.resolve())


def read_listed_image(path: Path) -> Image.Image:
    """Return an image file in RGB, upright. Raises StoredError, which names it."""
    try:
        return _jpeg_as_published(path) or read_image(path)
    except ValueError as error:
        raise StoredError(str(error)) from None


def _jpeg_as_published(path: Path) -> Image.Image | None:
    """Decode a plain colour JPEG as in shards, so that exported images score the same."""
    with path.open("rb") as file:
        if file.read(2) != b"\xff\xd8":
            return None
    try:
        with open_image(path) as opened:
            turned = opened.getexif().get(ExifTags.Base.Orientation, 1) != 1
            if opened.mode != "RGB" or turned:
                return None
        return Image.fromarray(simplejpeg.decode_jpeg(path.read_bytes(), fastdct=True, strict=True))
    except (UnidentifiedImageError, OSError, ValueError):
        return None  # the ordinary reader reports what is wrong


def _read_map(path: Path) -> np.ndarray:
    """Return a map from an image file with one channel, 8 or 16 bit, or from `.npy`."""
    if path.suffix == ".npy":
        try:
            stored = np.load(path, allow_pickle=False, mmap_mode="r")  # reads no more than needed
        except Exception as error:  # numpy may raise anything for a damaged file
            raise StoredError(f"{path} is not a readable .npy file: {error}") from None
        if not isinstance(stored, np.ndarray) or stored.nbytes > LARGEST:
            raise StoredError(f"{path} is not a map: it must contain one (height, width) array")
        return _as_map(np.array(stored), path)
    return _as_map(read_grey(path), path)


def read_grey(path: Path) -> np.ndarray:
    """Return (height, width) of an image file with one channel, 8 or 16 bit, or floats.

    Three equal channels count as one. Raises StoredError, which names the file.
    """
    try:
        if path.suffix.lower() in (".jpg", ".jpeg"):
            height, width, kind, _ = simplejpeg.decode_jpeg_header(path.read_bytes())
            refuse_huge(width, height)
            if kind == "Gray":
                return simplejpeg.decode_jpeg(
                    path.read_bytes(), colorspace="GRAY", fastdct=True, strict=True
                )[..., 0]
        with open_image(path) as opened:
            if opened.mode in ("P", "PA", "LA", "RGBA"):
                opened = opened.convert("L" if opened.mode == "LA" else "RGB")
            pixels = np.asarray(opened)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise StoredError(f"{path} is not a readable map: {error}") from None
    if pixels.ndim == 3:
        if not (pixels[..., :1] == pixels[..., :3]).all():
            raise StoredError(f"{path} is in colour; a map has one channel")
        pixels = pixels[..., 0]
    return pixels if pixels.dtype != bool else pixels.astype(np.uint8)


# --- one size ---------------------------------------------------------------------------


def _stored(
    image: Image.Image, heatmap: np.ndarray, label: int, path: Path, fit: Fit
) -> StoredImage:
    return StoredImage(fit.squared(image), _fitted(heatmap, image, path, fit), label)


def _fitted_all(
    maps: Iterable[tuple[np.ndarray, Path]], image: Image.Image, fit: Fit
) -> np.ndarray:
    """Return (map, 256, 256) float32 from maps and the files that contain them.

    Raises StoredError.
    """
    return np.stack([_fitted(human, image, path, fit).astype(np.float32) for human, path in maps])


def _mean(maps: np.ndarray) -> np.ndarray:
    return maps.mean(axis=0, dtype=np.float64).astype(np.float32)


def _fitted(heatmap: np.ndarray, image: Image.Image, path: Path, fit: Fit) -> np.ndarray:
    """Return a map as a square, fitted like its image: (256, 256). Raises StoredError."""
    height, width = heatmap.shape
    if abs(width / height * image.height / image.width - 1) > _PROPORTION:
        raise StoredError(
            f"{path}: the map is {height}x{width}, its image {image.height}x{image.width} "
            "(height x width): their proportions differ"
        )
    return fit.map(heatmap)
