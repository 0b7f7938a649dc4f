"""The study's results table: for readers, spreadsheets and papers."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..base.paths import PUBLISHED_SCORES, shown
from ..base.spreadsheets import csv_text
from ..maps.methods import METHODS
from ..networks.backbones import BACKBONES
from ..scores.accuracy import known_top1, remarks_of
from ..scores.ceiling import Ceilings
from ..scores.results import arrange, beside_controls, paired_differences, summarise
from ..study.choices import Choices
from ..study.outputs import write_result
from ..study.rules import RULES
from ..study.study import Study
from .readable import DAGGER, daggers_once, readable_table


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
    """The study's results table: one row per protocol, method and model, at its place in the
    study's comparison.

    scores, controls : per image, as `score_study` and `score_controls` make them

    comparison, panel, group, place, form : the place (`lib.scores.results.arrange`); the rows of a
        group are compared with its first, `reference`
    params_M, top1, score, rho : each with its 95 % interval; `score` is missing where no ceiling is
        known: `unit` says in what the differences are
    control, control_score, over_control, above_control : beside the strongest control
    difference, p_holm, decision, n_paired : less the reference, as `paired_differences` makes them
    invalid : maps that could not be ranked
    """
    choices = study.choices
    summary = summarise(choices, scores, ceilings).assign(
        invalid=lambda t: t.n_constant_model + t.n_constant_human + t.n_non_finite
    )
    summary = beside_controls(choices, scores, controls, ceilings, summary)
    known = summary.ceiling.notna()
    summary[["score", "low", "high"]] = summary[["score", "low", "high"]].where(known)
    placed = arrange(choices, summary)
    place = ["protocol", "panel", "group", "form"]
    gains = paired_differences(choices, scores, ceilings).set_index(place)
    nothing = pd.Series(np.nan, index=gains.columns)
    entered = entered_scores()
    panels, groups = ([*dict.fromkeys(placed[name])] for name in ("panel", "group"))
    protocols = [*choices.protocols]

    def in_order(row: NamedTuple) -> tuple[int, ...]:
        place = panels.index(row.panel), groups.index(row.group), protocols.index(row.protocol)
        return *place, row.place

    rows = []
    for row in sorted(placed.itertuples(), key=in_order):
        backbone, method = BACKBONES[row.backbone], METHODS[row.method]
        pair = row.protocol, row.panel, row.group, row.form
        gain = gains.loc[pair] if pair in gains.index else nothing  # of a group's first
        mini = " mini" * (choices.profile.mini and not backbone.origin)
        rows.append(
            {
                "data": choices.profile.label,
                "comparison": row.comparison,
                "protocol": row.protocol,
                "method": method.label,
                "model": backbone.titled(row.dcls) + mini,
                "variant": row.variant,
                "panel": METHODS[row.panel].label if row.panel else "",
                "group": row.group + mini * row.group.startswith(backbone.label),
                "place": row.place,
                "form": row.form,
                "at": row.at,
                "recipe": study.inputs.recipe(backbone.key, row.dcls),
                "params_M": row.parameters_millions,
                "top1": row.top1,
                "top1_low": row.top1_low,
                "top1_high": row.top1_high,
                "top1_known": known_top1(study, backbone.key, row.dcls),
                "ceiling": row.ceiling,
                "unit": "rho" if pd.isna(row.ceiling) else "rho / ceiling",
                "score": row.score,
                "score_low": row.low,
                "score_high": row.high,
                "rho": row.raw,
                "rho_low": row.raw_low,
                "rho_high": row.raw_high,
                "n": row.n,
                "control": row.control,
                "control_score": row.control_score,
                "over_control": row.over_control,
                "above_control": row.above_control,
                "entered": _entered(choices, entered, row),
                "reference": gain["first"],
                "difference": gain.difference,
                "difference_low": gain.low,
                "difference_high": gain.high,
                "p_holm": gain.p_holm,
                "decision": gain.decision,
                "n_paired": gain.n_paired,
                "invalid": row.invalid,
                "rules": choices.rules.version,
            }
        )
    table = pd.DataFrame(rows)
    return table.astype(dict.fromkeys(["n", "n_paired", "invalid"], "Int64"))


def _entered(choices: Choices, entered: pd.DataFrame, of: NamedTuple) -> float:
    """What a reader has entered for this row; the published table is of one protocol."""
    row = entered[(entered.backbone == of.backbone) & (entered.method == of.method)]
    if choices.profile.key != "paper" or of.protocol != "published" or row.empty:
        return np.nan
    return row["score_dcls" if of.dcls else "score"].iloc[0]


_PAIRED = (
    "Difference: {change}, paired by image; p is corrected by Holm over these differences; n "
    "counts the images on which both models have a heatmap (a score is over all images on which "
    "its own model has one). "
)


def write_results(
    study: Study,
    results: pd.DataFrame,
    missed: pd.DataFrame,
    weights: pd.DataFrame,
    ceilings: Ceilings,
) -> None:
    """Write the results table as CSV (numbers), Markdown and LaTeX (rounded).

    missed  : as `lib.scores.study_scores.left_out` makes it; the caption names what was skipped
    weights : as `lib.scores.accuracy.weights_table` makes it; the caption has its remarks
    """
    choices, paired = study.choices, results.difference.notna().any()
    subset = f"At most {choices.limit} images. " if choices.limit else ""
    table, every = daggers_once(readable_table(results))
    told = "No row is significantly" if every else f"{DAGGER}: not significantly"
    caption = (
        f"Score: mean Spearman correlation with human maps, divided by the human ceiling "
        f"({choices.profile.label}, protocols: {', '.join(choices.protocols)}, "
        f"target: {choices.target} class); where no ceiling is known, the correlation itself. "
        f"Ceiling: {ceilings.words}. "
        f"{told} above the floor, the strongest map that no model made. "
        f"{_PAIRED.format(change=choices.comparison.change) if paired else ''}"
        f"{f'Human maps: {study.reading}. ' if study.reading else ''}"
        f"Intervals: 95 %, over images. Fewer than {RULES.fewest_images} images decide nothing; "
        f"a difference below {choices.smallest_effect:g} is too small to matter "
        f"(rules {choices.rules.version}). "
        f"{subset}{_in_words(missed)}{_told(weights)}{choices.profile.caveat}"
    ).strip()
    latex = (
        table.style.hide(axis="index")
        .format(escape="latex")
        .format_index(escape="latex", axis="columns")
        .to_latex(caption=_latex_text(caption), hrules=True, label="tab:results")
    )
    markdown = _in_cells(table).to_markdown(index=False, disable_numparse=True)
    texts = {
        "results.csv": csv_text(results),
        "results.md": f"{markdown}\n\n{caption}\n",
        "results.tex": latex,
    }
    for name, text in texts.items():
        with write_result(study.places.tables / name) as partial:
            partial.write_text(text, encoding="utf-8")


def _in_cells(table: pd.DataFrame) -> pd.DataFrame:
    """As Markdown wants it: a bar ends a cell."""
    texts = table.map(lambda cell: str(cell).replace("|", "\\|"))
    return texts.rename(columns=lambda name: name.replace("|", "\\|"))


def _in_words(missed: pd.DataFrame) -> str:
    if missed.empty:
        return ""
    names = ", ".join(missed.left_out[:20]) + (" …" if len(missed) > 20 else "")
    return f"Skipped, because missing or unreadable ({len(missed)}, see left_out.csv): {names}. "


def _told(weights: pd.DataFrame) -> str:
    told = remarks_of(weights)
    return f"About the weights: {'. '.join(told)}. " if told else ""


_LATEX = {
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    **{sign: f"\\{sign}" for sign in "&_%#${}"},
}  # fmt: skip


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
