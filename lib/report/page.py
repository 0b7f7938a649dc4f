"""The study's report: one HTML page with the answer, figures and tables by question, and origin.

It reads only what is on disk, and the page needs nothing but itself: style and figures are
inside. Every part may be missing or damaged, and is then named as such.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..base.files import is_partial, write_atomically
from ..base.paths import shown
from ..base.stored_json import TEXT, DamagedJson, mapping, of_each, read_json
from ..base.words import clock, counted, in_words
from ..figures.captions import CAPTIONS, alt_text_of, caption_of
from ..maps.methods import METHODS
from ..networks.backbones import BACKBONES
from ..runner.faults import FAULTS
from ..runner.outcomes import Outcome
from ..scores.controls import CONTROLS
from ..study.comparisons import pairs_of
from ..study.outputs import of_another_study
from ..study.places import Places
from ..study.rules import NOT_ASKED
from ..study.study import Study
from .grids import Grid, as_grid, as_texts
from .questions import NOTES, QUESTIONS, TABLES, named_as, question_of
from .readable import DAGGER, daggers_once, readable_leaderboard, readable_table
from .summary import Summary, methods_in_words, summary_of

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
# Heatmaps beside human maps; the first of these that a run made stands in the summary.
_LEADING = ("gaze_sample", "maps_beside_people", "clickme_sample")
_NOT_MADE = "Not made in this run."
_NAMES = {"backbone": BACKBONES, "method": METHODS, "control": CONTROLS}
# What the headings of the first columns begin with: a narrow screen shows no others.
_FIRST = (
    "Score", "Mean ρ", "Strongest control", "Compared with", "Difference", "p (", "Decision", "n",
)  # fmt: skip
_PNG_BEGINS, _PNG_ENDS = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class Section:
    """A table, or several, under one heading.

    key    : the file's name without suffix
    lack   : why there are no grids although nothing is wrong
    damage : what is wrong with the file
    note   : what its columns mean
    """

    key: str
    title: str
    source: str
    grids: Sequence[Grid] = ()
    lack: str = ""
    damage: str = ""
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A figure. title, caption : its heading and the rest of its words; data : base64"""

    key: str
    title: str
    caption: str
    alt: str
    data: str
    width: int
    height: int
    source: str
    sha256: str
    commit: str


@dataclass(frozen=True)
class Fold:
    """What answers one question.

    unmade : titles of figures and tables that the run could have made and did not
    """

    key: str
    text: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Section] = ()
    unmade: Sequence[str] = ()

    @property
    def count(self) -> str:
        """ "3 figures, 1 table" """
        tables = sum(bool(part.grids) for part in self.tables)
        parts = (len(self.figures), "figure"), (tables, "table")
        return ", ".join(counted(number, what) for number, what in parts if number)

    @property
    def is_empty(self) -> bool:
        return not (self.figures or self.tables)


class _NothingToShow(Exception):
    """A table is there and says nothing about this study; says why."""


def write_report(study: Study) -> Path:
    """Write `report.html` of what the study's folders hold now; returns where it is.

    The page is one file: figures are inside it, so that it can be sent and kept. Tables and
    figures that another study left in the folders are named and not shown.
    """
    tables = study.places.tables
    figures, spoilt = _figures(study)
    part = functools.partial(_part, study)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    folds = _folds(study, figures)
    leading = next((f for key in _LEADING for f in figures if f.key == key), None)
    page = environment.get_template("report.html.j2").render(
        study=study,
        choices=study.choices,
        comparison=study.choices.comparison,
        differences=bool(pairs_of(study.choices)),
        summary=_summary(study),
        methods=methods_in_words([method.label for method in study.choices.methods]),
        controls=[control.label for control in CONTROLS.values()],
        leading=leading,
        trouble=_trouble(study),
        skipped=part("Skipped, because missing or unreadable", tables / "left_out.csv", _skipped),
        remarks=part("About the weights", tables / "weights.csv", _weights),
        folds=[fold for fold in folds if not fold.is_empty],
        opened=next((fold.key for fold in folds if fold.count), ""),
        unmade=[fold for fold in folds if fold.is_empty and fold.unmade],
        spoilt=spoilt,
        dagger=DAGGER,
        run=part("The last run", study.places.output / "run.json", _run),
        weights=part(TABLES["weights"], tables / "weights.csv", _plain),
        origin=part(
            "Versions and inputs", study.places.output, lambda _: _origin(study.places)
        ),
    )  # fmt: skip
    path = study.places.output / "report.html"
    with write_atomically(path) as partial:
        # A file's name may be no text at all.
        partial.write_bytes(page.encode("utf-8", "backslashreplace"))
    return path


