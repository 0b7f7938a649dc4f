"""The results table as text: notebooks and the report show it, without needing torch."""

from __future__ import annotations

import html

import pandas as pd
from pandas.io.formats.style import Styler

from ..scores.controls import control_labels
from ..study.profiles import DEMO_RECIPE

# {column: (heading, digits, factor)}; those without digits are texts, or made below.
_COLUMNS = {
    "method": ("Method", None, 1),
    "backbone": ("Backbone", None, 1),
    "protocol": ("Protocol", None, 1),
    "recipe": ("Trained by", None, 1),
    "recipe_dcls": ("Trained by, with DCLS", None, 1),
    "params_M": ("Params (M)", 1, 1),
    "params_M_dcls": ("Params with DCLS", 1, 1),
    "top1": ("Top-1 (%)", 1, 100),
    "top1_dcls": ("Top-1 with DCLS", 1, 100),
    "top1_known": ("Known top-1 (%)", 1, 100),
    "top1_known_dcls": ("Known, with DCLS", 1, 100),
    "shown": ("Score [95 %]", None, 1),
    "shown_dcls": ("Score with DCLS [95 %]", None, 1),
    "beside": ("Strongest control", None, 1),
    "entered": ("Published score, as entered", 3, 1),
    "entered_dcls": ("Published, with DCLS, as entered", 3, 1),
    "gain": ("Difference [95 %]", None, 1),
    "p_holm": ("p (Holm)", None, 1),
    "decision": ("Decision", None, 1),
    "n_paired": ("n", None, 1),
    "excluded": ("Invalid maps (without, with)", None, 1),
}
# In place of "Score" where no ceiling is known.
_CORRELATION = {"shown": "Mean ρ [95 %]", "shown_dcls": "Mean ρ with DCLS [95 %]"}
DAGGER = "†"
_OF_PAIRS = ("gain", "p_holm", "decision")
_PAIRS = (["entered", "entered_dcls"], ["top1_known", "top1_known_dcls"])


def _p_value(p: float) -> str:
    return "–" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _count(n: object) -> str:
    return "–" if pd.isna(n) else f"{n:.0f}"


def _with_interval(results: pd.DataFrame, form: str) -> list[str]:
    """Score, or ρ where there is no ceiling, with its interval, and a dagger where it does not
    surely lie above the strongest control.

    form : what the columns' names end with: "" or "_dcls"
    """
    texts = []
    for row in results.to_dict("records"):
        name = "rho" if pd.isna(row["ceiling"]) else "score"
        value, low, high = (row[f"{name}{end}"] for end in _ends(form))
        if pd.isna(value):
            texts.append("–")
            continue
        ends = "–" if pd.isna(low) else f"{low:.3f}, {high:.3f}"
        flagged = row["control"] and row[f"above_control{form}"] is not True
        flag = f" {DAGGER}" if flagged and not pd.isna(row["control"]) else ""
        texts.append(f"{value:.3f} [{ends}]{flag}")
    return texts


def _ends(form: str) -> list[str]:
    """Of the columns' names, for a form: value, low, high."""
    return [form, f"_low{form}", f"_high{form}"]


def _control(results: pd.DataFrame) -> list[str]:
    labels = control_labels()
    return [
        "–" if pd.isna(score) else f"{labels.get(key, key)}: {score:.3f}"
        for key, score in zip(results.control, results.control_score, strict=True)
    ]


def readable_table(results: pd.DataFrame) -> pd.DataFrame:
    """The results table as a reader wants it: text, rounded, with intervals."""

    small = {"params_M", "params_M_dcls"} if results.params_M.max() < 10 else set()  # miniatures
    rounded = {
        name: (results[name] * factor).map(f"{{:.{3 if name in small else digits}f}}".format)
        for name, (_, digits, factor) in _COLUMNS.items()
        if digits is not None
    }
    text = results.assign(
        **rounded,
        gain=[
            f"{r.difference:+.3f} [{r.difference_low:+.3f}, {r.difference_high:+.3f}]".replace(
                "[+nan, +nan]", "[–]"
            )
            for r in results.itertuples()
        ],
        shown=_with_interval(results, ""),
        shown_dcls=_with_interval(results, "_dcls"),
        beside=_control(results),
        p_holm=results.p_holm.map(_p_value),
        decision=results.decision.fillna("–"),
        # Of a model without a pair, the pictures of its own score.
        n_paired=[
            _count(n if pd.isna(paired) else paired)
            for paired, n in zip(results.n_paired, results.n, strict=True)
        ],
        excluded=[
            f"{_count(without)}, {_count(with_dcls)}"
            for without, with_dcls in zip(results.invalid, results.invalid_dcls, strict=True)
        ],
    )
    unused = [name for pair in _PAIRS if results[pair].isna().all(axis=None) for name in pair]
    if results.recipe.eq(DEMO_RECIPE).all():
        unused = [*unused, "recipe", "recipe_dcls"]
    paired = results.params_M_dcls.notna().any()
    if not paired:  # nothing here has a DCLS form
        unused += [name for name in _COLUMNS if name.endswith("_dcls") or name in _OF_PAIRS]
        text["excluded"] = results.invalid.map(_count)
    if results.top1.isna().all():  # images without classes
        unused += ["top1", "top1_dcls"]
    text = text.replace(to_replace=r"^\+?nan( \[–\])?$", value="–", regex=True)
    shown = {name: heading for name, (heading, *_) in _COLUMNS.items() if name not in unused}
    if not paired:
        shown["excluded"] = "Invalid maps"
    if results.ceiling.isna().all():
        shown |= _CORRELATION
    return text[list(shown)].rename(columns=shown)


def as_html(table: pd.DataFrame, caption: str = "") -> Styler:
    """A table as notebooks show it. Names of files, of folders and of a reader's own rows stand in
    it, so all of its text is escaped."""
    texts = [name for name in table.columns if table[name].dtype.kind not in "biufcmM"]
    table = table.assign(**{name: [*map(str, table[name])] for name in texts})
    style = table.style.hide(axis="index").format(escape="html")
    return style.format_index(escape="html", axis="columns").set_caption(html.escape(caption))
