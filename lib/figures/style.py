"""The look that all figures share: style file, colours, marks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..maps.methods import METHODS

STYLE = Path(__file__).with_name("study.mplstyle")
HEATMAP_COLOURS, KERNEL_COLOURS = "viridis", "RdBu_r"
PLAIN_COLOUR, DCLS_COLOUR = "0.45", "#0072B2"  # of models without and with DCLS
MARKS = "osD^v<>PX*hp"


def methods_of(frame: pd.DataFrame) -> list[str]:
    """The methods that a table holds, in the order of `METHODS`."""
    known = set(frame.method)
    return [key for key in METHODS if key in known]


def use_study_style() -> None:
    """The study's look for all figures of this session; notebooks call it once."""
    plt.style.use(STYLE)


def plot_nothing(why: str) -> Figure:
    """Where there is nothing to draw: why."""
    fig, ax = plt.subplots(figsize=(5, 0.8))
    ax.text(0.5, 0.5, why, ha="center", va="center")
    ax.set_axis_off()
    return fig


def span(numbers: pd.Series) -> str:
    """Whole numbers as "8", or "3–8" where they differ."""
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low}" if low == high else f"{low}–{high}"


def score_unit(table: pd.DataFrame) -> str:
    """What a score is, for an axis: by its table's column `ceiling`."""
    known = table.ceiling.dropna()
    if known.empty:
        return "mean Spearman ρ; no human ceiling is known"
    low, high = f"{known.min():.3f}", f"{known.max():.3f}"
    return f"mean Spearman ρ ÷ human ceiling, {low if low == high else f'{low}–{high}'}"


def form_labels(has_dcls: Iterable[bool]) -> dict[bool, str]:
    """{dcls: what a legend calls the form}, of those that are drawn; {} without any DCLS form,
    where there is no pair to tell apart."""
    drawn = set(map(bool, has_dcls))
    if True not in drawn:
        return {}
    names = {False: "without DCLS", True: "with DCLS"}
    return {dcls: name for dcls, name in names.items() if dcls in drawn}


def shared_legend(fig: Figure, ax: Axes, loc: str, **options) -> None:
    """One legend for all axes of a figure, made of what one of them shows."""
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(handles, labels, loc=loc, **options)
