"""The study's report: one HTML page with its verdicts, tables, figures and their origin.

It reads only what is on disk, and the page needs nothing but itself: style and figures are
inside. Every part may be missing or damaged, and is then named as such.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..base.files import is_partial, write_atomically
from ..base.paths import shown
from ..base.stored_json import TEXT, DamagedJson, mapping, of_each, read_json
from ..base.words import clock, in_words
from ..figures.captions import CAPTIONS, caption_of
from ..maps.methods import METHODS
from ..networks.backbones import BACKBONES
from ..runner.faults import FAULTS
from ..scores.controls import CONTROLS
from ..study.comparisons import pairs_of
from ..study.outputs import of_another_study
from ..study.places import Places
from ..study.rules import NOT_ASKED
from ..study.study import Study
from .grids import Grid, as_grid, as_texts
from .in_short import in_sentences
from .readable import DAGGER, readable_leaderboard, readable_table

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
# Figures that stand first, beside what notebook 00 found in words.
_LEADING = ("beside_people", "gaze_sample")
TABLES = {
    "beside_people": "People, networks and maps that ignore the image, on one scale",
    "fixation_measures": "Measures at the fixations themselves",
    "weights": "Weights: files, checksums, accuracy",
    "summary": "Scores: raw, beside the strongest control, with the centre held constant",
    "controls_summary": "Controls: maps that no network made",
    "ceiling": "The human ceiling: how well these people agree",
    "paired": "Differences, image by image: {change}",
    "compared": "Every two models, image by image",
    "power": "What so many images can tell apart",
    "sanity": "Networks that forget",
    "measures": "Other measures of agreement",
    "threshold": "Threshold-Grad-CAM taken apart: the floor",
    "two_by_two": "Threshold-Grad-CAM taken apart: order and floor",
    "targets": "Maps of the true and of the predicted class",
    "method_ranking": "CAM methods by their agreement with people",
    "faithfulness": "Are CAM methods faithful to their network?",
    "method_costs": "What a CAM method costs",
    "cose": "COSE: do explanations follow the image and change with the answer?",
    "cose_dcls": "COSE with DCLS less without",
    "cose_conditions": "Answers before and after a change",
    "cose_left_out": "Missing from COSE",
    "lcam_against_grad_cam": "Learned maps less Grad-CAM",
    "parameters": "Learnable parameters",
}
_NOTES = {
    "beside_people": "rho: mean Spearman's ρ with the map of all observers, of one person with "
    "that of all others; not divided by any ceiling; reading: the part of the image that the "
    "network sees. Intervals: 95 %, over images.",
    "fixation_measures": "nss: standard deviations above the map's mean; auc judd, shuffled auc: "
    "0.5 is chance; information gain: bits per fixation beyond the centre bias. More is better. "
    "people: each observer's fixations under the map of all others (docs/fixations.md).",
    "weights": "verified: by the publisher's checksum when it was fetched; top1: of these "
    "images; top1 known: of ImageNet's validation images, as published; p: of such a gap by "
    "chance.",
    "summary": "raw: mean ρ; score: raw ÷ ceiling, which is missing where none is known; control: "
    "the strongest; over control: score less its score, paired by image; above control: that "
    "surely lies above 0; rescaled: 0 at the strongest control, 1 at the ceiling, not given where "
    "the control comes near it; other human: another image's human map; partial: ρ with the "
    "distance from the centre held constant; correct: score over correctly classified images; "
    "tied: share of pixels whose value is another's too; attainable: the largest ρ that these ties "
    "allow. Intervals: 95 %, over images.",
    "ceiling": "split half: mean ρ of the maps of two halves of an image's observers; ceiling: "
    "the same for all observers, by Spearman and Brown; one against rest: of one observer's map "
    "with all others'; most: the mean ρ that a perfect model would reach. Only an estimate has "
    "these.",
    "controls_summary": "strongest: the highest of its protocol and reading. A score that does not "
    "lie above it may come from looking at the centre, or where people look in any image.",
    "paired": "difference: second less first, mean over images in units of the score, with its "
    "95 % interval, not corrected; p of no difference, missing for few images; p holm: corrected "
    "over the pairs of a protocol and panel; decision: by p holm and the smallest effect that "
    "matters; effect: Cohen's d; spread: standard deviation over images.",
    "compared": "difference: second less first, as above; p corrected by Holm over all pairs of a "
    "protocol.",
    "power": "Images for which a paired t test finds a mean difference of that size four times "
    "in five at 0.05 ÷ 8, with the spread seen here.",
    "threshold": "order: of ReLU and mean over channels; tied, attainable as above.",
    "faithfulness": "For the predicted class. average drop, deletion, road morf: less is more "
    "faithful; increase, insertion, road lerf, road combined: more is; let through, the map's mean "
    "in per cent, is no merit, but who hides less drops less. Average drop and increase as L-CAM "
    "takes them, deletion and insertion as RISE, ROAD at 20, 50 and 80 % of the pixels.",
    "method_costs": "A map's time beyond the forward and head gradient that all methods share, in "
    "milliseconds and as a multiple of the network's forward; measured once, on this machine.",
    "cose": "Each explanation is of the class that the network predicts for that input. "
    "consistency: mean SSIM where the answer stays right; sensitivity: 1 less the mean SSIM where "
    "it becomes wrong; COSE: the root of their product; chance, ceiling: COSE of unrelated random "
    "maps of this resolution, and of maps that follow the image perfectly and are unrelated "
    "once the answer changes (no bound); matched: COSE once finer maps are averaged to the "
    "layer's cells; n kept, n changed: pairs; n undefined: pairs of two constant maps. No "
    "intervals of fewer than twelve images. Published: each map scaled to 0-1, as its explainer "
    "gives it; corrected: where part of the image left it, scaled within what stayed, and whole "
    "windows alone.",
    "cose_dcls": "Paired by image, over those that both networks have right; 95 % intervals, not "
    "corrected for their number.",
    "lcam_against_grad_cam": "difference: paired by image, mean over models, with its 95 % "
    "interval, not corrected; better: on so many of the models. Less average drop is better, more "
    "of everything else; let through, the map's mean in per cent, is no merit. Maps of the "
    "predicted class; of score, the study's target.",
    "sanity": "similarity: ρ with the trained network's map; part: the last that forgot.",
    "measures": "rank: among the models under this measure, 1 the best.",
}
_NAMES = {"backbone": BACKBONES, "method": METHODS, "control": CONTROLS}
# What the headings of the first columns begin with: a narrow screen shows no others.
_FIRST = (
    "Score", "Mean ρ", "Strongest control", "Compared with", "Difference", "p (", "Decision", "n",
)  # fmt: skip
_PNG_BEGINS, _PNG_ENDS = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class Section:
    """What stands under a heading.

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
class Image:
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


