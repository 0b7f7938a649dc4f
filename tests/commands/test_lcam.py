"""Learned methods in a study: trained by the command, used like any other, refused when unfit."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from stand_ins import narrow_vgg

from lib.analyses.lcam import trainings as attention_runs
from lib.analyses.sanity import score_forgetting
from lib.base.fingerprint import sha256_of
from lib.base.paths import DEMO
from lib.commands import average_drop, lcam
from lib.demo import attention
from lib.maps.cam import cam_maps
from lib.maps.learned import training as attention_training
from lib.maps.learned.attention import ATTENTIONS, AttentionError, load_attention
from lib.maps.learned.training import RECIPES, train_attention
from lib.maps.methods import LEARNED_METHODS, METHODS
from lib.networks.backbones import BACKBONES
from lib.networks.checkpoints import MissingWeights
from lib.networks.rewrites import PLAIN, Form
from lib.people.image_folders import ArrayImages
from lib.scores.kept import facts_of_maps
from lib.scores.study_scores import score_study
from lib.study.inputs import MissingInputs
from lib.study.study import Study

RESNET = BACKBONES["resnet50"]


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """The embedded example in a folder of its own, without trained modules; a study of it."""
    here = tmp_path / "demo"
    shutil.copytree(DEMO, here, ignore=shutil.ignore_patterns("attention", "training"))
    monkeypatch.setattr("lib.study.inputs.Inputs.data", property(lambda self: here))
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path / "output")
    return here


@pytest.fixture
def undrawn(monkeypatch):
    """Drawing takes most of a short training's time, and is tested by itself."""
    monkeypatch.setattr(lcam, "draw_early", lambda *_: None)


def command(*words: str) -> int:
    return attention.main(
        ["--models", "resnet50", "--limit", "20", "--epochs", "1",
         "--batch-size", "10", *words]
    )  # fmt: skip


@pytest.fixture
def drawn_last(monkeypatch):
    """The maps and losses of each network with DCLS after its last step, and nothing else."""
    draw = lcam.draw_early

    def drawn(path, images, label, history, looks):
        if len(history) == 2 and path.parent.name.endswith("_dcls"):
            draw(path, images, label, history, looks)

    monkeypatch.setattr(lcam, "draw_early", drawn)


