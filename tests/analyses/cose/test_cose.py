"""COSE against scikit-image, Pillow, an implementation of its own, and maps built to score."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from safetensors.torch import save_file
from scipy import ndimage, stats
from skimage.metrics import structural_similarity as skimage_ssim
from skimage.morphology import erosion
from skimage.transform import AffineTransform, rotate, warp
from stand_ins import mini
from torch import nn
from torchvision.transforms import functional as pillows

from lib.analyses.cose import ssim
from lib.analyses.cose import study as cose_study
from lib.analyses.cose.changes import (
    GEOMETRIC,
    KINDS,
    PHOTOMETRIC,
    Change,
    changes_of,
    magnitudes,
    undone,
)
from lib.analyses.cose.pairs import (
    CHANGED,
    ITSELF,
    KEPT,
    MATCHED,
    MENDED,
    MODEL,
    SSIM,
    WRONG,
    ShownImages,
    condition,
    followed,
    pairs_of_changed_images,
    pairs_of_changed_network,
)
from lib.analyses.cose.readings import Moves, similarities
from lib.analyses.cose.results import (
    by_change,
    compare_cose,
    conditions,
    cose,
    reference_levels,
    summarise_cose,
)
from lib.analyses.cose.ssim import structural_similarity
from lib.analyses.cose.study import score_cose
from lib.base.geometry import Preprocessing
from lib.maps.cam import cam_maps
from lib.maps.forward import enlarge
from lib.maps.methods import METHODS, CamMethod
from lib.networks.backbones import BACKBONES, Backbone, variant_name
from lib.networks.batch_size import BatchSize
from lib.networks.building import build_network
from lib.networks.checkpoints import WeightsError
from lib.networks.loading import save_weights
from lib.networks.models import Provenance, StudyModel
from lib.networks.preprocessing import resize_images
from lib.networks.sources import WEIGHTS_SUFFIXES
from lib.people.clickme import ClickMeBatch
from lib.scores.study_scores import left_out
from lib.study.inputs import Inputs
from lib.study.places import Places
from lib.study.study import Study

# --- SSIM ----------------------------------------------------------------------------------------


def by_skimage(a: np.ndarray, b: np.ndarray, inside: np.ndarray | None = None) -> float:
    reach = max(np.ptp(a), np.ptp(b))
    mean, full = skimage_ssim(a, b, win_size=5, data_range=reach, full=True)
    if inside is None:
        return mean
    eroded = ndimage.binary_erosion(inside, np.ones((5, 5)), border_value=0)
    return full[eroded].mean() if eroded.any() else np.nan


def by_skimages_erosion(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> float:
    """The published mean: of the full map, in a mask that does not shrink at the border."""
    _, full = skimage_ssim(a, b, win_size=5, data_range=max(np.ptp(a), np.ptp(b)), full=True)
    eroded = erosion(inside, np.ones((5, 5), bool), mode="max").astype(bool)
    return full[eroded].mean() if eroded.any() else np.nan


maps_strategy = st.tuples(
    st.integers(5, 40), st.integers(5, 40), st.integers(0, 10**6), st.sampled_from([1e-3, 1, 300])
)


@settings(deadline=None, max_examples=30)
@given(maps_strategy)
def test_ssim_is_scikit_images(drawn):
    height, width, seed, scale = drawn
    rng = np.random.default_rng(seed)
    a, b = scale * rng.random((2, 3, height, width))
    inside = rng.random((3, height, width)) > 0.02
    tensors = torch.from_numpy(a), torch.from_numpy(b)
    expected = [by_skimage(x, y) for x, y in zip(a, b, strict=True)]
    masked = [by_skimage(x, y, m) for x, y, m in zip(a, b, inside, strict=True)]
    published = [by_skimages_erosion(x, y, m) for x, y, m in zip(a, b, inside, strict=True)]
    reach = torch.maximum(ssim.value_range(tensors[0]), ssim.value_range(tensors[1]))
    counts = torch.from_numpy(inside)
    np.testing.assert_allclose(structural_similarity(*tensors), expected, atol=1e-11)
    np.testing.assert_allclose(structural_similarity(*tensors, counts), masked, atol=1e-11)
    found = structural_similarity(*tensors, counts, beyond=True)
    np.testing.assert_allclose(found, published, atol=1e-11)
    # What other devices do, on the processor.
    np.testing.assert_allclose(ssim.by_tensors(*tensors, reach, None), expected, atol=1e-11)
    np.testing.assert_allclose(ssim.by_tensors(*tensors, reach, counts), masked, atol=1e-11)


def test_ssim_of_one_map_with_several_and_of_constant_ones():
    a, b = torch.rand(1, 30, 30), torch.rand(3, 30, 30)
    expected = [by_skimage(a[0].double().numpy(), x.double().numpy()) for x in b]
    np.testing.assert_allclose(structural_similarity(a, b), expected, atol=1e-11)
    assert structural_similarity(b, b).tolist() == pytest.approx([1, 1, 1], abs=1e-12)
    constant = torch.full((3, 30, 30), 0.25)
    assert structural_similarity(constant, constant).isnan().all()
    assert structural_similarity(constant, b).isfinite().all()
    with pytest.raises(ValueError, match="5 x 5"):
        structural_similarity(torch.rand(1, 4, 9), torch.rand(1, 4, 9))


# --- changes of images -------------------------------------------------------------------------


def by_torchvision(image: Image.Image, kind: str, magnitude: float) -> np.ndarray:
    """As the published code does it: torchvision's functions, given a Pillow image."""
    shift = int(magnitude)
    made = {
        "translate_x": lambda: pillows.affine(image, 0.0, [shift, 0], 1.0, [0.0, 0.0]),
        "translate_y": lambda: pillows.affine(image, 0.0, [0, shift], 1.0, [0.0, 0.0]),
        "rotate": lambda: pillows.rotate(image, magnitude),
        "brightness": lambda: pillows.adjust_brightness(image, 1 + magnitude),
        "color": lambda: pillows.adjust_saturation(image, 1 + magnitude),
        "contrast": lambda: pillows.adjust_contrast(image, 1 + magnitude),
        "sharpness": lambda: pillows.adjust_sharpness(image, 1 + magnitude),
        "flip_sideways": lambda: pillows.hflip(image),
        "flip_upright": lambda: pillows.vflip(image),
        "autocontrast": lambda: pillows.autocontrast(image),
        "equalize": lambda: pillows.equalize(image),
        "blur": lambda: image.filter(ImageFilter.BLUR),
        "smooth": lambda: image.filter(ImageFilter.SMOOTH),
    }
    return np.asarray(made[kind]())


