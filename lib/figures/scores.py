"""The study's figures: each function takes finished data and returns a figure.

Nothing here computes a score, reads a file or writes one; `lib.figures.saving.save_figure`
writes. Colours and labels come from the tables, fonts and lines from matplotlib's style.

Every function takes, by name, `size`: (width, height) in inches; without a height (None) the
figure is as high as it needs to be. Those of one panel take `ax` instead, an Axes to draw in, of
which nothing outside is touched; those of several take `fig`, a Figure or SubFigure with
`layout="constrained"`. All return the whole Figure.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ..maps.methods import METHODS
from ..networks.backbones import BACKBONES
from .style import (
    DCLS_COLOUR,
    Size,
    form_labels,
    large,
    lay_out,
    plot_nothing,
    row_of,
    score_unit,
    span,
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
    return f"n = {number} images, {frame.protocol.iloc[0]} protocol"


def _variants(summary: pd.DataFrame, method: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The baseline and the DCLS rows of one method, those that there are, in the table's order."""
    found = []
    for dcls in (False, True):
        rows = summary[(summary.method == method) & (summary.dcls == dcls)].set_index("backbone")
        found.append(rows.loc[[key for key in BACKBONES if key in rows.index]])
    return tuple(found)


def _point(ax: Axes, x: float, y: float, key: str, **errors: np.ndarray) -> None:
    """A model's mark with its bars, in its colour, named for the legend."""
    ax.errorbar(
        x, y, **errors, fmt="o", ms=large(), color=BACKBONES[key].colour, markeredgecolor="0.2",
        markeredgewidth=thick(0.35), capsize=large(0.33), elinewidth=thick(0.7),
        label=BACKBONES[key].label,
    )  # fmt: skip


def plot_dcls_against_baseline(
    summary: pd.DataFrame, method: str, *, size: Size = None, ax: Axes | None = None
) -> Figure:
    """Figure 2: a point per backbone, score without DCLS (x) against with it (y).

    summary : as `lib.scores.results.beside_controls` makes it; `backbone, dcls, method, protocol,
              score, low, high, n, ceiling`, one row a model and method
    method  : the key of the method drawn
    """
    base, dcls = _variants(summary, method)
    if dcls.empty:
        return plot_nothing("none of these models has a DCLS form: there is no pair to compare",
                            size=size, ax=ax)  # fmt: skip
    base = base.loc[dcls.index]
    unit = score_unit(summary)
    high = min(4.6, 0.8 * width_of(6.8, size, ax=ax) + 1.2)
    sheet = lay_out((6.8, high), size=size, ax=ax)
    ax = sheet.only
    for x, y, x_error, y_error, key in zip(
        base.score, dcls.score, _errors(base, "score").T, _errors(dcls, "score").T, base.index,
        strict=True,
    ):  # fmt: skip
        _point(ax, x, y, key, xerr=x_error[:, None], yerr=y_error[:, None])
    ends = [*ax.get_xlim(), *ax.get_ylim()]
    limits = (min(ends), max(ends))
    ax.plot(limits, limits, ls="--", color="0.5", lw=thick(0.7), zorder=0)
    ax.set(xlim=limits, ylim=limits, aspect="equal")
    ax.locator_params(nbins=5)
    side = min(sheet.panel, 4.0)
    ax.set_xlabel(wrapped(f"score without DCLS\n({unit})", side))
    ax.set_ylabel(wrapped(f"score with DCLS\n({unit})", side))
    sheet.title(
        f"Figure 2. {METHODS[method].label}:\nabove the dashed line DCLS agrees more with people"
    )
    sheet.legend(title=f"{_counts(base)},\nbars: 95 % interval", beside=True)
    return sheet.shown


_CONTROL_LINES = {
    "mean_human": ("#D55E00", "-"), "centre": ("#009E73", "--"), "other_human": ("0.1", ":"),
    "random": ("0.55", "-."),
}  # fmt: skip


