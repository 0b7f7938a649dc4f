"""Grids of heatmaps: where each cell is, what it says, and that nothing lies over another."""

from __future__ import annotations

import numpy as np
import pytest

from lib.figures.heatmaps import overlay
from lib.figures.map_grids import plot_map_grids

pytestmark = pytest.mark.usefixtures("study_style")


def grids(images, models, methods, name="a", note=""):
    """Figures of grey images, whose maps are all different."""
    size = images, models, methods
    rng = np.random.default_rng(0)
    maps = rng.random((*size, 8, 8))
    words = np.array([[f"{p}/{m}" for m in range(models)] for p in range(images)], object)
    remarks = np.full(size, "", object)
    remarks[-1, -1, -1] = "constant: no place stands out"
    figures = plot_map_grids(
        [(f"{name}{p}", np.full((8, 8, 3), 10 * p, np.uint8)) for p in range(images)],
        [f"Model {m}" for m in range(models)], [f"Method {k}" for k in range(methods)],
        maps, words, remarks, note,
    )  # fmt: skip
    return figures, maps


def cells(figure):
    """The visible axes that show an image, and what each shows."""
    return [(ax, ax.images[0].get_array()) for ax in figure.axes if ax.images and ax.get_visible()]


@pytest.mark.parametrize(
    ("size", "columns", "labels", "title"),
    [
        ((3, 2, 2), ["a0", "a1", "a2"],
         [f"Model {m}\nMethod {k}" for m in (0, 1) for k in (0, 1)], ""),
        ((2, 2, 1), ["a0", "a1"], ["Model 0", "Model 1"], "Method 0"),
        ((2, 1, 2), ["a0", "a1"], ["Method 0", "Method 1"], "Model 0"),
        ((1, 2, 2), ["Model 0", "Model 1"], ["Method 0", "Method 1"], "a0"),
    ],
)  # fmt: skip
def test_each_cell_lies_in_the_row_and_column_that_name_it(size, columns, labels, title):
    (figure,), maps = grids(*size)
    shown = cells(figure)
    assert [ax.get_title() for ax, _ in shown[: len(columns)]] == columns
    assert [ax.get_ylabel() for ax, _ in shown[len(columns) :: len(columns)]] == labels
    assert figure.get_suptitle() == title
    for place, (ax, image) in enumerate(shown[len(columns) :]):
        row, column = divmod(place, len(columns))
        if size[0] == 1:
            at = 0, column, row
        else:
            at = column, *divmod(row, size[2])
        grey = np.full((8, 8, 3), 10 * at[0], np.uint8)
        np.testing.assert_allclose(image, overlay(grey, maps[at]))
        assert ax.get_title() == f"{at[0]}/{at[1]}"
        said = [text.get_text() for text in ax.texts]
        assert said == ["constant: no place stands out"] * (at == tuple(n - 1 for n in size))


def test_methods_of_one_image_and_model_follow_one_another():
    (figure,), maps = grids(1, 1, 12)
    shown = cells(figure)
    assert [ax.get_title() for ax, _ in shown] == [
        "a0", *(f"Method {k}\n0/0" for k in range(12))
    ]  # fmt: skip
    np.testing.assert_allclose(shown[-1][1], overlay(np.zeros((8, 8, 3), np.uint8), maps[0, 0, 11]))
    assert figure.get_suptitle() == "Model 0"
    assert max(ax.get_subplotspec().colspan.stop for ax, _ in shown) <= 6


def test_what_is_too_much_for_one_figure_goes_on_in_the_next(monkeypatch):
    monkeypatch.setattr("lib.figures.map_grids.MOST_COLUMNS", 2)
    monkeypatch.setattr("lib.figures.map_grids.MOST_ROWS", 3)
    figures, _ = grids(3, 1, 4)
    said = [[ax.get_title() for ax, _ in cells(figure)] for figure in figures]
    assert said == [
        ["a0", "a1", *["0/0", "1/0"] * 2], ["a0", "a1", *["0/0", "1/0"] * 2],
        ["a2", *["2/0"] * 2], ["a2", *["2/0"] * 2],
    ]  # fmt: skip
    labels = [[label for ax, _ in cells(f) if (label := ax.get_ylabel())] for f in figures]
    assert labels == [["Method 0", "Method 1"], ["Method 2", "Method 3"]] * 2


@pytest.mark.parametrize("size", [(2, 2, 2), (1, 1, 3)])
def test_no_words_lie_over_others_or_over_a_cell(size):
    """Also of a long name with what matplotlib would take for a formula."""
    (figure,), _ = grids(*size, name="a $x$ very long name of an image, which goes on", note="Note")
    figure.draw_without_rendering()
    boxes = [ax.get_window_extent() for ax, _ in cells(figure)]
    for ax, _ in cells(figure):
        words = [ax.title, ax.yaxis.label, *ax.texts]
        boxes += [text.get_window_extent() for text in words if text.get_text()]
    boxes += [text.get_window_extent() for text in figure.texts if text.get_text()]
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            width = min(one.x1, other.x1) - max(one.x0, other.x0)
            height = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert min(width, height) <= 1
    assert any("$x$" in ax.get_title() for ax, _ in cells(figure))
