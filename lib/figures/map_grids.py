"""Grids of heatmaps: images, models and methods side by side, in as many figures as they take."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .heatmaps import draw_map_scale, overlay
from .style import lay_out, points_of, row_of

MOST_COLUMNS, MOST_ROWS = 8, 12  # of one figure, its row of images not counted
_FLOWING = 6  # columns of one image's and one model's maps
_CELL = 1.55  # inches
_WIDEST = 22  # characters of a model's or method's label
_LONGEST = 25  # characters above a cell
_COLOURS_SAY = "Colours: from each map's own minimum to its maximum. Grey: not seen by the model."
_WARNING = "#a00000"


@dataclass(frozen=True)
class Cell:
    """One place of a grid.

    image : (side, side, 3) uint8
    heatmap : (side, side), as `overlay` takes it; None shows the image itself
    words   : above it
    remark  : below the words, in red
    """

    image: np.ndarray
    heatmap: np.ndarray | None = None
    words: str = ""
    remark: str = ""


Row = tuple[str, list[Cell]]


def plot_map_grids(
    images: Sequence[tuple[str, np.ndarray]],
    models: Sequence[str],
    methods: Sequence[str],
    maps: np.ndarray,
    words: np.ndarray,
    remarks: np.ndarray,
    note: str = "",
) -> list[Figure]:
    """Every image's maps by every model and method, in figures of at most 8 columns of 12 maps.

    images : (name, (side, side, 3) uint8) of each
    models, methods : their labels
    maps     : (image, model, method, side, side)
    words    : (image, model) texts, the class explained and its probability
    remarks  : (image, model, method) texts, what is wrong with a map; "" for nothing
    note     : printed at each figure's foot, in red

    Of several images each is a column, and each pair of model and method a row. Of one image each
    model is a column and each method a row; of one image and one model the methods follow one
    another.
    """
    every_model, every_method = range(len(models)), range(len(methods))
    first, pixels = _short(images[0][0]), images[0][1]

    def cell(image: int, model: int, method: int, before: str = "") -> Cell:
        place = image, model, method
        said = "\n".join(filter(None, [before, _short(words[image, model])]))
        return Cell(images[image][1], maps[place], said, remarks[place])

    if len(images) == len(models) == 1:
        cells = [Cell(pixels, words=first)]
        cells += [cell(0, 0, k, _wrapped(methods[k])) for k in every_method]
        width = min(_FLOWING, math.ceil(math.sqrt(2 * len(cells))))
        rows = [("", cells[at : at + width]) for at in range(0, len(cells), width)]
        return [_plot(rows[part], models[0], note) for part in _parts(len(rows), MOST_ROWS)]
    if len(images) == 1:
        title = first
        heads = [Cell(pixels, words=_wrapped(label)) for label in models]
        rows = [(methods[k], [cell(0, m, k) for m in every_model]) for k in every_method]
    else:
        title = models[0] if len(models) == 1 else methods[0] if len(methods) == 1 else ""
        heads = [Cell(pixels, words=_short(name)) for name, pixels in images]
        rows = [
            (
                # What the title does not say already.
                "\n".join([models[m]] * (len(models) > 1) + [methods[k]] * (title != methods[k])),
                [cell(p, m, k) for p in range(len(images))],
            )
            for m, k in product(every_model, every_method)
        ]
    return [
        _plot([("", heads[part]), *((label, cells[part]) for label, cells in rows[lines])],
              title, note)
        for part in _parts(len(heads), MOST_COLUMNS)
        for lines in _parts(len(rows), MOST_ROWS)
    ]  # fmt: skip


def _parts(count: int, most: int) -> list[slice]:
    """Slices of at most so many, as even as they can be."""
    size = math.ceil(count / math.ceil(count / most))
    return [slice(at, at + size) for at in range(0, count, size)]


def _short(text: str) -> str:
    """As much of a line as a cell is wide, its beginning and its end."""
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[: half - 1].rstrip()}…{text[-half:].lstrip()}"


def _wrapped(label: str) -> str:
    """In as many lines as it takes."""
    return textwrap.fill(label, _WIDEST)


def _plot(rows: Sequence[Row], title: str, note: str) -> Figure:
    count = max(len(cells) for _, cells in rows)
    labels = ["\n".join(map(_wrapped, text.splitlines())) for text, _ in rows]
    beside = 1.5 if any(labels) else 0.1
    # The layout makes all cells as large as the tightest allows: there is room for each's words.
    height = sum(_CELL + 0.14 + row_of(0.12) * max(map(_lines, cells)) for _, cells in rows)
    size = _CELL * count + beside + 0.7, height + 0.4 + 0.25 * bool(title)
    sheet = lay_out(size, len(rows), count)
    fig, axes = sheet.figure, sheet.axes
    for line, label, (_, cells) in zip(axes, labels, rows, strict=True):
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for ax in line[len(cells) :]:
            ax.set_visible(False)
        for ax, cell in zip(line, cells, strict=False):
            _draw(ax, cell)
        line[0].set_ylabel(label, fontsize="small", rotation=0, ha="right", va="center",
                           parse_math=False)  # fmt: skip
    draw_map_scale(fig, axes, min(0.6, 4 / height))
    fig.suptitle(title, parse_math=False)
    fig.supxlabel(_COLOURS_SAY, fontsize="x-small", color="0.4")
    # Below what the layout fills; the saved image is as large as it takes.
    fig.text(0.5, -0.05 / size[1], note, ha="center", va="top", fontsize="x-small", color=_WARNING)
    return sheet.shown


def _lines(cell: Cell) -> int:
    return len([*cell.words.splitlines(), *cell.remark.splitlines()])


def _draw(ax: Axes, cell: Cell) -> None:
    if cell.heatmap is None:
        ax.imshow(cell.image)
    else:
        ax.imshow(overlay(cell.image, cell.heatmap))
    size = "small" if cell.heatmap is None else "x-small"
    gap = 3 + 1.3 * points_of("x-small") * bool(cell.remark)
    ax.set_title(cell.words, fontsize=size, pad=gap, parse_math=False)
    if cell.remark:
        ax.annotate(cell.remark, (0.5, 1), (0, 3), xycoords="axes fraction", ha="center",
                    textcoords="offset points", fontsize="x-small", color=_WARNING)  # fmt: skip
