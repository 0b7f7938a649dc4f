"""Measures at fixations against pysaliency, scipy, literal definitions and hand calculations."""

from __future__ import annotations

import json
from itertools import cycle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from measuring import BANDWIDTH as GOLDEN_BANDWIDTH
from measuring import FIXATIONS, GOLDEN, HEIGHT, WIDTH
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import mannwhitneyu

from lib.base.geometry import Preprocessing
from lib.figures import plot_fixation_measures
from lib.people.clickme import ClickMe
from lib.people.human_maps import human_maps
from lib.people.protocols import PROTOCOLS
from lib.scores.fixation_measures import (
    BANDWIDTH,
    UNIFORM,
    FixationSet,
    measure_fixations,
    summarise_fixations,
)
from lib.scores.fixation_scores import placed_fixations, score_fixations
from lib.study.study import Study

KEYS = ["nss", "auc_judd", "shuffled_auc", "information_gain"]


def measured(maps: np.ndarray, points: list) -> dict[str, np.ndarray]:
    """Of an image each. points : (fixation, 2) of each image"""
    fixations = FixationSet({str(n): np.array(p) for n, p in enumerate(points)}, *maps.shape[1:])
    looked = [fixations.of(str(n)) for n in range(len(maps))]
    found = measure_fixations(torch.tensor(maps), looked)
    return {key: np.array(values) for key, values in found.items()}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as stored:
        return dict(stored)


def points_of(golden: dict[str, np.ndarray]) -> list[np.ndarray]:
    points = np.column_stack([golden["x"], golden["y"]])
    return np.split(points, np.cumsum(FIXATIONS)[:-1])


@pytest.mark.parametrize("key", KEYS)
def test_measures_are_pysaliencys(golden, key):
    assert BANDWIDTH * min(HEIGHT, WIDTH) == pytest.approx(GOLDEN_BANDWIDTH)
    found = measured(golden["maps"], points_of(golden))[key]
    np.testing.assert_allclose(found[:-1], golden[key][:-1], rtol=0, atol=1e-9)
    assert np.isnan(found[-1])  # a constant map, of which pysaliency says 0 or 0.5


def test_judds_own_script_differs_by_no_more_than_its_thresholds_and_negatives(golden):
    """Its curve has a point per fixated value, and its negatives no fixated pixel."""
    found = measured(golden["maps"], points_of(golden))["auc_judd"]
    for image, points in enumerate(points_of(golden)[:-1]):
        columns, rows = points.astype(int).T
        most = np.unique(golden["maps"][image][rows, columns], return_counts=True)[1].max()
        pixels = len(np.unique(rows * WIDTH + columns))
        bound = most / (2 * len(points)) + pixels / (HEIGHT * WIDTH)
        assert abs(found[image] - golden["judds_script"][image]) <= bound


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_measures_are_their_definitions(seed, ties):
    rng = np.random.default_rng(seed)
    maps = rng.gamma(0.5, size=(3, 9, 12))
    maps = np.round(maps * 3) if ties else maps
    maps[:, 0, :2] = 0, 7  # none is constant
    points = [rng.random((n, 2)) * (12, 9) for n in (5, 1, 8)]
    found = measured(maps, points)
    counts = np.zeros((3, 9, 12))
    for image, some in enumerate(points):
        np.add.at(counts[image], (*some[:, ::-1].astype(int).T,), 1)
    for image, one in enumerate(maps):
        x, y = points[image].astype(int).T
        here, others = one[y, x], counts.sum(axis=0) - counts[image]
        assert found["nss"][image] == pytest.approx(((one - one.mean()) / one.std())[y, x].mean())
        for key, below in (
            ("auc_judd", one.ravel()),
            ("shuffled_auc", np.repeat(one.ravel(), others.ravel().astype(int))),
        ):
            expected = mannwhitneyu(here, below).statistic / len(here) / len(below)
            assert found[key][image] == pytest.approx(expected)
        density = (one - one.min()) / (one - one.min()).sum()
        blurred = gaussian_filter(others, BANDWIDTH * 9, mode="constant", truncate=40)
        densities = [(1 - UNIFORM) * d + UNIFORM / 108 for d in (density, blurred / blurred.sum())]
        ours, bias = (d[y, x] for d in densities)
        expected = (np.log2(ours) - np.log2(bias)).mean()
        assert found["information_gain"][image] == pytest.approx(expected, abs=1e-9)


