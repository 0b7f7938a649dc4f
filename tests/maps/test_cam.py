"""CAMs against literal formulas, pytorch-grad-cam and captum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from scipy.stats import spearmanr
from stand_ins import FAMILIES, mini
from torch import nn

from lib.maps.cam import cam_maps
from lib.maps.forward import enlarge, head_pass, is_constant
from lib.maps.methods import FLOORS, METHODS, family_key, grad_cam_family, grad_cam_variant, min_max
from lib.maps.threshold_grad_cam import ThresholdGradCAM

TARGETS = torch.tensor([0, 3, 1, 4])
FAMILY = [METHODS[family_key(order, floor)] for order in (False, True) for floor in FLOORS]


class Split(nn.Module):
    """A network of which pytorch-grad-cam and captum can hook the study's layer."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.layer = nn.Identity()

    def forward(self, x):
        return self.model.head(self.layer(self.model.features(x)))


def in_float64(model, x, targets) -> list[tuple[np.ndarray, np.ndarray]]:
    """Features and gradient of each image alone."""
    model, found = model.double(), []
    for image, target in zip(x.double(), targets, strict=True):
        features = model.features(image[None]).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model.head(features)[0, target], features)
        found.append((features[0].detach().numpy(), gradient[0].numpy()))
    model.float()
    return found


def literal_maps(found, *, relu_before_mean: bool, floor: float | None):
    """The definitions of the paper, one image and one channel at a time."""
    maps = []
    for a, g in found:
        total = np.zeros(a.shape[1:])
        for channel in range(len(a)):
            contribution = g[channel].mean() * a[channel]
            total += np.maximum(contribution, 0) if relu_before_mean else contribution
        small = np.maximum(total / len(a), 0)
        if floor is not None:
            small = (small - small.min()) / (small.max() - small.min())
            small = np.maximum(small, floor)
        maps.append(small)
    return np.stack(maps)


@pytest.mark.parametrize("dcls", [False, True], ids=["plain", "dcls"])
@pytest.mark.parametrize("key", FAMILIES)
def test_maps_equal_the_literal_formulas(key, dcls, images):
    model = mini(key, dcls).for_inference()
    x, targets = model.prepare(images[:2]), TARGETS[:2]
    passed, exact = head_pass(model, x, targets), in_float64(model, x, targets)
    for name, options in {
        "grad_cam": {"relu_before_mean": False, "floor": None},
        "threshold_grad_cam": {"relu_before_mean": True, "floor": 0.3},
    }.items():
        ours = METHODS[name].small_map(passed.features, passed.gradient).numpy()
        expected = literal_maps(exact, **options)
        scale = np.abs(expected).max() or 1.0
        np.testing.assert_allclose(ours / scale, expected / scale, atol=2e-5)


@pytest.mark.parametrize("key", FAMILIES)
def test_grad_cam_equals_pytorch_grad_cams(key, images):
    model = mini(key)
    x = model.prepare(images)
    ours = cam_maps(model, x, TARGETS, ["grad_cam"], size=x.shape[-1])["grad_cam"]
    split = Split(model)
    targets = [ClassifierOutputTarget(int(t)) for t in TARGETS]
    theirs = torch.from_numpy(GradCAM(split, [split.layer])(x, targets))
    torch.testing.assert_close(min_max(ours), min_max(theirs), atol=2e-5, rtol=0)


