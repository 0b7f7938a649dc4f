"""Figures show what they are given, and travel with their caveat and provenance."""

from __future__ import annotations

import errno
import hashlib
import json
from itertools import cycle

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.text import Text

from lib.base.files import write_atomically
from lib.figures.analyses import plot_compared, plot_randomisation
from lib.figures.heatmaps import (
    overlay,
    plot_heatmap_rows,
    plot_kernels,
    plot_method_grid,
    plot_receptive_fields,
)
from lib.figures.saving import draw_files, save_figure
from lib.figures.scores import (
    plot_along,
    plot_pairs,
    plot_protocols,
    plot_rho_distributions,
    plot_score_bars,
    plot_size_against_score,
)
from lib.figures.style import label_points, lay_out, use_study_style
from lib.networks.backbones import BACKBONES, THE_EIGHT
from lib.scores.controls import CONTROLS, control_labels
from lib.study.comparisons import COMPARISONS
from lib.study.outputs import save_table
from lib.study.study import Study

CONTROL_SCORES = pd.DataFrame(
    [
        {"control": key, "reading": reading, "score": score, "low": score - 0.01,
         "high": score + 0.01}
        for key, score in zip(CONTROLS, cycle((0.4, 0.3, 0.0, 0.1)), strict=False)
        for reading in ("whole", "centre, 224 of 256")
    ]
)  # fmt: skip


@pytest.fixture(autouse=True)
def _closed():
    use_study_style()
    yield
    plt.close("all")


FORMS = ("without DCLS", "with DCLS")
OF_DCLS = COMPARISONS["dcls"]


def apart(summary: pd.DataFrame) -> pd.DataFrame:
    """The same models, none of which has a pair: each a group of its own."""
    return summary.assign(group=summary.model, place=0, form="", shared=False)


@pytest.fixture
def summary() -> pd.DataFrame:
    """As `arrange` makes it of the eight pairs."""
    rows = []
    for i, backbone in enumerate(THE_EIGHT):
        for dcls in (False, True):
            for method in ("grad_cam", "threshold_grad_cam"):
                score = 0.3 + 0.05 * i + 0.1 * dcls
                rows.append({"backbone": backbone.key, "protocol": "published", "dcls": dcls, "method": method,
                             "variant": backbone.key + "_dcls" * dcls, "panel": method,
                             "group": backbone.label, "place": int(dcls), "form": FORMS[dcls],
                             "model": backbone.titled(dcls), "at": np.nan, "shared": True,
                             "parameters_millions": 20.0 + i, "score": score,
                             "low": score - 0.02, "high": score + 0.03, "n": 224, "ceiling": 0.65753,
                             "reachable": 1.35, "above_control": i > 0})  # fmt: skip
    return pd.DataFrame(rows)


def test_figure_2_places_each_backbone_at_its_two_scores(summary):
    one = summary[summary.panel == "threshold_grad_cam"]
    fig = plot_pairs(one, OF_DCLS)
    (ax,) = fig.axes
    points = [c.lines[0].get_xydata()[0] for c in ax.containers]
    expected = [(0.3 + 0.05 * i, 0.4 + 0.05 * i) for i in range(8)]
    np.testing.assert_allclose(points, expected)
    assert ax.get_xlim() == ax.get_ylim()
    assert [t.get_text() for t in ax.texts] == [b.label for b in THE_EIGHT]
    np.testing.assert_allclose([t.xy for t in ax.texts], expected)
    assert "n = 224 images" in ax.get_title()
    assert "95 %" in ax.get_title()


def test_figure_3_has_a_panel_per_method_and_intervals(summary):
    fig = plot_score_bars(summary, CONTROL_SCORES, control_labels(), OF_DCLS)
    assert [ax.get_title().split("  ")[0] for ax in fig.axes] == ["Grad-CAM", "Threshold-Grad-CAM"]
    bars = [c for c in fig.axes[0].containers if hasattr(c, "patches")]
    np.testing.assert_allclose([p.get_height() for p in bars[1]], 0.4 + 0.05 * np.arange(8))
    for ax in fig.axes:
        assert "n = 224 images" in ax.get_title()


