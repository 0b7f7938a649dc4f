"""COSE on a folder, from the command line: what is written, recomputed by the published rules."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from lib.analyses.cose import study as cose_study
from lib.commands import cose

PUBLISHED = [
    "test_idx", "target_class", "pred_class", "transform_type", "tranform_magnitude",
    "t_pred_class", "ssim", "spearman",
]  # fmt: skip
GEOMETRIC = ["TranslateX", "TranslateY", "Rotate", "FlipLR", "FlipUD"]
PHOTOMETRIC = [
    "Brightness", "Color", "Contrast", "Sharpness", "AutoContrast", "Equalize", "Blur", "Smooth",
]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch, tables):
    """Three class folders, one of timm's smallest networks, and two of its checkpoints."""
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path / "output")
    monkeypatch.setattr("lib.networks.opened.OPENED", tmp_path / "weights.json")
    rng = np.random.default_rng(1)
    for name in ("val/ant/1.png", "val/ant/2.jpg", "val/bee/3.png", "val/cat/4.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 7, 3), "u1")).resize((70, 60)).save(path)
    (tmp_path / "earlier").mkdir()
    for name in ("net", "earlier/e1", "earlier/e2"):
        network = timm.create_model("test_resnet", num_classes=3)
        with torch.no_grad():
            network.get_classifier().weight.mul_(20)
        save_file(network.state_dict(), tmp_path / f"{name}.safetensors")
    return tmp_path


def words(here, *more):
    return [
        "--images", str(here / "val"), "--timm", "test_resnet", "--weights",
        str(here / "net.safetensors"), "--out", str(here / "out" / "pairs.csv"),
        "--methods", "grad_cam", "--device", "cpu", *more,
    ]  # fmt: skip


def by_the_published_rules(table: pd.DataFrame) -> tuple[float, float, float]:
    """C, F and COSE of the published columns."""
    kept, changed = [], []
    for row in table.itertuples():
        if row.target_class == row.pred_class == row.t_pred_class:
            if row.transform_type in GEOMETRIC + PHOTOMETRIC:
                kept.append(row.ssim)
        elif row.target_class == row.pred_class:
            changed.append(row.ssim)
    c, f = np.mean(kept), np.mean(changed)
    return c, f, math.sqrt(c * (1 - f))


def test_pairs_and_scores_of_a_folder_of_classes(here, capsys, monkeypatch):
    asked = words(here, "--checkpoints", str(here / "earlier"))
    assert cose.main(asked) == 0
    said = capsys.readouterr().out
    assert "4 images" in said
    assert "classes: folders, 3" in said
    assert "against random weights and 2 earlier checkpoints" in said
    table = pd.read_csv(here / "out" / "pairs.csv")
    assert list(table.columns[:8]) == PUBLISHED
    assert len(table) == 4 * (48 + 1 + 2)
    first = table[table.test_idx == 0]
    kinds = ["random", "mid_ckpt_e001", "mid_ckpt_e002"]
    kinds += [kind for kind in (*GEOMETRIC, *PHOTOMETRIC) for _ in range(6 if kind in
              ("TranslateX", "TranslateY", "Rotate", *PHOTOMETRIC[:4]) else 1)]  # fmt: skip
    assert sorted(first.transform_type) == sorted(kinds)
    assert set(table.target_class) == {"ant", "bee", "cat"}
    assert list(table.drop_duplicates("test_idx").image) == [
        "ant/1.png", "ant/2.jpg", "bee/3.png", "cat/4.png",
    ]  # fmt: skip
    wrong = table.target_class != table.pred_class
    assert table[wrong].ssim.isna().all()
    assert table[~wrong].ssim.notna().all()

    (summary,) = pd.read_csv(here / "out" / "pairs_summary.csv").itertuples()
    c, f, expected = by_the_published_rules(table)
    assert summary.consistency_published == pytest.approx(c)
    assert summary.f_published == pytest.approx(f)
    assert summary.cose_published == pytest.approx(expected)
    assert f"{expected:.3f}" in said
    facts = json.loads((here / "out" / "pairs.json").read_text())
    assert facts["summary"][0]["cose_published"] == pytest.approx(expected)
    assert facts["classes_told_by"] == "folders"
    assert len(facts["networks"]["timm_test_resnet"]["checkpoints"]) == 2
    parts = pd.read_csv(here / "out" / "pairs_parts.csv").set_index("part")
    kept = (table.target_class == table.pred_class) & (table.target_class == table.t_pred_class)
    some = table[kept & table.transform_type.isin(GEOMETRIC)]
    assert parts.loc["geometric", "consistency_published"] == pytest.approx(some.ssim.mean())

    def never(*arguments):
        raise AssertionError("made again")

    monkeypatch.setattr(cose_study, "pairs_of_changed_images", never)
    monkeypatch.setattr(cose_study, "pairs_of_changed_network", never)
    assert cose.main(asked) == 0
    pd.testing.assert_frame_equal(pd.read_csv(here / "out" / "pairs.csv"), table)


def test_without_labels_the_predicted_class_is_the_right_one(here, capsys):
    assert cose.main(words(here, "--labels", "none", "--classes", "3", "--limit", "2")) == 0
    assert "classes are unknown" in capsys.readouterr().out
    table = pd.read_csv(here / "out" / "pairs.csv")
    assert table.test_idx.nunique() == 2
    assert (table.target_class == table.pred_class).all()
    assert table.ssim.notna().all()
    assert set(table.condition) <= {"right, stays right", "right, becomes wrong"}


def test_what_was_made_before_a_damaged_image_is_kept(here, capsys, monkeypatch):
    """An image that opens and does not decode; a block is two images here."""
    monkeypatch.setattr("lib.analyses.cose.folder.BLOCK", 2)
    damaged = here / "val" / "bee" / "3.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) - 40])
    assert cose.main(words(here)) == 2
    said = capsys.readouterr().err
    assert re.search(r"3\.png is not a readable image.*results so far are cached", said)
    assert not (here / "out" / "pairs.csv").exists()
    made, real = [], cose_study.pairs_of_changed_images

    def counted(model, methods, shown, *more):
        made.extend(shown.image_ids)
        return real(model, methods, shown, *more)

    monkeypatch.setattr(cose_study, "pairs_of_changed_images", counted)
    assert cose.main(words(here, "--keep-going")) == 14
    assert made == ["cat/4.png"]
    assert "skipped:\nbee/3.png: " in capsys.readouterr().err
    assert set(pd.read_csv(here / "out" / "pairs.csv").image) == {
        "ant/1.png", "ant/2.jpg", "cat/4.png",
    }  # fmt: skip
    damaged.write_bytes(whole)
    assert cose.main(words(here)) == 0
    assert made == ["cat/4.png", "bee/3.png", "cat/4.png"]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--images", "nowhere"], "nowhere is not a folder of images"),
        (["--classes", "5"], "has 3 classes .ant, bee, cat., but the model has 5"),
        (["--weights", "none.pth"], "these weights do not exist.*none.pth"),
        (["--weights", ""], "--timm needs --weights"),
        (["--timm", "resnet5O"], "unknown timm model 'resnet5O'"),
        (["--models", "resnet50"], "give either --models or --timm"),
        (["--checkpoints", "empty"], "empty holds no weights files"),
        (["--checkpoints", "misfits"], "misfits/e1.pth"),
        (["--checkpoints", "twins"], "would both be called mid_ckpt_e003"),
        (["--methods", "grad_can"], "unknown method 'grad_can'"),
        (["--out", "pairs.txt"], "must end in .csv"),
        (["--labels", "none", "--classes", "1"], "--classes must be 2 or more"),
        (["--list", "twice.txt"], "line 2: ant/1.png is listed twice"),
        (["--labels", "list", "--list", "far.txt", "--classes", "3"], "label 3 is outside 0 … 2"),
        (["--images", "damaged"], "no.png is not a readable image"),
    ],
)
def test_what_is_asked_wrongly_is_said(more, why, here, capsys, monkeypatch):
    monkeypatch.chdir(here)
    for name in ("empty", "misfits", "twins", "damaged/a", "damaged/b", "damaged/c"):
        (here / name).mkdir(parents=True)
    torch.save({"fc.weight": torch.zeros(3, 5)}, here / "misfits" / "e1.pth")
    for name in ("e3.pth", "epoch-3.pth"):
        (here / "twins" / name).write_bytes(b"")
    (here / "twice.txt").write_text("ant/1.png\nant/1.png\n")
    (here / "far.txt").write_text("ant/1.png 3\n")
    (here / "damaged" / "b" / "no.png").write_text("no image")
    assert cose.main(words(here, *more)) == 2
    assert re.search(why, capsys.readouterr().err)