@pytest.mark.parametrize("key", FAMILIES)
def test_grad_cam_equals_captums(key, images):
    model = mini(key).folded()
    x = model.prepare(images)
    passed = head_pass(model, x, TARGETS)
    ours = METHODS["grad_cam"].small_map(passed.features, passed.gradient)
    split = Split(model)
    theirs = LayerGradCam(split, split.layer).attribute(
        x, TARGETS, relu_attributions=True, attr_dim_summation=True
    )
    channels = passed.features.shape[1]
    torch.testing.assert_close(ours * channels, theirs.squeeze(1).detach(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("key", ["convnext_tiny", "resnet50"])
def test_threshold_grad_cam_as_a_method_of_pytorch_grad_cam(key, images):
    model = mini(key).folded()
    x = model.prepare(images)
    split = Split(model)
    targets = [ClassifierOutputTarget(int(t)) for t in TARGETS]
    with ThresholdGradCAM(split, [split.layer]) as method:
        theirs = method(x, targets)
    assert theirs.shape == (4, 224, 224)
    assert theirs.dtype == np.float32
    ours = cam_maps(model, x, TARGETS)["threshold_grad_cam"]
    np.testing.assert_allclose(theirs, min_max(ours), atol=2e-5)
    for a, b in zip(theirs, ours, strict=True):
        assert spearmanr(a.ravel(), b.ravel()).statistic > 0.9999


@pytest.mark.parametrize("relu_before_mean", [False, True])
@pytest.mark.parametrize("floor", [0.0, 0.3, 0.7])
def test_the_two_ingredients_combine_freely(relu_before_mean, floor, images):
    model = mini("convnext_tiny").folded()
    row = grad_cam_variant("own", "own", relu_before_mean=relu_before_mean, floor=floor)
    x, targets = model.prepare(images[:2]), TARGETS[:2]
    maps = cam_maps(model, x, targets, [row], size=7)["own"]
    exact = in_float64(model, x, targets)
    expected = literal_maps(exact, relu_before_mean=relu_before_mean, floor=floor or None)
    torch.testing.assert_close(maps, torch.from_numpy(expected).float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("relu_before_mean", [False, True])
def test_a_gradient_that_differs_from_place_to_place_is_averaged(relu_before_mean):
    """That of the study's own networks does not: each ends in a mean over places."""
    a, g = np.random.default_rng(0).normal(size=(2, 6, 5, 4))
    channels = [channel * gradient.mean() for channel, gradient in zip(a, g, strict=True)]
    if relu_before_mean:
        expected = np.mean([np.maximum(channel, 0) for channel in channels], axis=0)
    else:
        expected = np.maximum(np.mean(channels, axis=0), 0)
    features, gradient = torch.from_numpy(a)[None], torch.from_numpy(g)[None]
    found = grad_cam_family(features, gradient, relu_before_mean=relu_before_mean, floor=0)
    np.testing.assert_allclose(found[0], expected, atol=1e-12)


@pytest.mark.parametrize("floor", [-0.1, 1.0, 2.0])
def test_a_floor_outside_zero_to_one_is_refused(floor):
    with pytest.raises(ValueError, match="floor must lie in"):
        grad_cam_family(torch.ones(1, 2, 3, 3), torch.ones(1, 2, 3, 3),
                        relu_before_mean=True, floor=floor)  # fmt: skip


def test_an_all_negative_map_is_constant_and_never_nan():
    features, gradient = torch.rand(2, 4, 7, 7), -torch.ones(2, 4, 7, 7)
    for row in FAMILY:
        maps = enlarge(row.small_map(features, gradient))
        assert torch.isfinite(maps).all()
        assert is_constant(maps).all()


def test_a_constant_positive_map_is_constant_under_every_method():
    features, gradient = torch.ones(1, 4, 7, 7), torch.ones(1, 4, 7, 7)
    for row in FAMILY:
        maps = enlarge(row.small_map(features, gradient))
        assert torch.isfinite(maps).all()
        assert is_constant(maps).all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_floors_plateau_keeps_one_value_when_enlarged(layout):
    # On channels-last tensors the interpolation splits a plateau into several floats.
    small = torch.rand(8, 4, 7, 7).to(memory_format=layout)
    gradient = torch.rand(8, 4, 7, 7).to(memory_format=layout) - 0.3
    maps = enlarge(METHODS["threshold_grad_cam"].small_map(small, gradient))
    near = maps[(maps - 0.3).abs() < 1e-5]
    assert len(near) > 100
    assert near.unique().tolist() == [pytest.approx(0.3)]


def test_enlarging_is_bilinear_with_half_pixel_centres():
    small = torch.rand(3, 7, 5)
    expected = F.interpolate(small[:, None], (224, 224), mode="bilinear", align_corners=False)
    torch.testing.assert_close(enlarge(small), expected[:, 0])


# --- what a call leaves behind ------------------------------------------------


def test_a_call_leaves_no_gradient_hook_or_changed_mode(images):
    model = mini("fastvit_sa24")
    model.train()
    model.network.stem.eval()
    modes = [m.training for m in model.modules()]
    buffers = {k: v.clone() for k, v in model.named_buffers()}
    cam_maps(model, model.prepare(images), TARGETS)
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, buffers[k]) for k, v in model.named_buffers())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())


def test_modes_are_restored_after_an_error():
    model = mini("resnet50").train()
    with pytest.raises(RuntimeError):
        cam_maps(model, torch.rand(1, 7, 224, 224))
    assert all(m.training for m in model.modules())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_maps_are_the_same_in_every_gradient_context(context, images):
    model = mini("caformer_s18").for_inference().requires_grad_(False)
    x = model.prepare(images)
    expected = cam_maps(model, x, TARGETS)
    with context():
        got = cam_maps(model, x, TARGETS)
    assert all(torch.equal(got[k], expected[k]) for k in expected)


def test_an_images_map_does_not_depend_on_its_batch(images):
    model = mini("convnext_tiny").folded()
    x = model.prepare(images)
    together = cam_maps(model, x, TARGETS)
    for i in range(4):
        alone = cam_maps(model, x[i : i + 1], TARGETS[i : i + 1])
        for key, maps in together.items():
            torch.testing.assert_close(alone[key][0], maps[i], atol=1e-5, rtol=1e-3)


def test_without_targets_the_predicted_class_is_explained(images):
    model = mini("resnet50").folded()
    x = model.prepare(images)
    predicted = model(x).argmax(1)
    assert torch.equal(head_pass(model, x).targets, predicted)
    expected = cam_maps(model, x, predicted)["grad_cam"]
    torch.testing.assert_close(cam_maps(model, x)["grad_cam"], expected)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.tensor([1]), "one target class per image: 4 images"),
        (torch.tensor([0, 1, 2, 5]), "class indices 0 … 4"),
        (torch.tensor([0, 1, 2, -1]), "class indices 0 … 4"),
        (torch.rand(4), "class indices"),
    ],
)
def test_wrong_targets_are_refused(targets, message, images):
    model = mini("resnet50")
    with pytest.raises(ValueError, match=message):
        head_pass(model, model.prepare(images), targets)


def test_one_pass_serves_all_methods(images):
    model = mini("resnet50").folded()
    calls = []
    model.network.layer4.register_forward_hook(lambda *_: calls.append(1))
    cam_maps(model, model.prepare(images), TARGETS, [
        *(row for row in METHODS.values() if row.small_map),
        grad_cam_variant("third", "third", floor=0.5),
    ])  # fmt: skip
    assert len(calls) == 1
