"""Gaze points as human maps: `labels.csv`, `gaze.csv` and, in `gaze.json`, the blur.

x runs from the left edge of the picture, y from its top edge, in pixels of the picture as its
file holds it, upright: the centre of the first pixel is (0.5, 0.5), the last edge (width, height).
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags

from lib.base.stored_json import DamagedJson, read_json
from lib.base.words import printable
from lib.people.pictures import open_picture
from lib.people.stored.folders import (
    LABELS,
    Files,
    centred_square,
    class_index,
    in_parts,
    inside,
    names_observers,
    observer_of,
    read_listed_picture,
    read_rows,
    refuse_repeated,
    spelled_once,
)
from lib.people.stored.part import (
    NO_OBSERVERS,
    STORED_SIZE,
    Part,
    StoredError,
    StoredPicture,
    refuse_many_observers,
)

GAZE = "gaze.csv"
BLUR = "gaze.json"
_EXAMPLE = '{"sigma_pixels": 25} or {"sigma_degrees": 1, "pixels_per_degree": 35}'
_IN_PIXELS, _IN_DEGREES = {"sigma_pixels"}, {"sigma_degrees", "pixels_per_degree"}
_OUTSIDE = ("refuse", "leave out")
_SAID = {"type": "object"}
_TURNED = range(5, 9)  # EXIF orientations that exchange width and height


@dataclass(frozen=True)
class Blur:
    """sigma : of the Gaussian, in pixels of the picture as its file holds it
    outside : what becomes of points beside the picture, one of "refuse", "leave out"
    """

    sigma: float
    outside: str = _OUTSIDE[0]


def read_blur(path: Path) -> Blur:
    """`gaze.json`. Raises StoredError saying what to write: there is no default blur."""
    try:
        said = read_json(path, _SAID)
    except FileNotFoundError:
        raise StoredError(
            f"{path} is not there: it says by how much the points of {GAZE} are blurred, "
            f"such as {_EXAMPLE}"
        ) from None
    except (OSError, DamagedJson) as error:
        raise StoredError(f"{error}; it must say {_EXAMPLE}") from None
    keys = set(said)
    if keys - {"outside"} not in (_IN_PIXELS, _IN_DEGREES):
        has = ascii(", ".join(sorted(keys)) or "nothing")[1:-1]
        raise StoredError(f"{path} must say {_EXAMPLE}; has {has}")
    numbers = [said[key] for key in sorted(keys - {"outside"})]
    if not all(type(n) in (int, float) and 0 < n <= sys.float_info.max for n in numbers):
        raise StoredError(f"{path}: {numbers} must be numbers above 0")
    outside = said.get("outside", _OUTSIDE[0])
    if outside not in _OUTSIDE:
        raise StoredError(f"{path}: outside is {outside!r}, expected one of {', '.join(_OUTSIDE)}")
    return Blur(math.prod(numbers), outside)


_AT_ONCE = 4096  # points, for the sake of memory


def gaze_map(points: np.ndarray, sigma: float, width: int, height: int) -> np.ndarray:
    """Points blurred by a Gaussian, in the picture's centred square: (256, 256) float32, 0-255.

    points : (point, 3) x, y and weight; x and y as above, of a picture of `width` x `height`
    sigma  : in the picture's pixels
    The Gaussian's values at the pixels' centres; what it has beyond the borders is lost. The
    largest value is 255. Raises ValueError for a blur below a pixel of the result, or
    above the square.
    """
    blurred = _blurred(_weighed(points), sigma, width, height)
    return _scaled(blurred, blurred.max())


def observer_gaze_maps(
    points: np.ndarray, owners: np.ndarray, sigma: float, width: int, height: int
) -> np.ndarray:
    """The same map taken apart: (observer, 256, 256) float32, of which it is the sum.

    owners : (point,) whose each point is, 0 … observer - 1
    Raises ValueError as `gaze_map` does.
    """
    points = _weighed(points)
    highest = _blurred(points, sigma, width, height).max()
    each = (points[owners == who] for who in range(owners.max() + 1))
    return np.stack([_scaled(_blurred(some, sigma, width, height), highest) for some in each])


def _weighed(points: np.ndarray) -> np.ndarray:
    """The points, the largest weight 1."""
    return np.column_stack([points[:, :2], points[:, 2] / points[:, 2].max()])


def _scaled(blurred: np.ndarray, highest: float) -> np.ndarray:
    if highest <= np.finfo(np.float64).tiny:
        return np.zeros((STORED_SIZE, STORED_SIZE), np.float32)  # nobody looked here: no ordering
    return (blurred / highest * 255).astype(np.float32)


def _blurred(points: np.ndarray, sigma: float, width: int, height: int) -> np.ndarray:
    side = min(width, height)
    scale = STORED_SIZE / side
    if not 1 <= sigma * scale <= STORED_SIZE:
        raise ValueError(
            f"a sigma of {sigma:g} pixels is {sigma * scale:.3g} of the {STORED_SIZE} to which "
            f"the picture's centred square ({side} pixels) is scaled: expected 1 to {STORED_SIZE}"
        )
    x = (points[:, 0] - (width - side) / 2) * scale
    y = (points[:, 1] - (height - side) / 2) * scale
    centres = np.arange(STORED_SIZE) + 0.5
    weights = points[:, 2]
    blurred = np.zeros((STORED_SIZE, STORED_SIZE))
    for start in range(0, len(points), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        rows, columns = (
            np.exp(((centres[:, None] - at[some]) / (sigma * scale)) ** 2 / -2) for at in (y, x)
        )
        blurred += (rows * weights[some]) @ columns.T
    return blurred


class Gazed(Files):
    """Pictures, a class index of each, and where people looked: (point, 3) x, y, weight.

    outside : how many points beside each picture were left out
    looked  : (point,) whose each point is, by name; empty where observers are not known
    """

    def __init__(
        self,
        name: str,
        ids: Sequence[str],
        files: Sequence[tuple[Path, ...]],
        labels: Sequence[int],
        points: Sequence[np.ndarray],
        outside: Sequence[int],
        looked: Sequence[np.ndarray],
        sigma: float,
    ):
        super().__init__(name, ids, files)
        self.labels, self.points, self.outside, self.sigma = labels, points, outside, sigma
        self.looked = looked

    def digest(self) -> str:
        points = hashlib.sha256()
        for some in self.points:
            points.update(f"{len(some)} ".encode() + some.tobytes())
        return f"{super().digest()} {[*self.labels]} {points.hexdigest()} {self.sigma}"

    def observers(self, index: int) -> Sequence[str]:
        return tuple(np.unique(self.looked[index]).tolist())

    def observers_digest(self) -> str:
        names = hashlib.sha256(repr([some.tolist() for some in self.looked]).encode())
        return f"{self.digest()} {names.hexdigest()}"

    def one(self, index: int) -> StoredPicture:
        image = read_listed_picture(self.files[index][0])
        human = self._blurred(gaze_map, index, self.sigma, *image.size)
        return StoredPicture(centred_square(image), human, self.labels[index])

    def by_observer(self, index: int) -> np.ndarray:
        names, owners = np.unique(self.looked[index], return_inverse=True)
        if not len(names):
            return NO_OBSERVERS
        refuse_many_observers(len(names), f"{GAZE}, {self.ids[index]}")
        size = read_listed_picture(self.files[index][0]).size
        return self._blurred(observer_gaze_maps, index, owners, self.sigma, *size)

    def _blurred(self, how: Callable[..., np.ndarray], index: int, *given: object) -> np.ndarray:
        try:
            return how(self.points[index], *given)
        except ValueError as error:
            raise StoredError(f"{self.where(index)}: {error}; change {BLUR}") from None


def list_gaze(folder: Path) -> tuple[list[Part], list[str]]:
    """Pictures of `labels.csv` (`picture,label`) with their points of `gaze.csv`.

    `gaze.csv`: `file,x,y`, and perhaps `duration`, the points' weight, in any one unit. A
    picture of which a row is wrong is left out whole: the others' map would be another one.
    Returns the parts, and what is wrong row by row. Raises StoredError for what concerns all.
    """
    if not (folder / LABELS).is_file():
        raise StoredError(
            f"{folder} has {GAZE} and lacks {LABELS}: the columns picture,label, a row a picture"
        )
    blur = read_blur(folder / BLUR)
    problems: list[str] = []
    lines: dict[str, int] = {}
    listed: dict[str, tuple[Path, int]] = {}
    for number, row in read_rows(folder / LABELS, ("picture", "label")):
        try:
            path, label = inside(folder, row["picture"]), class_index(row["label"])
            if row.get("map"):
                raise ValueError(
                    f"names the map {printable(row['map'])}, and {GAZE} makes the maps: leave the "
                    "column empty, or keep the points elsewhere"
                )
            row["picture"] = spelled_once(row["picture"])
            refuse_repeated(lines, row["picture"], number)
        except (ValueError, TypeError) as error:
            problems.append(f"{LABELS}, line {number}: {error}")
        else:
            listed[row["picture"]] = path, label
    pictures = {name: path for name, (path, _) in listed.items()}
    points, outside, damaged = _points(folder, pictures, blur, problems)
    for name in listed:
        if name not in points and name not in damaged:
            beside = f", but {outside[name]} outside of it" * bool(outside[name])
            problems.append(f"{LABELS}, line {lines[name]}: {GAZE} has no point for {name}{beside}")
    names = [name for name in listed if name in points and name not in damaged]
    paths = [(pictures[name],) for name in names]
    labels = [listed[name][1] for name in names]
    arrays = [np.array([point[:3] for point in points[name]], np.float64) for name in names]
    looked = [np.array([who for *_, who in points[name] if who], str) for name in names]
    beside = [outside[name] for name in names]
    parts: list[Part] = [
        Gazed(
            part, names[some], paths[some], labels[some], arrays[some], beside[some], looked[some],
            blur.sigma,
        )
        for part, some in in_parts(folder, len(names))
    ]  # fmt: skip
    return parts, problems


_Point = tuple[float, float, float, str]  # x, y, weight, observer


def _points(
    folder: Path, pictures: dict[str, Path], blur: Blur, problems: list[str]
) -> tuple[dict[str, list[_Point]], Counter[str], set[str]]:
    """{picture: its points}, {picture: how many were left out beside it}, and pictures of which
    a row is wrong; adds to the problems."""
    points: dict[str, list[_Point]] = {}
    sizes: dict[str, tuple[int, int] | None] = {}
    outside: Counter[str] = Counter()
    damaged: set[str] = set()
    rows = read_rows(folder / GAZE, ("file", "x", "y"))
    known = names_observers(rows)
    for number, row in rows:
        name = spelled_once(row["file"] or "")
        try:
            if name not in pictures:
                raise ValueError(f"{printable(name)} is not (rightly) listed in {LABELS}")
            weight = _number(row, "duration") if "duration" in row else 1.0
            if weight <= 0:
                raise ValueError(f"a duration of {weight:g}, expected more than 0")
            who = observer_of(row) if known else ""
            x, y = _number(row, "x"), _number(row, "y")
            if name not in sizes:
                sizes[name] = _upright_size(pictures[name])
            if not _is_within(x, y, sizes[name]):
                if blur.outside == "leave out":
                    outside[name] += 1
                    continue
                width, height = sizes[name]
                raise ValueError(
                    f"({x:g}, {y:g}) lies outside of {name}, which is {width} wide and {height} "
                    f'high; such points are left out by "outside": "leave out" in {BLUR}'
                )
        except (ValueError, TypeError) as error:
            problems.append(f"{GAZE}, line {number}: {error}")
            damaged.add(name)
            continue
        points.setdefault(name, []).append((x, y, weight, who))
    return points, outside, damaged


def _number(row: dict[str, str], column: str) -> float:
    try:
        value = float(row[column])
    except (ValueError, TypeError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{column} is {row[column]!r}, expected a number")
    return value


def _is_within(x: float, y: float, size: Iterable[int] | None) -> bool:
    """Whether a point lies in the picture; of an unreadable one that is said when it is read."""
    return size is None or all(0 <= at <= end for at, end in zip((x, y), size, strict=True))


def _upright_size(path: Path) -> tuple[int, int] | None:
    """Width and height, from the file's header; None if it has none."""
    try:
        with open_picture(path) as opened:
            turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED
            return opened.size[::-1] if turned else opened.size
    except Exception:  # whatever a decoder makes of a damaged file
        return None
