"""The study's figures: each function takes finished data and returns a figure.

Nothing here computes a score, reads a file or writes one; `lib.figures.saving.save_figure`
writes. Colours and labels come from the tables, the look from `study.mplstyle`.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..maps.methods import METHODS
from ..networks.backbones import BACKBONES
from .style import DCLS_COLOUR, form_labels, plot_nothing, score_unit, span

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


def plot_dcls_against_baseline(summary: pd.DataFrame, method: str) -> Figure:
    """Figure 2: a point per backbone, score without DCLS (x) against with it (y).

    summary : as `lib.scores.results.beside_controls` makes it
    """
    base, dcls = _variants(summary, method)
    if dcls.empty:
        return plot_nothing("none of these models has a DCLS form: there is no pair to compare")
    base = base.loc[dcls.index]
    unit = score_unit(summary)
    fig, ax = plt.subplots(figsize=(6.8, 4.6))
    for x, y, x_error, y_error, key in zip(
        base.score, dcls.score, _errors(base, "score").T, _errors(dcls, "score").T, base.index,
        strict=True,
    ):  # fmt: skip
        row = BACKBONES[key]
        ax.errorbar(
            x, y, xerr=x_error[:, None], yerr=y_error[:, None], fmt="o", color=row.colour,
            markeredgecolor="0.2", markeredgewidth=0.5, capsize=2, elinewidth=1, label=row.label,
        )  # fmt: skip
    ends = [*ax.get_xlim(), *ax.get_ylim()]
    limits = (min(ends), max(ends))
    ax.plot(limits, limits, ls="--", color="0.5", lw=1, zorder=0)
    ax.set(xlim=limits, ylim=limits, aspect="equal")
    ax.locator_params(nbins=5)
    ax.set_xlabel(f"score without DCLS\n({unit})")
    ax.set_ylabel(f"score with DCLS\n({unit})")
    ax.set_title(
        f"Figure 2. {METHODS[method].label}:\nabove the dashed line DCLS agrees more with people"
    )
    ax.legend(title=f"{_counts(base)},\nbars: 95 % interval", title_fontsize=8, loc="center left",
              bbox_to_anchor=(1.0, 0.5))  # fmt: skip
    return fig


_CONTROL_LINES = {
    "mean_human": ("#D55E00", "-"), "centre": ("#009E73", "--"), "other_human": ("0.1", ":"),
    "random": ("0.55", "-."),
}  # fmt: skip


def _draw_controls(ax: Axes, controls: pd.DataFrame, labels: Mapping[str, str]) -> None:
    """A line per control; a band where backbones are compared with other parts of the maps."""
    known = [key for key in _CONTROL_LINES if key in set(controls.control)]
    new = [key for key in controls.control.unique() if key not in _CONTROL_LINES]
    for number, key in enumerate([*known, *new]):
        colour, style = _CONTROL_LINES.get(key, (f"C{number}", "-"))
        chosen = controls[controls.control == key]
        ax.axhspan(chosen.low.min(), chosen.high.max(), color=colour, alpha=0.12, lw=0, zorder=0)
        ax.axhline(chosen.score.mean(), color=colour, ls=style, lw=1, zorder=1,
                   label=labels.get(key, key))  # fmt: skip


def plot_score_bars(
    summary: pd.DataFrame, controls: pd.DataFrame, labels: Mapping[str, str]
) -> Figure:
    """Figure 3: bars without and with DCLS per backbone, one panel per method.

    summary  : as `lib.scores.results.beside_controls` makes it
    controls : of the same protocol, as `summarise_controls` makes them
    labels   : {control: as it is called in the legend}
    """
    methods = [m for m in METHODS if m in set(summary.method)]
    fig, axes = plt.subplots(
        len(methods), 1, figsize=(7.2, 2.5 * len(methods) + 1.2), sharex=True, sharey=True,
        squeeze=False,
    )  # fmt: skip
    for ax, method in zip(axes[:, 0], methods, strict=True):
        base, dcls = _variants(summary, method)
        forms = form_labels(summary.dcls)
        beside = 0.2 if forms else 0.0  # a bar without a pair stands over its name
        for frame, shift, hatch, alpha in ((base, -beside, "", 0.45), (dcls, beside, "//", 1.0)):
            alone = ~frame.index.isin(dcls.index)
            bars = ax.bar(
                base.index.get_indexer(frame.index) + np.where(alone, 0, shift), frame.score, 0.38,
                yerr=_errors(frame, "score"), color=[BACKBONES[key].colour for key in frame.index],
                alpha=alpha, hatch=hatch, edgecolor="0.25", linewidth=0.5, capsize=2,
                error_kw={"elinewidth": 1},
            )  # fmt: skip
            for bar, key, above in zip(bars, frame.index, frame.above_control, strict=True):
                if not above:
                    bar.set(facecolor="none", edgecolor=BACKBONES[key].colour, linewidth=1.2)
        ax.set_xticks(
            range(len(base)), [BACKBONES[key].label for key in base.index], rotation=20, ha="right"
        )
        ax.set_title(f"{METHODS[method].label}  ({_counts(base)}; bars: 95 % interval)")
        ax.set_xlim(-0.6, len(base) - 0.4)
        ax.axhline(0, color="0.3", lw=0.6)
        _draw_controls(ax, controls, labels)
        ax.grid(axis="y")
    reachable = summary.reachable.dropna()
    bounds = "1: as much as people agree; a perfect model may reach "
    bounds = f";\n{bounds}{reachable.max():.2f}" if len(reachable) else ""
    fig.supylabel(f"score ({score_unit(summary)}){bounds}", fontsize=8)
    keys = [
        plt.Rectangle((0, 0), 1, 1, facecolor="0.6", edgecolor="0.25", label=label, **style)
        for dcls, style in ((False, {"alpha": 0.45}), (True, {"hatch": "//"}))
        for label in [form_labels(summary.dcls).get(dcls)]
        if label
    ]
    lines = axes[0, 0].get_legend_handles_labels()[0]
    fig.legend(handles=[*keys, *lines], ncols=3, loc="outside upper center",
               title=f"lines: maps that no network made; bands: their 95 % intervals; {_HOLLOW}",
               title_fontsize=8)  # fmt: skip
    return fig


_PROTOCOL_MARKS = ("o", "s", "^", "v", "D", "P")


def plot_protocols(summary: pd.DataFrame, method: str) -> Figure:
    """A line per backbone: its score under each reading protocol, without and with DCLS."""
    forms = form_labels(summary.dcls) or {False: ""}
    fig, axes = plt.subplots(
        1, len(forms), figsize=(3.4 * len(forms) + 1.4, 3.6), sharex=True, sharey=True,
        squeeze=False,
    )  # fmt: skip
    axes = axes[0]
    protocols = list(dict.fromkeys(summary.protocol))
    for index, protocol in enumerate(protocols):
        pair = _variants(summary[summary.protocol == protocol], method)
        shift = 0.18 * (index - (len(protocols) - 1) / 2)
        order = pair[0].index
        for ax, (dcls, title) in zip(axes, forms.items(), strict=True):
            frame = pair[dcls]
            ax.set_title(title)
            ax.grid(axis="x")
            ax.set_yticks(range(len(order)), [BACKBONES[key].label for key in order])
            if frame.empty:
                continue
            place = order.get_indexer(frame.index)
            ax.errorbar(
                frame.score, place + shift, xerr=_errors(frame, "score"), ls="none",
                fmt=_PROTOCOL_MARKS[index], ms=4, capsize=2, elinewidth=1,
                label=_counts(frame).replace(", ", "\n"),
            )  # fmt: skip
    axes[0].invert_yaxis()
    fig.supxlabel(f"score ({score_unit(summary)})", fontsize=9)
    fig.suptitle(f"{METHODS[method].label}: how much of a score is the protocol? (95 % intervals)")
    handles, labels = axes[0].get_legend_handles_labels()
    axes[-1].legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def plot_size_against_score(summary: pd.DataFrame, method: str, correlation: float) -> Figure:
    """Figure 4: number of parameters against the baselines' score.

    correlation : `lib.scores.results.size_correlation`, for the title
    """
    fig, ax = plt.subplots(figsize=(6.8, 3.8))
    base, _ = _variants(summary, method)
    base = base[[not BACKBONES[key].pair_of for key in base.index]]
    for row, error in zip(base.reset_index().itertuples(), _errors(base, "score").T, strict=True):
        backbone = BACKBONES[row.backbone]
        ax.errorbar(
            row.parameters_millions, row.score, yerr=error[:, None], fmt="o", capsize=2,
            color=backbone.colour, markeredgecolor="0.2", markeredgewidth=0.5, elinewidth=1,
            label=backbone.label,
        )  # fmt: skip
    ax.set_xlabel("learnable parameters (millions)")
    ax.set_ylabel(f"score\n({score_unit(base)})")
    ax.locator_params(nbins=6)
    own = [key for key in base.index if BACKBONES[key].origin]
    told = (
        f"rank correlation of size and score {correlation:+.2f} over {len(base) - len(own)} models"
    )
    told += " of the study's" * bool(own)
    if np.isnan(correlation):
        told = "too few models for a rank correlation of size and score"
    ax.set_title(f"Figure 4. Baselines, {METHODS[method].label}\n{told}")
    ax.legend(title=f"{_counts(base)},\nbars: 95 % interval", title_fontsize=8, loc="center left",
              bbox_to_anchor=(1.0, 0.5))  # fmt: skip
    ax.grid()
    return fig


def plot_rho_distributions(scores: pd.DataFrame, method: str) -> Figure:
    """How the correlation spreads over pictures, per backbone, without and with DCLS.

    scores : the per-image table of `lib.scores.study_scores.score_study`; invalid maps are left out
    """
    of_method = scores[scores.method == method]
    present = set(of_method.backbone)
    order = [BACKBONES[key].label for key in BACKBONES if key in present]
    valid = of_method[of_method.rho.notna()]
    shown = pd.DataFrame(
        {
            "backbone": [BACKBONES[key].label for key in valid.backbone],
            "rho": valid.rho.to_numpy(),
            "": np.where(valid.dcls, "with DCLS", "without DCLS"),
        }
    )
    forms = [*form_labels(of_method.dcls).values()]
    by_form = {"hue": "", "hue_order": forms, "split": len(forms) == 2, "gap": 0.08}
    by_form["palette"] = {"without DCLS": "0.8", "with DCLS": DCLS_COLOUR}
    fig, ax = plt.subplots(figsize=(7.2, 3.4))
    sns.violinplot(
        shown, x="backbone", y="rho", order=order, inner="quart", cut=0, density_norm="width",
        linewidth=0.8, ax=ax, **by_form if forms else {"color": "0.8"},
    )  # fmt: skip
    ax.axhline(0, color="0.3", lw=0.6)
    ax.set(xlabel="", ylabel="Spearman ρ of one picture")
    ax.tick_params(axis="x", rotation=20)
    number = span(of_method.groupby("variant").rho.count())
    ax.set_title(f"{METHODS[method].label}: n = {number} pictures a violin; dashed: quartiles")
    if ax.get_legend() is not None:  # none where no map is valid
        sns.move_legend(ax, "lower left", bbox_to_anchor=(0, 1.08), ncols=2)
    return fig