@pytest.mark.parametrize("kind", list(KINDS))
def test_changes_are_the_published_ones(kind, images):
    image, largest = images[0], KINDS[kind].largest
    for magnitude in (-largest, 0.4 * largest, largest) if largest else (0.0,):
        theirs = by_torchvision(Image.fromarray(image), kind, magnitude)
        assert (Change(kind, magnitude).apply(image) == theirs).all(), magnitude


def test_the_48_changes_are_drawn_from_a_images_place_alone():
    for place in (0, 7, 1000):
        drawn = changes_of(place)
        assert drawn == changes_of(place)
        assert len(drawn) == 48
        for kind in KINDS.values():
            of_kind = [c.magnitude for c in drawn if c.kind == kind.key]
            if not kind.largest:
                assert of_kind == [0.0]
                continue
            assert len(set(of_kind)) == 6
            steps = {s * float(m) for m in np.linspace(0, kind.largest, 31)[1:] for s in (-1, 1)}
            assert set(of_kind) <= steps
    assert changes_of(0) != changes_of(1)
    assert len(set(magnitudes(32))) == 60
    assert 0 not in magnitudes(32)


def test_undoing_brings_maps_back_and_tells_what_left():
    maps = torch.rand(1, 60, 60)
    for change in (Change("translate_x", -20.9), Change("translate_y", 31.5), Change("rotate", 90),
                   Change("flip_sideways"), Change("flip_upright")):  # fmt: skip
        inside, wholly = change.inside(60)
        back = change.undo(change.follow(maps))[0]
        assert torch.allclose(back[inside], maps[0][inside], atol=1e-5), change
        assert torch.equal(inside, wholly)  # whole pixels are moved
    inside, _ = Change("translate_x", -20.9).inside(60)
    assert not inside[:, :20].any()  # truncated, not rounded; these pixels went out
    assert inside[:, 20:].all()
    assert Change("brightness", 0.5).undo(maps) is maps
    assert Change("brightness", 0.5).inside(60)[0].all()


def test_a_pixel_is_wholly_inside_if_nothing_of_it_came_in_from_outside():
    change = Change("rotate", 33.0)
    partly, wholly = change.inside(60)
    assert not (wholly & ~partly).any()
    # A map of ones that is turned back holds less where zeros came in.
    back = change.undo(torch.ones(1, 60, 60))[0]
    assert back[wholly].min() > 0.9999
    assert back[partly].min() < 0.5


# --- pairs ---------------------------------------------------------------------------------------


