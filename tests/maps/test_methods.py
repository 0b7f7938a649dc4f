"""Every CAM method against pytorch-grad-cam's own class, and that package's traps."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, FinerWeightedTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_with_sign_correction
from stand_ins import FAMILIES, mini
from torch import nn

from lib.maps.cam import cam_maps
from lib.maps.forward import head_pass
from lib.maps.methods import ALL_METHODS, METHODS, min_max
from lib.maps.one_pass import first_component
from lib.maps.package_cams import run_class

LIBRARY = {
    "grad_cam": "GradCAM", "hires_cam": "HiResCAM", "grad_cam_plus_plus": "GradCAMPlusPlus",
    "x_grad_cam": "XGradCAM", "layer_cam": "LayerCAM", "element_wise": "GradCAMElementWise",
    "shapley_cam": "ShapleyCAM", "fem": "FEM", "kpca_cam": "KPCA_CAM",
    "ablation_cam": "AblationCAM", "score_cam": "ScoreCAM",
}  # fmt: skip
SLOW = {"score_cam", "ablation_cam", "kpca_cam"}
LABELS = torch.tensor([0, 3])


class Whole(nn.Module):
    """The network as users of that package have it, its target layer marked."""

    def __init__(self, model):
        super().__init__()
        self.model, self.layer = model, nn.Identity()

    def forward(self, x):
        return self.model.head(self.layer(self.model.features(x)))


def library(name: str, model, x, targets=None) -> np.ndarray:
    """The package's maps at the layer's size, scaled 0-1."""
    whole = Whole(model)
    cam = getattr(pytorch_grad_cam, name)(whole, [] if name == "FullGrad" else [whole.layer])
    targets = targets or [ClassifierOutputTarget(int(t)) for t in LABELS]
    maps = cam(x.clone().requires_grad_(), targets)
    found = cam.activations_and_grads
    found.activations, found.gradients = [], []  # releasing ShapleyCAM's raises
    found.release()
    return maps


def unit(maps: np.ndarray) -> np.ndarray:
    """Each from 0 to 1; a constant one is 0."""
    return min_max(torch.as_tensor(maps, dtype=torch.float64)).numpy()


def assert_same(ours: torch.Tensor, expected: np.ndarray, atol: float, method: str = "") -> None:
    """Equal once ours are enlarged with cv2, as that package does, and both run from 0 to 1.

    (It divides by a map's largest value plus 1e-7, which for small values is not to 1.)
    """
    from pytorch_grad_cam.utils.image import scale_cam_image

    large = scale_cam_image(unit(ours).astype(np.float32), expected.shape[:0:-1])
    np.testing.assert_allclose(unit(large), unit(expected), atol=atol, err_msg=method)


@pytest.mark.parametrize("key", FAMILIES)
def test_one_pass_methods_equal_the_librarys_on_every_family(key, images):
    model = mini(key, dcls=key == "convnext_tiny").folded()
    x = model.prepare(images[:2])
    passed = head_pass(model, x, LABELS)
    for method, name in LIBRARY.items():
        if method in SLOW:
            continue
        ours = METHODS[method].maps(model, x, passed)
        expected = library(name, model, x)
        assert_same(ours, expected, 2e-5, method)


@pytest.mark.parametrize(
    ("key", "method"),
    [("resnet50", "ablation_cam"), ("resnet50", "kpca_cam"), ("convnext_tiny", "score_cam"),
     ("convnext_tiny", "kpca_cam")],
)  # fmt: skip
def test_many_forward_methods_equal_the_librarys(key, method, images):
    model = mini(key).folded()
    x = model.prepare(images[:2])[..., ::2, ::2]  # hundreds of forwards for each
    passed = head_pass(model, x)  # AblationCAM turns maps over where a logit is negative
    targets = [ClassifierOutputTarget(int(t)) for t in passed.targets]
    assert (passed.logits.amax(dim=1) > 0).all()
    ours = METHODS[method].maps(model, x, passed)
    assert_same(ours, library(LIBRARY[method], model, x, targets), 1e-4)


@pytest.mark.parametrize("key", ["convnext_tiny", "resnet50", "fastvit_sa24"])
def test_ablation_cam_sets_one_channel_after_the_other_to_zero(key, images):
    model = mini(key).folded()  # ConvNeXt's features can be negative, and a norm follows them
    x = model.prepare(images[:2])
    passed = head_pass(model, x, LABELS)
    for image, target in enumerate(LABELS.tolist()):
        features, weights = passed.features[image], []
        with torch.no_grad():
            logit = model.head(features[None])[0, target]
            for channel in range(len(features)):
                without = features.clone()
                without[channel] = 0
                weights.append((logit - model.head(without[None])[0, target]) / logit.abs())
        expected = (torch.stack(weights)[:, None, None] * features).sum(0).relu()
        ours = METHODS["ablation_cam"].maps(model, x, passed)[image]
        np.testing.assert_allclose(unit(ours[None]), unit(expected[None]), atol=1e-4)


@pytest.mark.parametrize("key", ["resnet50", "convnext_tiny"])
def test_ablation_cam_runs_each_channel_only_where_the_others_bear_on_it(key, images):
    model = mini(key).folded()
    x = model.prepare(images[:1])
    passed = head_pass(model, x, LABELS[:1])
    channels, asked = passed.features.shape[1], []
    answered = model.answered
    model.answered = lambda x, features: (asked.append(len(features)), answered(x, features))[1]
    METHODS["ablation_cam"].maps(model, x, passed)
    assert sum(asked) == (10 if key == "resnet50" else 10 + channels)


def test_full_grad_of_a_rewritten_model_without_the_published_one_is_refused(images):
    fast = mini("resnet50").for_inference()
    with pytest.raises(ValueError, match="keep_plain"):
        cam_maps(fast, fast.prepare(images[:1]), LABELS[:1], ["full_grad"])


@pytest.mark.parametrize("key", FAMILIES)
def test_full_grad_is_the_librarys_on_the_published_network(key, images):
    model = mini(key)
    fast = model.for_inference(keep_plain=True)
    x = fast.prepare(images[:2])
    ours = METHODS["full_grad"].maps(fast, x, head_pass(fast, x, LABELS))
    plain = model.folded()
    expected = library("FullGrad", plain, plain.prepare(images[:2]))
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-4)


def test_finer_cam_weighs_the_three_nearest_classes(images):
    model = mini("convnext_tiny").folded()
    x = model.prepare(images[:2])
    passed = head_pass(model, x, LABELS)
    targets = []
    for logits, own in zip(passed.logits.numpy(), LABELS.tolist(), strict=True):
        near = [c for c in np.argsort(np.abs(logits - logits[own])) if c != own][:3]
        targets.append(FinerWeightedTarget(own, [int(c) for c in near], 1.0))
    expected = library("GradCAM", model, x, targets)
    ours = METHODS["finer_cam"].maps(model, x, passed)
    assert_same(ours, expected, 2e-5)


def test_eigen_cams_are_the_first_component_with_its_larger_side_up():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, 20, 5, 5)).astype(np.float32)
    expected = get_2d_projection_with_sign_correction(features)
    np.testing.assert_allclose(first_component(torch.tensor(features)), expected, atol=1e-4)
    gradient = rng.normal(size=features.shape).astype(np.float32)
    tensors = torch.tensor(features), torch.tensor(gradient)
    np.testing.assert_allclose(
        METHODS["eigen_cam"].small_map(*tensors), np.maximum(expected, 0), atol=1e-4
    )
    expected = np.maximum(get_2d_projection_with_sign_correction(features * gradient), 0)
    np.testing.assert_allclose(METHODS["eigen_grad_cam"].small_map(*tensors), expected, atol=1e-4)


def test_random_cam_is_the_same_each_time_and_for_every_batch():
    features = torch.rand(4, 20, 5, 5)
    maps = METHODS["random_cam"].small_map(features, features)
    alone = METHODS["random_cam"].small_map(features[2:3], features[2:3])
    torch.testing.assert_close(maps[2:3], alone)


def test_random_cam_weighs_channels_from_minus_one_to_one():
    """A channel a pixel: what is left of a map are the weights above zero."""
    maps = METHODS["random_cam"].small_map(torch.eye(400).view(1, 400, 20, 20), torch.ones(1))
    assert 150 < (maps == 0).sum() < 250
    weights = np.sort(maps[maps > 0].numpy())
    np.testing.assert_allclose(weights, np.linspace(0, 1, len(weights)), atol=0.1)


# --- the package's traps ----------------------------------------------------------------------


def test_one_target_for_several_images_is_refused(images):
    model = mini("resnet50").folded()
    x = model.prepare(images)
    with pytest.raises(ValueError, match="4 images, 1 targets"):
        run_class("GradCAM", model, x, [ClassifierOutputTarget(0)])
    with pytest.raises(ValueError, match="one target class per image"):
        cam_maps(model, model.prepare(images), torch.tensor([0]), ["shapley_cam"])


def test_an_index_error_inside_is_not_swallowed(images):
    model = mini("resnet50").folded()
    x = model.prepare(images[:1])
    with pytest.raises(IndexError):
        run_class("GradCAM", model, x, [ClassifierOutputTarget(99)], model.features(x).detach())


@pytest.mark.parametrize(
    "method", ["shapley_cam", "fem", "ablation_cam", "full_grad", "finer_cam", "score_cam"]
)
def test_a_method_leaves_no_trace(method, images):
    model = mini("convnext_tiny").folded()
    model.train()
    first = next(model.parameters())
    first.requires_grad_(False)
    first.grad = marked = torch.ones_like(first)
    required = [p.requires_grad for p in model.parameters()]
    with torch.no_grad():  # and it works there
        maps = cam_maps(model, model.prepare(images[:2]), LABELS, [method])[method]
    assert maps.shape == (2, 224, 224)
    assert maps.isfinite().all()
    assert model.training
    assert first.grad is marked
    assert [p.requires_grad for p in model.parameters()] == required
    assert all(p.grad is None for p in list(model.parameters())[1:])
    hooks = [h for m in model.modules() for h in (*m._forward_hooks, *m._backward_hooks)]
    assert not hooks


def test_methods_work_under_bfloat16_features(images):
    model = mini("convnext_tiny").for_inference("bf16")
    x = model.prepare(images[:2])
    maps = cam_maps(model, x, LABELS, ["grad_cam", "eigen_cam", "shapley_cam", "fem"])
    assert all(m.isfinite().all() for m in maps.values())


def test_every_method_gives_maps_and_says_nothing(capsys, images):
    model = mini("resnet50").for_inference(keep_plain=True)
    x = model.prepare(images[:2])[..., ::2, ::2]  # SESS has 122 windows
    maps = cam_maps(model, x, LABELS, ALL_METHODS)
    assert set(maps) == set(ALL_METHODS)
    assert len(ALL_METHODS) == 21
    for method, values in maps.items():
        assert values.shape == (2, 224, 224), method
        assert (values >= 0).all(), method
        assert values.isfinite().all(), method
    said = capsys.readouterr()
    assert said.out == said.err == ""
