"""Figures as a journal prints them: at its width every text can be read, and every colour told apart
by readers who do not see red and green as others do."""

from __future__ import annotations

from itertools import combinations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from lib.figures import (
    alt_text_of,
    plot_compared,
    plot_cose_by_change,
    plot_faithfulness,
    plot_leaderboard,
    plot_measures,
    plot_randomisation,
    plot_rho_distributions,
    plot_score_bars,
)
from lib.figures.captions import CAPTIONS
from lib.figures.style import DCLS_COLOUR, PALETTE, PLAIN_COLOUR
from lib.networks.backbones import THE_EIGHT
from lib.study.comparisons import COMPARISONS
from lib.study.study import Study

LABELS = {"centre": "centred Gaussian", "random": "random map"}
CONTROLS = pd.DataFrame(
    {"control": ["centre", "random"], "score": [0.3, 0.0], "low": [0.2, -0.1], "high": [0.4, 0.1]}
)


pytestmark = pytest.mark.usefixtures("study_style")


def models(count: int) -> pd.DataFrame:
    """Rows as `arrange` makes them, of so many pairs; two methods."""
    rows = [
        {"panel": method, "method": method, "protocol": "published", "group": f"ConvNeXt-{pair}",
         "model": f"ConvNeXt-{pair}", "variant": f"{pair}{dcls}", "place": dcls,
         "form": ("without DCLS", "with DCLS")[dcls], "shared": True, "at": np.nan,
         "backbone": THE_EIGHT[pair % 8].key, "score": 0.9 - 0.02 * pair, "low": 0.2, "high": 1.0,
         "n": 16, "ceiling": 0.6, "reachable": 1.1, "above_control": pair % 2 == 0}
        for pair in range(count) for method in ("grad_cam", "threshold_grad_cam") for dcls in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def bars(count):
    return plot_score_bars(models(count), CONTROLS, LABELS, COMPARISONS["dcls"])


def board(count):
    rows = models(count)[lambda t: (t.panel == "grad_cam") & (t.place == 0)]
    return plot_leaderboard(
        rows.assign(label=rows.model, rank=range(1, count + 1), value=rows.score, untrained=False,
                    ranked_by="score", method_label="Grad-CAM"),
        CONTROLS, LABELS,
    )  # fmt: skip


def distributions(count):
    rows = models(count)[lambda t: t.panel == "grad_cam"]
    rho = [{"variant": v, "method": "grad_cam", "rho": x / 20} for v in rows.variant
           for x in range(16)]  # fmt: skip
    return plot_rho_distributions(rows, pd.DataFrame(rho))


def every_two(count):
    names = [f"ConvNeXt-{n}" for n in range(count + 1)]
    rows = [
        {"first": a, "second": b, "first_label": a, "second_label": b, "methods": "Grad-CAM",
         "difference": 0.12, "decision": "second higher", "n_paired": 16, "protocol": "published",
         "ceiling": 0.6}
        for a, b in combinations(names, 2)
    ]  # fmt: skip
    return plot_compared(pd.DataFrame(rows))


def forgetting(count):
    rows = [
        {"backbone": b.key, "dcls": dcls, "method": method, "part": part, "similarity": 0.4,
         "low": -1.4, "high": 1.2, "n": 8}
        for b in THE_EIGHT[:count] for dcls in (False, True)
        for method in ("grad_cam", "threshold_grad_cam")
        for part in ("nothing", "head", "stage 4", "stage 3", "stage 2", "stage 1", "stem")
    ]  # fmt: skip
    return plot_randomisation(pd.DataFrame(rows))


def ranks(count):
    rows = [
        {"backbone": b.key, "dcls": dcls, "method": "grad_cam", "measure": f"m{m}",
         "label": f"measure {m}", "rank": 2 * n + dcls + 1, "n": 4}
        for n, b in enumerate(THE_EIGHT[:count]) for dcls in (False, True) for m in range(9)
    ]  # fmt: skip
    return plot_measures(pd.DataFrame(rows))


def faithful(count):
    rows = [
        {"backbone": b.key, "dcls": False, "method": method, "measure": f"measure_{m}",
         "value": 0.3, "low": 0.2, "high": 0.4, "n": 4, "unit": "% of the probability",
         "faithful": "less", "definition": "somebody et al. 2018, 50 % of the pixels as others do"}
        for b in THE_EIGHT[:count] for method in ("grad_cam", "layer_cam") for m in range(8)
    ]  # fmt: skip
    return plot_faithfulness(pd.DataFrame(rows))


def changes(count):
    kinds = {f"k{n}": f"kind of change {n}" for n in range(count)}
    rows = [
        {"part": part, "method": method, "n_kept": 20, "n_changed": 7, "consistency_published": 0.9,
         "consistency_published_low": 0.8, "consistency_published_high": 0.95,
         "sensitivity_published": 0.4, "sensitivity_published_low": 0.2,
         "sensitivity_published_high": 0.6}
        for part in [*kinds, "geometric", "photometric", "model"]
        for method in ("grad_cam", "threshold_grad_cam")
    ]  # fmt: skip
    return plot_cose_by_change(pd.DataFrame(rows), kinds)


_MANY = {bars: 30, board: 30, distributions: 30, every_two: 30, changes: 20, forgetting: 8, ranks: 8,
         faithful: 8}  # fmt: skip


@pytest.mark.parametrize(
    ("draw", "count"),
    [(draw, count) for draw, most in _MANY.items() for count in (1, most)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_text_can_be_read_at_a_pages_width_and_lies_over_no_other(draw, count):
    fig = draw(count)
    fig.draw_without_rendering()
    assert fig.get_figwidth() <= 7.2
    texts = [t for t in fig.findobj(Text) if t.get_visible() and t.get_text().strip()]
    assert min(text.get_fontsize() for text in texts) >= 6
    box, (width, height) = fig.get_tightbbox(), fig.get_size_inches()
    assert max(-box.x0, -box.y0, box.x1 - width, box.y1 - height) < 0.05
    for ax in fig.axes:
        for labels in (ax.get_yticklabels(), ax.get_xticklabels()):
            shown = [t for t in labels if t.get_visible() and t.get_text()]
            if any(t.get_rotation() % 90 for t in shown):
                continue  # slanted boxes overlap where their texts do not
            boxes = [t.get_window_extent() for t in shown]
            assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:], strict=False))


