"""A reader's own models and methods: added by a file, scored like the study's own, told when wrong."""

from __future__ import annotations

import copy
import textwrap
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lib.analyses.conversion import parameter_table
from lib.analyses.sanity import parts
from lib.maps.cam import cam_maps
from lib.maps.forward import head_pass
from lib.maps.methods import METHODS
from lib.networks.backbones import BACKBONES
from lib.networks.building import build_network
from lib.networks.dcls import dcls_layers
from lib.networks.loading import load_model, save_weights
from lib.networks.models import Provenance, StudyModel
from lib.report.result_table import results_table
from lib.runner.manifest import differences, step_facts
from lib.scores.kept import facts_of_maps
from lib.scores.study_scores import score_study
from lib.study import extension
from lib.study.extension import ExtensionError, load_extension
from lib.study.own_rows import add_method, guarded
from lib.study.study import Study

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


# Maps of one cell, logits without an axis of classes, grey pictures.
ODD = """
    from torch import nn

    class N(nn.Module):
        def __init__(self, classes, ends="", channels=3):
            super().__init__()
            self.body, self.ends = nn.Conv2d(channels, classes, 8, stride=8), ends

        def forward_features(self, x):
            return self.body(x).mean((2, 3), keepdim=True)

        def forward_head(self, features):
            return features.flatten(1)

        def forward(self, x):
            found = self.body(x)
            return found.mean((1, 2, 3)) if self.ends else found.mean((2, 3))
"""


