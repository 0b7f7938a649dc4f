"""Faithfulness measures against their formulas, and against pytorch-grad-cam's ROAD."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_grad_cam.metrics.road import (
    NoisyLinearImputer,
    ROADLeastRelevantFirst,
    ROADMostRelevantFirst,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from stand_ins import mini

from lib.analyses.faithfulness import (
    ROAD_SHARES,
    STEPS,
    average_drop,
    curves,
    ends_of,
    imputed,
    in_order,
    increase_in_confidence,
    kept_share,
    measured,
    road,
    road_noise,
    score_faithfulness,
)
from lib.maps.forward import head_pass
from lib.maps.methods import METHODS, PUBLISHED_METHODS
from lib.networks.backbones import BACKBONES
from lib.study.study import Study


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_average_drop_and_increase_are_their_formulas(pairs):
    whole, masked = (torch.tensor(v, dtype=torch.float64) for v in zip(*pairs, strict=True))
    drops = [max(0.0, y - o) / y for y, o in pairs]
    assert average_drop(whole, masked).mean().item() == pytest.approx(100 * np.mean(drops))
    rises = [o > y for y, o in pairs]
    assert increase_in_confidence(whole, masked).mean().item() == pytest.approx(
        100 * np.mean(rises)
    )


def ordered(masks: torch.Tensor) -> torch.Tensor:
    lots = torch.stack([torch.randperm(masks[0].numel()) for _ in masks])
    return in_order(masks, lots)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.15])
def test_kept_share_keeps_the_highest_as_they_are(share):
    masks = torch.rand(3, 20, 20)
    kept = kept_share(masks, ordered(masks), share)
    for mask, found in zip(masks.flatten(1), kept.flatten(1), strict=True):
        assert (found > 0).sum() == round(share * 400)
        border = mask.sort(descending=True).values[round(share * 400) - 1]
        assert torch.equal(found[mask >= border], mask[mask >= border])


def test_kept_share_of_a_plateau_keeps_no_more_than_its_share():
    masks = torch.ones(1, 10, 10)
    kept = kept_share(masks, ordered(masks), 0.15)
    assert (kept > 0).sum() == 15
    assert (kept[0, :2] > 0).sum() < 10  # drawn by lot, not from the top down


def test_order_is_by_value_and_then_by_lot():
    masks = torch.randint(0, 4, (2, 6, 6)).float()
    order = ordered(masks)
    for mask, places in zip(masks.flatten(1), order, strict=True):
        assert sorted(places.tolist()) == list(range(36))
        assert torch.equal(mask[places], mask.sort(descending=True).values)
    assert not torch.equal(order[0], masks[0].flatten().argsort(descending=True, stable=True))


def area(images: torch.Tensor) -> torch.Tensor:
    """A "network" sure of what is bright in the upper half."""
    return images[:, :, :8].mean(dim=(1, 2, 3))


def test_curves_are_those_of_a_known_network():
    images = torch.ones(1, 3, 16, 16)
    images[:, :, 8:] = 0.5
    upper = torch.zeros(1, 16, 16)
    upper[:, :8] = torch.rand(8, 16) + 1
    mean = torch.zeros(3, 1, 1)
    good = curves(area, images, ordered(upper), mean)
    bad = curves(area, images, ordered(2 - upper), mean)
    # Every pixel that is deleted first counts: sure no more from half of them on.
    points = [max(0.0, 1 - 2 * step / STEPS) for step in range(STEPS + 1)]
    assert good["deletion"].item() == pytest.approx(np.trapezoid(points, dx=1 / STEPS))
    assert good["deletion"] < bad["deletion"]
    assert good["insertion"] > bad["insertion"]


def like_the_package(image, removed, draws, monkeypatch):
    """The package's imputer on one normalised image, its noise replaced by these draws."""
    monkeypatch.setattr(torch, "randn_like", lambda _: draws.flatten(1)[:, removed.flatten()])
    return NoisyLinearImputer()(image, (~removed).float())


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize("size", [(24, 24), (64, 41)])
def test_imputing_is_the_packages_on_the_normalised_image(size, monkeypatch):
    rng = np.random.default_rng(0)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images, draws = (torch.tensor(rng.random((3, 3, *size)), dtype=torch.float32) for _ in "ab")
    removed = torch.tensor(rng.random((3, *size)) < 0.6)
    removed[0, :6, :6] = True  # up to a corner
    removed[1], removed[1, 9, 9] = True, False  # one pixel is left
    removed[2] = True  # nothing is
    middle, spread = (torch.tensor(v)[:, None, None] for v in (mean, std))
    x = (images - middle) / spread
    ours = imputed(x, removed, 0.01 * draws)
    in_0_1 = imputed(images, removed, road_noise(draws, std))
    for number in range(3):
        expected = like_the_package(x[number], removed[number], draws[number], monkeypatch)
        np.testing.assert_allclose(ours[number], expected, atol=1e-5)
        if not removed[number].all():  # 0 is another colour in 0-1
            np.testing.assert_allclose((in_0_1[number] - middle) / spread, expected, atol=1e-5)


def test_roads_noise_has_the_unit_that_is_named():
    draws = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(road_noise(draws, (0.5, 0.25, 2.0), "image"), 0.01 * draws)
    normalised = road_noise(draws, (0.5, 0.25, 2.0))
    torch.testing.assert_close(normalised[:, 1], 0.0025 * draws[:, 1])
    torch.testing.assert_close(normalised[:, 2], 0.02 * draws[:, 2])
    with pytest.raises(ValueError, match="unknown unit of ROAD's noise 'normal'. Did you mean"):
        road_noise(draws, (1, 1, 1), "normal")