class _NothingToShow(Exception):
    """A table is there and says nothing about this study; says why."""


def write_report(study: Study) -> Path:
    """Write `report.html` of what the study's folders hold now; returns where it is."""
    tables = study.places.tables
    comparison = study.choices.comparison
    whole = study.choices.of_paper  # else what is not made is not asked for
    images, spoilt = _images(study)
    part = functools.partial(_part, study)
    drawn = {path.stem for path in study.places.figures.glob("*.png")}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("report.html.j2").render(
        question=comparison.question,
        comparison=comparison,
        differences=bool(pairs_of(study.choices)),
        reading=study.reading,
        short=_in_short(study),
        leading=[p for p in images if p.key in _LEADING],
        choices=study.choices,
        left_out=part("Left out", tables / "left_out.csv", _plain),
        weights=part("Weights", tables / "weights.csv", _weights),
        verdicts=part("Verdicts", tables / "verdicts.csv", _verdicts),
        results=part("Results", tables / "results.csv", _results),
        dagger=DAGGER,
        board=part("Leaderboard", tables / "leaderboard.csv", _leaderboard),
        tables=[
            part(title.format(change=comparison.change), tables / f"{key}.csv", _plain)
            for key, title in TABLES.items()
        ],
        images=images,
        spoilt=spoilt,
        undrawn=[
            caption_of(key, study.choices)[0] for key in CAPTIONS if whole and key not in drawn
        ],
        whole=whole,
        run=part("The last run", study.places.output / "run.json", _run),
        origin=part(
            "What the results were made from", study.places.output, lambda _: _origin(study.places)
        ),
    )
    path = study.places.output / "report.html"
    with write_atomically(path) as partial:
        # A file's name may be no text at all.
        partial.write_bytes(page.encode("utf-8", "backslashreplace"))
    return path


def _in_short(study: Study) -> list[str]:
    """What notebook 00 found, in sentences; none where it did not run, or not for this study."""
    path = study.places.tables / "beside_people.csv"
    try:
        if _foreign(study, path):
            return []
        table = pd.read_csv(path)
        groups = [*table.groupby(["protocol", "reading"], sort=False)]
        (protocol, reading), first = groups[0]
        which = f"Of protocol {protocol} and the models that see this part of the image: {reading}."
        return [which] * (len(groups) > 1) + in_sentences(first)
    except (*_UNREADABLE, IndexError):
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
        return Section(key, title, source, lack="Not made in this run.")
    except _NothingToShow as why:
        return Section(key, title, source, lack=str(why))
    except _UNREADABLE as error:
        words = f"{source} cannot be read ({type(error).__name__}: {error})."
        return Section(key, title, source, damage=words)
    lack = "" if grids else "It has no rows."
    return Section(key, title, source, grids, lack, note=_NOTES.get(key, ""))


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
    return [as_grid(table)]