def test_figure_4_shows_a_point_per_model(summary):
    one = summary[(summary.panel == "threshold_grad_cam") & (summary.place == 0)]
    (ax,) = plot_size_against_score(one, 0.5).axes
    assert len(ax.containers) == 8
    assert [t.get_text() for t in ax.texts] == [b.label for b in THE_EIGHT]
    assert ax.get_xlabel() == "learnable parameters (millions)"
    assert "+0.50 over 8 models" in ax.get_title().replace("\n", " ")
    (ax,) = plot_size_against_score(one, -0.5, (-0.9, 0.3)).axes
    assert "−0.50 (95 % interval −0.90 to +0.30)" in ax.get_title().replace("\n", " ")


@pytest.mark.parametrize("models", [["resnet50"], ["fastvit_sa36", "convnext_base"]])
def test_score_figures_draw_any_choice_of_models_and_methods(models, summary):
    part = summary[summary.backbone.isin(models) & (summary.method == "grad_cam")]
    plot_pairs(part, OF_DCLS)
    (ax,) = plot_size_against_score(part[part.place == 0], float("nan")).axes
    assert "too few models" in ax.get_title()
    assert len(plot_score_bars(part, CONTROL_SCORES, control_labels(), OF_DCLS).axes) == 1


def test_a_model_without_a_pair_stands_at_its_own_name(summary):
    lone = summary[(summary.backbone != "convnext_tiny") | ~summary.dcls]
    one = lone[lone.panel == "grad_cam"]
    (ax, *_) = plot_pairs(one, OF_DCLS).axes
    assert len(ax.containers) == 7
    bars = plot_score_bars(lone, CONTROL_SCORES, control_labels(), OF_DCLS).axes[0].containers
    plain, with_dcls = (c for c in bars if hasattr(c, "patches"))
    names = list(dict.fromkeys(summary.group))
    lone_place = names.index("ConvNeXt-T")
    middles = [p.get_x() + p.get_width() / 2 for p in plain.patches]
    assert lone_place in np.round(middles, 6)  # not to the left, where its pair would leave room
    assert len(plain.patches) == 8
    places = {round(p.get_x() + p.get_width() / 2 - 0.2) for p in with_dcls.patches}
    assert places == set(range(8)) - {lone_place}
    plain_ax, dcls_ax = plot_protocols(one).axes
    assert [len(ax.containers[0].lines[0].get_xdata()) for ax in (plain_ax, dcls_ax)] == [8, 7]
    assert len(plain_ax.get_yticklabels()) == 8
    rows = plain_ax.containers[0].lines[0].get_ydata().astype(float)
    np.testing.assert_allclose(rows, range(8))


def test_models_without_any_pair_have_a_bar_each_and_no_form_is_named(summary):
    alone = apart(summary)
    fig = plot_score_bars(alone, CONTROL_SCORES, control_labels(), COMPARISONS["none"])
    (bars,) = (c for c in fig.axes[0].containers if hasattr(c, "patches"))
    assert len(bars.patches) == 16
    names = [t.get_text().replace("\n", " ") for t in fig.axes[-1].get_xticklabels()]
    assert names[:2] == ["ResNet-50", "ResNet-50 + DCLS"]
    told = " ".join(t.get_text() for t in fig.legends[0].get_texts())
    assert "DCLS" not in told
    one = alone[alone.panel == "grad_cam"]
    assert len(plot_protocols(one).axes) == 1
    with pytest.raises(ValueError, match="no pairs of the same two forms"):
        plot_pairs(one, COMPARISONS["none"])


def test_a_curve_has_a_line_per_training_and_its_points_in_order(summary):
    """Two trainings of four checkpoints each, given out of order."""
    trained = summary[summary.panel == "grad_cam"].iloc[[0, 2, 4, 6, 8, 10, 12, 14]].assign(
        group=["a", "b"] * 4, at=[3, 3, 1, 1, 2, 2, 0, 0], shared=False, place=[0, 0, 1, 1, 2, 2, 3, 3],
    )  # fmt: skip
    fig = plot_along(trained, CONTROL_SCORES, control_labels(), COMPARISONS["training"])
    lines = [c.lines[0].get_xydata() for c in fig.axes[0].containers]
    np.testing.assert_allclose(lines[0][:, 0], [0, 1, 2, 3])
    of_a = trained[trained.group == "a"].sort_values("at")
    np.testing.assert_allclose(lines[0][:, 1], of_a.score)
    assert len(lines) == 2
    assert fig.get_supxlabel().startswith("stage of the training")
    told = [t.get_text() for t in fig.legends[0].get_texts()]
    assert {"a", "b"} <= set(told)
    assert len(set(told)) == len(told)


