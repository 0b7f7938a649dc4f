"""The leaderboard: a row per model, method and protocol, of one run or of several.

docs/leaderboard.md tells what the columns mean. A row carries everything on which its numbers
depend, so that rows alone decide whether runs can be merged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..base.fingerprint import code_of, fingerprint, sha256_of
from ..base.paths import shown
from ..base.versions import commit
from ..base.words import some_of
from ..maps.methods import CamMethod
from ..networks.backbones import BACKBONES, Backbone, variant_name
from ..people.protocols import PROTOCOLS
from ..study.inputs import UNTRAINED_SEED, MissingInputs
from ..study.study import Study
from .accuracy import imagenet_top1
from .ceiling import Ceilings
from .control_scores import score_controls
from .kept import DETERMINING_CODE, determining_versions, facts_of_model, formula_of
from .observers import study_ceilings
from .results import beside_controls, summarise, summarise_controls
from .study_scores import score_study

SCHEMA = 1  # raised whenever a column changes its meaning, comes or goes
NAME = "leaderboard"  # of the table below tables/, and of what a table's attributes hold
SAME = 1e-4  # mean ρ of one model in two runs: closer is the same number
FEWEST = 5  # models, for a rank correlation
_TEXT, _NUMBER, _COUNT, _YES = "str", "float64", "Int64", "bool"
COLUMNS = {
    "rank": _COUNT, "label": _TEXT, "model": _TEXT, "timm_name": _TEXT, "weights": _TEXT,
    "weights_sha256": _TEXT, "untrained": _YES, "parameters_millions": _NUMBER,
    "method": _TEXT, "method_label": _TEXT, "protocol": _TEXT, "reading": _TEXT, "target": _TEXT,
    "ranked_by": _TEXT,
    "score": _NUMBER, "score_low": _NUMBER, "score_high": _NUMBER,
    "rho": _NUMBER, "rho_low": _NUMBER, "rho_high": _NUMBER, "n": _COUNT,
    "ceiling": _NUMBER, "ceiling_origin": _TEXT, "reachable": _NUMBER,
    "control": _TEXT, "control_score": _NUMBER, "above_control": _YES,
    "over_control": _NUMBER, "over_control_low": _NUMBER, "over_control_high": _NUMBER,
    "top1": _NUMBER, "n_top1": _COUNT, "imagenet_top1": _NUMBER, "imagenet_top1_source": _TEXT,
    "data": _TEXT, "images": _COUNT, "images_sha256": _TEXT, "scored_sha256": _TEXT,
    "human_maps": _TEXT, "human_maps_id": _TEXT, "rules": _TEXT,
    "model_id": _TEXT, "method_id": _TEXT, "attention_sha256": _TEXT,
    "code_id": _TEXT, "precision": _TEXT, "device": _TEXT, "versions": _TEXT,
    "run": _TEXT, "commit": _TEXT, "schema": _COUNT,
}  # fmt: skip
# How scores become a row, beside what determines them.
_CODE = (
    *DETERMINING_CODE, "scores.ceiling", "scores.control_scores", "scores.controls",
    "scores.observers", "scores.results", "scores.statistics",
)  # fmt: skip


# --- of one run -----------------------------------------------------------------------------


def leaderboard_of(
    study: Study, scores: pd.DataFrame, controls: pd.DataFrame, ceilings: Ceilings
) -> pd.DataFrame:
    """The leaderboard of one study: `COLUMNS`, best first within each method and protocol.

    scores, controls : per image, as `score_study` and `score_controls` make them

    A model that stands twice in the study under two names has one row. The attributes of the table
    hold the controls' scores, for figures. Raises OSError for weights that are not there.
    """
    choices = study.choices
    summary = summarise(choices, scores, ceilings)
    summary = beside_controls(choices, scores, controls, ceilings, summary)
    run, models, protocols = _of_the_run(study), {}, {}
    methods = {method.key: method for method in choices.methods}
    labelled = scores[scores.top1.notna()].groupby(["backbone", "dcls"]).image_id.nunique()
    rows = []
    for row in summary.itertuples():
        backbone, dcls, method = BACKBONES[row.backbone], row.dcls, methods[row.method]
        if row.variant not in models:
            models[row.variant] = _of_a_model(study, backbone, dcls)
        if row.protocol not in protocols:
            protocols[row.protocol] = _of_a_protocol(study, scores, row.protocol)
        known = not pd.isna(row.ceiling)
        ceiling = ceilings.of(row.protocol, backbone.preprocessing)
        rows.append(
            models[row.variant] | protocols[row.protocol] | run | {
                "rank": pd.NA, "ranked_by": "",
                "parameters_millions": row.parameters_millions,
                "method": method.key, "method_label": method.label,
                "method_id": _method_id(method),
                "attention_sha256": _attention(study, backbone, dcls, method),
                "reading": PROTOCOLS[row.protocol].reading_name(backbone.preprocessing),
                "score": row.score if known else np.nan,
                "score_low": row.low if known else np.nan,
                "score_high": row.high if known else np.nan,
                "rho": row.raw, "rho_low": row.raw_low, "rho_high": row.raw_high, "n": row.n,
                "ceiling": row.ceiling, "ceiling_origin": ceiling.origin,
                "reachable": row.reachable,
                "control": row.control, "control_score": row.control_score,
                "above_control": bool(row.above_control), "over_control": row.over_control,
                "over_control_low": row.over_control_low,
                "over_control_high": row.over_control_high,
                "top1": row.top1, "n_top1": labelled.get((row.backbone, dcls), 0),
            }
        )  # fmt: skip
    table = pd.DataFrame(rows, columns=[*COLUMNS]).astype(COLUMNS)
    return _finished([table], [summarise_controls(controls, ceilings)], [])


def _of_the_run(study: Study) -> dict[str, object]:
    choices = study.choices
    parts = list(dict.fromkeys(chosen.part for chosen in study.inputs.listed().chosen))
    stored = "\n".join(part.digest() for part in parts)
    return {
        "target": choices.target, "data": choices.profile.label,
        "images_sha256": hashlib.sha256(stored.encode()).hexdigest(),
        "human_maps": study.reading or "as stored", "rules": choices.rules.version,
        "code_id": fingerprint(code_of(*_CODE)),
        "precision": choices.precision + ", compiled" * choices.compile,
        "device": study.networks.device().type,
        "versions": ", ".join(f"{name} {v}" for name, v in determining_versions().items()),
        "run": shown(study.places.output), "commit": commit(), "schema": SCHEMA,
    }  # fmt: skip


def _of_a_protocol(study: Study, scores: pd.DataFrame, key: str) -> dict[str, object]:
    protocol, names = PROTOCOLS[key], sorted(scores.image_id[scores.protocol == key].unique())
    made = {"viewing": study.facts()["viewing"], "fit": study.choices.fit, "blurs": protocol.blurs}
    return {
        "protocol": key, "images": len(names),
        "scored_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        "human_maps_id": fingerprint(made | {"mends": sorted(protocol.mends)}),
    }  # fmt: skip


def _of_a_model(study: Study, backbone: Backbone, dcls: bool) -> dict[str, object]:
    choices, inputs = study.choices, study.inputs
    known, source = imagenet_top1(study, backbone.key, dcls)
    published = inputs.published(backbone.key, dcls)
    path = inputs.weights_path(backbone.key, dcls)
    mini = " mini" * (choices.profile.mini and not backbone.origin)
    by_timm = published and backbone.timm_tag and backbone.timm_tag in published.place
    weights = published.url if published else f"{path.parent.name}/{path.name}"
    sha256 = "" if backbone.untrained else inputs.weights_sha256(backbone.key, dcls)
    return {
        "label": backbone.titled(dcls) + mini, "model": variant_name(backbone.key, dcls),
        "timm_name": backbone.timm_tag if by_timm else backbone.timm_name,
        "weights": f"random, seed {UNTRAINED_SEED}" if backbone.untrained else weights,
        "weights_sha256": sha256, "untrained": backbone.untrained,
        "imagenet_top1": known, "imagenet_top1_source": source,
        # Weights tell which network they are of; random ones do not.
        "model_id": fingerprint(
            facts_of_model(study, backbone, dcls)
            | {"network": (backbone.timm_name, backbone.origin) if backbone.untrained else ""}
        ),
    }  # fmt: skip


def _method_id(method: CamMethod) -> str:
    return fingerprint({"formula": formula_of(method)})


def _attention(study: Study, backbone: Backbone, dcls: bool, method: CamMethod) -> str:
    if not method.learned:
        return ""
    return sha256_of(study.inputs.attention_path(backbone.key, dcls, method.key))


# --- of several -----------------------------------------------------------------------------


def leaderboard(
    *runs: Study | pd.DataFrame | str | Path,
    method: str = "",
    protocol: str = "",
    across_versions: bool = False,
) -> pd.DataFrame:
    """One leaderboard of one or several runs, best first within each method and protocol.

    runs     : each a Study, which is scored now (kept scores are used); the folder of a run's
               results, such as data/output/gaze, also one copied from another machine; a
               leaderboard's .parquet file; or a table that this function made
    method, protocol : keys, of the rows that are wanted; "" for all
    across_versions : merge runs of another precision, and of code that computes otherwise

    Returns `COLUMNS` (docs/leaderboard.md). Scores and intervals stay those of the runs. A model
    that several runs have, with the same weights, stands there once. What a reader must know of
    the merging is in `.attrs["leaderboard"]["notes"]`.

    Raises ValueError, naming the runs and what differs, where scores cannot be compared: other
    images, human maps, target, formulas, ceilings, rules or code; and where one model has two
    scores. Raises MissingInputs for a folder without a leaderboard.
    """
    if not runs:
        raise ValueError("leaderboard takes one run or more: a Study, a folder, or a table")
    boards = [_board_of(run, number) for number, run in enumerate(runs, 1)]
    controls = [controls_of_board(board) for board in boards]
    notes = [note for board in boards for note in _kept_with(board)["notes"]]
    for name, wanted in (("method", method), ("protocol", protocol)):
        there = sorted({key for board in boards for key in board[name]})
        if wanted and wanted not in there:
            raise ValueError(f"no run has the {name} {wanted!r}; there are {', '.join(there)}")
        boards = [board[board[name] == wanted] if wanted else board for board in boards]
    boards = [board for board in boards if len(board)]
    _refuse_what_differs(boards, across_versions)
    return _finished(boards, controls, [*notes, *_told(boards)])


def _board_of(run: Study | pd.DataFrame | str | Path, number: int) -> pd.DataFrame:
    if isinstance(run, Study):
        return leaderboard_of(run, score_study(run), score_controls(run), study_ceilings(run))
    if isinstance(run, pd.DataFrame):
        return _checked(run, f"table {number}")
    path, file = Path(run).expanduser(), board_file(run)
    try:
        board = pd.read_parquet(file)
    except Exception as error:  # whatever a reader makes of bytes that are no Parquet
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{file} cannot be read ({told}): a leaderboard is read from Parquet"
        ) from None
    board = _checked(board, str(file))
    return board if file == path else board.assign(run=str(run))


def board_file(run: str | Path) -> Path:
    """The Parquet file of a folder of results, or the file itself. Raises MissingInputs."""
    path = Path(run).expanduser()
    places = (path, path / "tables" / f"{NAME}.parquet", path / f"{NAME}.parquet")
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise MissingInputs(
            f"{path} holds no leaderboard (tables/{NAME}.parquet): run notebook 05c_leaderboard "
            "there first (run_all.py does where there are two models or more)"
            if path.is_dir()
            else f"there is no folder of results, and no file, at {path}"
        )
    return file


def _checked(board: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table with the columns and types that it must have. Raises ValueError."""
    found = [*board.get("schema", pd.Series(dtype=object)).unique()]
    if found and found != [SCHEMA]:
        raise ValueError(
            f"{name} is of schema {', '.join(map(str, found))}, and this version reads {SCHEMA}: "
            "run notebook 05c_leaderboard there anew with this version"
        )
    if lacking := [column for column in COLUMNS if column not in board]:
        raise ValueError(f"{name} is no leaderboard: it lacks {some_of(lacking)}")
    attrs = board.attrs
    try:
        board = board[[*COLUMNS]].astype(COLUMNS)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is no leaderboard: {error}") from None
    texts = [column for column, kind in COLUMNS.items() if kind == _TEXT]
    board[texts] = board[texts].astype(object).where(board[texts].notna(), "").astype(str)
    board.attrs = attrs
    return board


