"""Figures of a comparison: each function takes finished data and returns a figure.

Nothing here computes a score, reads a file or writes one; `lib.figures.saving.save_figure`
writes. Colours and labels come from the tables, fonts and lines from matplotlib's style.

The data is what `lib.scores.results.arrange` makes: a row per model and method at its place in
the study's comparison (`panel, group, place, form, model, shared, at, backbone, protocol`), with
its `score, low, high, n, ceiling`. Columns that a figure needs besides stand at the figure.

Every function takes, by name, `size`: (width, height) in inches; without a height (None) the
figure is as high as it needs to be. Those of one panel take `ax` instead, an Axes to draw in, of
which nothing outside is touched; those of several take `fig`, a Figure or SubFigure with
`layout="constrained"`. All return the whole Figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ..maps.methods import METHODS
from ..study.comparisons import Comparison
from .style import (
    DCLS_COLOUR,
    MARKS,
    PALETTE,
    PLAIN_COLOUR,
    Size,
    cautious,
    colour_of,
    label_points,
    large,
    lay_out,
    row_of,
    score_unit,
    span,
    text_width,
    thick,
    width_of,
    wrapped,
)


def _errors(frame: pd.DataFrame, column: str) -> np.ndarray:
    return np.abs(frame[["low", "high"]].to_numpy().T - frame[column].to_numpy())


def _counts(frame: pd.DataFrame) -> str:
    low, high = frame.n.min(), frame.n.max()
    number = f"{low}" if low == high else f"{low}–{high}"
    return f"n = {number} images{cautious(low)}, {frame.protocol.iloc[0]} protocol"


def _told(frame: pd.DataFrame) -> str:
    """The line below a title: how many images, of which protocol, and what the bars are."""
    return f"{_counts(frame)}; error bars: 95 % intervals"


def panels_of(arranged: pd.DataFrame) -> list[str]:
    """The panels' keys, methods in the order of their table; "" where forms are methods."""
    there = set(arranged.panel)
    return [key for key in METHODS if key in there] or [""]


def panel_name(panel: str) -> str:
    """What a panel is of."""
    return METHODS[panel].label if panel else "CAM methods"


def subject(table: pd.DataFrame) -> str:
    """The group that all rows are of, to begin a title with, where rows are named by their forms
    alone; else nothing."""
    groups = table.group.unique()
    return f"{groups[0]}: " if len(groups) == 1 and (table.form != "").all() else ""


def shared_forms(arranged: pd.DataFrame) -> list[str]:
    """The forms that stand side by side in every group, in their order; none where they do not."""
    several = arranged[arranged.group.isin(arranged.group[arranged.place > 0])]
    if several.empty or not several.shared.all():
        return []
    return list(dict.fromkeys(several.sort_values("place", kind="stable").form))


