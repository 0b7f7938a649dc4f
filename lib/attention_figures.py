"""Figures of learned attention maps; as `lib.figures`."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.backbones import BACKBONES
from lib.figures import DCLS_COLOUR, MARKS, PLAIN_COLOUR, methods_of, plot_heatmap_rows
from lib.methods import METHODS

_TERMS = {
    "cross_entropy": "cross-entropy (nats)",
    "area": "area: mean (a + 0.0005)^0.3",
    "variation": "variation",
    "same_class": "share that, masked,\nkeep their class",
}


def _nothing(why: str) -> Figure:
    fig, ax = plt.subplots(figsize=(5, 0.8))
    ax.text(0.5, 0.5, why, ha="center", va="center")
    ax.set_axis_off()
    return fig


def plot_looks(pictures: np.ndarray, maps: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """Maps while they are trained, a row each; as `plot_heatmap_rows`."""
    if not maps:
        return _nothing("training was not watched: only the embedded example's is")
    return plot_heatmap_rows(pictures, maps, title=title)


def plot_losses(histories: Mapping[str, pd.DataFrame], title: str = "") -> Figure:
    """The loss's terms step by step; the thick line is the mean of eleven steps.

    histories : label -> `lib.attention_training.Trained.history`
    """
    if not histories:
        return _nothing("no training is recorded: train modules first, see docs/lcam.md")
    fig, axes = plt.subplots(1, len(_TERMS), figsize=(2.3 * len(_TERMS), 2.4))
    colours = plt.get_cmap("tab10")
    for number, (label, history) in enumerate(histories.items()):
        for ax, term in zip(axes, _TERMS, strict=True):
            smooth = history[term].rolling(11, center=True, min_periods=1).mean()
            ax.plot(history.step, history[term], color=colours(number), lw=0.5, alpha=0.3)
            ax.plot(history.step, smooth, color=colours(number), lw=1.4, label=label)
    for ax, label in zip(axes, _TERMS.values(), strict=True):
        ax.set_title(label, fontsize=8)
        ax.set_xlabel("step", fontsize=8)
        ax.set_ylim(bottom=0)
        ax.grid()
    axes[-1].set_ylim(0, 1.02)
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=7)
    fig.suptitle(title)
    return fig


# What is compared, of `lib.faithfulness` and of agreement: name -> what it is, what is better.
_MEASURES = {
    "average_drop_100%": "average drop, all pixels (%)\nless is more faithful",
    "average_drop_15%": "average drop, 15 % of pixels (%)\nless is more faithful",
    "increase_100%": "increase in confidence,\nall pixels (%)\nmore is more faithful",
    "score": "agreement with people:\nscore (mean ρ ÷ 0.658)",
}


def plot_learned_against_gradients(table: pd.DataFrame) -> Figure:
    """A panel per measure, a column per method, a thin line per model, the thick one the median.

    table : `backbone, dcls, method, measure, value, n`
    """
    methods = methods_of(table)
    fig, axes = plt.subplots(
        1, len(_MEASURES), figsize=(2.1 * len(_MEASURES) + 0.8, 3.6), sharex=True
    )
    places = np.arange(len(methods))
    for ax, (measure, label) in zip(axes, _MEASURES.items(), strict=True):
        wide = table[table.measure == measure].pivot(
            index=["backbone", "dcls"], columns="method", values="value"
        )
        wide = wide.reindex(columns=methods)
        for (backbone, dcls), row in wide.iterrows():
            mark = MARKS[list(BACKBONES).index(backbone) % len(MARKS)]
            ax.plot(places, row, marker=mark, ms=3, lw=0.5, alpha=0.7,
                    color=DCLS_COLOUR if dcls else PLAIN_COLOUR)  # fmt: skip
        ax.plot(places, wide.median(), color="#d62728", lw=2, marker="_", ms=12)
        ax.set_title(label, fontsize=8)
        ax.set_xticks(places, [METHODS[m].label for m in methods], rotation=60, ha="right",
                      fontsize=7)  # fmt: skip
        ax.grid(axis="y")
    handles = [
        plt.Line2D([], [], marker=MARKS[number % len(MARKS)], ls="", ms=4, mfc="white", mec="0.2",
                   label=BACKBONES[key].label)
        for number, key in enumerate(BACKBONES) if key in set(table.backbone)
    ]  # fmt: skip
    handles += [
        plt.Line2D([], [], color=PLAIN_COLOUR, lw=1, label="without DCLS"),
        plt.Line2D([], [], color=DCLS_COLOUR, lw=1, label="with DCLS"),
        plt.Line2D([], [], color="#d62728", lw=2, label="median of the models"),
    ]
    fig.legend(handles=handles, loc="outside right upper", fontsize=7)
    low, high = int(table.n.min()), int(table.n.max())
    pictures = f"{low}" if low == high else f"{low}–{high}"
    fig.supxlabel(f"means over {pictures} pictures a model, with intervals in lcam.csv", fontsize=8)
    return fig