def test_what_the_command_trains_is_a_method_like_any_other(demo, drawn_last, capsys):
    study = Study.from_profile("demo", ["resnet50"], ["grad_cam", "lcam_fm"], 3)
    with pytest.raises(
        MissingInputs, match="lib.demo.attention --models resnet50 --methods lcam_fm"
    ):
        study.inputs.require()
    with pytest.raises(MissingWeights, match="attention/resnet50/lcam_fm"):
        facts_of_maps(study, RESNET, False)
    assert command("--methods", "lcam_fm") == 0
    assert "2 steps" in capsys.readouterr().out
    study.inputs.require()
    path = study.inputs.attention_path("resnet50", True, "lcam_fm")
    history = pd.read_csv(path.with_suffix(".csv"))
    assert list(history.step) == [1, 2]
    assert path.with_suffix(".maps.png").stat().st_size > 5000
    assert path.with_suffix(".losses.png").stat().st_size > 5000
    assert not list(path.parent.glob(".*"))

    model = study.networks.inference_model("resnet50", False)
    batch = next(study.clickme().batches(3))
    x = model.prepare(batch.images)
    maps = cam_maps(model, x, batch.labels, study.choices.methods)
    attention = load_attention(
        study.inputs.attention_path("resnet50", False, "lcam_fm"), "lcam_fm", "resnet50",
        sha256_of(study.inputs.weights_path("resnet50", False)),
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
    assert "already trained with these options" in capsys.readouterr().out
    assert command("--methods", "lcam_fm", "--seed", "1") == 0
    assert facts_of_maps(study, RESNET, False)["attentions"] != before


def test_modules_of_other_weights_are_refused_and_can_be_left_out(demo, undrawn):
    assert command("--methods", "lcam_fm") == 0
    study = Study.from_profile("demo", ["resnet50", "fastvit_sa24"], ["lcam_fm"], 2)
    path = study.inputs.attention_path("resnet50", False, "lcam_fm")
    shutil.copy(demo / "checkpoints" / "resnet50.safetensors", path)
    with pytest.raises(AttentionError, match="trained for attention None, not 'lcam_fm'"):
        study.networks.inference_model("resnet50", False)
    # The other form's module is well; its network's weights become others, and as valid.
    study.networks.inference_model("resnet50", True)
    weights = study.inputs.weights_path("resnet50", True)
    tensors = load_file(weights)
    tensors["fc.bias"] += 1
    save_file(tensors, weights)
    with pytest.raises(AttentionError, match="was trained for weights '[0-9a-f]{64}', not '"):
        study.networks.inference_model("resnet50", True)
    going = Study.from_profile("demo", ["resnet50"], ["lcam_fm"], 2, keep_going=True)
    assert going.networks.there() == []


def test_a_training_that_was_ended_is_resumed_when_asked(demo, undrawn, capsys, monkeypatch):
    real = attention_runs.train_attention
    monkeypatch.setattr(
        attention_runs, "train_attention", lambda *w, **o: real(*w, **{**o, "save_every": 1})
    )
    steps = []
    run = attention_training.Run
    step = run.one_step

    def second_dies(self, *words):
        if len(steps) == 1:
            steps.append(0)
            raise KeyboardInterrupt
        steps.append(1)
        return step(self, *words)

    monkeypatch.setattr(run, "one_step", second_dies)
    assert command("--methods", "lcam_fm") == 130
    assert "--resume" in capsys.readouterr().err
    monkeypatch.setattr(run, "one_step", step)
    assert command("--methods", "lcam_fm") == 2
    assert "unfinished training" in capsys.readouterr().err
    assert command("--methods", "lcam_fm", "--resume") == 0
    assert "resumed at step 1 of 2" in capsys.readouterr().out


FOUR = ArrayImages(np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), "u1"), "four")
SMALL = replace(RECIPES["demo"], epochs=2, batch=2, lr=0.1)  # four steps


@contextmanager
def dies_at(step: int):
    """A training ends like that before this step."""
    real = attention_training.Run.one_step

    def one(self, *words):
        if self.step == step:
            raise KeyboardInterrupt
        return real(self, *words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_training.Run, "one_step", one)
        yield


@pytest.mark.parametrize("key", ["lcam_fm", "lcam_img"])
def test_what_is_resumed_goes_on_in_the_form_that_it_began_in(demo, key, monkeypatch):
    """Which form is the fastest is measured, and may come out otherwise the next time."""
    study = Study.from_profile("demo", ["resnet50"], [])
    path = study.inputs.attention_path("resnet50", False, key)
    what = (study, RESNET, False, key, FOUR, SMALL)
    whole = attention_runs.train_variant(*what)
    with dies_at(3), pytest.raises(KeyboardInterrupt):
        attention_runs.train_variant(*what, save_to=path)
    checkpoint = attention_runs.unfinished(path, ".pt")
    before = attention_training.checkpoint_facts(checkpoint)["form"]
    other = Form(channels_last=False)
    assert vars(other) != before
    monkeypatch.setattr("lib.networks.models.MINI_FORM", other)
    resumed = attention_runs.train_variant(*what, save_to=path, resume=True)
    for name, tensor in whole.attention.state_dict().items():
        assert torch.equal(tensor, resumed.attention.state_dict()[name])
    assert whole.history.equals(resumed.history)
    assert not checkpoint.exists()


