"""The look that all figures share: style file, colours, marks, and where a figure is drawn.

Fonts, lines and marks are shares of matplotlib's own settings, so that a figure looks as whoever
draws it has styled it. `Sheet` makes what is written as wide as the place for it.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import is_color_like
from matplotlib.figure import Figure, FigureBase
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path

from ..maps.methods import METHODS
from ..networks.backbones import BACKBONES
from ..study.rules import RULES
from .captions import FEWEST_WITH_INTERVAL

STYLE = Path(__file__).with_name("study.mplstyle")
HEATMAP_COLOURS, KERNEL_COLOURS = "viridis", "RdBu_r"
PLAIN_COLOUR, DCLS_COLOUR = "0.45", "#0072B2"  # of models without and with DCLS
# Okabe and Ito's colours, which readers with any colour vision tell apart, the darkest first. The
# yellow is missing because a line in it hardly shows on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = "osD^v<>PX*hp"


_own_colours: ContextVar[Mapping[str, str]] = ContextVar(
    "_own_colours", default=MappingProxyType({})
)


def colour_of(backbone: str) -> str:
    """A model's colour: the one asked for by `model_colours`, else its row's."""
    return asked_colour(backbone, "") or BACKBONES[backbone].colour


def asked_colour(backbone: str, otherwise: str) -> str:
    """The colour asked for by `model_colours`, else another; the model may be of another run."""
    return _own_colours.get().get(backbone, otherwise)


@contextmanager
def model_colours(colours: Mapping[str, str]) -> Iterator[None]:
    """Colours of one's own for models, in all figures drawn within this `with` block.

    colours : {key of a model: any colour of matplotlib's}
    Raises UnknownName for a model and ValueError for a colour that there is not.
    """
    for key, colour in colours.items():
        label = BACKBONES[key].label
        if not is_color_like(colour):
            raise ValueError(f"{colour!r}, for {label}, is no colour of matplotlib's")
    token = _own_colours.set({**_own_colours.get(), **colours})
    try:
        yield
    finally:
        _own_colours.reset(token)


def methods_of(frame: pd.DataFrame) -> list[str]:
    """The methods that a table holds, in the order of `METHODS`."""
    known = set(frame.method)
    return [key for key in METHODS if key in known]


def use_study_style() -> None:
    """The study's look for all figures of this session; notebooks call it once."""
    plt.style.use(STYLE)


def plot_nothing(why: str, *, size: Size = None, ax: Axes | None = None) -> Figure:
    """Where there is nothing to draw: why."""
    sheet = lay_out((5, 0.8), size=size, ax=ax)
    sheet.only.text(0.5, 0.5, wrapped(why, 0.95 * sheet.width), ha="center", va="center",
                    transform=sheet.only.transAxes)  # fmt: skip
    sheet.only.set_axis_off()
    return sheet.shown


def cautious(fewest: float) -> str:
    """What is said behind a number of images of which intervals allow for unseen ones."""
    few = f" (fewer than {RULES.fewest_images}: cautious intervals)"
    return few if fewest < RULES.fewest_images else ""


def enough(frame: pd.DataFrame) -> pd.DataFrame:
    """The ends `low, high` of each row, missing where it has too few images for an interval."""
    return frame[["low", "high"]].where(frame.n >= FEWEST_WITH_INTERVAL)


def error_bars(n: pd.Series) -> str:
    """What error bars are, of figures that draw those of `enough`."""
    if n.max() < FEWEST_WITH_INTERVAL:
        return f"no error bars: fewer than {FEWEST_WITH_INTERVAL} images"
    where = f", where n is {FEWEST_WITH_INTERVAL} or more" * bool(n.min() < FEWEST_WITH_INTERVAL)
    return f"error bars: 95 % intervals{where}"


def span(numbers: pd.Series) -> str:
    """Whole numbers as "8", or "3–8" where they differ."""
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low}" if low == high else f"{low}–{high}"


def score_unit(table: pd.DataFrame) -> str:
    """What a score is, for an axis: by its table's column `ceiling`."""
    known = table.ceiling.dropna()
    if known.empty:
        return "agreement ρ; ceiling unknown"
    low, high = f"{known.min():.3f}", f"{known.max():.3f}"
    return f"agreement ρ ÷ ceiling {low if low == high else f'{low}–{high}'}"


def form_labels(has_dcls: Iterable[bool]) -> dict[bool, str]:
    """{dcls: what a legend calls the form}, of those that are drawn; {} without any DCLS form,
    where there is no pair to tell apart."""
    drawn = set(map(bool, has_dcls))
    if True not in drawn:
        return {}
    names = {False: "without DCLS", True: "with DCLS"}
    return {dcls: name for dcls, name in names.items() if dcls in drawn}


