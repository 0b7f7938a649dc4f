"""The study's results table: for readers, spreadsheets and papers."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from ..base.paths import PUBLISHED_SCORES, shown
from ..base.spreadsheets import csv_text
from ..maps.methods import METHODS
from ..networks.backbones import BACKBONES
from ..scores.accuracy import known_top1, remarks_of
from ..scores.ceiling import Ceilings
from ..scores.results import beside_controls, paired_differences, summarise
from ..study.choices import Choices
from ..study.outputs import write_result
from ..study.rules import RULES
from ..study.study import Study
from .readable import DAGGER, readable_table


def entered_scores(path: Path = PUBLISHED_SCORES) -> pd.DataFrame:
    """The published table as a reader has entered it: backbone, method, score, score_dcls.

    Cells that are not filled in are missing. Raises ValueError naming what is wrong.
    """
    table = pd.read_csv(path)
    columns = ["backbone", "method", "score", "score_dcls"]
    if list(table.columns) != columns:
        raise ValueError(f"{shown(path)} needs the columns {', '.join(columns)}")
    for name, known in (("backbone", BACKBONES), ("method", METHODS)):
        for key in table[name]:
            known[key]  # raises, with the nearest name
    for name in columns[2:]:
        numbers = pd.to_numeric(table[name], errors="coerce")
        wrong = table[name].notna() & ~numbers.between(-2, 2)
        if wrong.any():
            line = wrong.idxmax() + 2
            raise ValueError(f"{shown(path)}, line {line}: {table[name][line - 2]} is no score")
        table[name] = numbers
    return table


def results_table(
    study: Study, scores: pd.DataFrame, controls: pd.DataFrame, ceilings: Ceilings
) -> pd.DataFrame:
    """The study's results table: one row per method and backbone.

    scores, controls : per image, as `score_study` and `score_controls` make them

    Parameters (millions), top-1, score and ρ without and with DCLS, each with its 95 % interval
    and pictures; the strongest control, and whether each score lies above it; the paired
    difference with its interval and what it decides; invalid maps. `score` is missing where no
    ceiling is known: `unit` says in what the differences are.
    """
    choices = study.choices
    summary = summarise(choices, scores, ceilings).assign(
        invalid=lambda t: t.n_constant_model + t.n_constant_human + t.n_non_finite
    )
    summary = beside_controls(choices, scores, controls, ceilings, summary)
    known = summary.ceiling.notna()
    summary[["score", "low", "high"]] = summary[["score", "low", "high"]].where(known)
    index = ["backbone", "method", "protocol"]
    summary = summary.set_index([*index, "dcls"])
    gains = paired_differences(choices, scores, ceilings).set_index(index)
    entered = entered_scores()
    rows = []
    for method in study.choices.methods:
        for backbone, protocol in product(study.choices.backbones, study.choices.protocols):
            place = (backbone.key, method.key, protocol)
            ceiling = ceilings.of(protocol, backbone.preprocessing)
            forms = {"": _row(summary, *place, False), "_dcls": _row(summary, *place, True)}
            gain = _row(gains, *place)

            def of_both(forms=forms, **columns: str) -> dict[str, float]:
                """{name, name_dcls: value} of columns of the summary."""
                return {
                    name + form: row[column]
                    for name, column in columns.items() for form, row in forms.items()
                }  # fmt: skip

            rows.append(
                {
                    "data": study.choices.profile.label,
                    "protocol": protocol,
                    "method": method.label,
                    "backbone": backbone.label
                    + " mini" * (study.choices.profile.mini and not backbone.origin),
                    "recipe": study.inputs.recipe(backbone.key, False),
                    "recipe_dcls": study.inputs.recipe(backbone.key, True),
                    **of_both(params_M="parameters_millions", top1="top1", top1_low="top1_low",
                              top1_high="top1_high"),
                    "top1_known": known_top1(study, backbone.key, False),
                    "top1_known_dcls": known_top1(study, backbone.key, True),
                    "ceiling": ceiling.value,
                    "unit": "rho / ceiling" if ceiling.is_known else "rho",
                    **of_both(score="score", score_low="low", score_high="high", rho="raw",
                              rho_low="raw_low", rho_high="raw_high", n="n"),
                    "control": forms[""].control if forms[""].control else forms["_dcls"].control,
                    "control_score": forms[""].control_score,
                    **of_both(over_control="over_control", above_control="above_control"),
                    **_entered(study.choices, entered, backbone.key, method.key, protocol),
                    "difference": gain.difference,
                    "difference_low": gain.low,
                    "difference_high": gain.high,
                    "p_holm": gain.p_holm,
                    "decision": gain.decision,
                    "n_paired": gain.n_paired,
                    **of_both(invalid="invalid"),
                    "rules": choices.rules.version,
                }
            )  # fmt: skip
    table = pd.DataFrame(rows)
    counts = ["n", "n_dcls", "n_paired", "invalid", "invalid_dcls"]
    return table.astype(dict.fromkeys(counts, "Int64"))


def _row(table: pd.DataFrame, *place) -> pd.Series:
    """The row there; nothing but missing values of a backbone without a DCLS form."""
    return table.loc[place] if place in table.index else pd.Series(np.nan, index=table.columns)


def _entered(
    choices: Choices, entered: pd.DataFrame, backbone: str, method: str, protocol: str
) -> dict[str, float]:
    """What a reader has entered for this row; the published table is of one protocol."""
    row = entered[(entered.backbone == backbone) & (entered.method == method)]
    if choices.profile.key != "paper" or protocol != "published" or row.empty:
        return {"entered": np.nan, "entered_dcls": np.nan}
    return {"entered": row.score.iloc[0], "entered_dcls": row.score_dcls.iloc[0]}


_PAIRED = (
    "Difference: DCLS minus baseline, paired per image; p corrected by Holm over the backbones; n: "
    "pictures of the difference, on which both have a map (a score is over all on which its own "
    "model has one). "
)


def write_results(
    study: Study,
    results: pd.DataFrame,
    missed: pd.DataFrame,
    weights: pd.DataFrame,
    ceilings: Ceilings,
) -> None:
    """Write the results table as CSV (numbers), Markdown and LaTeX (rounded).

    missed  : what `lib.scores.study_scores.left_out` tells; the caption names it
    weights : as `lib.scores.accuracy.weights_table` makes it; the caption has its remarks
    """
    choices = study.choices
    subset = f"At most {choices.limit} pictures. " if choices.limit else ""
    caption = (
        f"Score: mean Spearman correlation with human maps over the human ceiling "
        f"({choices.profile.label}, protocols: {', '.join(choices.protocols)}, "
        f"target: {choices.target} class); without a ceiling the correlation itself. Ceiling: "
        f"{ceilings.words}. {DAGGER}: not surely above the strongest map that no network made. "
        f"{_PAIRED if choices.paired else ''}"
        f"{f'Human maps: {study.reading}. ' if study.reading else ''}"
        f"Intervals: 95 %, over images. Nothing is decided of "
        f"fewer than {RULES.fewest_images} pictures; a difference below "
        f"{choices.smallest_effect:g} is too small to matter (rules {choices.rules.version}). "
        f"{subset}{_in_words(missed)}{_told(weights)}{choices.profile.caveat}"
    ).strip()
    table = readable_table(results)
    latex = (
        table.style.hide(axis="index")
        .format(escape="latex")
        .format_index(escape="latex", axis="columns")
        .to_latex(caption=_latex_text(caption), hrules=True, label="tab:results")
    )
    texts = {
        "results.csv": csv_text(results),
        "results.md": f"{table.to_markdown(index=False, disable_numparse=True)}\n\n{caption}\n",
        "results.tex": latex,
    }
    for name, text in texts.items():
        with write_result(study.places.tables / name) as partial:
            partial.write_text(text, encoding="utf-8")


def _in_words(missed: pd.DataFrame) -> str:
    if missed.empty:
        return ""
    names = ", ".join(missed.left_out[:20]) + (" …" if len(missed) > 20 else "")
    return f"Left out, because missing or unreadable ({len(missed)}, see left_out.csv): {names}. "


def _told(weights: pd.DataFrame) -> str:
    told = remarks_of(weights)
    return f"About the weights: {'. '.join(told)}. " if told else ""


_LATEX = {
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    **{sign: f"\\{sign}" for sign in "&_%#${}"},
}  # fmt: skip


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