def test_parts_that_forget_differ_between_networks():
    rows = [
        {"backbone": key, "dcls": dcls, "method": "grad_cam", "part": part, "similarity": 0.5,
         "low": 0.4, "high": 0.6, "n": 9}
        for key, parts, forms in (
            ("resnet50", ("nothing", "head", "stage 4"), (False, True)),
            ("convnext_tiny", ("nothing", "head"), (False,)),
        )
        for part in parts
        for dcls in forms
    ]  # fmt: skip
    fig = plot_randomisation(pd.DataFrame(rows))
    assert [[t.get_text() for t in ax.get_xticklabels()] for ax in fig.axes[:2]] == [
        ["nothing", "head", "stage 4"], ["nothing", "head"],
    ]  # fmt: skip
    assert [len(ax.containers) for ax in fig.axes[:2]] == [2, 1]
    plain, dcls = (c.lines[0].get_xydata() for c in fig.axes[0].containers)
    np.testing.assert_allclose((plain[:, 0] + dcls[:, 0]) / 2, range(3))
    assert (plain[:, 0] < dcls[:, 0]).all()  # side by side
    np.testing.assert_allclose(plain[:, 1], 0.5)
    # "nothing" is 1 by definition, and has no interval.
    for bars, parts in zip(
        (fig.axes[0].containers[0], fig.axes[1].containers[0]), (3, 2), strict=True
    ):
        ends = [np.isfinite(line).all() and len(line) for line in bars.lines[2][0].get_segments()]
        assert sum(map(bool, ends)) == parts - 1
    few = plot_randomisation(pd.DataFrame(rows).assign(n=4))
    assert "no error bars: fewer than 5 images" in " ".join(few.get_supxlabel().split())


def test_every_cell_of_two_models_says_what_is_known():
    decisions = {"rises": "+.12", "equivalent": "≈", "falls, too little to matter": "≈",
                 "undecided": "?", "fewer than 50 images": "?"}  # fmt: skip
    for decision, mark in decisions.items():
        row = {"first": "a", "second": "b", "first_label": "A", "second_label": "B",
               "methods": "Grad-CAM", "difference": 0.12, "decision": decision, "n_paired": 60,
               "protocol": "published", "ceiling": 0.6}  # fmt: skip
        fig = plot_compared(pd.DataFrame([row]))
        marks = {text.get_text() for text in fig.axes[0].texts}
        assert marks == ({mark, "−.12"} if mark == "+.12" else {mark})
        assert "≈: shown to be too small to matter; ?: undecided" in " ".join(
            fig.get_suptitle().split()
        )
        plt.close(fig)


def test_overlay_keeps_the_order_of_the_map_and_is_even():
    heatmap = np.linspace(5, 9, 64).reshape(8, 8)
    image = overlay(np.full((8, 8, 3), 100, np.uint8), heatmap)
    expected = plt.get_cmap("viridis")((heatmap - 5) / 4)[..., :3]
    np.testing.assert_allclose(image, 0.65 * expected + 0.35 * 100 / 255, atol=1e-6)


def test_overlay_leaves_what_the_network_did_not_see_uncovered():
    heatmap = np.full((8, 8), np.nan)
    heatmap[2:6, 2:6] = np.arange(16).reshape(4, 4)
    image = overlay(np.full((8, 8, 3), 100, np.uint8), heatmap)
    np.testing.assert_allclose(image[0], 100 / 255)
    assert np.ptp(image[2:6, 2:6]) > 0.1


