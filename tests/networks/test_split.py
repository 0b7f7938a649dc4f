"""A network cut at a layer: both halves together are the network."""

from __future__ import annotations

import pytest
import torch
from stand_ins import narrow_vgg
from torch import nn

from lib.networks.backbones import BACKBONES
from lib.networks.building import build_network
from lib.networks.loading import load_model
from lib.networks.split import split_at


@pytest.mark.parametrize(
    ("key", "layer"),
    [
        ("resnet50", "layer3"),
        ("resnet50", "layer4.0.conv2"),
        ("convnext_tiny", "stages.2.blocks.1"),
        ("fastvit_sa24", "stages.2"),
    ],
)
def test_the_halves_are_the_network(key, layer):
    network = build_network(BACKBONES[key], True, mini=True, num_classes=5).eval()
    x = torch.randn(2, 3, 64, 64)
    if layer == "layer4.0.conv2":  # a shortcut goes around it
        with pytest.raises(ValueError, match="bypasses that layer"):
            split_at(network, layer)
        return
    seen = []
    network.get_submodule(layer).register_forward_hook(lambda _, __, y: seen.append(y))
    with torch.inference_mode():
        whole = network(x)
        features, head = split_at(network, layer)
        assert torch.equal(features(x), seen[0])
        assert torch.equal(head(seen[0]), whole)


class _Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.a(self.a(x))


class _Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.bias = nn.Parameter(torch.ones(1))

    def forward(self, x):
        x = nn.functional.dropout(self.a(x), 0.5, training=self.training)
        return (self.a if self.training else self.b)(x) * self.bias


class _Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.a(x) if x.sum() > 0 else x


def test_what_cannot_be_cut_is_said():
    with pytest.raises(ValueError, match="uses layer 'a' 2 times"):
        split_at(_Twice(), "a")
    with pytest.raises(ValueError, match="layer 'c' does not exist; the network's parts are a, b"):
        split_at(_Dropping(), "c")
    with pytest.raises(
        ValueError, match=r"cannot be cut at 'a'.*test_split.py, line \d+\).*Remove"
    ):
        split_at(_Branching(), "a")


def test_halves_of_a_network_in_training_are_those_of_its_evaluation():
    network = _Dropping().train()
    features, head = split_at(network, "a")
    assert network.training
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(head(features(x)), network.eval()(x))


@pytest.mark.parametrize(("key", "side"), [("vgg16", 4), ("vgg16_pooled", 2)])
def test_vgg_16_is_cut_at_both_of_its_layers(key, side):
    model = narrow_vgg(key)
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        features = model.features(x)
        assert features.shape == (1, 512, side, side)
        assert torch.allclose(model(x), model.network(x), atol=1e-6)
        sides = [f.shape[-1] for f in model.layers(x)]
        assert sides == {4: [16, 8, 4], 2: [8, 4, 2]}[side]
    with pytest.raises(ValueError, match="VGG-16.* has no DCLS form"):
        load_model(key, dcls=True)
