"""How gaze was recorded and becomes human maps: screen, degrees, weights, first fixations.

The fields of `Viewing` are the keys of `gaze.json` and of `--gaze KEY=VALUE`. A data set's row
(`lib.people.stored.layouts`) has the values that its authors, or most of its users, choose.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from ...base.tables import unknown_name
from .part import NO_LABEL, StoredError

COUNTS, DURATIONS = "counts", "durations"
REFUSE, LEAVE_OUT, KEEP = "refuse", "leave out", "keep"
CENTRE, LETTERBOX, STRETCH = "centre", "letterbox", "stretch"
EXAMPLE = '{"sigma_pixels": 25} or {"sigma_degrees": 1, "pixels_per_degree": 35}'
_WORDS = {
    "weigh": (COUNTS, DURATIONS),
    "outside": (REFUSE, LEAVE_OUT, KEEP),
    "placed": (CENTRE, LETTERBOX, STRETCH),
}
_MOST = 10**6  # pixels of a screen's side


@dataclass(frozen=True)
class Looked:
    """One image of a data set, and where people looked at it, as recorded.

    name    : the image's id in every table, a path below the data set's folder
    image   : its file
    points  : (fixation, 3) float64 x, y, duration. x is measured from the left edge and y from the
              top edge, with the centre of the first pixel at (0.5, 0.5); in pixels of the image's
              file, or of the screen if `Viewing.screen` gives its size. A duration is in any one
              unit, 1 if none was recorded
    who     : (fixation,) names of the observers; empty if they are unknown
    order   : (fixation,) int, the position in the observer's scanpath, from 0
    label   : class index, NO_LABEL for none
    """

    name: str
    image: Path
    points: np.ndarray
    who: np.ndarray
    order: np.ndarray
    label: int = NO_LABEL


def read_options(pairs: Sequence[str]) -> dict[str, object]:
    """Return {field: value} from texts such as "sigma_pixels=25". Raises StoredError."""
    said: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name, text = name.strip(), text.strip()
        if not equals or not name or name in said:
            raise StoredError(
                f"--gaze takes KEY=VALUE, each key once, such as sigma_pixels=25; got {pair!r:.60}"
            )
        try:
            said[name] = float(text)
        except ValueError:
            said[name] = text
    return said


@dataclass(frozen=True)
class Viewing:
    """How points become a human map.

    sigma_pixels  : standard deviation of the Gaussian, in pixels of the image's file; or
    sigma_degrees, pixels_per_degree : the same in degrees of visual angle, and how many pixels
                    of the points' own coordinates a degree has; 0 for not given
    weigh   : "counts": all fixations have equal weight; "durations": weight is duration
    skip_first : how many fixations of each observer are skipped at the start of each image; the
                 first one begins at the fixation cross, most often the centre
    outside : what happens to fixations outside the image: "refuse" names them, "leave out" skips
              and counts them, "keep" lets their Gaussians reach into the image
    screen  : its width and height in pixels if points are in screen pixels; (0, 0) if they are in
              pixels of the file
    placed  : how the image lay on the screen: "centre" unscaled, "letterbox" as large as fits,
              "stretch" over all of it
    """

    sigma_pixels: float = 0.0
    sigma_degrees: float = 0.0
    pixels_per_degree: float = 0.0
    weigh: str = DURATIONS
    skip_first: int = 0
    outside: str = REFUSE
    screen: tuple[int, int] = (0, 0)
    placed: str = CENTRE

    def with_values(self, said: Mapping[str, object], where: str) -> Viewing:
        """Return a copy with some fields changed, by `gaze.json` or options.

        where : what errors call the place

        Raises StoredError, which names the place, the field, and what to write.
        """
        names = [f.name for f in fields(self)]
        read = {}
        for name, value in said.items():
            if name not in names:
                shown = ascii(str(name)[:50])[1:-1]
                raise StoredError(f"{where}: {unknown_name('key', shown, names)}")
            read[name] = _read(name, value, where)
        in_pixels = "sigma_pixels" in read
        in_degrees = "sigma_degrees" in read
        if in_pixels and in_degrees:
            raise StoredError(f"{where} must give {EXAMPLE}, not both")
        if in_pixels:
            read |= {"sigma_degrees": 0.0}
        if in_degrees:
            read |= {"sigma_pixels": 0.0}
        return replace(self, **read)

    def require_sigma(self, where: str) -> None:
        """Raise StoredError unless the blur is given: without a data set there is no default."""
        if not self.sigma_pixels and not (self.sigma_degrees and self.pixels_per_degree):
            raise StoredError(
                f"{where} must give the blur of gaze points, such as {EXAMPLE}; on the "
                "command line --gaze sigma_pixels=25"
            )

    def placement(self, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Return factors and offsets that take recorded x, y to pixels of the file.

        width, height : of the image's file
        """
        across, down = self.screen
        if not across:
            return np.ones(2), np.zeros(2)
        screen, image = np.array([across, down]), np.array([width, height])
        if self.placed == STRETCH:
            return image / screen, np.zeros(2)
        times = 1.0 if self.placed == CENTRE else 1 / (screen / image).min()
        return np.full(2, times), (image - screen * times) / 2

    def sigma(self, width: int, height: int) -> np.ndarray:
        """Return sigma across and down, in pixels of an image file of this size."""
        if self.sigma_pixels:
            return np.full(2, self.sigma_pixels)
        return self.sigma_degrees * self.pixels_per_degree * self.placement(width, height)[0]

    def points(self, looked: Looked, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the fixations that count, and which of the recorded ones they are.

        The former are (fixation, 3): x, y in pixels of the file, and weight. The latter are
        (fixation,) bool, False for skipped first fixations.
        """
        counts = looked.order >= self.skip_first
        points = looked.points[counts].copy()
        times, plus = self.placement(width, height)
        points[:, :2] = points[:, :2] * times + plus
        if self.weigh == COUNTS:
            points[:, 2] = 1
        return points, counts

    @property
    def words(self) -> str:
        """How points become maps, in words, for a caption."""
        if self.sigma_pixels:
            blur = f"{self.sigma_pixels:g} pixels"
        else:
            blur = (
                f"{self.sigma_degrees:g}° ({self.sigma_degrees * self.pixels_per_degree:g} pixels)"
            )
        told = [f"each fixation blurred by a Gaussian of σ = {blur}"]
        told.append(
            "all fixations weighted equally" if self.weigh == COUNTS else "weighted by duration"
        )
        if self.skip_first:
            told.append(f"the first {self.skip_first} of each observer skipped")
        return ", ".join(told)

    @property
    def facts(self) -> dict:
        """The fields as plain values, for the record beside results."""
        return asdict(self) | {"screen": list(self.screen)}


def _read(name: str, value: object, where: str) -> object:
    """Return a field's value from JSON or from the command line."""
    if name in _WORDS:
        if value not in _WORDS[name]:
            one_of = ", ".join(_WORDS[name])
            raise StoredError(f"{where}: {name} is {value!r:.60}, expected one of {one_of}")
        return value
    if name == "screen":
        sides = value
        if isinstance(value, str):
            found = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", value)
            sides = found.groups() if found else ()
        whole = isinstance(sides, list | tuple) and len(sides) == 2
        sides = tuple(int(s) if isinstance(s, str) else s for s in sides) if whole else ()
        if not sides or not all(type(s) is int and 0 < s <= _MOST for s in sides):
            raise StoredError(
                f"{where}: screen is {value!r:.60}, expected width and height, such as 1680x1050"
            )
        return sides
    plain = type(value) in (int, float) and abs(value) <= sys.float_info.max
    number = value if plain else math.nan
    if name == "skip_first":
        if not 0 <= number <= _MOST or number != int(number):  # NaN fails the comparison
            raise StoredError(f"{where}: skip_first is {value!r:.60}, expected a whole number")
        return int(number)
    if not 0 < number <= sys.float_info.max:
        raise StoredError(f"{where}: {name} is {value!r:.60}, expected a number above 0")
    return number
