"""Faithfulness measures against their formulas, and against pytorch-grad-cam's ROAD."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, neighbors_weights
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve

from lib.analyses.faithfulness import (
    STEPS,
    average_drop,
    curves,
    imputed,
    in_order,
    increase_in_confidence,
    kept_share,
    road,
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


def area(pictures: torch.Tensor) -> torch.Tensor:
    """A "network" sure of what is bright in the upper half."""
    return pictures[:, :, :8].mean(dim=(1, 2, 3))


def test_curves_are_those_of_a_known_network():
    pictures = torch.ones(1, 3, 16, 16)
    pictures[:, :, 8:] = 0.5
    upper = torch.zeros(1, 16, 16)
    upper[:, :8] = torch.rand(8, 16) + 1
    mean = torch.zeros(3, 1, 1)
    good = curves(area, pictures, ordered(upper), mean)
    bad = curves(area, pictures, ordered(2 - upper), mean)
    # Every pixel that is deleted first counts: sure no more from half of them on.
    points = [max(0.0, 1 - 2 * step / STEPS) for step in range(STEPS + 1)]
    assert good["deletion"].item() == pytest.approx(np.trapezoid(points, dx=1 / STEPS))
    assert good["deletion"] < bad["deletion"]
    assert good["insertion"] > bad["insertion"]


def test_imputing_is_the_published_imputers():
    rng = np.random.default_rng(0)
    pictures = torch.tensor(rng.random((2, 3, 24, 24)), dtype=torch.float32)
    removed = torch.tensor(rng.random((2, 24, 24)) < 0.6)
    removed[0, :6, :6] = True  # up to a corner
    ours = imputed(pictures, removed, torch.zeros_like(pictures))
    for number in range(2):
        # Its __call__ fails with this numpy; what it solves does not.
        kept = (~removed[number]).float().numpy()
        matrix, right = NoisyLinearImputer.setup_sparse_system(
            kept, pictures[number].numpy(), neighbors_weights
        )
        expected = pictures[number].flatten(1).numpy().copy()
        expected[:, kept.ravel() == 0] = spsolve(csc_matrix(matrix), right).T
        np.testing.assert_allclose(ours[number].flatten(1), expected, atol=1e-3)
    noisy = imputed(pictures, removed, torch.ones_like(pictures))
    torch.testing.assert_close(noisy - ours, removed[:, None].float().expand_as(ours))


def test_imputing_mends_what_can_be_known():
    pictures = torch.full((1, 3, 16, 16), 0.4)
    removed = torch.zeros(1, 16, 16, dtype=torch.bool)
    removed[:, 3:12, 2:9] = True
    torch.testing.assert_close(
        imputed(pictures, removed, torch.zeros_like(pictures)), pictures, atol=1e-3, rtol=0
    )
    pictures[:, 0] = 0  # a channel that is solved before the others
    pictures[:, 1] = torch.rand(16, 16)
    found = imputed(pictures, removed, torch.zeros_like(pictures))
    assert found.isfinite().all()
    assert torch.equal(found[:, 0], pictures[:, 0])
    everything = torch.ones_like(removed)
    assert imputed(pictures, everything, torch.zeros_like(pictures)).isfinite().all()


def test_road_prefers_the_map_that_shows_the_evidence():
    torch.manual_seed(0)
    pictures = torch.rand(2, 3, 16, 16) * 0.1
    pictures[:, :, 2:8, 2:8] += 0.9
    good, noise = pictures.mean(dim=1), torch.zeros_like(pictures)

    def bright(some):
        return some.amax(dim=(1, 2, 3))

    found, other = (road(bright, pictures, ordered(m), noise) for m in (good, -good))
    assert (found["road_morf"] < other["road_morf"]).all()
    assert (found["road_lerf"] > other["road_lerf"]).all()


def test_a_studys_faithfulness_from_scratch():
    study = Study.from_profile("demo", ["convnext_tiny"])
    backbone = BACKBONES["convnext_tiny"]
    methods = [METHODS[key] for key in PUBLISHED_METHODS]
    table = score_faithfulness(study, [backbone], methods, 2, with_curves=True)
    assert set(table.measure) == {
        "average_drop_100%", "increase_100%", "average_drop_50%", "increase_50%",
        "average_drop_15%", "increase_15%", "let_through", "deletion", "insertion", "road_morf", "road_lerf",
    }  # fmt: skip
    assert len(table) == 2 * 2 * 2 * 11
    assert table.value.between(0, 100).all()
    again = score_faithfulness(study, [backbone], methods[:1], 2, with_curves=True)
    first = table[table.method == "grad_cam"].reset_index(drop=True)
    np.testing.assert_allclose(again.value, first.value, atol=1e-6)

    # Average drop at 100 %, step by step.
    model = study.networks.load_model("convnext_tiny", False).folded()
    batch = next(study.clickme(limit=2).batches(2))
    x = model.prepare(batch.pictures)
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
    pictures = x * std + mean
    with torch.no_grad():
        left = model((pictures * masks[:, None] - mean) / std).softmax(dim=1)
    for image in range(2):
        y, o = whole[image, predicted[image]].item(), left[image, predicted[image]].item()
        mine = table[(table.measure == "average_drop_100%") & (table.method == "grad_cam")
                     & ~table.dcls].value.iloc[image]  # fmt: skip
        assert mine == pytest.approx(100 * max(0, y - o) / y, abs=1e-2)
