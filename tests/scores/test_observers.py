"""How well observers agree, against scipy on maps that are added up by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from lib.networks.backbones import BACKBONES
from lib.people.clickme import ClickMe
from lib.people.human_maps import human_maps
from lib.people.protocols import PROTOCOLS
from lib.scores.observers import SPLITS, people_of, score_observers, study_ceilings
from lib.study.study import Study


class Observed(ClickMe):
    """Images of which only the observers' maps matter here."""

    def __init__(self, maps: list[torch.Tensor], protocols=("published", "corrected")):
        self.protocols = PROTOCOLS.select(protocols)
        self._scored = {key: len(maps) for key in protocols}
        self._maps = maps

    def __len__(self):
        return len(self._maps)

    def observed(self):
        for place, maps in enumerate(self._maps):
            yield f"p{place}", place, maps


def blobs(count: int, seed: int) -> torch.Tensor:
    """(observer, 256, 256): a smooth map of each, around a common place."""
    rng = np.random.default_rng(seed)
    at = np.arange(256)
    centre = rng.uniform(60, 200, 2)
    maps = []
    for _ in range(count):
        y, x = centre + rng.normal(0, 25, 2)
        maps.append(np.exp(-((at[:, None] - y) ** 2 + (at - x) ** 2) / (2 * 70**2)))
    return torch.from_numpy(np.stack(maps).astype(np.float32))


def rho(ours: torch.Tensor, theirs: torch.Tensor, key: str) -> float:
    read = human_maps(torch.stack([ours, theirs]), PROTOCOLS[key], CONVNEXT)
    return spearmanr(*read.flatten(1).numpy()).statistic


CONVNEXT = BACKBONES["convnext_tiny"].preprocessing


@pytest.mark.parametrize("key", ["published", "corrected"])
def test_two_observers_are_each_others_half_and_rest(key):
    images = [blobs(2, seed) for seed in range(3)]
    found = score_observers(Observed(images, [key]), [CONVNEXT])
    expected = [rho(*maps, key) for maps in images]
    # Every second pixel of every second row is compared.
    np.testing.assert_allclose(found.split_half, expected, atol=0.005)
    np.testing.assert_allclose(found.one_against_rest, expected, atol=0.005)
    assert found.observers.tolist() == [2, 2, 2]
    assert found.half.tolist() == [1, 1, 1]


def test_each_is_compared_with_the_sum_of_the_others():
    (maps,) = images = [blobs(5, 0)]
    row = score_observers(Observed(images, ["corrected"]), [CONVNEXT]).iloc[0]
    expected = [rho(one, maps.sum(dim=0) - one, "corrected") for one in maps]
    assert row.one_against_rest == pytest.approx(np.mean(expected), abs=0.005)
    assert (row.observers, row.half) == (5, 2)


def test_halves_share_nobody():
    """Four observers, of whom two and two are alike: halves agree least where they are apart."""
    one, other = blobs(1, 1)[0], blobs(1, 2)[0]
    row = score_observers(Observed([torch.stack([one, one, other, other])]), [CONVNEXT]).iloc[0]
    apart, mixed = rho(one, other, "published"), 1.0
    shares = [(row.split_half - apart) / (mixed - apart)]
    # Of the draws each is either: one and one against other and other, or mixed on both sides.
    assert shares[0] * SPLITS == pytest.approx(round(shares[0] * SPLITS), abs=0.05)
    assert -0.01 <= shares[0] <= 1.01


def test_an_observer_who_saw_nothing_here_is_left_out_of_the_mean():
    maps = blobs(3, 3)
    maps[2] = 0.0
    row = score_observers(Observed([maps], ["corrected"]), [CONVNEXT]).iloc[0]
    expected = rho(maps[0], maps[1], "corrected")
    assert row.one_against_rest == pytest.approx(expected, abs=0.005)


def test_the_demos_ceiling_is_its_own_players_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path)
    study = Study.from_profile("demo", models=["resnet50"], limit=24)
    ceilings = study_ceilings(study)
    assert set(ceilings.by) == {("published", "whole"), ("corrected", "centre, 224 of 235")}
    for ceiling in ceilings.by.values():
        assert ceiling.origin == "estimated from observers"
        assert ceiling.images == 24
        assert 0.6 < ceiling.split_half.mean < ceiling.value < ceiling.most < 1
    monkeypatch.setattr("lib.scores.observers.score_observers", None)  # kept from before
    assert study_ceilings(study).table().equals(ceilings.table())
    assert people_of(study.changed(ceiling=0.7)).empty
