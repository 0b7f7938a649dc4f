"""Figures of COSE; as `lib.figures.scores`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from ..maps.methods import METHODS
from ..networks.backbones import BACKBONES
from ..study.rules import RULES
from .heatmaps import draw_map_scale, overlay
from .style import (
    DCLS_COLOUR,
    MARKS,
    PLAIN_COLOUR,
    Size,
    form_labels,
    large,
    lay_out,
    methods_of,
    panels_across,
    row_of,
    span,
    thick,
    width_of,
    wrapped,
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
        return f"bars: 95 % intervals over images, where these are {_FEWEST} or more"
    return f"no intervals: fewer than {_FEWEST} images"


def _mark(key: str) -> str:
    return MARKS[list(BACKBONES).index(key) % len(MARKS)]


def plot_consistency_against_sensitivity(
    summary: pd.DataFrame,
    reading: str = _PUBLISHED,
    *,
    size: Size = None,
    fig: FigureBase | None = None,
) -> Figure:
    """A panel per method, an arrow per backbone from plain to DCLS.

    summary : as `lib.analyses.cose.results.summarise_cose` makes it; `backbone, dcls, method,
              cells, chance, ceiling, n_images, n_right, n_kept, n_changed`, and of the reading
              consistency and sensitivity (mean SSIM and one minus it) with their ends
    reading : published or corrected, whose scores are drawn
    """
    summary = _of_reading(summary, reading)
    methods = methods_of(summary)
    most = 2 if len(methods) == 4 else 3
    columns = panels_across(len(methods), 2.9, most, size, fig)
    rows = -(-len(methods) // columns)
    sheet = lay_out((2.9 * columns + 1.3, 2.8 * rows + 0.8), rows, columns, sharex=True,
                    sharey=True, size=size, fig=fig)  # fmt: skip
    axes = sheet.axes
    handles = [
        plt.Line2D([], [], marker=_mark(key), ls="", ms=large(0.83), mfc="white", mec="0.2",
                   label=BACKBONES[key].label)
        for key in BACKBONES if key in set(summary.backbone)
    ]  # fmt: skip
    colours = {False: PLAIN_COLOUR, True: DCLS_COLOUR}
    for dcls, label in form_labels(summary.dcls).items():
        colour = colours[dcls]
        handles.append(
            plt.Line2D([], [], marker="s", ls="", ms=large(0.83), color=colour, label=label)
        )
    sheet.legend(handles, beside=True)
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
        sheet.panel_title(ax, f"{METHODS[method].label}\n{_cells(chosen.cells.dropna())}: COSE of "
                              f"{levels}\n{pairs}", "small")  # fmt: skip
        ax.set_xlim(left, 1.0)
        ax.set_ylim(min(0, shown.sensitivity.min() - 0.05) if len(shown) else 0, top)
    for ax in axes.flat[len(methods) :]:
        ax.set_axis_off()
    sheet.below(
        "consistency: mean SSIM of explanations where the answer stays right; "
        f"of {span(summary.n_images)} images a model has {span(summary.n_right)} right "
        "before any change; pairs: that stay right + become wrong; "
        f"{reading} reading; {_bars(summary, 'consistency')}"
    )
    sheet.left("sensitivity: 1 − mean SSIM where it becomes wrong")
    return sheet.shown


def _cells(cells: pd.Series) -> str:
    low, high = (int(cells.min()), int(cells.max())) if len(cells) else (0, 0)
    return f"{low} × {low} cells" if low == high else f"{low}–{high} cells a side"


def _lines_of_equal_cose(ax: Axes, left: float, top: float) -> None:
    x = np.linspace(max(left, 0.01), 1, 100)
    for level in (0.3, 0.5, 0.7, 0.9):
        y = level**2 / x
        ax.plot(x[y < top], y[y < top], color="0.85", lw=thick(0.5), zorder=0)
        if level**2 < top:
            x0 = max(left, level**2 / top)
            ax.annotate(f"COSE {level}", (x0, level**2 / x0), xytext=(3, -7), ha="left",
                        fontsize="xx-small", textcoords="offset points", color="0.55",
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
                    color=colour, ms=large(0.75), elinewidth=thick(0.43), markeredgecolor="0.2",
                    markeredgewidth=thick(0.35), zorder=2)  # fmt: skip
    if len(pair) == 2 and not pair[["consistency", "sensitivity"]].isna().any(axis=None):
        ends = pair.reindex([False, True])[["consistency", "sensitivity"]].to_numpy()
        ax.annotate("", ends[1], ends[0], zorder=1,
                    arrowprops={"arrowstyle": "->", "color": "0.5", "lw": thick(0.5)})  # fmt: skip


_PARTS = {"geometric": "all geometric", "photometric": "all photometric", "model": "all networks"}


def plot_cose_by_change(
    parts: pd.DataFrame,
    kinds: Mapping[str, str],
    reading: str = _PUBLISHED,
    *,
    size: Size = None,
    fig: FigureBase | None = None,
) -> Figure:
    """A row per kind of change, over all models.

    parts : as `by_change(pairs, ["method"])` makes it; `part, method, n_kept, n_changed`, and of
            the reading consistency and sensitivity with their ends
    kinds : {kind of change: as it is called}
    reading : published or corrected, whose scores are drawn
    """
    parts = _of_reading(parts, reading)
    methods = methods_of(parts)
    order = [key for key in parts.part.unique() if key in kinds]
    others = [key for key in parts.part.unique() if key not in order and key not in _PARTS]
    # Of one changed network the row of all says the same.
    order += others + [key for key in _PARTS if key != "model" or len(others) > 1]
    row = row_of(0.27)
    stacked = width_of(7.4, size, fig) < 4.5
    high = row * len(order)
    sheet = lay_out(
        (7.4, 2 * high + 2.2 if stacked else high + 1.4), *((2, 1) if stacked else (1, 2)),
        sharey=True, size=size, fig=fig,
    )  # fmt: skip
    names = []
    for key in order:
        some = parts[parts.part == key]
        label = kinds[key] if key in kinds else _PARTS.get(key, f"network: {key}")
        names.append(f"{label} ({span(some.n_kept)} + {span(some.n_changed)})")
    for ax in sheet.axes[:, 0]:
        sheet.names_along_y(ax, names, row, "small")
    colours = plt.get_cmap("tab10")(np.arange(len(methods)) % 10)
    says = {
        "consistency": "consistency (mean SSIM where the answer stays right)",
        "sensitivity": "sensitivity (1 − mean SSIM where it becomes wrong)",
    }
    for ax, (score, label) in zip(sheet.axes.flat, says.items(), strict=True):
        for number, method in enumerate(methods):
            chosen = parts[parts.method == method].set_index("part").loc[order]
            places = np.arange(len(order)) + 0.5 * ((number + 0.5) / len(methods) - 0.5)
            values = chosen[score].to_numpy()
            ends = chosen[[f"{score}_low", f"{score}_high"]].to_numpy().T
            ax.errorbar(values, places, xerr=np.abs(ends - values), color=colours[number],
                        ms=large(0.58), fmt=MARKS[number % len(MARKS)], elinewidth=thick(0.5),
                        label=METHODS[method].label)  # fmt: skip
        ax.grid(axis="x")
        ax.set_xlabel(wrapped(label, sheet.panel, "small"), fontsize="small")
    sheet.only.set_ylim(len(order) - 0.5, -0.5)
    sheet.below(
        "change of the image or network (pairs that stay right + become wrong, of all models "
        f"together; a range where methods lost some to constant maps); {reading} reading; "
        f"{_bars(parts, 'consistency')}"
    )
    sheet.legend()
    return sheet.shown


def plot_followed(
    rows: Sequence[Followed], title: str, *, size: Size = None, fig: FigureBase | None = None
) -> Figure:
    """A column per change: the image, its explanation, and that brought back.

    rows : as `lib.analyses.cose.followed` makes them, the unchanged image first
    """
    wide = 0.95 * len(rows) + 0.7
    cell = max(width_of(wide, size, fig) - 0.7, 0.0) / len(rows)
    sheet = lay_out((wide, 3 * cell + 0.85), 3, len(rows), size=size, fig=fig)
    axes = sheet.axes
    for column, row in enumerate(rows):
        found, back = overlay(row.image, row.found), overlay(rows[0].image, row.back)
        for ax, image in zip(axes[:, column], (row.image, found, back), strict=True):
            ax.imshow(image)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        sheet.panel_title(axes[0, column], row.title, "xx-small")
        ssim, corrected = (f"{round(x, 2) + 0.0:.2f}" for x in (row.ssim, row.corrected))
        words = "" if np.isnan(row.ssim) else f"SSIM {ssim}\n"
        if ssim != corrected:
            words = f"{words.rstrip()} ({corrected})\n"
        words += row.answer if column == 0 or row.answer != rows[0].answer else "same answer"
        axes[2, column].set_xlabel(wrapped(words, sheet.panel, "xx-small"), fontsize="xx-small")
    sheet.names_of_images(axes[:, 0], ["image", "explanation", "brought back"], cell)
    draw_map_scale(sheet.figure, axes[1:], 0.8)
    sheet.above(title, "medium")
    return sheet.shown