def slotted(arranged: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table with `slot`, its row's place along an axis of names, and `shift`, how far beside
    it lies in 1 / slot; and the names. A slot is a group whose forms are shared, else a model."""
    forms = shared_forms(arranged)
    if forms:
        names = list(dict.fromkeys(arranged.group))
        alone = ~arranged.group.isin(arranged.group[arranged.place > 0])
        beside = (arranged.place - (len(forms) - 1) / 2) * 0.8 / len(forms)
        shift = np.where(alone, 0.0, beside)
        slots = [names.index(group) for group in arranged.group]
        return arranged.assign(slot=slots, shift=shift), names
    named = row_names(arranged)
    names = list(dict.fromkeys(named))
    return arranged.assign(slot=[names.index(name) for name in named], shift=0.0), names


def row_names(table: pd.DataFrame) -> list[str]:
    """What each row is called on an axis of its own: its form, with its group where there are
    several groups; its group where it is alone."""
    many = table.groupby("group").form.nunique()
    several = (many > 1).sum() > 1
    return [
        group
        if not form or (many[group] < 2 and form == group)
        else f"{group}: {form}"
        if several
        else form
        for group, form in zip(table.group, table.form, strict=True)
    ]


def _colours(arranged: pd.DataFrame) -> list[str]:
    """Of each row: its group's first model's where forms are shared, else its own."""
    own = pd.Series([colour_of(key) for key in arranged.backbone], index=arranged.index)
    if not shared_forms(arranged):
        return [*own]
    first = own[arranged.place == 0].groupby(arranged.group[arranged.place == 0]).first()
    return [first.get(group, colour) for group, colour in zip(arranged.group, own, strict=True)]


def _point(ax: Axes, x: float, y: float, key: str, label: str, **errors: np.ndarray) -> None:
    """A model's mark with its bars, in its colour."""
    ax.errorbar(
        x, y, **errors, fmt="o", ms=large(0.9), color=colour_of(key), ecolor="0.45",
        markeredgecolor="0.2", markeredgewidth=thick(0.35), elinewidth=thick(0.6), label=label,
    )  # fmt: skip


def plot_pairs(
    arranged: pd.DataFrame, comparison: Comparison, *, size: Size = None, ax: Axes | None = None
) -> Figure:
    """A point per pair: the score of its first model (x) against that of its second (y).

    arranged : of one panel and protocol
    Raises ValueError where the comparison is not of pairs of the same two forms.
    """
    forms = shared_forms(arranged)
    if len(forms) != 2:
        raise ValueError(f"{comparison.label}: these are no pairs of the same two forms")
    first, second = (arranged[arranged.place == p].set_index("group") for p in (0, 1))
    first = first.loc[second.index]
    wide = width_of(4.6, size, ax=ax)
    sheet = lay_out((4.6, min(4.4, wide - 0.2)), size=size, ax=ax)
    ax = sheet.only
    for group, x_error, y_error in zip(
        second.index, _errors(first, "score").T, _errors(second, "score").T, strict=True
    ):
        _point(ax, first.score[group], second.score[group], first.backbone[group], group,
               xerr=x_error[:, None], yerr=y_error[:, None])  # fmt: skip
    ends = [*ax.get_xlim(), *ax.get_ylim()]
    limits = (min(ends), max(ends))
    ax.plot(limits, limits, ls="--", color="0.5", lw=thick(0.7), zorder=0)
    ax.set(xlim=limits, ylim=limits, aspect="equal")
    ax.locator_params(nbins=5)
    unit = score_unit(arranged)
    for name, form in (("x", forms[0]), ("y", forms[1])):
        ax.set(**{f"{name}label": wrapped(f"score {form} ({unit})", min(sheet.panel, 4.0))})
    sheet.title(f"{panel_name(arranged.panel.iloc[0])}\n{_told(first)}")
    bars = [
        box
        for x, y, a, b in zip(first.score, second.score, first.index, second.index, strict=True)
        for box in (
            (first.low[a], y, first.high[a], y), (x, second.low[b], x, second.high[b])
        )
    ]  # fmt: skip
    points = [*zip(first.score, second.score, strict=True)]
    sheet.legend(label_points(sheet, ax, points, [*second.index], bars), beside=True)
    return sheet.shown


# Grey and black, because colours mean models.
_CONTROL_LINES = {
    "mean_human": ("0.0", "-"), "centre": ("0.0", (0, (4, 2))),
    "other_human": ("0.0", (0, (1, 1.5))), "random": ("0.55", "-"),
}  # fmt: skip
_FURTHER_LINES = (("0.55", (0, (4, 2))), ("0.55", (0, (1, 1.5))), ("0.3", (0, (6, 2, 1, 2))))


def draw_controls(
    ax: Axes, controls: pd.DataFrame, labels: Mapping[str, str], upright: bool
) -> list[Line2D]:
    """A line per control; a band where backbones are compared with other parts of the maps."""
    known = [key for key in _CONTROL_LINES if key in set(controls.control)]
    new = [key for key in controls.control.unique() if key not in _CONTROL_LINES]
    band, line = (ax.axhspan, ax.axhline) if upright else (ax.axvspan, ax.axvline)
    drawn = []
    for number, key in enumerate([*known, *new]):
        further = _FURTHER_LINES[(number - len(known)) % len(_FURTHER_LINES)]
        colour, style = _CONTROL_LINES.get(key, further)
        chosen = controls[controls.control == key]
        band(chosen.low.min(), chosen.high.max(), color="0.5", alpha=0.18, lw=0, zorder=0)
        drawn.append(line(chosen.score.mean(), color=colour, ls=style, lw=thick(0.65), zorder=1,
                          label=labels.get(key, key)))  # fmt: skip
    return drawn


_SLIMMEST = 0.17  # inches of an upright pair of bars at 9 points; slimmer ones lie


def plot_score_bars(
    arranged: pd.DataFrame,
    controls: pd.DataFrame,
    labels: Mapping[str, str],
    comparison: Comparison,
    *,
    size: Size = None,
    fig: FigureBase | None = None,
    ax: Axes | None = None,
) -> Figure:
    """A bar per model, one panel per method; the forms of a group side by side where all groups
    have the same.

    The bars lie where the figure is too narrow for names below upright ones.

    arranged : of one protocol; and `reachable, above_control`
    controls : of the same protocol, as `summarise_controls` makes them; `control, score, low, high`
    labels   : {control: as it is called in the legend}
    ax       : for the rows of one panel
    """
    panels, (table, names) = panels_of(arranged), slotted(arranged)
    forms = shared_forms(arranged)
    bars = len(names) * max(len(forms), 1) / 2
    columns = 1 if len(panels) <= _MOST_IN_A_COLUMN else 3
    rows = -(-len(panels) // columns)
    upright = _stand(names, bars, 0.85 * width_of(7.2, size, fig, ax) / columns)
    if not upright and 1 < len(panels) <= 3 and width_of(7.2, size, fig, ax) > 6:
        columns, rows = len(panels), 1  # lying bars need height more than width
    row = row_of(0.1 * max(len(forms), 2))
    high = 2.3 if upright else row * len(names) + 0.6
    sheet = lay_out((7.2, high * rows + 1.2), rows, columns, sharex=True, sharey=True,
                    size=size, fig=fig, ax=ax)  # fmt: skip
    for ax in sheet.axes[-1] if upright else ():
        sheet.names_along_x(ax, names)
    for ax in sheet.axes[:, 0] if not upright else ():
        sheet.names_along_y(ax, names, row)
    for ax in sheet.axes.flat[len(panels) :]:
        ax.set_axis_off()
    lines: list[Line2D] = []
    for ax, panel in zip(sheet.axes.flat, panels, strict=False):
        shown = table[table.panel == panel]
        _draw_bars(ax, shown, forms, upright)
        ends = (-0.6, len(names) - 0.4)
        ax.set(**{"xlim": ends} if upright else {"ylim": ends[::-1]})
        told = f"  ({_told(shown)})" if columns == 1 else ""
        sheet.panel_title(ax, subject(arranged) + panel_name(panel) + told)
        (ax.axhline if upright else ax.axvline)(0, color="0.3", lw=thick(0.45))
        lines = draw_controls(ax, controls, labels, upright)
        ax.grid(axis="y" if upright else "x")
    (sheet.left if upright else sheet.below)(f"score ({score_unit(arranged)})", "medium")
    keys = [
        Rectangle((0, 0), 1, 1, facecolor="0.6", edgecolor="0.25", label=form, **style)
        for form, style in zip(forms, _looks(len(forms)), strict=True)
    ]
    if not table.above_control.all():
        keys.append(Rectangle((0, 0), 1, 1, facecolor="none", edgecolor="0.25",
                              label="not significantly above the controls"))  # fmt: skip
    sheet.legend([*keys, *lines], "" if columns == 1 else _told(arranged))
    return sheet.shown


def _stand(names: Sequence[str], bars: float, width: float) -> bool:
    """Whether so many pairs of bars can stand over these names, at 45° at most, in such a width;
    long names take two lines."""
    line = row_of(0.16)
    lines = 2 if max(map(text_width, names), default=0) > 12 * line else 1
    roomy = 0.7 * width / max(len(names), 1) > lines * line
    fit = max(map(text_width, names), default=0) < 0.9 * width / max(len(names), 1)
    return width / bars > row_of(_SLIMMEST) and (roomy or fit)


_MOST_IN_A_COLUMN = 4  # panels
_HATCHES = ("", "//", "..", "xx", "\\\\", "++", "--", "oo")


def _looks(count: int) -> list[dict]:
    """How the bars of so many forms of a group look, by their places."""
    if count < 2:
        return [{"alpha": 0.8}] * count
    if count == 2:
        return [{"alpha": 0.45}, {"alpha": 1.0, "hatch": "//"}]
    alphas = np.linspace(0.35, 1, count)
    return [{"alpha": a, "hatch": _HATCHES[i % len(_HATCHES)]} for i, a in enumerate(alphas)]


def _draw_bars(ax: Axes, shown: pd.DataFrame, forms: Sequence[str], upright: bool) -> None:
    """One panel's bars."""
    draw, across = (ax.bar, "yerr") if upright else (ax.barh, "xerr")
    wide = 0.76 / max(len(forms), 1) if forms else 0.6
    looks = _looks(max(len(forms), 1))
    shown = shown.assign(colour=_colours(shown))
    for place, frame in shown.groupby("place" if forms else np.zeros(len(shown))):
        bars = draw(
            frame.slot + frame["shift"], frame.score, wide,
            **{across: _errors(frame, "score")}, **looks[int(place)], edgecolor="0.25",
            color=[*frame.colour], linewidth=thick(0.35), capsize=large(0.33),
            error_kw={"elinewidth": thick(0.7)},
        )  # fmt: skip
        for bar, colour, above in zip(bars, frame.colour, frame.above_control, strict=True):
            if not above:
                bar.set(facecolor="none", edgecolor=colour, linewidth=thick(0.85))


def plot_along(
    arranged: pd.DataFrame,
    controls: pd.DataFrame,
    labels: Mapping[str, str],
    comparison: Comparison,
    *,
    size: Size = None,
    fig: FigureBase | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Score along the comparison's axis: a line per group, a panel per method.

    arranged, controls, labels : as for `plot_score_bars`; models without a place on the axis are
                                 left out
    """
    panels, table = panels_of(arranged), arranged[arranged["at"].notna()]
    groups = list(dict.fromkeys(table.group))
    wide = width_of(7.2, size, fig, ax)
    stacked = wide / len(panels) < 2.8
    rows, columns = (len(panels), 1) if stacked else (1, len(panels))
    sheet = lay_out((3.6 * columns + 0.6, 2.8 * rows + 1.2), rows, columns, sharex=True,
                    sharey=True, size=size, fig=fig, ax=ax)  # fmt: skip
    lines: list[Line2D] = []
    for ax, panel in zip(sheet.axes.flat, panels, strict=True):
        lines = draw_controls(ax, controls, labels, upright=True)
        for number, group in enumerate(groups):
            some = table[(table.panel == panel) & (table.group == group)].sort_values("at")
            if some.empty:
                continue
            colour = colour_of(some.backbone.iloc[0]) if len(groups) > 1 else DCLS_COLOUR
            ax.errorbar(
                some["at"], some.score, yerr=_errors(some, "score"), color=colour,
                marker=MARKS[number % len(MARKS)], ms=large(0.75), capsize=large(0.33),
                elinewidth=thick(0.7), lw=thick(0.9), label=group,
            )  # fmt: skip
            if len(some) == len(groups) == 1 or comparison.along == "at":
                continue
            for row in some.itertuples():  # each is a model of its own
                ax.annotate(row.form, (row.at, row.score), xytext=(3, 3), fontsize="x-small",
                            textcoords="offset points")  # fmt: skip
        shown = table[table.panel == panel]
        sheet.panel_title(ax, f"{subject(table)}{panel_name(panel)}\n{_told(shown)}")
        if (table["at"] % 1 == 0).all():
            ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        ax.grid(axis="y")
    sheet.below(comparison.axis, "medium")
    sheet.left(f"score ({score_unit(table)})", "medium")
    across = {line.get_label() for line in lines}
    handles, names = sheet.only.get_legend_handles_labels()
    drawn = [h for h, name in zip(handles, names, strict=True) if name not in across]
    sheet.legend([*(drawn if len(groups) > 1 else []), *lines])
    return sheet.shown


_PROTOCOL_MARKS = ("o", "s", "^", "v", "D", "P")


def plot_protocols(
    arranged: pd.DataFrame, *, size: Size = None, fig: FigureBase | None = None
) -> Figure:
    """A row per group or model: its score under each reading protocol; a panel per form where all
    groups have the same two.

    arranged : of one panel, of all protocols
    """
    protocols = list(dict.fromkeys(arranged.protocol))
    forms = shared_forms(arranged)
    panels = forms if len(forms) == 2 else [""]
    table, names = slotted(arranged)
    if len(panels) == 2:  # in panels of their own, forms need no room beside one another
        table["shift"] = 0.0
    per_row = max(0.31, 0.1 * len(protocols)) * (len(forms) if len(forms) > 2 else 1)
    high = row_of(per_row) * len(names) + 1.1
    sheet = lay_out((2.7 * len(panels) + 1.8, max(high, 2.0)), 1, len(panels), sharex=True,
                    sharey=True, size=size, fig=fig)  # fmt: skip
    sheet.names_along_y(sheet.only, names, high / max(len(names), 1))
    for index, protocol in enumerate(protocols):
        shift = 0.54 / len(protocols) * (index - (len(protocols) - 1) / 2)
        for place, ax in enumerate(sheet.axes[0]):
            frame = table[table.protocol == protocol]
            if len(panels) == 2:
                frame = frame[frame.place == place]
            if frame.empty:
                continue
            ax.errorbar(
                frame.score, frame.slot + frame["shift"] + shift, xerr=_errors(frame, "score"),
                ls="none", fmt=_PROTOCOL_MARKS[index % len(_PROTOCOL_MARKS)], ms=large(0.67),
                capsize=large(0.33), elinewidth=thick(0.7), color=PALETTE[index % len(PALETTE)],
                label=_counts(frame).replace(", ", "\n"),
            )  # fmt: skip
    for ax, title in zip(sheet.axes[0], panels, strict=True):
        ax.set_title(title)
        ax.grid(axis="x")
        ax.locator_params(axis="x", nbins=4 if sheet.panel < 2 else 6)
    sheet.only.invert_yaxis()
    sheet.below(f"score ({score_unit(arranged)})", "medium")
    sheet.above(f"{panel_name(arranged.panel.iloc[0])}; error bars: 95 % intervals")
    sheet.legend()
    return sheet.shown


def plot_size_against_score(
    models: pd.DataFrame,
    correlation: float,
    interval: tuple[float, float] | None = None,
    *,
    size: Size = None,
    ax: Axes | None = None,
) -> Figure:
    """Number of learnable parameters against score, a named point per model.

    models      : rows of one panel and protocol, `lib.scores.results.one_of_each`; and
                  `parameters_millions`
    correlation : `lib.scores.results.size_correlation`, for the title; NaN if there is none
    interval    : the correlation's, `lib.scores.statistics.correlation_interval`
    """
    sheet = lay_out((4.6, 3.6), size=size, ax=ax)
    ax = sheet.only
    for row, error in zip(models.itertuples(), _errors(models, "score").T, strict=True):
        _point(ax, row.parameters_millions, row.score, row.backbone, row.model,
               yerr=error[:, None])  # fmt: skip
    ax.set_xlabel(wrapped("learnable parameters (millions)", sheet.panel))
    ax.set_ylabel(wrapped(f"score ({score_unit(models)})", min(sheet.panel, 3.0)))
    ax.locator_params(nbins=6)
    ax.margins(0.12)
    told = correlated("size and score", correlation, interval, len(models))
    sheet.title(f"{panel_name(models.panel.iloc[0])}: {told}\n{_told(models)}")
    ax.grid()
    points = [*zip(models.parameters_millions, models.score, strict=True)]
    bars = [(x, low, x, high) for (x, _), low, high in zip(points, models.low, models.high,
                                                           strict=True)]  # fmt: skip
    sheet.legend(label_points(sheet, ax, points, [*models.model], bars), beside=True)
    return sheet.shown


def correlated(
    what: str, correlation: float, interval: tuple[float, float] | None, models: int
) -> str:
    """A rank correlation over models in words, with its 95 % interval where there is one."""
    if np.isnan(correlation):
        return f"too few models for a rank correlation of {what}"
    ends = ""
    if interval is not None and not np.isnan(interval).any():
        ends = " (95 % interval {} to {})".format(*map(_signed, interval))
    return f"rank correlation of {what} {_signed(correlation)}{ends} over {models} models"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def plot_rho_distributions(
    arranged: pd.DataFrame, scores: pd.DataFrame, *, size: Size = None, ax: Axes | None = None
) -> Figure:
    """How the agreement spreads over images: a violin per model, the two of a pair as halves; of
    fewer than 30 images a mark for each.

    arranged : of one panel and protocol
    scores   : the per-image table of `lib.scores.study_scores.score_study`; `variant, method,
               image_id, rho`, of the same protocol; invalid maps (`rho` missing) are left out
    """
    forms, (table, names) = shared_forms(arranged), slotted(arranged)
    of = {key: rows.rho.dropna().to_numpy()
          for key, rows in scores.groupby(["variant", "method"], observed=True)}  # fmt: skip
    many = len(names) * max(len(forms) / 2, 1)
    upright = _stand(names, max(many, 1), 0.85 * width_of(7.2, size, ax=ax))
    high = 3.2 if upright else row_of(0.34) * many + 1.2
    sheet = lay_out((7.2, high), size=size, ax=ax)
    ax = sheet.only
    two = (PLAIN_COLOUR, DCLS_COLOUR)
    for row in table.itertuples():
        rho = of.get((row.variant, row.method), np.empty(0))
        number = forms.index(row.form) if row.form in forms else 0
        colour = two[number] if len(forms) == 2 else PALETTE[number % len(PALETTE)]
        side = ("low", "high")[number] if len(forms) == 2 else "both"
        away = 0.0 if len(forms) == 2 else row.shift
        _spread(ax, row.slot + away, rho, colour if forms else PLAIN_COLOUR, side,
                0.8 / max(len(forms), 1) if len(forms) != 2 else 0.8, upright)  # fmt: skip
    ends, label = (-0.6, len(names) - 0.4), "agreement ρ of one image"
    if upright:
        sheet.names_along_x(ax, names)
        ax.axhline(0, color="0.3", lw=thick(0.45))
        ax.set(xlim=ends, xlabel="", ylabel=label)
    else:
        sheet.names_along_y(ax, names, row_of(0.34))
        ax.axvline(0, color="0.3", lw=thick(0.45))
        ax.set(ylim=ends[::-1], ylabel="", xlabel=label)
    number = span(table.n)
    sheet.title(
        f"{subject(arranged)}{panel_name(arranged.panel.iloc[0])}: n = {number} images a model; "
        f"thick: middle half; white: median"
    )
    colours = two if len(forms) == 2 else PALETTE
    sheet.legend([Rectangle((0, 0), 1, 1, facecolor=colour, alpha=0.5, label=form)
                  for form, colour in zip(forms, colours, strict=False)])  # fmt: skip
    return sheet.shown


_FEWEST_OF_A_CURVE = 30  # images; of fewer each is a mark, as a smooth curve would invent some


def _spread(
    ax: Axes, at: float, values: np.ndarray, colour: str, side: str, wide: float, upright: bool
) -> None:
    """One model's distribution at its place: a smooth outline, or each image where they are few;
    with its median and middle half.

    side : "low", "high" or "both" of its place
    """
    if not len(values):
        return
    shift = {"low": -0.1, "high": 0.1, "both": 0.0}[side] * wide
    if len(values) >= _FEWEST_OF_A_CURVE and np.ptp(values) > 0:
        made = ax.violinplot([values], [at], orientation="vertical" if upright else "horizontal",
                             widths=wide, side=side, showextrema=False)  # fmt: skip
        made["bodies"][0].set(facecolor=colour, alpha=0.45, edgecolor=colour, lw=thick(0.35))
    else:  # side by side without chance: in the order of their values
        away = {"low": (-0.45, -0.2), "high": (0.2, 0.45), "both": (-0.3, 0.3)}[side]
        order = np.argsort(np.argsort(values, kind="stable"))
        places = at + wide * (away[0] + (away[1] - away[0]) * (order * 0.618 % 1))
        ax.plot(*((places, values) if upright else (values, places)), "o", ms=large(0.3),
                color=colour, alpha=0.7, mew=0)  # fmt: skip
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    place = at + shift
    ax.plot(*(([place] * 2, [low, high]) if upright else ([low, high], [place] * 2)), color="0.15",
            lw=thick(2.0), solid_capstyle="butt")  # fmt: skip
    ax.plot(*((place, middle) if upright else (middle, place)), "o", color="white", mec="0.15",
            ms=large(0.5), mew=thick(0.4))  # fmt: skip