def test_a_hand_calculation():
    """Four pixels: 0, 1 above 2, 5. Fixated are those of 5 and of 1; elsewhere 2, 2 and 0."""
    maps = np.array([[[0.0, 1.0], [2.0, 5.0]], [[4.0, 1.0], [2.0, 3.0]]])
    at = {0: (0.5, 0.5), 1: (1.0, 0.0), 2: (0.99, 1.99), 5: (1.5, 1.5)}
    found = measured(maps, [[at[5], at[1]], [at[2], at[2], at[0]]])
    assert found["nss"][0] == pytest.approx((3 + -1) / 2 / np.sqrt((4 + 1 + 0 + 9) / 4))
    assert found["auc_judd"][0] == pytest.approx((3.5 / 4 + 1.5 / 4) / 2)
    assert found["shuffled_auc"][0] == pytest.approx((3 / 3 + 1 / 3) / 2)
    # The Gaussian is so narrow, 0.2 pixels, that the neighbours' share is e^-12.5 of the peak.
    side, corner = np.exp(-12.5), np.exp(-25)
    bias = np.array([2 * side + 1, side + 2 * corner, 2 + side, 2 * side + corner])
    bias = 0.99 * bias / bias.sum() + 0.0025
    ours = 0.99 * np.array([0, 1, 2, 5]) / 8 + 0.0025
    expected = np.log2(ours[[3, 1]] / bias[[3, 1]]).mean()
    assert found["information_gain"][0] == pytest.approx(expected)


def test_measures_do_not_mind_a_maps_scale():
    rng = np.random.default_rng(3)
    one, points = rng.random((1, 8, 8)), [rng.random((6, 2)) * 8 for _ in range(2)]
    other = rng.random((1, 8, 8))
    plain = measured(np.concatenate([one, other]), points)
    for scale, shift in ((1e-200, 0), (1e200, -1e200), (3, 1e4)):
        again = measured(np.concatenate([one * scale + shift, other]), points)
        for key in KEYS:
            np.testing.assert_allclose(again[key], plain[key], rtol=1e-9)


def test_what_is_undefined_is_missing():
    rng = np.random.default_rng(0)
    maps = rng.random((4, 6, 6))
    maps[1] = 0.1 + 0.2
    maps[2, 3, 3] = np.nan
    points = [rng.random((4, 2)) * 6, [(1, 1)], [(2, 2)], np.empty((0, 2))]
    found = measured(maps, points)
    for key in KEYS:
        assert np.isnan(found[key]).tolist() == [False, True, True, True]
    alone = measured(maps[:1], points[:1])  # nobody looked at another image
    assert [bool(np.isnan(alone[key][0])) for key in KEYS] == [False, False, True, True]


@pytest.mark.parametrize("point", [(-0.01, 1), (1, -0.01), (8, 1), (1, 6), (np.nan, 1)])
def test_a_fixation_beside_the_map_is_refused(point):
    with pytest.raises(ValueError, match=r"a: 1 of 2 fixations lie outside.*8 wide and 6 high"):
        FixationSet({"a": np.array([(7.99, 5.99), point])}, 6, 8)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"a: fixations must have the shape \(fixation, 2\)"):
        FixationSet({"a": np.zeros((2, 3))}, 6, 6)
    looked = FixationSet({"a": np.ones((1, 2))}, 6, 6).of("a")
    with pytest.raises(
        ValueError, match=r"maps have the shape \(1, 7, 7\), but .* 1 images in maps of \[36\]"
    ):
        measure_fixations(np.zeros((1, 7, 7)), [looked])


# --- a study ------------------------------------------------------------------------------

CONVNEXT = Preprocessing(resize=256, crop=224)


def test_fixations_are_cropped_as_the_image_is():
    points = np.array([(16, 128), (15.9, 128), (240, 128), (239, 239), (128, 64)], float)
    placed, inside = placed_fixations(points, PROTOCOLS["corrected"], CONVNEXT)
    np.testing.assert_allclose(placed, points - 16)
    assert inside.tolist() == [True, False, False, True, True]
    placed, inside = placed_fixations(points, PROTOCOLS["published"], CONVNEXT)
    np.testing.assert_allclose(placed, points * 7 / 8)
    assert inside.all()


@pytest.mark.parametrize("resize", [224, 235, 256])
def test_fixations_and_human_maps_move_alike(resize):
    geometry = Preprocessing(resize=resize, crop=224)
    x, y = 92.3, 151.8
    at = np.arange(256) + 0.5
    blob = np.exp(-((at - x) ** 2 + (at[:, None] - y) ** 2) / (2 * 12**2)).astype(np.float32)
    protocol = PROTOCOLS["corrected"]
    human = human_maps(torch.from_numpy(blob)[None], protocol, geometry)[0].double().numpy()
    rows, columns = np.mgrid[:224, :224] + 0.5
    human[human < 0.01 * human.max()] = 0
    centroid = [(human * axis).sum() / human.sum() for axis in (columns, rows)]
    placed, _ = placed_fixations(np.array([(x, y)]), protocol, geometry)
    np.testing.assert_allclose(placed[0], centroid, atol=0.3)


