"""Explanations of pixels: by literal sums, against the published packages, and on networks whose
evidence is known."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GuidedBackpropReLUModel
from scipy import ndimage
from skimage.transform import resize
from stand_ins import InHalves, mini
from torch import nn

from lib.maps.cam import cam_maps
from lib.maps.forward import head_pass
from lib.maps.methods import METHODS, PIXEL_METHODS, min_max
from lib.maps.pixel import GuidedPath, gaussian_blur, guided_gradient, rise_masks
from lib.maps.pixel.gradients import guided_ig
from lib.maps.pixel.hidden import rise


class Toy(InHalves, nn.Module):
    """Looks at the contrast of one corner's red only."""

    def __init__(self, side=8):
        super().__init__()
        self.side = side

    def features(self, x):
        return torch.tanh(x)

    def head(self, features):
        seen = features[:, 0, : self.side, : self.side].std(dim=(1, 2))
        return torch.stack([3 * seen, -seen], dim=1)

    def forward(self, x):
        return self.head(self.features(x))


def first_class(model, x):
    return head_pass(model, x, torch.zeros(len(x), dtype=torch.long))


def explained(key: str, model, x):
    return METHODS[key].maps(model, x, first_class(model, x))


def shown(attribution) -> np.ndarray:
    """Of one image, (3, side, side)."""
    total = np.abs(np.asarray(attribution)).sum(axis=0)
    total = np.minimum(total, np.quantile(total, 0.99))
    return (total - total.min()) / np.ptp(total)


def slope(model, at):
    """Of the first class's probability."""
    leaf = at.clone().requires_grad_()
    (found,) = torch.autograd.grad(model(leaf).softmax(1)[:, 0].sum(), leaf)
    return found


@pytest.mark.parametrize("key", [key for key in PIXEL_METHODS if key != "rise"])
def test_pixel_methods_find_what_the_network_looks_at(key):
    x = torch.rand(2, 3, 64, 64) * 0.1 + 0.5
    x[:, 0, :24, :24] += torch.rand(2, 24, 24)  # its superpixels' mean colours have no contrast
    x[:, 1, 32:, 32:] += 1
    maps = explained(key, Toy(24), x)
    assert maps.shape == (2, 64, 64)
    assert maps.dtype == torch.float32
    assert maps.min() >= 0
    corner = maps[:, :24, :24].mean()  # LIME's superpixels reach out of it
    outside = (maps.sum() - maps[:, :24, :24].sum()) / (maps.numel() - 2 * 24 * 24)
    assert corner > 3 * outside
    if key not in ("lime", "blur_ig"):
        assert maps[:, 24:].abs().max() == 0
    again = explained(key, Toy(24), x)
    assert torch.equal(maps, again)  # seeded


# --- along paths, and under noise ------------------------------------------------------------


def test_integrated_gradients_by_both_quadratures_and_smooth_grad_by_literal_sums():
    model, x = Toy(), torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    steps = [slope(model, share * x)[0] for share in np.linspace(0, 1, 25).tolist()]
    published = shown(np.mean(np.stack(steps), axis=0) * x[0].numpy())
    np.testing.assert_allclose(explained("integrated_gradients", model, x)[0], published, atol=1e-4)
    nodes, weights = np.polynomial.legendre.leggauss(25)
    total = sum(
        w / 2 * slope(model, x * float((1 + a) / 2)) for a, w in zip(nodes, weights, strict=True)
    )
    exact = shown((total * x)[0])
    ours = explained("integrated_gradients_legendre", model, x)[0]
    np.testing.assert_allclose(ours, exact, atol=1e-4)
    assert np.abs(published - exact).max() > 1e-3
    generator = torch.Generator().manual_seed(20240803)
    spread = 0.15 * (x.max() - x.min())
    drawn = [torch.randn(3, 16, 16, generator=generator) for _ in range(50)]
    noisy = sum(slope(model, x + spread * one) for one in drawn)
    np.testing.assert_allclose(explained("smooth_grad", model, x)[0], shown(noisy[0]), atol=1e-4)


def test_blur_ig_by_its_literal_sum():
    """The authors' discretisation, with scipy's blur."""
    model, x = Toy(), torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))

    def blurred(sigma):
        return ndimage.gaussian_filter(x.double().numpy(), (0, 0, sigma, sigma), mode="constant")

    total = 0.0
    for step in range(100):
        sigma = step * 50 / 100
        gradient = slope(model, torch.from_numpy(blurred(sigma)).float())
        change = (blurred(sigma + 0.01) - blurred(sigma)) / 0.01
        total = total - 0.5 * change * gradient.numpy()
    np.testing.assert_allclose(explained("blur_ig", model, x)[0], shown(total[0]), atol=1e-4)


