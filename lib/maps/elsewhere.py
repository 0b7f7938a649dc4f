"""Heatmaps made elsewhere, read from files: no model is needed to read or score them.

A collection is a folder with one file per image (`.npy`, `.npz`, or a grey image), an `.npz` with
one entry per image, or an `.npy` of (image, height, width) with the images' names in `ids.txt`
beside it. No stored code is executed, and no name can lead out of the folder.
"""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from ..base.geometry import DELIVERED_SIZE
from ..base.words import in_lines, some_of
from ..people.stored import StoredError
from ..people.stored.folders import LARGEST, files_below, read_grey
from .forward import enlarge

IDS = "ids.txt"
ENTRY = "map"  # the entry that is read from an .npz with several entries
_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm")
_GREY = (".png", ".jpg", ".jpeg")
_SUFFIXES = (".npy", ".npz", *_GREY)
_NAMED = 3


class MapsError(ValueError):
    """Maps cannot be read; the message says which, why, and what to do."""


# --- files of maps ------------------------------------------------------------------------


class Maps(ABC):
    """Maps in files, accessed by name.

    place : the folder or file
    ids   : the text file that names the maps, if there is one
    names : the names of the maps, in a fixed order
    """

    place: Path
    ids: Path | None = None
    names: list[str]

    def read(self, name: str) -> np.ndarray:
        """Return one map: (height, width), float32 or float64; values may be NaN or infinite.

        Raises MapsError naming the file.
        """
        where = self.where(name)
        try:
            return _plain(self._stored(name), where)
        except MapsError:
            raise
        except StoredError as error:
            raise MapsError(str(error)) from None
        except Exception as error:  # a damaged file can make a decoder raise anything
            why = error or type(error).__name__
            if "pickle" in str(error):  # numpy's advice is to load it unsafely
                why = "it does not hold an array of numbers"
            raise MapsError(f"{where} cannot be read ({why}): write it again") from None

    @abstractmethod
    def where(self, name: str) -> str:
        """Return the file of a map, and its place in the file, in words."""

    @abstractmethod
    def _stored(self, name: str) -> np.ndarray: ...


class FolderOfMaps(Maps):
    """One file per image, named like the image (`<name>.npy`, …), also in subfolders."""

    def __init__(self, place: Path):
        found, problems = files_below(place)
        root = place.resolve()
        self.place, self.names = place, []
        self._paths: dict[str, Path] = {}
        for path in sorted(p for p in found if p.suffix.lower() in _SUFFIXES and p.name[0] != "."):
            name = path.relative_to(place).with_suffix("").as_posix()
            if not path.resolve().is_relative_to(root):
                problems.append(f"{path} is a link out of the folder: copy the file into it")
            elif name in self._paths:
                problems.append(
                    f"{path} and {self._paths[name].name} are maps of one image: remove one of them"
                )
            self._paths[name] = path
        if problems:
            raise MapsError(in_lines(problems))
        if not self._paths:
            raise MapsError(f"{place} holds no maps: no file name ends in {', '.join(_SUFFIXES)}")
        self.names = list(self._paths)

    def where(self, name: str) -> str:
        return str(self._paths[name])

    def _stored(self, name: str) -> np.ndarray:
        path = self._paths[name]
        if path.suffix.lower() in _GREY:
            return read_grey(path)
        if path.suffix.lower() == ".npy":
            return _of_limited_size(np.load(path, mmap_mode="r", allow_pickle=False), path)
        entries = _entries(path)
        if len(entries) > 1 and ENTRY not in entries:
            raise MapsError(
                f"{path} has the entries {', '.join([*entries][:8])}: name the map {ENTRY!r}, or "
                "store it without other entries"
            )
        return _entry(path, ENTRY if ENTRY in entries else next(iter(entries)), entries)


