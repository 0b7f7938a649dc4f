"""Every family of timm's: its layer is found, its maps are maps, and they lie where the image
does."""

from __future__ import annotations

import pytest
import torch
from timm.models import list_modules
from timm_families import TOO_LARGE, images, listed, model_of, row_of, tried

from lib.maps.forward import head_pass
from lib.maps.methods import METHODS

LISTED = listed()
FAST = ("resnet", "mobilenetv3", "efficientvit_mit", "starnet", "vision_transformer")


def test_the_page_lists_every_family():
    assert set(LISTED) == set(list_modules()) - set(TOO_LARGE) - {"timm_variants"}  # our own


@pytest.mark.parametrize("family", FAST)
def test_a_familys_layer_and_maps_are_as_listed(family):
    member, line = LISTED[family]
    assert tried(family, member) == line


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(LISTED) - set(FAST)))
def test_every_other_familys_layer_and_maps_are_as_listed(family):
    member, line = LISTED[family]
    assert tried(family, member) == line


def _by_autograd(network, layer: str, x: torch.Tensor) -> torch.Tensor:
    """Grad-CAM as published, of a layer's output that is maps or tokens after a class token."""
    seen = []
    handle = network.get_submodule(layer).register_forward_hook(lambda m, i, out: seen.append(out))
    logits = network(x)
    handle.remove()
    (output,) = seen
    (gradient,) = torch.autograd.grad(logits[0, logits[0].argmax()], output)
    if output.ndim == 3:
        side = int((output.shape[1] - 1) ** 0.5)
        output, gradient = (
            t[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2) for t in (output, gradient)
        )
    return (output * gradient.mean((2, 3), keepdim=True)).sum(1).relu()


@pytest.mark.parametrize(
    ("name", "layer"),
    [("test_resnet", "layer4"), ("test_vit", ""), ("xcit_nano_12_p16_224", "")],
)
def test_maps_are_those_of_a_literal_grad_cam(name, layer):
    row = row_of(name)
    model, x = model_of(row), images(row.preprocessing.crop)[:1]
    found = (
        METHODS["grad_cam"]
        .small_map((passed := head_pass(model, x, None)).features, passed.gradient)
        .relu()
    )
    wanted = _by_autograd(model.network, layer or row.layer, x)
    # Maps are scaled before anything else is done with them.
    torch.testing.assert_close(found / found.max(), wanted / wanted.max(), rtol=1e-4, atol=1e-5)
