"""Figures of a leaderboard: models in their order, and accuracy against agreement.

The data is what `lib.scores.leaderboard.boards` gives: the rows of one method and protocol, with
`value, low, high` (score, or mean ρ where that ranks them), and the controls in the same unit.
`size` and `ax` as in `lib.figures.scores`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .scores import correlated, draw_controls
from .style import (
    DCLS_COLOUR,
    PALETTE,
    PLAIN_COLOUR,
    Size,
    asked_colour,
    label_points,
    large,
    lay_out,
    row_of,
    score_unit,
    span,
    thick,
    width_of,
    wrapped,
)

_TRAINED, _UNTRAINED = ("o", DCLS_COLOUR), ("D", PLAIN_COLOUR)
_CEILING_COLOUR = PALETTE[1]  # of people, as in the figures of gaze


def _unit(board: pd.DataFrame) -> str:
    """What the axis of values says."""
    if board.ranked_by.iloc[0] == "score":
        return f"score ({score_unit(board)})"
    some = "; ceiling unknown" + " for some" * bool(board.ceiling.notna().any())
    return f"agreement ρ{some}"


def _counts(board: pd.DataFrame) -> str:
    return (
        f"n = {span(board.n)} images, {board.protocol.iloc[0]} protocol; error bars: 95 % intervals"
    )


def _looks(board: pd.DataFrame) -> Iterator[tuple[bool, pd.Series, dict]]:
    """Of each row whether it is untrained, and the look of its mark."""
    for _, row in board.iterrows():
        marker, colour = _UNTRAINED if row.untrained else _TRAINED
        colour = asked_colour(row.model, colour)
        face = colour if row.above_control else "white"
        yield row.untrained, row, {
            "marker": marker, "markerfacecolor": face, "markeredgecolor": colour, "color": colour,
            "markeredgewidth": thick(0.7),
        }  # fmt: skip


def _draw(ax: Axes, x: float, y: float, ends: np.ndarray, along: str, look: dict) -> None:
    """One model's mark with its interval. along : "x" or "y", the axis of values"""
    value = x if along == "x" else y
    ends = np.abs(ends - value)[:, None]
    look = {"ms": large(0.8), "elinewidth": thick(0.7), "capsize": large(0.25), **look}
    ax.errorbar(x, y, **{f"{along}err": ends}, ls="none", zorder=3, **look)


_MINI = " mini"


def _labels(board: pd.DataFrame) -> list[str]:
    """The models' names; "mini" distinguishes none where all are miniatures, which the figure's
    foot says."""
    if board.label.str.endswith(_MINI).all():
        return [label.removesuffix(_MINI) for label in board.label]
    return [*board.label]


def _keys(board: pd.DataFrame) -> list[Line2D]:
    """What marks mean, of those that are drawn."""
    found = []
    for untrained, (marker, colour) in ((False, _TRAINED), (True, _UNTRAINED)):
        some = board[board.untrained == untrained]
        if len(some) and board.untrained.nunique() > 1:
            name = "random weights" if untrained else "trained"
            found.append(Line2D([], [], ls="none", marker=marker, color=colour, label=name))
    if not board.above_control.all():
        found.append(Line2D([], [], ls="none", marker="o", color=PLAIN_COLOUR, mfc="white",
                            label="not significantly above the controls"))  # fmt: skip
    return found


def plot_leaderboard(
    board: pd.DataFrame,
    controls: pd.DataFrame,
    labels: Mapping[str, str],
    *,
    size: Size = None,
    ax: Axes | None = None,
) -> Figure:
    """A row per model, best first: its score with its 95 % interval, beside maps that no network
    made and the human ceiling.

    board    : of one method and protocol, as in the module's words
    controls : `control, score, low, high`, in the same unit
    labels   : {control: as it is called in the legend}
    """
    row = row_of(0.21)
    sheet = lay_out((7.2, row * len(board) + 1.3), size=size, ax=ax)
    ax = sheet.only
    names = [
        label if pd.isna(rank) else f"{label}  {rank}"
        for rank, label in zip(board["rank"], _labels(board), strict=True)
    ]
    sheet.names_along_y(ax, names, row)
    lines = draw_controls(ax, controls, labels, upright=False)
    if board.ranked_by.iloc[0] == "score":
        reachable = board.reachable.dropna()
        told = f" (a perfect model: {reachable.max():.2f})" if len(reachable) else ""
        lines.append(ax.axvline(1, color=_CEILING_COLOUR, lw=thick(1.0), zorder=1,
                                label=f"human ceiling{told}"))  # fmt: skip
    for place, (_, one, look) in enumerate(_looks(board)):
        _draw(ax, one.value, place, one[["low", "high"]].to_numpy(float), "x", look)
    ax.set_ylim(len(board) - 0.4, -0.6)
    ax.grid(axis="x")
    ax.hlines(range(len(board)), 0, 1, transform=ax.get_yaxis_transform(), color="0.9",
              lw=thick(0.35), zorder=0)  # fmt: skip
    sheet.title(f"{board.method_label.iloc[0]}\n{_counts(board)}")
    sheet.below(_unit(board), "medium")
    sheet.legend([*_keys(board), *lines])
    return sheet.shown


def plot_accuracy_against_score(
    board: pd.DataFrame,
    correlation: float,
    interval: tuple[float, float] | None = None,
    *,
    size: Size = None,
    ax: Axes | None = None,
) -> Figure:
    """ImageNet's top-1, as published, against agreement with people: a named point per model.

    Models whose accuracy is not known are counted and named, and not drawn.

    board       : of one method and protocol, as in the module's words
    correlation : `lib.scores.leaderboard.accuracy_correlation`, for the title; NaN if there is none
    interval    : the correlation's, `lib.scores.statistics.correlation_interval`
    """
    drawn = board[board.imagenet_top1.notna() & board.value.notna()]
    without = board.drop(drawn.index)
    high = min(4.4, 0.6 * width_of(6.4, size, ax=ax) + 1.0)
    sheet = lay_out((6.4, high), size=size, ax=ax)
    ax = sheet.only
    points, bars = [], []
    for _, one, look in _looks(drawn):
        _draw(ax, one.imagenet_top1, one.value, one[["low", "high"]].to_numpy(float), "y", look)
        points.append((one.imagenet_top1, one.value))
        bars.append((one.imagenet_top1, one.low, one.imagenet_top1, one.high))
    ax.set_xlabel(wrapped("ImageNet top-1 accuracy as published (%)", sheet.panel))
    ax.set_ylabel(wrapped(_unit(board), min(sheet.panel, 3.4)))
    ax.locator_params(nbins=6)
    ax.margins(0.1)
    models = f"{len(drawn)} model{'s' * (len(drawn) != 1)}"
    told = correlated("accuracy and agreement", correlation, interval, len(drawn))
    if np.isnan(correlation):
        told = f"{models}: too few, or too much alike, for a rank correlation"
    sheet.title(f"{board.method_label.iloc[0]}: {told}\n{_counts(board)}")
    ax.grid()
    missing = [f"accuracy unknown ({len(without)}):", *without.label] if len(without) else []
    keys = [*_keys(drawn), *(Line2D([], [], ls="none", label=text) for text in missing)]
    sheet.legend(keys, beside=True)  # first, as it takes room from the panel
    numbered = label_points(sheet, ax, points, _labels(drawn), bars)
    if numbered:
        sheet.legend([*numbered, *keys], beside=True)
    return sheet.shown
