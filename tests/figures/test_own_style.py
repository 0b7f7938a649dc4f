"""Figures are as large, and look, as whoever draws them wants; `docs/figures.md` keeps its word."""

from __future__ import annotations

import inspect
import re
import warnings
import zlib

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.text import Text

import lib.figures
from lib.base.paths import ROOT
from lib.base.tables import UnknownName
from lib.figures import (
    draw_files,
    model_colours,
    plot_beside_people,
    plot_heatmap_rows,
    plot_method_ranking,
    plot_nothing,
    plot_scanpaths,
)
from lib.figures.style import colour_of
from lib.networks.backbones import THE_EIGHT

LONG = "vit_base_patch16_clip_224.openai_ft_in12k_in1k"


@pytest.fixture(autouse=True)
def _default_style():
    with plt.style.context("default"):
        yield
    plt.close("all")


def ranking(names: list[str]) -> pd.DataFrame:
    scores = np.linspace(0.6, -0.2, len(names))
    return pd.DataFrame({
        "label": names, "score": scores, "low": scores - 0.02, "high": scores + 0.02, "n": 50,
        "pairs": 90, "pairs_in_all": 100, "ceiling": 0.65753,
    })  # fmt: skip


def people(names: list[str]) -> pd.DataFrame:
    rho = np.linspace(-0.1, 0.7, len(names))
    kinds = ["network"] * (len(names) - 1) + ["people"]
    return pd.DataFrame({"label": names, "kind": kinds, "rho": rho, "low": rho - 0.05,
                         "high": rho + 0.05, "n": 40})  # fmt: skip


def overflow(fig) -> float:
    """By how many inches what is drawn goes beyond its figure."""
    fig.draw_without_rendering()
    box, (width, height) = fig.get_tightbbox(), fig.get_size_inches()
    return max(-box.x0, -box.y0, box.x1 - width, box.y1 - height)


def overlaps(texts: list[Text]) -> list[tuple[str, str]]:
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    return [(a, b) for (a, one), (b, two) in zip(boxes, boxes[1:], strict=False)
            if one.overlaps(two)]  # fmt: skip


@pytest.mark.parametrize("names", [["one"], [LONG] * 2, [f"{LONG}_{n}" for n in range(30)]])
@pytest.mark.parametrize("draw", [lambda n, s: plot_method_ranking(ranking(n), size=s),
                                  lambda n, s: plot_beside_people(people(n), size=s)])  # fmt: skip
@pytest.mark.parametrize("width", [3.3, 2.4])
def test_nothing_overflows_or_overlaps_at_column_width(draw, names, width):
    fig = draw(names, (width, None))
    assert fig.get_figwidth() == width
    assert overflow(fig) < 0.02
    assert not overlaps(fig.axes[0].get_yticklabels())


@pytest.mark.parametrize("font", [{"font.size": 6}, {"font.size": 12, "font.family": "serif"}])
def test_fonts_are_the_styles(font):
    with plt.rc_context(font):
        fig = plot_beside_people(people(["a", "b"]), "title")
        ax = fig.axes[0]
        sizes = {round(text.get_fontsize() / font["font.size"], 3) for text in fig.findobj(Text)}
        shares = {"medium": 1, "small": 0.833, "x-small": 0.694, "large": 1.2}
        assert sizes <= set(shares.values())
        assert ax.get_title() == "title"
        assert {t.get_fontfamily()[0] for t in fig.findobj(Text)} == {
            plt.rcParams["font.family"][0]
        }


def test_lines_are_the_styles():
    widths = []
    for width in (1.0, 3.0):
        with plt.rc_context({"lines.linewidth": width, "lines.markersize": 2 * width}):
            (line, mark, *_) = plot_beside_people(people(["a"])).axes[0].lines
            widths.append((line.get_linewidth(), mark.get_markersize()))
    assert np.divide(*widths[::-1]).tolist() == pytest.approx([3, 3])


def test_a_figure_drawn_into_an_axes_touches_nothing_else():
    fig, (left, right) = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
    place, layout = left.get_position().bounds, fig.get_layout_engine()
    assert plot_beside_people(people(["a", "b"]), "people", ax=left) is fig
    assert plot_method_ranking(ranking(["a", "b"]), ax=right) is fig
    assert fig.axes == [left, right]
    assert (fig.legends, fig.texts, fig.get_suptitle(), fig.get_supxlabel()) == ([], [], "", "")
    assert fig.get_layout_engine() is layout
    assert left.get_position().bounds == place
    assert (left.get_title(), left.get_legend() is None) == ("people", False)
    assert "score over all models" in right.get_xlabel()
    assert overflow(fig) < 0.02