def clickme_of(images: np.ndarray, labels) -> ClickMeBatch:
    return ClickMeBatch(
        [f"p{i}" for i in range(len(images))], images, torch.zeros(len(images), 256, 256),
        torch.as_tensor(labels), np.arange(len(images)) + 3,
    )  # fmt: skip


def shown_to(model, images: np.ndarray, labels) -> ShownImages:
    batch = clickme_of(images, labels)
    return ShownImages.of_clickme(batch, model.backbone.preprocessing)


def predicted(model, image: np.ndarray) -> int:
    geometry = model.backbone.preprocessing
    x = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)
    mean, std = (
        torch.tensor(geometry.mean)[:, None, None],
        torch.tensor(geometry.std)[:, None, None],
    )
    with torch.no_grad():
        return int(model(((x - mean) / std)[None]).argmax())


def maps_of(model, image: np.ndarray, method: str) -> np.ndarray:
    geometry = model.backbone.preprocessing
    x = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)
    mean, std = (
        torch.tensor(geometry.mean)[:, None, None],
        torch.tensor(geometry.std)[:, None, None],
    )
    size = image.shape[0]
    found = cam_maps(model, ((x - mean) / std)[None], None, [method], size)[method][0].numpy()
    return (found - found.min()) / np.ptp(found)


class Small(nn.Module):
    """Sees 64 pixels, has 8 x 8 cells, and answers by three classes."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU()
        )
        self.fc = nn.Linear(12, 3)

    def forward_features(self, x):
        return self.body(x)

    def forward_head(self, features):
        return self.fc(features.mean(dim=(2, 3)))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


@pytest.fixture
def small():
    geometry = Preprocessing(64, 64)
    row = Backbone("small", "Small", "own", "", None, geometry, "#000000")
    return StudyModel(Small(), row, Provenance("small", "random", "full")).eval()


CHANGED_TO = {"flip_sideways": np.fliplr, "flip_upright": np.flipud}


def undone_by_skimage(explanation, change: Change) -> tuple[np.ndarray, np.ndarray | None]:
    """What the published code makes of a changed image's map, and the mask that it averages in,
    None for all. Both are moved in the explanation's precision."""
    side = len(explanation)
    if change.kind == "rotate":
        ones = pillows.rotate(torch.ones(1, side, side), change.magnitude, fill=[0.0])

        def back(x):
            return rotate(x, -change.magnitude, clip=False, mode="constant", preserve_range=True)
    elif change.kind.startswith("translate"):
        shift = (
            [int(change.magnitude), 0]
            if change.kind == "translate_x"
            else [0, int(change.magnitude)]
        )
        ones = pillows.affine(torch.ones(1, side, side), 0.0, shift, 1.0, [0.0, 0.0], fill=[0.0])

        def back(x):
            there = AffineTransform(translation=-np.array(shift))
            return warp(x, there.inverse, mode="constant", preserve_range=True)
    else:
        return CHANGED_TO.get(change.kind, np.asarray)(explanation), None
    mask = back(ones[0].numpy().astype(explanation.dtype)) != 0
    return back(explanation), mask


@pytest.mark.parametrize(
    ("key", "kind"), [("grad_cam", GradCAM), ("grad_cam_plus_plus", GradCAMPlusPlus)]
)
def test_the_published_reading_pair_by_pair(key, kind, small, images):
    """The published code's own steps: torchvision on Pillow images, pytorch-grad-cam's scaled
    maps, scikit-image's warp, full SSIM map and erosion, scipy's rank correlation."""
    seen = images[:1, :64, :64]
    shown = ShownImages(["p"], seen, [5], [predicted(small, seen[0])])
    table = pairs_of_changed_images(small, [METHODS[key]], shown, BatchSize(20), True)
    cam = kind(small.network, [small.network.body])

    def explained_by_the_package(image):
        x = small.prepare_pixels(torch.from_numpy(image.copy())[None])
        answer = int(small(x).argmax())
        return answer, cam(x, [ClassifierOutputTarget(answer)])[0].astype(np.float64)

    first, before = explained_by_the_package(seen[0])
    for row, change in zip(table.itertuples(), changes_of(5), strict=True):
        changed = by_torchvision(Image.fromarray(seen[0]), change.kind, change.magnitude)
        answer, after = explained_by_the_package(changed)
        after, mask = undone_by_skimage(after, change)
        reach = max(np.ptp(before), np.ptp(after))
        expected, full = skimage_ssim(before, after, win_size=5, data_range=reach, full=True)
        everywhere = np.ones_like(before, bool) if mask is None else mask
        if mask is not None:
            expected = full[erosion(mask, np.ones((5, 5), bool), mode="max")].mean()
        rho = stats.spearmanr(before[everywhere], after[everywhere]).statistic
        assert row.ssim_published == pytest.approx(expected, abs=1e-6), change
        assert row.spearman == pytest.approx(rho, abs=1e-5), change
        assert (row.predicted, row.predicted_after) == (first, answer)
        assert row.condition == condition(first, first, answer)
        if mask is None:
            assert row.ssim_corrected == row.ssim_published


