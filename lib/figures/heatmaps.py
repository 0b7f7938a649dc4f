"""Figures of images, maps laid over them, kernels and receptive fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure, FigureBase

from ..networks.backbones import Backbone
from .style import (
    HEATMAP_COLOURS,
    KERNEL_COLOURS,
    Size,
    large,
    lay_out,
    panels_across,
    plot_nothing,
    row_of,
    thick,
    width_of,
    wrapped,
)


def _grey(image: np.ndarray) -> np.ndarray:
    luminance = image @ np.array([0.299, 0.587, 0.114])
    return np.repeat(luminance[..., None], 3, axis=-1) / 255


def overlay(image: np.ndarray, heatmap: np.ndarray, strength: float = 0.65) -> np.ndarray:
    """A map's colours laid over the grey image, evenly, so colour keeps its meaning.

    image : (height, width, 3) uint8; heatmap : (height, width), any scale, shown
    from its own minimum to its own maximum; what is not finite leaves the image uncovered
    Returns : (height, width, 3) float in 0-1
    """
    heatmap = np.asarray(heatmap, dtype=float)
    covered = np.isfinite(heatmap)
    heatmap = np.where(covered, heatmap, np.nan)  # infinities would warn below
    low = heatmap[covered].min(initial=np.inf)
    span = heatmap[covered].max(initial=-np.inf) - low
    scaled = np.where(covered & (span > 0), (heatmap - low) / (span or 1.0), 0.0)
    colours = plt.get_cmap(HEATMAP_COLOURS)(scaled)[..., :3]
    mixed = strength * colours + (1 - strength) * _grey(image)
    return np.where(covered[..., None], mixed, _grey(image))


def plot_heatmap_rows(
    images: Sequence[np.ndarray],
    rows: Mapping[str, np.ndarray],
    column_titles: Sequence[str] = (),
    title: str = "",
    points: Sequence[np.ndarray] = (),
    *,
    size: Size = None,
    fig: FigureBase | None = None,
) -> Figure:
    """Images in the first row, then one row of overlaid maps per entry.

    images : (image, height, width, 3) uint8
    rows     : row label -> (image, height, width) maps
    points   : per image (fixation, 2) x, y in its pixels, drawn on the image; those beside it
               are not
    """
    count, height = len(images), len(rows) + 1
    beside = 2.8 if height > 8 else 1.1  # labels lie there where there are many rows
    wide = 1.15 * count + beside
    cell = max(width_of(wide, size, fig) - beside, 0.0) / count
    sheet = lay_out((wide, 1.03 * cell * height + 0.4), height, count, size=size, fig=fig)
    axes = sheet.axes
    for column, image in enumerate(images):
        axes[0, column].imshow(image)
        if len(column_titles):
            sheet.panel_title(axes[0, column], column_titles[column], "x-small")
        if len(points):
            draw_points(axes[0, column], points[column], image.shape[:2])
        for line, maps in enumerate(rows.values(), 1):
            axes[line, column].imshow(overlay(image, maps[column]))
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    names = [name.replace("Threshold-", "Threshold-\n").replace(", ", ",\n")
             for name in ["image", *rows]]  # fmt: skip
    sheet.names_of_images(axes[:, 0], names, 0.0 if height > 8 else cell)
    draw_map_scale(sheet.figure, axes[1:] if len(rows) else axes, min(0.6, 4 / height))
    sheet.above(title)
    return sheet.shown


def draw_points(ax: Axes, points: np.ndarray, sides: tuple[int, int], **marks: object) -> None:
    """Fixations on an image of these sides (height, width)."""
    height, width = sides
    within = ((points >= 0) & (points <= (width, height))).all(axis=1)
    x, y = points[within].T - 0.5  # the centre of the first pixel is (0.5, 0.5), drawn at (0, 0)
    usual = {"s": large(0.37) ** 2, "c": "#E69F00", "edgecolors": "black", "linewidths": thick(0.2)}
    ax.scatter(x, y, **usual | marks)
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def draw_map_scale(fig: FigureBase, axes: np.ndarray, share: float) -> None:
    """The colours of overlaid maps, beside these axes and so much of their height."""
    scale = plt.cm.ScalarMappable(cmap=HEATMAP_COLOURS)
    bar = fig.colorbar(
        scale, ax=axes, ticks=[0, 1], shrink=share, pad=0.01, fraction=0.05, aspect=25
    )
    bar.ax.set_yticklabels(["map's\nminimum", "map's\nmaximum"], fontsize="x-small")


def plot_kernels(
    kernels: Mapping[str, np.ndarray],
    title: str = "",
    *,
    size: Size = None,
    fig: FigureBase | None = None,
) -> Figure:
    """Learned kernels, a row per layer: (kernel, size, size) each, each on its own scale."""
    if not kernels:
        return plot_nothing("no DCLS layer: this model has no DCLS form", size=size)
    count = max(len(k) for k in kernels.values())
    wide = count * 0.62 + 1.6
    cell = max(width_of(wide, size, fig) - 1.6, 0.0) / count
    high = len(kernels) * max(1.16 * cell, row_of(0.4)) + 0.6
    sheet = lay_out((wide, high), len(kernels), count, size=size, fig=fig)
    for line, (label, stack) in zip(sheet.axes, kernels.items(), strict=True):
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(True)
            ax.spines[:].set(color="0.8")
        for ax, kernel in zip(line, stack, strict=False):
            reach = np.abs(kernel).max() or 1.0
            image = ax.imshow(kernel, cmap=KERNEL_COLOURS, vmin=-reach, vmax=reach)
            image.set_norm(SymLogNorm(reach / 50, vmin=-reach, vmax=reach))
        for ax in line[len(stack) :]:
            ax.set_visible(False)
        label = wrapped(label, 0.3 * sheet.width, "x-small", name=True)
        line[0].set_ylabel(label, fontsize="x-small", rotation=0, ha="right", va="center")
    scale = plt.cm.ScalarMappable(SymLogNorm(0.02, vmin=-1, vmax=1), cmap=KERNEL_COLOURS)
    bar = sheet.figure.colorbar(
        scale, ax=sheet.axes, shrink=0.6, pad=0.01, ticks=[-1, -0.1, 0, 0.1, 1]
    )
    bar.ax.set_yticklabels(["−1", "−.1", "0", ".1", "1"], fontsize="x-small")
    said = wrapped("weight ÷ the kernel's largest", 0.6 * high, "x-small")
    bar.set_label(said, fontsize="x-small")
    sheet.above(title)
    return sheet.shown


def plot_receptive_fields(
    fields: Mapping[Backbone, Mapping[str, np.ndarray]],
    count: int,
    *,
    size: Size = None,
    fig: FigureBase | None = None,
) -> Figure:
    """Effective receptive fields without and with DCLS, a column per backbone.

    fields : backbone -> {"without DCLS": (side, side), "with DCLS": …}, each with
    its largest value 1; drawn logarithmically; count : images averaged over
    """
    names = list(dict.fromkeys(name for images in fields.values() for name in images))
    columns = panels_across(len(fields), 1.35, len(fields), size, fig)
    bands, wide = -(-len(fields) // columns), 1.35 * columns + 1.2
    cell = max(width_of(wide, size, fig) - 1.2, 0.0) / columns
    sheet = lay_out((wide, bands * (1.07 * cell * len(names) + 0.2) + 0.4), bands * len(names),
                    columns, size=size, fig=fig)  # fmt: skip
    axes = sheet.axes
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for number, (backbone, images) in enumerate(fields.items()):
        band, column = divmod(number, columns)
        of_model = axes[band * len(names) : (band + 1) * len(names), column]
        for ax, name in zip(of_model, names, strict=True):
            if name in images:  # a model without a DCLS form leaves its place empty
                ax.spines[:].set_visible(True)
                strength = np.log10(np.maximum(images[name], 1e-3))
                image = ax.imshow(strength, vmin=-3, vmax=0, cmap="magma")
        sheet.panel_title(of_model[0], backbone.label, "small", name=True)
    sheet.names_of_images(axes[:, 0], names * bands, cell)
    bar = sheet.figure.colorbar(image, ax=axes, shrink=0.8, pad=0.01)
    bar.set_label("log₁₀ of mean\n|gradient|, peak = 0", fontsize="small")
    sheet.above(f"Effective receptive field of the central feature (mean over {count} images)")
    return sheet.shown
