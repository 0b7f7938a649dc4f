"""Figures of faithfulness; as `lib.figures.scores`."""

from __future__ import annotations

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..maps.methods import METHODS
from ..networks.backbones import BACKBONES
from .style import (
    DCLS_COLOUR,
    MARKS,
    PLAIN_COLOUR,
    methods_of,
    plot_nothing,
    shared_legend,
    span,
)

_COLUMNS = 4
_ARROWS = {"less": "← more faithful", "more": "more faithful →", "neither": "no merit"}


def plot_faithfulness(table: pd.DataFrame) -> Figure:
    """A panel per measure, with its unit, its authors and n; a row per method, a mark per model.

    table : `backbone, dcls, method, measure, value, low, high, n, unit, faithful, definition`

    Drawn are the methods that have as many measures as any other.
    """
    if table.value.isna().all():
        return plot_nothing(
            "Faithfulness: nothing to show. No image has a map that is not constant."
        )
    known = table.groupby("method").measure.nunique()
    table = table[table.method.isin(known.index[known == known.max()])]
    methods, measures = methods_of(table), list(table.measure.unique())
    models = [(k, d) for k in BACKBONES for d in (False, True)
              if ((table.backbone == k) & (table.dcls == d)).any()]  # fmt: skip
    columns = min(_COLUMNS, len(measures))
    rows = -(-len(measures) // columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(2.3 * columns + 1.6, rows * (0.3 * len(methods) + 1.5)),
        sharey=True, squeeze=False,
    )  # fmt: skip
    for ax, measure in zip(axes.flat, measures, strict=False):
        chosen = table[table.measure == measure]
        for number, (key, dcls) in enumerate(models):
            of_model = chosen[(chosen.backbone == key) & (chosen.dcls == dcls)].set_index("method")
            of_model = of_model.reindex(methods)
            shift = 0.5 * ((number + 0.5) / len(models) - 0.5)
            errors = np.abs(of_model[["low", "high"]].to_numpy().T - of_model.value.to_numpy())
            ax.errorbar(
                of_model.value, np.arange(len(methods)) + shift, xerr=errors,
                fmt=MARKS[list(BACKBONES).index(key) % len(MARKS)], ms=3.5, elinewidth=0.8,
                color=DCLS_COLOUR if dcls else PLAIN_COLOUR, label=BACKBONES[key].titled(dcls),
            )  # fmt: skip
        first = chosen.iloc[0]
        ax.set_title(f"{measure}\n{fill(first.definition, 42)}", fontsize=6.5)
        ax.set_xlabel(
            f"{first.unit}; n = {span(chosen.n)}\n{_ARROWS[first.faithful]}", fontsize=6.5
        )
        ax.tick_params(labelsize=6.5)
        ax.grid(axis="x")
    for ax in axes.flat[len(measures) :]:
        ax.set_axis_off()
    axes[0, 0].set_yticks(range(len(methods)), [METHODS[m].label for m in methods])
    axes[0, 0].set_ylim(len(methods) - 0.5, -0.5)
    fig.supxlabel("n: images; bars: 95 % intervals; maps of the predicted class", fontsize=7)
    shared_legend(fig, axes[0, 0], "outside right upper", fontsize=6.5)
    return fig