def thick(share: float = 1.0) -> float:
    """A line's width in points, as a share of the style's."""
    return share * plt.rcParams["lines.linewidth"]


def large(share: float = 1.0) -> float:
    """A mark's size in points, as a share of the style's."""
    return share * plt.rcParams["lines.markersize"]


def points_of(size: str | float = "medium") -> float:
    """A font size in points: "small" and its like are shares of the style's `font.size`."""
    return FontProperties(size=size).get_size_in_points()


def row_of(inches: float) -> float:
    """The height of a row of text, given in inches for 9 points, at the style's font size."""
    return inches * points_of() / 9


def text_width(text: str, size: str | float = "medium") -> float:
    """How wide the widest line of a text is, in inches, in the style's font."""
    font = FontProperties(size=size)
    widths = [text_to_path.get_text_width_height_descent(line, font, False)[0]
              for line in text.split("\n") if line]  # fmt: skip
    return max(widths, default=0.0) / 72


# Names of models are one word; they may be broken after these.
_IN_WORDS = re.compile(r"\S+\s*")
# A name breaks after these; a number stays whole.
_PART, _BREAK = r"(?:[^\s_./:@,-]|(?<=\d)\.(?=\d))", r"(?:[\s_/:@,-]|(?<!\d)\.|\.(?!\d))"
_IN_NAMES = re.compile(rf"{_PART}*{_BREAK}+|{_PART}+")


def wrapped(text: str, inches: float, size: str | float = "medium", name: bool = False) -> str:
    """A text in lines no wider than so many inches; its own line breaks stay.

    name : may be broken within words, at `_`, `.` and their like
    """
    lines = []
    for line in text.split("\n"):
        if text_width(line, size) <= inches:
            lines.append(line)
            continue
        kept = ""
        for piece in (_IN_NAMES if name else _IN_WORDS).findall(line):
            if kept and text_width((kept + piece).rstrip(), size) > inches:
                lines.append(kept.rstrip())
                kept = ""
            kept += piece
        lines.append(kept.rstrip())
    return "\n".join(lines)


Size = tuple[float, float | None] | None