def test_the_corrected_reading_pair_by_pair(small):
    """Both maps scaled within what stayed, whole windows alone, by numpy and scikit-image."""
    before, changes = torch.rand(1, 8, 8), changes_of(11)
    after = torch.rand(48, 8, 8)
    found = similarities(before, after, 64, Moves.of(changes, 64))["corrected"]
    first, *others = (m.double().numpy() for m in enlarge(torch.cat([before, after]), 64))
    for value, other, change in zip(found, others, changes, strict=True):
        if not change.leaves:
            continue
        back, _ = undone_by_skimage(other, change)
        stayed, _ = undone_by_skimage(np.ones((64, 64)), change)  # nothing came in from outside
        _, there = undone_by_skimage(other, change)
        stayed = there & (stayed > 0.9999)
        if change.kind == "rotate":  # and nothing of the changed image was empty
            ones = pillows.rotate(torch.ones(1, 64, 64), change.magnitude, fill=[0.0])[0].numpy()
            stayed &= rotate(ones.astype(float), -change.magnitude, clip=False) > 0.9999
        pair = [(m - m[stayed].min()) / np.ptp(m[stayed]) for m in (first, back)]
        _, full = skimage_ssim(*pair, win_size=5, data_range=1, full=True)
        whole = ndimage.binary_erosion(stayed, np.ones((5, 5)), border_value=0)
        assert value == pytest.approx(full[whole].mean(), abs=1e-6), change


def test_an_explanation_that_follows_has_no_less_for_what_left_the_image():
    """A peak that a shift takes out of the image: scaled by it or not, what stayed is alike."""
    small = torch.rand(1, 8, 8)
    small[0, 0] += 4  # its upper row
    change = Change("translate_y", -30.0)
    side = 64
    whole = (enlarge(small, side) - small.min()) / (small.max() - small.min())
    moved = change.follow(whole)
    found = similarities(small, moved, side, Moves.of([change], side))
    assert found["corrected"].item() == pytest.approx(1, abs=1e-5)
    assert found["published"].item() < 0.9


def test_maps_that_are_flat_or_hold_no_numbers():
    changes, side = changes_of(0), 32
    moves = Moves.of(changes, side)
    flat, other = torch.full((1, 8, 8), 0.4), torch.rand(1, 8, 8)
    for pair in ((flat, flat * 2), (other, other * torch.nan)):
        found = similarities(pair[0], pair[1].expand(48, -1, -1), side, moves)
        assert all(values.isnan().all() for values in found.values())
    found = similarities(flat, other.expand(48, -1, -1), side, moves, with_spearman=True)
    # A shift by all of the image leaves nothing to compare.
    gone = torch.tensor([abs(int(c.magnitude)) == side for c in changes])
    assert torch.equal(found["published"].isnan(), gone)
    assert torch.equal(found["corrected"].isnan(), gone)
    assert found["spearman"].isnan().all()


def test_images_that_are_wrong_before_have_no_score(images):
    model = mini("resnet50")
    seen = resize_images(images[:1], model.backbone.preprocessing)
    wrong = (predicted(model, seen[0]) + 1) % 5
    batch = shown_to(model, images[:1], [wrong])
    table = pairs_of_changed_images(model, [METHODS["grad_cam"]], batch, BatchSize(16))
    assert len(table) == 48
    assert set(table.condition) <= {MENDED, WRONG}
    assert table[["ssim_published", "ssim_corrected", "matched_published"]].isna().all(axis=None)
    other = pairs_of_changed_network(
        model, mini("resnet50"), "random weights", [METHODS["grad_cam"]], batch, BatchSize(16)
    )
    assert other.ssim_published.isna().all()
    summary = summarise_cose(pd.concat([table, other]).assign(backbone="resnet50", dcls=False))
    assert summary.n_right[0] == 0
    assert summary.n_images[0] == 1
    assert summary.undefined_published[0] == "no pair stays right"


def test_the_four_conditions():
    assert [condition(1, *answers) for answers in ((1, 1), (1, 2), (2, 1), (2, 3), (2, 2))] == [
        KEPT, CHANGED, MENDED, WRONG, WRONG,
    ]  # fmt: skip


