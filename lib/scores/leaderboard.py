"""The leaderboard: one row per model, method and protocol, from one run or several.

docs/leaderboard.md explains the columns. A row contains everything on which its numbers depend, so
the rows alone decide whether runs can be merged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..base.fingerprint import code_of, fingerprint, sha256_of
from ..base.paths import IS_CHECKOUT, ROOT, shown
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

SCHEMA = 2  # raised whenever a column is added or removed, or changes its meaning
NAME = "leaderboard"  # name of the table below tables/, and of the entry in a table's attributes
SAME = 1e-4  # mean ρ or scores of one model in two runs that are closer count as equal
FEWEST = 5  # models for a rank correlation
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
# Allowed ranges; every other number must only be finite. A ceiling is a divisor and never 0.
_WITHIN = {
    "rho": (-1, 1), "rho_low": (-1, 1), "rho_high": (-1, 1), "ceiling": (1e-6, 1),
    "n": (0, np.inf), "n_top1": (0, np.inf), "images": (0, np.inf),
    "parameters_millions": (0, np.inf), "top1": (0, 1), "imagenet_top1": (0, 100),
}  # fmt: skip
_COUNTED = ("n", "n_top1", "images")  # never missing
_ROUNDED = 1e-6  # how far rounding may move a mean out of its range
_YES_OR_NO = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
# In the unit that ranks the row.
_OF_THE_CONTROL = ("control_score", "over_control", "over_control_low", "over_control_high")
# The code that turns scores into a row, in addition to the code that determines scores.
_CODE = (
    *DETERMINING_CODE, "scores.ceiling", "scores.control_scores", "scores.controls",
    "scores.observers", "scores.results", "scores.statistics",
)  # fmt: skip


# --- one run --------------------------------------------------------------------------------


def leaderboard_of(
    study: Study, scores: pd.DataFrame, controls: pd.DataFrame, ceilings: Ceilings
) -> pd.DataFrame:
    """Return the leaderboard of one study: `COLUMNS`, best first within each method and protocol.

    scores, controls : per-image tables from `score_study` and `score_controls`

    A model that is in the study under two names has one row. The attributes of the table hold the
    controls' scores, for figures. Raises OSError if weights do not exist.
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
        # Weights identify their network; random weights do not.
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


# --- several runs ---------------------------------------------------------------------------


def leaderboard(
    *runs: Study | pd.DataFrame | str | Path,
    method: str = "",
    protocol: str = "",
    across_versions: bool = False,
) -> pd.DataFrame:
    """Return one leaderboard of one or several runs, best first within each method and protocol.

    runs     : each one a Study, which is scored now (cached scores are used); the folder of a
               run's results, such as data/output/gaze, which may be copied from another machine; a
               leaderboard's .parquet file; or a table returned by this function
    method, protocol : keys that select rows; "" for all
    across_versions : also merge runs of different precision and of code that computes differently

    Returns `COLUMNS` (docs/leaderboard.md). Scores and intervals stay those of the runs. A model
    with the same weights in several runs has one row. `.attrs["leaderboard"]["notes"]` lists what
    a reader must know about the merging.

    Raises ValueError, naming the runs and what differs, if scores cannot be compared because
    images, human maps, target, formulas, ceilings, rules or code differ; if one model has two
    scores; and if a table has no rows or an impossible number. Raises MissingInputs for a folder
    without a leaderboard.
    """
    if not runs:
        raise ValueError("leaderboard needs at least one run: give a Study, a folder or a table")
    runs, twice = _given_once(runs)
    boards = [_board_of(run, number) for number, run in enumerate(runs, 1)]
    notes = [*twice, *(note for board in boards for note in _kept_with(board)["notes"])]
    for name, wanted in (("method", method), ("protocol", protocol)):
        there = sorted({key for board in boards for key in board[name]})
        if wanted and wanted not in there:
            raise ValueError(f"no run has the {name} {wanted!r}; choose from {', '.join(there)}")
        boards = [board[board[name] == wanted] if wanted else board for board in boards]
    boards = [board for board in boards if len(board)]
    controls = [controls_of_board(board) for board in boards]
    _refuse_what_differs(boards, across_versions)
    return _finished(boards, controls, [*notes, *_told(boards)])


