"""Average drop and increase in confidence on a folder: step by step, and what is asked wrongly."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from lib.commands import average_drop
from lib.maps.forward import head_pass
from lib.maps.methods import METHODS
from lib.networks.backbones import BACKBONES
from lib.study.inputs import Inputs
from lib.study.study import Study


@pytest.fixture
def folder(tmp_path):
    """Two classes' folders, images of odd shapes and modes."""
    rng = np.random.default_rng(3)
    shapes = {"n01/a.png": (90, 60), "n01/b.JPEG": (224, 300), "n02/c.png": (260, 256)}
    for name, shape in shapes.items():
        path = tmp_path / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), "u1"))
        small.resize(shape).convert("L" if name.endswith("c.png") else "RGB").save(path)
    return tmp_path / "val"


def test_the_measures_step_by_step(folder, tmp_path, capsys):
    out = tmp_path / "values.csv"
    words = ["--profile", "demo", "--models", "resnet50", "--images", str(folder)]
    assert average_drop.main([*words, "--methods", "grad_cam", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "resnet50_dcls, 3 images, means with 95 % intervals" in told
    table = pd.read_csv(out)
    assert set(table.image_id) == {"n01/a.png", "n01/b.JPEG", "n02/c.png"}
    assert len(table) == 2 * 3 * 7

    mine = table[(table.image_id == "n01/b.JPEG") & ~table.dcls].set_index("measure").value
    image = Image.open(folder / "n01" / "b.JPEG")
    assert image.size == (224, 300)
    resized = np.asarray(image.resize((256, round(300 * 256 / 224)), Image.Resampling.BILINEAR))
    top = (resized.shape[0] - 224) // 2
    crop = torch.from_numpy(resized[top : top + 224, 16:240].copy()).permute(2, 0, 1)[None] / 255
    model = Study.from_profile("demo", ["resnet50"]).networks.load_model("resnet50", False).folded()
    x = model.normalised(crop)
    with torch.no_grad():
        whole = model(x).softmax(1)
    passed = head_pass(model, x)
    small = METHODS["grad_cam"].small_map(passed.features, passed.gradient)
    small = (small - small.min()) / (small.max() - small.min())  # before it is enlarged
    mask = F.interpolate(small[:, None], (224, 224), mode="bilinear")[:, 0]
    assert mine["let_through"] == pytest.approx(100 * mask.mean().item(), abs=0.01)
    kept = mask * (mask >= mask.flatten().sort(descending=True).values[round(0.5 * 224 * 224) - 1])
    for share, some in (("100%", mask), ("50%", kept)):
        with torch.no_grad():
            left = model(model.normalised(crop * some)).softmax(1)
        y, o = whole.max().item(), left[0, whole.argmax()].item()
        assert mine[f"average_drop_{share}"] == pytest.approx(100 * max(0, y - o) / y, abs=0.05)
        assert mine[f"increase_{share}"] == 100 * (o > y)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--images", "nowhere"], "nowhere is not a folder of images"),
        (["--methods", "grad_can"], "unknown method 'grad_can'"),
        (["--limit", "-2"], "the limit must be 0 or more"),
        (["--out", "values.txt"], "must end in .csv"),
        (
            ["--profile", "paper", "--models", "vgg16"],
            "these weights do not exist, fetch them or name others: .*vgg16.tv_in1k",
        ),
        (["--methods", "lcam_fm"], "no attention weights at"),
    ],
)
def test_what_is_asked_wrongly_is_said(
    words, why, folder, tmp_path, capsys, monkeypatch, no_real_data
):
    monkeypatch.setattr(Inputs, "attention_path", lambda *_: tmp_path / "none.safetensors")
    start = ["--profile", "demo", "--models", "resnet50", "--images", str(folder)]
    assert average_drop.main([*start, *words]) == 2
    assert re.search(why, capsys.readouterr().err)


@pytest.mark.parametrize(("words", "unit"), [([], "normalised"), (["--road-noise", "image"], "image")])  # fmt: skip
def test_roads_noise_is_of_the_unit_that_is_asked_for(words, unit, folder, monkeypatch, capsys):
    def seen(*given):
        raise ValueError(f"curves and unit: {given[-2:]}")

    monkeypatch.setattr(average_drop, "score_folder", seen)
    start = ["--profile", "demo", "--models", "resnet50", "--images", str(folder), "--curves"]
    assert average_drop.main([*start, *words]) == 2
    assert f"curves and unit: (True, '{unit}')" in capsys.readouterr().err


def test_modules_of_all_variants_are_looked_at_before_any_work(
    folder, tmp_path, capsys, monkeypatch
):
    real = Inputs.attention_path
    monkeypatch.setattr(
        Inputs, "attention_path",
        lambda self, key, dcls, method: tmp_path / "none" if dcls else real(self, key, dcls, method),
    )  # fmt: skip
    monkeypatch.setattr(average_drop, "score_folder", None)
    words = ["--profile", "demo", "--models", "resnet50", "--images", str(folder)]
    assert average_drop.main([*words, "--methods", "grad_cam", "lcam_fm"]) == 2
    assert "no attention weights at" in capsys.readouterr().err


def test_constant_maps_are_left_out_and_counted():
    rows = [
        (method, image, measure, value)
        for method, values in {
            "a": (0.1, 0.2, 0.3),
            "b": (0.4, np.nan, 0.8),
            "c": (np.nan,) * 3,
        }.items()
        for measure in ("average_drop_50%", "road_morf")
        for image, value in zip("xyz", values, strict=True)
    ]
    table = pd.DataFrame(rows, columns=["method", "image_id", "measure", "value"])
    told = average_drop.means_in_words(table, "net").splitlines()
    assert told[0] == "net, 3 images, means with 95 % intervals"
    assert told[1].split() == ["unit", "faithful", "a", "b", "c"]
    assert re.fullmatch(r"images with a heatmap +3 +2 +0", told[2].strip())
    drop = r"average_drop_50% +% of the probability +less +0\.2 \(.*?\) +0\.6 \(.*?\) +nan"
    assert re.match(drop, told[3])
    road = r"road_morf +probability left +less +0\.200 \(.*?\) +0\.600 \(.*?\) +nan"
    assert re.match(road, told[4])


def test_what_was_measured_before_a_damaged_image_is_kept(folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "values.csv"
    real, done = average_drop.score_folder, []

    def damaged_meanwhile(*words):
        if done:
            (folder / "n02" / "c.png").write_bytes(b"no image")
        done.append(1)
        return real(*words)

    monkeypatch.setattr(average_drop, "score_folder", damaged_meanwhile)
    words = ["--profile", "demo", "--models", "resnet50", "--images", str(folder)]
    assert average_drop.main([*words, "--out", str(out)]) == 2
    assert "c.png is not a readable image" in capsys.readouterr().err
    table = pd.read_csv(out)
    assert set(table.dcls) == {False}
    assert set(table.backbone) == {BACKBONES["resnet50"].key}
