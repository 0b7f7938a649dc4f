"""The figure of faithfulness says of each measure what it is."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd

mpl.use("Agg")
import matplotlib.pyplot as plt

from lib.figures.faithfulness import plot_faithfulness

_MEASURES = {"average_drop_100%": ("%", "less"), "road_combined": ("probability", "more")}


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
        "%; n = 7–8\n← more faithful", "probability; n = 7–8\nmore faithful →",
    ]  # fmt: skip
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ["Grad-CAM", "LayerCAM"]
    assert [len(ax.containers) for ax in fig.axes] == [2, 2]
    nothing = plot_faithfulness(pd.DataFrame(rows).assign(value=np.nan))
    assert "nothing to show" in nothing.axes[0].texts[0].get_text()
    plt.close("all")
