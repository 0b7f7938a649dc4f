"""Figures of the statistics and controls that the paper does not have; as `lib.figures.scores`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D

from ..maps.methods import METHODS, RANDOM_CAM
from ..networks.backbones import BACKBONES
from ..study.comparisons import Comparison
from ..study.rules import RULES
from .scores import panel_name, panels_of, row_names, subject
from .style import (
    DCLS_COLOUR,
    PALETTE,
    PLAIN_COLOUR,
    Size,
    asked_colour,
    cautious,
    enough,
    error_bars,
    form_labels,
    label_points,
    large,
    lay_out,
    methods_of,
    panels_across,
    plot_nothing,
    row_of,
    score_unit,
    span,
    text_width,
    thick,
    width_of,
)

_IN_CELLS = "x-small"  # numbers in the cells of a matrix


def _present(keys: Sequence[str]) -> list[str]:
    known = set(keys)
    return [key for key in BACKBONES if key in known]


def _models(table: pd.DataFrame) -> list[tuple[str, bool]]:
    """(backbone, dcls) of each model that a table has, in the order of the models' table."""
    there = set(zip(table.backbone, table.dcls.astype(bool), strict=True))
    return [(k, d) for k in _present(table.backbone) for d in (False, True) if (k, d) in there]


def _nothing(title: str, *, size: Size = None, ax: Axes | None = None) -> Figure:
    """In place of a figure that would show no number."""
    return plot_nothing(f"{title}: nothing to show.\nEvery heatmap is constant.", size=size, ax=ax)


def _short(table: pd.DataFrame) -> str:
    """What a score is, in few words."""
    known = table.ceiling.dropna()
    return f"ρ ÷ {known.mean():.3f}" if len(known) else "ρ"


def _n(values: pd.Series) -> str:
    if not len(values.dropna()):
        return "n = 0"
    return f"n = {span(values)}"


def _cautious(n: pd.Series) -> str:
    fewest = RULES.fewest_images
    return f", cautious because of fewer than {fewest} images" if n.min() < fewest else ""


def plot_paired_differences(
    paired: pd.DataFrame,
    differences: pd.DataFrame,
    comparison: Comparison,
    *,
    size: Size = None,
    fig: FigureBase | None = None,
) -> Figure:
    """A row per pair, a panel per method: how the score changes from the first model to the later.

    paired      : `paired_differences` of one protocol; `panel, group, form, backbone, protocol,
                  difference, low, high, n_paired, p_holm, decision, ceiling`
    differences : `per_image_differences` of the same; `panel, group, form, difference`
    Raises ValueError where there is no pair.
    """
    if paired.empty:
        raise ValueError(f"{comparison.label}: there is no pair to compare")
    panels = panels_of(paired)
    named = (
        [*paired.group] if comparison.shared and paired.form.nunique() == 1 else row_names(paired)
    )
    paired, order = paired.assign(row=named), list(dict.fromkeys(named))
    stacked = width_of(7.2, size, fig) / len(panels) < 2.3  # then one panel below the other
    rows, columns = (len(panels), 1) if stacked else (1, len(panels))
    high = row_of(0.27) * len(order) + 0.5
    sheet = lay_out((min(3.7 * columns + 0.6, 7.2), high * rows + 1.0), rows, columns, sharey=True,
                    sharex=True, size=size, fig=fig)  # fmt: skip
    for ax in sheet.axes[:, 0]:
        sheet.names_along_y(ax, order, row_of(0.27))
    alike = False
    of = {key: rows.difference for key, rows in differences.groupby(["panel", "group", "form"])}
    for ax, panel in zip(sheet.axes.flat, panels, strict=True):
        of_panel = paired[paired.panel == panel]
        for row in of_panel.itertuples():
            if not row.n_paired:
                continue
            place = order.index(row.row)
            ends = of[panel, row.group, row.form].quantile([0.25, 0.75])
            ax.plot(ends, [place, place], color="0.7", lw=thick(0.7), zorder=1)
            sure = row.p_holm < RULES.alpha
            small = "little" in row.decision or row.decision == "equivalent"
            alike |= small
            colour = "0.6" if small else asked_colour(row.backbone, DCLS_COLOUR)
            ax.errorbar(
                row.difference, place,
                xerr=[[row.difference - row.low], [row.high - row.difference]],
                fmt="o", color=colour, elinewidth=thick(1.8), capsize=large(0.67), ms=large(0.75),
                markerfacecolor=colour if sure else "white", markeredgecolor="0.2",
                markeredgewidth=thick(0.57), zorder=2,
            )  # fmt: skip
        ax.axvline(0, color="0.3", lw=thick(0.57), ls="--", zorder=0)
        few = cautious(of_panel.n_paired.min())
        sheet.panel_title(ax, f"{subject(paired)}{panel_name(panel)}\n"
                              f"{_n(of_panel.n_paired)} images{few}, "
                              f"{of_panel.protocol.iloc[0]} protocol")  # fmt: skip
        ax.grid(axis="x")
    sheet.only.set_ylim(len(order) - 0.5, -0.5)
    first = paired["first"].unique() if "first" in paired else ()
    change = f"{comparison.change} ({first[0]})" if len(first) == 1 else comparison.change
    sheet.below(
        f"{change}: change of the score ({score_unit(paired)})",
        "medium",
    )
    dark = {"color": DCLS_COLOUR, "markeredgecolor": "0.2", "markeredgewidth": thick(0.57)}
    sheet.legend([
        Line2D([], [], lw=thick(1.8), color=DCLS_COLOUR, label="95 % interval of the mean"),
        Line2D([], [], lw=thick(0.7), color="0.7", label="middle half of the images"),
        Line2D([], [], ls="none", marker="o", ms=large(0.75), label="p < 0.05 (Holm)", **dark),
        Line2D([], [], ls="none", marker="o", ms=large(0.75), label="p ≥ 0.05",
               **dark | {"markerfacecolor": "white"}),
        *([Line2D([], [], lw=thick(1.8), color="0.6", label="too small to matter")] * alike),
    ])  # fmt: skip
    return sheet.shown


