"""pytorch-grad-cam's metrics, of any target, against the package's own classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAMElementWise
from pytorch_grad_cam.metrics import cam_mult_image, road
from pytorch_grad_cam.metrics.arcc import ARCC, Coherency, Complexity
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from pytorch_grad_cam.utils.model_targets import (
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
    RawScoresOutputTarget,
    SemanticSegmentationTarget,
)
from torch import nn

from lib.analyses.faithfulness import package_metrics, summarise_package_metrics

pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")

IMAGES, SIDE = 3, 20
SINGLE = ["ROADMostRelevantFirst", "ROADLeastRelevantFirst"]
MULTIPLIED = ["CamMultImageConfidenceChange", "DropInConfidence", "IncreaseInConfidence"]


def block(*end: nn.Module) -> nn.Sequential:
    torch.manual_seed(5)
    start = (nn.Conv2d(3, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU())
    network = nn.Sequential(*start, *end).eval()
    network(torch.zeros(1, 3, SIDE, SIDE))  # the lazy layers' sizes
    return network


def classifier() -> nn.Sequential:
    return block(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.LazyLinear(4))


def mask(seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random((SIDE, SIDE)) < 0.5).astype(np.float32)


CASES = {
    "logits": (classifier, [ClassifierOutputTarget(c) for c in (1, 0, 3)]),
    "softmax": (classifier, [ClassifierOutputSoftmaxTarget(c) for c in (1, 0, 3)]),
    "segmentation": (
        lambda: block(nn.Conv2d(6, 4, 3, padding=1)),
        [SemanticSegmentationTarget(c, mask(c)) for c in (1, 0, 3)],
    ),
    "one score": (
        lambda: block(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.LazyLinear(1)),
        [RawScoresOutputTarget()] * 3,
    ),
    "one number": (
        lambda: block(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.LazyLinear(1), nn.Flatten(0)),
        [RawScoresOutputTarget()] * 3,
    ),
}


@pytest.fixture
def x():
    return torch.randn(IMAGES, 3, SIDE, SIDE)


@pytest.fixture
def maps():
    """In 0-1; the second has a plateau of half of its pixels, as a ReLU leaves one."""
    rng = np.random.default_rng(1)
    maps = rng.random((IMAGES, SIDE, SIDE), dtype=np.float32)
    maps[1][maps[1] < 0.5] = 0
    low, high = (end(maps, axis=(1, 2), keepdims=True) for end in (np.min, np.max))
    return (maps - low) / (high - low)


@pytest.fixture
def draws(x, monkeypatch):
    """Noise, which the package's imputer too adds to the image that it is drawn for."""
    draws, imputer = 0.01 * torch.randn_like(x), NoisyLinearImputer.__call__

    def with_draws(self, image, kept):
        self.noise = 0
        (number,) = (i for i, one in enumerate(x) if torch.equal(one, image))
        return imputer(self, image, kept) + draws[number] * (kept == 0)

    monkeypatch.setattr(NoisyLinearImputer, "__call__", with_draws)
    return draws


def wide(table):
    return table.pivot(index="image", columns="measure", values="value")


def named(name: str, percentiles) -> object:
    """The package's metric of this name."""
    if name == "ROADCombined":
        return road.ROADCombined(percentiles if isinstance(percentiles, list) else [percentiles])
    kind = getattr(road, name, None) or getattr(cam_mult_image, name)
    if name in SINGLE:
        return kind(percentiles)
    return kind(percentiles) if name.endswith("Average") else kind()