def test_a_finished_module_and_what_lies_beside_it_stay_until_the_next_is_finished(demo):
    study = Study.from_profile("demo", ["resnet50"], [])
    path = study.inputs.attention_path("resnet50", False, "lcam_fm")
    words: list[str] = []

    def train(recipe, word="", **options):
        def draw(history, looks):
            for suffix in (".maps.png", ".losses.png"):
                place = attention_runs.unfinished(path, suffix)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(word)
            words.append(word)

        look_at = FOUR.some(1) if word else None
        return attention_runs.train_variant(
            study, RESNET, False, "lcam_fm", FOUR, recipe, save_to=path, look_at=look_at,
            on_look=draw, **options,
        )  # fmt: skip

    def beside():
        return {p.name: p.read_bytes() for p in path.parent.iterdir() if p.name[0] != "."}

    other = replace(SMALL, lr=0.2)
    assert train(SMALL, "one") is not None
    one = beside()
    tables = {"lcam_fm.safetensors", "lcam_fm.csv", "lcam_fm.epochs.csv"}
    names = tables | {"lcam_fm.maps.png", "lcam_fm.losses.png"}
    assert one.keys() == names
    assert one["lcam_fm.maps.png"] == b"one"
    with dies_at(3), pytest.raises(KeyboardInterrupt):
        train(other, "two")
    assert words[-1] == "two"
    assert beside() == one
    drawn = path.with_name(".lcam_fm.unfinished.maps.png")
    assert drawn.read_text() == "two"
    # Asked for again, what is there is no reason to give up the other training.
    assert train(SMALL) is None
    checkpoint = path.with_name(".lcam_fm.unfinished.pt")
    assert checkpoint.exists()
    kept = checkpoint.read_bytes()
    with pytest.raises(AttentionError, match=r"belongs to another training \(recipe\)"):
        train(replace(SMALL, lr=0.3), resume=True)
    train(other, "two", resume=True)
    two = beside()
    assert two.keys() == names
    assert two["lcam_fm.maps.png"] == two["lcam_fm.losses.png"] == b"two"
    assert all(two[name] != one[name] for name in names)
    assert not list(path.parent.glob(".*"))
    # Its own, left by one that ended after its module was in place, is.
    checkpoint.write_bytes(kept)
    assert train(other) is None
    assert not checkpoint.exists()
    checkpoint.write_bytes(b"damaged")
    assert train(other) is None
    assert checkpoint.exists()
    # What was drawn of an earlier module does not stay beside one of which nothing is.
    checkpoint.unlink()
    train(SMALL)
    assert beside().keys() == tables


def test_a_module_of_earlier_code_is_trained_anew_and_its_checkpoint_refused(demo, monkeypatch):
    study = Study.from_profile("demo", ["resnet50"], [])
    path = study.inputs.attention_path("resnet50", False, "lcam_fm")
    words = (study, RESNET, False, "lcam_fm", FOUR, SMALL)
    attention_runs.train_variant(*words, save_to=path)
    assert attention_runs.train_variant(*words, save_to=path) is None
    later = attention_training.TRAINING + 1
    monkeypatch.setattr(attention_runs, "TRAINING", later)
    with dies_at(3), pytest.raises(KeyboardInterrupt):
        attention_runs.train_variant(*words, save_to=path)
    monkeypatch.setattr(attention_training, "TRAINING", later)
    with pytest.raises(AttentionError, match=r"another training \(code\)"):
        attention_runs.train_variant(*words, save_to=path, resume=True)


def test_killed_after_the_module_is_saved_what_lies_beside_it_is_its_own(demo):
    study = Study.from_profile("demo", ["resnet50"], [])
    path = study.inputs.attention_path("resnet50", False, "lcam_fm")
    first = (study, RESNET, False, "lcam_fm", FOUR, SMALL)
    second = (*first[:-1], replace(SMALL, lr=0.7))
    attention_runs.train_variant(*first, save_to=path)
    before = path.with_suffix(".csv").read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_runs, "settle", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            attention_runs.train_variant(*second, save_to=path)
    assert path.with_suffix(".csv").read_text() == before
    assert attention_runs.train_variant(*second, save_to=path, resume=True) is None
    whole = attention_runs.train_variant(*second).history
    assert np.allclose(pd.read_csv(path.with_suffix(".csv")), whole, rtol=1e-5)
    assert not attention_runs.unfinished(path, ".pt").exists()


def test_a_full_disk_is_told(demo, undrawn, capsys, monkeypatch):
    def full(*words, **options):
        raise OSError(28, "No space left on device", "a.safetensors")

    monkeypatch.setattr(attention_runs, "save_attention", full)
    assert command("--methods", "lcam_fm") == 2
    assert "No space left on device: 'a.safetensors'" in capsys.readouterr().err


