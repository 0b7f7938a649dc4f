"""A reader's own models and methods: added by a file, scored like the study's own, told when wrong."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from lib import extension
from lib.backbones import BACKBONES
from lib.cam import cam_maps, head_pass
from lib.conversion import parameter_table
from lib.dcls import dcls_layers
from lib.extension import ExtensionError, add_method, load_extension
from lib.kept import facts_of_maps
from lib.methods import METHODS
from lib.models import build_network, save_weights
from lib.result_table import results_table
from lib.sources import WEIGHTS
from lib.study import Study
from lib.study_scores import score_study

FILE = """
    from torch import nn
    from lib.backbones import DclsRecipe
    from lib.extension import add_method, add_model
    from pytorch_grad_cam import GradCAM

    class Small(nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(3, 8, 7, stride=4, padding=3), nn.BatchNorm2d(8), nn.ReLU(),
                nn.Conv2d(8, 16, 3, stride=4, padding=1), nn.ReLU(),
            )
            self.classes = nn.Linear(16, classes)

        def forward(self, x):
            return self.classes(self.body(x).mean((2, 3)))

    def dense_3x3(conv):
        return conv.kernel_size == (3, 3)

    add_model("small", build=Small, weights="small.safetensors", label="Small",
              weights_dcls="small_dcls.safetensors", dcls=DclsRecipe(4, 5, "v1", dense_3x3))
    add_model("lone", build=Small, weights="small.safetensors", layer="body.2")
    add_method("largest", lambda features, gradient: features.amax(dim=1).relu(), label="Largest")
    add_method("whole", lambda model, x, passed: model.features(x).mean(dim=1))
    add_method("theirs", cam=GradCAM, label="Their Grad-CAM")
    add_method("theirs_on_pictures", cam=GradCAM, on_pictures=True)
