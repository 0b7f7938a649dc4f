"""The embedded example: made from seeds, learnable, and about something off-centre."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from stand_ins import EACH_VARIANT

from lib.demo.__main__ import HELD_OUT, SEED, TRAINING, as_record
from lib.demo.players import human_map
from lib.demo.scenes import CLASSES, EMPTY, make_scene
from lib.demo.training import speed_up_training, train
from lib.maps.cam import cam_maps
from lib.maps.methods import PUBLISHED_METHODS
from lib.networks.backbones import BACKBONES
from lib.networks.building import build_network
from lib.networks.loading import load_model
from lib.people.clickme import ClickMe
from lib.people.stored.shards import Shard, read_record
from lib.scores.spearman import rank_maps, spearman_per_image
from lib.study.study import Study


@pytest.fixture(scope="module")
def batches():
    clickme = ClickMe(Study.from_profile("demo").inputs.image_paths(), classes=len(CLASSES))
    return [(batch, rank_maps(batch.human_maps)) for batch in clickme.batches(32)]


def centred_gaussian_score(batches) -> float:
    """Best of several widths, by scipy."""
    y, x = np.mgrid[:224, :224] - 111.5
    maps = np.concatenate([b.human_maps.numpy() for b, _ in batches])[:64]
    return max(
        np.mean([spearmanr(blob.ravel(), m.ravel()).statistic for m in maps])
        for blob in (np.exp(-(x**2 + y**2) / (2 * width**2)) for width in (30, 60, 90))
    )


def test_shard_is_made_from_its_seeds():
    path = Study.from_profile("demo").inputs.image_paths()[0]
    with path.open("rb") as file:
        for address in Shard(path).addresses[::60]:
            scene = make_scene(SEED, HELD_OUT, address.index)
            assert read_record(file, address) == as_record(scene, address.index)


def test_the_players_that_are_stored_make_the_stored_human_maps():
    shard = Shard(Study.from_profile("demo").inputs.image_paths()[0])
    for index, stored in zip((0, 119, 239), shard.read((0, 119, 239)), strict=True):
        players = shard.observer_maps(index)
        assert 5 <= len(players) <= 9
        expected = human_map(make_scene(SEED, HELD_OUT, index), SEED, index)
        share = players.mean(axis=0, dtype=np.float64)
        # Kept at 64 pixels a side: of every 4 x 4 the third of the third row.
        np.testing.assert_array_equal(np.round(255 * share[::4, ::4]), expected[2::4, 2::4])
        assert (
            np.abs(stored.heatmap[2::4, 2::4].astype(int) - expected[2::4, 2::4]).mean() < 2
        )  # but for JPEG


def test_shard_holds_at_least_200_images_of_ten_or_more_classes(batches):
    labels = torch.cat([b.labels for b, _ in batches])
    assert len(labels) >= 200
    assert len(labels.unique()) >= 10
    assert (labels.bincount() >= 15).all()


def test_scenes_repeat_by_number_and_differ_between_splits():
    one, again = make_scene(1, HELD_OUT, 5), make_scene(1, HELD_OUT, 5)
    assert np.array_equal(one.image, again.image)
    assert not np.array_equal(one.image, make_scene(1, TRAINING, 5).image)
    assert one.label == 5


def test_an_empty_scene_shows_nothing_telling():
    scene = make_scene(1, TRAINING, 3, empty=True)
    assert scene.label == EMPTY
    assert not scene.diagnosticity.any()


def test_simulated_people_look_at_telling_parts_and_not_merely_the_mask():
    shares, inside = [], []
    for i in range(24):
        scene = make_scene(2, HELD_OUT, i)
        people = human_map(scene, 2, i) / 255.0
        creature, head = scene.diagnosticity > 0, scene.diagnosticity > 0.9
        shares.append(people[head].mean() / people[creature].mean())
        inside.append(people[creature].sum() / people.sum())
        assert len(np.unique(people)) > 3  # several players, not one mask
    assert np.mean(shares) > 1.3
    assert 0.4 < np.mean(inside) < 0.95


@pytest.mark.parametrize(("key", "dcls"), EACH_VARIANT)
def test_every_miniature_is_nine_tenths_right_and_plain_ones_agree_with_people(
    key, dcls, batches, gaussian
):
    model = load_model(key, dcls, weights="demo").for_inference()
    hits, scores = [], {name: [] for name in PUBLISHED_METHODS}
    for batch, people in batches[:4]:
        x = model.prepare(batch.images)
        with torch.no_grad():
            hits.append(model(x).argmax(1) == batch.labels)
        for name, maps in cam_maps(model, x, batch.labels).items():
            scores[name].append(spearman_per_image(maps, people))
    assert torch.cat(hits).float().mean() >= 0.9
    if not dcls:
        for name, rho in scores.items():
            assert torch.cat(rho).nanmean() > gaussian + 0.05, name


@pytest.fixture(scope="module")
def gaussian(batches):
    return centred_gaussian_score(batches)


def test_a_centred_gaussian_predicts_the_human_maps_poorly(gaussian):
    assert gaussian < 0.5


# --- training ---------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["resnet50", "convnext_tiny", "caformer_s18", "fastvit_sa24"])
def test_sped_up_training_computes_the_same_gradients(key):
    torch.manual_seed(0)
    # In float64: biases before a normalisation have no gradient but rounding noise.
    network = build_network(BACKBONES[key], True, mini=True, num_classes=4).train().double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)

    def gradients():
        network.zero_grad()
        network(x).square().sum().backward()
        return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}

    state = {k: v.clone() for k, v in network.state_dict().items()}
    expected = gradients()
    network.load_state_dict(state)
    speed_up_training(network)
    for name, gradient in gradients().items():
        scale = expected[name].abs().max().clamp(min=1e-6)
        torch.testing.assert_close(gradient / scale, expected[name] / scale, atol=1e-6, rtol=0)


def test_training_is_repeatable_and_leaves_an_ordinary_network(monkeypatch):
    from dataclasses import replace

    from lib.demo import training

    short = replace(training.RECIPES["convnext"], steps=3, batch=4)
    monkeypatch.setitem(training.RECIPES, "convnext", short)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 224, 224, 3)).astype(np.uint8)
    labels, shown = np.array([0, 1, 2, 0, 1, 3]), np.zeros((6, 64, 64), np.float32)
    shown[:5, 20:40, 20:40] = 1
    runs = [
        train(BACKBONES["convnext_tiny"], True, images, labels, shown, num_classes=3, seed=1)
        for _ in range(2)
    ]
    first, second = (run.state_dict() for run in runs)
    assert all(torch.equal(v, second[k]) for k, v in first.items())
    assert not any("_conv_forward" in vars(m) for m in runs[0].modules())