def test_paths_account_for_the_whole_difference():
    model, x = Toy(), torch.rand(1, 3, 16, 16) * 2 - 0.5

    def value(at):
        return model(at).softmax(1)[:, 0]

    path = GuidedPath(x[0], 0.25, 0.02)
    lengths = []
    for step in range(1, 201):
        path.advance(step / 200, slope(model, path.at[None])[0])
        lengths.append(float((x[0] - path.at).abs().sum() / x.abs().sum()))
    np.testing.assert_allclose(lengths, 1 - np.arange(1, 201) / 200, atol=1e-4)
    assert torch.allclose(path.at, x[0], atol=1e-5)
    gained = float(value(x) - value(torch.zeros_like(x)))
    assert float(path.attribution.sum()) == pytest.approx(gained, rel=0.05)
    # Blurring is scipy's, 0 outside.
    expected = ndimage.gaussian_filter(x.numpy(), (0, 0, 3.3, 3.3), mode="constant")
    np.testing.assert_allclose(gaussian_blur(x, 3.3), expected, atol=1e-5)


def literal_guided_ig(slope_at, end: np.ndarray, steps=200, fraction=0.25, most=0.02):
    """Algorithm 1 with the authors' settings and their order of steps."""
    at, total = np.zeros_like(end), np.zeros_like(end)
    length = np.abs(end).sum()
    for step in range(1, steps + 1):
        gradient = slope_at(at)
        size, gamma = np.abs(gradient), np.inf
        behind, ahead = max(step / steps - most, 0) * end, min(step / steps + most, 1) * end
        while gamma > 1:
            before = at.copy()
            late = at / end < max(step / steps - most, 0)
            at[late] = behind[late]
            missing = np.abs(end - at).sum() - length * (1 - step / steps)
            if abs(missing) < 1e-9:
                total += (at - before) * gradient
                break
            size[at == ahead] = np.inf
            chosen = (size <= np.quantile(size, fraction, method="lower")) & (size < np.inf)
            reach = np.abs(at - ahead)[chosen].sum()
            gamma = missing / reach if reach > 0 else np.inf
            at[chosen] = ahead[chosen] if gamma > 1 else (at + gamma * (ahead - at))[chosen]
            total += (at - before) * gradient
    return total


def test_guided_ig_by_the_authors_algorithm():
    model, x = Toy(), torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2)) - 0.4
    expected = literal_guided_ig(
        lambda at: slope(model, torch.from_numpy(at)[None])[0].numpy(), x[0].double().numpy()
    )
    np.testing.assert_allclose(explained("guided_ig", model, x)[0], shown(expected), atol=1e-6)
    kinds = set()
    model.register_forward_hook(lambda _, given, __: kinds.add(given[0].dtype))
    for key in ("guided_ig", "smooth_grad"):
        explained(key, model, x)
        assert kinds == {torch.float64 if key == "guided_ig" else torch.float32}
        kinds.clear()


@pytest.mark.parametrize(
    ("key", "precision"), [("resnet50", "float32"), ("convnext_tiny", "float32"),
                           ("convnext_tiny", "bf16")],
)  # fmt: skip
def test_guided_ig_is_computed_in_float64_by_a_copy(key, precision, images):
    """A study's model holds its network by other ways than attributes; the copy's are its own."""
    model = mini(key).folded()
    model.precision = precision
    x = model.prepare(images[:1])[..., ::4, ::4].contiguous()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = guided_ig(model, x, first_class(model, x), steps=3)[0]
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])
    exact = mini(key).folded().double()
    exact.load_state_dict(model.state_dict())
    path = GuidedPath(x[0].double(), 0.25, 0.02)
    for step in (1, 2, 3):
        path.advance(step / 3, slope(exact, path.at[None])[0])
    np.testing.assert_allclose(found, shown(path.attribution), atol=1e-6)
    assert found.dtype == torch.float32


def test_pixel_methods_leave_a_network_as_it_was(images):
    model = mini("convnext_tiny", dcls=True)
    fast = model.for_inference(keep_plain=True)
    fast.plain.train()
    x = fast.prepare(images[:1])
    with torch.inference_mode():
        found = cam_maps(fast, x, torch.tensor([1]), ["integrated_gradients"])
    assert found["integrated_gradients"].shape == (1, 224, 224)
    assert fast.plain.training
    assert all(p.grad is None and p.requires_grad for p in fast.plain.parameters())


# --- guided backpropagation ------------------------------------------------------------------


class Rectified(nn.Module):
    """Rectifiers in sequence, one used twice, one around a shortcut."""

    def __init__(self, in_place: bool = False):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.end = nn.BatchNorm2d(6), nn.Linear(6, 4)
        self.rectifier, self.inner = nn.ReLU(in_place), nn.Sequential(nn.ReLU(in_place))
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 3

    def forward(self, x):
        here = self.rectifier(self.norm(self.first(x)))
        there = self.inner(self.second(here))
        return self.end(self.rectifier(there + here - 0.3).mean(dim=(2, 3)))


