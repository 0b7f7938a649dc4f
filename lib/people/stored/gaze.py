"""Gaze points as human maps: `gaze.csv` beside images, or a data set's own files.

x is measured from the left edge of the image and y from its top edge, in pixels of the upright
image file: the centre of the first pixel is (0.5, 0.5), the last edge (width, height).
`lib.people.stored.viewing` defines how points become maps; `lib.people.stored.layouts` reads the
files of published data sets.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ...base.stored_json import DamagedJson, read_json
from ...base.words import printable, some_of
from ..images import upright_size
from .fit import PAD, Fit
from .folders import (
    LABELS,
    LEADS_OUT,
    Files,
    files_below,
    in_parts,
    inside,
    label_of,
    leads_out,
    names_observers,
    observer_of,
    read_listed_image,
    read_rows,
    refuse_repeated,
    spelled_once,
)
from .layouts import Layout
from .part import (
    NO_LABEL,
    NO_OBSERVERS,
    STORED_SIZE,
    Fixations,
    Part,
    StoredError,
    StoredImage,
    refuse_many_observers,
)
from .viewing import (
    DURATIONS,
    EXAMPLE,
    KEEP,
    LEAVE_OUT,
    REFUSE,
    Looked,
    Viewing,
)

GAZE = ("gaze.csv", "fixations.csv")
BLUR = "gaze.json"
_SAID = {"type": "object"}


def gaze_file(folder: Path) -> Path | None:
    """Return the folder's list of points, or None."""
    return next((folder / name for name in GAZE if (folder / name).is_file()), None)


def read_viewing(path: Path, options: Mapping[str, object]) -> Viewing:
    """Return how gaze becomes maps, from `gaze.json` and from options, which take precedence.

    Raises StoredError, which says what to write: there is no default blur.
    """
    said: Mapping[str, object] = {}
    try:
        said = read_json(path, _SAID)
    except FileNotFoundError:
        if not {"sigma_pixels", "sigma_degrees"} & set(options):
            raise StoredError(
                f"{path} does not exist: it gives the blur of gaze points, such as {EXAMPLE}; "
                "write it, or use --gaze sigma_pixels=25 on the command line"
            ) from None
    except (OSError, DamagedJson) as error:
        raise StoredError(f"{error}; it must contain {EXAMPLE}") from None
    viewing = Viewing().with_values(said, str(path)).with_values(options, "--gaze")
    viewing.require_sigma(str(path))
    return viewing


_AT_ONCE = 4096  # points, to limit memory


def gaze_map(
    points: np.ndarray, sigma: float | np.ndarray, width: int, height: int, fit: Fit | None = None
) -> np.ndarray:
    """Blur points by a Gaussian, in the square that the image becomes.

    points : (point, 3) x, y and weight; x and y as above, of an image of `width` x `height`
    sigma  : in the image's pixels, one value, or one across and one down
    fit    : how the image becomes a square; its centred square by default

    Returns (256, 256) float32 in 0-255: the Gaussians' values at the pixels' centres, scaled so
    that the largest is 255. Parts beyond the borders are lost. Raises ValueError for a blur
    below a pixel of the result, or above the square.
    """
    blurred = _blurred(_weighed(points), sigma, width, height, fit or Fit())
    return _scaled(blurred, blurred.max())


def observer_gaze_maps(
    points: np.ndarray,
    owners: np.ndarray,
    sigma: float | np.ndarray,
    width: int,
    height: int,
    fit: Fit | None = None,
) -> np.ndarray:
    """Return each observer's share of `gaze_map`: (observer, 256, 256) float32.

    Their sum is that map.

    owners : (point,) the observer of each point, 0 … observer - 1

    Raises ValueError as `gaze_map` does.
    """
    points, place = _weighed(points), (sigma, width, height, fit or Fit())
    highest = _blurred(points, *place).max()
    each = (points[owners == who] for who in range(owners.max() + 1))
    return np.stack([_scaled(_blurred(some, *place), highest) for some in each])


