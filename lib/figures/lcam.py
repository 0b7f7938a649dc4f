"""Figures of learned attention maps; as `lib.figures.scores`."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..maps.methods import METHODS
from ..networks.backbones import BACKBONES
from .heatmaps import plot_heatmap_rows
from .style import (
    DCLS_COLOUR,
    MARKS,
    PLAIN_COLOUR,
    form_labels,
    methods_of,
    plot_nothing,
    shared_legend,
    span,
)

_TERMS = {
    "cross_entropy": "cross-entropy (nats)",
    "area": "area: mean of (a + 0.0005)^0.3",
    "variation": "variation",
    "same_class": "share that, masked,\nkeep their class",
}


def plot_looks(pictures: np.ndarray, maps: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """Maps while they are trained, a row each; as `plot_heatmap_rows`."""
    if not maps:
        return plot_nothing("training was not watched: only the embedded example's is")
    return plot_heatmap_rows(pictures, maps, title=title)


def plot_losses(histories: Mapping[str, pd.DataFrame], title: str = "") -> Figure:
    """The loss's terms step by step; the thick line is the mean of five steps.

    histories : label -> `lib.maps.learned.training.Trained.history`
    """
    if not histories:
        return plot_nothing("no training is recorded: train modules first, see docs/lcam.md")
    fig, axes = plt.subplots(1, len(_TERMS), figsize=(2.3 * len(_TERMS) + 1, 2.4))
    colours = plt.get_cmap("tab10")
    for number, (label, history) in enumerate(histories.items()):
        for ax, term in zip(axes, _TERMS, strict=True):
            smooth = history[term].rolling(5, center=True, min_periods=1).mean()
            ax.plot(history.step, history[term], color=colours(number), lw=0.5, alpha=0.4)
            ax.plot(history.step, smooth, color=colours(number), lw=1.4, label=label)
    for ax, label in zip(axes, _TERMS.values(), strict=True):
        ax.set_title(label, fontsize=8)
        ax.set_xlabel("step", fontsize=8)
        ax.set_ylim(bottom=0)
        ax.grid()
    axes[-1].set_ylim(0, 1.02)
    shared_legend(fig, axes[0], "outside right upper", fontsize=7)
    fig.suptitle(title)
    return fig


# What is compared, of `lib.analyses.faithfulness` and of agreement: measure -> what it is.
_DRAWN = {
    "average_drop_100%": "average drop, all pixels\n(percentage points)",
    "average_drop_15%": "average drop, 15 % of pixels\n(percentage points)",
    "let_through": "mean of the map\n(percentage points)",
    "increase_100%": "increase in confidence,\nall pixels (percentage points)",
    "score": "agreement with people\n(score)",
}


def plot_against_grad_cam(together: pd.DataFrame, apart: pd.DataFrame) -> Figure:
    """A panel per measure, a row per method: its difference to Grad-CAM on every model, and over
    all of them with its interval.

    together, apart : as `lib.analyses.lcam.comparison.against_grad_cam` gives them
    """
    if together.empty:
        return plot_nothing(
            "no method to compare with Grad-CAM: train modules first, see docs/lcam.md"
        )
    methods = methods_of(together)
    fig, axes = plt.subplots(
        1, len(_DRAWN), figsize=(2.0 * len(_DRAWN) + 1.8, 0.42 * len(methods) + 1.6),
        sharey=True,
    )  # fmt: skip
    places = {method: len(methods) - 1 - number for number, method in enumerate(methods)}
    order = {key: number for number, key in enumerate(BACKBONES)}
    for ax, (measure, label) in zip(axes, _DRAWN.items(), strict=True):
        ax.axvline(0, color="0.3", lw=0.8)
        for row in apart[apart.measure == measure].itertuples():
            number = order[row.backbone]
            shift = (2 * number + row.dcls) / (2 * len(order)) - 0.5
            ax.plot(row.difference, places[row.method] + 0.5 * shift, MARKS[number % len(MARKS)],
                    ms=3, alpha=0.7, color=DCLS_COLOUR if row.dcls else PLAIN_COLOUR)  # fmt: skip
        for row in together[together.measure == measure].itertuples():
            ax.plot([row.low, row.high], [places[row.method]] * 2, color="#d62728", lw=1.8)
            ax.plot(row.difference, places[row.method], "|", color="#d62728", ms=11, mew=2.2)
        left, right = ax.get_xlim()
        side = "; ← better" if "drop" in measure else "; better →"
        side = "" if measure == "let_through" else side
        ax.set_xlim(min(left, -0.05 * (right - left)), max(right, 0.05 * (right - left)))
        ax.set_title(label, fontsize=8)
        ax.set_xlabel(f"less Grad-CAM's{side}", fontsize=8)
        ax.grid(axis="x")
    axes[0].set_yticks(list(places.values()), [METHODS[m].label for m in places], fontsize=8)
    axes[0].set_ylim(-0.6, len(methods) - 0.4)
    handles = [
        plt.Line2D([], [], marker=MARKS[order[key] % len(MARKS)], ls="", ms=4, mfc="white",
                   mec="0.2", label=BACKBONES[key].label)
        for key in order if key in set(apart.backbone)
    ]  # fmt: skip
    colours = {False: PLAIN_COLOUR, True: DCLS_COLOUR}
    handles += [
        *(
            plt.Line2D([], [], color=colours[dcls], marker="s", ls="", ms=4, label=label)
            for dcls, label in form_labels(apart.dcls).items()
        ),
        plt.Line2D([], [], color="#d62728", lw=2, label="all models,\n95 % interval"),
    ]
    fig.legend(handles=handles, loc="outside right upper", fontsize=7)
    fig.supxlabel(
        f"n = {span(together.n)} pictures on {int(together.models.max())} models", fontsize=8
    )
    return fig
