"""Figures of a leaderboard show what the table says, at any width."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib.figures import model_colours, plot_accuracy_against_score, plot_leaderboard

LONG = "convnextv2_nano.fcmae_ft_in22k_in1k_384"
CONTROLS = pd.DataFrame(
    {"control": ["centre", "random"], "score": [0.3, 0.0], "low": [0.2, -0.1], "high": [0.4, 0.1]}
)
LABELS = {"centre": "centred Gaussian", "random": "random map"}


def board(count: int, ranked_by: str = "score") -> pd.DataFrame:
    """The first half trained, of known accuracy and above the control."""
    half = np.arange(count) < count / 2
    value = np.linspace(0.8, 0.1, count)
    return pd.DataFrame(
        {
            "label": [f"{LONG}_{i}" for i in range(count)], "model": "m", "rank": range(1, count + 1),
            "value": value, "low": value - 0.05, "high": value + 0.1, "n": 60, "ceiling": 0.5,
            "ranked_by": ranked_by, "reachable": 1.25, "untrained": ~half, "above_control": half,
            "imagenet_top1": np.where(half, np.linspace(70, 80, count), np.nan),
            "method_label": "Grad-CAM", "protocol": "gaze",
        }
    )  # fmt: skip


def marks(ax) -> list:
    return [line for line in ax.lines if line.get_marker() in ("o", "D")]


def test_mini_stands_in_names_only_where_it_tells_models_apart():
    models = board(3).assign(label=["A mini", "B mini", "C mini"])
    for labels, names in (
        (["A mini", "B mini", "C mini"], ["A  1", "B  2", "C  3"]),
        (["A mini", "B", "C mini"], ["A mini  1", "B  2", "C mini  3"]),
    ):
        fig = plot_leaderboard(models.assign(label=labels), CONTROLS, LABELS)
        assert [text.get_text() for text in fig.axes[0].get_yticklabels()] == names
        plt.close(fig)


@pytest.mark.parametrize("width", [7.2, 3.4])
def test_thirty_models_stand_in_their_order_and_can_be_read(width):
    fig = plot_leaderboard(board(30), CONTROLS, LABELS, size=(width, None))
    (ax,) = fig.axes
    assert [mark.get_xdata()[0] for mark in marks(ax)] == pytest.approx(np.linspace(0.8, 0.1, 30))
    assert [mark.get_ydata()[0] for mark in marks(ax)] == [*range(30)]
    top, bottom = ax.transData.transform([(0, 0), (0, 29)])[:, 1]
    assert top > bottom
    assert [mark.get_marker() for mark in marks(ax)] == ["o"] * 15 + ["D"] * 15
    assert [mark.get_markerfacecolor() == "white" for mark in marks(ax)] == [False] * 15 + [
        True
    ] * 15
    assert 1 in [line.get_xdata()[0] for line in ax.lines]  # the human ceiling
    names = [text.get_text() for text in fig.legends[0].get_texts()]
    assert any("a perfect model: 1.25" in name.replace("\n", " ") for name in names)
    assert "n = 60" in ax.get_title()
    assert "not significantly above the controls" in [name.replace("\n", " ") for name in names]
    fig.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:], strict=False))
    plt.close(fig)


def test_by_rho_there_is_no_line_of_the_ceiling_and_colours_of_ones_own_are_used():
    fig, ax = plt.subplots()
    with model_colours({"resnet50": "#123456"}):
        shown = board(2, "rho").assign(model="resnet50")
        assert plot_leaderboard(shown, CONTROLS, LABELS, ax=ax) is fig
    assert 1 not in [line.get_xdata()[0] for line in ax.lines]
    assert [mark.get_color() for mark in marks(ax)] == ["#123456"] * 2
    assert ax.get_xlabel() == "agreement ρ; ceiling unknown for some"
    plt.close(fig)


@pytest.mark.parametrize("width", [6.4, 3.4])
def test_models_of_unknown_accuracy_are_counted_and_named_not_drawn(width):
    """Names stand at their points where there is room, else numbers and a legend."""
    fig = plot_accuracy_against_score(board(6), -0.5, size=(width, None))
    (ax,), (legend,) = fig.axes, fig.legends
    assert [mark.get_xdata()[0] for mark in marks(ax)] == [70, 72, 74]
    models = [f"{LONG}_{i}" for i in range(6)]
    names = [text.get_text().replace("\n", "") for text in legend.get_texts()]
    if width > 5:
        assert [text.get_text() for text in ax.texts] == models[:3]
        assert names == ["accuracy unknown (3):", *models[3:]]
    else:
        assert [text.get_text() for text in ax.texts] == ["1", "2", "3"]
        assert names == [*(f"{i}  {name}" for i, name in enumerate(models[:3], 1)),
                         "accuracy unknown (3):", *models[3:]]  # fmt: skip
    assert "−0.50 over 3 models" in ax.get_title().replace("\n", " ")
    plt.close(fig)
    title = plot_accuracy_against_score(board(6), float("nan")).axes[0].get_title()
    assert "too few" in title
