"""A share of a study's units, for the tasks of a job array, none of which knows the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tqdm import tqdm

from ..base.progress_bar import progress_bar
from ..study.study import Study
from .kept import read_kept
from .units import score_here, units_of

T = TypeVar("T")


@dataclass(frozen=True)
class ShareScored:
    """What a share contained: units scored now, units found in the cache, and why others were
    skipped ({variant: reason}, only with `keep_going`)."""

    scored: int
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


def score_share(study: Study, number: int, count: int) -> ShareScored:
    """Compute the scores of one share of a study's units and cache them for `score_study`.

    number, count : as for `share`. The shares depend on all units, cached or not, so any task can
                    be started again, at any time.

    Raises as `score_study` does.
    """
    study.inputs.require()
    clickme = study.clickme()
    skipped = dict(clickme.left_out)
    # A matched pair shares its DCLS model, so two units may have one file.
    units = list({unit.path: unit for unit in units_of(study, clickme, skipped)}.values())
    mine = share(units, number, count)
    waiting = [u for u in mine if read_kept(u.path, study.choices.keep_going) is None]
    cached = len(mine) - len(waiting)
    scored = 0
    with progress_bar(total=len(mine), initial=cached, desc="scoring", unit="model") as bar:
        for unit, error in score_here(study, waiting):
            bar.update()
            if error is None:
                scored += 1
            else:
                skipped[unit.variant] = str(error)
                tqdm.write(f"skipped: {unit.variant}: {error}")
    return ShareScored(scored, cached, skipped)
