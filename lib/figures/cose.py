"""Figures of COSE; as `lib.figures.scores`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D

from ..maps.methods import METHODS
from ..networks.backbones import BACKBONES
from ..study.rules import RULES
from .heatmaps import draw_map, draw_map_scale
from .style import (
    DCLS_COLOUR,
    MARKS,
    PALETTE,
    PLAIN_COLOUR,
    Size,
    form_labels,
    label_points,
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
        return f"error bars: 95 % intervals over images, where these are {_FEWEST} or more"
    return f"no intervals: fewer than {_FEWEST} images"


def plot_consistency_against_sensitivity(
    summary: pd.DataFrame,
    reading: str = _PUBLISHED,
    *,
    size: Size = None,
    fig: FigureBase | None = None,
) -> Figure:
    """A panel with all methods, then one per method, enlarged, with an arrow per backbone from
    plain to DCLS.

    summary : as `lib.analyses.cose.results.summarise_cose` makes it; `backbone, dcls, method,
              cells, chance, ceiling, n_images, n_right, n_kept, n_changed`, and of the reading
              consistency and sensitivity (mean SSIM and one minus it) with their ends
    reading : published or corrected, whose scores are drawn
    """
    summary = _of_reading(summary, reading)
    methods = methods_of(summary)
    panels = [*methods] if len(methods) == 1 else ["", *methods]
    columns = panels_across(len(panels), 2.3, 3, size, fig)
    rows = -(-len(panels) // columns)
    sheet = lay_out((min(2.3 * columns + 1.3, 7.2), 2.5 * rows + 0.7), rows, columns, size=size,
                    fig=fig)  # fmt: skip
    axes = sheet.axes
    colours = {False: PLAIN_COLOUR, True: DCLS_COLOUR}
    handles = [
        Line2D([], [], marker="o", ls="", ms=large(0.7), color=colours[dcls], label=label)
        for dcls, label in form_labels(summary.dcls).items()
    ]
    known = summary.dropna(subset=["consistency", "sensitivity"])
    if len(methods) > 1:
        _overview(axes.flat[0], known, methods)
        sheet.panel_title(axes.flat[0], "all methods, each model a mark", "small")
        handles += [
            Line2D([], [], ls="", marker=MARKS[number % len(MARKS)], ms=large(0.6), mew=thick(0.6),
                   color=_colour(number), mfc="white", label=METHODS[method].label)
            for number, method in enumerate(methods)
        ]  # fmt: skip
    named = []
    for ax, method in zip(axes.flat[len(panels) - len(methods) :], methods, strict=False):
        chosen = summary[summary.method == method]
        points, names, bars = _arrows(ax, known[known.method == method])
        named.append((ax, points, names, bars, _lines_of_equal_cose(ax)))
        levels = f"COSE of chance {chosen.chance.mean():.2f}, ceiling {chosen.ceiling.mean():.2f}"
        pairs = f"{span(chosen.n_kept)} + {span(chosen.n_changed)} pairs a model"
        sheet.panel_title(ax, f"{METHODS[method].label}\n{levels}\n{pairs}", "x-small")
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    sheet.below(
        f"consistency (mean SSIM where the answer stays right); n = {span(summary.n_images)} "
        f"images, {span(summary.n_right)} right; {_bars(summary, 'consistency')}"
    )
    sheet.left("sensitivity (1 − mean SSIM where it becomes wrong)")
    sheet.legend(handles)
    for ax, points, names, bars, values in named:
        label_points(sheet, ax, points, names, bars, covered=values)
    return sheet.shown


# Blue means DCLS here, so that no method is blue.
_METHOD_COLOURS = [colour for colour in PALETTE if colour != DCLS_COLOUR]


def _colour(number: int) -> str:
    """The colour of the method of this number."""
    return _METHOD_COLOURS[number % len(_METHOD_COLOURS)]


def _overview(ax: Axes, known: pd.DataFrame, methods: Sequence[str]) -> None:
    """All models of all methods on one plane, whose scale the other panels enlarge."""
    for number, method in enumerate(methods):
        chosen = known[known.method == method]
        ax.plot(
            chosen.consistency,
            chosen.sensitivity,
            MARKS[number % len(MARKS)],
            mfc="none",
            color=_colour(number),
            ms=large(0.5),
            mew=thick(0.5),
        )
    _fit(ax, known.consistency, known.sensitivity)
    _lines_of_equal_cose(ax)


def _fit(ax: Axes, x: pd.Series, y: pd.Series) -> None:
    """Limits around the data, a tenth of the plane at least."""
    for values, place in ((x, ax.set_xlim), (y, ax.set_ylim)):
        if len(values):
            low, high = values.min(), values.max()
            margin = max(0.14 * (high - low), (0.1 - (high - low)) / 2)
            place(low - margin, high + margin)


def _lines_of_equal_cose(ax: Axes) -> list[Artist]:
    """Grey lines of equal COSE across the limits of the axes, each named at its left end. Returns
    the names."""
    named: list[Artist] = []
    (left, right), (low, top) = ax.get_xlim(), ax.get_ylim()
    x = np.linspace(max(left, 0.01), right, 100)
    corners = np.sqrt(np.maximum([left * low, right * top], 0))
    step = 0.05 if np.ptp(corners) < 0.3 else 0.1
    for level in np.arange(step, 1.2, step):
        y = level**2 / x
        inside = (y > low) & (y < top)
        if inside.sum() < 5:
            continue
        ax.plot(x[inside], y[inside], color="0.85", lw=thick(0.5), zorder=0)
        note = ax.annotate(f"{level:.2f}".rstrip("0"), (x[inside][0], y[inside][0]), xytext=(1, -1),
                           ha="left", va="top", fontsize="x-small", color="0.55",
                           textcoords="offset points", zorder=0)  # fmt: skip
        note.set_in_layout(False)
        named.append(note)
    ax.set(xlim=(left, right), ylim=(low, top))
    ax.locator_params(nbins=4)
    ax.tick_params(labelsize="small")
    return named


def _arrows(
    ax: Axes, known: pd.DataFrame
) -> tuple[list[tuple[float, float]], list[str], list[tuple[float, float, float, float]]]:
    """The models of one method, an arrow from each to the same with DCLS; and for their names the
    points, texts and bars that `label_points` takes."""
    points, names, bars = [], [], []
    for key in [key for key in BACKBONES if key in set(known.backbone)]:
        pair = known[known.backbone == key].set_index("dcls").sort_index()
        for dcls, row in pair.iterrows():
            colour = DCLS_COLOUR if dcls else PLAIN_COLOUR
            x, y = row.consistency, row.sensitivity
            across, up = ((row[f"{name}_low"], row[f"{name}_high"])
                          for name in ("consistency", "sensitivity"))  # fmt: skip
            ax.errorbar(
                x, y, xerr=[[x - across[0]], [across[1] - x]], yerr=[[y - up[0]], [up[1] - y]],
                fmt="o", color=colour, ecolor="0.8", ms=large(0.6), elinewidth=thick(0.43),
                markeredgecolor="white", markeredgewidth=thick(0.3), zorder=2,
            )  # fmt: skip
            points.append((x, y))
            names.append(BACKBONES[key].label if dcls == pair.index[0] else "")
        if len(pair) == 2:
            ends = pair[["consistency", "sensitivity"]].to_numpy()
            along = np.linspace(*ends, 9)  # in short boxes, as an arrow is slanted
            bars += [(*low, *high) for low, high in
                     zip(np.minimum(along[:-1], along[1:]), np.maximum(along[:-1], along[1:]),
                         strict=True)]  # fmt: skip
            arrow = {"arrowstyle": "->", "color": "0.5", "lw": thick(0.5)}
            ax.annotate("", ends[1], ends[0], zorder=1, arrowprops=arrow)
    _fit(ax, known.consistency, known.sensitivity)
    return points, names, bars


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
    stacked = width_of(7.2, size, fig) < 4.5
    high = row * len(order)
    sheet = lay_out(
        (7.2, 2 * high + 2.2 if stacked else high + 1.4), *((2, 1) if stacked else (1, 2)),
        sharey=True, size=size, fig=fig,
    )  # fmt: skip
    names = []
    for key in order:
        some = parts[parts.part == key]
        label = kinds[key] if key in kinds else _PARTS.get(key, f"network: {key}")
        names.append(f"{label} ({span(some.n_kept)} + {span(some.n_changed)})")
    for ax in sheet.axes[:, 0]:
        sheet.names_along_y(ax, names, row, "small")
    colours = [_colour(number) for number in range(len(methods))]
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
        f"rows: change (pairs that stay right + become wrong); {reading} reading; "
        f"{_bars(parts, 'consistency')}"
    )
    sheet.legend()
    return sheet.shown


def plot_followed(
    rows: Sequence[Followed], title: str = "", *, size: Size = None, fig: FigureBase | None = None
) -> Figure:
    """A column per change: the image, its explanation, and that brought back.

    rows : as `lib.analyses.cose.followed` makes them, the unchanged image first
    """
    bands = 1 if len(rows) < 9 else 2
    across = -(-len(rows) // bands)
    beside = 1.1
    wide = min(0.95 * across + beside, 7.2)
    cell = max(width_of(wide, size, fig) - beside, 0.0) / across
    sheet = lay_out((wide, bands * (3 * cell + 0.85)), 3 * bands, across, size=size, fig=fig)
    axes = sheet.axes
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax in axes[3 * bands - 3 :, len(rows) - (bands - 1) * across :].flat:
        ax.set_visible(False)
    for number, row in enumerate(rows):
        band, column = divmod(number, across)
        above, middle, below = axes[3 * band : 3 * band + 3, column]
        above.imshow(row.image)
        draw_map(middle, row.image, row.found)
        draw_map(below, rows[0].image, row.back)
        sheet.panel_title(above, wrapped(row.title, cell, "x-small"), "x-small")
        ssim, corrected = (f"{round(x, 2) + 0.0:.2f}" for x in (row.ssim, row.corrected))
        words = "" if np.isnan(row.ssim) else f"SSIM {ssim}\n"
        if ssim != corrected:
            words = f"{words.rstrip()} ({corrected})\n"
        words += row.answer if number == 0 or row.answer != rows[0].answer else "same answer"
        below.set_xlabel(wrapped(words, cell, "x-small"), fontsize="x-small", labelpad=1)
    sheet.names_of_images(axes[:, 0], ["image", "heatmap", "brought back"] * bands, cell)
    draw_map_scale(sheet.figure, axes, 0.4)
    sheet.above(title, "medium")
    return sheet.shown
