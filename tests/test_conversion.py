"""Fingerprints, receptive fields and parameter tables."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from conftest import mini
from torch import nn

from lib.analyses.conversion import learned_kernels, parameter_table
from lib.analyses.receptive import effective_receptive_field
from lib.base.fingerprint import fingerprint
from lib.maps.methods import METHODS, grad_cam_variant
from lib.networks.backbones import BACKBONES
from lib.study.study import Study


def test_parameter_table_holds_full_size_and_miniatures():
    table = parameter_table(
        Study.from_profile("demo", models=["convnext_tiny", "resnet50"]).choices
    )
    assert table["full size"].tolist() == [25_557_032, 28_589_128]
    assert table["full size, DCLS"].tolist() == [24_008_744, 28_587_688]
    assert table["replaced layers"].tolist() == [16, 18]
    assert (table["here"] < 1e6).all()


def test_learned_kernels_take_the_first_layer_of_each_stage():
    kernels = learned_kernels(mini("convnext_tiny", dcls=True), count=4)
    assert [name.split("\n")[0] for name in kernels] == [
        f"stages.{i}.blocks.0.conv_dw" for i in range(4)
    ]
    assert all(k.shape == (4, 17, 17) for k in kernels.values())


def test_receptive_field_of_one_convolution_is_its_kernel():
    class OneConvolution(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 5, padding=2)

        def features(self, x):
            return self.conv(x)

    model = OneConvolution()
    field = effective_receptive_field(model, torch.randn(2, 3, 11, 11))
    window = model.conv.weight.sum(0).abs().mean(0)
    expected = torch.zeros(11, 11)
    expected[3:8, 3:8] = window / window.max()
    torch.testing.assert_close(field, expected.detach())
    assert model.conv.weight.grad is None


@pytest.mark.parametrize("key", ["fastvit_sa24", "convnext_tiny"])
def test_receptive_fields_of_folded_networks_are_found(key):
    model = mini(key, dcls=True).folded()
    side = model.backbone.preprocessing.crop
    field = effective_receptive_field(model, torch.randn(1, 3, side, side))
    assert field.shape == (side, side)
    assert field.max() == 1
    row, column = divmod(int(field.argmax()), side)
    assert side // 4 < row < 3 * side // 4
    assert side // 4 < column < 3 * side // 4


def test_fingerprint_is_the_same_in_another_process():
    facts = "{'b': BACKBONES['resnet50'], 'm': list(METHODS.values())}"
    code = (
        "from lib.networks.backbones import BACKBONES; from lib.maps.methods import METHODS;"
        f"from lib.base.fingerprint import fingerprint; print(fingerprint({facts}))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    mine = fingerprint({"b": BACKBONES["resnet50"], "m": list(METHODS.values())})
    assert other.stdout.strip() == mine


def test_fingerprint_tells_methods_and_values_apart():
    prints = {
        fingerprint({"x": value})
        for value in (1, "1", [1], None, *METHODS.values(), grad_cam_variant("a", "a", floor=0.1),
                      grad_cam_variant("a", "a", floor=0.2), fingerprint, BACKBONES["resnet50"])
    }  # fmt: skip
    assert len(prints) == 4 + len(METHODS) + 2 + 2


def test_fingerprint_sees_what_a_made_function_remembers():
    def make(scale):
        return lambda features, gradient: features.mean(1) * scale

    assert fingerprint({"x": make(1)}) != fingerprint({"x": make(2)})
    assert fingerprint({"x": make(1)}) == fingerprint({"x": make(1)})


def test_fingerprint_refuses_what_it_cannot_describe():
    with pytest.raises(TypeError, match="cannot fingerprint a Tensor"):
        fingerprint({"x": torch.ones(2)})


def test_a_receptive_field_does_not_depend_on_how_many_pictures_go_at_once(pictures):
    model = mini("convnext_tiny", dcls=True).folded()
    x = model.prepare(pictures)
    at_once, one_by_one = (effective_receptive_field(model, x, size) for size in (4, 1))
    torch.testing.assert_close(at_once, one_by_one, atol=1e-6, rtol=1e-5)
    assert at_once.max() == 1