@dataclass
class Sheet:
    """Where a figure is drawn: one of its own, somebody's figure, or one Axes of theirs.

    figure : holds the axes; of somebody's Axes nothing of it is touched
    axes   : (rows, columns) of Axes
    width  : inches for the whole drawing
    inside : drawn into somebody's Axes
    free   : the figure may become higher, by as much as what is written takes
    needed : the height that would do, in inches
    named, keyed : what names and a legend beside the panels take, in inches
    """

    figure: FigureBase
    axes: np.ndarray
    width: float
    inside: bool
    free: bool
    needed: float = 0.0
    named: float = 0.0
    keyed: float = 0.0

    @property
    def only(self) -> Axes:
        return self.axes[0, 0]

    @property
    def shown(self) -> Figure:
        """What a function of figures returns. Warns where it is too low for what is written."""
        high = self.figure.bbox.height / self.figure.get_dpi()
        if not self.inside and high < _TIGHTEST * self.needed:
            warnings.warn(
                f"a figure {high:.1f} in high is too low for its labels, which need about "
                f"{self.needed:.1f}; size=({self.width:g}, None) is as high as it needs to be",
                stacklevel=3,
            )
        return self.figure.get_figure(root=True)

    @property
    def panel(self) -> float:
        """About how wide a panel is, in inches."""
        if self.inside:
            return self.width
        numbers = row_of(0.35 if self.named else 0.7)
        columns = self.axes.shape[1]
        between = 1 if columns == 1 else 0.93
        return (
            between
            * max(self.width - self.named - self.keyed - numbers, 0.3 * self.width)
            / columns
        )

    def grow(self, inches: float) -> None:
        """Make room for what is written, where the height is not somebody's choice."""
        self.needed += max(inches, 0.0)
        if self.free and inches > 0:
            self.figure.set_figheight(self.figure.get_figheight() + inches)

    def panel_title(
        self, ax: Axes, text: str, size: str | float | None = None, name: bool = False
    ) -> None:
        """The title of one panel; its height is part of the layout."""
        size = size or plt.rcParams["axes.titlesize"]
        broken = wrapped(text, self.panel, size, name)
        ax.set_title(broken, fontsize=size)
        if ax in self.axes[:, 0]:
            self.grow((broken.count("\n") - text.count("\n")) * _line(size))

    def title(self, text: str, size: str | float | None = None) -> None:
        """The title of the one panel."""
        self.panel_title(self.only, text, size)

    def above(self, text: str, size: str | float | None = None) -> None:
        """A title of all panels."""
        if not text:
            return
        size = size or plt.rcParams["axes.titlesize"]
        if self.inside:
            self.panel_title(self.only, text, size)
            return
        text = wrapped(text, 0.96 * self.width, size)
        self.figure.suptitle(text, fontsize=size)
        self.grow(text.count("\n") * _line(size))

    def below(self, text: str, size: str | float = "small") -> None:
        """What the horizontal axis of all panels says."""
        if self.inside:
            self.only.set_xlabel(wrapped(text, self.width))
            return
        broken = wrapped(text, 0.96 * self.width, size)
        self.figure.supxlabel(broken, fontsize=size)
        self.grow((broken.count("\n") - text.count("\n")) * _line(size))

    def left(self, text: str, size: str | float = "small") -> None:
        """What the vertical axis of all panels says."""
        high = self.only.bbox.height if self.inside else self.figure.bbox.height
        broken = wrapped(text, 0.96 * high / self.figure.get_dpi(), size)
        if self.inside:
            self.only.set_ylabel(broken)
        else:
            self.figure.supylabel(broken, fontsize=size)

    def legend(
        self, handles: Sequence[Artist] | None = None, title: str = "", columns: int = 3,
        beside: bool = False,
    ) -> None:  # fmt: skip
        """The one legend of all panels: above them, or to their right if asked and narrow enough.
        Within somebody's Axes: where matplotlib finds it best. It replaces an earlier one.

        handles : labelled artists; None: those of the first panel
        columns : at most so many, above
        """
        if handles is None:
            handles = self.only.get_legend_handles_labels()[0]
        if not handles:
            return
        for earlier in self.figure.legends if not self.inside else ():
            earlier.remove()
        size, em = plt.rcParams["legend.fontsize"], points_of(plt.rcParams["legend.fontsize"]) / 72
        names = [handle.get_label() for handle in handles]
        around = 5 * em  # the mark, and the space to the next column
        if self.inside:
            room, side, columns = 0.6 * self.width, "best", 1
        elif beside and self._leaves_room(max(map(text_width, [*names, title])) + around):
            room, side, columns = 0.42 * self.width, "outside right center", 1
        else:
            room, side = 0.96 * self.width, "outside upper center"
        if "upper" in side and self.figure.get_suptitle():  # they would lie on one another
            title = "\n".join(filter(None, [self.figure.get_suptitle(), title]))
            self.figure.suptitle("")
        names = [wrapped(name, room - around, size, name=True) for name in names]
        widest = max(text_width(name, size) for name in names) + around
        columns = max(1, min(columns, len(names), int(room / widest)))
        title = wrapped(title, room, "small")
        options = {"handles": handles, "labels": names, "title": title or None, "loc": side,
                   "ncols": columns, "title_fontsize": "small"}  # fmt: skip
        if self.inside:
            self.only.legend(**options)
            return
        made = self.figure.legend(**options)
        made.get_title().set_multialignment("center")
        deepest = max(name.count("\n") + 1 for name in names)
        entries = math.ceil(len(names) / columns)
        high = (deepest * entries + len(title.splitlines())) * _line(size) + 0.5 * em * entries
        if "upper" in side:
            self.grow(high - 2 * _line(size))
        else:
            self.keyed = max(widest, text_width(title, "small"))
            self.grow(high + em - self.figure.bbox.height / self.figure.get_dpi())

    def _leaves_room(self, wide: float) -> bool:
        """Whether the panels stay wide enough beside a legend of so many inches."""
        narrowest = (self.width - wide) / self.axes.shape[1]
        return wide < 0.42 * self.width and narrowest > row_of(1.4)

    def names_along_x(
        self, ax: Axes, names: Sequence[str], size: str = "medium", upright: bool = False
    ) -> None:
        """Names of places 0, 1, … below an axis, turned as far as they need."""
        slot, line = self.panel / max(len(names), 1), _line(size)
        names = [wrapped(name, max(12 * line, 0.9 * slot), size, name=True) for name in names]
        tall = max(name.count("\n") + 1 for name in names) * line
        wide = max(text_width(name, size) for name in names)
        turned = 0 if wide < 0.9 * slot and not upright else 90
        for degrees in () if upright or not turned else (45, 20):
            angle = math.radians(degrees)
            if slot * math.sin(angle) > tall and wide * math.cos(angle) < 0.3 * self.width:
                turned = degrees
        slanted = {"ha": "right", "rotation_mode": "anchor"} if 0 < turned < 90 else {}
        ax.set_xticks(range(len(names)), names, fontsize=size, rotation=turned, **slanted)
        self.grow(wide * math.sin(math.radians(turned)) - row_of(0.35))

    def scale(self, image: ScalarMappable, text: str, high: float) -> None:
        """The colours of the one panel's numbers, beside it and as part of it; `high` in inches."""
        place = self.only.inset_axes((1.03, 0.1, 0.04, 0.8))
        bar = self.figure.colorbar(image, cax=place)
        bar.set_label(wrapped(text, high, "small"), fontsize="small")
        bar.ax.tick_params(labelsize="small")

    def names_along_y(
        self, ax: Axes, names: Sequence[str], row: float, size: str = "medium"
    ) -> None:
        """Names of places 0, 1, … beside an axis: smaller, and in two lines, where they are long.

        row : the height that each has, in inches
        """
        room = 0.42 * self.width
        for smaller in (size, "small", "x-small"):
            broken = [wrapped(name, room, smaller, name=True) for name in names]
            if points_of(smaller) <= points_of(size):
                size = smaller
            if all(name.count("\n") < 2 for name in broken):
                break
        ax.set_yticks(range(len(names)), broken, fontsize=size)
        self.named = max([self.named, *(text_width(name, size) for name in broken)])
        deepest = max((name.count("\n") + 1 for name in broken), default=0) * _line(size)
        margins = 1 if len(names) < 2 else 1.2  # an axis goes beyond its outer places
        if deepest > row:
            self.grow((len(names) + 1) * (margins * deepest - row))

    def names_of_images(self, axes: Iterable[Axes], names: Sequence[str], cell: float) -> None:
        """Names of rows of images so many inches high: along them where they fit."""
        lying = max(text_width(name, "small") for name in names) > 1.05 * cell
        turned = {"rotation": 0, "ha": "right", "va": "center"} if lying else {}
        if lying:
            names = [wrapped(name, 0.25 * self.width, "small", name=True) for name in names]
            self.named = max(text_width(name, "small") for name in names)
        for ax, name in zip(axes, names, strict=True):
            ax.set_ylabel(name, fontsize="small", **turned)