def test_the_guided_gradient_is_pytorch_grad_cams():
    model, x = Rectified(), torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([2, 0, 3])
    ours = guided_gradient(model.train(), x, targets)
    assert model.training
    # That package takes one image at a time and leaves the network with other modules.
    package = GuidedBackpropReLUModel(copy.deepcopy(model))
    for image, target in enumerate(targets.tolist()):
        theirs = package(x[image : image + 1].clone(), target)
        np.testing.assert_allclose(ours[image].permute(1, 2, 0), theirs, atol=1e-6)
    leaf = x.clone().requires_grad_()
    chosen = model.eval()(leaf).gather(1, targets[:, None]).sum()
    (plain,) = torch.autograd.grad(chosen, leaf)
    assert (plain - ours).abs().max() > 0.1 * ours.abs().max() > 0
    # Rectifiers that work in place are no other function.
    assert torch.allclose(guided_gradient(Rectified(in_place=True), x, targets), ours, atol=1e-6)


def test_guided_backpropagation_leaves_nothing_behind_and_needs_rectifiers(images):
    model = mini("resnet50").for_inference(keep_plain=True)
    x = model.prepare(images[:2])
    modules = list(model.plain.modules())
    with torch.inference_mode():
        found = cam_maps(model, x, torch.tensor([1, 2]), ["guided_backprop"])["guided_backprop"]
    raw = guided_gradient(model, x, torch.tensor([1, 2]))
    assert raw.shape == x.shape
    np.testing.assert_allclose(found[1], shown(raw[1]), atol=1e-5)
    assert list(model.plain.modules()) == modules
    assert not any(m._forward_hooks or m._backward_hooks for m in modules)
    assert all(p.grad is None and p.requires_grad for p in model.plain.parameters())
    # ConvNeXt has no rectifier: the plain gradient.
    smooth = mini("convnext_tiny").folded()
    leaf = smooth.prepare(images[:1]).requires_grad_()
    (plain,) = torch.autograd.grad(smooth(leaf)[0, 3], leaf)
    assert torch.allclose(guided_gradient(smooth, leaf, torch.tensor([3])), plain, atol=1e-6)


# --- RISE ------------------------------------------------------------------------------------


class Bright(InHalves, nn.Module):
    """Sure of class 0 where the upper left quarter is bright."""

    backbone = SimpleNamespace(family="vgg")
    seen = 0

    def features(self, x):
        self.seen += len(x)
        return x

    def head(self, features):
        side = features.shape[-1] // 2
        bright = features[:, :, :side, :side].mean(dim=(1, 2, 3))
        return torch.stack([20 * (bright - 0.5), torch.zeros_like(bright)], dim=1)

    def forward(self, x):
        return self.head(self.features(x))


def drawn_masks(size: tuple[int, int], count: int) -> np.ndarray:
    """By the authors' recipe: grids enlarged by scikit-image, cut out at a place drawn by lot."""
    rng = np.random.default_rng(20240803)
    grids = (rng.random((count, 7, 7)) < 0.5).astype(np.float32)
    cell = np.ceil(np.array(size) / 7).astype(int)
    tops, lefts = (rng.integers(0, side, count) for side in cell)
    masks = []
    for grid, top, left in zip(grids, tops, lefts, strict=True):
        large = resize(grid, 8 * cell, order=1, mode="reflect", anti_aliasing=False)
        masks.append(large[top : top + size[0], left : left + size[1]])
    return np.stack(masks)


@pytest.mark.parametrize("size", [(224, 224), (30, 44)])
def test_rise_masks_are_those_of_the_authors_recipe(size):
    ours = torch.cat(list(rise_masks(size, 60, 7, 0.5, torch.device("cpu"))))
    np.testing.assert_allclose(ours, drawn_masks(size, 60), atol=1e-6)


def test_rise_is_the_mean_of_masks_weighed_by_the_probability():
    model, x = Toy(), torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1])
    found = rise(model, x, head_pass(model, x, targets), masks=130)
    masks = drawn_masks((28, 28), 130)
    for image, target in enumerate(targets.tolist()):
        total = np.zeros((28, 28))
        for mask in masks:
            with torch.no_grad():
                logits = model(x[image : image + 1] * torch.from_numpy(mask).float())
            total += float(logits.softmax(1)[0, target]) * mask
        np.testing.assert_allclose(found[image], total / 130 / 0.5, rtol=1e-5)


def test_rise_finds_what_has_to_be_open_by_as_many_masks_as_published():
    model, x = Bright().train(), torch.ones(1, 3, 28, 28)
    passed = head_pass(model, x, torch.tensor([0]))
    before = model.seen
    with torch.inference_mode():
        found = min_max(METHODS["rise"].maps(model, x, passed))[0]
    assert model.seen - before == 4000
    assert model.training
    assert found[:12, :12].mean() > found[16:, 16:].mean() + 0.5
    assert torch.equal(found, min_max(METHODS["rise"].maps(model, x, passed))[0])
    model.backbone = SimpleNamespace(family="resnet")
    before = model.seen
    METHODS["rise"].maps(model, x, passed)
    assert model.seen - before == METHODS["rise"].forwards == 8000
