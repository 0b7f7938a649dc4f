"""What an analysis consists of: units of work, each with a table that is cached in one file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from ..base.alone import alone
from ..base.fingerprint import fingerprint
from ..networks.checkpoints import MissingWeights
from ..people.stored import StoredError
from ..study.study import Study
from .cache import read_cached, write_cached


@dataclass(frozen=True)
class Unit:
    """A piece of an analysis.

    name  : for messages, the same in every process
    model : what is skipped as a whole if its weights cannot be used; "" for none
    of    : what the analysis needs to compute it
    size  : how far the unit moves the progress bar
    path  : the file that caches its table
    """

    name: str
    model: str
    of: Any = field(compare=False, repr=False)
    size: int
    path: Path


class Work(ABC):
    """One analysis of one study. A worker makes it again from its class, the study's choices and
    the arguments, so all of these must be plain data.

    missed : {model, part or image: why it was skipped}; it grows during the work

    A subclass states:

    folder  : the folder of cached tables, beside those of other analyses
    bar     : what the progress bar shows and counts
    columns : of a unit's table
    """

    folder: ClassVar[str]
    bar: ClassVar[tuple[str, str]]
    columns: Sequence[str]

    def __init__(self, study: Study, **arguments: Any):
        self.study, self.arguments = study, arguments
        self.missed: dict[str, str] = {}

    @abstractmethod
    def pieces(self) -> Iterator[tuple[str, str, Any, int]]:
        """Yield the name, model, `of` and size of each unit, in the order of the results."""

    @abstractmethod
    def facts(self, of: Any) -> dict:
        """Return all that determines a unit's table. Raises MissingWeights."""

    @abstractmethod
    def compute(self, of: Any) -> pd.DataFrame:
        """Return a unit's table. What the next units can use again may be kept in `self`. Raises
        StoredError, WeightsError."""

    def skipped(self, of: Any) -> dict[str, str]:
        """Return {image: why it was skipped} once a unit has been computed."""
        return {}

    def foretold(self, units: Sequence[Unit]) -> str:
        """Return in words how long these units will take if that is long; "" otherwise."""
        return ""

    def units(self) -> Iterator[Unit]:
        """Yield all units; a model without weights is added to `missed`, or raises."""
        for name, model, of, size in self.pieces():
            try:
                if model not in self.missed:
                    yield Unit(name, model, of, size, self._path(name, of))
            except MissingWeights as error:
                if not self.study.choices.keep_going:
                    raise
                self.missed[model] = str(error)

    def stem(self, name: str, of: Any) -> str:
        """Return the beginning of the name of a unit's file."""
        return name

    def _path(self, name: str, of: Any) -> Path:
        file = f"{self.stem(name, of)}-{fingerprint(self.facts(of))}.parquet"
        return self.study.places.cached(self.folder) / file

    def cached(self, unit: Unit) -> pd.DataFrame | None:
        """Return a unit's cached table, or None."""
        return read_cached(unit.path, self.study.choices.keep_going, self.columns)

    def do(self, unit: Unit) -> None:
        """Compute a unit's table and cache it, unless another process has done so while this one
        waited. Raises StoredError, WeightsError."""
        with alone(unit.path) as waited:
            if waited and self.cached(unit) is not None:
                return
            table = self.compute(unit.of)
            if self._path(unit.name, unit.of) != unit.path:
                raise StoredError(
                    f"{unit.name}: its images or weights changed while it was computed: run again"
                )
            write_cached(unit.path, table, self.skipped(unit.of))