_TIGHTEST = 0.55  # of the height that would do; below that labels lie on one another


def _line(size: str | float) -> float:
    """The height of a line of text, in inches."""
    return 1.25 * points_of(size) / 72


def width_of(
    default: float, size: Size = None, fig: FigureBase | None = None, ax: Axes | None = None
) -> float:
    """How wide the figure will be that `lay_out` makes of the same, in inches."""
    if ax is not None:
        return ax.bbox.width / ax.get_figure().get_dpi()
    if fig is not None:
        return fig.bbox.width / fig.get_dpi()
    return default if size is None else size[0]


def label_points(
    sheet: Sheet,
    ax: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    bars: Sequence[tuple[float, float, float, float]] = (),
    size: str = "x-small",
    covered: Sequence[Artist] = (),
) -> list[Artist]:
    """Write each point's name beside it, where it covers no mark, no bar and no other name.

    Names that would fill the panel become numbers, and the handles that are returned say in a
    legend which number is whose; else none is returned. The limits of the axes must be final.

    points : (x, y) in data
    bars   : (left, bottom, right, top) in data, of the intervals of the points
    covered : other words in the panel, which no name shall cover
    """
    if not points:
        return []
    if not sheet.inside:  # the layout gives the panel its size
        sheet.figure.get_figure(root=True).draw_without_rendering()
    scale = 72 / ax.get_figure(root=True).get_dpi()
    wide, high = ax.bbox.width * scale, ax.bbox.height * scale
    line = 1.15 * points_of(size)
    widths = [72 * text_width(name, size) for name in names]
    handles: list[Artist] = []
    texts = [*names]
    if max(widths) > 0.4 * wide or line * sum(widths) > _MOST_WRITTEN * wide * high:
        texts = [f"{number}" for number in range(1, len(names) + 1)]
        handles = [Line2D([], [], ls="none", label=f"{text}  {name}")
                   for text, name in zip(texts, names, strict=True)]  # fmt: skip
        widths = [72 * text_width(text, size) for text in texts]

    def placed(x: float, y: float) -> np.ndarray:
        return ax.transAxes.inverted().transform(ax.transData.transform((x, y))) * (wide, high)

    marks = np.array([placed(*point) for point in points])
    mark = 0.6 * large()
    taken = [np.array([*(at - mark), *(at + mark)]) for at in marks]
    for artist in covered:
        box = artist.get_window_extent().transformed(ax.transAxes.inverted())
        taken.append(np.array([*(box.min * (wide, high)), *(box.max * (wide, high))]))
    lines = [np.array([*(placed(a, b) - 1), *(placed(c, d) + 1)]) for a, b, c, d in bars]
    for text, width, at, point in zip(texts, widths, marks, points, strict=True):
        around = np.array([*_candidates(width, line)])
        boxes = np.hstack(
            [at + around - (width / 2, line / 2), at + around + (width / 2, line / 2)]
        )
        outside = np.maximum(0, -boxes[:, :2]).sum(axis=1) + np.maximum(
            0, boxes[:, 2:] - (wide, high)
        ).sum(axis=1)
        cost = np.hypot(*around.T) + 40 * outside
        cost += 5 * sum(_shared(boxes, one) for one in taken)
        cost += 2 * sum((_shared(boxes, one) for one in lines), np.zeros(len(boxes)))
        best = int(np.argmin(cost))
        taken.append(boxes[best])
        far = abs(around[best][1]) > 1.6 * line or abs(around[best][0]) > 0.5 * width + 2 * mark + 4
        leader = {"arrowstyle": "-", "color": "0.6", "lw": thick(0.35), "shrinkA": 0, "shrinkB": 2}
        note = ax.annotate(
            text, point, around[best], textcoords="offset points", fontsize=size, ha="center",
            va="center", zorder=5, annotation_clip=False, arrowprops=leader if far else None,
        )  # fmt: skip
        note.set_in_layout(False)  # it lies within the panel, whose size shall stay
    return handles