def _given_once(
    runs: Sequence[Study | pd.DataFrame | str | Path],
) -> tuple[list[Study | pd.DataFrame | str | Path], list[str]]:
    """The runs with every file once, and notes on files that were given twice."""
    first: dict[Path, str | Path] = {}
    kept, notes = [], []
    for run in runs:
        if not isinstance(run, str | Path):
            kept.append(run)
            continue
        file = board_file(run).resolve()
        if file not in first:
            first[file] = run
            kept.append(run)
            continue
        one = first[file]
        same = f"{run} is" if str(one) == str(run) else f"{one}, also named {run}, is"
        notes.append(f"{same} given twice: it counts once.")
    return kept, notes


def _board_of(run: Study | pd.DataFrame | str | Path, number: int) -> pd.DataFrame:
    if isinstance(run, Study):
        return leaderboard_of(run, score_study(run), score_controls(run), study_ceilings(run))
    if isinstance(run, pd.DataFrame):
        return _checked(run, f"table {number}")
    place, file = _place_of(run), board_file(run)
    try:
        board = pd.read_parquet(file)
    except Exception as error:  # bytes that are not Parquet can raise anything
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{file} cannot be read ({told}): give a leaderboard's Parquet file"
        ) from None
    board = _checked(board, str(file))
    if file == place:
        return board
    return board.assign(run=str(Path(run).parent if _is_page(Path(run)) else run))


def _is_page(path: Path) -> bool:
    """Whether the path is a report, which lies in a run's folder of results."""
    return path.suffix == ".html"


def _place_of(run: str | Path) -> Path:
    """The folder or file that is meant. A path that does not exist in the working folder may be
    relative to the checkout, as runs print it; a report stands for its folder."""
    path = Path(run).expanduser()
    if IS_CHECKOUT and not path.exists() and (ROOT / path).exists():
        path = ROOT / path
    return path.parent if _is_page(path) and path.is_file() else path


def board_file(run: str | Path) -> Path:
    """The Parquet file of a folder of results, or the file itself. Raises MissingInputs."""
    path = _place_of(run)
    places = (path, path / "tables" / f"{NAME}.parquet", path / f"{NAME}.parquet")
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise MissingInputs(
            f"{path} holds no leaderboard (tables/{NAME}.parquet): run notebook 05c_leaderboard "
            "there first (run_all.py does so for two models or more)"
            if path.is_dir()
            else f"{path} does not exist: give a folder of results, or a leaderboard's file"
        )
    return file