@pytest.mark.parametrize("valid", [0, 1, 5])
def test_distributions_are_drawn_however_few_maps_are_valid(valid):
    rows = [
        {"variant": "resnet50" + "_dcls" * dcls, "method": "grad_cam",
         "rho": i / 10 if i < valid and not dcls else np.nan}
        for dcls in (False, True) for i in range(6)
    ]  # fmt: skip
    placed = pd.DataFrame(
        [
            {"variant": "resnet50" + "_dcls" * d, "method": "grad_cam", "panel": "grad_cam",
             "group": "ResNet-50", "place": int(d), "form": FORMS[d], "shared": True,
             "n": valid * (not d)}
            for d in (False, True)
        ]
    )  # fmt: skip
    (ax,) = plot_rho_distributions(placed, pd.DataFrame(rows)).axes
    assert ("n = 0 images" if not valid else f"n = 0–{valid} images") in ax.get_title()


def test_a_constant_map_is_named_and_leaves_its_image_uncovered():
    """Of one that is the same in all it covers, and of one that covers nothing."""
    image = np.full((8, 8, 3), 100, np.uint8)
    inner = np.full((8, 8), np.nan)
    inner[2:6, 2:6] = 3.0
    maps = np.stack([np.arange(64.0).reshape(8, 8), inner, np.full((8, 8), np.nan)])
    axes = plot_heatmap_rows([image] * 3, {"Grad-CAM": maps}).axes[3:6]
    assert [[text.get_text() for text in ax.texts] for ax in axes] == [
        [], ["constant"], ["constant"],
    ]  # fmt: skip
    for ax in axes[1:]:
        assert np.unique(ax.images[0].get_array()).tolist() == [100]


@pytest.mark.parametrize(("methods", "columns"), [(1, 2), (26, 9)])
def test_methods_lie_in_columns_and_models_in_rows_of_one_page(methods, columns):
    maps = {f"M{m}": np.random.default_rng(m).random((2, 8, 8)) for m in range(methods)}
    image = np.full((8, 8, 3), 50, np.uint8)
    fig = plot_method_grid(image, ["ResNet-50", "ConvNeXt-T"], maps)
    width, height = fig.get_size_inches()
    assert width <= 7.2
    assert height < 9
    shown = {ax.get_title(): ax for ax in fig.axes if ax.get_title()}
    assert [*shown] == ["image", *maps]
    for label, values in maps.items():
        spec = shown[label].get_subplotspec()
        below = next(
            ax for ax in fig.axes[: -1] if (other := ax.get_subplotspec())
            and other.rowspan.start == spec.rowspan.start + 1
            and other.colspan == spec.colspan
        )  # fmt: skip
        for ax, heatmap in zip((shown[label], below), values, strict=True):
            np.testing.assert_allclose(
                ax.images[0].get_array(), 255 * overlay(image, heatmap), atol=0.51
            )
    across = {ax.get_subplotspec().colspan.start for ax in shown.values()}
    assert len(across) == columns


def test_kernels_are_cropped_alike_and_layers_named_in_words():
    """A weight two cells from the centre of 9, and one at the centre alone: 5 cells are shown."""
    far, near = np.zeros((2, 9, 9)), np.zeros((1, 9, 9))
    far[:, 4, 6], far[0, 0, 0], near[:, 4, 4] = -2.0, 0.01, 1.0
    stages = {"stages.1.blocks.2.conv_dw\n48 channels": far, "layer4.0.conv2\n8 channels": near}
    fig = plot_kernels(stages)
    shown = [ax for ax in fig.axes if ax.images]
    assert [ax.images[0].get_array().shape for ax in shown[:3]] == [(5, 5)] * 3
    assert shown[0].images[0].get_array()[2, 4] == -2
    names = [ax.get_ylabel() for ax in fig.axes if "stage" in ax.get_ylabel()]
    assert names == ["stage 2, block 3\n48 channels", "stage 4, block 1\n8 channels"]
    assert "5 × 5 cells of windows of 9 × 9" in fig.get_supxlabel()


