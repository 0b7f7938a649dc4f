"""All units of an analysis: from the cache, computed here, or by other processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from ..base.progress_bar import progress_bar
from ..networks.checkpoints import MissingWeights, WeightsError
from .cache import LEFT_OUT
from .cluster import do_on_cluster
from .units import Unit, Work


def tables(work: Work) -> Iterator[tuple[Unit, pd.DataFrame]]:
    """Yield every unit with its table, in order. What is not cached is computed first.

    With `workers` or `scheduler`, several processes share the units (`lib.work.cluster`). Raises
    what computing raises; with `keep_going`, models whose weights cannot be used are skipped, and
    `missed` of the work lists them and all other things that were skipped.
    """
    found: dict[Path, pd.DataFrame] = {}
    waiting: dict[Path, Unit] = {}
    units: list[Unit] = []
    for unit in work.units():
        units.append(unit)
        if unit.path in found or unit.path in waiting:  # a matched pair shares its DCLS model
            continue
        table = work.cached(unit)
        if table is None:
            waiting[unit.path] = unit
        else:
            found[unit.path] = table
    do_waiting(work, units, [*waiting.values()])
    for unit in units:
        if unit.model in work.missed:
            continue
        table = found.get(unit.path)
        table = work.cached(unit) if table is None else table
        if table is None:
            work.missed[unit.model] = "it shares its weights with a variant that was skipped"
            continue
        work.missed |= table.attrs.pop(LEFT_OUT, {})
        yield unit, table


def do_waiting(work: Work, units: Sequence[Unit], waiting: list[Unit]) -> int:
    """Compute those of some units that wait, and return how many were computed. Those that cannot
    be (with `keep_going`) are added to `missed` of the work. Raises what computing raises."""
    computed, choices = 0, work.study.choices
    desc, unit_name = work.bar
    total, left = sum(u.size for u in units), sum(u.size for u in waiting)
    with progress_bar(total=total, initial=total - left, desc=desc, unit=unit_name) as bar:
        bar.set_postfix_str(f"{total - left} cached", refresh=False)
        # One unit alone is quicker computed than a worker started.
        elsewhere = choices.scheduler or (choices.workers and len(waiting) > 1)
        do = do_on_cluster if elsewhere else _do_here
        for unit, error in do(work, waiting):
            bar.update(unit.size)
            if error is None:
                computed += 1
            elif unit.model not in work.missed:
                work.missed[unit.model] = str(error)
                tqdm.write(f"skipped: {unit.model}: {error}")
    return computed


def _do_here(work: Work, units: list[Unit]) -> Iterator[tuple[Unit, Exception | None]]:
    """Yield each unit once it is computed, with the error if it cannot be (with `keep_going`)."""
    keep_going = work.study.choices.keep_going
    if units and not keep_going and (foretold := work.foretold(units)):
        tqdm.write(foretold)
    unusable: dict[str, Exception] = {}
    for unit in units:
        if unit.model not in unusable:
            try:
                work.do(unit)
            except (MissingWeights, WeightsError) as error:
                if not keep_going:
                    raise
                unusable[unit.model] = error
        for name, reason in work.skipped(unit.of).items():
            tqdm.write(f"skipped: {name}: {reason}")
        yield unit, unusable.get(unit.model)
