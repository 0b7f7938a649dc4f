"""The results table as text: notebooks and the report show it, without needing torch."""

from __future__ import annotations

import html

import pandas as pd
from pandas.io.formats.style import Styler

from ..scores.controls import control_labels
from ..study.comparisons import COMPARISONS
from ..study.profiles import DEMO_RECIPE

DAGGER = "†"
# {column: (heading, digits, factor)} of one model; those without digits are made below. Headings
# of a pair take the form's name in place of the braces.
_OF_A_MODEL = {
    "recipe": ("Trained by{}", None, 1),
    "params_M": ("Params{} (M)", 1, 1),
    "top1": ("Top-1{} (%)", 1, 100),
    "top1_known": ("Known top-1{} (%)", 1, 100),
    "shown": ("Score{} [95 %]", None, 1),
    "entered": ("Published score{}, as entered", 3, 1),
}
_CORRELATION = "Mean ρ{} [95 %]"  # in place of "Score" where no ceiling is known
_OF_A_PAIR = {"gain": "Difference [95 %]", "p": "p (Holm)", "decision": "Decision"}
_NONE = "–"


def _p_value(p: float) -> str:
    return _NONE if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _count(n: object) -> str:
    return _NONE if pd.isna(n) else f"{n:.0f}"


def _number(value: float, digits: int) -> str:
    return _NONE if pd.isna(value) else f"{value:.{digits}f}"


def _with_interval(row: dict) -> str:
    """Score, or ρ where there is no ceiling, with its interval, and a dagger where it does not
    lie significantly above the strongest control."""
    name = "rho" if pd.isna(row["ceiling"]) else "score"
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if pd.isna(value):
        return _NONE
    ends = _NONE if pd.isna(low) else f"{low:.3f}, {high:.3f}"
    compared = not pd.isna(row["control"]) and row["control"] != ""
    flag = f" {DAGGER}" if compared and row["above_control"] is not True else ""
    return f"{value:.3f} [{ends}]{flag}"


def _gain(row: dict) -> str:
    value, low, high = (row[f"difference{end}"] for end in ("", "_low", "_high"))
    if pd.isna(value):
        return _NONE
    return f"{value:+.3f} [{_NONE if pd.isna(low) else f'{low:+.3f}, {high:+.3f}'}]"


def _told(results: pd.DataFrame) -> pd.DataFrame:
    """The table with its cells as texts, still a row per model."""
    few_parameters = results.params_M.max() < 10  # miniatures
    labels, rows = control_labels(), results.to_dict("records")
    digits = {
        name: (3 if name == "params_M" and few_parameters else digits, factor)
        for name, (_, digits, factor) in _OF_A_MODEL.items()
        if digits is not None
    }
    return results.assign(
        **{
            name: [_number(value * factor, some) for value in results[name]]
            for name, (some, factor) in digits.items()
        },
        recipe=results.recipe.fillna(""),
        shown=[*map(_with_interval, rows)],
        beside=[
            _NONE
            if pd.isna(row["control_score"])
            else f"{labels.get(row['control'], row['control'])}: {row['control_score']:.3f}"
            for row in rows
        ],
        gain=[*map(_gain, rows)],
        p=results.p_holm.map(_p_value),
        decision=results.decision.fillna(_NONE),
        # Of a model without a pair, the images of its own score.
        images=[
            _count(n if pd.isna(paired) else paired)
            for paired, n in zip(results.n_paired, results.n, strict=True)
        ],
        invalid=results.invalid.map(_count),
    )


def _headings(results: pd.DataFrame) -> dict[str, str]:
    """{column of a model: heading}, of those that say anything."""
    empty = [name for name in ("entered", "top1_known", "top1") if results[name].isna().all()]
    if results.recipe.eq(DEMO_RECIPE).all():
        empty.append("recipe")
    shown = {name: text for name, (text, *_) in _OF_A_MODEL.items() if name not in empty}
    return shown | ({"shown": _CORRELATION} if results.ceiling.isna().all() else {})


def two_forms(results: pd.DataFrame) -> tuple[str, ...]:
    """What the two models of a pair are called, where every group of several is a pair of the same
    two; else nothing."""
    comparison = COMPARISONS.get(results.comparison.iloc[0])
    if comparison is None or not comparison.shared:
        return ()
    panels = results.assign(panel=results.panel.fillna(""))
    forms = {tuple(rows.form) for _, rows in panels.groupby(["protocol", "panel", "group"])}
    (only,) = several if len(several := {f for f in forms if len(f) > 1}) == 1 else ((),)
    return only if len(only) == 2 else ()