def _folds(study: Study, figures: Sequence[Figure]) -> list[Fold]:
    """Every question with what the run made of it."""
    whole = study.choices.of_paper  # else what is not made is not asked for
    drawn = {figure.key for figure in figures}
    folds = []
    for question in QUESTIONS.values():
        parts = [_table(study, key) for key in question.tables]
        unmade = [caption_of(key, study.choices)[0] for key in question.figures if key not in drawn]
        unmade += [part.title for part in parts if part.lack == _NOT_MADE]
        folds.append(
            Fold(
                question.key, question.text,
                [figure for figure in figures if question_of(figure.key) == question.key],
                [p for p in parts if p.grids or p.damage or (whole and p.lack != _NOT_MADE)],
                unmade if whole else (),
            )
        )  # fmt: skip
    return folds


def _table(study: Study, key: str) -> Section:
    title, read = _READERS.get(key, (TABLES.get(key, ""), _plain))
    change = study.choices.comparison.change
    return _part(study, title.format(change=change), study.places.tables / f"{key}.csv", read)


def _summary(study: Study) -> Summary:
    """What the first screen says; of the results alone where another table is damaged."""
    names = ("results", "controls_summary", "ceiling", "verdicts", "beside_people")
    found = [_frame(study, study.places.tables / f"{name}.csv") for name in names]
    for tables in (found, found[:1]):
        try:
            summary = summary_of(study.choices.comparison.change, *tables)
        except _UNREADABLE:
            continue
        if study.choices.profile.mini and summary.sentences:
            first = "This run checks the software on generated data."
            return replace(summary, sentences=[first, *summary.sentences])
        return summary
    return Summary([])


def _frame(study: Study, path: Path) -> pd.DataFrame | None:
    """A table of this study; None where it is missing, damaged or another study's."""
    if _foreign(study, path):
        return None
    try:
        return pd.read_csv(path)
    except _UNREADABLE:
        return None


def _trouble(study: Study) -> list[str]:
    """Which notebooks of the last run did not succeed, and why, a sentence each."""
    try:
        run = read_json(study.places.output / "run.json", {"type": "object"})
        told = []
        for outcome in run["notebooks"]:
            if not Outcome(outcome["notebook"], outcome["status"]).is_well:
                why = str(outcome["detail"] or outcome["reason"]).partition("\n")[0]
                told.append(f"{outcome['notebook']}: {outcome['status']}" + f". {why}" * bool(why))
        return told
    except _UNREADABLE:
        return []


def _foreign(study: Study, path: Path) -> str:
    """In words, that a result was made by other choices; "" if it was not, or nothing tells."""
    other = "" if path.suffix == ".json" else of_another_study(study, path)
    return f"not of this study ({other})" if other else ""


def _part(study: Study, title: str, path: Path, read: Callable[[Path], list[Grid]]) -> Section:
    """The part that `read` makes of what is at `path`, whatever is there."""
    key, source = path.stem, shown(path)
    if other := _foreign(study, path):
        return Section(key, title, source, damage=f"What is in {source} is {other}: not shown.")
    try:
        grids = [grid for grid in read(path) if grid.rows]
    except FileNotFoundError:
        return Section(key, title, source, lack=_NOT_MADE)
    except _NothingToShow as why:
        return Section(key, title, source, lack=str(why))
    except _UNREADABLE as error:
        words = f"{source} cannot be read ({type(error).__name__}: {error})."
        return Section(key, title, source, damage=words)
    lack = "" if grids else "It has no rows."
    return Section(key, title, source, grids, lack, note=NOTES.get(key, ""))