@pytest.mark.parametrize("unit", ["normalised", "image"])
def test_a_models_noise_is_of_its_own_normalisation(unit, monkeypatch):
    model, added = mini("convnext_tiny"), []
    monkeypatch.setattr(
        "lib.analyses.faithfulness.removal.imputed", lambda p, _, noise: added.append(noise) or p
    )
    list(measured(model, [METHODS["grad_cam"]], torch.rand(2, 3, 64, 64), [4, 9], "ab", True, unit))
    std = torch.tensor(model.backbone.preprocessing.std if unit == "normalised" else (1, 1, 1))
    assert len(added) == 2 * len(ROAD_SHARES)
    assert all(torch.equal(noise, added[0]) for noise in added)
    torch.testing.assert_close(added[0].std(dim=(0, 2, 3)), 0.01 * std, rtol=0.04, atol=0)


def test_imputing_mends_what_can_be_known():
    images = torch.full((1, 3, 16, 16), 0.4)
    removed = torch.zeros(1, 16, 16, dtype=torch.bool)
    removed[:, 3:12, 2:9] = True
    torch.testing.assert_close(
        imputed(images, removed, torch.zeros_like(images)), images, atol=1e-3, rtol=0
    )
    images[:, 0] = 0  # a channel that is solved before the others
    images[:, 1] = torch.rand(16, 16)
    found = imputed(images, removed, torch.zeros_like(images))
    assert found.isfinite().all()
    assert torch.equal(found[:, 0], images[:, 0])
    with pytest.raises(ValueError, match="not finite"):
        imputed(images.fill_(torch.nan), removed, torch.zeros_like(images))


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
def test_road_is_the_packages_where_no_pixels_tie():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 5, stride=3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(3)
    )  # fmt: skip
    images = 3 * torch.randn(2, 3, 20, 20)
    masks = torch.randperm(800).view(2, 20, 20) / 800
    targets = [ClassifierOutputSoftmaxTarget(c) for c in (2, 0)]

    @torch.no_grad()
    def probability(some):
        return network(some).softmax(dim=1)[[0, 1], [2, 0]]

    found = road(probability, images, ordered(masks), torch.zeros_like(images))
    theirs = {}
    for name, kind in (
        ("road_morf", ROADMostRelevantFirst), ("road_lerf", ROADLeastRelevantFirst)
    ):  # fmt: skip
        # Their percentile is the share that is kept; their value the change, not what is left.
        without_noise = [kind(percentile) for percentile in (80, 50, 20)]
        for metric in without_noise:
            metric.perturbation.imputer.noise = 0
        changes = [m(images, masks.numpy(), targets, network) for m in without_noise]
        theirs[name] = np.mean(changes, axis=0) + probability(images).numpy()
        np.testing.assert_allclose(found[name], theirs[name], atol=1e-5)
    combined = (theirs["road_lerf"] - theirs["road_morf"]) / 2
    np.testing.assert_allclose(found["road_combined"], combined, atol=1e-5)
    assert np.abs(combined).min() > 1e-3


def test_a_studys_faithfulness_from_scratch():
    study = Study.from_profile("demo", ["convnext_tiny"])
    backbone = BACKBONES["convnext_tiny"]
    methods = [METHODS[key] for key in PUBLISHED_METHODS]
    table = score_faithfulness(study, [backbone], methods, 2, with_curves=False)
    assert len(table) == 2 * 2 * 2 * 7
    more = score_faithfulness(study, [backbone], methods[:1], 1, with_curves=True)
    assert set(more.measure) == {
        "average_drop_100%", "increase_100%", "average_drop_50%", "increase_50%",
        "average_drop_15%", "increase_15%", "let_through", "deletion", "insertion", "road_morf", "road_lerf", "road_combined",
    }  # fmt: skip
    for measure, rows in pd.concat([table, more]).groupby("measure"):
        assert rows.value.between(*ends_of(measure)).all()
    by = ["dcls", "method", "image_id", "measure"]
    both = more.merge(table, on=by)
    assert len(both) == 2 * 7
    np.testing.assert_allclose(both.value_x, both.value_y, atol=1e-4)

    # Average drop at 100 %, step by step.
    model = study.networks.load_model("convnext_tiny", False).folded()
    batch = next(study.clickme(limit=2).batches(2))
    x = model.prepare(batch.images)
    with torch.no_grad():
        whole = model(x).softmax(dim=1)
    predicted = whole.argmax(dim=1)
    passed = head_pass(model, x, predicted)
    small = METHODS["grad_cam"].small_map(passed.features, passed.gradient)
    assert (small.amax(dim=(1, 2)) > 0).all()
    low, high = small.amin(dim=(1, 2), keepdim=True), small.amax(dim=(1, 2), keepdim=True)
    masks = F.interpolate(((small - low) / (high - low))[:, None], x.shape[-2:], mode="bilinear")[
        :, 0
    ]
    mean, std = (torch.tensor(v)[:, None, None] for v in (
        backbone.preprocessing.mean, backbone.preprocessing.std))  # fmt: skip
    images = x * std + mean
    with torch.no_grad():
        left = model((images * masks[:, None] - mean) / std).softmax(dim=1)
    for image in range(2):
        y, o = whole[image, predicted[image]].item(), left[image, predicted[image]].item()
        mine = table[(table.measure == "average_drop_100%") & (table.method == "grad_cam")
                     & ~table.dcls].value.iloc[image]  # fmt: skip
        assert mine == pytest.approx(100 * max(0, y - o) / y, abs=1e-2)