def _checked(board: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table with the columns and types that it must have. Raises ValueError."""
    found = [*board.get("schema", pd.Series(dtype=object)).unique()]
    if found and found != [SCHEMA]:
        raise ValueError(
            f"{name} has schema {', '.join(map(str, found))}, but this version reads {SCHEMA}: "
            "run notebook 05c_leaderboard there again with this version"
        )
    if lacking := [column for column in COLUMNS if column not in board]:
        raise ValueError(f"{name} is not a leaderboard: it lacks {some_of(lacking)}")
    if not len(board):
        raise ValueError(f"{name} has no rows: none of its models has a score")
    attrs, board = board.attrs, board[[*COLUMNS]].reset_index(drop=True)
    for column in ("untrained", "above_control"):
        board[column] = _yes_or_no(board[column], board.label, name)
    try:
        board = board.astype(COLUMNS)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not a leaderboard: {error}") from None
    texts = [column for column, kind in COLUMNS.items() if kind == _TEXT]
    board[texts] = board[texts].astype(object).where(board[texts].notna(), "").astype(str)
    _refuse_what_cannot_be(board, name)
    board.attrs = attrs
    return board


def _yes_or_no(column: pd.Series, labels: pd.Series, name: str) -> pd.Series:
    """True or False. Any other value of `above_control` counts as False; `untrained` must be one of
    them. Raises ValueError."""
    found = [_YES_OR_NO.get(str(value).lower()) for value in column]
    if column.name == "untrained" and None in found:
        row = found.index(None)
        raise ValueError(
            f"{name}, row {row + 1} ({labels[row]}): untrained must be True or False, but is "
            f"{'missing' if pd.isna(column[row]) else repr(column[row])}"
        )
    return pd.Series([value is True for value in found], dtype=bool)


def _refuse_what_cannot_be(board: pd.DataFrame, name: str) -> None:
    """Raise ValueError naming the first impossible number and its row."""

    def refuse(wrong: np.ndarray, column: str, must: str) -> None:
        if wrong.any():
            row = int(np.argmax(wrong))
            value = board[column][row]
            found = "missing" if pd.isna(value) else f"{value:g}"
            raise ValueError(
                f"{name}, row {row + 1} ({board.label[row]}): {column} must be {must}, but is "
                f"{found}"
            )

    for column, kind in COLUMNS.items():
        if kind not in (_NUMBER, _COUNT):
            continue
        values = board[column].astype("Float64").to_numpy(float, na_value=np.nan)
        low, high = _WITHIN.get(column, (-np.inf, np.inf))
        refuse(np.isinf(values), column, "finite")
        must = f"{low:g} or more" if high == np.inf else f"from {low:g} to {high:g}"
        if column == "ceiling":
            must = "above 0 and at most 1"
        beside = 0 if column == "ceiling" else _ROUNDED
        refuse((values < low - beside) | (values > high + beside), column, must)
        if column in _COUNTED:
            refuse(np.isnan(values), column, "a number of images")
    known = board.ranked_by.isin(["", "score", "rho"])
    if not known.all():
        row = int(np.argmin(known))
        raise ValueError(
            f"{name}, row {row + 1} ({board.label[row]}): ranked_by must be score or rho, but is "
            f"{board.ranked_by[row]!r}"
        )


# What must be equal: (column, among rows with the same …, what it means, the columns to print).
_MUST = (
    (
        "human_maps_id",
        "protocol",
        "its human maps are made differently",
        ("human_maps", "human_maps_id"),
    ),
    ("images_sha256", "", "its images or human maps are other files", ("data", "images_sha256")),
    ("scored_sha256", "protocol", "other images were scored", ("images", "scored_sha256")),
    ("target", "", "its heatmaps explain another class", ("target",)),
    ("method_id", "method", "the method's formula differs", ("method_id",)),
    ("rules", "", "its rules differ", ("rules",)),
)
_VERSIONS = (
    ("code_id", "", "it was computed by other code", ("commit", "code_id")),
    ("precision", "", "it was computed at another precision", ("precision",)),
)


def _refuse_what_differs(boards: Sequence[pd.DataFrame], across_versions: bool) -> None:
    """Raise ValueError naming the run and what differs in it."""
    together = pd.concat(boards, ignore_index=True)
    for must in (_MUST, () if across_versions else _VERSIONS):
        for column, of, means, told in must:
            for one, other in _pairs(together, column, of):
                where = f" ({of} {other[of]})" if of else ""
                mend = "score one of them again like the other"
                if must is _VERSIONS:
                    mend += "; --across-versions (across_versions=True) merges them anyway"
                raise ValueError(
                    f"{other.run} cannot be merged with {one.run}: {means}{where}: "
                    f"{_words(other, told)}, not {_words(one, told)}; {mend}"
                )
    for (protocol, reading), rows in together.groupby(["protocol", "reading"], sort=False):
        without = rows.ceiling.isna()
        if without.any() and not without.all():
            one, other = rows[~without].iloc[0], rows[without].iloc[0]
            raise ValueError(
                f"{other.run} cannot be merged with {one.run}: it has no human ceiling (protocol "
                f"{protocol}, {reading}), but {one.run} has {one.ceiling:.4f} "
                f"{one.ceiling_origin}; their data are the same: give both runs the same --ceiling"
            )
    known = together[together.ceiling.notna()]
    for (protocol, reading), rows in known.groupby(["protocol", "reading"], sort=False):
        apart = rows[(rows.ceiling - rows.ceiling.iloc[0]).abs() > SAME]
        if len(apart):
            one, other = rows.iloc[0], apart.iloc[0]
            raise ValueError(
                f"{other.run} cannot be merged with {one.run}: its human ceiling differs "
                f"(protocol {protocol}, {reading}): {other.ceiling:.4f} "
                f"{other.ceiling_origin}, not {one.ceiling:.4f} {one.ceiling_origin}; score one "
                "of them again with the other's --ceiling"
            )


def _pairs(table: pd.DataFrame, column: str, of: str) -> Iterator[tuple[pd.Series, pd.Series]]:
    """Yield the first row and the first row that differs from it in the column, if one does."""
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
    """The differences that do not prevent merging, one sentence each."""
    together = pd.concat(boards, ignore_index=True)
    notes = []
    for column, words in (("precision", "precision"), ("device", "device"), ("code_id", "code")):
        if together[column].nunique() > 1:
            of = together.drop_duplicates(column)
            said = "; ".join(f"{r[column]} ({r.run})" for _, r in of.iterrows())
            notes.append(f"The runs differ in {words}: {said}.")
    of = together.drop_duplicates("versions")
    packages = [_packages(text) for text in of.versions]
    for name in dict.fromkeys(name for found in packages for name in found):
        versions = [found.get(name, "unknown") for found in packages]
        if len(set(versions)) > 1:
            said = "; ".join(f"{v} ({run})" for v, run in zip(versions, of.run, strict=True))
            notes.append(f"The runs differ in {name}: {said}.")
    return notes


def _packages(versions: str) -> dict[str, str]:
    """{package: version} from "torch 2.1, timm 1.0"; entries of another form are ignored."""
    parts = (part.rpartition(" ") for part in versions.split(", "))
    return {name: version for name, _, version in parts if name}


# --- both -----------------------------------------------------------------------------------


def _finished(
    boards: Sequence[pd.DataFrame], controls: Sequence[pd.DataFrame], notes: Sequence[str]
) -> pd.DataFrame:
    """Every model once, with distinct labels, ranked."""
    for board in boards:
        board.attrs = {}
    table, twice = _once(pd.concat(boards, ignore_index=True))
    table = _told_apart(table)
    found = [frame for frame in controls if len(frame)]
    beside = pd.concat(found or [*controls][:1], ignore_index=True)
    table = _ranked(table)
    table.attrs[NAME] = {
        "schema": SCHEMA,
        "controls": _plain(_in_the_unit_of(table, beside.reindex(columns=[*_OF_A_CONTROL]))),
        "notes": list(dict.fromkeys([*notes, *twice])),
    }
    return table


def _once(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table with each model once per method and protocol, and notes on duplicates.

    Raises ValueError if a model has two scores.
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
        if equal and one.n == row.n and not _same_score(one, row):
            raise ValueError(
                f"{row.label} has two scores of {row.method}, protocol {row.protocol}: "
                f"{one.score:.6f} in {one.run} and {row.score:.6f} in {row.run}, with equal mean "
                f"ρ {one.rho:.6f}. One table was changed: score it again, or merge without it"
            )
        if not equal or one.n != row.n:
            raise ValueError(
                f"{row.label} has two scores of {row.method}, protocol {row.protocol}: mean ρ "
                f"{one.rho:.6f} over {one.n} images in {one.run}, {row.rho:.6f} over {row.n} in "
                f"{row.run}. The weights are the same: score the model again in one of the runs, "
                "or merge without one of them"
            )
        other = f"in {row.run}" if row.run != one.run else "there a second time"
        name = f" as {row.label}" if row.label != one.label else ""
        notes.append(
            f"{one.label} of {one.run} is also {other}{name}, with the same score: it counts once."
        )
    return table[np.array(kept, bool)].reset_index(drop=True), notes


def _same_score(one: tuple, other: tuple) -> bool:
    """Whether scores agree, apart from small differences in mean ρ and in the ceilings."""
    apart = [row.score - (0 if pd.isna(row.ceiling) else row.rho / row.ceiling)
             for row in (one, other)]  # fmt: skip
    return bool(np.isclose(*apart, rtol=0, atol=SAME, equal_nan=True))


def _told_apart(table: pd.DataFrame) -> pd.DataFrame:
    """Append part of the hash to the label of different models that share a label."""
    several = table.groupby("label").model_id.transform("nunique") > 1
    behind = table.weights_sha256.where(table.weights_sha256 != "", table.model_id).str[:8]
    return table.assign(label=table.label.where(~several, table.label + " (" + behind + ")"))


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Best first within each method and protocol. If a model of the protocol has no ceiling, all
    are ranked by ρ, because scores with and without a ceiling are not comparable; columns about
    controls are then in ρ too."""
    in_rho = table.ranked_by == "rho"  # before the new ranking
    known = table.ceiling.notna().groupby(table.protocol).transform("all")
    table = table.assign(ranked_by=np.where(known, "score", "rho"))
    ceiling = table.ceiling.fillna(1.0)
    factor = np.select([~known & ~in_rho, known & in_rho], [ceiling, 1 / ceiling], 1.0)
    table[[*_OF_THE_CONTROL]] = table[[*_OF_THE_CONTROL]].mul(factor, axis=0)
    frames = []
    for _, rows in table.groupby(["protocol", "method"], sort=False):
        by = rows.ranked_by.iloc[0]
        rows = rows.sort_values([by, "label"], ascending=[False, True], kind="stable")
        frames.append(rows.assign(rank=rows[by].rank(ascending=False, method="min")))
    return pd.concat(frames, ignore_index=True).astype(COLUMNS)


_OF_A_CONTROL = (
    "protocol", "reading", "control", "score", "low", "high", "raw", "raw_low", "raw_high", "n",
)  # fmt: skip


def _in_the_unit_of(table: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """The controls of a leaderboard's readings, each once, with `score, low, high` in the unit
    that ranks their protocol."""
    names = ["protocol", "reading"]
    units = table.groupby(names, as_index=False).agg({"ranked_by": "first", "ceiling": "max"})
    found = controls.drop_duplicates([*names, "control"]).merge(units, on=names)
    raw = found[["raw", "raw_low", "raw_high"]].astype("float64").to_numpy()
    scaled = raw / np.where(found.ranked_by == "score", found.ceiling, 1.0)[:, None]
    score = found.score.astype("float64")
    # The run's own interval includes the uncertainty of the ceiling.
    kept = np.isclose(score, scaled[:, 0], rtol=0, atol=SAME) & (found.ranked_by == "score")
    ends = ["score", "low", "high"]
    found[ends] = np.where(kept.to_numpy()[:, None], found[ends].astype("float64"), scaled)
    return found[[*_OF_A_CONTROL]]


def _plain(table: pd.DataFrame) -> list[dict]:
    """Rows for JSON, with None for missing values."""
    return [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def _kept_with(board: pd.DataFrame) -> Mapping:
    """The data stored with the rows; a table of another origin may have none, or anything."""
    found = board.attrs.get(NAME)
    found = found if isinstance(found, dict) else {}
    controls, notes = found.get("controls"), found.get("notes")
    return {
        "controls": controls if isinstance(controls, list) else [],
        "notes": [str(note) for note in notes] if isinstance(notes, list) else [],
    }


def controls_of_board(board: pd.DataFrame) -> pd.DataFrame:
    """Return the controls' scores that are stored with a leaderboard.

    The columns are `protocol, reading, control, score, low, high, raw, raw_low, raw_high, n`: raw
    is mean ρ, and score has the unit that ranks the protocol. The table is empty if there are
    none."""
    rows = [row for row in _kept_with(board)["controls"] if isinstance(row, dict)]
    table = pd.DataFrame(rows, columns=[*_OF_A_CONTROL])
    texts, numbers = _OF_A_CONTROL[:3], _OF_A_CONTROL[3:]
    return table.astype(dict.fromkeys(texts, "str") | dict.fromkeys(numbers, "float64"))


def boards(board: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Yield the rows of each method and protocol, as figures show them, with their controls.

    The rows also have `value, low, high`: the score, or ρ if ρ ranks them. The controls have
    `score, low, high` in the same unit.
    """
    controls = controls_of_board(board)
    for (protocol, _), rows in board.groupby(["protocol", "method"], sort=False):
        by = rows.ranked_by.iloc[0]
        ends = {"value": rows[by], "low": rows[f"{by}_low"], "high": rows[f"{by}_high"]}
        there = controls[controls.protocol == protocol]
        yield rows.assign(**ends), there[there.reading.isin(set(rows.reading))]


def accuracy_correlation(rows: pd.DataFrame) -> tuple[float, int]:
    """Return the rank correlation of ImageNet top-1 and `value`, and the number of models.

    It is over the models for which both are known. It is NaN for fewer than five models, and if
    either is the same for all.

    rows : the rows of one method and protocol, from `boards`
    """
    known = rows[["imagenet_top1", "value"]].dropna()
    if len(known) < FEWEST or (known.nunique() < 2).any():
        return float("nan"), len(known)
    return float(known.imagenet_top1.corr(known.value, method="spearman")), len(known)