def test_names_lie_within_the_panel_and_over_nothing():
    """Eight crowded points by their names; thirty by numbers, with a legend of the names."""
    for count in (1, 8, 30):
        fig, ax = plt.subplots(figsize=(3.3, 3))
        rng = np.random.default_rng(0)
        points = [*map(tuple, 0.5 + 0.2 * rng.standard_normal((count, 2)))]
        ax.plot(*np.transpose(points), "o")
        ax.set(xlim=(0, 1), ylim=(0, 1))
        names = [f"ConvNeXt-{number}" for number in range(count)]
        sheet = lay_out((0, 0), ax=ax)
        keys = label_points(sheet, ax, points, names)
        assert [text.xy for text in ax.texts] == points
        if count == 30:
            assert [text.get_text() for text in ax.texts] == [f"{n}" for n in range(1, 31)]
            assert [key.get_label() for key in keys] == [
                f"{n}  {name}" for n, name in enumerate(names, 1)
            ]
        else:
            assert ([text.get_text() for text in ax.texts], keys) == (names, [])
        fig.draw_without_rendering()
        boxes = [Text.get_window_extent(text) for text in ax.texts]  # without its line
        frame = ax.get_window_extent()
        for number, box in enumerate(boxes):
            assert frame.x0 - 1 < box.x0 < box.x1 < frame.x1 + 1
            assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def test_a_name_covers_no_word_that_is_there_already():
    fig, ax = plt.subplots(figsize=(3.3, 3))
    ax.set(xlim=(0, 1), ylim=(0, 1))
    for covered in (False, True):
        sheet = lay_out((0, 0), ax=ax)
        word = ax.text(0.5, 0.55, "0.75", ha="center", va="center")
        label_points(sheet, ax, [(0.5, 0.5)], ["ResNet-50"], covered=[word] * covered)
        name = ax.texts[-1]
        fig.draw_without_rendering()
        box = Text.get_window_extent(name)
        assert box.overlaps(word.get_window_extent()) is not covered
        name.remove()
    plt.close(fig)