# Machado, Oliveira and Fernandes (2009), of full severity, on linear red, green and blue.
_SEEN_AS = {
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
}  # fmt: skip


def _lab(linear: np.ndarray) -> np.ndarray:
    """CIELAB of linear sRGB, white as D65."""
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    x, y, z = np.cbrt(np.maximum(to_xyz @ linear / [0.9505, 1.0, 1.089], 1e-9))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eyes", [None, *_SEEN_AS])
@pytest.mark.parametrize("colours", [PALETTE, (PLAIN_COLOUR, DCLS_COLOUR)])
def test_colours_differ_for_every_colour_vision(eyes, colours):
    seen = []
    for colour in colours:
        rgb = np.array(to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen.append(_lab(np.clip(np.array(_SEEN_AS[eyes]) @ linear, 0, 1) if eyes else linear))
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 10


def test_every_figure_has_an_alternative_text_without_loose_ends():
    for profile in ("demo", "gaze"):
        choices = Study.from_profile(profile).choices
        for key in CAPTIONS:
            text = alt_text_of(key, choices)
            assert 20 < len(text) < 250, key
            assert text.endswith("."), key
            assert not set("{}[]") & set(text), key
        of_board = alt_text_of("leaderboard", choices)
        assert alt_text_of("leaderboard_grad_cam", choices) == of_board
        assert alt_text_of("my_own", choices) == "Figure my own."