def test_a_network_with_itself_and_with_another(images):
    model, other = mini("convnext_tiny"), mini("convnext_tiny", dcls=True)
    with torch.no_grad():
        seen = resize_images(images, model.backbone.preprocessing)
        labels = [predicted(model, image) for image in seen]
    batch = shown_to(model, images, labels)
    method = METHODS["hires_cam"]
    same = pairs_of_changed_network(model, model, "same", [method], batch, BatchSize(3))
    assert same.ssim_published.to_numpy() == pytest.approx(1)
    assert set(same.group) == {MODEL}
    assert list(same.condition) == [KEPT] * 4
    table = pairs_of_changed_network(model, other, "other", [method], batch, BatchSize(3))
    for number, row in enumerate(table.itertuples()):
        maps = [maps_of(m, seen[number], "hires_cam").astype(float) for m in (model, other)]
        assert row.ssim_published == pytest.approx(by_skimage(*maps), abs=1e-5)


def test_pairs_do_not_depend_on_the_batch(images):
    model = mini("fastvit_sa24")
    labels = [predicted(model, resize_images(images[:1], model.backbone.preprocessing)[0])]
    batch = shown_to(model, images[:1], labels)
    tables = [
        pairs_of_changed_images(model, [METHODS["grad_cam"]], batch, BatchSize(size))
        for size in (7, 64)
    ]
    np.testing.assert_allclose(*(table.ssim_published for table in tables), atol=2e-4)


def grey(model, x, passed):
    """A map that follows the image perfectly."""
    return x.mean(dim=1)


def noise(model, x, passed):
    generator = torch.Generator().manual_seed(int(1e4 * x.abs().sum()) % 2**31)
    return torch.rand(len(x), 7, 7, generator=generator)


def nothing(model, x, passed):
    return torch.full((len(x), 7, 7), 0.5)


@pytest.fixture
def three(images):
    """Pairs of a map that follows, of a random one and of a constant one."""
    model, images = mini("resnet50"), images[:2]
    seen = resize_images(images, model.backbone.preprocessing)
    labels = [predicted(model, image) for image in seen]
    methods = [
        CamMethod(key, key, whole_map=function)
        for key, function in (("grey", grey), ("noise", noise), ("nothing", nothing))
    ]
    shown = shown_to(model, images, labels)
    table = pairs_of_changed_images(model, methods, shown, BatchSize(49))
    return table.assign(backbone="resnet50", dcls=False)


def test_maps_built_to_follow_be_random_or_be_constant(three):
    summary = summarise_cose(three).set_index("method")
    moved = three[(three.method == "grey") & three.change.isin(["translate_x", "translate_y",
                  "flip_sideways", "flip_upright"])]  # fmt: skip
    # Exactly at the ceiling, whatever of the image left it.
    assert moved.ssim_corrected.to_numpy() == pytest.approx(1, abs=1e-6)
    assert moved.ssim_published.min() > 0.9
    rotated = three[(three.method == "grey") & (three.change == "rotate")]
    assert rotated.ssim_published.min() > 0.5
    levels = reference_levels(7, 224)["published"]
    random = three[three.method == "noise"].ssim_published.mean()
    assert random == pytest.approx(levels["likeness"], abs=0.03)
    assert levels["likeness"] == pytest.approx(0.46, abs=0.02)  # the specification's
    assert summary.loc["nothing", "undefined_published"] == "every map is constant"
    assert math.isnan(summary.loc["nothing", "cose_published"])
    assert summary.loc["nothing", "n_undefined"] == 2 * 48
    assert summary.loc["grey", "cells"] == 224
    assert summary.loc["noise", "cells"] == 7
    # Finer maps are compared at the layer's cells, too.
    coarse = three[three.method == "noise"]
    fine = three[three.method == "grey"]
    for reading in ("published", "corrected"):
        assert (coarse[f"ssim_{reading}"] == coarse[f"matched_{reading}"]).all()
        assert (fine[f"ssim_{reading}"] != fine[f"matched_{reading}"]).mean() > 0.5


@pytest.mark.parametrize(("cells", "chance"), [(14, 0.24), (28, 0.10), (224, 0.006)])
def test_chance_by_resolution(cells, chance):
    for levels in reference_levels(cells, 224).values():
        assert levels["likeness"] == pytest.approx(chance, abs=0.02)
        c, f = levels["followed"], levels["likeness"]
        assert levels["ceiling"] == pytest.approx(math.sqrt(c * (1 - f)))
        assert levels["chance"] == pytest.approx(math.sqrt(f * (1 - f)))


