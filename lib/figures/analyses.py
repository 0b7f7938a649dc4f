"""Figures of the statistics and controls that the paper does not have; as `lib.figures.scores`."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from ..maps.methods import METHODS
from ..networks.backbones import BACKBONES
from ..study.comparisons import Comparison
from ..study.rules import RULES
from .scores import panel_name, panels_of, row_names, subject
from .style import (
    DCLS_COLOUR,
    MARKS,
    PLAIN_COLOUR,
    Size,
    cautious,
    colour_of,
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

_IN_CELLS = "xx-small"  # numbers in the cells of a matrix


def _present(keys: Sequence[str]) -> list[str]:
    known = set(keys)
    return [key for key in BACKBONES if key in known]


def _models(table: pd.DataFrame) -> list[tuple[str, bool]]:
    """(backbone, dcls) of each model that a table has, in the order of the models' table."""
    there = set(zip(table.backbone, table.dcls.astype(bool), strict=True))
    return [(k, d) for k in _present(table.backbone) for d in (False, True) if (k, d) in there]


def _nothing(title: str, *, size: Size = None, ax: Axes | None = None) -> Figure:
    """In place of a figure that would show no number."""
    return plot_nothing(
        f"{title}: nothing to show.\nNo image has a map that orders anything.", size=size, ax=ax
    )


def _short(table: pd.DataFrame) -> str:
    """What a score is, in few words."""
    known = table.ceiling.dropna()
    return f"mean ρ ÷ {known.mean():.3f}" if len(known) else "mean ρ"


def _n(values: pd.Series) -> str:
    if not len(values.dropna()):
        return "n = 0"
    return f"n = {span(values)}"


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
    stacked = width_of(9, size, fig) / len(panels) < 2.5  # then one panel below the other
    rows, columns = (len(panels), 1) if stacked else (1, len(panels))
    high = row_of(0.34) * len(order) + 0.5
    sheet = lay_out((3.7 * columns + 0.6, high * rows + 1.0), rows, columns, sharey=True,
                    sharex=True, size=size, fig=fig)  # fmt: skip
    for ax in sheet.axes[:, 0]:
        sheet.names_along_y(ax, order, row_of(0.34))
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
            colour = "0.6" if small else colour_of(row.backbone)
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
        f"{change}: change of the score ({score_unit(paired)})\nthick: 95 % interval of "
        "the mean; thin: middle half of images; filled: p < 0.05 (by Holm); grey: too little to "
        "matter"
    )
    return sheet.shown


