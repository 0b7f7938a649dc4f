"""Figures of images, maps laid over them, kernels and receptive fields."""

from __future__ import annotations

import re
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
    rows   : row label -> (image, height, width) maps; of a map that is constant the image is
             drawn, and that it is constant
    points : per image (fixation, 2) x, y in its pixels, drawn on the image; those beside it
             are not
    """
    count, height = len(images), len(rows) + 1
    beside = 2.0 if height > 8 else 1.1  # labels lie there where there are many rows
    wide = min(1.15 * count + beside, _PAGE[0])
    cell = max(width_of(wide, size, fig) - beside, 0.0) / count
    if size is None and fig is None:  # on one page
        cell = min(cell, _PAGE[1] / height)
        wide = max(cell * count + beside, min(wide, 3.3))
    sheet = lay_out((wide, 1.03 * cell * height + 0.4), height, count, size=size, fig=fig)
    axes = sheet.axes
    for column, image in enumerate(images):
        axes[0, column].imshow(image)
        if len(column_titles):
            name = wrapped(column_titles[column], 0.95 * cell, "x-small", name=True)
            sheet.panel_title(axes[0, column], name, "x-small")
        if len(points):
            draw_points(axes[0, column], points[column], image.shape[:2])
        for line, maps in enumerate(rows.values(), 1):
            draw_map(axes[line, column], image, maps[column])
    _bare(axes)
    names = [name.replace("Threshold-", "Threshold-\n").replace(", ", ",\n")
             for name in ["image", *rows]]  # fmt: skip
    sheet.names_of_images(axes[:, 0], names, 0.0 if height > 8 else cell)
    draw_map_scale(sheet.figure, axes[1:] if len(rows) else axes, min(0.6, 4 / height))
    sheet.above(title)
    return sheet.shown


_PAGE = 7.2, 8.4  # inches: the width of two columns of a journal, and what a page's height leaves


def plot_method_grid(
    image: np.ndarray,
    models: Sequence[str],
    maps: Mapping[str, np.ndarray],
    title: str = "",
    *,
    size: Size = None,
    fig: FigureBase | None = None,
) -> Figure:
    """Every method's map of one image: a column per method, a row per model, in bands of as many
    methods as a page is wide; the image itself stands first.

    image : (height, width, 3) uint8
    maps  : method -> (model, height, width); of a map that is constant the image is drawn, and
            that it is constant
    """
    labels = ["image", *maps]
    across = max(1, min(len(labels), int((width_of(_PAGE[0], size, fig) - 1.0) / 0.68)))
    bands = -(-len(labels) // across)
    across = -(-len(labels) // bands)
    beside = 1.0
    wide = min(1.15 * across + beside, _PAGE[0])
    cell = max(width_of(wide, size, fig) - beside, 0.0) / across
    names = [wrapped(label, 0.98 * cell, "x-small", name=True) for label in labels]
    lines = [max(name.count("\n") + 1 for name in names[at : at + across])
             for at in range(0, len(names), across)]  # fmt: skip
    high = 1.03 * cell * len(models) * bands + sum(lines) * row_of(0.13) + 0.1 * bands + 0.2
    sheet = lay_out((wide, high), bands * len(models), across, size=size, fig=fig)
    _bare(sheet.axes)
    for place, (label, name) in enumerate(zip(labels, names, strict=True)):
        band, column = divmod(place, across)
        of_label = sheet.axes[band * len(models) : (band + 1) * len(models), column]
        for number, ax in enumerate(of_label):
            if place == 0:
                ax.imshow(image)
            else:
                draw_map(ax, image, maps[label][number])
        of_label[0].set_title(name, fontsize="x-small", pad=2)
    for ax in sheet.axes[-len(models) :, len(labels) - (bands - 1) * across :].flat:
        ax.set_visible(False)
    sheet.names_of_images(sheet.axes[:, 0], [*models] * bands, cell)
    draw_map_scale(sheet.figure, sheet.axes, min(0.5, 2.5 / high))
    sheet.above(title)
    return sheet.shown


def _bare(axes: np.ndarray) -> None:
    """Images need no ticks and no frame; beyond the first column, whose axes bear names, no axes
    either, which would take most of the time that the figure takes."""
    for ax in axes[:, 0]:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax in axes[:, 1:].flat:
        ax.set_axis_off()


def draw_map(ax: Axes, image: np.ndarray, heatmap: np.ndarray) -> None:
    """A map over its image as `overlay`; of a map that is constant the image and the word."""
    known = np.asarray(heatmap)[np.isfinite(heatmap)]
    constant = not len(known) or known.min() == known.max()
    shown = np.full(image.shape[:2], np.nan) if constant else heatmap
    ax.imshow(np.round(255 * overlay(image, shown)).astype(np.uint8))  # bytes are drawn faster
    if constant:
        ax.text(0.5, 0.5, "constant", transform=ax.transAxes, ha="center", va="center",
                fontsize="x-small",
                bbox={"boxstyle": "square,pad=0.15", "fc": "white", "lw": 0})  # fmt: skip


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
    bar.ax.set_yticklabels(["minimum\nof a map", "maximum\nof a map"], fontsize="x-small")


def plot_kernels(
    kernels: Mapping[str, np.ndarray],
    title: str = "",
    *,
    size: Size = None,
    fig: FigureBase | None = None,
) -> Figure:
    """Learned kernels, a row per layer, each on its own scale; cropped, all alike, to the cells
    around the centre that hold a weight above a hundredth of its kernel's largest.

    kernels : layer -> (kernel, size, size), sizes odd or even, the centre in the middle
    """
    if not kernels:
        return plot_nothing("no DCLS layer: this model has no DCLS form", size=size)
    count, beside = max(len(k) for k in kernels.values()), 1.9
    shown = max(_content(stack) for stack in kernels.values())
    wide = min(count * 0.62 + beside, _PAGE[0])
    cell = max(width_of(wide, size, fig) - beside, 0.0) / count
    high = len(kernels) * max(1.1 * cell, row_of(0.4)) + 0.6
    sheet = lay_out((wide, high), len(kernels), count, size=size, fig=fig)
    for line, (label, stack) in zip(sheet.axes, kernels.items(), strict=True):
        window = stack.shape[-1]
        cut = max(0, (window - shown) // 2)
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(True)
            ax.spines[:].set(color="0.8")
        for ax, kernel in zip(line, stack, strict=False):
            reach = np.abs(kernel).max() or 1.0
            inner = kernel[cut : window - cut, cut : window - cut]
            image = ax.imshow(inner, cmap=KERNEL_COLOURS, vmin=-reach, vmax=reach)
            image.set_norm(SymLogNorm(reach / 50, vmin=-reach, vmax=reach))
        for ax in line[len(stack) :]:
            ax.set_visible(False)
        label = wrapped(in_words(label), 0.3 * sheet.width, "x-small", name=True)
        line[0].set_ylabel(label, fontsize="x-small", rotation=0, ha="right", va="center")
    scale = plt.cm.ScalarMappable(SymLogNorm(0.02, vmin=-1, vmax=1), cmap=KERNEL_COLOURS)
    bar = sheet.figure.colorbar(
        scale, ax=sheet.axes, shrink=0.8, pad=0.01, ticks=[-1, -0.1, 0, 0.1, 1]
    )
    bar.ax.set_yticklabels(["−1", "−0.1", "0", "0.1", "1"], fontsize="x-small")
    bar.ax.minorticks_off()
    said = wrapped("weight ÷ the kernel's largest", 0.8 * high, "x-small")
    bar.set_label(said, fontsize="x-small")
    windows = sorted({stack.shape[-1] for stack in kernels.values()})
    if windows[0] > shown:
        learned = " or ".join(f"{side} × {side}" for side in windows)
        sheet.below(f"shown: the central {shown} × {shown} cells of windows of {learned}; beyond "
                    "them no weight is above 1 % of its kernel's largest", "x-small")  # fmt: skip
    sheet.above(title)
    return sheet.shown


def _content(stack: np.ndarray) -> int:
    """The side of the smallest square around the centre that holds all that can be seen."""
    window = stack.shape[-1]
    sizes = np.abs(stack)
    seen = (sizes > 0.01 * sizes.max(axis=(1, 2), keepdims=True)).any(axis=0)
    places = np.argwhere(seen)
    if not len(places):
        return window
    cut = int(min(places.min(), window - 1 - places.max()))
    return max(window - 2 * cut, min(3, window))


_LAYERS = re.compile(
    r"^(?:stages\.(?P<stage>\d+)(?:\.blocks)?\.(?P<block>\d+)|layer(?P<layer>\d+)\.(?P<of>\d+))\."
    r"[\w.]+"
)


def in_words(name: str) -> str:
    """A layer's name as "stage 3, block 2", from 1, where it tells its stage; else as it is."""
    found = _LAYERS.match(name)
    if not found:
        return name
    stage, block = found["stage"], found["block"]
    number = int(stage) + 1 if stage is not None else int(found["layer"])
    block = int(block if block is not None else found["of"]) + 1
    return f"stage {number}, block {block}{name[found.end() :]}"


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
    least = 1.35 if len(fields) < 5 else 0.9
    columns = panels_across(len(fields), least, min(len(fields), 8), size, fig)
    bands, wide = -(-len(fields) // columns), min(1.35 * columns + 1.2, _PAGE[0])
    cell = max(width_of(wide, size, fig) - 1.2, 0.0) / columns
    sheet = lay_out((wide, bands * (1.07 * cell * len(names) + 0.2) + 0.4), bands * len(names),
                    columns, size=size, fig=fig)  # fmt: skip
    axes = sheet.axes
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    sides = {key: next(iter(images.values())).shape[-1] for key, images in fields.items()}
    for number, (backbone, images) in enumerate(fields.items()):
        band, column = divmod(number, columns)
        of_model = axes[band * len(names) : (band + 1) * len(names), column]
        for ax, name in zip(of_model, names, strict=True):
            if name in images:  # a model without a DCLS form leaves its place empty
                ax.spines[:].set_visible(True)
                strength = np.log10(np.maximum(images[name], 1e-3))
                image = ax.imshow(strength, vmin=-3, vmax=0, cmap="magma")
        sheet.panel_title(of_model[0], backbone.label, "x-small", name=True)
        if number == 0 or len(set(sides.values())) > 1:
            _ruler(of_model[0], sides[backbone])
    sheet.names_of_images(axes[:, 0], names * bands, cell)
    bar = sheet.figure.colorbar(image, ax=axes, shrink=0.8, pad=0.01, ticks=[-3, -2, -1, 0])
    bar.ax.set_yticklabels(["0.001", "0.01", "0.1", "1"], fontsize="x-small")
    bar.set_label("mean |gradient| ÷ its peak", fontsize="x-small")
    inputs = " or ".join(f"{side} × {side}" for side in sorted(set(sides.values())))
    sheet.above(f"Each panel is the whole input, {inputs} pixels; n = {count} images", "small")
    return sheet.shown


def _ruler(ax: Axes, side: int) -> None:
    """A bar of a round number of pixels, about a quarter of the input's side, in a corner."""
    unit = 10 ** int(np.log10(max(side / 4, 1)))
    length = max(step * unit for step in (1, 2, 5) if step * unit <= max(side / 4, 1))
    left, low = 0.06 * side, 0.92 * side
    ax.plot([left, left + length], [low, low], color="white", lw=thick(1.2), solid_capstyle="butt")
    ax.text(left, low - 0.03 * side, f"{length} px", color="white", fontsize="x-small", va="bottom")
    ax.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
