"""The report's first screen: the answer in sentences, and scores on one drawn scale.

Every number is read from the run's own tables; nothing is scored or averaged here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ..base.words import counted
from ..maps.methods import METHODS, RANDOM_CAM
from ..scores.controls import control_labels
from ..study.rules import NOT_ASKED, RULES
from .in_short import in_sentences
from .readable import two_forms

_MOST_LINES = 9  # more of them stand in one line together
TOO_FEW = f"fewer than {RULES.fewest_images} images"
# {decision of `lib.scores.decisions`: what is said of so many differences}
DECISIONS = {
    "rises": "rises in {}",
    "falls": "falls in {}",
    "rises, too little to matter": "rises in {} by too little to matter",
    "falls, too little to matter": "falls in {} by too little to matter",
    "equivalent": "stays the same in {} (a relevant difference is ruled out)",
    "undecided": "is undecided in {}",
    TOO_FEW: "cannot be decided in {}, for lack of images",
}


@dataclass(frozen=True)
class Mark:
    """A point of the scale, in per cent of its width; low and high are None without an interval.

    kind : "model", "first" (the first form of a pair), "one of all", "control", "floor" or "people"
    """

    kind: str
    at: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """A line of the scale. told : its values in words; floor : the floor's place for this line"""

    label: str
    told: str
    marks: Sequence[Mark]
    floor: float | None = None


@dataclass(frozen=True)
class Scale:
    """Scores beside the floor and the ceiling.

    title : what is drawn, of which protocol and n
    ticks : (place in per cent, text); one : the place of 1, where that is the ceiling
    forms : what hollow and filled points are, of pairs
    controls : other controls are drawn beside the floor
    """

    title: str
    lines: Sequence[Line]
    ticks: Sequence[tuple[float, str]]
    one: float | None
    forms: Sequence[str] = ()
    controls: bool = False


@dataclass(frozen=True)
class Summary:
    """sentences : the answer; scale : None without scores; people : how well they agree"""

    sentences: Sequence[str]
    scale: Scale | None = None
    people: str = ""


@dataclass(frozen=True)
class _Chosen:
    """What the summary is about: rows of the results table's first protocol, of one model by every
    method, or of every model by the first method.

    rows : each model once; placed : a model twice where it is in two pairs
    name : "score", or "rho" where some row has no ceiling: the columns with the values
    """

    rows: pd.DataFrame
    placed: pd.DataFrame
    name: str
    of_methods: bool

    @property
    def unit(self) -> str:
        return "score" if self.name == "score" else "mean ρ"

    @property
    def many(self) -> str:
        """How many there are, in words."""
        if self.of_methods:
            return methods_in_words(self.rows.method.tolist())
        return counted(len(self.rows), "model")

    @property
    def floors(self) -> pd.DataFrame:
        """The rows with a floor; none where rows are in two units, as controls are in the unit of
        their row."""
        there = self.rows if self.rows.unit.nunique() < 2 else self.rows.iloc[:0]
        return there.dropna(subset=["control", "control_score"])

    def label(self, row: pd.Series) -> str:
        return str(row.method if self.of_methods else row.model)


def methods_in_words(labels: Sequence[str]) -> str:
    """How many methods these are; the random one is a control."""
    control = METHODS[RANDOM_CAM].label in labels
    return counted(len(labels) - control, "CAM method") + " and a control" * control


def summary_of(
    change: str,
    results: pd.DataFrame | None,
    controls: pd.DataFrame | None = None,
    ceilings: pd.DataFrame | None = None,
    verdicts: pd.DataFrame | None = None,
    beside_people: pd.DataFrame | None = None,
) -> Summary:
    """What the run's tables say; each of them may be missing (None).

    change : what a difference of the study's comparison is: "with DCLS minus without"
    results, controls, ceilings, verdicts, beside_people : the tables `results`,
             `controls_summary`, `ceiling`, `verdicts` and `beside_people`
    Raises AttributeError, KeyError, TypeError or ValueError for a table without its columns.
    """
    claims = _of_claims(verdicts)
    if results is None or results.empty:
        people = beside_people is not None and len(beside_people)
        return Summary([*claims, *(in_sentences(_first_of(beside_people)) if people else [])])
    chosen = _chosen(results)
    if chosen.rows.empty:
        return Summary([*claims, "No heatmap has a valid score."])
    compared, (reached, *floor) = _of_differences(results, change), _beside_the_floor(chosen)
    # What the study asks comes first, unless the run cannot tell.
    told = compared if results.decision.dropna().ne(TOO_FEW).any() else [reached, *compared]
    return Summary(
        [*claims, *told, *floor],
        _scale(chosen, controls, two_forms(results)),
        _people(chosen, ceilings),
    )


