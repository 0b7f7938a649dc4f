"""A share of an analysis's units, for the tasks of a job array, none of which knows the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from .doing import do_waiting
from .units import Work

T = TypeVar("T")


@dataclass(frozen=True)
class ShareDone:
    """What a share contained: units computed now, units found in the cache, and why others were
    skipped ({model: reason}, only with `keep_going`)."""

    computed: int
    cached: int
    skipped: dict[str, str]


def share(units: Sequence[T], number: int, count: int) -> Sequence[T]:
    """Return the units of share `number` of 1 … `count`.

    Shares are disjoint and contain all units together. Each is one run of consecutive units,
    because consecutive units read the same images; their lengths differ by one at most. Raises
    ValueError for a share that does not exist.
    """
    if not 1 <= number <= count:
        raise ValueError(f"there is no share {number} of {count}: choose one of 1 to {count}")
    return units[(number - 1) * len(units) // count : number * len(units) // count]


def do_share(work: Work, number: int, count: int) -> ShareDone:
    """Compute one share of an analysis's units and cache their tables.

    number, count : as for `share`. The shares depend on all units, cached or not, so any task can
                    be started again, at any time.

    Raises as `lib.work.doing.tables` does.
    """
    # A matched pair shares its DCLS model, so two units may have one file.
    units = list({unit.path: unit for unit in work.units()}.values())
    mine = share(units, number, count)
    waiting = [unit for unit in mine if work.cached(unit) is None]
    computed = do_waiting(work, mine, waiting)
    return ShareDone(computed, len(mine) - len(waiting), work.missed)
