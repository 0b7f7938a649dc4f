"""Spearman against scipy, on continuous, tied, integer-valued and constant maps."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata, spearmanr

from lib.scores.spearman import (
    between_ranks,
    correlate,
    order_of_row,
    partial_correlation,
    products_of_rows,
    products_on_device,
    rank_maps,
    ranks_of_rows,
    ranks_on_device,
    spearman_per_image,
)


def scipy_scores(model_maps, human_maps) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of constant maps
        return np.array(
            [
                spearmanr(np.ravel(a), np.ravel(b)).statistic
                for a, b in zip(model_maps, human_maps, strict=True)
            ]
        )


shapes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(2, 9))
values = st.one_of(
    st.floats(-(2.0**100), 2.0**100, width=32),  # continuous, both signs
    st.sampled_from([-1.0, -0.0, 0.0, 0.3, 1.0]),  # heavily tied
    st.integers(0, 255).map(float),  # from uint8
)


@st.composite
def pairs(draw, dtype):
    shape = draw(shapes)
    return tuple(draw(arrays(dtype, shape, elements=values)) for _ in range(2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=75, deadline=None)
@given(data=st.data())
def test_spearman_equals_scipy(dtype, data):
    ours, human = data.draw(pairs(np.float32))
    result = spearman_per_image(ours.astype(dtype), human.astype(dtype)).numpy()
    np.testing.assert_allclose(result, scipy_scores(ours, human), atol=1e-10, rtol=0)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_spearman_is_unchanged_by_increasing_functions(data):
    ours, human = data.draw(pairs(np.float32))
    exact = ours.astype(np.float64)
    before = spearman_per_image(exact, human)
    after = spearman_per_image(np.arctan(exact / 1e30 * 3), human)
    # arctan may merge neighbours that differ in the last digit: compare where it did not
    same = [len(np.unique(a)) == len(np.unique(np.arctan(a / 1e30 * 3))) for a in exact]
    np.testing.assert_allclose(before[same], after[same], atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_spearman_is_symmetric_and_odd(data):
    ours, human = data.draw(pairs(np.float32))
    rho = spearman_per_image(ours, human)
    torch.testing.assert_close(rho, spearman_per_image(human, ours), equal_nan=True)
    torch.testing.assert_close(-rho, spearman_per_image(-ours, human), equal_nan=True)


@pytest.mark.parametrize("kind", ["continuous", "floored", "uint8", "sparse"])
def test_spearman_equals_scipy_at_full_size(kind):
    rng = np.random.default_rng(1)
    maps = rng.random((3, 224, 224), dtype=np.float32)
    made = {
        "continuous": maps,
        "floored": np.maximum(maps, 0.7),
        "uint8": (maps * 255).astype(np.uint8),
        "sparse": np.where(maps > 0.97, maps, 0).astype(np.float32),
    }[kind]
    human = np.maximum(rng.random((3, 224, 224), dtype=np.float32) - 0.5, 0)
    result = spearman_per_image(made, human)
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result, scipy_scores(made, human), atol=1e-10, rtol=0)


def test_spearman_of_constant_map_is_nan_and_of_the_others_is_not():
    maps = torch.rand(3, 8, 8)
    maps[1] = 0.25
    rho = spearman_per_image(maps, torch.rand(3, 8, 8))
    assert rho.isnan().tolist() == [False, True, False]
    assert spearman_per_image(torch.rand(1, 8, 8), torch.zeros(1, 8, 8)).isnan().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_spearman_of_a_map_with_a_non_finite_value_is_nan(bad):
    maps, human = torch.rand(2, 8, 8), torch.rand(2, 8, 8)
    maps[0, 3, 3] = bad
    assert spearman_per_image(maps, human).isnan().tolist() == [True, False]
    assert spearman_per_image(human, maps).isnan().tolist() == [True, False]


def test_signed_zeros_are_tied():
    maps = torch.tensor([[[0.0, -0.0, 1.0, 2.0]]])
    human = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    np.testing.assert_allclose(spearman_per_image(maps, human), scipy_scores(maps, human))


def test_ranks_can_be_computed_once_and_reused():
    human = torch.rand(4, 16, 16).round(decimals=1)
    ranks = rank_maps(human)
    for maps in (torch.rand(4, 16, 16), torch.randn(4, 16, 16).double()):
        assert torch.equal(spearman_per_image(maps, ranks), spearman_per_image(maps, human))


def test_ranks_equal_scipys_average_ranks():
    maps = np.random.default_rng(0).integers(0, 9, (2, 6, 7)).astype(np.float32)
    expected = np.stack([rankdata(m.ravel()) for m in maps])
    expected -= expected.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(rank_maps(maps).centred, expected)


def test_different_shapes_are_refused_naming_both():
    with pytest.raises(ValueError, match=r"\(2, 8, 8\).*\(2, 8, 9\)"):
        spearman_per_image(torch.rand(2, 8, 8), torch.rand(2, 8, 9))


def test_one_pixel_maps_are_refused():
    with pytest.raises(ValueError, match="two pixels"):
        spearman_per_image(torch.rand(2, 1, 1), torch.rand(2, 1, 1))


def test_no_images_give_no_scores():
    assert spearman_per_image(torch.rand(0, 8, 8), torch.rand(0, 8, 8)).shape == (0,)


@pytest.mark.parametrize(("share", "bound"), [(0.5, 0.935), (0.7, 0.811), (0.9, 0.521)])
def test_attainable_rho_of_a_floor_is_the_closed_form(share, bound):
    # sqrt(1 - p^3) for a share p of tied pixels
    maps = torch.arange(10_000, dtype=torch.float64).view(1, 100, 100)
    maps = maps.clamp(min=share * 10_000 - 1)
    untied = rank_maps(torch.arange(10_000).view(1, 100, 100))
    found = correlate(maps, [(untied, False)])
    assert found.attainable.item() == pytest.approx(bound, abs=1e-3)
    assert found.rho.item() == pytest.approx(found.attainable.item(), abs=1e-9)
    assert found.tied.item() == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.uint32, np.int64, np.float16])
def test_spearman_of_other_number_types_equals_scipy(dtype):
    rng = np.random.default_rng(0)
    top = 60_000 if dtype == np.float16 else min(np.iinfo(dtype).max, 2**31)
    maps = rng.integers(top - min(top, 400), top, (2, 20, 20), endpoint=True).astype(dtype)
    human = rng.random((2, 20, 20))
    np.testing.assert_allclose(
        spearman_per_image(maps, human), scipy_scores(maps, human), atol=1e-10
    )


def test_views_and_tensors_with_gradients_are_taken():
    maps = np.random.default_rng(0).random((2, 8, 8)).astype(">f4")[:, ::-1]
    human = torch.rand(2, 8, 8, requires_grad=True)
    expected = scipy_scores(maps, human.detach().numpy())
    np.testing.assert_allclose(spearman_per_image(maps, human), expected, atol=1e-10)


@pytest.mark.parametrize("wrong", [torch.rand(20, 20), torch.rand(1, 2, 20, 20),
                                   torch.rand(2, 8, 8, dtype=torch.complex64)])  # fmt: skip
def test_maps_without_an_image_axis_or_with_imaginary_parts_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must be \(image, height, width\), real"):
        spearman_per_image(wrong, wrong)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.booleans())
def test_both_forms_of_ranking_are_the_same(seed, levels, settle):
    """The one that graphics cards take, and the processor's."""
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.integers(0, levels, (3, 40)).astype(np.float32) / 7)
    for ours, theirs in zip(
        ranks_of_rows(values.numpy(), settle), ranks_on_device(values, settle), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14)
    human = [(rank_maps(rng.random((3, 5, 8))), settle), (rank_maps(rng.random((3, 8, 5))), False)]
    twice = torch.cat([values, values.flip(0)])  # two methods' maps of three images
    ours, theirs = products_of_rows(twice.numpy(), human), products_on_device(twice, human)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-12, atol=1e-9)
    np.testing.assert_array_equal(ours[1], theirs[1])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]))