# --- scores --------------------------------------------------------------------------------------


def made_pairs(rows: list[tuple], **columns) -> pd.DataFrame:
    """rows: image, group, condition, SSIM, which the corrected reading has 0.1 higher"""
    table = pd.DataFrame(rows, columns=["image_id", "group", "condition", "ssim"])
    ssim = {f"{what}_published": table.ssim for what in ("ssim", "matched")}
    ssim |= {name.replace("published", "corrected"): table.ssim + 0.1 for name in ssim}
    common = {"backbone": "resnet50", "dcls": False, "method": "grad_cam", "change": "blur",
              "constant": 0, "cells": 7.0, "side": 224}  # fmt: skip
    return table.assign(**ssim, **common | columns)


BY_HAND = [
    ("a", "geometric", KEPT, 0.9), ("a", "photometric", KEPT, 0.7),
    ("a", "photometric", CHANGED, 0.4), ("a", MODEL, CHANGED, 0.2), ("a", MODEL, KEPT, 0.0),
    ("b", "geometric", KEPT, 0.5), ("b", "photometric", CHANGED, 0.6),
    ("c", "geometric", WRONG, np.nan), ("c", "photometric", MENDED, np.nan),
]  # fmt: skip


def test_score_by_hand():
    row = summarise_cose(made_pairs(BY_HAND)).iloc[0]
    assert row.consistency_published == pytest.approx((0.9 + 0.7 + 0.5) / 3)
    assert row.sensitivity_published == pytest.approx(1 - (0.4 + 0.2 + 0.6) / 3)
    assert row.cose_published == pytest.approx(math.sqrt(0.7 * 0.6))
    assert row.cose_corrected == pytest.approx(math.sqrt(0.8 * 0.5))
    assert (row.n_kept, row.n_changed, row.n_images, row.n_right) == (3, 3, 3, 2)
    assert row.undefined_published == ""
    assert math.isnan(row.cose_published_low)  # three images: no interval
    parts = by_change(made_pairs(BY_HAND)).set_index("part")
    assert parts.loc["geometric", "consistency_published"] == pytest.approx(0.7)
    assert math.isnan(parts.loc["model", "consistency_published"])
    assert parts.loc["model", "sensitivity_published"] == pytest.approx(0.8)
    assert parts.loc["photometric", "cose_published"] == pytest.approx(math.sqrt(0.7 * 0.5))
    assert parts.loc["geometric", "consistency_corrected"] == pytest.approx(0.8)
    counted = conditions(made_pairs(BY_HAND)).set_index("group")
    assert counted.loc["model", KEPT] == 1
    assert counted.loc["photometric", MENDED] == 1


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([("a", "geometric", KEPT, 0.5)], "no answer becomes wrong"),
        ([("a", "geometric", CHANGED, 0.5)], "no pair stays right"),
        ([("a", "geometric", KEPT, -0.5), ("a", "geometric", CHANGED, 0.5)], "negative"),
        ([("a", "geometric", KEPT, 0.5), ("a", "geometric", CHANGED, -0.5)], "above 1"),
    ],
)
def test_what_cannot_be_scored_is_told(rows, why):
    row = summarise_cose(made_pairs(rows)).iloc[0]
    assert why in row.undefined_published
    assert math.isnan(row.cose_published) == (why != "above 1")


def test_intervals_resample_images():
    rng = np.random.default_rng(0)
    rows = []
    for image in range(30):
        level = rng.normal(0, 0.1)  # pairs of an image are alike: fewer numbers than pairs
        rows += [(f"i{image}", "geometric", KEPT, 0.8 + level)] * 20
        rows += [(f"i{image}", "photometric", CHANGED, 0.4 + level)] * (image % 3 + 1)
    table = made_pairs(rows)
    row = summarise_cose(table).iloc[0]
    per = table.groupby(["image_id", "condition"]).ssim.agg(["sum", "size"]).unstack().to_numpy()
    found = []
    for _ in range(3000):
        s_changed, s_kept, n_changed, n_kept = per[rng.integers(0, 30, 30)].sum(axis=0)
        found.append(cose(s_kept / n_kept, s_changed / n_changed))
    low, high = np.quantile(found, [0.025, 0.975])
    assert row.cose_published_low == pytest.approx(low, abs=0.004)
    assert row.cose_published_high == pytest.approx(high, abs=0.004)
    assert row.cose_published_low < row.cose_published < row.cose_published_high


