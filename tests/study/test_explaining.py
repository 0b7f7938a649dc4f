"""Maps by one call: pytorch-grad-cam's, where in the image the network looked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from stand_ins import mini
from torch import nn

from lib import explain
from lib.cam import METHODS
from lib.maps.placed import heatmaps
from lib.networks.preprocessing import Preprocessing

WHOLE = Preprocessing(resize=64, crop=64, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


@pytest.fixture
def network() -> nn.Module:
    body = nn.Sequential(nn.Conv2d(3, 6, 9, 8, 4), nn.ReLU(), nn.Conv2d(6, 8, 3, 1, 1))
    return nn.Sequential(body, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def test_maps_of_a_network_in_memory_are_the_published_packages(network, images):
    wide = np.ascontiguousarray(images[:2, 80:144, 60:141])  # 64 x 81
    square = wide[:, :, 8:72]
    x = (torch.tensor(square).permute(0, 3, 1, 2) / 255).float()
    x = (x - torch.tensor(WHOLE.mean)[:, None, None]) / torch.tensor(WHOLE.std)[:, None, None]
    targets = [ClassifierOutputTarget(one) for one in (2, 3)]
    with GradCAM(network, [network[0]]) as cam:
        small = cam(x, targets)
    found = explain(network, wide, "grad_cam", [2, 3], layer="0", preprocessing=WHOLE)
    assert found.shape == (2, 64, 81)
    assert not found[:, :, :8].any()
    assert not found[:, :, 72:].any()
    np.testing.assert_allclose(found[:, :, 8:72], small, atol=2e-4)
    assert found.reshape(2, -1).max(axis=1).tolist() == [1, 1]


def test_images_are_taken_as_arrays_files_and_images(network, images, tmp_path):
    small = images[0, :64, :96]
    Image.fromarray(small).save(tmp_path / "a.png")
    given = [small, tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(small)]
    several = explain(network, [*given, small[:50]], target=1, preprocessing=WHOLE)
    assert [one.shape for one in several] == [(64, 96)] * 4 + [(50, 96)]
    for one in given:
        np.testing.assert_allclose(
            explain(network, one, target=1, preprocessing=WHOLE), several[0], atol=1e-6
        )
    many = explain(network, np.repeat(small[None], 18, axis=0), target=1, preprocessing=WHOLE)
    np.testing.assert_allclose(many[17], several[0], atol=1e-6)


def test_preprocessing_is_what_timm_says_of_its_networks(network, images):
    told = {"input_size": (3, 64, 64), "crop_pct": 0.8, "mean": WHOLE.mean, "std": WHOLE.std}
    network.pretrained_cfg = told
    same = Preprocessing(80, 64, WHOLE.mean, WHOLE.std)
    found = explain(network, images, target=1)
    np.testing.assert_array_equal(found, explain(network, images, target=1, preprocessing=same))
    assert not found[:, :22].any()  # 224 · 8 / 80 = 22.4 pixels are cut off
    assert found[:, 22:-22].any()


def test_maps_of_a_studys_model_are_the_studys(images):
    model = mini("convnext_tiny")
    row = METHODS["layer_cam"]
    seen = heatmaps(model, images, torch.tensor([1, 2, 3, 0]), (row,))[row.label]
    found = explain(model, images, "layer_cam", [1, 2, 3, 0])
    low, high = (f(seen, axis=(1, 2), keepdims=True) for f in (np.nanmin, np.nanmax))
    np.testing.assert_allclose(found, np.nan_to_num((seen - low) / (high - low)), atol=1e-6)


def test_an_answer_that_is_not_finite_names_its_image(network, images, tmp_path):
    black = np.zeros_like(images[0])
    Image.fromarray(black).save(tmp_path / "black.png")
    plain = Preprocessing(64, 64, (0, 0, 0), (1, 1, 1))
    given = [*images[:2], tmp_path / "black.png"]
    with pytest.raises(ValueError, match=r"image 2 \(.*black\.png\) has no heatmap: .* not finite"):
        explain(ByLight(network), given, target=1, layer="network.0", preprocessing=plain)


class ByLight(nn.Module):
    """Has no answer to a black image: 0 over 0."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        light = x.sum(dim=(1, 2, 3))
        return self.network(x) * (light / light)[:, None]


def test_it_works_under_inference_mode_but_for_networks_made_there(network, images):
    given = {"images": images, "target": torch.tensor(1), "preprocessing": WHOLE}
    expected = explain(network, **given)
    with torch.inference_mode():
        np.testing.assert_array_equal(explain(network, **given), expected)
        made = nn.Sequential(nn.Conv2d(3, 4, 9, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="created under torch.inference_mode"):
        explain(made, **given)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": []}, "images is empty"),
        ({"images": "nowhere.jpg"}, "nowhere.jpg does not exist"),
        ({"images": np.zeros((2, 9, 9), np.uint8)}, "image 0 must be"),
        ({"images": np.zeros((9, 9, 3))}, "float64"),
        ({"method": "grad_can"}, "Did you mean 'grad_cam'"),
        ({"target": [1, 2]}, "4 images, 2 targets"),
        ({"target": 9}, "0 … 3"),
        ({"target": 1.5}, "target 1.5 is not a class"),
        ({"target": "tabby"}, "'tabby' is a text: .* or None"),
        ({"target": [1, 2.5, 0, 0]}, "target 2.5 is not a class"),
        ({"target": ["tabby"] * 4}, "target 'tabby' is not a class"),
        ({"layer": "nowhere"}, "no layer 'nowhere'"),
        ({"model": "resnet5"}, "Did you mean 'resnet50'"),
        ({"model": 3}, "a name or a network, not int"),
    ],
)
def test_what_cannot_be_explained_is_named(network, images, changed, said):
    given = {"model": network, "images": images, "preprocessing": WHOLE} | changed
    with pytest.raises(ValueError, match=said):
        explain(**given)