_MOST_WRITTEN = 0.12  # of a panel's area


def _candidates(width: float, line: float) -> Iterator[tuple[float, float]]:
    """Where a text may lie, by its middle's distance from its point: near ones first."""
    for gap in (3, 8, 15, 24, 36, 50):
        across, up = width / 2 + gap, line / 2 + gap
        yield from ((across, 0), (-across, 0), (0, up), (0, -up))
        yield from ((across, up), (across, -up), (-across, up), (-across, -up))
        yield from ((width / 3, up), (-width / 3, up), (width / 3, -up), (-width / 3, -up))


def _shared(boxes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The area that each box has in common with another; (left, bottom, right, top) each."""
    low, high = np.maximum(boxes[:, :2], other[:2]), np.minimum(boxes[:, 2:], other[2:])
    return np.maximum(high - low, 0).prod(axis=1)


def panels_across(
    count: int, wide: float, most: int, size: Size = None, fig: FigureBase | None = None
) -> int:
    """How many of so many panels, about so wide in inches, lie side by side."""
    room = width_of(wide * most + 0.8, size, fig) - 0.5
    return max(1, min(most, count, round(room / (0.75 * wide))))


def lay_out(
    default: tuple[float, float],
    rows: int = 1,
    columns: int = 1,
    *,
    size: Size = None,
    fig: FigureBase | None = None,
    ax: Axes | None = None,
    **options: object,
) -> Sheet:
    """A figure of its own with so many panels, or somebody's to draw in.

    default : (width, height) in inches, if there is no `size`
    size    : (width, height) in inches; without a height (None) as high as it needs to be
    fig     : Figure or SubFigure in which the panels are made
    ax      : the Axes in which the one panel is drawn
    options : of `Figure.subplots`

    Raises ValueError where more than one of size, fig and ax is given, where `ax` is to hold
    several panels, and where a figure has no layout that keeps labels apart.
    """
    given = [
        name for name, value in (("size", size), ("fig", fig), ("ax", ax)) if value is not None
    ]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are given: a figure takes one of them")
    if ax is not None:
        if rows * columns > 1:
            raise ValueError(
                f"ax is one panel, and this table takes {rows * columns}: give fig (a Figure or "
                "SubFigure), or the rows of one panel only"
            )
        return Sheet(ax.get_figure(), np.array([[ax]]), width_of(0, ax=ax), True, False)
    width = width_of(default[0], size, fig)
    needed = default[1]
    free = fig is None and (size is None or size[1] is None)
    if fig is None:
        height = default[1] if free else size[1]
        if not (width > 0 and height > 0 and math.isfinite(width * height)):
            raise ValueError(f"size is (width, height) in inches, above 0, got {size}")
        fig = plt.figure(figsize=(width, height), layout="constrained")
    elif fig.get_figure(root=True).get_layout_engine() is None:
        raise ValueError(
            'fig has no layout, so that its labels would overlap: make it with layout="constrained"'
        )
    axes = fig.subplots(rows, columns, squeeze=False, **options)
    return Sheet(fig, axes, width, False, free, needed)
