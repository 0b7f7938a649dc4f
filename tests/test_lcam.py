"""Learned methods in a study: trained by the command, used like any other, refused when unfit."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lib import attention_runs, attention_training, lcam
from lib.attention import ATTENTIONS, AttentionError, load_attention
from lib.attention_training import RECIPES, train_attention
from lib.backbones import BACKBONES, load_model
from lib.cam import cam_maps
from lib.checkpoints import MissingWeights
from lib.demo import attention
from lib.fingerprint import sha256_of
from lib.kept import facts_of_maps
from lib.methods import LEARNED_METHODS, METHODS
from lib.paths import DEMO
from lib.picture_folders import ArrayPictures
from lib.sanity import score_forgetting
from lib.study import MissingInputs, Study
from lib.study_scores import score_study

RESNET = BACKBONES["resnet50"]


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """The embedded example in a folder of its own, without trained modules; a study of it."""
    here = tmp_path / "demo"
    shutil.copytree(DEMO, here, ignore=shutil.ignore_patterns("attention", "training"))
    monkeypatch.setattr("lib.study.Study.data", property(lambda self: here))
    monkeypatch.setattr("lib.study.OUTPUT", tmp_path / "output")
    return here


def command(*words: str) -> int:
    return attention.main(
        ["--models", "resnet50", "--limit", "20", "--epochs", "1",
         "--batch-size", "10", *words]
    )  # fmt: skip


def test_what_the_command_trains_is_a_method_like_any_other(demo, capsys):
    study = Study.from_profile("demo", ["resnet50"], ["grad_cam", "lcam_fm"], 3)
    with pytest.raises(
        MissingInputs, match="lib.demo.attention --models resnet50 --methods lcam_fm"
    ):
        study.require_inputs()
    with pytest.raises(MissingWeights, match="attention/resnet50/lcam_fm"):
        facts_of_maps(study, RESNET, False)
    assert command("--methods", "lcam_fm") == 0
    assert "2 steps" in capsys.readouterr().out
    study.require_inputs()
    path = study.attention_path("resnet50", True, "lcam_fm")
    history = pd.read_csv(path.with_suffix(".csv"))
    assert list(history.step) == [1, 2]
    assert path.with_suffix(".maps.png").stat().st_size > 5000
    assert path.with_suffix(".losses.png").stat().st_size > 5000
    assert not list(path.parent.glob(".*"))

    model = study.inference_model("resnet50", False)
    batch = next(study.clickme().batches(3))
    x = model.prepare(batch.pictures)
    maps = cam_maps(model, x, batch.labels, study.methods)
    attention = load_attention(
        study.attention_path("resnet50", False, "lcam_fm"), "lcam_fm", "resnet50",
        sha256_of(study.weights_path("resnet50", False)),
    )  # fmt: skip
    with torch.inference_mode():
        raw = attention([model.features(x)])[torch.arange(3), batch.labels]
    low, high = raw.amin((1, 2), keepdim=True), raw.amax((1, 2), keepdim=True)
    expected = torch.nn.functional.interpolate(((raw - low) / (high - low))[:, None], (224, 224),
                                               mode="bilinear", align_corners=False)[:, 0]  # fmt: skip
    assert (maps["lcam_fm"] - expected).abs().max() < 1e-6
    scores = score_study(study)
    assert set(scores.method) == {"grad_cam", "lcam_fm"}
    assert len(score_forgetting(study, 2))

    before = facts_of_maps(study, RESNET, False)["attentions"]
    assert command("--methods", "lcam_fm") == 0
    assert "trained alike before" in capsys.readouterr().out
    assert command("--methods", "lcam_fm", "--seed", "1") == 0
    assert facts_of_maps(study, RESNET, False)["attentions"] != before


def test_modules_of_other_weights_are_refused_and_can_be_left_out(demo):
    assert command("--methods", "lcam_fm") == 0
    study = Study.from_profile("demo", ["resnet50", "fastvit_sa24"], ["lcam_fm"], 2)
    path = study.attention_path("resnet50", False, "lcam_fm")
    shutil.copy(demo / "checkpoints" / "resnet50.safetensors", path)
    with pytest.raises(AttentionError, match="trained for attention None, not 'lcam_fm'"):
        study.inference_model("resnet50", False)
    going = Study.from_profile("demo", ["resnet50"], ["lcam_fm"], 2, keep_going=True)
    assert going.there() == []


def test_a_training_that_was_ended_is_resumed_when_asked(demo, capsys, monkeypatch):
    real = attention_runs.train_attention
    monkeypatch.setattr(
        attention_runs, "train_attention", lambda *w, **o: real(*w, **{**o, "save_every": 1})
    )
    steps = []
    run = attention_training._Run
    step = run._one

    def second_dies(self, *words):
        if len(steps) == 1:
            steps.append(0)
            raise KeyboardInterrupt
        steps.append(1)
        return step(self, *words)

    monkeypatch.setattr(run, "_one", second_dies)
    assert command("--methods", "lcam_fm") == 130
    assert "--resume" in capsys.readouterr().err
    monkeypatch.setattr(run, "_one", step)
    assert command("--methods", "lcam_fm") == 2
    assert "did not end" in capsys.readouterr().err
    assert command("--methods", "lcam_fm", "--resume") == 0
    assert "resumed at step 1 of 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--methods", "lcam_fn"], "unknown attention 'lcam_fn'"),
        (["--masking", "radom"], "unknown masking 'radom'"),
        (["--recipe", "resnet"], "unknown recipe 'resnet'"),
        (["--lr", "-1"], "--lr must be above 0"),
        (["--images", "."], "trains on its own scenes"),
        (["--precision", "bf17"], "bf17"),
    ],
)
def test_what_is_asked_wrongly_is_said_before_any_work(words, why, capsys, monkeypatch):
    monkeypatch.setattr(attention, "demo_pictures", lambda count: lambda backbone: None)
    assert command(*words) == 2
    assert why in capsys.readouterr().err


def test_training_on_a_folder_in_imagenets_layout(demo, tmp_path, capsys, monkeypatch):
    """With the miniatures' classes and weights in place of the paper profile's."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "ILSVRC2012_img_train" / "n01440764"
    folder.mkdir(parents=True)
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), "u1")).save(folder / f"n_{number}.JPEG")
    study = Study.from_profile("demo", ["resnet50"], [])
    pictures = attention_runs.folder_pictures(folder.parent, None, 0, 0)(RESNET)
    path = study.attention_path("resnet50", False, "lcam_img")
    recipe = RECIPES["resnet50"]
    small = replace(recipe, epochs=2, batch=2)
    trained = attention_runs.train_variant(
        study, RESNET, False, "lcam_img", pictures, small, save_to=path
    )  # fmt: skip
    assert len(trained.history) == 4
    assert trained.history.lr.tolist() == pytest.approx([1e-4, 1e-4, 0.95e-4, 0.95e-4])
    assert lcam.main(["--profile", "paper", "--models", "resnet50"]) == 2
    assert "--images FOLDER is needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("profile", "backbone", "method", "recipe"),
    [
        ("paper", "resnet50", "lcam_img", "resnet50"),
        ("paper", "vgg16_pooled", "lcam_fm_a", "vgg16"),
        ("paper", "convnext_base", "lcam_fm", "standardised"),
        ("paper", "vgg16", "tame", "tame"),
        ("demo", "resnet50", "lcam_fm", "demo"),
    ],
)
def test_recipes_are_as_published_where_something_is(profile, backbone, method, recipe):
    found = attention_runs.default_recipe(profile, BACKBONES[backbone], method)
    assert found is RECIPES[recipe]


@pytest.mark.parametrize("key", ["vgg16", "vgg16_pooled"])
def test_vgg_16_can_be_trained_beside_at_both_layers(key):
    model = load_model(key).for_backward()
    pictures = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), "u1")
    recipe = replace(RECIPES["vgg16"], epochs=1, batch=2)
    before = {name: tensor.clone() for name, tensor in model.network.named_parameters()}
    for method in ("lcam_fm", "lcam_img") if key == "vgg16" else ("lcam_fm",):
        trained = train_attention(model, method, ArrayPictures(pictures, "two"), recipe, 224)
        assert trained.attention.maps.weight.shape == (1000, 512, 1, 1)
        assert np.isfinite(trained.history.loss).all()
    for name, tensor in model.network.named_parameters():
        assert torch.equal(tensor, before[name])
        assert tensor.grad is None


def test_every_learned_row_has_its_module_and_no_other_has():
    assert set(LEARNED_METHODS) == {m.key for m in METHODS.values() if m.learned}
    assert set(LEARNED_METHODS) == set(ATTENTIONS)