# What must be equal: (column, of rows with the same …, what it means, the columns that are told).
_MUST = (
    (
        "human_maps_id",
        "protocol",
        "its human maps are made otherwise",
        ("human_maps", "human_maps_id"),
    ),
    ("images_sha256", "", "its images or human maps are other files", ("data", "images_sha256")),
    ("scored_sha256", "protocol", "other images were scored", ("images", "scored_sha256")),
    ("target", "", "its maps are of another class", ("target",)),
    ("method_id", "method", "the method's formula is another", ("method_id",)),
    ("rules", "", "it is judged by other rules", ("rules",)),
)
_VERSIONS = (
    ("code_id", "", "it was computed by other code", ("commit", "code_id")),
    ("precision", "", "it was computed in another precision", ("precision",)),
)


def _refuse_what_differs(boards: Sequence[pd.DataFrame], across_versions: bool) -> None:
    """Raise ValueError naming what differs, and in which run."""
    together = pd.concat(boards, ignore_index=True)
    for must in (_MUST, () if across_versions else _VERSIONS):
        for column, of, means, told in must:
            for one, other in _pairs(together, column, of):
                where = f" ({of} {other[of]})" if of else ""
                mend = "score one of them anew like the other"
                if must is _VERSIONS:
                    mend += "; --across-versions (across_versions=True) merges them all the same"
                raise ValueError(
                    f"{other.run} cannot be merged with {one.run}: {means}{where}: "
                    f"{_words(other, told)}, there {_words(one, told)}; {mend}"
                )
    known = together[together.ceiling.notna()]
    for (protocol, reading), rows in known.groupby(["protocol", "reading"], sort=False):
        apart = rows[(rows.ceiling - rows.ceiling.iloc[0]).abs() > SAME]
        if len(apart):
            one, other = rows.iloc[0], apart.iloc[0]
            raise ValueError(
                f"{other.run} cannot be merged with {one.run}: it divides by another human "
                f"ceiling (protocol {protocol}, {reading}): {other.ceiling:.4f} "
                f"{other.ceiling_origin}, there {one.ceiling:.4f} {one.ceiling_origin}; score one "
                "of them anew with the other's --ceiling"
            )


