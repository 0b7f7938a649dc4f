"""Reading protocols: each mend against a literal definition, alone and together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import convolve2d
from scipy.stats import rankdata, spearmanr
from stand_ins import EIGHT
from torch.nn import functional as F

from lib.base.geometry import WHOLE, Preprocessing
from lib.base.tables import UnknownName
from lib.networks.backbones import BACKBONES
from lib.networks.preprocessing import resize_images
from lib.people.human_maps import human_maps, mended_human_maps, published_human_maps, resize
from lib.people.protocols import DEFAULT_PROTOCOLS, MENDS, PROTOCOLS
from lib.scores.spearman import rank_maps, spearman_per_image
from lib.scores.study_scores import score_study
from lib.study.study import Study

GEOMETRIES = {key: row.preprocessing for key, row in BACKBONES.items()}


@pytest.fixture
def stored() -> torch.Tensor:
    rng = np.random.default_rng(0)
    maps = np.zeros((3, 256, 256), np.uint8)
    for index, (row, column) in enumerate([(0, 0), (100, 60), (180, 200)]):
        maps[index, row : row + 50, column : column + 40] = rng.integers(50, 255, (50, 40))
    return torch.from_numpy(maps)


def test_the_tables_hold_the_published_the_corrected_and_each_mend_alone():
    assert PROTOCOLS["published"].mends == frozenset()
    assert PROTOCOLS["corrected"].mends == frozenset(MENDS)
    for mend in MENDS:
        assert PROTOCOLS[f"published+{mend}"].mends == {mend}
    settling = [key for key, protocol in PROTOCOLS.items() if protocol.settles]
    assert settling == ["corrected", "gaze", "published+ties"]
    assert Study.from_profile("demo").choices.protocols == DEFAULT_PROTOCOLS
    with pytest.raises(UnknownName, match=r"Did you mean 'published\+blur'"):
        Study.from_profile("demo", protocols=["published+blurr"])


def test_gaze_is_not_blurred_a_second_time(stored):
    """Bilinear to 224 by half-pixel centres, as torch does it; then the crop of the network."""
    plain = F.interpolate(stored[:, None].float(), size=(224, 224), mode="bilinear")[:, 0]
    found = human_maps(stored, PROTOCOLS["gaze"], WHOLE)
    assert (found - plain).abs().max() < 1e-3
    geometry = Preprocessing(resize=256, crop=224)
    large = F.interpolate(plain[:, None], size=(256, 256), mode="bilinear")[:, :, 16:240, 16:240]
    assert (human_maps(stored, PROTOCOLS["gaze"], geometry) - large[:, 0]).abs().max() < 1e-3


# --- images ----------------------------------------------------------------------------


def test_the_published_reader_stops_before_the_last_shard_and_drops_the_partial_batch():
    stored = 17 * 1024 + 500
    assert PROTOCOLS["published"].scored(stored, unread=500) == 17 * 1024
    assert PROTOCOLS["published"].scored(70) == 64
    assert PROTOCOLS["corrected"].scored(stored, unread=500) == 17 * 1024 + 500
    assert PROTOCOLS["published+blur"].scored(stored, unread=500) == 17 * 1024
    assert PROTOCOLS["published+images"].scored(70) == 70


# --- blur ----------------------------------------------------------------------------------


def test_the_mended_blur_is_a_literal_normalised_gaussian(stored):
    at = np.arange(-5, 6)
    kernel = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / 200.0)
    small = resize(stored, 64).numpy().astype(np.float64)
    expected = [
        convolve2d(m, kernel, mode="same") / convolve2d(np.ones_like(m), kernel, mode="same")
        for m in small
    ]
    expected = resize(torch.tensor(np.array(expected)).float(), 224)
    torch.testing.assert_close(mended_human_maps(stored), expected, atol=1e-3, rtol=0)


def test_the_mended_blur_dims_no_border_and_prefers_no_side(stored):
    flat = torch.full((1, 256, 256), 200, dtype=torch.uint8)
    torch.testing.assert_close(mended_human_maps(flat), torch.full((1, 224, 224), 200.0))
    assert published_human_maps(flat)[0, 0, 0] < 80  # the defect that is mended
    for dims in ((1,), (2,)):
        flipped = mended_human_maps(stored.flip(dims))
        torch.testing.assert_close(flipped, mended_human_maps(stored).flip(dims), atol=1e-3, rtol=0)


# --- crop ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", EIGHT)
def test_the_cropped_map_is_in_register_with_the_cropped_image(key):
    """One pattern, once as the image and once as the human map: the same place after cropping."""
    geometry = GEOMETRIES[key]
    rows, columns = np.mgrid[:256, :256]
    blob = 255 * np.exp(-((rows - 90) ** 2 + (columns - 150) ** 2) / (2 * 12.0**2))
    stored = torch.from_numpy(blob.astype(np.uint8))[None]
    delivered = resize(stored, 224).squeeze().numpy().astype(np.uint8)
    image = resize_images(np.repeat(delivered[None, ..., None], 3, axis=-1), geometry)[0, ..., 0]
    cropped = human_maps(stored, PROTOCOLS["corrected"], geometry)[0].numpy()

    def centre(values, side):
        grid = (np.arange(side) + 0.5) * 224 / side
        return np.array([values.sum(1) @ grid, values.sum(0) @ grid]) / values.sum()

    difference = centre(cropped, 224) - centre(image.astype(float), geometry.crop)
    assert np.abs(difference).max() < 0.7
    published = human_maps(stored, PROTOCOLS["published"], geometry)[0].numpy()
    shift = np.abs(centre(published, 224) - centre(image.astype(float), geometry.crop)).max()
    if geometry.resize != geometry.crop and key.startswith("convnext"):
        assert shift > 3  # the defect that is mended


def test_what_is_not_cropped_keeps_its_map(stored):
    only_crop = PROTOCOLS["published+crop"]
    for key in ("caformer_s18", "fastvit_sa24"):
        assert torch.equal(
            human_maps(stored, only_crop, GEOMETRIES[key]), published_human_maps(stored)
        )
    assert not torch.equal(
        human_maps(stored, only_crop, GEOMETRIES["convnext_tiny"]), published_human_maps(stored)
    )


# --- ties ------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-3, 3), st.floats(0.01, 100))
def test_settled_ranks_are_scipys_of_rounded_values(seed, shift, scale):
    rng = np.random.default_rng(seed)
    x = (rng.integers(0, 12, (2, 9, 11)) * scale + shift).astype(np.float32)
    x[:, :3] = np.nextafter(x[:, :3], np.float32(np.inf))  # plateaus that are not bit-equal
    y = rng.random((2, 9, 11)).astype(np.float32)

    def rounded(m):
        m = m.astype(np.float64)
        return np.round((m - m.min()) / ((m.max() - m.min()) or 1) * 1e5)

    ranks = rank_maps(x, settle=True)
    for i in range(2):
        expected = rankdata(rounded(x[i]).ravel())
        np.testing.assert_allclose(ranks.centred[i] + 50, expected, atol=1e-9)
    rho = spearman_per_image(x, rank_maps(y, settle=True), settle=True)
    for i in range(2):
        if np.ptp(rounded(x[i])):
            expected = spearmanr(rounded(x[i]).ravel(), rounded(y[i]).ravel()).statistic
            assert rho[i] == pytest.approx(expected, abs=1e-10)


def test_a_plateau_of_neighbouring_floats_is_one_tie_when_settled():
    x = np.full((1, 4, 4), 0.3, np.float32)
    x[0, 0] += np.arange(4, dtype=np.float32) * np.spacing(np.float32(0.3)) * 10
    x[0, 3] = 1.0
    assert len(np.unique(rank_maps(x).centred)) == 5
    assert len(np.unique(rank_maps(x, settle=True).centred)) == 2
    assert torch.isfinite(rank_maps(np.zeros((1, 4, 4), np.float32), settle=True).centred).all()


# --- one pass ----------------------------------------------------------------------------------


def test_all_protocols_in_one_pass_score_as_each_alone(tmp_path, monkeypatch):
    def scored(name, *protocols):
        monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path / name)
        choices = dict(models=["convnext_tiny"], methods=["grad_cam"], protocols=protocols)
        return score_study(Study.from_profile("demo", limit=8, **choices))

    together = scored("together", *PROTOCOLS)
    assert len(together) == 2 * 8 * len(PROTOCOLS)
    means = together.groupby("protocol").rho.mean()
    for key in PROTOCOLS:
        alone = scored(key, key).reset_index(drop=True)
        part = together[together.protocol == key].reset_index(drop=True)
        pd.testing.assert_frame_equal(part, alone)
    for mend in ("crop", "blur"):
        assert means[f"published+{mend}"] != means["published"]
    assert means["published+images"] == means["published"]  # the same eight images
    assert abs(means["published+ties"] - means["published"]) < 0.01


@pytest.mark.parametrize("value", [0, 7, 255, 0.1, 1 / 3])
def test_a_human_map_with_one_value_orders_nothing_when_corrected(value):
    stored = torch.full((1, 256, 256), value)
    for geometry in GEOMETRIES.values():
        corrected = PROTOCOLS["corrected"]
        maps = human_maps(stored, corrected, geometry)
        assert rank_maps(maps, corrected.settles).norm.item() == 0