@pytest.fixture
def own(tmp_path, tables, monkeypatch):
    """The file, with random weights of both variants beside it."""
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path / "output")
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
    assert study.inputs.missing() == []
    assert study.choices.variants == [
        (BACKBONES[key], dcls)
        for key, dcls in (("resnet50", False), ("resnet50", True), ("small", False),
                          ("small", True), ("lone", False))
    ]  # fmt: skip
    assert BACKBONES["small"].layer == "body"  # found: the last with a map
    assert study.places.name.startswith("demo_my_rows")
    scores = score_study(study)
    assert len(scores) == 5 * 5 * 5 * len(study.choices.protocols)
    table = results_table(study, scores)
    lone = table[table.backbone == "lone"]
    assert lone.score_dcls.isna().all()
    assert lone.difference.isna().all()
    assert table[table.backbone == "Small"].n_paired.max() > 0
    assert "ResNet-50 mini" in set(table.backbone)
    assert len(parameter_table(study.choices)) == 3

    model = study.networks.inference_model("small", True)
    assert not dcls_layers(model.network)  # folded
    batch = next(study.clickme().batches(5))
    x = model.prepare(batch.pictures)
    maps = cam_maps(model, x, batch.labels, study.choices.methods)
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
    again = Study.from_profile(**study.choices.options())
    assert again == study
    facts = facts_of_maps(study, BACKBONES["small"], True)
    assert facts["origin"] == facts["methods"]["largest"] != ""
    plain = Study.from_profile("demo", ["resnet50"], ["grad_cam"], 3)
    assert facts_of_maps(plain, BACKBONES["resnet50"], True)["origin"] == ""
    assert "small" not in [b.key for b in plain.choices.profile.known]
    with pytest.raises(ValueError, match="the demo profile has no model small"):
        Study.from_profile("demo", ["small"])
    own.write_text(own.read_text() + "\n# changed\n")
    with pytest.raises(ExtensionError, match=r"has changed since this process read it: restart"):
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
        ("A('my dog', timm='resnet18.a1_in1k')", "must be a text of letters, digits and _"),
        ("A('dog_dcls', timm='resnet18.a1_in1k')", "must not end in _dcls"),
        ("A('dog')", "either timm's name or a function"),
        ("A('dog', timm='resnet18')", "weights, a file, are needed without a tag"),
        ("A('dog', timm='resnet18', weights='a.pth', weights_dcls='b.pth')", "belong together"),
        ("A('dog', timm='resnet18', weights='a.pth', layer='layer9')", "no layer 'layer9'"),
        ("A('dog', timm='resnot18', weights='a.pth')", "resnot18"),
        ("M('dog')", "either a function that makes maps or a class"),
        ("M('dog', lambda x: x)", "not 1 parameters"),
        ("M('../dog', lambda f, g: f)", "the key '../dog' must be a text"),
        ("M(3, lambda f, g: f)", "the key 3 must be a text"),
        ("import sys\nsys.exit()", "SystemExit"),
        ("M('dog', lambda f, g: f)\nimport json", "json.py is hidden by another module"),
        ("M('dog', lambda f, g: f, label='Grad-CAM')", "grad_cam one, have the label Grad-CAM"),
        ("A('dog', build=N, weights='a.pth')", "no maps (image, channel, h, w) of more than one"),
        (
            "A('dog', build=lambda n: N(n, ends='logits'), weights='a.pth', layer='body')",
            "the network gives (2,) for two pictures",
        ),
        (
            "A('dog', build=lambda n: N(n, channels=1), weights='a.pth', layer='body')",
            "a forward of two pictures, (2, 3, 224, 224), fails",
        ),
        (
            "A('dog', timm='resnet18', weights='a.pth', preprocessing=P(resize=224, crop=256))",
            "a crop of 256 pixels does not fit into 224",
        ),
        ("M('dog', lambda f, g: f)\nraise KeyError('late')", "line 3: KeyError: 'late'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_and_nothing_of_it_stays(text, why, tmp_path, tables):
    path = tmp_path / "rows.py"
    if "A(" in text or "M(" in text:
        names = (
            "add_model as A, add_method as M; from lib.networks.backbones import Preprocessing as P"
        )
        text = f"from lib.extension import {names}; from odd_networks import N\n{text}"
        (tmp_path / "odd_networks.py").write_text(textwrap.dedent(ODD))
    path.write_text(text)
    if "json" in text:
        (tmp_path / "json.py").write_text("")
    before = list(BACKBONES), list(METHODS)
    with pytest.raises(ExtensionError, match=".*") as raised:
        load_extension(path)
    assert why in str(raised.value)
    assert str(path.parent) in str(raised.value)
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
    (source,) = [s for s in study.inputs.sources() if s.key == "r18"]
    assert source.url.endswith("timm/resnet18.a1_in1k/resolve/main/model.safetensors")
    assert study.inputs.weights_path("r18", False).name == "resnet18.a1_in1k.safetensors"
    assert BACKBONES["r18_layer3"].layer == "layer3"


def test_modules_beside_the_file_are_its_own_and_count_in_its_hash(own, tables):
    beside, deeper = own.with_name("beside.py"), own.parent / "pack" / "inner.py"
    deeper.parent.mkdir()
    (deeper.parent / "__init__.py").write_text("")
    deeper.write_text("POWER = 2\n")
    beside.write_text("import pack\nfrom pack.inner import POWER\nimport torch\n")
    rows = own.with_name("rows.py")
    rows.write_text(
        "from lib.extension import add_method\nfrom beside import POWER\n"
        "add_method('power', lambda f, g, power=POWER: (f * g).relu().pow(power).sum(1))\n"
    )
    expected = [rows, beside, deeper.with_name("__init__.py"), deeper]
    assert extension.extension_files(rows) == expected
    study = Study.from_profile("demo", ["resnet50"], ["power"], 2, extend=str(rows))
    assert study.inputs.files()["extension"] == expected
    step = SimpleNamespace(code=(), reads=(), writes=(), inputs=lambda study: [])
    before = step_facts(step, {}, study, {})
    deeper.write_text("POWER = 3\n")
    assert differences(before, step_facts(step, {}, study, {})).endswith("inner.py changed")
    with pytest.raises(ExtensionError, match="or a module that it imports, has changed"):
        load_extension(rows)


def test_features_with_their_channels_last_are_turned(tmp_path, tables):
    path = tmp_path / "rows.py"
    path.write_text(
        "from lib.extension import add_model\n"
        "add_model('swin', timm='swin_tiny_patch4_window7_224', weights='a.pth')\n"
    )
    load_extension(path)
    assert BACKBONES["swin"].channels_last
    network = build_network(BACKBONES["swin"], False, num_classes=5).eval()
    model = StudyModel(network, BACKBONES["swin"], Provenance("swin", "random", "full"))
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        features = model.features(x)
        assert torch.equal(features, network.forward_features(x).permute(0, 3, 1, 2))
        assert torch.allclose(model.head(features), network(x), atol=1e-6)
    assert head_pass(model, x).gradient.shape == features.shape == (1, 768, 7, 7)


def test_a_network_that_names_no_stages_forgets_in_parts(own):
    network = build_network(BACKBONES["small"], False, num_classes=12)
    assert parts(network) == {
        "head": ["classes"], "part 3": ["body.3"], "part 2": ["body.1"], "part 1": ["body.0"],
    }  # fmt: skip


def test_a_network_of_other_classes_than_the_profiles_is_told(own):
    study = Study.from_profile("demo", ["small"], extend=str(own))
    five = build_network(BACKBONES["small"], False, num_classes=5)
    save_weights(five, own.parent / "small.safetensors", {})
    row = replace(BACKBONES["small"], build=lambda classes: copy.deepcopy(five))
    BACKBONES.keep(key for key in BACKBONES if key != "small")
    BACKBONES.add(row)
    with pytest.raises(ValueError, match="answers by 5 classes, and the demo profile has 12"):
        study.networks.load_model("small", False)


def _own(maps):
    """The row that `add_method` makes of a function in the place of "largest"."""
    said = "Largest (largest), a method of --extend,"
    return replace(METHODS["largest"], small_map=guarded(said, maps))


def test_a_method_that_makes_no_maps_is_told(own):
    load_extension(own)
    wrong = _own(lambda features, gradient: features[:, :1])
    model = load_model("resnet50", weights="demo")
    with pytest.raises(
        ValueError,
        match=r"Largest \(largest\), a method of --extend, must make maps of shape \(image, h, w\)",
    ):
        cam_maps(model, torch.zeros(2, 3, 224, 224), None, [wrong])


@pytest.mark.parametrize("place", ["features", "gradient"])
def test_a_method_that_works_in_place_does_not_change_the_next_ones(place, own):
    load_extension(own)
    model = load_model("resnet50", weights="demo").for_inference()
    x = torch.randn(2, 3, 224, 224)

    def greedy(features, gradient):
        (features if place == "features" else gradient).zero_()
        return features.sum(dim=1)

    rows = [replace(_own(greedy), key="greedy"), METHODS["largest"]]
    alone = cam_maps(model, x, None, ["grad_cam", "largest"])
    beside = cam_maps(model, x, None, [rows[0], "grad_cam", "largest"])
    for key, maps in alone.items():
        assert torch.equal(beside[key], maps)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda f, g: None, "must return a tensor of real numbers, not NoneType"),
        (lambda f, g: f.numpy(), "not ndarray"),
        (lambda f, g: f.sum(1) * 1j, "not torch.complex64"),
        (lambda f, g: f.sum(1)[:1], r"here 2 of them, and made \(1, 7, 7\)"),
        (lambda f, g: 1 / 0, "fails: ZeroDivisionError: division by zero"),
    ],
)
def test_what_an_own_method_makes_is_checked(made, why, own):
    load_extension(own)
    model = load_model("resnet50", weights="demo")
    row = _own(made)
    with pytest.raises(ValueError, match=rf"Largest \(largest\), a method of --extend, .*{why}"):
        cam_maps(model, torch.zeros(2, 3, 224, 224), None, [row])


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.int32, torch.bool])
def test_own_maps_may_be_of_any_real_kind(kind, own):
    load_extension(own)
    model = load_model("resnet50", weights="demo")
    row = _own(lambda f, g: (f.sum(1) > 0).to(kind))
    (maps,) = cam_maps(model, torch.rand(2, 3, 224, 224), None, [row]).values()
    assert maps.dtype == torch.float32