# --- tables ---------------------------------------------------------------------------------


def _plain(path: Path) -> list[Grid]:
    table = pd.read_csv(path)
    for name, rows in _NAMES.items():
        if name in table:
            table[name] = [rows[key].label if key in rows else key for key in table[name]]
    if "dcls" in table and not table["dcls"].any():
        table = table.drop(columns="dcls")
    if "label" in table and table["label"].equals(table.get("backbone")):
        table = table.drop(columns="label")
    return [as_grid(table.rename(columns={"left_out": "skipped"}))]


def _skipped(path: Path) -> list[Grid]:
    table = pd.read_csv(path)
    return [as_grid(table.rename(columns={"left_out": "skipped"}))] if len(table) else []


def _weights(path: Path) -> list[Grid]:
    """Only what a reader must know; the whole table stands among the further ones."""
    table = pd.read_csv(path)
    told = table[table.remarks.notna()][["label", "remarks"]]
    return [as_grid(told.rename(columns={"label": "model", "remarks": "what to know"}))]


def _verdicts(path: Path) -> list[Grid]:
    table = pd.read_csv(path)
    names = ["counts", "statistic", "value", "low", "high"]
    table["found"] = [_found(*row) for row in table.reindex(columns=names).itertuples(index=False)]
    claims, table = table, table[table.verdict != NOT_ASKED]
    told = table.reindex(
        columns=["claim", "verdict", "found", "n", "because", "notes", "other_readings", "rules"]
    )
    told = told.rename(columns=lambda name: name.replace("_", " ").capitalize())
    if len(claims) and told.empty:
        raise _NothingToShow("None of the paper's claims is about these models alone.")
    speaks_of = "; ".join(map(str, table["speaks_of"].unique()))
    return [
        as_grid(told.dropna(axis="columns", how="all"), f"These verdicts are about: {speaks_of}")
    ]


def _found(counts: str | float, statistic: str, *numbers: float) -> str:
    if isinstance(counts, str):  # else missing
        return counts
    value, low, high = as_texts(pd.Series(numbers, dtype=float))
    return "" if value == "–" else f"{statistic}: {value} [{low}, {high}]"


def _results(path: Path) -> list[Grid]:
    readable = readable_table(pd.read_csv(path))
    if "Method" not in readable:  # its forms are methods
        readable.insert(0, "Method", "CAM methods")
    model = readable.columns[1]
    # A row per method of a single model, not a table; else a table per method.
    row, of = ("Method", model) if readable[model].nunique() == 1 else (model, "Method")
    first = [row, *(name for begin in _FIRST for name in readable if name.startswith(begin))]
    columns = [*first, *readable.columns.drop([*first, "Protocol", of])]
    grids = []
    for (protocol, of_one), rows in readable.groupby(["Protocol", of], sort=False):
        shown_rows, every = daggers_once(rows[columns])
        above = "significantly above the strongest control"
        told = f"no row is {above}" if every else f"{DAGGER}: not {above}"
        grids.append(as_grid(shown_rows, f"{of_one}, protocol {protocol} ({told})"))
    return grids


def _leaderboard(path: Path) -> list[Grid]:
    readable = readable_leaderboard(pd.read_csv(path))
    return [
        as_grid(
            rows[["Model", *rows.columns.drop(["Model", "Method", "Protocol"])]],
            f"{method}, protocol {protocol}",
        )
        for (protocol, method), rows in readable.groupby(["Protocol", "Method"], sort=False)
    ]


# {key: title, reader} of the tables that are not shown as they are.
_READERS = {
    "verdicts": ("Verdicts", _verdicts),
    "results": ("Results", _results),
    "leaderboard": ("Leaderboard", _leaderboard),
}


# --- figures --------------------------------------------------------------------------------


def _figures(study: Study) -> tuple[list[Figure], list[str]]:
    """The figures in the captions' order, then any others; and why some are not shown."""
    found = sorted(study.places.figures.glob("*.png"))
    paths = {path.stem: path for path in found if not is_partial(path)}
    figures, spoilt = [], []
    for key in dict.fromkeys([*CAPTIONS, *paths]):
        try:
            if key in paths and (other := _foreign(study, paths[key])):
                spoilt.append(f"{shown(paths[key])} is {other}: not shown.")
            elif key in paths:
                figures.append(_figure(study, paths[key]))
        except (OSError, ValueError) as error:
            spoilt.append(f"{shown(paths[key])} cannot be read ({error}).")
    return figures, spoilt