def _pairs(table: pd.DataFrame, column: str, of: str) -> Iterator[tuple[pd.Series, pd.Series]]:
    """The first row, and the first that differs from it in the column, where one does."""
    for _, rows in table.groupby(of, sort=False) if of else [("", table)]:
        apart = rows[rows[column] != rows[column].iloc[0]]
        if len(apart):
            yield rows.iloc[0], apart.iloc[0]


def _words(row: pd.Series, columns: Sequence[str]) -> str:
    named = {"images": "images", "images_sha256": "SHA-256", "scored_sha256": "names' SHA-256",
             "commit": "commit", "code_id": "code", "method_id": "formula",
             "human_maps_id": "in all"}  # fmt: skip
    return ", ".join(
        f"{named[name]} {str(row[name])[:12]}" if name in named else str(row[name])
        for name in columns
    )


def _told(boards: Sequence[pd.DataFrame]) -> list[str]:
    """What differs without a refusal, a sentence each."""
    together = pd.concat(boards, ignore_index=True)
    notes = []
    for column, words in (("precision", "precision"), ("device", "device"), ("code_id", "code")):
        if together[column].nunique() > 1:
            of = together.drop_duplicates(column)
            said = "; ".join(f"{r[column]} ({r.run})" for _, r in of.iterrows())
            notes.append(f"The runs differ in {words}: {said}.")
    of = together.drop_duplicates("versions")
    packages = [dict(part.rsplit(" ", 1) for part in text.split(", ")) for text in of.versions]
    for name in dict.fromkeys(name for found in packages for name in found):
        versions = [found.get(name, "none") for found in packages]
        if len(set(versions)) > 1:
            said = "; ".join(f"{v} ({run})" for v, run in zip(versions, of.run, strict=True))
            notes.append(f"The runs differ in {name}: {said}.")
    return notes