def test_several_methods_and_readings_at_once_are_scipys_one_by_one(seed, dtype):
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, 9, (2, 3, 5, 8)).astype(dtype)
    maps[0, 1] = 4  # constant
    maps[1, 2, 0, 0] = rng.choice([np.nan, -np.nan, np.inf, -np.inf])
    readings = rng.random((2, 3, 5, 8))
    found = correlate(maps, [(rank_maps(reading), False) for reading in readings])
    for rho, reading in zip(found.rho, readings, strict=True):
        for mine, of_method in zip(rho, maps, strict=True):
            expected = scipy_scores(of_method, reading)
            expected[~np.isfinite(of_method).all(axis=(1, 2))] = np.nan
            np.testing.assert_allclose(mine, expected, atol=1e-10, rtol=0)
    np.testing.assert_array_equal(found.finite, np.isfinite(maps).all(axis=(2, 3)))
    np.testing.assert_array_equal(found.constant, (maps == maps[..., :1, :1]).all(axis=(2, 3)))
    _, counts = np.unique(maps[0, 0], return_counts=True)
    assert found.tied[0, 0, 0] == pytest.approx(counts[counts > 1].sum() / 40)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_partial_correlation_is_that_of_residuals_of_ranks(seed):
    rng = np.random.default_rng(seed)
    ours, theirs, centre = (rankdata(rng.integers(0, 30, 60)) for _ in range(3))

    def residual(ranks):
        return ranks - np.polyval(np.polyfit(centre, ranks, 1), centre)

    expected = np.corrcoef(residual(ours), residual(theirs))[0, 1]
    ranks = [rank_maps(ranks.reshape(1, 6, 10)) for ranks in (ours, theirs, centre)]
    pairs = [(0, 1), (0, 2), (1, 2)]
    found = partial_correlation(*(between_ranks(ranks[a], ranks[b]) for a, b in pairs))
    assert found.item() == pytest.approx(expected, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, 42, elements=st.floats(width=32, allow_nan=False)))
def test_the_sort_by_digits_orders_every_float(values):
    order = order_of_row(values)
    np.testing.assert_array_equal(values[order], np.sort(values))
    assert sorted(order) == list(range(42))


def test_some_images_of_ranks_are_ranks():
    maps = torch.rand(4, 8, 8)
    some, alone = rank_maps(maps)[1:3], rank_maps(maps[1:3])
    assert torch.equal(some.centred, alone.centred)
    assert torch.equal(some.norm, alone.norm)
    assert some.shape == alone.shape