def readable_table(results: pd.DataFrame) -> pd.DataFrame:
    """The results table as a reader wants it: text, rounded, with intervals. Pairs of the same two
    forms stand in one row; else every model has its own."""
    forms = two_forms(results)
    headings, told = _headings(results), _told(results)
    told["panel"] = told.panel.fillna("")
    comparison = COMPARISONS.get(results.comparison.iloc[0])
    row_name = (comparison.rows if comparison and forms else "model").capitalize()
    whole = ["Method", row_name, "Protocol"]
    if not forms:
        text = told.rename(columns={"method": "Method", "model": row_name, "protocol": "Protocol"})
        columns = {name: heading.format("") for name, heading in headings.items()}
        columns |= {"beside": "Strongest control"}
        if results.difference.notna().any():
            columns |= {"reference": "Compared with"} | _OF_A_PAIR
            text["reference"] = text.reference.fillna(_NONE)
        columns |= {"images": "n", "invalid": "Invalid maps"}
        return text[[*whole, *columns]].rename(columns=columns)
    index = ["panel", "group", "protocol"]
    first, second = (told[told.place == place].set_index(index) for place in (0, 1))
    table = pd.DataFrame(index=first.index)
    second = second.reindex(first.index)
    alone = second.form.isna()
    of_methods = not results.panel.fillna("").any()  # then both are of one model
    for name, heading in headings.items():
        alike = name != "shown" and (first[name] == second[name])[~alone].all()
        if alike or (of_methods and name not in ("shown", "entered")):
            table[heading.format("")] = first[name].fillna(_NONE)
            continue
        for form, side in zip(forms, (first, second), strict=True):
            table[heading.format(f" {form}")] = side[name].fillna(_NONE)
    beside = first.beside.where(first.beside != _NONE, second.beside).fillna(_NONE)
    place = next(i for i, name in enumerate(table, 1) if name.startswith(("Score", "Mean ρ"))) + 1
    table.insert(place, "Strongest control", beside)
    for name, heading in _OF_A_PAIR.items():
        table[heading] = second[name].fillna(_NONE)
    table["n"] = second.images.where(~alone, first.images)
    table[f"Invalid maps ({', '.join(forms)})"] = [
        one if only else f"{one}, {two}"
        for one, two, only in zip(first.invalid, second.invalid, alone, strict=True)
    ]
    table = table.reset_index().rename(columns=dict(zip(index, whole, strict=True)))
    if of_methods:
        table, whole = table.drop(columns="Method"), whole[1:]
    return table[[*whole, *table.columns.drop(whole)]]


def daggers_once(table: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """A readable table without its daggers where every value has one, and whether that is so."""
    names = [name for name in table if name.startswith(("Score", "Mean ρ"))]
    values = [cell for name in names for cell in table[name] if cell != _NONE]
    every = len(values) > 1 and all(cell.endswith(DAGGER) for cell in values)
    if not every:
        return table, False
    bare = {name: [cell.removesuffix(f" {DAGGER}") for cell in table[name]] for name in names}
    return table.assign(**bare), True


def readable_leaderboard(board: pd.DataFrame) -> pd.DataFrame:
    """A leaderboard as a reader wants it: text, rounded, best first as it stands."""
    labels, rows = control_labels(), board.to_dict("records")
    few_parameters = board.parameters_millions.max() < 10  # miniatures
    # Where protocols are ranked by one and by the other, each has its own column.
    units = {"score": "Score [95 %]", "rho": "Mean ρ [95 %]"}
    told = {
        "Method": board.method_label, "Protocol": board.protocol, "Rank": board["rank"].map(_count),
        "Model": board.label,
        **{
            heading: [_ranked_by(row) if row["ranked_by"] == unit else _NONE for row in rows]
            for unit, heading in units.items()
            if board.ranked_by.eq(unit).any()
        },
        "Strongest control": [
            f"{labels.get(row['control'], row['control'])}: {row['control_score']:.3f}"
            if not pd.isna(row["control_score"]) else _NONE
            for row in rows
        ],
        "Less the control [95 %]": [
            _gain({"difference" + end: row["over_control" + end] for end in ("", "_low", "_high")})
            for row in rows
        ],
        "n": board.n.map(_count),
        "Params (M)": [_number(v, 3 if few_parameters else 1) for v in board.parameters_millions],
        "Top-1 here (%)": [_number(100 * v, 1) for v in board.top1],
        "ImageNet top-1 (%)": [_number(v, 1) for v in board.imagenet_top1],
        "ImageNet top-1 from": [
            source if isinstance(source, str) and source else _NONE
            for source in board.imagenet_top1_source
        ],
        "Run": board.run,
    }  # fmt: skip
    text = pd.DataFrame(told).reset_index(drop=True)
    empty = [name for name in text if name not in ("Rank", "Model") and text[name].eq(_NONE).all()]
    return text.drop(columns=empty + ["Run"] * (board.run.nunique() < 2))


def _ranked_by(row: dict) -> str:
    """Score, or ρ where that ranks the row, with its interval and its dagger."""
    return _with_interval(row | {"ceiling": 1.0 if row["ranked_by"] == "score" else float("nan")})


def as_html(table: pd.DataFrame, caption: str = "") -> Styler:
    """A table as notebooks show it. Names of files, of folders and of a reader's own rows stand in
    it, so all of its text is escaped."""
    texts = [name for name in table.columns if table[name].dtype.kind not in "biufcmM"]
    table = table.assign(**{name: [*map(str, table[name])] for name in texts})
    style = table.style.hide(axis="index").format(escape="html")
    return style.format_index(escape="html", axis="columns").set_caption(html.escape(caption))
