"""What people, models and controls on one scale show, in words. Needs no torch."""

from __future__ import annotations

import pandas as pd

from ..scores.controls import CONTROL, NETWORK, PEOPLE
from ..study.rules import RULES

_KINDS = (PEOPLE, CONTROL, NETWORK)


def in_sentences(table: pd.DataFrame) -> list[str]:
    """What a table of `lib.scores.beside_people` shows, for one protocol and reading, in words."""
    of = {kind: table[table.kind == kind].sort_values("rho") for kind in _KINDS}
    said = []
    people, controls, models = (of[kind] for kind in _KINDS)
    if len(people):
        told = "; ".join(f"{row.label}: {_rho(row)}" for row in people.itertuples())
        said.append(f"How well people agree with one another, mean Spearman ρ: {told}.")
    if len(controls):
        best = controls.iloc[-1]
        said.append(f"The best map that ignores the image, {best.label}, reaches {_rho(best)}.")
    if len(models):
        best, many = models.iloc[-1], len(models)
        distinct = models.rho.round(6).nunique()
        equal = f"; the {many} have only {distinct} distinct values" if distinct < many else ""
        which = (
            f"The highest of {many} kinds of heatmap, picked after the fact"
            if many > 1
            else "The model's heatmap"
        )
        said.append(f"{which}, {best.label}, reaches {_rho(best)}{equal}.")
    if len(models) and len(controls):
        above, fewest = int(models.above_control.sum()), models.n.min()
        if fewest < RULES.fewest_images:
            said.append(
                f"So few images ({fewest}) decide nothing: {RULES.fewest_images} are the fewest "
                "that can say whether a model lies above such a map."
            )
        else:
            these = f"{above} of {many} lie" if above else "None of them lies"
            said.append(f"{these} significantly above it.")
    return said


def _rho(row: tuple | pd.Series) -> str:
    if pd.isna(row.low):  # of one image
        return f"{row.rho:.2f} [–]"
    return f"{row.rho:.2f} [{row.low:.2f}, {row.high:.2f}]"
