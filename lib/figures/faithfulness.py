"""Figures of faithfulness; as `lib.figures.scores`."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure, FigureBase

from ..maps.methods import METHODS
from ..networks.backbones import BACKBONES
from .style import (
    DCLS_COLOUR,
    MARKS,
    PLAIN_COLOUR,
    Size,
    enough,
    error_bars,
    large,
    lay_out,
    methods_of,
    panels_across,
    plot_nothing,
    row_of,
    span,
    thick,
    wrapped,
)

_COLUMNS = 3
_ARROWS = {"less": "← more faithful", "more": "more faithful →", "neither": "neither side better"}


def plot_faithfulness(
    table: pd.DataFrame, *, size: Size = None, fig: FigureBase | None = None
) -> Figure:
    """A panel per measure, with its unit, its authors and n; a row per method, a mark per model.

    table : `backbone, dcls, method, measure, value, low, high, n, unit, faithful, definition`;
            `unit` is what `value` is in, `faithful` "less", "more" or "neither"

    It draws the methods that have as many measures as any other.
    """
    if table.value.isna().all():
        return plot_nothing(
            "Faithfulness: nothing to show. No image has a map that is not constant.", size=size
        )
    known = table.groupby("method").measure.nunique()
    table = table[table.method.isin(known.index[known == known.max()])]
    methods, measures = methods_of(table), list(table.measure.unique())
    models = [(k, d) for k in BACKBONES for d in (False, True)
              if ((table.backbone == k) & (table.dcls == d)).any()]  # fmt: skip
    columns = panels_across(len(measures), 2.0, _COLUMNS, size, fig)
    rows = -(-len(measures) // columns)
    row = row_of(0.17)
    default = min(2.3 * columns + 1.6, 7.2), rows * (row * len(methods) + 1.25)
    sheet = lay_out(default, rows, columns, sharey=True, size=size, fig=fig)
    axes = sheet.axes
    for ax in axes[:, 0]:
        sheet.names_along_y(ax, [METHODS[m].label for m in methods], row, "x-small")
    for ax, measure in zip(axes.flat, measures, strict=False):
        chosen = table[table.measure == measure]
        for number, (key, dcls) in enumerate(models):
            of_model = chosen[(chosen.backbone == key) & (chosen.dcls == dcls)].set_index("method")
            of_model = of_model.reindex(methods)
            shift = 0.6 * ((number + 0.5) / len(models) - 0.5)
            errors = np.abs(enough(of_model).to_numpy().T - of_model.value.to_numpy())
            ax.errorbar(
                of_model.value, np.arange(len(methods)) + shift, xerr=errors,
                fmt=MARKS[list(BACKBONES).index(key) % len(MARKS)], ms=large(0.42),
                elinewidth=thick(0.4),
                color=DCLS_COLOUR if dcls else PLAIN_COLOUR, label=BACKBONES[key].titled(dcls),
            )  # fmt: skip
        ax.tick_params(axis="x", labelsize="x-small")
        ax.grid(axis="x")
    sheet.legend()
    for ax, measure in zip(axes.flat, measures, strict=False):
        chosen = table[table.measure == measure]
        first = chosen.iloc[0]
        sheet.panel_title(ax, f"{measure.replace('_', ' ')}\n{first.definition}", "x-small")
        said = f"{first.unit}\nn = {span(chosen.n)}; {_ARROWS[first.faithful]}"
        ax.set_xlabel(wrapped(said, sheet.panel, "x-small"), fontsize="x-small")
    for ax in axes.flat[len(measures) :]:
        ax.set_axis_off()
    sheet.only.set_ylim(len(methods) - 0.5, -0.5)
    sheet.below(f"n: images; {error_bars(table.n)}; heatmaps of the predicted class")
    return sheet.shown