def test_modules_of_a_readers_own_network(demo, undrawn, tmp_path, capsys, monkeypatch, tables):
    monkeypatch.setattr("lib.networks.models.remembered_form", lambda *_, **__: PLAIN)
    own = ["--extend", str(DEMO / "tour" / "tour_rows.py"), "--models", "smallnet"]
    small = ["--limit", "20", "--epochs", "1", "--batch-size", "10"]
    assert attention.main([*own, *small, "--methods", "lcam_fm", "lcam_img"]) == 0
    for name in ("smallnet", "smallnet_dcls"):
        assert (demo / "attention" / name / "lcam_img.safetensors").is_file()
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, pixels in enumerate(FOUR.images[:2].permute(0, 2, 3, 1).numpy()):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    measured = ["--profile", "demo", *own, "--images", str(folder)]
    capsys.readouterr()
    assert average_drop.main([*measured, "--methods", "evidence", "lcam_img"]) == 0
    assert "smallnet_dcls, 2 images" in capsys.readouterr().out
    for main, words in ((lcam.main, []), (average_drop.main, ["--images", str(folder)])):
        assert main([*words, "--extend", str(tmp_path / "none.py")]) == 2
        assert "the file of --extend cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--methods", "lcam_fn"], "unknown attention 'lcam_fn'"),
        (["--masking", "radom"], "unknown masking 'radom'"),
        (["--recipe", "resnet"], "unknown recipe 'resnet'"),
        (["--lr", "-1"], "--lr must be a finite number above 0, got -1.0"),
        (["--lr", "0"], "--lr must be a finite number above 0, got 0.0"),
        (["--lr", "nan"], "--lr must be a finite number above 0, got nan"),
        (["--lr", "inf"], "--lr must be a finite number above 0, got inf"),
        (["--epochs", "0"], "--epochs must be a finite number above 0, got 0"),
        (["--batch-size", "0"], "--batch-size must be a finite number above 0, got 0"),
        (["--images", "."], "trains on its own scenes"),
        (["--precision", "bf17"], "bf17"),
    ],
)
def test_what_is_asked_wrongly_is_said_before_any_work(words, why, capsys, monkeypatch):
    monkeypatch.setattr(attention, "demo_images", lambda count: lambda backbone: None)
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
    images = attention_runs.folder_images(folder.parent, None, 0, 0)(RESNET)
    path = study.inputs.attention_path("resnet50", False, "lcam_img")
    recipe = RECIPES["resnet50"]
    small = replace(recipe, epochs=2, batch=2)
    trained = attention_runs.train_variant(
        study, RESNET, False, "lcam_img", images, small, save_to=path
    )  # fmt: skip
    assert len(trained.history) == 4
    assert trained.history.lr.tolist() == pytest.approx([1e-4, 1e-4, 0.95e-4, 0.95e-4])
    assert lcam.main(["--profile", "paper", "--models", "resnet50"]) == 2
    assert "--images is missing" in capsys.readouterr().err


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
def test_vgg_16_can_be_trained_beside_at_both_layers_without_dropout(key):
    model = narrow_vgg(key).for_inference(form=PLAIN)
    side = 64  # its head takes any
    pixels = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), "u1")
    images = ArrayImages(pixels, "two")
    recipe = replace(RECIPES["vgg16"], epochs=2, batch=2)
    before = {name: tensor.clone() for name, tensor in model.network.named_parameters()}
    dropouts = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    assert dropouts
    for method in ("lcam_fm", "lcam_img") if key == "vgg16" else ("lcam_fm",):
        trained = train_attention(model, method, images, recipe, side)
        for dropout in dropouts:
            dropout.p = 0.9
        again = train_attention(model.train(), method, images, recipe, side)
        assert trained.history.equals(again.history)
        assert trained.attention.maps.weight.shape == (1000, 512, 1, 1)
        assert np.isfinite(trained.history.loss).all()
    for name, tensor in model.network.named_parameters():
        assert torch.equal(tensor, before[name])
        assert tensor.grad is None


def test_every_learned_row_has_its_module_and_no_other_has():
    assert set(LEARNED_METHODS) == {m.key for m in METHODS.values() if m.learned}
    assert set(LEARNED_METHODS) == set(ATTENTIONS)
