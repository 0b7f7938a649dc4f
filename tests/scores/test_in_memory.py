"""Agreement of maps in memory: scipy's Spearman, of maps brought to one size as scikit-image does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from skimage.transform import resize

from lib import agreement

RNG = np.random.default_rng(1)
OURS, THEIRS = RNG.random((3, 12, 16)), RNG.integers(0, 9, (3, 12, 16))


def rho(ours: np.ndarray, theirs: np.ndarray) -> float:
    return spearmanr(np.ravel(ours), np.ravel(theirs)).statistic


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (OURS, THEIRS),
        (OURS.astype(">f4"), THEIRS.astype(np.uint8)),
        (OURS[:, ::-1], THEIRS > 4),
        (torch.tensor(OURS).half(), torch.tensor(THEIRS).bfloat16()),
        (list(torch.tensor(OURS, requires_grad=True)), THEIRS.astype(np.int64)),
    ],
)
def test_agreement_is_scipys_for_every_real_type(ours, theirs):
    as_told = [np.asarray(x.detach().double() if isinstance(x, torch.Tensor) else x) for x in ours]
    them = theirs.double().numpy() if isinstance(theirs, torch.Tensor) else theirs
    expected = [rho(a, b) for a, b in zip(as_told, them, strict=True)]
    found = agreement(ours, theirs)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found.dtype == np.float64
    one = agreement(ours[0], theirs[0])
    assert isinstance(one, float)
    assert one == found[0]


def test_a_map_is_brought_to_its_human_maps_size():
    small, people = RNG.integers(0, 9, (6, 4)), RNG.random((24, 32))  # halves and eighths: exact
    here, there = (
        resize(one.astype(float), shape, order=1, mode="edge", anti_aliasing=False)
        for one, shape in ((small, (12, 16)), (THEIRS[1], (24, 32)))
    )
    found = agreement([small, THEIRS[1]], [THEIRS[0], people])
    np.testing.assert_allclose(found, [rho(here, THEIRS[0]), rho(there, people)], atol=1e-12)


def test_a_map_of_one_value_orders_nothing():
    maps = OURS.copy()
    maps[1] = 0.3
    assert np.isnan(agreement(maps, THEIRS)).tolist() == [False, True, False]
    assert np.isnan(agreement(np.full((3, 3), 0.1, np.float32), THEIRS[0]))
    assert np.isnan(agreement(OURS[0], np.zeros((7, 7), bool)))
    assert np.isnan(agreement([[1.0]], [[2.0]]))  # a single pixel
    assert np.isnan(agreement(OURS, np.ones((3, 1, 1)))).all()


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (OURS, THEIRS[:2], "3 of them .* and 2 of them"),
        (OURS[:1], THEIRS[0], "one map"),
        (OURS[0, 0], THEIRS[0], r"\(16,\)"),
        (OURS[None], THEIRS, r"\(1, 3, 12, 16\)"),
        ([], THEIRS, "maps is empty"),
        (OURS, THEIRS[:0], "human_maps is empty"),
        (OURS[:, :0], THEIRS, r"maps\[0\] .*\(0, 16\)"),
        (OURS, [*THEIRS[:2], np.where(THEIRS[2] > 7, np.nan, 1)], r"human_maps\[2\] has \d+ values"),
        (np.ma.masked_less(OURS, 0.5), THEIRS, "maps is masked"),
        (OURS[0], [np.ma.array(row) for row in THEIRS[0]], "human_maps is masked"),
        (OURS * 1j, THEIRS, "real numbers, but holds complex"),
        (OURS[0], [["a", "b"]], "real numbers"),
        (OURS[0], [[1, 2], [3]], "different lengths"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_named(ours, theirs, said):
    with pytest.raises(ValueError, match=said):
        agreement(ours, theirs)
