"""Other measures of agreement against literal definitions and scikit-learn."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import roc_auc_score
from stand_ins import settled, write_plateaus

from lib.base.geometry import WHOLE
from lib.people.clickme import ClickMe
from lib.people.human_maps import human_maps
from lib.people.protocols import PROTOCOLS
from lib.scores.measures import MEASURES, Compared, score_measures, summarise_measures
from lib.study.study import Study


def pair(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ours, theirs = rng.random((2, 10, 10))
    return (np.round(ours, 1) if ties else ours), theirs


def of(key: str, ours: np.ndarray, theirs: np.ndarray) -> float:
    return MEASURES[key].of(*(Compared(torch.tensor(m)[None]) for m in (ours, theirs))).item()


def top(maps: np.ndarray) -> np.ndarray:
    return maps.ravel() >= np.sort(maps.ravel())[-10]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_measures_are_their_definitions(seed, ties):
    ours, theirs = pair(seed, ties)
    a, b = ours.ravel(), theirs.ravel()
    salient = top(theirs)
    assert of("spearman", ours, theirs) == pytest.approx(spearmanr(a, b).statistic)
    assert of("cc", ours, theirs) == pytest.approx(pearsonr(a, b).statistic)
    assert of("auc", ours, theirs) == pytest.approx(roc_auc_score(salient, a))
    assert of("nss", ours, theirs) == pytest.approx(((a - a.mean()) / a.std())[salient].mean())
    p, q = ((m - m.min()) / (m - m.min()).sum() for m in (a, b))
    assert of("sim", ours, theirs) == pytest.approx(np.minimum(p, q).sum())
    p, q, eps = a / a.sum(), b / b.sum(), np.finfo(float).eps
    assert of("kl", ours, theirs) == pytest.approx((q * np.log(eps + q / (p + eps))).sum())
    assert of("pointing", ours, theirs) == pytest.approx(salient[a == a.max()].mean())
    if not ties:
        both, either = (salient & top(ours)).sum(), (salient | top(ours)).sum()
        assert of("dice", ours, theirs) == pytest.approx(2 * both / 20)
        assert of("iou", ours, theirs) == pytest.approx(both / either)


def test_tied_pixels_share_what_is_left_of_the_highest_tenth():
    maps = torch.zeros(1, 10, 10)
    maps[0, 0, :4] = 1
    share = Compared(maps).top
    assert share.sum() == pytest.approx(10)
    assert (share[0, :4] == 1).all()
    np.testing.assert_allclose(share[0, 4:], 6 / 96)
    # Drawing lots among the tied ones gives the same overlap on average.
    human = torch.arange(100.0).view(1, 10, 10)
    rng = np.random.default_rng(0)
    drawn = [np.isin(np.arange(90, 100), rng.choice(np.arange(4, 100), 6, False)).sum()
             for _ in range(4000)]  # fmt: skip
    assert of("dice", maps[0].numpy(), human[0].numpy()) == pytest.approx(
        np.mean(drawn) / 10, abs=0.01
    )


def test_equal_maps_agree_entirely_and_constant_ones_not_at_all():
    _, theirs = pair(0, False)
    best = {"spearman": 1, "cc": 1, "dice": 1, "iou": 1, "sim": 1, "kl": 0, "auc": 1, "pointing": 1}
    for key, value in best.items():
        assert of(key, theirs, theirs) == pytest.approx(value, abs=1e-9)
    constant = np.full((10, 10), 0.3)
    assert np.isnan([of(key, constant, theirs) for key in ("spearman", "cc", "nss", "sim")]).all()
    assert of("auc", constant, theirs) == pytest.approx(0.5)
    assert of("dice", constant, theirs) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("protocols", "stored", "scored"), [(["published", "corrected"], 33, 32), (["corrected"], 9, 9)]
)
def test_measures_are_the_first_protocols_where_both_maps_order_something(
    protocols, stored, scored, tmp_path, monkeypatch
):
    """One human map is constant, and one of the network's."""
    folder = write_plateaus(tmp_path / "people", stored)
    np.save(folder / "05.npy", np.zeros((64, 64)))
    rng = np.random.default_rng(0)
    ours = rng.integers(0, 3, (stored, 224, 224)) + 1e-6 * rng.random((stored, 224, 224))
    ours = ours.astype(np.float32)
    ours[7] = 0.5
    batches = cycle(torch.from_numpy(ours).split(16))  # without DCLS, and with
    monkeypatch.setattr("lib.scores.measures.cam_maps", lambda *_: {"grad_cam": next(batches)})
    monkeypatch.setattr("lib.scores.measures.MEASURES", {"spearman": MEASURES["spearman"]})
    study = Study.from_profile("demo", ["caformer_s18"], ["grad_cam"], images=str(folder),
                               protocols=protocols)  # fmt: skip
    found = score_measures(study)
    found = found[found.dcls].set_index("image_id").value
    assert found.index.tolist() == [f"{n:02}.png" for n in range(scored) if n not in (5, 7)]
    maps = next(ClickMe([folder], protocols).batches(stored)).stored_maps
    people = human_maps(maps, PROTOCOLS[protocols[0]], WHOLE).numpy()
    for image in (0, 8):
        pair = [ours[image].ravel(), people[image].ravel()]
        if protocols[0] == "corrected":
            pair = [settled(values) for values in pair]
        assert found[f"{image:02}.png"] == pytest.approx(spearmanr(*pair).statistic, abs=1e-9)


def test_ranks_among_models_mind_which_way_is_better():
    values = pd.DataFrame(
        [
            {"backbone": backbone, "dcls": False, "method": "grad_cam", "measure": measure,
             "image_id": image, "value": value + 0.01 * image}
            for measure in ("cc", "kl")
            for backbone, value in (("resnet50", 0.2), ("caformer_s18", 0.4))
            for image in range(5)
        ]
    )  # fmt: skip
    ranks = summarise_measures(values).set_index(["measure", "backbone"])["rank"]
    assert ranks["cc", "caformer_s18"] == ranks["kl", "resnet50"] == 1
    assert ranks["cc", "resnet50"] == ranks["kl", "caformer_s18"] == 2