def plot_compared(compared: pd.DataFrame, *, size: Size = None, ax: Axes | None = None) -> Figure:
    """Every two models: the row's score less the column's; with a number where they differ, a dot
    where there is no room for numbers, ≈ where the difference is too small to matter, else "?".

    compared : as `compare_models` makes it, of one protocol; `first, second, first_label,
               second_label, methods, difference, decision, n_paired, protocol, ceiling`
    """
    if compared.empty or not compared.n_paired.any():
        return _nothing("Every two models", size=size, ax=ax)
    labels = dict(zip(compared["first"], compared.first_label, strict=True))
    labels |= dict(zip(compared["second"], compared.second_label, strict=True))
    place = {name: number for number, name in enumerate(labels)}
    names = [*labels.values()]
    grid = np.full((len(names), len(names)), np.nan)
    most = compared.difference.abs().max()
    wide = min(0.42 * len(names) + 3.2, 7.2)
    cell = min(0.42, 0.66 * width_of(wide, size, ax=ax) / len(names))
    roomy = cell > 1.05 * text_width("+.00", _IN_CELLS)
    sheet = lay_out((wide, cell * len(names) + 1.6), size=size, ax=ax)
    ax = sheet.only
    for row in compared.itertuples():
        first, second = place[row.first], place[row.second]
        grid[second, first], grid[first, second] = row.difference, -row.difference
        if np.isnan(row.difference):
            continue
        is_open = "undecided" in row.decision or "fewer" in row.decision
        for y, x, value in ((second, first, row.difference), (first, second, -row.difference)):
            alike = "little" in row.decision or row.decision == "equivalent"
            dark = abs(value) > 0.6 * most
            decided = "≈" if alike else _in_cell(value) if roomy else "·"
            ax.text(x, y, "?" if is_open else decided, ha="center", va="center",
                    fontsize=_IN_CELLS, color="white" if dark else "black")  # fmt: skip
    image = ax.imshow(grid, cmap="RdBu_r", vmin=-most or -1, vmax=most or 1,
                      aspect="equal" if roomy else "auto")  # fmt: skip
    sheet.names_along_x(ax, names, "x-small", upright=True)
    sheet.names_along_y(ax, names, cell, "x-small")
    sheet.scale(image, f"row's score minus column's ({_short(compared)})", cell * len(names))
    mark = "number" if roomy else "dot"
    methods = ", ".join(compared.methods.unique())
    sheet.above(f"{methods}: {_n(compared.n_paired)} images, {compared.protocol.iloc[0]} protocol\n"
                f"{mark}: p < 0.05 (Holm); ≈: shown to be too small to matter; ?: undecided",
                "small")  # fmt: skip
    return sheet.shown