def _figure(study: Study, path: Path) -> Figure:
    data = path.read_bytes()
    if not (data.startswith(_PNG_BEGINS) and data.endswith(_PNG_ENDS) and len(data) > 24):
        raise ValueError("it is no whole PNG")
    width, height = struct.unpack(">II", data[16:24])
    try:
        words = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        words = ""
    key = path.stem
    row = named_as(key)  # "leaderboard" of "leaderboard_grad_cam"
    known = caption_of(row, study.choices) if row else None
    title, whole = known or (key.replace("_", " ").capitalize(), "")
    caption = (words or whole).removeprefix(f"{title}.").strip()
    if known and key != row:
        more = key.removeprefix(f"{row}_")
        title += f": {METHODS[more].label if more in METHODS else more.replace('_', ' ')}"
    alt = alt_text_of(key, study.choices) if known else f"{title}. {_sentence(caption)}".strip()
    return Figure(
        key, title, caption or title, alt,
        base64.b64encode(data).decode(), width, height, shown(path),
        hashlib.sha256(data).hexdigest(), str(_facts(path.with_suffix(".json")).get("commit", "")),
    )  # fmt: skip


def _sentence(text: str) -> str:
    """The first one."""
    return re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]


# --- origin ---------------------------------------------------------------------------------


_TOLD = mapping(
    {"commit": TEXT, "environment": of_each(TEXT), "inputs": of_each(TEXT),
     "study": mapping({"device": TEXT})}
)  # fmt: skip


def _facts(path: Path) -> dict:
    """The provenance that is told beside a result; empty if none is."""
    try:
        return read_json(path, _TOLD)
    except (OSError, DamagedJson):
        return {}


def _pairs(caption: str, name: str, value: str, pairs: Sequence[tuple[str, object]]) -> Grid:
    texts = [(key, ", ".join(map(str, v)) if isinstance(v, list) else v) for key, v in pairs]
    return as_grid(pd.DataFrame(texts, columns=[name, value], dtype=object), caption)


def _run(path: Path) -> list[Grid]:
    run = read_json(path, {"type": "object"})
    meanings = {0: "all is well"} | {f.exit_status: f.meaning for f in FAULTS.values()}
    status = run["exit_status"]
    ended = "not ended" if status is None else f"{status}: {meanings.get(status, 'unknown')}"
    about = [(name, run[name]) for name in ("command", "commit", "started", "ended")]
    notebooks = [
        {
            "notebook": outcome["notebook"],
            "status": outcome["status"],
            "time": clock(outcome["seconds"]) if outcome["seconds"] else "",
            "peak memory": in_words(outcome["peak_memory_bytes"]) if outcome["seconds"] else "",
            "why": outcome["detail"] or outcome["reason"],
        }
        for outcome in run["notebooks"]
    ]
    return [
        _pairs("", "what", "as recorded", [*about, ("exit status", ended)]),
        as_grid(pd.DataFrame(notebooks), "Notebooks"),
        _pairs("Parameters", "parameter", "value", list(run["parameters"].items())),
    ]


def _origin(places: Places) -> list[Grid]:
    """Versions and inputs told beside figures and tables: all that differ, once each."""
    paths = sorted(places.figures.glob("*.json")) + sorted(places.output.glob("tables/*.json"))
    told = [facts for path in paths if (facts := _facts(path))]
    if not told:
        raise FileNotFoundError
    made = [("commit", f["commit"]) for f in told]
    made += [("device", f["study"]["device"]) for f in told]
    made += [pair for f in told for pair in f["environment"].items()]
    inputs = {pair for f in told for pair in f["inputs"].items()}
    return [
        _pairs("Versions and device", "what", "version", list(dict.fromkeys(made))),
        _pairs("Inputs", "file", "SHA-256", sorted(inputs)),
    ]