def _weighed(points: np.ndarray) -> np.ndarray:
    """Return the points with weights scaled so that the largest is 1."""
    return np.column_stack([points[:, :2], points[:, 2] / points[:, 2].max()])


def _scaled(blurred: np.ndarray, highest: float) -> np.ndarray:
    if highest <= np.finfo(np.float64).tiny:
        return np.zeros((STORED_SIZE, STORED_SIZE), np.float32)  # nobody looked here
    return (blurred / highest * 255).astype(np.float32)


def _blurred(
    points: np.ndarray, sigma: float | np.ndarray, width: int, height: int, fit: Fit
) -> np.ndarray:
    times, plus = fit.place(width, height)
    spread = np.broadcast_to(sigma, 2) * times
    if not (spread.min() >= 1 and spread.max() <= STORED_SIZE):
        taken = "centred square" if fit.how == Fit().how else "image"
        raise ValueError(
            f"a sigma of {np.max(sigma):g} pixels becomes {spread.max():.3g} when the {taken} "
            f"({width} x {height} in all) is scaled to {STORED_SIZE}: expected 1 to {STORED_SIZE}"
        )
    at = points[:, :2] * times + plus
    centres = np.arange(STORED_SIZE) + 0.5
    weights = points[:, 2]
    blurred = np.zeros((STORED_SIZE, STORED_SIZE))
    for start in range(0, len(points), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        columns, rows = (
            np.exp(((centres[:, None] - at[some, axis]) / spread[axis]) ** 2 / -2)
            for axis in (0, 1)
        )
        blurred += (rows * weights[some]) @ columns.T
    if fit.how != PAD:
        return blurred
    left, top, across, down = fit.window(width, height)
    inside_image = np.zeros_like(blurred)  # nobody can look at a bar
    window = np.s_[top : top + down, left : left + across]
    inside_image[window] = blurred[window]
    return inside_image


@dataclass(frozen=True)
class _Seen:
    """The fixations that make one image's map.

    points : (fixation, 3) x, y in pixels of the file, and weight
    within : (fixation,) bool, whether each lies inside the file; fixations outside it are here
             only if they are kept
    names  : the observers; empty if they are unknown
    owners : (fixation,) the observer of each, as an index into `names`
    left_out : how many fixations outside the image's file are not used
    size   : the file's width and height
    """

    points: np.ndarray
    within: np.ndarray
    names: np.ndarray
    owners: np.ndarray
    left_out: int
    size: tuple[int, int]


class Gazed(Files):
    """Images, and where people looked at each.

    viewing : how points become maps
    fit     : how images become squares
    """

    def __init__(self, name: str, looked: Sequence[Looked], viewing: Viewing, fit: Fit):
        super().__init__(name, [each.name for each in looked], [(e.image,) for e in looked], fit)
        self.looked, self.viewing = looked, viewing
        self.labels = [each.label for each in looked]
        self._seen = cache(self._counted)

    def digest(self) -> str:
        points = hashlib.sha256()
        for each in self.looked:
            points.update(f"{len(each.points)} ".encode() + each.points.tobytes())
            points.update((each.order >= self.viewing.skip_first).tobytes())
        made = sorted(self.viewing.facts.items())
        return f"{super().digest()} {self.labels} {points.hexdigest()} {made}"

    def observers(self, index: int) -> Sequence[str]:
        return tuple(self._seen(index).names.tolist())

    def observers_digest(self) -> str:
        names = hashlib.sha256(repr([each.who.tolist() for each in self.looked]).encode())
        return f"{self.digest()} {names.hexdigest()}"

    def fixations(self, index: int) -> Fixations:
        seen = self._read(self._seen, index)
        times, plus = self.fit.place(*seen.size)
        points, owners, left_out = seen.points, seen.owners, seen.left_out
        if self.fit.how == PAD:  # outside the image then also means outside the square
            points, left_out = points[seen.within], left_out + int((~seen.within).sum())
            owners = owners[seen.within] if len(owners) else owners
        return Fixations(points[:, :2] * times + plus, points[:, 2], owners, left_out)

    def _counted(self, index: int) -> _Seen:
        """Raises StoredError for a point outside its image if such points are refused."""
        looked = self.looked[index]
        if self.viewing.skip_first and not len(looked.who):
            raise StoredError(
                f"{self.where(index)}: the observers of its fixations are unknown, so first "
                "fixations cannot be skipped; omit skip_first, or set it to 0"
            )
        # If a header cannot be read, the decoder reports what is wrong.
        size = upright_size(looked.image) or read_listed_image(looked.image).size
        points, counts = self.viewing.points(looked, *size)
        who = looked.who[counts] if len(looked.who) else looked.who
        within = _within(points[:, :2], size)
        beside, left_out = int((~within).sum()), 0
        if beside and self.viewing.outside == REFUSE:
            at = points[~within][0, :2]
            raise StoredError(
                f"{self.where(index)}: {_beside(self.viewing, at, looked.name, size)}"
            )
        if self.viewing.outside == LEAVE_OUT:
            points, who = points[within], who[within] if len(who) else who
            within, left_out = within[within], beside
        if not len(points):
            raise StoredError(
                f"{self.where(index)} has no fixation left: {len(looked.points)} were recorded, "
                f"{(~counts).sum()} are skipped first ones, {beside} lie outside it"
            )
        if not points[:, 2].any():
            raise StoredError(
                f"{self.where(index)}: every fixation lasted 0; weight them equally by --gaze "
                "weigh=counts"
            )
        names, owners = np.unique(who, return_inverse=True)
        return _Seen(points, within, names, owners.astype(np.int64), left_out, size)

    def one(self, index: int) -> StoredImage:
        seen = self._seen(index)
        image = read_listed_image(self.files[index][0])
        human = self._blurred(gaze_map, index, seen)
        return StoredImage(self.fit.squared(image), human, self.labels[index])

    def by_observer(self, index: int) -> np.ndarray:
        seen = self._seen(index)
        if not len(seen.names):
            return NO_OBSERVERS
        refuse_many_observers(len(seen.names), self.where(index))
        return self._blurred(observer_gaze_maps, index, seen, seen.owners)

    def _blurred(
        self, how: Callable[..., np.ndarray], index: int, seen: _Seen, *owners: np.ndarray
    ) -> np.ndarray:
        try:
            sigma = self.viewing.sigma(*seen.size)
            return how(seen.points, *owners, sigma, *seen.size, self.fit)
        except ValueError as error:
            raise StoredError(f"{self.where(index)}: {error}; change {BLUR}, or --gaze") from None


def viewing_of(folder: Path, layout: Layout | None, options: Mapping[str, object]) -> Viewing:
    """Return how the gaze of a folder becomes maps.

    The data set's row or else `gaze.json` defines it; options take precedence. Raises StoredError.
    """
    if layout is None:
        return read_viewing(folder / BLUR, options)
    viewing = layout.viewing.with_values(options, "--gaze")
    viewing.require_sigma(f"{layout.label} states no blur: --gaze")
    return viewing


def list_data_set(
    folder: Path, layout: Layout, options: Mapping[str, object], fit: Fit
) -> tuple[list[Part], list[str]]:
    """List the images of a data set that have fixations, in the layout of its authors.

    Returns the parts, and the problems. Raises StoredError for a problem that concerns all images.
    """
    viewing = viewing_of(folder, layout, options)
    looked, problems = layout.read(folder)
    names = Counter(each.name for each in looked)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise StoredError(
            f"{folder} contains the fixations of {printable(some_of(repeated))} twice, in one file "
            "or in two: keep only one of them there"
        )
    return _in_parts(folder, looked, viewing, fit), problems


def _in_parts(folder: Path, looked: Sequence[Looked], viewing: Viewing, fit: Fit) -> list[Part]:
    return [Gazed(name, looked[some], viewing, fit) for name, some in in_parts(folder, len(looked))]


def list_gaze(
    folder: Path, options: Mapping[str, object], fit: Fit
) -> tuple[list[Part], list[str]]:
    """List images with the points of `gaze.csv`, or `fixations.csv`.

    The list of points has the columns `file,x,y`, and optionally `duration`, a point's weight in
    any one unit, and `observer`. The images are those of `labels.csv` (`image`, and optionally
    `label`) or, without that file, all that the points name. An image with a wrong row is skipped
    completely, because the remaining points would make another map.

    Returns the parts, and the problems row by row. Raises StoredError for a problem that concerns
    all images.
    """
    viewing = viewing_of(folder, None, options)
    problems: list[str] = []
    points = gaze_file(folder)
    if points is None:
        raise StoredError(f"{folder} has none of {', '.join(GAZE)}, a list of file,x,y")
    if leads_out(folder, points):
        raise StoredError(f"{points} {LEADS_OUT}")
    also: dict[str, str] = {}
    if (folder / LABELS).is_file():
        listed = _listed(folder, problems)
    else:
        listed, also = _named(folder, points)
    found = _Points(viewing, points.name, also)
    found.read(points, {name: path for name, (path, *_) in listed.items()}, problems)
    looked = []
    for name, (path, label, line) in listed.items():
        if name in found.damaged:
            continue
        if not found.rows[name]:
            where = LABELS if (folder / LABELS).is_file() else points.name
            count = len(found.beside[name])
            beside = f", but {count} outside it" * bool(count)
            problems.append(f"{where}, line {line}: {points.name} has no point for {name}{beside}")
            continue
        looked.append(_looked(name, path, found.rows[name] + found.beside[name], label))
    return _in_parts(folder, looked, viewing, fit), problems


def _looked(name: str, path: Path, rows: Sequence[_Row], label: int) -> Looked:
    points = np.array([row[:3] for row in rows], np.float64)
    who = [row[3] for row in rows]
    count: dict[str, int] = defaultdict(int)
    order = np.zeros(len(rows), np.int64)
    for place in np.argsort([row[4] for row in rows], kind="stable"):
        order[place] = count[who[place]]
        count[who[place]] += 1
    names = np.array(who, str) if all(who) else np.array([], str)
    return Looked(name, path, points, names, order, label)


_Row = tuple[float, float, float, str, int]  # x, y, duration, observer, line


def _listed(folder: Path, problems: list[str]) -> dict[str, tuple[Path, int, int]]:
    """Return {image of `labels.csv`: its file, class index, line}; adds to the problems."""
    lines: dict[str, int] = {}
    listed: dict[str, tuple[Path, int, int]] = {}
    for number, row in read_rows(folder / LABELS, ("image",)):
        try:
            path = inside(folder, row["image"])
            label = label_of(row)
            if row.get("map"):
                raise ValueError(
                    f"names the map {printable(row['map'])}, but {gaze_file(folder).name} makes "
                    "the maps: leave the column empty, or keep the points elsewhere"
                )
            row["image"] = spelled_once(row["image"])
            refuse_repeated(lines, row["image"], number)
        except (ValueError, TypeError) as error:
            problems.append(f"{LABELS}, line {number}: {error}")
        else:
            listed[row["image"]] = path, label, number
    return listed


def _named(folder: Path, points: Path) -> tuple[dict[str, tuple[Path, int, int]], dict[str, str]]:
    """Return {image that the points name: its file, no class, line}, and {another name of the
    same file: the first one}.

    The file may lie in a subfolder if only one file has its name. A name without a file is left
    to the reader of the points.
    """
    found: dict[str, tuple[Path, int, int]] = {}
    first: dict[Path, str] = {}
    also: dict[str, str] = {}
    below: dict[str, list[Path]] = defaultdict(list)
    for path in files_below(folder)[0]:
        below[path.name].append(path)
    for number, row in read_rows(points, ("file", "x", "y")):
        name = spelled_once(row["file"] or "")
        if name in found or name in also:
            continue
        text = name
        if "/" not in name and len(below[name]) == 1:
            text = below[name][0].relative_to(folder).as_posix()
        try:
            path = inside(folder, text)
        except ValueError:
            continue
        known = first.setdefault(path.resolve(), name)
        if known == name:
            found[name] = path, NO_LABEL, number
        else:
            also[name] = known
    return found, also


class _Points:
    """A list of points, read row by row.

    rows, beside : {image: its points}, and the same for points outside it that will be skipped
    damaged : images with a wrong row
    """

    def __init__(self, viewing: Viewing, name: str, also: Mapping[str, str]):
        self._viewing, self._name, self._also = viewing, name, also
        self.rows: dict[str, list[_Row]] = defaultdict(list)
        self.beside: dict[str, list[_Row]] = defaultdict(list)
        self.damaged: set[str] = set()

    def read(self, path: Path, images: Mapping[str, Path], problems: list[str]) -> None:
        """Read the list. images : {name: file}; adds to the problems. Raises StoredError."""
        sizes: dict[str, tuple[int, int] | None] = {}
        listed = (path.parent / LABELS).is_file()
        rows = read_rows(path, ("file", "x", "y"))
        known = names_observers(rows)
        for number, row in rows:
            name = spelled_once(row["file"] or "")
            name = self._also.get(name, name)
            try:
                if name not in images:
                    raise ValueError(
                        f"{printable(name)} is not listed in {LABELS}, or its row is wrong"
                        if listed
                        else f"{printable(name)} is not an image below the folder, or several are"
                    )
                weight = _number(row, "duration") if "duration" in row else 1.0
                if weight <= 0 and self._viewing.weigh == DURATIONS:
                    raise ValueError(f"a duration of {weight:g}, expected more than 0")
                who = observer_of(row) if known else ""
                at = _number(row, "x"), _number(row, "y")
                if name not in sizes:
                    sizes[name] = upright_size(images[name])
                kept = self.rows
                if sizes[name] is not None:  # reading an unreadable image reports it
                    times, plus = self._viewing.placement(*sizes[name])
                    placed = np.array(at) * times + plus
                    if not _within(placed, sizes[name]) and self._viewing.outside != KEEP:
                        if self._viewing.outside == REFUSE:
                            raise ValueError(_beside(self._viewing, placed, name, sizes[name]))
                        kept = self.beside
                kept[name].append((*at, weight, who, number))
            except (ValueError, TypeError) as error:
                problems.append(f"{self._name}, line {number}: {error}")
                self.damaged.add(name)


def _beside(viewing: Viewing, at: Sequence[float], name: str, size: Sequence[int]) -> str:
    """Return the error for a point outside its image. at : x, y in pixels of the file"""
    (x, y), (width, height) = at, size
    screen = (
        "check screen and placed"
        if any(viewing.screen)
        else 'if points are in screen pixels, give its size, such as "screen": "1920x1080"'
    )
    return (
        f"({x:g}, {y:g}) lies outside {name}, which is {width} wide and {height} high: {screen} "
        f'in {BLUR}; to skip such points, write "outside": "leave out" there'
    )


def _number(row: dict[str, str], column: str) -> float:
    try:
        value = float(row[column])
    except (ValueError, TypeError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{column} is {row[column]!r}, expected a number")
    return value


def _within(at: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return which x, y, in pixels of the file, lie in the image: (point,) bool."""
    return ((at >= 0) & (at <= size)).all(axis=-1)
