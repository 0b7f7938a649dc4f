"""Figures of learned attention maps; as `lib.figures.scores`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure, FigureBase
from matplotlib.markers import CARETLEFTBASE, CARETRIGHTBASE

from ..maps.methods import METHODS
from ..networks.backbones import BACKBONES
from .heatmaps import plot_heatmap_rows
from .style import (
    DCLS_COLOUR,
    MARKS,
    PALETTE,
    PLAIN_COLOUR,
    Size,
    form_labels,
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

_TERMS = {
    "cross_entropy": "cross-entropy (nats)",
    "area": "area: mean of (a + 0.0005)^0.3",
    "variation": "variation",
    "same_class": "share of images whose class\nstays when masked",
}


def plot_looks(
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    title: str = "",
    *,
    size: Size = None,
    fig: FigureBase | None = None,
) -> Figure:
    """Maps while they are trained, a row each; as `plot_heatmap_rows`."""
    if not maps:
        return plot_nothing("training was not watched: only the embedded example's is", size=size)
    return plot_heatmap_rows(images, maps, title=title, size=size, fig=fig)


def plot_losses(
    histories: Mapping[str, pd.DataFrame],
    title: str = "",
    *,
    size: Size = None,
    fig: FigureBase | None = None,
) -> Figure:
    """The loss's terms step by step; the thick line is the mean of five steps.

    histories : label -> `lib.maps.learned.training.Trained.history`; `step, cross_entropy, area,
                variation, same_class`
    """
    if not histories:
        return plot_nothing(
            "no training is recorded: train modules first, see docs/lcam.md", size=size
        )
    columns = panels_across(len(_TERMS), 2.3, len(_TERMS), size, fig)
    columns = {3: 2}.get(columns, columns)  # four panels leave no gap
    rows = -(-len(_TERMS) // columns)
    sheet = lay_out((min(2.3 * columns + 1, 7.2), 2.1 * rows + 0.4), rows, columns, size=size,
                    fig=fig)  # fmt: skip
    axes = sheet.axes.ravel()
    for number, (label, history) in enumerate(histories.items()):
        for ax, term in zip(axes, _TERMS, strict=True):
            smooth = history[term].rolling(5, center=True, min_periods=1).mean()
            ax.plot(
                history.step,
                history[term],
                color=PALETTE[number % len(PALETTE)],
                lw=thick(0.36),
                alpha=0.4,
            )
            ax.plot(
                history.step, smooth, color=PALETTE[number % len(PALETTE)], lw=thick(), label=label
            )
    for ax, label in zip(axes, _TERMS.values(), strict=True):
        sheet.panel_title(ax, label, "small")
        ax.set_xlabel("step", fontsize="small")
        ax.set_ylim(bottom=0)
        ax.grid()
        ax.locator_params(nbins=4)
        ax.tick_params(labelsize="small")
    axes[-1].set_ylim(0, 1.02)
    sheet.above(title, "medium")
    sheet.legend()
    return sheet.shown


# What is compared, of `lib.analyses.faithfulness` and of agreement: measure -> what it is.
_DRAWN = {
    "average_drop_100%": "average drop, all pixels\n(percentage points)",
    "average_drop_15%": "average drop, 15 % of pixels\n(percentage points)",
    "let_through": "mean of the map\n(percentage points)",
    "increase_100%": "increase in confidence,\nall pixels (percentage points)",
    "score": "agreement with people\n(score)",
}


def plot_against_grad_cam(
    together: pd.DataFrame,
    apart: pd.DataFrame,
    *,
    size: Size = None,
    fig: FigureBase | None = None,
) -> Figure:
    """A panel per measure, a row per method: its difference to Grad-CAM on every model, and over
    all of them with its interval.

    together, apart : as `lib.analyses.lcam.comparison.against_grad_cam` gives them; `method,
                      measure, difference, low, high, n, models` and `backbone, dcls, method,
                      measure, difference`; differences are in percentage points or of the score
    """
    if together.empty:
        return plot_nothing(
            "no method to compare with Grad-CAM: train modules first, see docs/lcam.md", size=size
        )
    methods = methods_of(together)
    columns = panels_across(len(_DRAWN), 2.0, 3, size, fig)
    rows, high = -(-len(_DRAWN) // columns), row_of(0.32)
    sheet = lay_out((min(2.0 * columns + 1.8, 7.2), (high * len(methods) + 1.1) * rows + 0.5), rows,
                    columns, sharey=True, size=size, fig=fig)  # fmt: skip
    axes = sheet.axes.ravel()
    for ax in sheet.axes[:, 0]:
        names = [METHODS[method].label for method in reversed(methods)]
        sheet.names_along_y(ax, names, high, "small")
    for ax in axes[len(_DRAWN) :]:
        ax.set_axis_off()
    places = {method: len(methods) - 1 - number for number, method in enumerate(methods)}
    order = {key: number for number, key in enumerate(BACKBONES)}
    handles = [
        plt.Line2D([], [], marker=MARKS[order[key] % len(MARKS)], ls="", ms=large(0.67),
                   mfc="white", mec="0.2", label=BACKBONES[key].label)
        for key in order if key in set(apart.backbone)
    ]  # fmt: skip
    colours = {False: PLAIN_COLOUR, True: DCLS_COLOUR}
    handles += [
        *(
            plt.Line2D([], [], color=colours[dcls], marker="s", ls="", ms=large(0.67), label=label)
            for dcls, label in form_labels(apart.dcls).items()
        ),
        plt.Line2D(
            [],
            [],
            color=PALETTE[1],
            marker="o",
            ms=large(0.6),
            lw=thick(1.1),
            label="mean, 95 % interval",
        ),
        plt.Line2D(
            [],
            [],
            color="0.3",
            ls="",
            marker=CARETRIGHTBASE,
            ms=large(0.8),
            mew=0,
            label="beyond the axis",
        ),
    ]
    sheet.legend(handles)
    for ax, (measure, label) in zip(axes, _DRAWN.items(), strict=False):
        ax.axvline(0, color="0.3", lw=thick(0.57))
        single, mean = apart[apart.measure == measure], together[together.measure == measure]
        left, right = _middle(single.difference, [*mean.low, *mean.high, 0.0])
        for row in single.itertuples():
            number = order[row.backbone]
            shift = (2 * number + row.dcls) / (2 * len(order)) - 0.5
            mark, share = MARKS[number % len(MARKS)], 0.5
            if not left <= row.difference <= right:
                mark, share = (CARETRIGHTBASE if row.difference > right else CARETLEFTBASE), 0.8
            ax.plot(
                np.clip(row.difference, left, right), places[row.method] + 0.5 * shift, ls="",
                marker=mark, ms=large(share), alpha=0.7, color=colours[bool(row.dcls)], mew=0,
            )  # fmt: skip
        for row in mean.itertuples():
            place = places[row.method]
            ax.plot([row.low, row.high], [place] * 2, color=PALETTE[1], lw=thick(1.1), zorder=3)
            ax.plot(row.difference, place, "o", color=PALETTE[1], ms=large(0.6), zorder=3,
                    mec="white", mew=thick(0.3))  # fmt: skip
        margin = 0.06 * (right - left)
        ax.set_xlim(left - margin, right + margin)
        ax.locator_params(axis="x", nbins=4)
        ax.tick_params(axis="x", labelsize="small")
        side = "; ← better" if "drop" in measure else "; better →"
        side = "" if measure == "let_through" else side
        sheet.panel_title(ax, label, "small")
        ax.set_xlabel(wrapped(f"minus Grad-CAM's{side}", sheet.panel, "small"), fontsize="small")
        ax.grid(axis="x")
    axes[0].set_ylim(-0.6, len(methods) - 0.4)
    sheet.below(f"n = {span(together.n)} images, {int(together.models.max())} models")
    return sheet.shown


def _middle(values: pd.Series, held: Sequence[float]) -> tuple[float, float]:
    """Limits that a few far values do not stretch: one and a half times the middle half beyond it,
    and all that is `held`."""
    low, high = np.nanquantile(values, (0.25, 0.75)) if values.notna().any() else (0.0, 0.0)
    reach = 1.5 * (high - low)
    inside = values[(values >= low - reach) & (values <= high + reach)]
    known = [*inside, *(value for value in held if np.isfinite(value))]
    left, right = min(known, default=0.0), max(known, default=0.0)
    return (left, right) if right > left else (left - 1.0, right + 1.0)
