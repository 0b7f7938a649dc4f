"""Heatmaps made elsewhere score as they would by hand; what is wrong with a file is said."""

from __future__ import annotations

import json
import math
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import map_coordinates
from scipy.stats import spearmanr
from stand_ins import CEILINGS, NO_CONTROLS, make_record, settled, write_plateaus

from lib.commands import score_maps
from lib.maps.elsewhere import MapsError, as_scored, match, open_maps
from lib.networks.backbones import BACKBONES
from lib.people.clickme import ClickMe
from lib.people.human_maps import human_maps
from lib.people.protocols import PROTOCOLS
from lib.people.stored.shards import write_shard
from lib.scores.control_scores import score_controls
from lib.scores.controls import CONTROLS
from lib.scores.map_scores import COLUMNS, WHOLE, compare_maps, summarise_maps
from lib.scores.statistics import mean_interval
from lib.study.study import Study


@pytest.fixture
def images(tmp_path) -> Path:
    """Five images with human maps in a list, none of the demo's classes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["image,map,label"]
    for name in "abcde":
        Image.new("RGB", (256, 256)).save(folder / f"{name}.jpg")
        small = Image.fromarray(rng.integers(0, 256, (5, 5), dtype=np.uint8))
        small.resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{name}_human.png")
        rows.append(f"{name}.jpg,{name}_human.png,999")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def write_maps(folder: Path, names: str = "abcde", seed: int = 1, shape=(7, 7)) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for name in names:
        np.save(folder / f"{name}.npy", rng.random(shape, np.float32))
    return folder


def run(images: Path, *words: object) -> int:
    start = ["--images", images, "--protocols", "corrected"]
    return score_maps.main([str(word) for word in (*words, *start)])


def scored(images: Path, *words: object) -> pd.DataFrame:
    out = images.parent / "scores.csv"
    assert run(images, *words, "--out", out) in (0, 14)
    return pd.read_csv(out)


def enlarged(small: np.ndarray) -> np.ndarray:
    """Bilinear with half-pixel centres, the border repeated, by scipy."""
    at = [(np.arange(224) + 0.5) * n / 224 - 0.5 for n in small.shape]
    grid = np.meshgrid(*at, indexing="ij")
    return map_coordinates(small.astype(float), grid, order=1, mode="nearest")


# --- scores -------------------------------------------------------------------------------


def test_scores_are_scipys_of_maps_enlarged_by_scipy(images, tmp_path, capsys):
    maps = write_maps(tmp_path / "mine")
    table = scored(images, maps)
    assert list(table.columns) == [*COLUMNS, *sorted(CONTROLS)]
    assert (table.validity == "valid").all()
    batch = next(ClickMe([images], ("corrected",)).batches())
    people = human_maps(batch.stored_maps, PROTOCOLS["corrected"], WHOLE).numpy()
    expected = [
        spearmanr(enlarged(np.load(maps / f"{name[0]}.npy")).ravel(), human.ravel()).statistic
        for name, human in zip(batch.image_ids, people, strict=True)
    ]
    np.testing.assert_allclose(table.rho, expected, atol=2e-4)  # which is rounded before ranking
    facts = json.loads((tmp_path / "scores.json").read_text())
    (row,) = facts["summary"]
    # These maps tell no observers: nothing divides the correlation.
    assert row["score"] == row["raw"] == pytest.approx(np.mean(expected), abs=2e-4)
    assert row["ceiling"] is None
    assert row["n"] == 5
    found = mean_interval(table.rho, within=(-1, 1))
    assert row["raw_low"] == pytest.approx(found.low)
    assert row["raw_high"] == pytest.approx(found.high)
    assert row["other_human"] == pytest.approx(table.other_human.mean())
    means = table[[*CONTROLS]].mean()
    assert (row["control"], row["control_score"]) == (means.idxmax(), pytest.approx(means.max()))
    assert row["above_control"] is False
    assert facts["maps"]["mine"]["maps"] == 5
    assert len(facts["maps"]["mine"]["sha256"]) == 64
    told = capsys.readouterr().out
    assert "5 of 5 images have a heatmap; 0 heatmaps have no image" in told
    assert "human ceiling: none: it is not known how well these people agree" in told
    assert (
        "mine, corrected: has too few images (5) to say whether it is above the strongest" in told
    )


def test_the_human_maps_themselves_score_one_and_the_controls_are_the_studys(tmp_path, capsys):
    study = Study.from_profile("demo", ["convnext_tiny"], limit=6, protocols=["published"])
    clickme = study.clickme()
    batch = next(clickme.batches(6))
    np.savez(tmp_path / "people.npz",
             **dict(zip(batch.image_ids, batch.human_maps.numpy(), strict=True)))  # fmt: skip
    out = tmp_path / "s.csv"
    words = ["--profile", "demo", "--limit", "6", "--protocols", "published", "--out", str(out)]
    assert score_maps.main([str(tmp_path / "people.npz"), *words]) == 0
    table = pd.read_csv(out)
    np.testing.assert_allclose(table.rho, 1, atol=1e-12)
    controls = score_controls(study)
    for control in CONTROLS:
        rho = controls[controls.control == control].set_index("image_id").rho
        np.testing.assert_allclose(table[control], rho[table.image_id], atol=1e-12)
    assert "none: the 6 images with two observers or more are not enough" in capsys.readouterr().out
    given = [*words, "--ceiling", "0.8"]
    assert score_maps.main([str(tmp_path / "people.npz"), *given]) == 0
    (row,) = json.loads(out.with_suffix(".json").read_text())["summary"]
    assert row["score"] == pytest.approx(1 / 0.8)
    assert "human ceiling: 0.800, given" in capsys.readouterr().out


def test_both_protocols_score_the_images_that_they_read(shard, tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    rng = np.random.default_rng(0)
    for index in range(36):
        np.save(maps / f"val-0_{index}.npy", rng.random((4, 4)))
    out = tmp_path / "s.csv"
    assert score_maps.main([str(maps), "--images", str(shard.parent), "--out", str(out)]) == 0
    counts = pd.read_csv(out).groupby("protocol").size()
    assert counts.to_dict() == {"published": 32, "corrected": 36}


def test_a_protocol_that_settles_ties_does_so_in_both_maps(tmp_path):
    images, maps = write_plateaus(tmp_path / "people", 2), tmp_path / "maps"
    maps.mkdir()
    mine = np.random.default_rng(0).integers(0, 3, (2, 224, 224)) * 1.0
    mine += 1e-6 * np.random.default_rng(1).random(mine.shape)
    for index in range(2):
        np.save(maps / f"{index:02}.npy", mine[index])
    table = scored(images, maps)
    batch = next(ClickMe([images], ("corrected",)).batches())
    people = human_maps(batch.stored_maps, PROTOCOLS["corrected"], WHOLE).numpy()
    for rho, a, b in zip(table.rho, mine, people, strict=True):
        expected = spearmanr(settled(a).ravel(), settled(b).ravel()).statistic
        assert rho == pytest.approx(expected, abs=1e-9)


def test_a_geometry_crops_the_human_map_as_the_network_is_cropped(images, tmp_path):
    maps = write_maps(tmp_path / "mine")
    table = scored(images, maps, "--geometry", "resnet50")
    geometry = BACKBONES["resnet50"].preprocessing
    batch = next(ClickMe([images], ("corrected",)).batches())
    human = human_maps(batch.stored_maps, PROTOCOLS["corrected"], geometry)[2].numpy()
    expected = spearmanr(enlarged(np.load(maps / "c.npy")).ravel(), human.ravel()).statistic
    assert table.rho[2] == pytest.approx(expected, abs=2e-4)


def test_several_models_are_compared_paired_by_image(images, tmp_path, capsys):
    """The second lacks an image; four pairs decide nothing."""
    first = write_maps(tmp_path / "first")
    second = write_maps(tmp_path / "second", "abcd", seed=2)
    table = scored(images, first, second, "--name", "A model", "B")
    wide = table.pivot(index="image_id", columns="maps", values="rho")
    assert math.isnan(wide["B"]["e.jpg"])
    batch = next(ClickMe([images], ("corrected",)).batches())
    human = human_maps(batch.stored_maps, PROTOCOLS["corrected"], WHOLE)[1].numpy()
    for name, folder in (("A model", first), ("B", second)):
        expected = spearmanr(enlarged(np.load(folder / "b.npy")).ravel(), human.ravel()).statistic
        assert wide[name]["b.jpg"] == pytest.approx(expected, abs=2e-4)
    gain = (wide["B"] - wide["A model"]).dropna().to_numpy()
    (row,) = json.loads((tmp_path / "scores.json").read_text())["compared"]
    assert (row["maps"], row["minus"], row["n_paired"]) == ("B", "A model", 4)
    assert row["difference"] == pytest.approx(gain.mean())
    assert row["p"] is row["p_holm"] is None
    assert row["decision"] == "fewer than 50 images"
    assert "differences of scores, paired by image" in capsys.readouterr().out


def test_three_models_make_three_pairs_corrected_by_holm():
    rng = np.random.default_rng(0)
    scores = pd.DataFrame(
        [
            (name, f"p{i}", "corrected", shift + rng.normal() / 10, "valid")
            for name, shift in (("a", 0.0), ("b", 0.05), ("c", 0.3))
            for i in range(60)
        ],
        columns=COLUMNS,
    )
    found = compare_maps(scores, CEILINGS, 0.02)
    assert list(zip(found.maps, found.minus, strict=True)) == [("b", "a"), ("c", "a"), ("c", "b")]
    p = np.sort(found.p)
    expected = np.maximum.accumulate(np.minimum(p * [3, 2, 1], 1))
    np.testing.assert_allclose(np.sort(found.p_holm), expected)
    assert summarise_maps(scores, NO_CONTROLS, CEILINGS).n.tolist() == [60, 60, 60]


# --- readings of files --------------------------------------------------------------------


def test_every_kind_of_collection_gives_the_same_scores(images, tmp_path):
    maps = write_maps(tmp_path / "npy")
    arrays = {name: np.load(maps / f"{name}.npy") for name in "cabed"}
    for kind in ("one", "entry", "stack"):
        (tmp_path / kind).mkdir()
    for name, array in arrays.items():
        np.savez(tmp_path / "one" / f"{name}.npz", array)
        np.savez(tmp_path / "entry" / f"{name}.jpg.npz", map=array[..., None], other=3)
    np.savez(tmp_path / "all.npz", **{f"{name}.jpg": array for name, array in arrays.items()})
    stack = tmp_path / "stack" / "maps.npy"
    np.save(stack, np.stack([*arrays.values()]))
    (tmp_path / "stack" / "ids.txt").write_text("\n".join(arrays) + "\n")
    kinds = [maps, tmp_path / "one", tmp_path / "entry", tmp_path / "all.npz", stack]
    for place in [*kinds, tmp_path / "stack"]:
        found = open_maps(place)
        of = match(found, [f"{name}.jpg" for name in arrays]).of
        for name, array in arrays.items():
            np.testing.assert_array_equal(found.read(of[f"{name}.jpg"]), array)
    table = scored(images, *kinds, "--name", *"vwxyz")
    assert (table.pivot(index="image_id", columns="maps", values="rho").nunique(axis=1) == 1).all()


def test_grey_images_are_maps_too(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    deep = (grey.astype(np.uint16) * 1000).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(deep).save(tmp_path / "b.png")
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(tmp_path / "c.png")
    maps = open_maps(tmp_path)
    for name, expected in (("a", grey), ("b", deep), ("c", grey)):
        np.testing.assert_array_equal(maps.read(name), expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 300), st.integers(0, 2**31))
def test_maps_of_any_size_are_enlarged_as_scipy_does_it(height, width, seed):
    small = np.random.default_rng(seed).normal(size=(height, width))
    if height * width == 1:
        assert not as_scored(small).any()
        return
    np.testing.assert_allclose(as_scored(small).numpy(), enlarged(small), atol=1e-9)


def test_a_map_of_the_scored_size_is_taken_as_it_is():
    whole = np.random.default_rng(0).random((224, 224))
    np.testing.assert_array_equal(as_scored(whole).numpy(), whole)


@given(st.floats(-1e6, 1e6), st.integers(1, 9), st.sampled_from([np.float32, np.float64]))
@example(0.1, 1, np.float64)  # enlarged, it would have several values
def test_a_constant_map_stays_constant(value, side, kind):
    found = as_scored(np.full((side, side + 1), value, kind))
    assert torch.equal(found, torch.full_like(found, found[0, 0].item()))


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "u1", "i2", "i4", "i8", "?"])
def test_numbers_of_every_kind_keep_their_values(tmp_path, kind):
    stored = (np.arange(12).reshape(3, 4) % 7).astype(kind)
    np.save(tmp_path / "a.npy", stored)
    found = open_maps(tmp_path).read("a")
    assert found.dtype == (np.float64 if kind in ("f8", "i4", "i8") else np.float32)
    np.testing.assert_array_equal(found, stored)


# --- names --------------------------------------------------------------------------------


def test_names_that_several_images_could_have_are_nobodys(tmp_path):
    write_maps(tmp_path / "m", "ab")
    np.save(tmp_path / "m" / "c.png.npy", np.eye(3))
    found = match(open_maps(tmp_path / "m"), ["a.jpg", "a.png", "b.jpg", "c.png", "c.jpg"])
    assert found.of == {"b.jpg": "b", "c.png": "c.png"}
    assert found.without_image == ["a"]


def test_two_maps_of_one_image_are_refused(tmp_path):
    write_maps(tmp_path / "m", "a")
    np.save(tmp_path / "m" / "a.jpg.npy", np.eye(3))
    with pytest.raises(
        MapsError, match="a.jpg.npy and .*a.npy are maps of one image|a.npy and .*a.jpg"
    ):
        match(open_maps(tmp_path / "m"), ["a.jpg"])
    Image.new("L", (4, 4)).save(tmp_path / "m" / "a.png")
    with pytest.raises(MapsError, match="a.png and a.npy are maps of one image"):
        open_maps(tmp_path / "m")


def test_maps_of_other_images_are_told_with_names_of_both(images, tmp_path, capsys):
    assert run(images, write_maps(tmp_path / "m", "xy")) == 2
    error = capsys.readouterr().err
    assert "no map has the name of an image. Maps: x, y; images: a.jpg" in error
    assert "a name includes the folder" in error


def test_maps_without_a_image_and_images_without_a_map_are_counted(images, tmp_path, capsys):
    table = scored(images, write_maps(tmp_path / "m", "abcxy"))
    assert table.validity.tolist() == ["valid"] * 3 + ["no map"] * 2
    told = capsys.readouterr().out
    assert "3 of 5 images have a heatmap; 2 heatmaps have no image (x, y)" in told
    assert "n_no_map" in told


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    write_maps(tmp_path / "m", "a")
    np.save(tmp_path / "secret.npy", np.eye(3))
    (tmp_path / "m" / "b.npy").symlink_to(tmp_path / "secret.npy")
    with pytest.raises(MapsError, match="b.npy is a link out of the folder"):
        open_maps(tmp_path / "m")


# --- what is wrong with a file ------------------------------------------------------------


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


BAD = {
    "shape": (lambda p: np.save(p, np.zeros((7, 7, 3))), r"float64 of shape \(7, 7, 3\), expected"),
    "text": (lambda p: np.save(p, np.array([["x"]])), r"<U1 of shape \(1, 1\), expected numbers"),
    "complex": (lambda p: np.save(p, np.ones((2, 2), complex)), "complex128 of shape"),
    "empty": (lambda p: np.save(p, np.ones((0, 2))), r"shape \(0, 2\)"),
    "pickle": (lambda p: np.save(p, np.array([[{}]], object)), "cannot be read"),
    "cut": (_cut, "cannot be read"),
    "nothing": (lambda p: p.write_bytes(b""), "cannot be read"),
    "nan": (lambda p: np.save(p, np.where(np.eye(3), np.nan, 1)), r"3 of 9 values are not finite \(3 NaN\)"),
    "infinite": (lambda p: np.save(p, np.where(np.eye(3), np.inf, 1)), r"3 of 9 .* \(0 NaN\)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_told_before_anything_is_scored_or_left_out(kind, images, tmp_path, capsys):
    spoil, message = BAD[kind]
    maps = write_maps(tmp_path / "m")
    spoil(maps / "c.npy")
    out = tmp_path / "scores.csv"
    assert run(images, maps, "--out", out) == 2
    assert re.search(rf"c\.npy.*{message}", told := capsys.readouterr().err)
    assert "Nothing was scored" in told
    assert not out.exists()
    assert run(images, maps, "--out", out, "--keep-going") == 14
    validity = pd.read_csv(out).set_index("image_id").validity
    why = "non-finite map" if kind in ("nan", "infinite") else "unreadable map"
    assert validity.to_dict() == dict.fromkeys(["a.jpg", "b.jpg", "d.jpg", "e.jpg"], "valid") | {
        "c.jpg": why
    }
    assert re.search(rf"skipped:\n.*c\.npy.*{message}", capsys.readouterr().err)
    assert "c.npy" in json.loads(out.with_suffix(".json").read_text())["left_out"][0]


def test_all_bad_files_are_told_at_once_up_to_ten(tmp_path, capsys):
    images = tmp_path / "pictures"
    write_shard(images / "val-0.tfrecords", [make_record(i) for i in range(12)])
    maps = tmp_path / "m"
    maps.mkdir()
    for index in range(12):
        (maps / f"val-0_{index}.npy").write_text("no map")
    assert run(images, maps) == 2
    told = capsys.readouterr().err
    assert told.count("cannot be read") == 10
    assert "… and 2 more" in told


def test_constant_maps_are_counted(images, tmp_path):
    maps = write_maps(tmp_path / "m")
    np.save(maps / "b.npy", np.full((7, 5), 0.3, np.float32))
    table = scored(images, maps).set_index("image_id")
    assert table.validity["b.jpg"] == "constant model map"
    assert math.isnan(table.rho["b.jpg"])
    (row,) = json.loads((tmp_path / "scores.json").read_text())["summary"]
    assert (row["n"], row["n_constant_map"]) == (4, 1)


def test_what_cannot_be_read_of_people_costs_that_image_alone(images, tmp_path, capsys):
    (images / "d_human.png").write_bytes(b"no map")
    table = scored(images, write_maps(tmp_path / "m"))
    assert table.image_id.tolist() == ["a.jpg", "b.jpg", "c.jpg", "e.jpg"]
    assert "d_human.png is not a readable map" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "holds no maps"),
        (lambda p: p.write_text("x"), "neither a folder of maps"),
    ],
)
def test_a_place_without_maps_is_refused(tmp_path, make, message):
    make(tmp_path / "place")
    with pytest.raises(MapsError, match=message):
        open_maps(tmp_path / "place")


@pytest.mark.parametrize(
    ("array", "ids", "message"),
    [
        (np.zeros((2, 3, 3)), None, "needs a text file with one image name per line"),
        (np.zeros((2, 3, 3)), "a", "holds 2 maps, but .* 1 names"),
        (np.zeros((2, 3, 3)), "a\na", "repeats a"),
        (np.zeros((3, 3)), "a\nb\nc", r"has shape \(3, 3\), expected \(image, height, width\)"),
        (np.array([[[{}]]], object), "a", "not a readable .npy"),
    ],
)
def test_a_wrong_stack_is_refused(tmp_path, array, ids, message):
    np.save(tmp_path / "m.npy", array)
    if ids is not None:
        (tmp_path / "ids.txt").write_text(ids)
    with pytest.raises(MapsError, match=message):
        open_maps(tmp_path / "m.npy")


def test_wrong_archives_are_refused(tmp_path):
    (tmp_path / "a.npz").write_text("no archive")
    with pytest.raises(MapsError, match="not a readable .npz"):
        open_maps(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", first=np.eye(2), second=np.eye(2))
    with pytest.raises(MapsError, match="entries first, second: name the map 'map'"):
        open_maps(tmp_path).read("a")


def test_an_entry_that_is_there_twice_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", first=np.eye(2))
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("first.npy", archive.read("first.npy"))
    with pytest.raises(MapsError, match="holds first twice"):
        open_maps(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "scores.txt"], "must end in .csv"),
        (["--name", "a", "b"], "1 MAPS have 2 names"),
        (["--geometry", "resnet5"], "unknown .*resnet5.*Did you mean"),
        (["--profile", "papers"], "unknown profile"),
        (["--limit", "-1"], "limit must be"),
    ],
)
def test_what_is_asked_wrongly_is_said(images, tmp_path, capsys, words, message):
    assert run(images, write_maps(tmp_path / "m"), *words) == 2
    assert re.search(message, capsys.readouterr().err)


def test_images_that_are_not_there_are_said(tmp_path, capsys, no_real_data):
    maps = write_maps(tmp_path / "m")
    assert score_maps.main([str(maps)]) == 2
    assert "use --images FOLDER for your own" in capsys.readouterr().err
    assert run(tmp_path / "nowhere", maps) == 2
    assert "nowhere" in capsys.readouterr().err


def test_one_maps_name_twice_is_refused(images, tmp_path, capsys):
    maps = write_maps(tmp_path / "m")
    assert run(images, maps, maps) == 2
    assert "two of the MAPS have the same name" in capsys.readouterr().err