# --- of all ---------------------------------------------------------------------------------


def _finished(
    boards: Sequence[pd.DataFrame], controls: Sequence[pd.DataFrame], notes: Sequence[str]
) -> pd.DataFrame:
    """Every model once, told apart by its label, ranked."""
    for board in boards:
        board.attrs = {}
    table, twice = _once(pd.concat(boards, ignore_index=True))
    table = _told_apart(table)
    found = [frame for frame in controls if len(frame)]
    beside = pd.concat(found or [*controls][:1], ignore_index=True)
    names = ["protocol", "reading", "control"]
    beside = beside.drop_duplicates([name for name in names if name in beside])
    table = _ranked(table)
    table.attrs[NAME] = {
        "schema": SCHEMA,
        "controls": _plain(beside[[c for c in _OF_A_CONTROL if c in beside]]),
        "notes": list(dict.fromkeys([*notes, *twice])),
    }
    return table


def _once(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table with each model once per method and protocol, and what was left out for it.

    Raises ValueError where it has two scores.
    """
    first: dict[tuple, tuple] = {}
    kept, notes = [], []
    for row in table.itertuples():
        key = row.model_id, row.method, row.protocol, row.attention_sha256
        one = first.setdefault(key, row)
        kept.append(one is row)
        if one is row:
            continue
        equal = np.isclose(one.rho, row.rho, rtol=0, atol=SAME, equal_nan=True)
        if not equal or one.n != row.n:
            raise ValueError(
                f"{row.label} has two scores of {row.method}, protocol {row.protocol}: mean ρ "
                f"{one.rho:.6f} over {one.n} images in {one.run}, {row.rho:.6f} over {row.n} in "
                f"{row.run}. It is one model with the same weights: score it anew in one of the "
                "runs, or leave one out"
            )
        other = f"in {row.run}" if row.run != one.run else "there twice"
        name = f" as {row.label}" if row.label != one.label else ""
        notes.append(f"{one.label} of {one.run} is also {other}{name}, with the same score: once.")
    return table[np.array(kept, bool)].reset_index(drop=True), notes


def _told_apart(table: pd.DataFrame) -> pd.DataFrame:
    """Where models of one label are different, each has a part of its hash behind it."""
    several = table.groupby("label").model_id.transform("nunique") > 1
    behind = table.weights_sha256.where(table.weights_sha256 != "", table.model_id).str[:8]
    return table.assign(label=table.label.where(~several, table.label + " (" + behind + ")"))


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Best first within each method and protocol; by ρ where a model of the protocol has no
    ceiling, since scores with one and without are not comparable."""
    known = table.ceiling.notna().groupby(table.protocol).transform("all")
    table = table.assign(ranked_by=np.where(known, "score", "rho"))
    frames = []
    for _, rows in table.groupby(["protocol", "method"], sort=False):
        by = rows.ranked_by.iloc[0]
        rows = rows.sort_values([by, "label"], ascending=[False, True], kind="stable")
        frames.append(rows.assign(rank=rows[by].rank(ascending=False, method="min")))
    return pd.concat(frames, ignore_index=True).astype(COLUMNS)


_OF_A_CONTROL = (
    "protocol", "reading", "control", "score", "low", "high", "raw", "raw_low", "raw_high", "n",
)  # fmt: skip


def _plain(table: pd.DataFrame) -> list[dict]:
    """Rows as JSON has them, with None for what is missing."""
    return [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def _kept_with(board: pd.DataFrame) -> Mapping:
    """What stands beside the rows; a table of another origin may have nothing, or anything."""
    found = board.attrs.get(NAME)
    found = found if isinstance(found, dict) else {}
    controls, notes = found.get("controls"), found.get("notes")
    return {
        "controls": controls if isinstance(controls, list) else [],
        "notes": [str(note) for note in notes] if isinstance(notes, list) else [],
    }


def controls_of_board(board: pd.DataFrame) -> pd.DataFrame:
    """The controls' scores that a leaderboard carries: `protocol, reading, control, score, low,
    high, raw, raw_low, raw_high, n`; raw as mean ρ. No rows where it carries none."""
    rows = [row for row in _kept_with(board)["controls"] if isinstance(row, dict)]
    table = pd.DataFrame(rows, columns=[*_OF_A_CONTROL])
    texts, numbers = _OF_A_CONTROL[:3], _OF_A_CONTROL[3:]
    return table.astype(dict.fromkeys(texts, "str") | dict.fromkeys(numbers, "float64"))


def boards(board: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Each method and protocol's rows, as figures show them, with its controls.

    The rows have `value, low, high` besides: score, or ρ where that ranks them. The controls have
    `score, low, high` in the same unit.
    """
    controls = controls_of_board(board)
    for (protocol, _), rows in board.groupby(["protocol", "method"], sort=False):
        by = rows.ranked_by.iloc[0]
        ends = {"value": rows[by], "low": rows[f"{by}_low"], "high": rows[f"{by}_high"]}
        there = controls[controls.protocol == protocol]
        there = there[there.reading.isin(set(rows.reading))]
        if by == "rho":
            there = there.assign(score=there.raw, low=there.raw_low, high=there.raw_high)
        yield rows.assign(**ends), there


def accuracy_correlation(rows: pd.DataFrame) -> tuple[float, int]:
    """Rank correlation of ImageNet top-1 and `value` over the models of which both are known, and
    how many these are; missing for fewer than five, and where either is the same for all.

    rows : one method and protocol's, of `boards`
    """
    known = rows[["imagenet_top1", "value"]].dropna()
    if len(known) < FEWEST or (known.nunique() < 2).any():
        return float("nan"), len(known)
    return float(known.imagenet_top1.corr(known.value, method="spearman")), len(known)
