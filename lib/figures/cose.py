"""Figures of COSE; as `lib.figures.scores`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..maps.methods import METHODS
from ..networks.backbones import BACKBONES
from ..study.rules import RULES
from .heatmaps import draw_map_scale, overlay
from .style import (
    DCLS_COLOUR,
    MARKS,
    PLAIN_COLOUR,
    form_labels,
    methods_of,
    shared_legend,
    span,
)

if TYPE_CHECKING:
    from ..analyses.cose.pairs import Followed


_FEWEST = RULES.fewest_for_cose


_PUBLISHED = "published"


def _of_reading(table: pd.DataFrame, reading: str) -> pd.DataFrame:
    """The table with one reading's columns by the names of the scores alone: `cose_published`
    becomes `cose`, `cose_published_low` becomes `cose_low`."""
    return table.rename(columns=lambda name: name.replace(f"_{reading}", ""))


def _bars(table: pd.DataFrame, score: str) -> str:
    """What the bars are, if there are any."""
    if table[f"{score}_low"].notna().any():
        return f"bars: 95 % intervals over pictures, where these are {_FEWEST} or more"
    return f"no intervals: fewer than {_FEWEST} pictures"


def _mark(key: str) -> str:
    return MARKS[list(BACKBONES).index(key) % len(MARKS)]


def plot_consistency_against_sensitivity(
    summary: pd.DataFrame, reading: str = _PUBLISHED
) -> Figure:
    """A panel per method, an arrow per backbone from plain to DCLS.

    summary : as `lib.analyses.cose.results.summarise_cose` makes it
    reading : published or corrected, whose scores are drawn
    """
    summary = _of_reading(summary, reading)
    methods = methods_of(summary)
    columns = 2 if len(methods) == 4 else min(3, len(methods))
    rows = -(-len(methods) // columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(2.9 * columns + 1.3, 2.8 * rows + 0.8), sharex=True, sharey=True,
        squeeze=False,
    )  # fmt: skip
    shown = summary[["consistency", "sensitivity"]].dropna()
    left = min(0.4, shown.consistency.min() - 0.05) if len(shown) else 0.4
    top = max(1.0, shown.sensitivity.max() + 0.05) if len(shown) else 1.0
    for ax, method in zip(axes.flat, methods, strict=False):
        chosen = summary[summary.method == method]
        _lines_of_equal_cose(ax, left, top)
        for key in [key for key in BACKBONES if key in set(chosen.backbone)]:
            _arrow(ax, chosen[chosen.backbone == key].set_index("dcls"), key)
        levels = f"chance {chosen.chance.mean():.2f}, ceiling {chosen.ceiling.mean():.2f}"
        pairs = f"{span(chosen.n_kept)} + {span(chosen.n_changed)} pairs a model"
        ax.set_title(f"{METHODS[method].label}\n{_cells(chosen.cells.dropna())}: COSE of {levels}"
                     f"\n{pairs}", fontsize=7.5)  # fmt: skip
        ax.set_xlim(left, 1.0)
        ax.set_ylim(min(0, shown.sensitivity.min() - 0.05) if len(shown) else 0, top)
    for ax in axes.flat[len(methods) :]:
        ax.set_axis_off()
    fig.supxlabel(
        "consistency: mean SSIM of explanations where the answer stays right\n"
        f"of {span(summary.n_pictures)} pictures a model has {span(summary.n_right)} right "
        "before any change; pairs: that stay right + become wrong;\n"
        f"{reading} reading; {_bars(summary, 'consistency')}",
        fontsize=8,
    )
    fig.supylabel("sensitivity: 1 − mean SSIM where it becomes wrong", fontsize=8)
    handles = [
        plt.Line2D([], [], marker=_mark(key), ls="", ms=5, mfc="white", mec="0.2",
                   label=BACKBONES[key].label)
        for key in BACKBONES if key in set(summary.backbone)
    ]  # fmt: skip
    colours = {False: PLAIN_COLOUR, True: DCLS_COLOUR}
    for dcls, label in form_labels(summary.dcls).items():
        colour = colours[dcls]
        handles.append(plt.Line2D([], [], marker="s", ls="", ms=5, color=colour, label=label))
    fig.legend(handles=handles, loc="outside right upper", fontsize=7)
    return fig


def _cells(cells: pd.Series) -> str:
    low, high = (int(cells.min()), int(cells.max())) if len(cells) else (0, 0)
    return f"{low} × {low} cells" if low == high else f"{low}–{high} cells a side"


def _lines_of_equal_cose(ax: Axes, left: float, top: float) -> None:
    x = np.linspace(max(left, 0.01), 1, 100)
    for level in (0.3, 0.5, 0.7, 0.9):
        y = level**2 / x
        ax.plot(x[y < top], y[y < top], color="0.85", lw=0.7, zorder=0)
        if level**2 < top:
            x0 = max(left, level**2 / top)
            ax.annotate(f"COSE {level}", (x0, level**2 / x0), xytext=(3, -7), ha="left",
                        fontsize=5.5, textcoords="offset points", color="0.55",
                        zorder=0)  # fmt: skip


def _arrow(ax: Axes, pair: pd.DataFrame, key: str) -> None:
    mark = _mark(key)
    for dcls, colour in ((False, PLAIN_COLOUR), (True, DCLS_COLOUR)):
        if dcls not in pair.index or pair.loc[dcls, ["consistency", "sensitivity"]].isna().any():
            continue
        row = pair.loc[dcls]
        bars = [
            [[row[name] - row[f"{name}_low"]], [row[f"{name}_high"] - row[name]]]
            for name in ("consistency", "sensitivity")
        ]
        ax.errorbar(row.consistency, row.sensitivity, xerr=bars[0], yerr=bars[1], fmt=mark,
                    color=colour, ms=4.5, elinewidth=0.6, markeredgecolor="0.2",
                    markeredgewidth=0.5, zorder=2)  # fmt: skip
    if len(pair) == 2 and not pair[["consistency", "sensitivity"]].isna().any(axis=None):
        ends = pair.reindex([False, True])[["consistency", "sensitivity"]].to_numpy()
        ax.annotate("", ends[1], ends[0], zorder=1,
                    arrowprops={"arrowstyle": "->", "color": "0.5", "lw": 0.7})  # fmt: skip


_PARTS = {"geometric": "all geometric", "photometric": "all photometric", "model": "all networks"}


def plot_cose_by_change(
    parts: pd.DataFrame, kinds: Mapping[str, str], reading: str = _PUBLISHED
) -> Figure:
    """A row per kind of change, over all models.

    parts : as `by_change(pairs, ["method"])` makes it
    kinds : {kind of change: as it is called}
    reading : published or corrected, whose scores are drawn
    """
    parts = _of_reading(parts, reading)
    methods = methods_of(parts)
    order = [key for key in parts.part.unique() if key in kinds]
    others = [key for key in parts.part.unique() if key not in order and key not in _PARTS]
    # Of one changed network the row of all says the same.
    order += others + [key for key in _PARTS if key != "model" or len(others) > 1]
    fig, axes = plt.subplots(1, 2, figsize=(7.4, 0.27 * len(order) + 1.4), sharey=True)
    colours = plt.get_cmap("tab10")(np.arange(len(methods)) % 10)
    for ax, score in zip(axes, ("consistency", "sensitivity"), strict=True):
        for number, method in enumerate(methods):
            chosen = parts[parts.method == method].set_index("part").loc[order]
            places = np.arange(len(order)) + 0.5 * ((number + 0.5) / len(methods) - 0.5)
            values = chosen[score].to_numpy()
            ends = chosen[[f"{score}_low", f"{score}_high"]].to_numpy().T
            ax.errorbar(values, places, xerr=np.abs(ends - values), color=colours[number], ms=3.5,
                        fmt=MARKS[number % len(MARKS)], elinewidth=0.7,
                        label=METHODS[method].label)  # fmt: skip
        ax.grid(axis="x")
    names = []
    for key in order:
        some = parts[parts.part == key]
        label = kinds[key] if key in kinds else _PARTS.get(key, f"network: {key}")
        names.append(f"{label} ({span(some.n_kept)} + {span(some.n_changed)})")
    axes[0].set_yticks(range(len(order)), names, fontsize=7)
    axes[0].invert_yaxis()
    axes[0].set_xlabel("consistency (mean SSIM where\nthe answer stays right)", fontsize=8)
    axes[1].set_xlabel("sensitivity (1 − mean SSIM\nwhere it becomes wrong)", fontsize=8)
    fig.supxlabel(
        "change of the picture or network (pairs that stay right + become wrong, of all models\n"
        f"together; a range where methods lost some to constant maps); {reading} reading;\n"
        f"{_bars(parts, 'consistency')}",
        fontsize=8,
    )
    shared_legend(fig, axes[0], "outside upper center", ncols=3, fontsize=7)
    return fig


def plot_followed(rows: Sequence[Followed], title: str) -> Figure:
    """A column per change: the picture, its explanation, and that brought back."""
    fig, axes = plt.subplots(3, len(rows), figsize=(0.95 * len(rows) + 0.7, 3.7), squeeze=False)
    for column, row in enumerate(rows):
        found, back = overlay(row.picture, row.found), overlay(rows[0].picture, row.back)
        for ax, image in zip(axes[:, column], (row.picture, found, back), strict=True):
            ax.imshow(image)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        axes[0, column].set_title(row.title, fontsize=6)
        ssim, corrected = (f"{round(x, 2) + 0.0:.2f}" for x in (row.ssim, row.corrected))
        words = "" if np.isnan(row.ssim) else f"SSIM {ssim}\n"
        if ssim != corrected:
            words = f"{words.rstrip()} ({corrected})\n"
        words += row.answer if column == 0 or row.answer != rows[0].answer else "same answer"
        axes[2, column].set_xlabel(words, fontsize=6.5)
    for ax, name in zip(axes[:, 0], ("picture", "explanation", "brought back"), strict=True):
        ax.set_ylabel(name, fontsize=8)
    draw_map_scale(fig, axes[1:], 0.8)
    fig.suptitle(title, fontsize=9)
    return fig
