"""Snapshots of L-CAM's published code, generated here in their format: imported for the very
weights that they were trained beside, and refused where anything is wrong."""

from __future__ import annotations

import os
import shutil
from functools import cache

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from stand_ins import mini
from timm.models.vgg import VGG

from lib.analyses.lcam import import_snapshot
from lib.base.fingerprint import sha256_of
from lib.base.paths import DEMO
from lib.commands import lcam
from lib.maps.cam import cam_maps
from lib.maps.learned.attention import AttentionError
from lib.networks.backbones import BACKBONES
from lib.networks.loading import load_model
from lib.networks.models import Provenance, StudyModel
from lib.study.networks import Networks
from lib.study.study import Study

CHANNELS, CLASSES = 256, 12  # of the embedded example's ResNet


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """The embedded example's weights in a folder of their own."""
    here = tmp_path / "demo"
    (here / "checkpoints").mkdir(parents=True)
    for name in ("resnet50", "convnext_tiny"):
        shutil.copy(DEMO / "checkpoints" / f"{name}.safetensors", here / "checkpoints")
    monkeypatch.setattr("lib.study.inputs.Inputs.data", property(lambda self: here))
    return here


@cache
def _network() -> StudyModel:
    return load_model("resnet50", False, "demo")


def backbone_state() -> dict[str, torch.Tensor]:
    """The network that is trained beside, in torchvision's names, which timm's are."""
    return dict(_network().network.state_dict())


def convolution(channels: int = CHANNELS, classes: int = CLASSES) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "attnM.op.weight": torch.randn(classes, channels, 1, 1, generator=generator),
        "attnM.op.bias": torch.randn(classes, generator=generator),
    }


def snapshot(path, state, prefix: str = ""):
    """As the published training saves it after each epoch; `arch` is the same for VGG."""
    parameters = [torch.nn.Parameter(tensor) for tensor in convolution().values()]
    optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, nesterov=True)
    torch.save(
        {
            "epoch": 25, "arch": "resnet", "global_counter": 520_000,
            "state_dict": {prefix + name: tensor for name, tensor in state.items()},
            "optimizer": optimizer.state_dict(),
        },
        path,
    )  # fmt: skip
    return path


def command(file, *words: str) -> int:
    return lcam.main(
        ["--profile", "demo", "--import", str(file), "--models", "resnet50", "--methods",
         "lcam_img", *words]
    )  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_snapshots_module_is_a_method_like_any_other(demo, tmp_path, capsys, images, prefix):
    file = snapshot(tmp_path / "imagenet_epoch_25_glo_step_520000.pth.tar",
                    {**backbone_state(), **convolution()}, prefix)  # fmt: skip
    assert command(file) == 0
    told = capsys.readouterr().out
    assert f"imported from {file.name}, sha256 {sha256_of(file)}" in told
    assert "rounded" not in told
    study = Study.from_profile("demo", ["resnet50"], ["lcam_img"], 1)
    path = study.inputs.attention_path("resnet50", False, "lcam_img")
    with safe_open(path, framework="pt") as stored:
        facts = stored.metadata()
    assert facts["imported"] == f"imported from {file.name}, sha256 {sha256_of(file)}"
    model = study.networks.inference_model("resnet50", False)
    x = model.prepare(images[:2])
    maps = cam_maps(model, x, torch.tensor([3, 7]), ["lcam_img"], size=7)["lcam_img"]
    with torch.inference_mode():
        features = model.features(x)
    for image, target in enumerate((3, 7)):
        weight, bias = (tensor[target] for tensor in convolution().values())
        c = (weight * features[image]).sum(dim=0) + bias
        expected = (c - c.min()) / (c.max() - c.min())
        assert torch.allclose(maps[image], expected, atol=1e-4)
    assert command(file) == 0
    assert "already imported" in capsys.readouterr().out
    snapshot(file, {**backbone_state(), **convolution(), "fc.bias": backbone_state()["fc.bias"]})
    file.write_bytes(file.read_bytes() + b"\0")
    assert command(file) == 2
    assert "already holds another module: move" in capsys.readouterr().err


def test_rounded_weights_are_told_and_others_refused(demo, tmp_path, capsys):
    """The embedded example's are stored as float16."""
    state = backbone_state()
    exact = {
        name: tensor * (1 + 2e-4) if tensor.is_floating_point() else tensor + 7
        for name, tensor in state.items()
    }
    file = snapshot(tmp_path / "a.pth.tar", {**exact, **convolution()})
    assert command(file) == 0
    assert "the network's weights are rounded from the file's" in capsys.readouterr().out
    other = {**state, "layer1.0.conv1.weight": state["layer1.0.conv1.weight"] * 1.01}
    assert command(snapshot(file, {**other, **convolution()}), "--methods", "lcam_fm") == 2
    told = capsys.readouterr().err
    assert "was trained beside other weights than those of" in told
    assert "1 of" in told
    assert "layer1.0.conv1.weight by up to" in told
    assert "docs/lcam.md" in told
    wide = {**state, "fc.weight": torch.zeros(13, CHANNELS)}
    assert command(snapshot(file, {**wide, **convolution()}), "--methods", "lcam_fm") == 2
    assert "fc.weight of shape (13, 256), not (12, 256)" in capsys.readouterr().err


def _without(name: str) -> dict[str, torch.Tensor]:
    state = {**backbone_state(), **convolution()}
    del state[name]
    return state


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