def _in_cell(value: float) -> str:
    """A difference in as few characters as it takes."""
    return f"{value:+.2f}".replace("0.", ".", 1).replace("-", "−")


def plot_floor_sweep(
    sweep: pd.DataFrame, *, size: Size = None, fig: FigureBase | None = None
) -> Figure:
    """A column per backbone: score (above) and share of tied pixels (below) against the floor.

    sweep : as `lib.analyses.sweep` makes it; `backbone, dcls, order, floor, score, low, high, tied,
            n, ceiling`; floor and tied in 0-1
    """
    order = _present(sweep.backbone)
    columns = panels_across(len(order), 1.75, 4 if len(order) <= 8 else 6, size, fig)
    rows = -(-len(order) // columns)
    wide = min(1.75 * columns + 0.8, 7.2)
    sheet = lay_out((wide, 2.6 * rows + 0.9), 2 * rows, columns, sharex=True, sharey="row",
                    height_ratios=[2.2, 1] * rows, size=size, fig=fig)  # fmt: skip
    axes = sheet.axes
    styles = {
        (name, dcls): {"color": DCLS_COLOUR if dcls else PLAIN_COLOUR, "ls": style}
        for name, style in zip(sweep.order.unique(), ("-", "--"), strict=True)
        for dcls in (False, True)
    }
    floors = np.sort(sweep.floor.unique())
    # Bars at some floors, side by side: a band for each of four lines would hide the lines.
    barred = floors[np.abs(floors[:, None] - np.array([0, 0.3, 0.6, 0.9])).argmin(axis=0)]
    step = 0.02 * np.ptp(floors)
    for number, key in enumerate(order):
        line, column = divmod(number, columns)
        above, below = axes[2 * line, column], axes[2 * line + 1, column]
        for place, ((name, dcls), style) in enumerate(styles.items()):
            chosen = sweep[(sweep.backbone == key) & (sweep.order == name) & (sweep.dcls == dcls)]
            if chosen.empty:  # a model without a DCLS form
                continue
            label = f"{name}, {'with' if dcls else 'without'} DCLS"
            above.plot(chosen.floor, chosen.score, label=label, lw=thick(0.86), **style)
            some = chosen[chosen.floor.isin(barred)]
            above.vlines(some.floor + step * (place - 1.5), some.low, some.high, lw=thick(0.5),
                         color=style["color"])  # fmt: skip
            below.plot(chosen.floor, 100 * chosen.tied, lw=thick(0.86), **style)
        for ax in (above, below):
            ax.axvline(0.3, color="0.6", lw=thick(0.5), ls=":", zorder=0)
        sheet.panel_title(above, BACKBONES[key].label, name=True)
        below.set_ylim(0, 100)
    for number in range(len(order), rows * columns):
        line, column = divmod(number, columns)
        for ax in (axes[2 * line, column], axes[2 * line + 1, column]):
            ax.set_axis_off()
    for line in range(rows):
        axes[2 * line, 0].set_ylabel(f"score\n({_short(sweep)})", fontsize="small")
        axes[2 * line + 1, 0].set_ylabel("tied (%)", fontsize="small")
    sheet.below(f"floor, as a share of the heatmap's range; {_n(sweep.n)} images; error bars: 95 % "
                "intervals")  # fmt: skip
    sheet.legend(columns=2)
    return sheet.shown


def plot_two_by_two(changes: pd.DataFrame, *, size: Size = None, ax: Axes | None = None) -> Figure:
    """A row per model: what each ingredient of Threshold-Grad-CAM does to its score.

    changes : as `lib.analyses.two_by_two` makes it; `backbone, dcls, change_by, change, low, high,
              n, ceiling`
    """
    models = _models(changes)
    row = row_of(0.26)
    sheet = lay_out((6.4, row * len(models) + 1.4), size=size, ax=ax)
    ax = sheet.only
    names = list(changes.change_by.unique())
    colours = (PALETTE[4], PALETTE[2], PALETTE[6])
    for shift, name, colour, mark in zip((-0.22, 0, 0.22), names, colours, "os^", strict=True):
        chosen = changes[changes.change_by == name].set_index(["backbone", "dcls"]).reindex(models)
        places = np.arange(len(models)) + shift
        errors = np.abs(chosen[["low", "high"]].to_numpy().T - chosen.change.to_numpy())
        ax.errorbar(chosen.change, places, xerr=errors, fmt=mark, color=colour, ms=large(0.67),
                    capsize=large(0.33), elinewidth=thick(0.7), label=name)  # fmt: skip
    ax.axvline(0, color="0.3", lw=thick(0.57), ls="--")
    sheet.names_along_y(ax, [BACKBONES[key].titled(dcls) for key, dcls in models], row)
    ax.invert_yaxis()
    for place in range(1, len(models)):
        if models[place][0] != models[place - 1][0]:
            ax.axhline(place - 0.5, color="0.9", lw=thick(0.43), zorder=0)
    sheet.below(
        f"score minus plain Grad-CAM's ({_short(changes)}); {_n(changes.n)} images, paired; "
        "error bars: 95 % intervals",
        "medium",
    )
    sheet.legend()
    return sheet.shown


def plot_measures(
    measured: pd.DataFrame, *, size: Size = None, fig: FigureBase | None = None
) -> Figure:
    """A panel per method: each model's rank under every measure, 1 the best.

    measured : `backbone, dcls, method, measure, label, rank, n`
    """
    if measured.empty:
        return _nothing("Measures of agreement", size=size)
    methods, models = methods_of(measured), _models(measured)
    rows = list(measured.label.unique())
    labels = [BACKBONES[key].titled(dcls) for key, dcls in models]
    width = min(0.42 * len(models) + 2.6, 7.2)
    # Models lie side by side where each has room for its name, else one below the other.
    beside = 0.66 * width_of(width, size, fig) / len(models) > row_of(0.17)
    row = row_of(0.22) if beside else row_of(0.2)
    down, across = (rows, labels) if beside else (labels, rows)
    sheet = lay_out((width, (row * len(down) + 0.5) * len(methods) + 1.4), len(methods), 1,
                    sharex=True, size=size, fig=fig)  # fmt: skip
    for ax in sheet.axes[:, 0]:
        sheet.names_along_y(ax, down, row)
    cell = 0.8 * sheet.panel / len(across)
    written = next((s for s in ("small", "x-small") if cell > text_width("00.5", s)), None)
    for ax, method in zip(sheet.axes[:, 0], methods, strict=True):
        wide = measured[measured.method == method].pivot(
            index="label", columns=["backbone", "dcls"], values="rank"
        )
        ranks = wide.reindex(index=rows, columns=pd.MultiIndex.from_tuples(models)).to_numpy()
        ranks = ranks if beside else ranks.T
        image = ax.imshow(ranks, cmap="viridis_r", vmin=1, vmax=len(models), aspect="auto")
        for (line, column), rank in np.ndenumerate(ranks):
            if np.isfinite(rank) and written:
                dark = rank > 0.55 * len(models)
                ax.text(column, line, f"{rank:g}", ha="center", va="center", fontsize=written,
                        color="white" if dark else "black")  # fmt: skip
        sheet.panel_title(ax, METHODS[method].label)
        ax.tick_params(length=0)
    sheet.names_along_x(sheet.axes[-1, 0], across)
    bar = sheet.figure.colorbar(image, ax=sheet.axes[:, 0], shrink=0.7, pad=0.01)
    bar.set_label(f"rank among the {len(models)} models\n(1: agrees most)", fontsize="small")
    bar.ax.invert_yaxis()
    sheet.above(f"{_n(measured.n)} images", "medium")
    return sheet.shown


def plot_randomisation(
    similarity: pd.DataFrame, *, size: Size = None, fig: FigureBase | None = None
) -> Figure:
    """A panel per method and backbone: similarity to the trained network's maps as parts forget.

    similarity : `backbone, dcls, method, part, similarity, low, high, n`, parts in order, the
                 first of the trained network itself; similarity is Spearman's correlation
    """
    order, methods = _present(similarity.backbone), methods_of(similarity)
    columns = panels_across(len(order), 1.75, 4 if len(order) <= 8 else 6, size, fig)
    bands = -(-len(order) // columns)
    parts = {key: list(similarity[similarity.backbone == key].part.unique()) for key in order}
    alike = all(names == parts[order[0]] for names in parts.values())
    rows, wide = bands * len(methods), max(min(1.75 * columns + 0.7, 7.2), 3.6)
    high = 1.3 * rows + 0.9 + (0 if alike else 0.55 * rows)
    sheet = lay_out((wide, high), rows, columns, sharex=alike, sharey=True, size=size, fig=fig)
    handles = {}
    for row, method in enumerate(methods):
        for number, key in enumerate(order):
            band, column = divmod(number, columns)
            ax = sheet.axes[row * bands + band, column]
            of_both = similarity[(similarity.backbone == key) & (similarity.method == method)]
            forms = of_both.groupby(of_both.dcls.astype(bool))
            for dcls, chosen in forms:
                handles[dcls] = _points(ax, chosen.set_index("part").reindex(parts[key]), dcls,
                                        0.14 * (2 * dcls - 1) * (forms.ngroups - 1))  # fmt: skip
            ax.axhline(0, color="0.3", lw=thick(0.43), zorder=0)
            sheet.panel_title(ax, f"{METHODS[method].label}\n{BACKBONES[key].label}" if column == 0
                              else BACKBONES[key].label, "small", name=True)  # fmt: skip
            ax.set_xticks(range(len(parts[key])), parts[key], rotation=60, ha="right",
                          rotation_mode="anchor", fontsize="x-small")  # fmt: skip
            ax.tick_params(axis="y", labelsize="small")
            ax.set(ylim=(-1.1, 1.1), yticks=[-1, 0, 1])
    for row in range(rows):
        for number in range(len(order), bands * columns):
            if row % bands == bands - 1:
                sheet.axes[row, number - (bands - 1) * columns].set_axis_off()
    sheet.left("similarity (Spearman's ρ) to\nthe trained network's heatmap")
    sheet.below(f"re-initialised, from the head down to this part; {_n(similarity.n)} images; "
                f"{error_bars(similarity.n)}")  # fmt: skip
    names = form_labels(handles)
    sheet.legend([handle for _, handle in sorted(handles.items())] if names else [], columns=2)
    return sheet.shown


def _points(ax: Axes, rows: pd.DataFrame, dcls: bool, shift: float) -> ErrorbarContainer:
    """One model's similarity part by part, with its intervals, beside its other form's."""
    ends = np.clip(enough(rows).to_numpy().T, -1, 1)  # a correlation lies there
    ends[:, 0] = np.nan  # of the trained network with itself: 1 by definition
    errors = np.abs(ends - rows.similarity.to_numpy())
    return ax.errorbar(
        np.arange(len(rows)) + shift, rows.similarity, yerr=errors, fmt="s-" if dcls else "o-",
        color=DCLS_COLOUR if dcls else PLAIN_COLOUR, ms=large(0.5), lw=thick(0.45),
        elinewidth=thick(0.6), label=f"{'with' if dcls else 'without'} DCLS",
    )  # fmt: skip


def plot_alignment_against_faithfulness(
    table: pd.DataFrame, *, size: Size = None, fig: FigureBase | None = None
) -> Figure:
    """A panel per model: agreement with people (up) against average drop (left is faithful).

    table : `backbone, dcls, method, score, low, high, drop, drop_low, drop_high, n, n_drop,
            ceiling`; the drops in %
    """
    if table.empty:
        return _nothing("Agreement and faithfulness", size=size)
    models = _models(table)
    methods = methods_of(table)
    columns = panels_across(len(models), 3.2, 2, size, fig)
    rows = -(-len(models) // columns)
    high = max(2.6 * rows + 0.6, row_of(0.2) * len(methods) + 0.9)  # the legend beside fits, too
    sheet = lay_out((min(3.2 * columns + 2.2, 7.2), high), rows, columns, sharex=True,
                    sharey=True, size=size, fig=fig)  # fmt: skip
    axes, number_of = sheet.axes, {key: number for number, key in enumerate(methods, 1)}
    kinds = {False: ("o", DCLS_COLOUR), True: ("D", PALETTE[1])}
    of_panel = []
    for ax, (key, dcls) in zip(axes.flat, models, strict=False):
        chosen = table[(table.backbone == key) & (table.dcls == dcls)]
        points, bars = [], []
        for row in chosen.itertuples():
            low, high = np.clip([row.drop_low, row.drop_high], 0, 100)  # a drop lies there
            mark, colour = kinds[row.method == RANDOM_CAM]
            ax.errorbar(
                row.drop, row.score, xerr=[[row.drop - low], [high - row.drop]],
                yerr=[[row.score - row.low], [row.high - row.score]], fmt=mark, color=colour,
                ecolor="0.75", ms=large(0.6), elinewidth=thick(0.4), markeredgecolor="white",
                markeredgewidth=thick(0.3), label=METHODS[row.method].label,
            )  # fmt: skip
            points.append((row.drop, row.score))
            bars += [(low, row.score, high, row.score), (row.drop, row.low, row.drop, row.high)]
        of_panel.append((ax, points, [f"{number_of[key]}" for key in chosen.method], bars))
        sheet.panel_title(ax, BACKBONES[key].titled(dcls), name=True)
        ax.set_xlim(-5, 105)
        ax.grid()
    span = max(table.score.max() - table.score.min(), 0.2)  # wide bars must not press the points
    axes[0, 0].set_ylim(
        max(table.low.min(), table.score.min() - span), min(table.high.max(), 1.1) + span / 10
    )
    for ax in axes.flat[len(models) :]:
        ax.set_axis_off()
    sheet.below(f"average drop (%), all pixels, {_n(table.n_drop)} images (less is more faithful); "
                "error bars: 95 % intervals", "medium")  # fmt: skip
    sheet.left(f"score ({_short(table)}), {_n(table.n)} images", "medium")
    sheet.legend([
        Line2D([], [], ls="none", marker=kinds[key == RANDOM_CAM][0], ms=large(0.6),
               color=kinds[key == RANDOM_CAM][1], label=f"{number}  {METHODS[key].label}")
        for key, number in number_of.items()
    ], beside=True)  # fmt: skip
    for ax, points, names, bars in of_panel:
        label_points(sheet, ax, points, names, bars)
    return sheet.shown


def plot_method_ranking(
    ranking: pd.DataFrame, *, size: Size = None, ax: Axes | None = None
) -> Figure:
    """Methods by their score over all models.

    ranking : as `lib.analyses.rank_methods` makes it; `label, score, low, high, n, pairs,
              pairs_in_all, ceiling`, in the order drawn
    """
    if ranking.empty:
        return _nothing("CAM methods", size=size, ax=ax)
    row = row_of(0.25)
    sheet = lay_out((5.6, row * len(ranking) + 1.0), size=size, ax=ax)
    ax = sheet.only
    places = np.arange(len(ranking))
    errors = np.abs(ranking[["low", "high"]].to_numpy().T - ranking.score.to_numpy())
    ax.errorbar(ranking.score, places, xerr=errors, fmt="o", color=DCLS_COLOUR, ms=large(0.67),
                capsize=large(0.33), elinewidth=thick(0.7))  # fmt: skip
    sheet.names_along_y(ax, list(ranking.label), row)
    ax.invert_yaxis()
    ax.grid(axis="x")
    common = f"{ranking.pairs.max()} of {ranking.pairs_in_all.max()}"
    sheet.below(
        f"score over all models ({_short(ranking)}); {_n(ranking.n)} images, {common} pairs of "
        f"image and model; error bars: 95 % intervals{_cautious(ranking.n)}"
    )
    return sheet.shown