@pytest.mark.parametrize("case", CASES)
def test_every_metric_is_the_packages(case, x, maps, draws):
    make, targets = CASES[case]
    network = make()
    cam = GradCAMElementWise(network, [network[2]])

    def explain(some):
        return cam(input_tensor=some, targets=targets)

    table = package_metrics(network, x, maps, targets, explain=explain, noise=draws)
    found = wide(table)
    deciles = list(range(10, 100, 10))
    names = [*MULTIPLIED, *(f"{name}Average" for name in SINGLE), "ROADCombined"]
    for name in names:
        theirs = named(name, deciles)(x, maps, targets, network)
        np.testing.assert_allclose(found[name], theirs.ravel(), atol=1e-5, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(found["Complexity"], Complexity()(maps), atol=1e-5)
    coherency = Coherency()(x, maps, targets, network, cam)
    assert np.ptp(coherency) > 0.01
    np.testing.assert_allclose(found["Coherency"], coherency, atol=1e-5)
    arcc = ARCC(cam)(x, maps, targets, network)
    if arcc.ndim > 1:  # of one score an image the package pairs every image with every other
        arcc = arcc.diagonal()
    assert arcc.max() > 0.01
    np.testing.assert_allclose(found["ARCC"], arcc, atol=1e-5)
    assert set(found) == {*names, "Complexity", "Coherency", "ARCC"}


@pytest.mark.parametrize("percentile", [80, 35.5, "auto"])
def test_one_percentile_is_the_packages_single_class(percentile, x, maps, draws):
    network, targets = classifier(), CASES["logits"][1]
    table = package_metrics(network, x, maps, targets, percentiles=percentile, noise=draws)
    for name in (*SINGLE, "ROADCombined"):
        theirs = named(name, percentile)(x, maps, targets, network)
        assert np.abs(theirs).min() > 1e-4
        np.testing.assert_allclose(wide(table)[name], theirs, atol=1e-5)
    assert not any(name.endswith("Average") for name in table.measure)


def test_a_class_stands_for_its_probability(x, maps):
    network, targets = classifier(), CASES["softmax"][1]
    expected = package_metrics(network, x, maps, targets, percentiles=30).value
    for numbers in ([1, 0, 3], (1, 0, 3), torch.tensor([1, 0, 3]), np.array([1, 0, 3])):
        found = package_metrics(network, x, maps, numbers, percentiles=30).value
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_noise_is_drawn_by_the_seed_and_in_the_images_unit(maps):
    """Of what is imputed as 0, the mean square is the noise's alone."""
    x, square = torch.zeros(IMAGES, 3, SIDE, SIDE), [lambda out: out.square().mean()] * IMAGES

    def half(**more):
        found = package_metrics(nn.Identity(), x, maps, square, percentiles=50, **more)
        return wide(found)["ROADMostRelevantFirst"].to_numpy()

    np.testing.assert_allclose(half()[[0, 2]], 0.5e-4, rtol=0.15)
    np.testing.assert_allclose(half(noise=1)[[0, 2]], 0.5, rtol=0.15)
    assert not half(noise=0).any()
    assert (half() == half(batch=1)).all()
    assert (half(seed=1) != half()).all()


def test_maps_are_scaled_and_batches_do_not_matter(x, maps):
    network, targets = classifier(), [1, 0, 3]
    names, more = ["a", "b", "c"], {"percentiles": (20, 70)}
    expected = package_metrics(network, x, maps, targets, **more)
    more |= {"batch": 2, "image_ids": names}
    found = package_metrics(network, x, torch.from_numpy(4 * maps), targets, **more)
    np.testing.assert_allclose(found.value, expected.value, atol=1e-6)
    assert found.image.tolist() == names * expected.measure.nunique()


def test_maps_that_show_nothing_are_nan_and_counted(x, maps):
    def metrics(again):
        return package_metrics(
            classifier(), x, maps, [1, 0, 3], percentiles=[40], explain=lambda some: again
        )

    expected = wide(metrics(maps))
    maps[0], maps[2, 3, 3] = 0.7, np.inf
    flat = maps.copy()
    found = wide(table := metrics(flat))
    assert found.loc[[0, 2]].isna().all(axis=None)
    np.testing.assert_allclose(found.loc[1], expected.loc[1], atol=1e-6)
    means = summarise_package_metrics(table).set_index("measure")
    assert (means.n == 1).all()
    assert (means.missing == 2).all()
    flat[1] = 0  # only the masked image's map shows nothing
    found = wide(metrics(flat)).loc[1]
    assert set(found.index[found.isna()]) == {"Coherency", "ARCC"}


def state(network: nn.Module) -> list:
    return [
        *(module.training for module in network.modules()),
        *(len(module._forward_hooks) for module in network.modules()),
        *((p.requires_grad, None if p.grad is None else p.grad.clone().tolist(), p.tolist())
          for p in network.parameters()),
        *(buffer.tolist() for buffer in network.buffers()),
    ]  # fmt: skip


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_as_it_was(fails, x, maps):
    network = classifier().train()
    network[2].eval()
    network(x).sum().backward()
    network[0].bias.requires_grad_(False)
    gradient, before = network[5].weight.grad, state(network)

    def explain(some):
        assert not network[1].training
        network.requires_grad_(True)
        network(some).sum().backward()
        network.train()
        assert not fails, "as it is asked to"
        return maps

    scored = classifier().train(False)
    scored.load_state_dict(network.state_dict())
    given = (x, maps, [1, 0, 3])
    expected = package_metrics(scored, *given, percentiles=60)
    if fails:
        with pytest.raises(AssertionError, match="as it is asked to"):
            package_metrics(network, *given, percentiles=60, explain=explain)
    else:
        found = package_metrics(network, *given, percentiles=60, explain=explain)
        found = found[~found.measure.isin(["Coherency", "ARCC"])]
        np.testing.assert_allclose(found.value, expected.value, atol=1e-6)
    assert state(network) == before
    assert network[5].weight.grad is gradient


class Detector(nn.Module):
    """As torchvision's: a list with a dictionary per image."""

    def forward(self, x):
        return [{"scores": image.mean(dim=(1, 2))} for image in x]


class Two(nn.Module):
    def forward(self, x):
        return {"one": x, "other": x}


def test_a_network_may_return_a_list_of_one_entry_per_image(x, maps):
    targets = [lambda out: out["scores"].max()] * IMAGES
    found = wide(package_metrics(Detector(), x, maps, targets, percentiles=()))
    expected = [(one * m).mean((1, 2)).max() - one.mean((1, 2)).max()
                for one, m in zip(x.numpy(), maps, strict=True)]  # fmt: skip
    np.testing.assert_allclose(found["CamMultImageConfidenceChange"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"targets": [1, 0]}, "need one target per image: 3 images, 2 targets"),
        ({"targets": 1}, "must be a list with one target per image"),
        ({"targets": [1, 0, 4]}, "target 4 is not a class: classes are 0 … 3"),
        ({"targets": [1, 0, -1]}, "target -1 is not a class"),
        ({"targets": [1, 0, 2.5]}, "a function of the network's output or a class's number"),
        ({"targets": [1, 0, lambda out: out]}, r"image 2 returned 4 numbers, of shape \(4,\)"),
        ({"network": block(nn.Conv2d(6, 4, 3))}, r"one score per class .* returned \(4, 18, 18\)"),
        ({"network": Two()}, "the network returned dict, .* wrap it in a module"),
        ({"network": nn.Flatten(0)}, "3600 outputs for 3 images"),
        ({"maps": np.ones((3, 9, 9))}, r"\(3, 20, 20\), got \(3, 9, 9\)"),
        ({"x": torch.ones(3, 3, 20, 20, dtype=torch.uint8)}, "floating-point numbers"),
        ({"percentiles": [20, 0]}, "above 0 and at most 100, or 'auto'; got 0"),
        ({"percentiles": "otsu"}, "got 'otsu'"),
        ({"noise": torch.ones(3)}, r"noise must have the shape of the images"),
        ({"image_ids": ["a"]}, "image_ids must have one name per image: 3 images, 1 names"),
        ({"explain": lambda some: some}, r"the maps that `explain` returns must be .* \(3, 20, 20\)"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_said(change, why, x, maps):
    words = {"network": classifier(), "x": x, "maps": maps, "targets": [1, 0, 3], "percentiles": 50}
    with pytest.raises(ValueError, match=why):
        package_metrics(**words | change)