def write_looked(folder, images: int, observers: int = 3):
    """Images of 256 x 256 that people looked at; returns {image: (fixation, 3) x, y, observer}."""
    folder.mkdir()
    rng, rows, looked = np.random.default_rng(7), ["file,x,y,observer"], {}
    for image in range(images):
        name = f"{image}.png"
        Image.fromarray(rng.integers(0, 256, (256, 256, 3), np.uint8)).save(folder / name)
        points = np.round(rng.normal(128, 50, (5 * observers, 2)).clip(1, 255), 1)
        points[0] = 3, 128  # beside what ConvNeXt sees
        looked[name] = np.column_stack([points, np.arange(len(points)) % observers])
        rows += [f"{name},{x},{y},p{int(who)}" for x, y, who in looked[name]]
    (folder / "gaze.csv").write_text("\n".join(rows))
    (folder / "gaze.json").write_text(json.dumps({"sigma_pixels": 25}))
    labels = [f"{image}.png,{image % 5}" for image in range(images)]
    (folder / "labels.csv").write_text("\n".join(["image,label", *labels]))
    return looked


def test_a_study_is_measured_where_its_people_looked(tmp_path, monkeypatch):
    looked = write_looked(tmp_path / "people", 3)
    ours = torch.rand(3, 224, 224, generator=torch.Generator().manual_seed(0))
    ours[1] = 0.5
    batches = cycle([ours])
    monkeypatch.setattr(
        "lib.scores.fixation_scores.cam_maps", lambda *_: {"grad_cam": next(batches)}
    )
    study = Study.from_profile("demo", ["convnext_tiny"], ["grad_cam"],
                               images=str(tmp_path / "people"), protocols=["corrected"])  # fmt: skip
    found = score_fixations(study)
    assert (found.reading == "centre, 224 of 256").all()
    # ConvNeXt's window begins at 16 of 256 pixels and is compared without scaling.
    within = {
        name: points[((points[:, :2] >= 16) & (points[:, :2] < 240)).all(axis=1)]
        for name, points in looked.items()
    }
    expected = measured(ours.numpy(), [points[:, :2] - 16 for points in within.values()])
    rows = found[(found.kind == "network") & found.dcls].set_index(["measure", "image_id"])
    for key in KEYS:
        np.testing.assert_allclose(rows.value[key][[*looked]], expected[key], atol=1e-9)
    counts = found.drop_duplicates("image_id").set_index("image_id")
    for name, points in looked.items():
        assert counts.fixations[name] == len(within[name])
        assert counts.outside[name] == len(points) - len(within[name]) > 0

    stored = ClickMe([tmp_path / "people"], ["corrected"])
    people = found[found.kind == "people"].set_index(["measure", "image_id"]).value
    maps = next(stored.observed()).maps.numpy()
    points = within["0.png"]
    each = []
    for who in range(3):
        rest = torch.from_numpy(maps.sum(axis=0) - maps[who])[None]
        human = human_maps(rest, PROTOCOLS["corrected"], CONVNEXT).numpy()[0].astype(float)
        x, y = (points[points[:, 2] == who][:, :2] - 16).astype(int).T
        each.append(((human[y, x] - human.mean()) / human.std()).mean())
    assert people["nss", "0.png"] == pytest.approx(np.mean(each), abs=1e-5)
    assert (people["nss"] > 0).all()

    controls = found[found.kind == "control"].set_index(["method", "measure", "image_id"]).value
    rows, columns = np.mgrid[:224, :224] - 111.5
    centre = -(rows**2 + columns**2)
    x, y = (points[:, :2] - 16).astype(int).T
    assert controls["centre", "nss", "0.png"] == pytest.approx(
        ((centre - centre.mean()) / centre.std())[y, x].mean()
    )
    assert len(found) == 4 * 3 * (2 + 4 + 1)  # of both variants, the controls and the people

    table = summarise_fixations(found).set_index(["kind", "method", "measure"]).sort_index()
    assert table.n["people", "one_against_rest", "nss"].item() == 3
    assert (table.n["network", "grad_cam"] == 2).all()  # one map is constant
    assert table.low["control", "centre", "auc_judd"].item() >= 0
    assert table.unit["control", "centre", "information_gain"] == "bits per fixation"
    mean = table.value["people", "one_against_rest", "nss"].item()
    assert mean == pytest.approx(people["nss"].mean())


def test_a_study_of_maps_alone_has_no_rows():
    found = score_fixations(Study.from_profile("demo", ["caformer_s18"], ["grad_cam"], limit=2))
    assert found.empty
    table = summarise_fixations(found)
    assert table.empty
    assert {"measure", "value", "low", "high", "n", "unit"} <= set(table)
    assert len(plot_fixation_measures(table, {}, {}).axes[0].texts) == 1