def test_overlay_of_a_constant_map_is_its_minimum_everywhere():
    image = overlay(np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 3.0))
    assert len(np.unique(image.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("count", [1, 10])
def test_heatmap_rows_label_rows_and_columns(count):
    images = np.zeros((count, 16, 16, 3), np.uint8)
    maps = np.random.default_rng(0).random((count, 16, 16))
    fig = plot_heatmap_rows(images, {"people": maps, "model": maps}, ["cat"] * count, "A title")
    axes = fig.axes
    assert [axes[i * count].get_ylabel() for i in range(3)] == ["image", "people", "model"]
    assert axes[0].get_title() == "cat"
    assert axes[-1].get_yticklabels()[1].get_text() == "maximum\nof a map"


def test_kernel_and_receptive_field_figures_are_drawn():
    plot_kernels({"a": np.ones((4, 7, 7)), "b": np.zeros((2, 7, 7))}, "kernels")
    field = np.random.default_rng(0).random((32, 32))
    rows = list(BACKBONES.values())[:2]
    both = {"without DCLS": field, "with DCLS": np.zeros((32, 32))}
    fig = plot_receptive_fields(dict.fromkeys(rows, both), 4)
    assert "32 × 32 pixels; n = 4 images" in " ".join(fig.get_suptitle().split())
    assert [text.get_text() for text in fig.axes[0].texts] == ["5 px"]


def test_saved_figure_carries_caveat_and_provenance(tmp_path, monkeypatch, summary):
    monkeypatch.setattr("lib.study.places.FIGURES", tmp_path)
    study = Study.from_profile("demo", whole=True)
    fig = plot_score_bars(summary, CONTROL_SCORES, control_labels(), OF_DCLS)
    path = save_figure(fig, "figure_x", study)
    assert any("No evidence about DCLS" in t.get_text() for t in fig.texts)
    assert {p.name for p in path.parent.iterdir()} == {
        f"figure_x.{s}" for s in ("png", "pdf", "svg", "json", "txt")
    }
    assert "No evidence about DCLS" in path.with_suffix(".txt").read_text()
    with Image.open(path) as image:
        assert image.width > 800
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["study"]["profile"] == "demo"
    assert facts["environment"]["torch"]
    assert facts["commit"]


def test_a_short_runs_figure_is_one_file_and_says_how_its_sample_is_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.study.places.FIGURES", tmp_path)
    study = Study.from_profile("demo")
    fig, _ = plt.subplots(layout="constrained")
    layout = fig.get_layout_engine()
    path = save_figure(fig, "figure_x", study, of=study.choices.of_sample)
    assert fig.get_layout_engine() is layout
    assert {p.suffix for p in path.parent.iterdir()} == {".png", ".json", ".txt"}
    said = "2 of 8 backbones. --whole takes all."
    assert any(said in text.get_text() for text in fig.texts)
    assert said in path.with_suffix(".txt").read_text()
    assert said in json.loads(path.with_suffix(".json").read_text())["of"]["sample"]


def test_files_hold_all_that_is_drawn_whatever_the_layout(tmp_path):
    for layout in ("constrained", "tight", "none"):
        sizes = []
        for alone in (True, False):  # a layout once made is another at the second time
            fig, ax = plt.subplots(figsize=(2, 2), layout=layout)
            ax.text(0, 1.6, "above", transform=ax.transAxes)  # beyond the sheet
            engine = fig.get_layout_engine()
            with plt.rc_context({"savefig.bbox": "tight", "savefig.dpi": 100}):
                if alone:
                    fig.savefig(tmp_path / f"of_{layout}.png")
                else:
                    draw_files(fig, tmp_path, f"of_{layout}")
                    assert fig.get_layout_engine() is engine
            with Image.open(tmp_path / f"of_{layout}.png") as image:
                sizes.append(image.size)
            plt.close(fig)
        np.testing.assert_allclose(*sizes, atol=3)


def test_long_names_are_whole_at_the_resolution_of_the_files(tmp_path):
    with plt.rc_context({"figure.dpi": 110, "savefig.dpi": 160, "savefig.bbox": "tight"}):
        fig, ax = plt.subplots(figsize=(7.2, 2), layout="constrained")
        ax.set_yticks([0], ["all photometric (609–694 + 186–202)"], fontsize=7.5)
        draw_files(fig, tmp_path, "named", formats=("png",))
        assert fig.get_dpi() == 110
    with Image.open(tmp_path / "named.png") as image:
        grey = np.asarray(image.convert("L"))
    assert (grey[:, :3] == 255).all(), "a name is cut at the left edge"


def test_a_style_may_want_all_of_the_sheet(tmp_path):
    with plt.rc_context({"savefig.bbox": None, "savefig.dpi": 100}):
        fig = plt.figure(figsize=(2, 3))
        draw_files(fig, tmp_path, "sheet")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (200, 300)


def test_a_figure_drawn_from_a_table_tells_what_the_table_was_made_from(
    tmp_path, monkeypatch, summary
):
    monkeypatch.setattr("lib.study.places.FIGURES", tmp_path)
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path)
    study = Study.from_profile("demo")
    table = save_table(summary, "t", study)
    beside = table.with_suffix(".json")
    beside.write_text(beside.read_text().replace("34d5ad03", "00000000"))  # then, another shard
    path = save_figure(
        plot_score_bars(summary, CONTROL_SCORES, control_labels(), OF_DCLS),
        "figure_x",
        study,
        drawn_from=table,
    )
    inputs = json.loads(path.with_suffix(".json").read_text())["inputs"]
    assert inputs[str(table)] == hashlib.sha256(table.read_bytes()).hexdigest()
    assert inputs["data/demo/clickme/val/val-0.tfrecords"].startswith("00000000")


def test_a_paper_figure_carries_no_caveat(tmp_path, monkeypatch, summary):
    monkeypatch.setattr("lib.study.places.FIGURES", tmp_path)
    fig = plot_size_against_score(summary[summary.panel == "grad_cam"], 0.1)
    save_figure(fig, "figure_x", Study.from_profile("paper"))
    assert not fig.texts


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), write_atomically(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_file_that_did_not_fit(tmp_path):
    path = tmp_path / "table.csv"
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match=r"device: '.*table.csv'"), write_atomically(path):
        raise full
    assert not list(tmp_path.iterdir())


def test_tables_are_saved_as_csv_or_parquet(tmp_path, monkeypatch, summary):
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path)
    study = Study.from_profile("demo")
    pd.testing.assert_frame_equal(
        pd.read_parquet(save_table(summary, "t", study, "parquet")), summary
    )
    assert len(pd.read_csv(save_table(summary, "t", study))) == len(summary)