def test_dcls_is_compared_on_the_images_both_have_right():
    rows = [(f"i{i}", g, c, s) for i in range(20) for g, c, s in
            (("geometric", KEPT, 0.6), ("photometric", CHANGED, 0.5))]  # fmt: skip
    better = [(i, g, c, s + 0.1 if c == KEPT else s - 0.1) for i, g, c, s in rows]
    better += [("only", "geometric", KEPT, 0.0)]
    table = pd.concat([made_pairs(rows), made_pairs(better, dcls=True)])
    found = compare_cose(table)
    assert list(found.reading.unique()) == ["published", "corrected"]
    found = found[found.reading == "published"].set_index("score")
    assert found.difference["consistency"] == pytest.approx(0.1)
    assert found.difference["sensitivity"] == pytest.approx(0.1)
    assert found.low["cose"] == pytest.approx(found.difference["cose"])
    assert (found.n == 20).all()


# --- a study -------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path, monkeypatch):
    """With a stand-in for an earlier network."""
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path)

    def earlier(self, key, dcls):
        path = tmp_path / "training" / variant_name(key, dcls) / "10-percent.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True)
            network = build_network(BACKBONES[key], dcls, mini=True, num_classes=12)
            save_weights(network, path, {})
        return [path]

    monkeypatch.setattr(Inputs, "training_checkpoints", earlier)
    return Study.from_profile("demo", ["resnet50"], ["grad_cam", "random_cam"])


def test_a_study_is_the_same_for_all_and_goes_on_where_it_ended(study, monkeypatch):
    table = score_cose(study, 3)
    by_model = [
        list(zip(rows.image_id, rows.change, rows.magnitude, strict=True))
        for _, rows in table[table.network == ITSELF].groupby(["dcls", "method"])
    ]
    assert len(by_model) == 4
    assert all(pairs == by_model[0] for pairs in by_model)
    assert len(by_model[0]) == 3 * 48
    names = list(table.network.unique())
    assert names[:2] == [ITSELF, "random weights"]
    assert len(names) == 3
    earlier = study.inputs.training_checkpoints("resnet50", False)
    assert [f"earlier: {p.name}" for p in earlier] == names[2:]

    def never(*arguments):
        raise AssertionError("made again")

    monkeypatch.setattr(cose_study, "pairs_of_changed_images", never)
    monkeypatch.setattr(cose_study, "pairs_of_changed_network", never)
    pd.testing.assert_frame_equal(score_cose(study, 3), table)
    kept = sorted(study.places.scores.with_name("cose").iterdir())
    kept[0].write_bytes(kept[0].read_bytes()[:100])  # damaged
    with pytest.raises(AssertionError, match="made again"):
        score_cose(study, 3)


def test_slow_explainers_foretell_their_time(study, capsys):
    row = replace(METHODS["layer_cam"], key="slow", label="Slow one", forwards=70)
    score_cose(study.changed(methods=(METHODS["grad_cam"], row)), 1)
    said = capsys.readouterr()
    assert "Slow one: about 70 forward passes per map" in said.out + said.err


def test_followed_is_what_pairs_score(images):
    model = mini("resnet50")
    seen = resize_images(images[:1], model.backbone.preprocessing)
    batch = clickme_of(images[:1], [predicted(model, seen[0])])
    given = ShownImages.of_clickme(batch, model.backbone.preprocessing)
    table = pairs_of_changed_images(model, [METHODS["layer_cam"]], given, BatchSize(49))
    shown = followed(model, METHODS["layer_cam"], batch)
    assert len(shown) == 1 + len(KINDS)
    for name in ("ssim", "corrected"):
        column = "ssim_published" if name == "ssim" else "ssim_corrected"
        scores = table.groupby("change")[column].apply(list)
        for row, kind in zip(shown[1:], dict.fromkeys(_by_size(3)), strict=True):
            assert any(getattr(row, name) == pytest.approx(s, abs=2e-4) for s in scores[kind])


def _by_size(place: int) -> list[str]:
    return [c.kind for c in sorted(changes_of(place), key=lambda c: -abs(c.magnitude))]


def test_undone_is_change_by_change():
    changes = [Change("translate_x", 5.0), Change("blur"), Change("rotate", 30.0)]
    maps = torch.rand(3, 40, 40)
    for change, one, back in zip(changes, maps, undone(changes, maps), strict=True):
        assert torch.equal(change.undo(one[None])[0], back)
    assert enlarge(maps, 40).shape == maps.shape


