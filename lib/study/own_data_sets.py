"""`add_layout`, which a file of own rows or a plug-in calls to add a data set of gaze."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ..people.stored import PLAIN, StoredError
from ..people.stored.layouts import LAYOUTS, Layout
from ..people.stored.viewing import COUNTS, LEAVE_OUT, Looked, Viewing
from .extension import being_read

_USUAL = Viewing(weigh=COUNTS, outside=LEAVE_OUT)


def add_layout(
    key: str,
    *,
    holds: Callable[[Path], bool],
    read: Callable[[Path], tuple[Sequence[Looked], Sequence[str]]],
    source: str,
    label: str = "",
    viewing: Viewing = _USUAL,
) -> Layout:
    """Add a data set of gaze to the table.

    key     : its name for `--layout`
    holds   : a function that returns whether a folder contains the data set, judged by its files
    read    : a function that returns the images with fixations, each a `Looked`, and the problems,
              in sentences; an exception becomes a StoredError
    source  : the publication
    viewing : how fixations become maps by default: unless given, all have equal weight, those
              outside an image are skipped, and the user must state the blur

    Raises ValueError, which names what does not fit.
    """
    _, digest = being_read()
    if not isinstance(key, str) or not re.fullmatch(r"\w[\w-]*", key) or key in PLAIN:
        raise ValueError(
            f"the key {key!r} must be a text of letters, digits, _ and -, and must not be "
            f"{', '.join(PLAIN)}"
        )
    for name, function in (("holds", holds), ("read", read)):
        if not callable(function):
            raise ValueError(f"{key}: {name} must be a function of a folder")
    if not isinstance(viewing, Viewing):
        raise ValueError(f"{key}: viewing must be a Viewing, but it is {viewing!r}")
    label = label or key
    if any(row.label == label for row in LAYOUTS.values()):
        raise ValueError(f"another row of the layout table has the label {label}")
    return LAYOUTS.add(
        Layout(key, label, source, _holding(key, holds), _reading(key, read), viewing, digest)
    )


def _holding(key: str, holds: Callable[[Path], bool]) -> Callable[[Path], bool]:
    def guarded(folder: Path) -> bool:
        try:
            return bool(holds(folder))
        except Exception as error:  # a user's own function may raise anything
            raise StoredError(
                f"{folder}: checking whether it is {key} fails: {type(error).__name__}: {error}"
            ) from error

    return guarded


def _reading(key: str, read: Callable) -> Callable[[Path], tuple[list[Looked], list[str]]]:
    def guarded(folder: Path) -> tuple[list[Looked], list[str]]:
        try:
            looked, problems = read(folder)
            looked, problems = list(looked), list(problems)
        except StoredError:
            raise
        except Exception as error:  # a user's own function may raise anything
            raise StoredError(
                f"{folder}: reading it as {key} fails: {type(error).__name__}: {error}"
            ) from error
        names: set[str] = set()
        for number, one in enumerate(looked):
            if why := _wrong_with(one, names):
                raise StoredError(f"{folder}: image {number} of {key} {why}")
            names.add(one.name)
        return looked, problems

    return guarded


def _wrong_with(one: Looked, names: set[str]) -> str:
    """Return why this is not the gaze of one image; "" if it is."""
    if not isinstance(one, Looked):
        return f"is a {type(one).__name__}, but must be a Looked"
    if one.name in names:
        return f"has the same name as another, {one.name}"
    if not Path(one.image).is_file():
        return f"names {one.image}, which does not exist"
    points = getattr(one.points, "shape", ())
    if len(points) != 2 or points[1] != 3 or one.points.dtype != "float64":
        return f"has points of shape {points}, but needs (fixation, 3) float64: x, y, duration"
    if len(one.order) != points[0] or len(one.who) not in (0, points[0]):
        return (
            f"has {points[0]} fixations, an order of {len(one.order)} and {len(one.who)} observers"
        )
    return ""
