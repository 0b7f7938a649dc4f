"""Figures of gaze: people beside networks on one scale, scanpaths over an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from ..study.rules import RULES
from .heatmaps import draw_points
from .style import (
    Size,
    large,
    lay_out,
    panels_across,
    plot_nothing,
    points_of,
    row_of,
    span,
    thick,
    width_of,
    wrapped,
)

# Okabe and Ito's, and grey for what no network and no person made.
_KINDS = {
    "people": ("#D55E00", "people with each other"),
    "network": ("#0072B2", "a model's heatmap with the human map"),
    "control": ("0.45", "a map that ignores the image"),
}
# Light ones, on which a black digit can be read.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00")


def plot_beside_people(
    table: pd.DataFrame, title: str = "", *, size: Size = None, ax: Axes | None = None
) -> Figure:
    """Mean agreement of people, networks and controls, the highest above.

    table : as `lib.scores.beside_people` makes it, of one protocol and reading; `label, kind, rho,
            low, high, n`, the kind "people", "network" or "control"
    """
    if table.empty:
        return plot_nothing("no model, control or observer has a score", size=size, ax=ax)
    rows, few = table.sort_values("rho", kind="stable"), RULES.fewest_images
    high = row_of(0.24)
    sheet = lay_out((7.2, high * len(rows) + 1.3), size=size, ax=ax)
    ax = sheet.only
    for number, row in enumerate(rows.itertuples()):
        colour, _ = _KINDS[row.kind]
        ax.plot([row.low, row.high], [number, number], color=colour, lw=thick(),
                solid_capstyle="butt")  # fmt: skip
        ax.plot(row.rho, number, "o", color=colour, ms=large(0.83))
    strongest = rows[rows.kind == "control"].rho.max()
    if not np.isnan(strongest):
        ax.axvline(strongest, color=_KINDS["control"][0], lw=thick(0.57), ls="--", zorder=0)
    ax.axvline(0, color="0.3", lw=thick(0.43), zorder=0)
    sheet.names_along_y(ax, list(rows.label), high, "small")
    for tick, kind in zip(ax.get_yticklabels(), rows.kind, strict=True):
        tick.set_color(_KINDS[kind][0])
    ax.set_ylim(-0.7, len(rows) - 0.3)
    sheet.below(
        f"agreement ρ with the human map (n = {span(rows.n)} images; error bars: 95 % intervals"
        + (f",\ncautious because of fewer than {few} images)" if rows.n.min() < few else ")"),
        "medium",
    )
    ax.grid(axis="x")
    keys = [
        plt.Line2D([], [], color=colour, marker="o", label=words)
        for kind, (colour, words) in _KINDS.items()
        if kind in set(rows.kind)
    ]
    sheet.title(title)
    sheet.legend(keys)
    return sheet.shown


def plot_fixation_measures(
    table: pd.DataFrame,
    labels: Mapping[str, str],
    chance: Mapping[str, float],
    title: str = "",
    *,
    size: Size = None,
    fig: FigureBase | None = None,
) -> Figure:
    """Mean of each measure at fixations, a panel each; people, network and controls as rows.

    table  : of one reading and model, as `lib.scores.summarise_fixations` makes it; `method, kind,
             measure, label, unit, value, low, high, n`
    labels : {method, control or "one_against_rest": what a row is called}
    chance : {measure: its value of a map that says nothing}
    """
    if table.empty:
        return plot_nothing("no fixation could be measured", size=size)
    measures = list(dict.fromkeys(table.measure))
    of = {key: table[table.measure == key].set_index("method") for key in measures}
    order = of[measures[0]].sort_values("value").index
    columns = panels_across(len(measures), 1.5, min(len(measures), 4), size, fig)
    lines, high = -(-len(measures) // columns), row_of(0.22)
    default = min(2.1 * columns + 1.8, 7.2), (high * len(order) + 0.8) * lines + 0.6
    sheet = lay_out(default, lines, columns, sharey=True, size=size, fig=fig)
    axes, names = sheet.axes, [labels.get(name, name) for name in order]
    for ax in axes[:, 0]:
        sheet.names_along_y(ax, names, high, "small")
        for tick, name in zip(ax.get_yticklabels(), order, strict=True):
            tick.set_color(_KINDS[of[measures[0]].kind[name]][0])
    for ax in axes.flat[len(measures) :]:
        ax.set_axis_off()
    for ax, key in zip(axes.flat, measures, strict=False):
        rows = of[key]
        for number, name in enumerate(order):
            if name in rows.index and not np.isnan(rows.value[name]):
                colour, _ = _KINDS[rows.kind[name]]
                ends = [rows.low[name], rows.high[name]]
                ax.plot(ends, [number, number], color=colour, lw=thick(), solid_capstyle="butt")
                ax.plot(rows.value[name], number, "o", color=colour, ms=large(0.67))
        ax.axvline(chance[key], color="0.3", lw=thick(0.57), ls=":", zorder=0)
        sheet.panel_title(ax, rows.label.iloc[0], "medium")
        ax.set_xlabel(wrapped(rows.unit.iloc[0], sheet.panel, "small"), fontsize="small")
        ax.locator_params(axis="x", nbins=4)
        ax.grid(axis="x")
    sheet.below(
        f"n = {span(table.n)} images; error bars: 95 % intervals; dotted: chance, and for "
        "information gain the centre bias"
    )
    sheet.above(title)
    return sheet.shown


def plot_scanpaths(
    images: np.ndarray,
    points: Sequence[np.ndarray],
    owners: Sequence[np.ndarray],
    title: str = "",
    people: int = 3,
    *,
    size: Size = None,
    fig: FigureBase | None = None,
) -> Figure:
    """Where the first few observers looked, one after another: a colour each, fixations numbered.

    images : (image, height, width, 3) uint8
    points   : per image (fixation, 2) x, y in its pixels, in each observer's order
    owners   : per image (fixation,) whose each is, from 0
    people   : so many observers an image
    """
    count, sides = len(images), images.shape[1:3]
    columns = panels_across(count, 1.7, 2, size, fig)
    rows = -(-count // columns)
    wide = 2.8 * columns
    high = rows * (width_of(wide, size, fig) / columns * sides[0] / sides[1] + 0.1) + 0.4
    sheet = lay_out((wide, high), rows, columns, size=size, fig=fig)
    for ax in sheet.axes.flat:
        ax.set_axis_off()
    digit = points_of("x-small")
    mark = 1.35 * digit  # a digit fits in
    panels = zip(sheet.axes.flat, images, points, owners, strict=False)
    for ax, image, of_image, whose in panels:
        ax.imshow(image)
        for number, who in enumerate(np.unique(whose)[:people]):
            path, colour = of_image[whose == who], _COLOURS[number % len(_COLOURS)]
            ax.plot(*(path.T - 0.5), color=colour, lw=thick(0.7), clip_on=True)
            draw_points(ax, path, sides, s=mark**2, c=colour, linewidths=thick(0.28))
            for place, (x, y) in enumerate(path, 1):
                if 0 <= x <= sides[1] and 0 <= y <= sides[0]:
                    ax.text(x - 0.5, y - 0.5, place, fontsize=digit, ha="center", va="center")
    sheet.above(title)
    return sheet.shown