def test_pairs_without_an_ssim_are_counted_and_told():
    rows = [("a", "geometric", KEPT, math.nan), ("a", "photometric", CHANGED, 0.5)]
    row = summarise_cose(made_pairs(rows)).iloc[0]
    assert row.n_undefined == 1
    assert row.undefined_published == "no pair that stays right has an SSIM"


def test_levels_of_a_method_with_a_floor_are_of_maps_with_that_floor():
    plain, floored = (reference_levels(7, 224, floor)["published"] for floor in (0.0, 0.9))
    assert abs(floored["likeness"] - plain["likeness"]) > 0.05
    assert METHODS["threshold_grad_cam"].floor == 0.3
    assert METHODS["grad_cam"].floor == 0


def test_checkpoints_of_like_names_are_not_taken_for_each_other(tmp_path, monkeypatch):
    """Names alike up to their first dot; what is no weights file is none; a damaged one can be
    left out, and is told."""
    study = Study.from_profile("demo", ["resnet50"], ["grad_cam"], 2)
    whole = study.networks.load_model("resnet50", False)
    turned = {name: t.clone() for name, t in whole.network.state_dict().items()}
    for name in ("fc.weight", "fc.bias"):
        turned[name] = turned[name].roll(1, 0)
    folder = tmp_path / "resnet50"
    folder.mkdir()
    save_file(turned, folder / "net.epoch1.safetensors")
    save_file(dict(whole.network.state_dict()), folder / "net.epoch2.safetensors")
    (folder / "notes.txt").write_text("not weights")
    (folder / "net.epoch3.safetensors").write_bytes(b"damaged")

    def checkpoints(self, key, dcls):
        found = sorted(folder.iterdir()) if not dcls else []
        return [p for p in found if p.name.endswith(WEIGHTS_SUFFIXES)]

    monkeypatch.setattr(Inputs, "training_checkpoints", checkpoints)
    monkeypatch.setattr(Places, "scores", property(lambda self: tmp_path / "out" / "scores"))
    with pytest.raises(WeightsError, match="epoch3"):
        score_cose(study)
    pairs = score_cose(study.changed(keep_going=True))
    earlier = pairs[pairs.network.str.startswith("earlier")].set_index("network")
    same = earlier.loc["earlier: net.epoch2.safetensors"]
    other = earlier.loc["earlier: net.epoch1.safetensors"]
    assert (same.predicted == same.predicted_after).all()
    assert (other.predicted_after == (other.predicted + 1) % 12).all()
    told = left_out(pairs)
    assert list(told.left_out) == ["resnet50, earlier: net.epoch3.safetensors"]


def test_parts_are_means_over_their_own_pairs():
    """Against a loop over the table's rows."""
    rng = np.random.default_rng(3)
    kinds = [("shift", GEOMETRIC), ("turn", GEOMETRIC), ("blur", PHOTOMETRIC), ("random", MODEL)]
    rows = [
        {
            "backbone": backbone, "dcls": dcls, "method": method, "image_id": f"{image}",
            "group": group, "change": change,
            "condition": rng.choice([KEPT, CHANGED, MENDED], p=[0.5, 0.4, 0.1]),
            **{name: rng.uniform(0, 1) if rng.random() < 0.9 else np.nan
               for name in (*SSIM.values(), *MATCHED.values())},
        }
        for backbone in ("resnet50", "convnext_tiny") for dcls in (False, True)
        for method in ("grad_cam", "layer_cam") for image in rng.permutation(5)
        for change, group in kinds for _ in range(3)
        if (backbone, group) != ("convnext_tiny", PHOTOMETRIC)
    ]  # fmt: skip
    found = by_change(pd.DataFrame(rows))
    assert len(found) == 4 * (7 + 6)  # three groups, and each kind that there is
    for row in found.to_dict("records"):
        key = [row[name] for name in ("backbone", "dcls", "method")]
        own = [
            r for r in rows
            if [r["backbone"], r["dcls"], r["method"]] == key
            and row["part"] in (r["group"], r["change"])
        ]  # fmt: skip
        for reading, column in SSIM.items():
            known = [r for r in own if not math.isnan(r[column])]
            kept = [r[column] for r in known if r["condition"] == KEPT and r["group"] != MODEL]
            changed = [r[column] for r in known if r["condition"] == CHANGED]
            c = np.mean(kept) if kept else np.nan
            s = 1 - np.mean(changed) if changed else np.nan
            expected = [c, s, math.sqrt(c * s) if kept and changed else np.nan]
            names = [f"{name}_{reading}" for name in ("consistency", "sensitivity", "cose")]
            np.testing.assert_allclose([row[name] for name in names], expected)
        assert (row["n_kept"], row["n_changed"]) == (len(kept), len(changed))