def _draw_controls(
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
    summary: pd.DataFrame,
    controls: pd.DataFrame,
    labels: Mapping[str, str],
    *,
    size: Size = None,
    fig: FigureBase | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Figure 3: bars without and with DCLS per backbone, one panel per method.

    The bars lie where the figure is too narrow for names below upright ones.

    summary  : as `lib.scores.results.beside_controls` makes it; `backbone, dcls, method, protocol,
               score, low, high, n, ceiling, reachable, above_control`, of one protocol
    controls : of the same protocol, as `summarise_controls` makes them; `control, score, low, high`
    labels   : {control: as it is called in the legend}
    ax       : for the rows of one method
    """
    methods = [m for m in METHODS if m in set(summary.method)]
    models = summary.backbone.nunique()
    upright = 0.85 * width_of(7.2, size, fig, ax) / models > row_of(_SLIMMEST)
    high = 2.3 if upright else row_of(0.2) * models + 0.6
    sheet = lay_out((7.2, high * len(methods) + 1.2), len(methods), sharex=True, sharey=True,
                    size=size, fig=fig, ax=ax)  # fmt: skip
    names = [BACKBONES[key].label for key in _variants(summary, methods[0])[0].index]
    if upright:
        sheet.names_along_x(sheet.axes[-1, 0], names)
    for ax in sheet.axes[:, 0] if not upright else ():
        sheet.names_along_y(ax, names, row_of(0.2))
    lines: list[Line2D] = []
    for ax, method in zip(sheet.axes[:, 0], methods, strict=True):
        base = _draw_bars(ax, summary, method, upright)
        sheet.panel_title(ax, f"{METHODS[method].label}  ({_counts(base)}; bars: 95 % interval)")
        (ax.axhline if upright else ax.axvline)(0, color="0.3", lw=thick(0.45))
        lines = _draw_controls(ax, controls, labels, upright)
        ax.grid(axis="y" if upright else "x")
    names = [BACKBONES[key].label for key in base.index]
    reachable = summary.reachable.dropna()
    bounds = "1: as much as people agree; a perfect model may reach "
    bounds = f";\n{bounds}{reachable.max():.2f}" if len(reachable) else ""
    (sheet.left if upright else sheet.below)(f"score ({score_unit(summary)}){bounds}")
    forms = form_labels(summary.dcls)
    keys = [
        Rectangle((0, 0), 1, 1, facecolor="0.6", edgecolor="0.25", label=forms[dcls], **style)
        for dcls, style in ((False, {"alpha": 0.45}), (True, {"hatch": "//"}))
        if dcls in forms
    ]
    sheet.legend(
        [*keys, *lines], f"lines: maps that no network made; bands: their 95 % intervals; {_HOLLOW}"
    )
    return sheet.shown


def _draw_bars(ax: Axes, summary: pd.DataFrame, method: str, upright: bool) -> pd.DataFrame:
    """One method's bars. Returns the rows without DCLS, in the order of the places."""
    base, dcls = _variants(summary, method)
    beside = 0.2 if form_labels(summary.dcls) else 0.0  # a bar without a pair lies at its name
    draw, across = (ax.bar, "yerr") if upright else (ax.barh, "xerr")
    for frame, shift, hatch, alpha in ((base, -beside, "", 0.45), (dcls, beside, "//", 1.0)):
        alone = ~frame.index.isin(dcls.index)
        bars = draw(
            base.index.get_indexer(frame.index) + np.where(alone, 0, shift), frame.score, 0.38,
            **{across: _errors(frame, "score")}, alpha=alpha, hatch=hatch, edgecolor="0.25",
            color=[BACKBONES[key].colour for key in frame.index], linewidth=thick(0.35),
            capsize=large(0.33), error_kw={"elinewidth": thick(0.7)},
        )  # fmt: skip
        for bar, key, above in zip(bars, frame.index, frame.above_control, strict=True):
            if not above:
                bar.set(facecolor="none", edgecolor=BACKBONES[key].colour, linewidth=thick(0.85))
    ends = (-0.6, len(base) - 0.4)
    ax.set(**{"xlim": ends} if upright else {"ylim": ends[::-1]})
    return base


_PROTOCOL_MARKS = ("o", "s", "^", "v", "D", "P")


def plot_protocols(
    summary: pd.DataFrame, method: str, *, size: Size = None, fig: FigureBase | None = None
) -> Figure:
    """A row per backbone: its score under each reading protocol, without and with DCLS.

    summary : as `lib.scores.results.summarise` makes it, of all protocols; `backbone, dcls, method,
              protocol, score, low, high, n, ceiling`
    method  : the key of the method drawn
    """
    forms = form_labels(summary.dcls) or {False: ""}
    protocols = list(dict.fromkeys(summary.protocol))
    pairs = [_variants(summary[summary.protocol == protocol], method) for protocol in protocols]
    order = pairs[0][0].index
    high = row_of(max(0.31, 0.1 * len(protocols))) * len(order) + 1.1
    sheet = lay_out((3.4 * len(forms) + 1.4, max(high, 2.0)), 1, len(forms), sharex=True,
                    sharey=True, size=size, fig=fig)  # fmt: skip
    names = [BACKBONES[key].label for key in order]
    sheet.names_along_y(sheet.only, names, high / max(len(order), 1))
    for index, pair in enumerate(pairs):
        shift = 0.54 / len(protocols) * (index - (len(protocols) - 1) / 2)
        for ax, dcls in zip(sheet.axes[0], forms, strict=True):
            frame = pair[dcls]
            if frame.empty:
                continue
            ax.errorbar(
                frame.score, order.get_indexer(frame.index) + shift, xerr=_errors(frame, "score"),
                ls="none", fmt=_PROTOCOL_MARKS[index % len(_PROTOCOL_MARKS)], ms=large(0.67),
                capsize=large(0.33), elinewidth=thick(0.7), color=f"C{index}",
                label=_counts(frame).replace(", ", "\n"),
            )  # fmt: skip
    for ax, title in zip(sheet.axes[0], forms.values(), strict=True):
        ax.set_title(title)
        ax.grid(axis="x")
        ax.locator_params(axis="x", nbins=4 if sheet.panel < 2 else 6)
    sheet.only.invert_yaxis()
    sheet.below(f"score ({score_unit(summary)})", "medium")
    sheet.above(f"{METHODS[method].label}: how much of a score is the protocol? (95 % intervals)")
    sheet.legend(beside=True)
    return sheet.shown


def plot_size_against_score(
    summary: pd.DataFrame,
    method: str,
    correlation: float,
    *,
    size: Size = None,
    ax: Axes | None = None,
) -> Figure:
    """Figure 4: number of parameters against the baselines' score.

    summary     : as for `plot_dcls_against_baseline`, and `parameters_millions`
    method      : the key of the method drawn
    correlation : `lib.scores.results.size_correlation`, for the title; NaN if there is none
    """
    sheet = lay_out((6.8, 3.8), size=size, ax=ax)
    ax = sheet.only
    base, _ = _variants(summary, method)
    base = base[[not BACKBONES[key].pair_of for key in base.index]]
    for row, error in zip(base.reset_index().itertuples(), _errors(base, "score").T, strict=True):
        _point(ax, row.parameters_millions, row.score, row.backbone, yerr=error[:, None])
    ax.set_xlabel(wrapped("learnable parameters (millions)", sheet.panel))
    ax.set_ylabel(wrapped(f"score\n({score_unit(base)})", min(sheet.panel, 3.4)))
    ax.locator_params(nbins=6)
    own = [key for key in base.index if BACKBONES[key].origin]
    told = (
        f"rank correlation of size and score {correlation:+.2f} over {len(base) - len(own)} models"
    )
    told += " of the study's" * bool(own)
    if np.isnan(correlation):
        told = "too few models for a rank correlation of size and score"
    sheet.title(f"Figure 4. Baselines, {METHODS[method].label}\n{told}")
    sheet.legend(title=f"{_counts(base)},\nbars: 95 % interval", beside=True)
    ax.grid()
    return sheet.shown


def plot_rho_distributions(
    scores: pd.DataFrame, method: str, *, size: Size = None, ax: Axes | None = None
) -> Figure:
    """How the correlation spreads over pictures, per backbone, without and with DCLS.

    scores : the per-image table of `lib.scores.study_scores.score_study`; `backbone, variant, dcls,
             method, rho`, of one protocol; invalid maps (`rho` missing) are left out
    method : the key of the method drawn
    """
    of_method = scores[scores.method == method]
    present = set(of_method.backbone)
    order = [key for key in BACKBONES if key in present]
    valid = of_method[of_method.rho.notna()]
    shown = pd.DataFrame(
        {
            "backbone": valid.backbone.to_numpy(),
            "rho": valid.rho.to_numpy(),
            "": np.where(valid.dcls, "with DCLS", "without DCLS"),
        }
    )
    forms = [*form_labels(of_method.dcls).values()]
    by_form = {"hue": "", "hue_order": forms, "split": len(forms) == 2, "gap": 0.08}
    by_form["palette"] = {"without DCLS": "0.8", "with DCLS": DCLS_COLOUR}
    upright = 0.85 * width_of(7.2, size, ax=ax) / max(len(order), 1) > row_of(_SLIMMEST)
    high = 3.4 if upright else row_of(0.3) * len(order) + 1.2
    sheet = lay_out((7.2, high), size=size, ax=ax)
    ax = sheet.only
    places = {"x": "backbone", "y": "rho"} if upright else {"x": "rho", "y": "backbone"}
    sns.violinplot(
        shown, **places, order=order, inner="quart", cut=0, density_norm="width",
        linewidth=thick(0.57), ax=ax, **by_form if forms else {"color": "0.8"},
    )  # fmt: skip
    names = [BACKBONES[key].label for key in order]
    if upright:
        sheet.names_along_x(ax, names)
        ax.axhline(0, color="0.3", lw=thick(0.45))
        ax.set(xlabel="", ylabel="Spearman ρ of one picture")
    else:
        sheet.names_along_y(ax, names, row_of(0.3))
        ax.axvline(0, color="0.3", lw=thick(0.45))
        ax.set(ylabel="", xlabel="Spearman ρ of one picture")
    number = span(of_method.groupby("variant").rho.count())
    sheet.title(f"{METHODS[method].label}: n = {number} pictures a violin; dashed: quartiles")
    made = ax.get_legend()
    if made is not None:  # none where no map is valid
        handles = made.legend_handles
        made.remove()
        sheet.legend(handles)
    return sheet.shown