def _first_of(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first protocol and reading."""
    names = ["protocol", "reading"]
    return table[(table[names] == table[names].iloc[0]).all(axis="columns")]


def _chosen(results: pd.DataFrame) -> _Chosen:
    first = results[results.protocol == results.protocol.iloc[0]]
    of_methods = first.variant.nunique() == 1 and first.method.nunique() > 1
    if not of_methods:
        first = first[first.method == first.method.iloc[0]]
    placed = first.dropna(subset="rho")
    name = "rho" if placed.ceiling.isna().any() else "score"
    rows = placed.drop_duplicates("method" if of_methods else "variant")
    return _Chosen(rows, placed, name, of_methods)


# --- the answer -----------------------------------------------------------------------------


def _of_claims(verdicts: pd.DataFrame | None) -> list[str]:
    asked = [] if verdicts is None else verdicts.verdict[verdicts.verdict != NOT_ASKED]
    if not len(asked):
        return []
    told = [f"{n} {verdict}" for verdict, n in asked.value_counts(sort=False).items()]
    return [f"Of the paper's {len(verdicts)} claims: {', '.join(told)}."]


def _of_differences(results: pd.DataFrame, change: str) -> list[str]:
    """A sentence for each of the first two methods, of the first protocol; one in all where the
    images are too few."""
    first = results[results.protocol == results.protocol.iloc[0]].dropna(subset="decision")
    if len(first) and first.decision.eq(TOO_FEW).all():
        few = f"at least {RULES.fewest_images} images are needed"
        return [f"The comparison ({change}) is not decided: {few}."]
    said = []
    for method, rows in [*first.groupby("method", sort=False)][:2]:
        counts = rows.decision.value_counts(sort=False)
        known = [key for key in DECISIONS if key in counts]
        counts = counts.reindex([*known, *counts.index.difference(known)])
        words = [
            DECISIONS.get(word, f"“{word}” in {{}}").format(number)
            for word, number in counts.items()
        ]
        if len(words) == 1:
            every = " in all" if len(rows) > 1 else ""
            words = [words[0].replace(f" in {len(rows)}", every)]
        many = counted(len(rows), "comparison")
        said.append(f"In {many} by {method} ({change}), the score {_joined(words)}.")
    return said


def _joined(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def _beside_the_floor(chosen: _Chosen) -> list[str]:
    rows, name = chosen.rows, chosen.name
    first, fewest = rows.iloc[0], int(rows.n.min())
    if len(rows) == 1 or chosen.of_methods:
        said = [
            f"The {first.method} heatmaps of {first.model} have a {chosen.unit} of "
            f"{_interval(*_values(first, name))}."
        ]
    else:
        low, high = rows.loc[rows[name].idxmin()], rows.loc[rows[name].idxmax()]
        said = [
            f"By {first.method}, the {chosen.unit} of {chosen.many} runs from {low[name]:z.2f} "
            f"({low.model}) to {high[name]:z.2f} ({high.model})."
        ]
    floor = _floor(chosen)
    if not floor:
        return said
    said.append(f"The floor, the best map that ignores the image, reaches {floor}.")
    if fewest < RULES.fewest_images:
        undecided = (
            f"Undecided: {counted(fewest, 'image')} cannot show whether a model lies above the "
            f"floor; at least {RULES.fewest_images} are needed."
        )
        return [undecided, *said]
    above = int((rows.above_control.astype(str) == "True").sum())
    if len(rows) == 1:
        lies = "It lies" if above else "It does not lie"
        said.append(f"{lies} significantly above the floor.")
    elif above == len(rows):
        said.append(f"All {chosen.many} lie significantly above the floor.")
    else:
        lie = "lie" if above > 1 else "lies"
        said.append(f"Of {chosen.many}, {above or 'none'} {lie} significantly above the floor.")
    return said


def _values(row: pd.Series, name: str) -> tuple[float, float, float]:
    return row[name], row[f"{name}_low"], row[f"{name}_high"]


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:z.2f} [–]" if pd.isna(low) else f"{value:z.2f} [{low:z.2f}, {high:z.2f}]"


def _floor(chosen: _Chosen) -> str:
    floors, labels = chosen.floors, control_labels()
    if floors.empty:
        return ""
    names = " or ".join(dict.fromkeys(labels.get(key, str(key)) for key in floors.control))
    low, high = (f"{end:z.2f}" for end in (floors.control_score.min(), floors.control_score.max()))
    if low == high:
        return f"{low} ({names})"
    return f"{low} to {high} ({names}; it depends on the part of the image that a model sees)"


def _people(chosen: _Chosen, ceilings: pd.DataFrame | None) -> str:
    """How well people agree, of the protocol's first reading."""
    if ceilings is None or not (ceilings.protocol == chosen.rows.protocol.iloc[0]).any():
        return ""
    row = ceilings[ceilings.protocol == chosen.rows.protocol.iloc[0]].iloc[0]
    told = "It is not known for these people, so that the score is ρ itself."
    if pd.notna(row.ceiling):
        told = f"Here it is ρ = {_interval(row.ceiling, row.low, row.high)} ({row.origin})."
        told = told.replace(" [–]", "")  # a published number has no interval
    if pd.notna(row.one_against_rest):
        rest = row.one_against_rest, row.one_against_rest_low, row.one_against_rest_high
        told += f" One person's map correlates with all others' at ρ = {_interval(*rest)}."
    return told


# --- the scale ------------------------------------------------------------------------------


class _Axis:
    """Places in per cent, from the smallest to the largest of some values; 0 is always there."""

    def __init__(self, values: Sequence[float]):
        known = [value for value in values if pd.notna(value)]
        step = self.step = 0.2 if max(known) - min(*known, 0) <= 1.6 else 0.5
        self._low = math.floor(round(min(0, *known) / step, 6)) * step
        self._high = max(math.ceil(round(max(0, *known) / step, 6)), 1) * step

    def __call__(self, value: float) -> float | None:
        if pd.isna(value):
            return None
        return round(100 * (value - self._low) / (self._high - self._low), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        many = round((self._high - self._low) / self.step)
        values = [round(self._low + self.step * place, 6) + 0.0 for place in range(many + 1)]
        return [(self(value), f"{value:.1f}") for value in values]

    def mark(self, kind: str, value: float, low: float, high: float) -> Mark:
        return Mark(kind, self(value), self(low), self(high))


def _scale(chosen: _Chosen, controls: pd.DataFrame | None, forms: Sequence[str]) -> Scale:
    rows, name = chosen.rows, chosen.name
    beside = _controls_of(chosen, controls)
    ends = rows[[name, f"{name}_low", f"{name}_high"]].to_numpy().ravel()
    axis = _Axis([*ends, *(v for values in beside.values() for v in values), *_one(chosen)])
    lines = []
    if name == "score":
        lines.append(Line("people (the ceiling)", "1", [Mark("people", axis(1))]))
    lines += _lines(chosen, axis, forms)
    if beside:
        floor = max(beside, key=lambda key: beside[key][0])
        labels = control_labels()
        marks = [Mark("control", axis(values[0])) for key, values in beside.items() if key != floor]
        lines.append(
            Line(
                f"floor: {labels.get(floor, floor)}", _interval(*beside[floor]),
                [*marks, axis.mark("floor", *beside[floor])],
            )
        )  # fmt: skip
    few, most = int(rows.n.min()), int(rows.n.max())
    n = f"{few}" if few == most else f"{few} to {most}"
    of = rows.model.iloc[0] if chosen.of_methods else rows.method.iloc[0]
    return Scale(
        f"{chosen.unit.capitalize()} of {of}, protocol {rows.protocol.iloc[0]}, n = {n} images",
        lines, axis.ticks, axis(1) if name == "score" else None,
        forms if _in_pairs(chosen, forms) else (), len(beside) > 1,
    )  # fmt: skip


def _one(chosen: _Chosen) -> list[float]:
    return [1.0] if chosen.name == "score" else []


def _in_pairs(chosen: _Chosen, forms: Sequence[str]) -> bool:
    groups = chosen.placed.group.nunique()
    return len(forms) == 2 and not chosen.of_methods and groups <= _MOST_LINES


def _lines(chosen: _Chosen, axis: _Axis, forms: Sequence[str]) -> list[Line]:
    """A line per pair, per model or per method; where that is too many, one for all of them, and
    one each for the first method, the highest and the lowest."""
    rows, name = chosen.rows, chosen.name

    def line(label: str, *some: pd.Series) -> Line:
        kinds = ["first", "model"][-len(some) :]
        told = " → ".join(f"{row[name]:z.2f}" for row in some)
        return Line(
            label,
            told if len(some) > 1 else _interval(*_values(some[0], name)),
            [axis.mark(kind, *_values(row, name)) for kind, row in zip(kinds, some, strict=True)],
            axis(some[0].control_score) if len(chosen.floors) else None,
        )

    if _in_pairs(chosen, forms):
        groups = chosen.placed.groupby("group", sort=False)
        return [line(str(label), *(row for _, row in some.iterrows())) for label, some in groups]
    if len(rows) <= _MOST_LINES:
        return [line(chosen.label(row), row) for _, row in rows.iterrows()]
    ranked = rows.sort_values(name, ascending=False, kind="stable")
    high, low = ranked.iloc[0], ranked.iloc[-1]
    marks = [Mark("one of all", axis(value)) for value in rows[name]]
    return [
        Line(f"all {chosen.many}", f"{low[name]:z.2f} to {high[name]:z.2f}", marks),
        *([line(chosen.label(rows.iloc[0]), rows.iloc[0])] if chosen.of_methods else []),
        line(f"highest: {chosen.label(high)}", high),
        line(f"lowest: {chosen.label(low)}", low),
    ]


def _controls_of(
    chosen: _Chosen, controls: pd.DataFrame | None
) -> dict[str, tuple[float, float, float]]:
    """{control: value, low, high} where the protocol's models all see one part of the image."""
    if controls is None:
        return {}
    here = controls[controls.protocol == chosen.rows.protocol.iloc[0]]
    columns = ["score", "low", "high"] if chosen.name == "score" else ["raw", "raw_low", "raw_high"]
    here = here.dropna(subset=columns[0])
    if here.reading.nunique() != 1:
        return {}
    return dict(zip(here.control, here[columns].itertuples(index=False, name=None), strict=True))