def _weights(path: Path) -> list[Grid]:
    """Only what a reader must know; the whole table stands among the further ones."""
    table = pd.read_csv(path)
    told = table[table.remarks.notna()][["label", "remarks"]]
    return [as_grid(told.rename(columns={"label": "model", "remarks": "what to know"}))]


def _verdicts(path: Path) -> list[Grid]:
    table = pd.read_csv(path)
    table["found"] = [
        _found(*row) for row in table[["statistic", "value", "low", "high"]].itertuples(index=False)
    ]
    claims, table = table, table[table.verdict != NOT_ASKED]
    told = table.reindex(
        columns=["claim", "verdict", "found", "n", "because", "notes", "other_readings", "rules"]
    )
    told = told.rename(columns=lambda name: name.replace("_", " ").capitalize())
    if len(claims) and told.empty:
        raise _NothingToShow("None of the paper's claims is about these models alone.")
    speaks_of = "; ".join(map(str, table["speaks_of"].unique()))
    return [as_grid(told.dropna(axis="columns", how="all"), f"They speak of: {speaks_of}")]


def _found(statistic: str, *numbers: float) -> str:
    value, low, high = as_texts(pd.Series(numbers, dtype=float))
    return "" if value == "–" else f"{statistic}: {value} [{low}, {high}]"


def _results(path: Path) -> list[Grid]:
    readable = readable_table(pd.read_csv(path))
    dagger = f"({DAGGER}: not surely above the strongest control)"
    if "Method" not in readable:  # its forms are methods
        readable.insert(0, "Method", "CAM methods")
    model = readable.columns[1]
    # A row per method of a single model, not a table; else a table per method.
    row, of = ("Method", model) if readable[model].nunique() == 1 else (model, "Method")
    first = [row, *(name for begin in _FIRST for name in readable if name.startswith(begin))]
    columns = [*first, *readable.columns.drop([*first, "Protocol", of])]
    return [
        as_grid(rows[columns], f"{of_one}, protocol {protocol} {dagger}")
        for (protocol, of_one), rows in readable.groupby(["Protocol", of], sort=False)
    ]


def _leaderboard(path: Path) -> list[Grid]:
    readable = readable_leaderboard(pd.read_csv(path))
    return [
        as_grid(
            rows[["Model", *rows.columns.drop(["Model", "Method", "Protocol"])]],
            f"{method}, protocol {protocol}",
        )
        for (protocol, method), rows in readable.groupby(["Protocol", "Method"], sort=False)
    ]


# --- figures --------------------------------------------------------------------------------


def _images(study: Study) -> tuple[list[Image], list[str]]:
    """The figures in the captions' order, then any others; and why some are not shown."""
    found = sorted(study.places.figures.glob("*.png"))
    paths = {path.stem: path for path in found if not is_partial(path)}
    images, spoilt = [], []
    for key in dict.fromkeys([*CAPTIONS, *paths]):
        try:
            if key in paths and (other := _foreign(study, paths[key])):
                spoilt.append(f"{shown(paths[key])} is {other}: not shown.")
            elif key in paths:
                images.append(_image(study, paths[key]))
        except (OSError, ValueError) as error:
            spoilt.append(f"{shown(paths[key])} cannot be read ({error}).")
    return images, spoilt


def _image(study: Study, path: Path) -> Image:
    data = path.read_bytes()
    if not (data.startswith(_PNG_BEGINS) and data.endswith(_PNG_ENDS) and len(data) > 24):
        raise ValueError("it is no whole PNG")
    width, height = struct.unpack(">II", data[16:24])
    try:
        words = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        words = ""
    known = caption_of(path.stem, study.choices)
    title, whole = known or (path.stem.replace("_", " ").capitalize(), "")
    whole = f"{title}. {whole}" if known else words or title
    return Image(
        path.stem, title, (words or whole).removeprefix(f"{title}."), whole,
        base64.b64encode(data).decode(), width, height, shown(path),
        hashlib.sha256(data).hexdigest(), str(_facts(path.with_suffix(".json")).get("commit", "")),
    )  # fmt: skip


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
