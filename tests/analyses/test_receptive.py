"""Effective receptive fields."""

from __future__ import annotations

import pytest
import torch
from stand_ins import mini
from torch import nn

from lib.analyses.conversion import effective_receptive_field


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


def test_a_receptive_field_does_not_depend_on_how_many_images_go_at_once(images):
    model = mini("convnext_tiny", dcls=True).folded()
    x = model.prepare(images)
    at_once, one_by_one = (effective_receptive_field(model, x, size) for size in (4, 1))
    torch.testing.assert_close(at_once, one_by_one, atol=1e-6, rtol=1e-5)
    assert at_once.max() == 1