def test_a_figure_of_several_panels_is_drawn_into_a_part_of_another():
    fig = plt.figure(figsize=(7, 3), layout="constrained")
    left, right = fig.subfigures(1, 2)
    images, maps = (
        np.zeros((2, 16, 16, 3), np.uint8),
        np.random.default_rng(0).random((2, 16, 16)),
    )
    assert plot_heatmap_rows(images, {"people": maps}, title="images", fig=left) is fig
    points = [np.array([[3.0, 4.0], [8.0, 8.0]])] * 2
    assert plot_scanpaths(images, points, [np.array([0, 1])] * 2, fig=right) is fig
    assert (left.get_suptitle(), fig.get_suptitle()) == ("images", "")
    assert len(right.axes) == 2
    assert overflow(fig) < 0.02


def test_places_that_do_not_fit_together_are_refused():
    fig, ax = plt.subplots()
    with pytest.raises(ValueError, match="size and ax are given"):
        plot_nothing("why", size=(3, 2), ax=ax)
    for size in ((0, 2), (3, -1), (float("nan"), None)):
        with pytest.raises(ValueError, match="in inches, above 0"):
            plot_nothing("why", size=size)
    images = np.zeros((1, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match='make it with layout="constrained"'):
        plot_heatmap_rows(images, {}, fig=fig)
    with pytest.warns(UserWarning, match=r"too low for its labels.* size=\(3, None\)"):
        plot_method_ranking(ranking([f"{n}" for n in range(30)]), size=(3, 2))


def test_every_function_takes_a_size():
    drawing = [name for name in lib.figures.__all__ if name.startswith("plot_")]
    assert len(drawing) > 20
    for name in set(drawing) - {"plot_map_grids"}:  # as many figures as it takes
        given = inspect.signature(getattr(lib.figures, name)).parameters
        assert given["size"].kind is inspect.Parameter.KEYWORD_ONLY, name
        assert {"ax", "fig"} & set(given), name


def test_a_figure_gives_the_same_bytes_again(tmp_path):
    written = []
    for _ in range(2):
        draw_files(plot_method_ranking(ranking(["a", "b"])), tmp_path, "x")
        written.append([(tmp_path / f"x.{kind}").read_bytes() for kind in ("png", "pdf", "svg")])
    assert written[0] == written[1]
    assert written[0][2].startswith(b"<?xml")


# --- docs/figures.md -------------------------------------------------------------------------


def test_the_recipes_of_the_page_draw_what_they_say(saved_tables):
    page = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    bars, panels, colours = re.findall(r"```python\n(.*?)```", page, re.S)
    scope: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # nothing collapses, no glyph is missing
        exec(compile(bars, "docs/figures.md", "exec"), scope)
        assert overflow(scope["fig"]) < 0.02
        exec(compile(panels, "docs/figures.md", "exec"), scope)
        fig = scope["fig"]
        assert overflow(fig) < 0.02
        assert [ax.get_title("left") for ax in fig.axes] == ["a", "b"]
        exec(compile(colours, "docs/figures.md", "exec"), scope)
    marks = {c.get_label(): to_hex(c.lines[0].get_color()) for c in scope["fig"].axes[0].containers}
    assert (marks["ResNet-50"], marks["ConvNeXt-T"]) == ("#000000", to_hex("tab:red"))
    assert marks["ConvNeXt-S"] == THE_EIGHT[2].colour.lower()
    width, height = media_box((saved_tables / "bars.pdf").read_bytes())
    assert (width, height > 144) == (pytest.approx(3.3 * 72), True)
    assert b"DejaVuSerif" in (saved_tables / "bars.pdf").read_bytes()
    assert media_box((saved_tables / "panels.pdf").read_bytes()) == pytest.approx(
        (7 * 72, 3.4 * 72)
    )


def media_box(pdf: bytes) -> tuple[float, float]:
    """The width and height of a PDF's one page, in points."""
    packed = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.S)
    texts = [pdf, *(zlib.decompress(part) for part in packed if part.startswith(b"x"))]
    (box,) = {
        m for text in texts for m in re.findall(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", text)
    }
    return float(box[0]), float(box[1])


def test_colours_of_ones_own_end_with_their_block():
    own, other = THE_EIGHT[0], THE_EIGHT[1]
    with model_colours({own.key: "k"}):
        with model_colours({other.key: "w"}):
            assert (colour_of(own.key), colour_of(other.key)) == ("k", "w")
        assert (colour_of(own.key), colour_of(other.key)) == ("k", other.colour)
    assert colour_of(own.key) == own.colour
    with (
        pytest.raises(UnknownName, match="Did you mean 'resnet50'"),
        model_colours({"resnet5": "k"}),
    ):
        pass
    with pytest.raises(ValueError, match="is no colour"), model_colours({own.key: "blackish"}):
        pass
