"""The figure of faithfulness says of each measure what it is."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt

from lib.figures.faithfulness import plot_faithfulness

_MEASURES = {"average_drop_100%": ("%", "less"), "road_combined": ("probability", "more")}


def intervals(ax) -> list[np.ndarray]:
    """The ends of the error bars that can be seen."""
    lines = [line for bars in ax.containers for line in bars.lines[2]]
    ends = [segment for line in lines for segment in line.get_segments()]
    return [segment for segment in ends if np.isfinite(segment).all() and len(segment)]


def test_each_panel_has_its_unit_direction_authors_and_n():
    rows = [
        {"backbone": "resnet50", "dcls": dcls, "method": method, "measure": measure, "value": 0.3,
         "low": 0.2, "high": 0.5, "n": 7 + dcls, "unit": unit, "faithful": faithful,
         "definition": f"somebody's {measure}"}
        for dcls in (False, True)
        for method, measures in {"grad_cam": 2, "layer_cam": 2, "hires_cam": 1}.items()
        for measure, (unit, faithful) in [*_MEASURES.items()][:measures]
    ]  # fmt: skip
    fig = plot_faithfulness(pd.DataFrame(rows))
    titles = [" ".join(ax.get_title().split()) for ax in fig.axes]
    assert titles == [f"{m.replace('_', ' ')} somebody's {m}" for m in _MEASURES]
    assert [ax.get_xlabel() for ax in fig.axes] == [
        "%\nn = 7–8; ← more faithful", "probability\nn = 7–8; more faithful →",
    ]  # fmt: skip
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ["Grad-CAM", "LayerCAM"]
    assert [len(ax.containers) for ax in fig.axes] == [2, 2]
    assert "error bars: 95 % intervals;" in fig.get_supxlabel()
    nothing = plot_faithfulness(pd.DataFrame(rows).assign(value=np.nan))
    assert "nothing to show" in nothing.axes[0].texts[0].get_text()
    plt.close("all")


@pytest.mark.parametrize(
    ("n", "drawn", "told"),
    [
        ((4, 2), 0, "no error bars: fewer than 5 images"),
        ((5, 4), 1, "error bars: 95 % intervals, where n is 5 or more"),
        ((5, 60), 2, "error bars: 95 % intervals;"),
    ],
)
def test_of_fewer_than_five_images_no_interval_is_drawn(n, drawn, told):
    rows = [
        {"backbone": "resnet50", "dcls": False, "method": method, "measure": "deletion",
         "value": 0.3, "low": 0.2, "high": 0.5, "n": count, "unit": "", "faithful": "less",
         "definition": "RISE"}
        for method, count in zip(("grad_cam", "layer_cam"), n, strict=True)
    ]  # fmt: skip
    fig = plot_faithfulness(pd.DataFrame(rows))
    assert len(intervals(fig.axes[0])) == drawn
    assert told in fig.get_supxlabel()
    plt.close("all")