def _wrong(kind: str, file) -> str:
    """Write a file with which something is wrong; what is then said of it."""
    whole = {**backbone_state(), **convolution()}
    if kind == "no module":
        snapshot(file, backbone_state())
        return "is not a snapshot of L-CAM: it must hold attnM.op.weight and attnM.op.bias, and holds neither"
    if kind == "half a module":
        snapshot(file, _without("attnM.op.bias"))
        return "and holds attnM.op.weight"
    if kind == "other layer":
        snapshot(file, {**whole, **convolution(channels=99)})
        return r"attnM.op.weight is (12, 99, 1, 1), but should be (12, 256, 1, 1)"
    if kind == "other classes":
        snapshot(file, {**whole, **convolution(classes=1000)})
        return "is (1000, 256, 1, 1), but should be (12, 256, 1, 1)"
    if kind == "not finite":
        snapshot(file, {**whole, "attnM.op.bias": torch.full((CLASSES,), torch.nan)})
        return "attnM.op.bias of"
    if kind == "module alone":
        snapshot(file, convolution())
        return "of this network"
    if kind == "lacks a layer":
        snapshot(file, _without("layer4.0.bn1.running_mean"))
        return "of this network (layer4.0.bn1.running_mean)"
    if kind == "no state":
        torch.save({"epoch": 3, "arch": "resnet"}, file)
        return "contains no weights under 'state_dict'; it contains: epoch, arch"
    if kind == "cut short":
        snapshot(file, whole)
        file.write_bytes(file.read_bytes()[:-2000])
        return "is not a readable checkpoint, or is truncated"
    if kind == "runs code":
        torch.save({"state_dict": whole, "optimizer": Evil()}, file)
        return "is refused: it would run code"
    assert kind == "not there"
    return "does not exist and cannot be imported"


@pytest.mark.parametrize(
    "kind",
    ["no module", "half a module", "other layer", "other classes", "not finite", "module alone",
     "lacks a layer", "no state", "cut short", "runs code", "not there"],
)  # fmt: skip
def test_what_is_wrong_with_a_snapshot_is_said(demo, tmp_path, capsys, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "a.pth.tar"
    expected = _wrong(kind, file)
    assert command(file) == 2
    told = capsys.readouterr().err
    assert told.startswith("dcls-lcam: ")
    assert expected in told
    assert not (demo / "attention").exists()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--methods", "tame"], "TAME is not an L-CAM"),
        (["--methods", "lcam_fm", "lcam_img"], "--import takes one module"),
        (["--models", "resnet50", "convnext_tiny"], "--import takes one module"),
        (["--models", "convnext_tiny"], "does not fit this network's layer"),
        (["--images", "."], "--import trains nothing: omit --images"),
        (["--resume"], "--import trains nothing: omit --resume"),
    ],
)
def test_what_is_asked_wrongly_of_an_import_is_said(demo, tmp_path, capsys, words, why):
    file = snapshot(tmp_path / "a.pth.tar", {**backbone_state(), **convolution()})
    assert command(file, *words) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("key", ["vgg16", "vgg16_pooled"])
def test_vggs_last_layers_are_linear_ones_in_torchvision(tmp_path, monkeypatch, key):
    small = [4, 4, "M", 4, 4, "M", 4, 4, 4, "M", 4, 4, 4, "M", 6, 6, 6, "M"]
    model = StudyModel(
        VGG(small, 5, mlp_ratio=0.002), BACKBONES[key], Provenance(key, "random", "full")
    ).eval()
    own = model.network.state_dict()
    (tmp_path / "checkpoints").mkdir()
    save_file(own, tmp_path / "checkpoints" / f"{key}.safetensors")
    linear = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3",
              "head.fc": "classifier.6"}  # fmt: skip
    theirs = {}
    for name, tensor in own.items():
        layer, _, kind = name.rpartition(".")
        theirs[f"{linear.get(layer, layer)}.{kind}"] = (
            tensor.flatten(1) if tensor.ndim == 4 and layer in linear else tensor
        )
    assert theirs["classifier.0.weight"].shape == (own["pre_logits.fc1.weight"].shape[0], 6 * 49)
    study = Study.from_profile("paper", [key], ["lcam_fm"], data_dir=str(tmp_path))
    monkeypatch.setattr(Networks, "load_model", lambda self, key, dcls: model)
    file = snapshot(tmp_path / "a.pth.tar", {**theirs, **convolution(6, 5)})
    assert "imported from a.pth.tar" in import_snapshot(study, BACKBONES[key], "lcam_fm", file)
    theirs["classifier.3.weight"] = theirs["classifier.3.weight"].flip(0)
    snapshot(file, {**theirs, **convolution(6, 5)})
    with pytest.raises(AttentionError, match=r"such as pre_logits\.fc2\.weight by up to"):
        import_snapshot(study, BACKBONES[key], "lcam_img", file)


def test_a_snapshots_own_network_can_be_studied_with_its_module(demo, tmp_path, capsys):
    """Where the study's network has other weights: as a network of one's own, from the file."""
    network = mini("resnet50", classes=CLASSES).network
    file = snapshot(tmp_path / "a.pth.tar", {**network.state_dict(), **convolution()})
    (tmp_path / "rows.py").write_text(
        "from timm.models.resnet import Bottleneck, ResNet\n"
        "from lib.extension import add_model\n"
        "def build(classes):\n"
        "    return ResNet(Bottleneck, (1, 1, 2, 1), classes, channels=(16, 32, 48, 64))\n"
        "add_model('theirs', build=build, weights='a.pth.tar', layer='layer4')\n"
    )
    own = ["--extend", str(tmp_path / "rows.py"), "--models", "theirs", "--accept", "attnM.*"]
    assert command(file) == 2
    assert command(file, *own) == 0
    assert "attention/theirs/lcam_img.safetensors: imported from" in capsys.readouterr().out