class ArchiveOfMaps(Maps):
    """An `.npz` with one entry per image, named like the image."""

    def __init__(self, place: Path):
        self.place, self._sizes = place, _entries(place)
        self.names = list(self._sizes)
        # Opened once, because opening reads the list of all entries.
        self._archive = np.load(place, allow_pickle=False)

    def where(self, name: str) -> str:
        return f"{self.place}, entry {name}"

    def _stored(self, name: str) -> np.ndarray:
        _refuse_large(self.place, name, self._sizes)
        return self._archive[name]


class StackOfMaps(Maps):
    """An `.npy` of (image, height, width), and a text file with one name per line.

    ids : the text file; `ids.txt` beside the array if it is not given
    """

    def __init__(self, place: Path, ids: Path | None = None):
        self.ids = ids = ids or place.with_name(IDS)
        try:
            self.names = ids.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise MapsError(
                f"{place} needs a text file with one image name per line, {ids} or --ids FILE: "
                f"{error}"
            ) from None
        self.names = [name.strip() for name in self.names]
        while self.names and not self.names[-1]:
            self.names.pop()
        try:
            self._array = np.load(place, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise MapsError(f"{place} is not a readable .npy file: {error}") from None
        shape = self._array.shape
        if len(shape) not in (3, 4) or (len(shape) == 4 and 1 not in (shape[1], shape[3])):
            raise MapsError(f"{place} has shape {shape}, expected (image, height, width)")
        if len(self.names) != shape[0]:
            raise MapsError(
                f"{place} holds {shape[0]} maps, but {ids} holds {len(self.names)} names: write "
                "one name per map"
            )
        repeated = [name for name, count in Counter(self.names).items() if count > 1]
        if repeated:
            raise MapsError(f"{ids} repeats {', '.join(repeated[:_NAMED])}: write each name once")
        self.place = place
        self._index = {name: index for index, name in enumerate(self.names)}

    def where(self, name: str) -> str:
        return f"{self.place}, map {self._index[name]} ({name})"

    def _stored(self, name: str) -> np.ndarray:
        return _of_limited_size(self._array[self._index[name]], self.where(name))


def open_maps(place: Path, ids: Path | None = None) -> Maps:
    """Open the maps of a folder or file.

    place : a folder with one file per image, an `.npz`, or an `.npy` of many maps
    ids   : text file with the names of a stack's maps, if it is not `ids.txt` beside the stack
    Raises MapsError that says what is expected.
    """
    if place.is_dir():
        stacks = [path for path in place.glob("*.npy") if path.name[0] != "."]
        has_ids = ids is not None or (place / IDS).is_file()
        return StackOfMaps(stacks[0], ids) if has_ids and len(stacks) == 1 else FolderOfMaps(place)
    if not place.is_file():
        raise MapsError(f"{place} does not exist")
    if place.suffix.lower() == ".npz":
        return ArchiveOfMaps(place)
    if place.suffix.lower() == ".npy":
        return StackOfMaps(place, ids)
    raise MapsError(f"{place} is neither a folder of maps, nor an .npz, nor an .npy of many maps")


def _entries(path: Path) -> dict[str, int]:
    """The names and sizes in bytes of the arrays in an `.npz`."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, zipfile.BadZipFile) as error:
        raise MapsError(f"{path} is not a readable .npz file: {error}") from None
    found: dict[str, int] = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name in found:
            raise MapsError(f"{path} holds {name} twice: store each map once")
        found[name] = member.file_size
    if not found:
        raise MapsError(f"{path} holds no arrays: write the maps into it")
    return found


def _refuse_large(path: Path, name: str, sizes: dict[str, int]) -> None:
    if sizes[name] > LARGEST:
        raise MapsError(
            f"{path}, entry {name} unpacks to {sizes[name] / 1e6:.0f} MB: too large for a map"
        )


def _entry(path: Path, name: str, sizes: dict[str, int]) -> np.ndarray:
    _refuse_large(path, name, sizes)
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return archive[name]


def _of_limited_size(array: np.ndarray, where: Path | str) -> np.ndarray:
    if array.nbytes > LARGEST:
        raise MapsError(f"{where} has shape {array.shape}: too large for a map")
    return array


def _plain(stored: np.ndarray, where: str) -> np.ndarray:
    """(height, width) in float32 where that holds the values exactly, else float64."""
    found = stored
    if found.ndim == 3 and found.shape[-1] == 1:
        found = found[..., 0]
    elif found.ndim == 3 and found.shape[0] == 1:
        found = found[0]
    if found.ndim != 2 or not found.size or found.dtype.kind not in "fiub":
        raise MapsError(
            f"{where} is {stored.dtype} of shape {stored.shape}, expected numbers "
            "(height, width): save one map per image, as numbers and not as colours"
        )
    exact = found.dtype.kind == "b" or found.dtype.itemsize <= (4 if found.dtype.kind == "f" else 2)
    return np.array(found, np.float32 if exact else np.float64)


# --- which map belongs to which image -----------------------------------------------------


@dataclass(frozen=True)
class Match:
    """Which map belongs to which image.

    of            : {image's id: map's name}
    without_image : the maps that belong to no image, in the order of `names`
    """

    of: dict[str, str]
    without_image: list[str]


def match(maps: Maps, image_ids: Iterable[str]) -> Match:
    """Assign maps to images by name.

    The map of an image `pictures/a.jpg` may have this name, or `pictures/a`. For an image of a
    shard, `val-0:17`, it may also be `val-0_17`, which every system accepts as a file name. A name
    that fits several images is used for none of them. Raises MapsError if two maps belong to one
    image, or if no map belongs to any image.
    """
    image_ids = list(image_ids)
    called: dict[str, str | None] = {}
    for image_id in image_ids:
        for name in _other_names(image_id):
            called[name] = None if name in called else image_id
    called |= {image_id: image_id for image_id in image_ids}
    of: dict[str, str] = {}
    without, problems = [], []
    for name in maps.names:
        image_id = called.get(name)
        if image_id is None:
            without.append(name)
        elif image_id in of:
            problems.append(
                f"{maps.where(name)} and {maps.where(of[image_id])} are maps of one image: remove "
                "one of them"
            )
        else:
            of[image_id] = name
    if problems:
        raise MapsError(in_lines(problems))
    if not of:
        raise MapsError(
            f"{maps.place}: no map has the name of an image. Maps: {some_of(maps.names)}; "
            f"images: {some_of(image_ids)}. Rename the maps: a name "
            "includes the folder"
        )
    return Match(of, without)


def _other_names(image_id: str) -> list[str]:
    path = PurePosixPath(image_id)
    short = path.with_suffix("").as_posix() if path.suffix.lower() in _IMAGES else image_id
    names = {short, image_id.replace(":", "_"), short.replace(":", "_")} - {image_id}
    return sorted(names)


# --- maps prepared for scoring ------------------------------------------------------------


def not_finite(found: np.ndarray) -> str:
    """Return how many of a map's values are NaN or infinite, in words; "" for none."""
    bad = found.size - int(np.isfinite(found).sum())
    nan = int(np.isnan(found).sum())
    return f"{bad} of {found.size} values are not finite ({nan} NaN)" if bad else ""


def as_scored(
    found: np.ndarray, sides: tuple[int, int] = (DELIVERED_SIZE, DELIVERED_SIZE)
) -> Tensor:
    """Resize a (height, width) map to `sides`, like the study's own maps.

    The interpolation is bilinear. Larger maps are sampled by the same rule, without averaging, and
    a map of the right size is unchanged. A constant map stays constant, although rounding could
    give its pixels an order; so does a map with values that are not finite.
    """
    whole = torch.from_numpy(found)
    if tuple(whole.shape) == sides:
        return whole
    if not np.isfinite(found).all():
        return torch.full(sides, torch.nan, dtype=whole.dtype)
    if found.min() == found.max():
        return torch.zeros(sides, dtype=whole.dtype)
    return enlarge(whole[None], sides)[0]
