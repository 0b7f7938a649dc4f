"""A network trained on a folder, its earlier selves, and COSE of both."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from lib.analyses.cose import training
from lib.analyses.cose.training import Recipe, train
from lib.base.geometry import Preprocessing
from lib.commands import cose, cose_train
from lib.people.image_folders import FolderImages


@pytest.fixture
def here(tmp_path, monkeypatch, tables):
    """Two classes, red and blue images of four each."""
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path / "output")
    monkeypatch.setattr("lib.networks.opened.OPENED", tmp_path / "weights.json")
    rng = np.random.default_rng(1)
    for name, channel in (("blue", 2), ("red", 0)):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 60, (20, 20, 3), "u1")
            pixels[..., channel] += 180
            Image.fromarray(pixels).save(tmp_path / "train" / name / f"{number}.png")
    return tmp_path


def words(here, *more):
    return [
        "--images", str(here / "train"), "--timm", "test_resnet", "--out", str(here / "net"),
        "--epochs", "3", "--batch-size", "4", "--lr", "0.02", "--readers", "0", "--device", "cpu",
        "--held-out", str(here / "train"), *more,
    ]  # fmt: skip


def test_a_training_goes_on_where_it_ended_and_cose_reads_it(here, capsys, monkeypatch):
    assert cose_train.main(words(here)) == 0
    assert sorted(p.name for p in (here / "net" / "earlier").iterdir()) == [
        "e001.safetensors", "e002.safetensors",
    ]  # fmt: skip
    history = pd.read_csv(here / "net" / "history.csv")
    assert list(history.lr) == pytest.approx([0.02, 0.015, 0.005])  # half a cosine in thirds
    assert history.accuracy.iloc[-1] == 1
    real, ended = training.accuracy, []

    def ends(*arguments):
        if len(ended) == 1:
            raise KeyboardInterrupt
        ended.append(1)
        return real(*arguments)

    monkeypatch.setattr(training, "accuracy", ends)
    again = words(here, "--out", str(here / "again"))
    assert cose_train.main(again) == 130
    assert "resumes at the last epoch" in capsys.readouterr().err
    assert not (here / "again" / "final.safetensors").exists()
    monkeypatch.setattr(training, "accuracy", real)
    assert cose_train.main(again) == 0
    first, second = (load_file(here / n / "final.safetensors") for n in ("net", "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert cose_train.main([*again, "--lr", "0.1"]) == 2
    assert "belongs to another training" in capsys.readouterr().err

    out = str(here / "pairs.csv")
    asked = ["--timm", "test_resnet", "--weights", str(here / "net" / "final.safetensors")]
    asked += ["--checkpoints", str(here / "net" / "earlier"), "--device", "cpu", "--limit", "1"]
    assert cose.main(["--images", str(here / "train"), *asked, "--out", out]) == 0
    kinds = set(pd.read_csv(out).transform_type)
    assert {"random", "mid_ckpt_e001", "mid_ckpt_e002"} < kinds


def test_a_step_is_gradient_descents(here, tmp_path):
    network = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(12, 2))
    weight, bias = (p.detach().clone().requires_grad_() for p in network.parameters())
    images = FolderImages(sorted((here / "train").rglob("*.png")), 16)
    labels = np.repeat([0, 1], 4)
    recipe = Recipe(epochs=1, batch=8, lr=0.3, weight_decay=0.1)
    geometry = Preprocessing(16, 16, (0.5,) * 3, (0.25,) * 3)
    train(network, geometry, images, labels, recipe, tmp_path / "out", {})
    order = np.random.default_rng([0, 1]).permutation(8)
    (batch,) = images.batches([order], 0, 1)
    x = F.avg_pool2d((batch - 0.5) / 0.25, 8).flatten(1)
    chosen = (x @ weight.T + bias).log_softmax(1)[range(8), labels[order]]
    gradients = torch.autograd.grad(-chosen.mean(), (weight, bias))
    trained = load_file(tmp_path / "out" / "final.safetensors")
    for name, before, gradient in zip(("weight", "bias"), (weight, bias), gradients, strict=True):
        after = before - 0.3 * (gradient + 0.1 * before)
        torch.testing.assert_close(trained[f"2.{name}"], after.detach())


def test_it_begins_with_weights_of_other_classes(here, capsys):
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), here / "seven.pth")
    start = ["--start", str(here / "seven.pth"), "--epochs", "1"]
    assert cose_train.main(words(here, *start)) == 0
    assert re.search(r"new: fc\.bias, fc\.weight|new: head", capsys.readouterr().out)
    assert not list((here / "net").glob("earlier/*"))
    assert math.isfinite(pd.read_csv(here / "net" / "history.csv").loss[0])


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--start", "none.pth"], "none.pth does not exist"),
        (["--start", "other.pth"], "other.pth does not fit"),
        (["--lr", "nan"], "--lr must be a finite number above 0"),
        (["--batch-size", "1"], "--batch-size must be 2 or more"),
        (["--labels", "none"], "the classes of the images, or their number, are unknown"),
        (["--timm", "resnet5O"], "unknown timm model"),
        (["--lr", "1e30"], "loss of epoch . is not finite"),
    ],
)
def test_what_is_asked_wrongly_is_said(more, why, here, capsys, monkeypatch):
    monkeypatch.chdir(here)
    torch.save({"conv.weight": torch.zeros(3)}, here / "other.pth")
    assert cose_train.main(words(here, *more)) == 2
    assert re.search(why, capsys.readouterr().err)
