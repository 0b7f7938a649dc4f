"""Figures of gaze: people beside networks on one scale, scanpaths over an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..study.rules import RULES
from .heatmaps import draw_points
from .style import plot_nothing, span

# Okabe and Ito's, and grey for what no network and no person made.
_KINDS = {
    "people": ("#D55E00", "people with one another"),
    "network": ("#0072B2", "a network's map with people's"),
    "control": ("0.45", "a map that ignores the image"),
}
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")


def plot_beside_people(table: pd.DataFrame, title: str = "") -> Figure:
    """Mean agreement of people, networks and controls, the highest above.

    table : as `lib.scores.beside_people` makes it, of one protocol and reading
    """
    if table.empty:
        return plot_nothing("no model, control or observer has a score")
    rows, few = table.sort_values("rho", kind="stable"), RULES.fewest_images
    fig, ax = plt.subplots(figsize=(7.2, 0.24 * len(rows) + 1.3))
    for number, row in enumerate(rows.itertuples()):
        colour, _ = _KINDS[row.kind]
        ax.plot([row.low, row.high], [number, number], color=colour, lw=1.4, solid_capstyle="butt")
        ax.plot(row.rho, number, "o", color=colour, ms=5)
    strongest = rows[rows.kind == "control"].rho.max()
    if not np.isnan(strongest):
        ax.axvline(strongest, color=_KINDS["control"][0], lw=0.8, ls="--", zorder=0)
    ax.axvline(0, color="0.3", lw=0.6, zorder=0)
    ax.set_yticks(range(len(rows)), rows.label, fontsize=8)
    for tick, kind in zip(ax.get_yticklabels(), rows.kind, strict=True):
        tick.set_color(_KINDS[kind][0])
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.set_xlabel(
        f"mean Spearman ρ with people's map (n = {span(rows.n)} images; lines: 95 % interval"
        + (f",\ncautious because of fewer than {few} images)" if rows.n.min() < few else ")")
    )
    ax.grid(axis="x")
    keys = [
        plt.Line2D([], [], color=colour, marker="o", label=words)
        for kind, (colour, words) in _KINDS.items()
        if kind in set(rows.kind)
    ]
    fig.legend(handles=keys, loc="outside upper center", ncols=3, fontsize=8)
    if title:
        ax.set_title(title)
    return fig


def plot_fixation_measures(
    table: pd.DataFrame, labels: Mapping[str, str], chance: Mapping[str, float], title: str = ""
) -> Figure:
    """Mean of each measure at fixations, a panel each; people, network and controls as rows.

    table  : of one reading and model, as `lib.scores.summarise_fixations` makes it
    labels : {method, control or "one_against_rest": what a row is called}
    chance : {measure: its value of a map that says nothing}
    """
    if table.empty:
        return plot_nothing("no fixation could be measured")
    measures = list(dict.fromkeys(table.measure))
    of = {key: table[table.measure == key].set_index("method") for key in measures}
    order = of[measures[0]].sort_values("value").index
    fig, axes = plt.subplots(
        1, len(measures), figsize=(2.1 * len(measures) + 1.8, 0.22 * len(order) + 1.4),
        sharey=True, squeeze=False,
    )  # fmt: skip
    for ax, key in zip(axes[0], measures, strict=True):
        rows = of[key]
        for number, name in enumerate(order):
            if name in rows.index and not np.isnan(rows.value[name]):
                colour, _ = _KINDS[rows.kind[name]]
                ends = [rows.low[name], rows.high[name]]
                ax.plot(ends, [number, number], color=colour, lw=1.4, solid_capstyle="butt")
                ax.plot(rows.value[name], number, "o", color=colour, ms=4)
        ax.axvline(chance[key], color="0.3", lw=0.8, ls=":", zorder=0)
        ax.set_title(rows.label.iloc[0], fontsize=9)
        ax.set_xlabel(rows.unit.iloc[0], fontsize=8)
        ax.locator_params(axis="x", nbins=4)
        ax.grid(axis="x")
    axes[0, 0].set_yticks(range(len(order)), [labels.get(name, name) for name in order], fontsize=7)
    for tick, name in zip(axes[0, 0].get_yticklabels(), order, strict=True):
        tick.set_color(_KINDS[of[measures[0]].kind[name]][0])
    fig.supxlabel(
        f"n = {span(table.n)} images; lines: 95 % intervals; dotted: chance, and for information "
        "gain the centre bias",
        fontsize=8,
    )
    if title:
        fig.suptitle(title, fontsize=10)
    return fig


def plot_scanpaths(
    pictures: np.ndarray,
    points: Sequence[np.ndarray],
    owners: Sequence[np.ndarray],
    title: str = "",
    people: int = 3,
) -> Figure:
    """Where the first few observers looked, one after another: a colour each, fixations numbered.

    pictures : (image, height, width, 3) uint8
    points   : per image (fixation, 2) x, y in its pixels, in each observer's order
    owners   : per image (fixation,) whose each is, from 0
    people   : so many observers an image
    """
    count, sides = len(pictures), pictures.shape[1:3]
    fig, axes = plt.subplots(1, count, figsize=(2.4 * count, 2.8), squeeze=False)
    for ax, picture, of_image, whose in zip(axes[0], pictures, points, owners, strict=True):
        ax.imshow(picture)
        for number, who in enumerate(np.unique(whose)[:people]):
            path, colour = of_image[whose == who], _COLOURS[number % len(_COLOURS)]
            ax.plot(*(path.T - 0.5), color=colour, lw=1, clip_on=True)
            draw_points(ax, path, sides, s=42, c=colour, edgecolors="black", linewidths=0.4)
            for place, (x, y) in enumerate(path, 1):
                if 0 <= x <= sides[1] and 0 <= y <= sides[0]:
                    ax.text(x - 0.5, y - 0.5, place, fontsize=5, ha="center", va="center")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    fig.suptitle(title)
    return fig