def plot_compared(compared: pd.DataFrame, *, size: Size = None, ax: Axes | None = None) -> Figure:
    """Every two models: the row's score less the column's; with a number where it is decided, a dot
    where there is no room for numbers.

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
    side = 0.42 * len(names)
    width = width_of(side + 3.2, size, ax=ax)
    cell = min(0.42, 0.5 * width / len(names)) if size or ax else 0.42
    roomy = cell > 1.1 * text_width("+0.00", _IN_CELLS)
    sheet = lay_out((side + 3.2, cell * len(names) + 1.6), size=size, ax=ax)
    ax = sheet.only
    for row in compared.itertuples():
        first, second = place[row.first], place[row.second]
        grid[second, first], grid[first, second] = row.difference, -row.difference
        if "undecided" in row.decision or "fewer" in row.decision:
            continue
        for y, x, value in ((second, first, row.difference), (first, second, -row.difference)):
            alike = "little" in row.decision or row.decision == "equivalent"
            dark = abs(value) > 0.6 * most
            text = "≈" if alike else f"{value:+.2f}" if roomy else "·"
            ax.text(x, y, text, ha="center", va="center", fontsize=_IN_CELLS,
                    color="white" if dark else "black")  # fmt: skip
    image = ax.imshow(grid, cmap="RdBu_r", vmin=-most or -1, vmax=most or 1,
                      aspect="equal" if roomy else "auto")  # fmt: skip
    sheet.names_along_x(ax, names, "x-small", upright=True)
    sheet.names_along_y(ax, names, cell, "x-small")
    sheet.scale(image, f"row's score less column's ({_short(compared)})", cell * len(names))
    mark = "number" if roomy else "dot"
    methods = ", ".join(compared.methods.unique())
    sheet.above(f"{methods}: {_n(compared.n_paired)} images, {compared.protocol.iloc[0]} protocol\n"
                f"{mark}: differs (p < 0.05 by Holm over all pairs); ≈: too little to matter; "
                "none: undecided", "x-small")  # fmt: skip
    return sheet.shown


def plot_floor_sweep(
    sweep: pd.DataFrame, *, size: Size = None, fig: FigureBase | None = None
) -> Figure:
    """A column per backbone: score (above) and share of tied pixels (below) against the floor.

    sweep : as `lib.analyses.sweep` makes it; `backbone, dcls, order, floor, score, low, high, tied,
            n, ceiling`; floor and tied in 0-1
    """
    order = _present(sweep.backbone)
    columns = panels_across(len(order), 2.0, 4, size, fig)
    rows = -(-len(order) // columns)
    sheet = lay_out((2.0 * columns + 0.8, 2.9 * rows + 0.7), 2 * rows, columns, sharex=True,
                    sharey="row", height_ratios=[2.2, 1] * rows, size=size, fig=fig)  # fmt: skip
    axes = sheet.axes
    styles = {
        (name, dcls): {"color": DCLS_COLOUR if dcls else PLAIN_COLOUR, "ls": style}
        for name, style in zip(sweep.order.unique(), ("-", "--"), strict=True)
        for dcls in (False, True)
    }
    for number, key in enumerate(order):
        line, column = divmod(number, columns)
        above, below = axes[2 * line, column], axes[2 * line + 1, column]
        for (name, dcls), style in styles.items():
            chosen = sweep[(sweep.backbone == key) & (sweep.order == name) & (sweep.dcls == dcls)]
            if chosen.empty:  # a model without a DCLS form
                continue
            label = f"{name}, {'with' if dcls else 'without'} DCLS"
            above.plot(chosen.floor, chosen.score, label=label, lw=thick(0.93), **style)
            above.fill_between(chosen.floor, chosen.low, chosen.high, color=style["color"],
                               alpha=0.12, lw=0)  # fmt: skip
            below.plot(chosen.floor, 100 * chosen.tied, lw=thick(0.93), **style)
        above.axvline(0.3, color="0.6", lw=thick(0.5), ls=":")
        sheet.panel_title(above, BACKBONES[key].label, name=True)
        below.set_ylim(0, 100)
    for number in range(len(order), rows * columns):
        line, column = divmod(number, columns)
        for ax in (axes[2 * line, column], axes[2 * line + 1, column]):
            ax.set_axis_off()
    for line in range(rows):
        axes[2 * line, 0].set_ylabel(f"score\n({_short(sweep)})", fontsize="small")
        axes[2 * line + 1, 0].set_ylabel("tied (%)", fontsize="small")
    sheet.below(
        f"floor, as a share of the map's range (dotted: published); {_n(sweep.n)} images; bands: "
        "95 % intervals"
    )
    sheet.legend(columns=2)
    return sheet.shown


def plot_two_by_two(changes: pd.DataFrame, *, size: Size = None, ax: Axes | None = None) -> Figure:
    """A row per model: what each ingredient of Threshold-Grad-CAM does to its score.

    changes : as `lib.analyses.two_by_two` makes it; `backbone, dcls, change_by, change, low, high,
              n, ceiling`
    """
    models = _models(changes)
    row = row_of(0.26)
    sheet = lay_out((6.8, row * len(models) + 1.6), size=size, ax=ax)
    ax = sheet.only
    names = list(changes.change_by.unique())
    colours = ("#E69F00", "#009E73", "#000000")
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
        f"against plain Grad-CAM: change of the score ({score_unit(changes)})\n"
        f"{_n(changes.n)} images, paired; bars: 95 % intervals",
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
    width = 0.42 * len(models) + 2.6
    # Models lie side by side where each has room for its name, else one below the other.
    beside = 0.6 * width_of(width, size, fig) / len(models) > row_of(0.17)
    row = row_of(0.3) if beside else row_of(0.2)
    down, across = (rows, labels) if beside else (labels, rows)
    sheet = lay_out((width, (row * len(down) + 0.5) * len(methods) + 1.4), len(methods), 1,
                    sharex=True, size=size, fig=fig)  # fmt: skip
    for ax in sheet.axes[:, 0]:
        sheet.names_along_y(ax, down, row)
    cell = 0.8 * sheet.panel / len(across)
    written = next((s for s in ("small", "xx-small") if cell > text_width("00.5", s)), None)
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
    sheet.above(f"Does the measure of agreement matter? ({_n(measured.n)} images)", "medium")
    return sheet.shown


def plot_randomisation(
    similarity: pd.DataFrame, *, size: Size = None, fig: FigureBase | None = None
) -> Figure:
    """A panel per backbone: similarity to the trained network's maps as parts forget.

    similarity : `backbone, dcls, method, part, similarity, low, high, n`, parts in order;
                 similarity is Spearman's correlation
    """
    order, methods = _present(similarity.backbone), methods_of(similarity)
    columns = panels_across(len(order), 2.05, 4, size, fig)
    rows = -(-len(order) // columns)
    parts = {key: list(similarity[similarity.backbone == key].part.unique()) for key in order}
    alike = all(names == parts[order[0]] for names in parts.values())
    sheet = lay_out((2.05 * columns + 0.7, 2.1 * rows + 1.2), rows, columns, sharex=alike,
                    sharey=True, size=size, fig=fig)  # fmt: skip
    axes = sheet.axes
    for ax, key in zip(axes.flat, order, strict=False):
        of_model = similarity[similarity.backbone == key]
        for method, style in zip(methods, ("-", "--", ":", "-.") * 5, strict=False):
            for dcls in (False, True):
                chosen = of_model[(of_model.method == method) & (of_model.dcls == dcls)]
                if len(chosen):
                    _band(ax, chosen.set_index("part").loc[parts[key]], style, dcls,
                          METHODS[method].label)  # fmt: skip
        ax.axhline(0, color="0.3", lw=thick(0.43))
        sheet.panel_title(ax, BACKBONES[key].label, name=True)
        names = parts[key]
        ax.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize="x-small")
    for ax in axes.flat[len(order) :]:
        ax.set_axis_off()
    sheet.left("similarity to the trained\nnetwork's map (Spearman's ρ)")
    sheet.below(
        f"what has forgotten, from the head down to here; {_n(similarity.n)} images; bands: "
        "95 % intervals"
    )
    sheet.legend(columns=2)
    return sheet.shown


def _band(ax: Axes, rows: pd.DataFrame, style: str, dcls: bool, label: str) -> None:
    places = np.arange(len(rows))
    colour = DCLS_COLOUR if dcls else PLAIN_COLOUR
    name = f"{label}, {'with' if dcls else 'without'} DCLS"
    ax.plot(places, rows.similarity, ls=style, color=colour, lw=thick(0.93), label=name)
    ax.fill_between(places, rows.low, rows.high, color=colour, alpha=0.12, lw=0)


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
    columns = panels_across(len(models), 3.3, 2, size, fig)
    rows = -(-len(models) // columns)
    sheet = lay_out((3.3 * columns + 2.2, 2.7 * rows + 0.6), rows, columns, sharex=True,
                    sharey=True, size=size, fig=fig)  # fmt: skip
    axes = sheet.axes
    colours = plt.get_cmap("tab20")(np.linspace(0, 1, max(len(methods), 2)))
    for ax, (key, dcls) in zip(axes.flat, models, strict=False):
        chosen = table[(table.backbone == key) & (table.dcls == dcls)].set_index("method")
        for number, method in enumerate(methods):
            if method not in chosen.index:
                continue
            row = chosen.loc[method]
            low, high = np.clip([row.drop_low, row.drop_high], 0, 100)  # a drop lies there
            ax.errorbar(
                row["drop"], row.score, xerr=[[row["drop"] - low], [high - row["drop"]]],
                yerr=[[row.score - row.low], [row.high - row.score]],
                fmt=MARKS[number % len(MARKS)], color=colours[number], ms=large(0.83),
                elinewidth=thick(0.5), markeredgecolor="0.2", markeredgewidth=thick(0.35),
                label=METHODS[method].label,
            )  # fmt: skip
        sheet.panel_title(ax, BACKBONES[key].titled(dcls), name=True)
        ax.set_xlim(-5, 105)
        ax.grid()
    for ax in axes.flat[len(models) :]:
        ax.set_axis_off()
    sheet.below(f"average drop (%), all pixels; less is more faithful; {_n(table.n_drop)} images")
    sheet.left(
        f"agreement with people: score ({_short(table)})\n{_n(table.n)} images; bars: "
        "95 % intervals"
    )
    sheet.legend(beside=True)
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
        f"score over all models ({_short(ranking)}); bars: 95 % intervals over images\n"
        f"{_n(ranking.n)} images; {common} pairs of image and model, of which every method has "
        "a map"
    )
    return sheet.shown
