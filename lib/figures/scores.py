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
import seaborn as sns
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
    Size,
    cautious,
    colour_of,
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

_HOLLOW = "hollow: not surely above the strongest of these maps"


def _errors(frame: pd.DataFrame, column: str) -> np.ndarray:
    return np.abs(frame[["low", "high"]].to_numpy().T - frame[column].to_numpy())


def _counts(frame: pd.DataFrame) -> str:
    low, high = frame.n.min(), frame.n.max()
    number = f"{low}" if low == high else f"{low}–{high}"
    return f"n = {number} images{cautious(low)}, {frame.protocol.iloc[0]} protocol"


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
    """A model's mark with its bars, in its colour, named for the legend."""
    ax.errorbar(
        x, y, **errors, fmt="o", ms=large(), color=colour_of(key), markeredgecolor="0.2",
        markeredgewidth=thick(0.35), capsize=large(0.33), elinewidth=thick(0.7), label=label,
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
    high = min(4.6, 0.8 * width_of(6.8, size, ax=ax) + 1.2)
    sheet = lay_out((6.8, high), size=size, ax=ax)
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
    side, unit = min(sheet.panel, 4.0), score_unit(arranged)
    ax.set_xlabel(wrapped(f"score {forms[0]}\n({unit})", side))
    ax.set_ylabel(wrapped(f"score {forms[1]}\n({unit})", side))
    sheet.title(
        f"{panel_name(arranged.panel.iloc[0])}:\nabove the dashed line: {forms[1]} scores higher"
    )
    sheet.legend(title=f"{_counts(first)},\nbars: 95 % interval", beside=True)
    return sheet.shown


_CONTROL_LINES = {
    "mean_human": ("#D55E00", "-"), "centre": ("#009E73", "--"), "other_human": ("0.1", ":"),
    "random": ("0.55", "-."),
}  # fmt: skip


def draw_controls(
    ax: Axes, controls: pd.DataFrame, labels: Mapping[str, str], upright: bool
) -> list[Line2D]:
    """A line per control; a band where backbones are compared with other parts of the maps."""
    known = [key for key in _CONTROL_LINES if key in set(controls.control)]
    new = [key for key in controls.control.unique() if key not in _CONTROL_LINES]
    band, line = (ax.axhspan, ax.axhline) if upright else (ax.axvspan, ax.axvline)
    drawn = []
    for number, key in enumerate([*known, *new]):
        colour, style = _CONTROL_LINES.get(key, (f"C{number}", "-"))
        chosen = controls[controls.control == key]
        band(chosen.low.min(), chosen.high.max(), color=colour, alpha=0.12, lw=0, zorder=0)
        drawn.append(line(chosen.score.mean(), color=colour, ls=style, lw=thick(0.7), zorder=1,
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
        told = f"  ({_counts(shown)}; bars: 95 % interval)" if columns == 1 else ""
        sheet.panel_title(ax, subject(arranged) + panel_name(panel) + told)
        (ax.axhline if upright else ax.axvline)(0, color="0.3", lw=thick(0.45))
        lines = draw_controls(ax, controls, labels, upright)
        ax.grid(axis="y" if upright else "x")
    reachable = arranged.reachable.dropna()
    bounds = "1: as much as people agree; a perfect model may reach "
    bounds = f";\n{bounds}{reachable.max():.2f}" if len(reachable) else ""
    (sheet.left if upright else sheet.below)(f"score ({score_unit(arranged)}){bounds}")
    keys = [
        Rectangle((0, 0), 1, 1, facecolor="0.6", edgecolor="0.25", label=form, **style)
        for form, style in zip(forms, _looks(len(forms)), strict=True)
    ]
    told = f"lines: maps that no network made; bands: their 95 % intervals; {_HOLLOW}"
    told = told if columns == 1 else f"{_counts(arranged)}; bars: 95 % interval; {told}"
    sheet.legend([*keys, *lines], told)
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
            colour = colour_of(some.backbone.iloc[0]) if len(groups) > 1 else "#0072B2"
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
        sheet.panel_title(ax, f"{subject(table)}{panel_name(panel)}\n{_counts(shown)}")
        if (table["at"] % 1 == 0).all():
            ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        ax.grid(axis="y")
    sheet.below(comparison.axis, "medium")
    sheet.left(f"score ({score_unit(table)}; bars: 95 % interval)")
    across = {line.get_label() for line in lines}
    handles, names = sheet.only.get_legend_handles_labels()
    drawn = [h for h, name in zip(handles, names, strict=True) if name not in across]
    sheet.legend([*(drawn if len(groups) > 1 else []), *lines],
                 "lines across: maps that no network made; bands: 95 %")  # fmt: skip
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
    sheet = lay_out((3.4 * len(panels) + 1.4, max(high, 2.0)), 1, len(panels), sharex=True,
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
                capsize=large(0.33), elinewidth=thick(0.7), color=f"C{index}",
                label=_counts(frame).replace(", ", "\n"),
            )  # fmt: skip
    for ax, title in zip(sheet.axes[0], panels, strict=True):
        ax.set_title(title)
        ax.grid(axis="x")
        ax.locator_params(axis="x", nbins=4 if sheet.panel < 2 else 6)
    sheet.only.invert_yaxis()
    sheet.below(f"score ({score_unit(arranged)})", "medium")
    sheet.above(
        f"{panel_name(arranged.panel.iloc[0])}: how much of a score is the protocol? "
        "(95 % intervals)"
    )
    sheet.legend(beside=True)
    return sheet.shown


def plot_size_against_score(
    models: pd.DataFrame, correlation: float, *, size: Size = None, ax: Axes | None = None
) -> Figure:
    """Number of learnable parameters against score, a point per model.

    models      : rows of one panel and protocol, `lib.scores.results.one_of_each`; and
                  `parameters_millions`
    correlation : `lib.scores.results.size_correlation`, for the title; NaN if there is none
    """
    sheet = lay_out((6.8, 3.8), size=size, ax=ax)
    ax = sheet.only
    for row, error in zip(models.itertuples(), _errors(models, "score").T, strict=True):
        _point(ax, row.parameters_millions, row.score, row.backbone, row.model,
               yerr=error[:, None])  # fmt: skip
    ax.set_xlabel(wrapped("learnable parameters (millions)", sheet.panel))
    ax.set_ylabel(wrapped(f"score\n({score_unit(models)})", min(sheet.panel, 3.4)))
    ax.locator_params(nbins=6)
    told = f"rank correlation of size and score {correlation:+.2f} over {len(models)} models"
    if np.isnan(correlation):
        told = "too few models for a rank correlation of size and score"
    sheet.title(f"{panel_name(models.panel.iloc[0])}\n{told}")
    sheet.legend(title=f"{_counts(models)},\nbars: 95 % interval", beside=True)
    ax.grid()
    return sheet.shown


def plot_rho_distributions(
    arranged: pd.DataFrame, scores: pd.DataFrame, *, size: Size = None, ax: Axes | None = None
) -> Figure:
    """How the correlation spreads over images: a violin per model, the two of a pair as halves.

    arranged : of one panel and protocol
    scores   : the per-image table of `lib.scores.study_scores.score_study`; `variant, method,
               image_id, rho`, of the same protocol; invalid maps (`rho` missing) are left out
    """
    forms, (table, names) = shared_forms(arranged), slotted(arranged)
    of = table[["variant", "method", "slot", "form", "place"]]
    valid = scores.loc[scores.rho.notna(), ["variant", "method", "rho"]]
    shown = of.merge(valid, on=["variant", "method"])
    shown = pd.DataFrame(
        {
            "name": [names[slot] for slot in shown.slot],
            "rho": shown.rho.to_numpy(),
            "": shown.form.where(shown.form != "", forms[0] if forms else "").to_numpy(),
        }
    )
    by_form = {"hue": "", "hue_order": forms, "split": len(forms) == 2, "gap": 0.08}
    two = dict(zip(forms, ("0.8", DCLS_COLOUR), strict=False))
    by_form["palette"] = two if len(forms) == 2 else "colorblind"
    many = len(names) * max(len(forms) / 2, 1)
    upright = _stand(names, max(many, 1), 0.85 * width_of(7.2, size, ax=ax))
    high = 3.4 if upright else row_of(0.3) * many + 1.2
    sheet = lay_out((7.2, high), size=size, ax=ax)
    ax = sheet.only
    places = {"x": "name", "y": "rho"} if upright else {"x": "rho", "y": "name"}
    sns.violinplot(
        shown, **places, order=names, inner="quart", cut=0, density_norm="width",
        linewidth=thick(0.57), ax=ax, **by_form if forms else {"color": "0.8"},
    )  # fmt: skip
    if upright:
        sheet.names_along_x(ax, names)
        ax.axhline(0, color="0.3", lw=thick(0.45))
        ax.set(xlabel="", ylabel="Spearman ρ of one image")
    else:
        sheet.names_along_y(ax, names, row_of(0.3))
        ax.axvline(0, color="0.3", lw=thick(0.45))
        ax.set(ylabel="", xlabel="Spearman ρ of one image")
    number = span(table.n)
    sheet.title(
        f"{subject(arranged)}{panel_name(arranged.panel.iloc[0])}: n = {number} images a violin; "
        "dashed: quartiles"
    )
    made = ax.get_legend()
    if made is not None:  # none where no map is valid
        handles = made.legend_handles
        made.remove()
        sheet.legend(handles)
    return sheet.shown
