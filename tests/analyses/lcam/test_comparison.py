"""Learned maps in a study: differences to Grad-CAM by hand, a watched training, figures."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lib.analyses import summarise_faithfulness
from lib.analyses.lcam import comparison as attention_study
from lib.analyses.lcam.comparison import (
    LCAM_METHODS,
    against_grad_cam,
    comparable,
    compare_methods,
    watch_training,
)
from lib.base.paths import DEMO
from lib.figures.lcam import plot_against_grad_cam, plot_looks, plot_losses
from lib.maps.cam import cam_maps
from lib.maps.methods import METHODS
from lib.networks.backbones import BACKBONES
from lib.scores.ceiling import GIVEN, Ceiling, Ceilings
from lib.scores.spearman import spearman_per_image
from lib.scores.statistics import mean_interval
from lib.scores.study_scores import score_study
from lib.study.exhibits import held_out
from lib.study.study import Study

CONVNEXT = BACKBONES["convnext_tiny"]


def test_differences_to_grad_cam_by_hand():
    rows = [
        (dcls, method, image, "average_drop_100%", value)
        for dcls, method, values in (
            (False, "grad_cam", (10.0, 20.0, 30.0)), (False, "lcam_fm", (8.0, 26.0, np.nan)),
            (True, "grad_cam", (50.0, 40.0, 30.0)), (True, "lcam_fm", (20.0, 30.0, 10.0)),
        )
        for image, value in zip("abc", values, strict=True)
    ]  # fmt: skip
    values = pd.DataFrame(rows, columns=["dcls", "method", "image_id", "measure", "value"])
    together, apart = against_grad_cam(values.assign(backbone="resnet50"))
    (row,) = together.to_dict("records")
    per_image = [(-2 - 30) / 2, (6 - 10) / 2, -20]
    expected = mean_interval(per_image)
    assert row["difference"] == pytest.approx(np.mean(per_image))
    assert (row["low"], row["high"], row["n"]) == (expected.low, expected.high, 3)
    assert (row["better"], row["models"]) == (1, 2)  # plain: (-2 + 6) / 2 is more drop
    assert apart.set_index("dcls").difference.to_dict() == {False: 2.0, True: -20.0}
    assert apart.set_index("dcls").n.to_dict() == {False: 2, True: 3}
    without = values[values.method == "lcam_fm"].assign(backbone="resnet50")
    assert all(table.empty for table in against_grad_cam(without))
    plot_against_grad_cam(*against_grad_cam(without))


def test_scores_are_summarised_beside_faithfulness():
    """A score can lie outside of 0-1, where most measures of faithfulness cannot."""
    rows = [("a", "score", -0.4), ("b", "score", -0.6), ("a", "increase_15%", 0.0),
            ("b", "increase_15%", 100.0)]  # fmt: skip
    values = pd.DataFrame(rows, columns=["image_id", "measure", "value"])
    values = values.assign(backbone="resnet50", dcls=False, method="grad_cam")
    table = summarise_faithfulness(values).set_index("measure")
    assert table.value.to_dict() == {"score": -0.5, "increase_15%": 50.0}
    assert table.low["score"] < -0.6
    assert table.low["increase_15%"] >= 0


def test_more_is_better_of_everything_but_drops():
    differences = pd.Series([-1.0, -2.0, 0.0, 1.0])
    assert attention_study.better("average_drop_15%", differences) == 2
    for measure in ("increase_100%", "score"):
        assert attention_study.better(measure, differences) == 1
    assert np.isnan(attention_study.better("let_through", differences))


def test_methods_without_modules_are_left_out(tmp_path, monkeypatch):
    shutil.copytree(DEMO / "attention", tmp_path / "attention")
    shutil.copytree(DEMO / "checkpoints", tmp_path / "checkpoints")
    monkeypatch.setattr("lib.study.inputs.Inputs.data", property(lambda self: tmp_path))
    study = Study.from_profile("demo", ["resnet50"])
    wanted = METHODS.select(LCAM_METHODS)
    found = [m.key for m in comparable(study, wanted).choices.methods]
    assert found == [key for key in LCAM_METHODS if key != "tame"]
    study.inputs.attention_path("resnet50", True, "lcam_img").unlink()
    assert "lcam_img" not in [m.key for m in comparable(study, wanted).choices.methods]
    # A reader's own backbone without modules is left out itself.
    own = replace(CONVNEXT, key="own", origin="abc")
    both = comparable(study.changed(backbones=(*study.choices.backbones, own)), wanted)
    assert [b.key for b in both.choices.backbones] == ["resnet50"]
    alone = comparable(study.changed(backbones=(own,)), wanted)
    assert [m.key for m in alone.choices.methods] == ["grad_cam", "threshold_grad_cam"]
    assert [b.key for b in alone.choices.backbones] == ["own"]


def test_the_embedded_examples_modules_fit_and_find_what_people_look_at():
    study = Study.from_profile("demo", ["convnext_tiny"], ["grad_cam", "lcam_fm", "random_cam"])
    values = compare_methods(study, 6, Ceilings(Ceiling(0.5, GIVEN)))
    rows = score_study(study.changed(limit=6, protocols=study.choices.protocols[:1]))
    agreed = values[values.measure == "score"].value
    assert sorted(agreed) == pytest.approx(sorted(rows.rho.dropna() / 0.5))
    means = values.groupby(["measure", "method"]).value.mean().unstack()
    assert means.loc["average_drop_100%", "lcam_fm"] < means.loc["average_drop_100%", "random_cam"]
    # An image's map is where people looked in it, and not where they looked in another one.
    batch = held_out(study, 12)
    for dcls in (False, True):
        model = study.networks.inference_model("convnext_tiny", dcls)
        maps = cam_maps(model, model.prepare(batch.images), None, ["lcam_fm"])["lcam_fm"]
        own, other = (
            spearman_per_image(maps, people).nanmean()
            for people in (batch.human_maps, batch.human_maps.roll(1, 0))
        )
        assert own > other + 0.2
    together, apart = against_grad_cam(values)
    assert set(together[together.method == "lcam_fm"].n) == {6}
    assert len(apart) == 2 * 2 * 8
    assert plot_against_grad_cam(together, apart).axes[0].get_yticks().size == 2


def test_a_watched_training_sees_no_image_that_is_compared(monkeypatch):
    monkeypatch.setattr(attention_study, "WATCHED", (8, 8, 1))
    monkeypatch.setattr(attention_study, "LOOKED_AT", 2)
    study = Study.from_profile("demo", ["convnext_tiny"], whole=True)
    seen = watch_training(study, CONVNEXT, 24)
    assert list(seen.histories) == ["L-CAM-Fm", "L-CAM-Img"]
    assert list(seen.maps)[-1] == "Grad-CAM"
    assert all(maps.shape == (2, 224, 224) for maps in seen.maps.values())
    compared = np.concatenate([b.images for b in study.clickme(limit=24).batches(24)])
    used = attention_study.images_besides(study, 24, 8)
    assert len(used) == 8
    assert not any((image == other).all() for image in used for other in compared)
    plot_losses(seen.histories, seen.title)
    plot_looks(seen.images, seen.maps)


def test_of_full_size_networks_the_kept_losses_are_shown(tmp_path):
    study = Study.from_profile("paper", ["convnext_tiny"]).changed(data_dir=str(tmp_path))
    seen = watch_training(study, CONVNEXT, 24)
    assert not seen.histories
    assert not seen.maps
    assert "no training is recorded" in plot_losses(seen.histories).axes[0].texts[0].get_text()
    assert "was not watched" in plot_looks(seen.images, seen.maps).axes[0].texts[0].get_text()
    path = study.inputs.attention_path("convnext_tiny", True, "lcam_fm").with_suffix(".csv")
    path.parent.mkdir(parents=True)
    terms = ("cross_entropy", "area", "variation", "same_class")
    pd.DataFrame({"step": [1, 2], **{term: [0.5, 0.4] for term in terms}}).to_csv(path, index=False)
    seen = watch_training(study, CONVNEXT, 24)
    assert list(seen.histories) == ["L-CAM-Fm"]
    assert len(plot_losses(seen.histories).axes) == 4