"""


@pytest.fixture
def tables(monkeypatch):
    """The tables are as before afterwards."""
    kept = [(table, list(table)) for table in (BACKBONES, METHODS, WEIGHTS)]
    monkeypatch.setattr(extension, "_loaded", {})
    yield
    for table, keys in kept:
        table.keep(keys)


@pytest.fixture
def own(tmp_path, tables, monkeypatch):
    """The file, with random weights of both variants beside it."""
    monkeypatch.setattr("lib.study.OUTPUT", tmp_path / "output")
    path = tmp_path / "mine" / "my_rows.py"
    path.parent.mkdir()
    path.write_text(textwrap.dedent(FILE))
    load_extension(path)
    for name, dcls in (("small", False), ("small_dcls", True)):
        network = build_network(BACKBONES["small"], dcls, num_classes=12)
        network.classes.weight.data *= 1e4  # the package's scaling adds 1e-7
        save_weights(network, path.parent / f"{name}.safetensors", {})
    return path


def test_own_models_and_methods_are_scored_like_the_studys_own(own):
    study = Study.from_profile(
        "demo", ["small", "lone", "resnet50"],
        ["grad_cam", "largest", "whole", "theirs", "theirs_on_pictures"], 5, extend=str(own),
    )  # fmt: skip
    assert study.missing_inputs() == []
    assert study.variants == [
        (BACKBONES[key], dcls)
        for key, dcls in (("resnet50", False), ("resnet50", True), ("small", False),
                          ("small", True), ("lone", False))
    ]  # fmt: skip
    assert BACKBONES["small"].layer == "body"  # found: the last with a map
    assert study.name.startswith("demo_my_rows")
    scores = score_study(study)
    assert len(scores) == 5 * 5 * 5 * len(study.protocols)
    table = results_table(study, scores)
    lone = table[table.backbone == "lone"]
    assert lone.score_dcls.isna().all()
    assert lone.difference.isna().all()
    assert table[table.backbone == "Small"].n_paired.max() > 0
    assert "ResNet-50 mini" in set(table.backbone)
    assert len(parameter_table(study)) == 3

    model = study.inference_model("small", True)
    assert not dcls_layers(model.network)  # folded
    batch = next(study.clickme().batches(5))
    x = model.prepare(batch.pictures)
    maps = cam_maps(model, x, batch.labels, study.methods)
    passed = head_pass(model, x, batch.labels)
    weighted = passed.gradient.mean((2, 3), keepdim=True) * passed.features
    small = _scaled(weighted.mean(1).relu())[:, None]
    expected = nn.functional.interpolate(small, (224, 224), mode="bilinear")[:, 0]
    assert (maps["theirs"] - expected).abs().max() < 1e-3
    # The package scales once more after it has enlarged.
    assert (maps["theirs_on_pictures"] - _scaled(expected)).abs().max() < 1e-3
    largest = model.features(x).amax(dim=1).relu()[:, None]
    expected = nn.functional.interpolate(largest, (224, 224), mode="bilinear")[:, 0]
    assert torch.allclose(maps["largest"], expected, atol=1e-5)
    logits = model(x)
    assert torch.allclose(head_pass(model, x).logits, logits, atol=1e-5)


def _scaled(maps: torch.Tensor) -> torch.Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low).clamp(min=1e-12), 0.0)


def test_other_processes_make_the_same_study_and_kept_scores_know_the_file(own, monkeypatch):
    study = Study.from_profile("demo", ["small"], ["largest"], 3, extend=str(own))
    again = Study.from_profile(**study.choices())
    assert again == study
    facts = facts_of_maps(study, BACKBONES["small"], True)
    assert facts["origin"] == facts["methods"]["largest"] != ""
    plain = Study.from_profile("demo", ["resnet50"], ["grad_cam"], 3)
    assert facts_of_maps(plain, BACKBONES["resnet50"], True)["origin"] == ""
    assert "small" not in [b.key for b in plain.profile.known]
    with pytest.raises(ValueError, match="the demo profile has no model small"):
        Study.from_profile("demo", ["small"])
    own.write_text(own.read_text() + "\n# changed\n")
    with pytest.raises(ExtensionError, match="has changed since this process read it: restart"):
        Study.from_profile("demo", ["small"], extend=str(own))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x = 1", "adds nothing: it should call add_model or add_method"),
        ("import nowhere", "line 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("\nif True\n    pass", "line 2: SyntaxError"),
        (
            "A('resnet50', timm='resnet18.a1_in1k')",
            "line 2: ValueError: two rows of the model table",
        ),
        ("A('my dog', timm='resnet18.a1_in1k')", "must be letters, digits and _"),
        ("A('dog_dcls', timm='resnet18.a1_in1k')", "must not end in _dcls"),
        ("A('dog')", "either timm's name or a function"),
        ("A('dog', timm='resnet18')", "weights, a file, are needed without a tag"),
        ("A('dog', timm='resnet18', weights='a.pth', weights_dcls='b.pth')", "belong together"),
        ("A('dog', timm='resnet18', weights='a.pth', layer='layer9')", "no layer 'layer9'"),
        ("A('dog', timm='resnot18', weights='a.pth')", "resnot18"),
        ("M('dog')", "either a function that makes maps or a class"),
        ("M('dog', lambda x: x)", "not 1 parameters"),
        ("M('dog', lambda f, g: f)\nraise KeyError('late')", "line 3: KeyError: 'late'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_and_nothing_of_it_stays(text, why, tmp_path, tables):
    path = tmp_path / "rows.py"
    if "A(" in text or "M(" in text:
        text = f"from lib.extension import add_model as A, add_method as M\n{text}"
    path.write_text(text)
    before = list(BACKBONES), list(METHODS)
    with pytest.raises(ExtensionError, match=".*") as raised:
        load_extension(path)
    assert why in str(raised.value)
    assert str(path) in str(raised.value)
    assert (list(BACKBONES), list(METHODS)) == before


def test_a_file_that_is_not_there_or_no_python_is_said(tmp_path, tables):
    with pytest.raises(ExtensionError, match="cannot be read"):
        load_extension(tmp_path / "none.py")
    (tmp_path / "rows.txt").write_text("x = 1")
    with pytest.raises(ExtensionError, match=r"must end in \.py"):
        load_extension(tmp_path / "rows.txt")
    with pytest.raises(ExtensionError, match="called by the file that --extend names"):
        add_method("late", lambda features, gradient: features)


def test_timms_models_bring_their_preprocessing_and_address(tmp_path, tables):
    path = tmp_path / "rows.py"
    path.write_text(
        "from lib.extension import add_model\nadd_model('r18', timm='resnet18.a1_in1k')\n"
        "add_model('r18_layer3', timm='resnet18.a1_in1k', layer='layer3')\n"
    )
    load_extension(path)
    row = BACKBONES["r18"]
    assert (row.preprocessing.resize, row.preprocessing.crop) == (236, 224)
    assert np.allclose(row.preprocessing.mean, (0.485, 0.456, 0.406))
    study = Study.from_profile("paper", ["r18"], extend=str(path))
    (source,) = [s for s in study.sources() if s.key == "r18"]
    assert source.url.endswith("timm/resnet18.a1_in1k/resolve/main/model.safetensors")
    assert study.weights_path("r18", False).name == "resnet18.a1_in1k.safetensors"
    assert BACKBONES["r18_layer3"].layer == "layer3"
