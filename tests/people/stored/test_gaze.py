"""Gaze points as human maps, and what is said of a folder in which something is wrong."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from stand_ins import make_record

from lib.commands.check_images import main
from lib.people.clickme import ClickMe
from lib.people.stored import Read, StoredError, open_parts
from lib.people.stored.check import check
from lib.people.stored.gaze import gaze_map
from lib.people.stored.shards import Shard, write_shard

GAZE = "file,x,y\na.png,100,50\na.png,30.5,20\nb.png,128,200\n"


def write_gaze(
    folder: Path,
    gaze: str = GAZE,
    labels: str = "image,label\na.png,3\nb.png,4\n",
    blur: object = None,
) -> Path:
    """A wide image `a.png` (200 x 100), and `b.png` of ClickMe's own size."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for name, (width, height) in {"a.png": (200, 100), "b.png": (256, 256)}.items():
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "labels.csv").write_text(labels)
    (folder / "gaze.csv").write_text(gaze)
    (folder / "gaze.json").write_text(json.dumps(blur or {"sigma_pixels": 10}))
    return folder


def first(folder: Path, index: int = 0):
    (found,) = open_parts([folder])[0].read([index])
    if isinstance(found, StoredError):
        raise found
    return found


# --- the map ------------------------------------------------------------------------------


def test_a_map_is_scipys_gaussian_filter_of_a_raster_of_points():
    rng = np.random.default_rng(1)
    rows, columns = rng.integers(40, 216, (2, 12))
    weights = rng.uniform(0.1, 2, 12)
    raster = np.zeros((256, 256))
    np.add.at(raster, (rows, columns), weights)
    expected = gaussian_filter(raster, 9, mode="constant", truncate=12)
    points = np.column_stack([columns + 0.5, rows + 0.5, weights])
    found = gaze_map(points, 9, 256, 256)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected / expected.max() * 255, atol=1e-4)


def test_a_map_of_a_wide_image_is_scipys_cut_to_the_centred_square():
    """512 x 256: the square is columns 128 to 383, and points beside it reach into it."""
    raster = np.zeros((256, 512))
    raster[100, 120] = raster[30, 250] = 1
    expected = gaussian_filter(raster, 15, mode="constant", truncate=12)[:, 128:384]
    found = gaze_map(np.array([[120.5, 100.5, 1], [250.5, 30.5, 1]]), 15, 512, 256)
    np.testing.assert_allclose(found, expected / expected.max() * 255, atol=1e-4)


@given(
    st.integers(100, 900), st.integers(100, 900), st.floats(0.05, 0.95), st.floats(0.05, 0.95)
)  # fmt: skip
def test_the_highest_place_is_the_point_by_hand(width, height, across, down):
    side = min(width, height)
    x = (width - side) / 2 + across * side
    y = (height - side) / 2 + down * side
    found = gaze_map(np.array([[x, y, 1.0]]), side / 10, width, height)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert abs(column + 0.5 - across * 256) <= 0.5 + 1e-6
    assert abs(row + 0.5 - down * 256) <= 0.5 + 1e-6
    assert found.max() == 255
    assert found.min() >= 0


def test_many_points_are_summed_as_few_are():
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(0, 90, (9000, 2)), rng.uniform(1, 2, 9000)])
    halves = [gaze_map(part, 5, 90, 90).astype(float) for part in (points[:4500], points[4500:])]
    whole = gaze_map(points, 5, 90, 90)
    weights = np.linalg.lstsq(np.column_stack([h.ravel() for h in halves]), whole.ravel(), None)[0]
    assert np.abs(weights @ [h.ravel() for h in halves] - whole.ravel()).max() < 1e-3


def test_what_nobody_looked_at_in_the_square_is_a_constant_map():
    assert not gaze_map(np.array([[1.0, 50, 1]]), 1, 2000, 100).any()


# --- the folder ---------------------------------------------------------------------------


def test_a_folder_is_read_like_any_other(tmp_path):
    folder = write_gaze(tmp_path / "gaze")
    batch = next(ClickMe([folder], ("corrected",)).batches())
    assert batch.image_ids == ["a.png", "b.png"]
    assert batch.labels.tolist() == [3, 4]
    # By hand: of 200 x 100 the square begins at x = 50, and 100 pixels become 256; the blur too.
    at = np.arange(256) + 0.5
    expected = np.zeros((256, 256))
    for x, y in ((100, 50), (30.5, 20)):
        across, down = (at - (x - 50) * 2.56) / 25.6, (at - y * 2.56) / 25.6
        expected += np.exp(-(across[None, :] ** 2 + down[:, None] ** 2) / 2)
    expected *= 255 / expected.max()
    np.testing.assert_allclose(batch.stored_maps[0].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_the_image_is_cut_as_a_plain_folders_is(tmp_path):
    folder = write_gaze(tmp_path / "gaze")
    plain = write_gaze(tmp_path / "plain")
    (plain / "gaze.csv").unlink()
    np.save(plain / "a.npy", np.eye(100, 200))
    (plain / "labels.csv").write_text("image,map,label\na.png,a.npy,3\n")
    np.testing.assert_array_equal(first(folder).image, first(plain).image)


def test_durations_weigh_and_their_unit_does_not_matter(tmp_path):
    rows = [("a.png", 80, 50, 0.2), ("a.png", 120, 50, 0.6), ("b.png", 9, 9, 1)]
    seconds = "".join(f"{f},{x},{y},{d}\n" for f, x, y, d in rows)
    milliseconds = "".join(f"{f},{x},{y},{d * 1000:g}\n" for f, x, y, d in rows)
    maps = [
        first(write_gaze(tmp_path / name, f"file,x,y,duration\n{text}")).heatmap
        for name, text in (("s", seconds), ("ms", milliseconds))
    ]
    np.testing.assert_allclose(*maps, rtol=1e-5)
    # The two lie at 30 and 70 of the square's 100 pixels, far apart for this blur.
    assert maps[0][128, 77] / maps[0][128, 179] == pytest.approx(1 / 3, abs=0.01)


def test_a_blur_in_degrees_is_that_in_pixels(tmp_path):
    one = write_gaze(tmp_path / "a", blur={"sigma_pixels": 12})
    other = write_gaze(tmp_path / "b", blur={"sigma_degrees": 0.5, "pixels_per_degree": 24})
    np.testing.assert_array_equal(first(one).heatmap, first(other).heatmap)


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_points_of_a_turned_photograph_are_those_of_the_upright_one(tmp_path, turn):
    folder = write_gaze(tmp_path, "file,x,y\na.jpg,40,150\n", "image,label\na.jpg,0\n")
    exif = Image.Exif()
    exif[0x0112] = turn  # stored 200 x 100, shown 100 x 200
    Image.new("RGB", (200, 100)).save(folder / "a.jpg", exif=exif)
    row, column = np.unravel_index(first(folder).heatmap.argmax(), (256, 256))
    # The square begins at y = 50; 40 and 100 of its 100 pixels are 102.4 and 256 of 256.
    assert (row, column) in {(255, 101), (255, 102)}


def test_kept_scores_follow_points_blur_and_labels(tmp_path):
    digests = {open_parts([write_gaze(tmp_path)])[0].digest()}
    for change in (
        {"gaze": GAZE.replace("30.5", "30.6")},
        {"labels": "image,label\na.png,3\nb.png,5\n"},
        {"blur": {"sigma_pixels": 11}},
    ):
        digests.add(open_parts([write_gaze(tmp_path, **change)])[0].digest())
    assert len(digests) == 4


# --- what is wrong is said ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,201,50", r"gaze.csv, line 5: \(201, 50\) lies outside a.png, which is 200 wide"),
        ("a.png,20,-1", "lies outside"),
        ("a.png,x,1", "line 5: x is 'x', expected a number"),
        ("a.png,1", "line 5: y is None, expected a number"),
        ("a.png,nan,1", "line 5: x is 'nan'"),
        ("c.png,1,1", "line 5: c.png is not listed in labels.csv"),
        ("../a.png,1,1", "is not listed"),
    ],
)
def test_a_wrong_point_is_named_by_its_row(tmp_path, row, message):
    folder = write_gaze(tmp_path, f"{GAZE}{row}\n")
    with pytest.raises(StoredError, match=message):
        open_parts([folder])
    (part,) = open_parts([folder], tolerant=True)
    left = ["b.png"] if row.startswith("a.png") else ["a.png", "b.png"]
    assert [part.image_id(i) for i in range(len(part))] == left
    assert "line 5" in part.damage


def test_points_beside_the_image_are_left_out_where_that_is_said(tmp_path):
    allowed = {"sigma_pixels": 10, "outside": "leave out"}
    folder = write_gaze(tmp_path, f"{GAZE}a.png,-3,5\n", blur=allowed)
    assert (check(folder).points, check(folder).outside, check(folder).problems) == (3, 1, [])
    folder = write_gaze(tmp_path, "file,x,y\na.png,-3,5\nb.png,1,1\n", blur=allowed)
    with pytest.raises(StoredError, match="line 2: .*no point for a.png, but 1 outside it"):
        open_parts([folder])


@pytest.mark.parametrize(
    ("blur", "message"),
    [
        ({"sigma": 3}, "unknown key 'sigma'. Did you mean 'sigma_pixels'"),
        ({"sigma_pixels": 3, "skip_first": 0.5}, "skip_first is 0.5, expected a whole number"),
        ({"sigma_pixels": 3, "screen": [1680]}, "expected width and height, such as 1680x1050"),
        ({"sigma_pixels": 3, "sigma_degrees": 1}, "must give"),
        ({"sigma_degrees": 1}, "must give"),
        ([3], "does not have the expected shape.*; it must contain"),
        ({"sigma_pixels": 0}, "sigma_pixels is 0, expected a number above 0"),
        ({"sigma_pixels": "25"}, "expected a number above 0"),
        ({"sigma_pixels": float("inf")}, "expected a number above 0"),
        ({"sigma_pixels": 10**400}, "expected a number above 0"),
        ({"sigma_pixels": 3, "outside": "yes"}, "outside is 'yes', expected one of refuse"),
    ],
)
def test_a_wrong_blur_is_refused(tmp_path, blur, message):
    with pytest.raises(StoredError, match=f"gaze.json.*{message}"):
        open_parts([write_gaze(tmp_path, blur=blur)])


def test_there_is_no_default_blur(tmp_path):
    folder = write_gaze(tmp_path)
    (folder / "gaze.json").unlink()
    with pytest.raises(
        StoredError, match='gaze.json does not exist: .*such as {"sigma_pixels": 25}'
    ):
        open_parts([folder])


@pytest.mark.parametrize("sigma", [0.2, 300])
def test_a_blur_that_makes_no_map_is_refused(tmp_path, sigma):
    folder = write_gaze(tmp_path, blur={"sigma_pixels": sigma})
    with pytest.raises(StoredError, match=r"a\.png: a sigma of .* expected 1 to 256; change"):
        first(folder)


@pytest.mark.parametrize(
    ("gaze", "labels", "message"),
    [
        ("file,x\na.png,1\n", None, "gaze.csv needs the columns file,x,y; has file,x"),
        ("file,x,y\n", None, "gaze.csv lists no image"),
        ("file,x,y\nb.png,1,1\n", None, "labels.csv, line 2: gaze.csv has no point for a.png"),
        (GAZE, "image,map,label\na.png,m.png,1\n", "line 2: names the map m.png"),
        (GAZE, "image,label\n../a.png,1\n", "line 2: ../a.png leads out of the folder"),
        ("file,x,y,duration\na.png,1,1,0\n", None, "line 2: a duration of 0, expected more"),
        ("file,x,y,duration\na.png,1,1,\n", None, "line 2: duration is ''"),
        (
            "file,x,y,Duration\na.png,1,1,9\n",
            None,
            "the column 'Duration' appears twice, or is another",
        ),
        ("file,x,y,x\na.png,1,1,9\n", None, "the column 'x' appears twice"),
        (GAZE, "image,label\na.png,3\n./a.png,3\n", "line 3: repeats a.png of line 2"),
        (GAZE, "image,label\na.png,cat\n", "line 2: the label 'cat' is not a class index"),
    ],
)
def test_what_is_wrong_in_the_lists_is_named(tmp_path, gaze, labels, message):
    folder = write_gaze(tmp_path, gaze, labels or "image,label\na.png,3\nb.png,4\n")
    with pytest.raises(StoredError, match=message):
        open_parts([folder])


def test_points_need_no_labels(tmp_path):
    """Images are those that the points name, in subfolders too; the list has either name."""
    labelled = write_gaze(tmp_path / "labelled")
    folder = write_gaze(tmp_path / "plain")
    (folder / "labels.csv").unlink()
    (folder / "gaze.csv").rename(folder / "fixations.csv")
    (folder / "photographs").mkdir()
    (folder / "a.png").rename(folder / "photographs" / "a.png")
    assert first(folder).label == -1
    np.testing.assert_array_equal(first(folder).heatmap, first(labelled).heatmap)
    assert [batch.labels.tolist() for batch in ClickMe([folder], ("gaze",)).batches()] == [[-1, -1]]
    with pytest.raises(StoredError, match="no classes of its images: use `--target predicted`"):
        ClickMe([folder], ("gaze",), labelled=True)
    (folder / "b.png").unlink()
    with pytest.raises(StoredError, match=r"fixations.csv, line 4: b.png is not an image below"):
        open_parts([folder])


def test_pixels_of_a_screen_are_thought_of(tmp_path, capsys):
    """A point beside the image is most often one of the screen."""
    folder = write_gaze(tmp_path, GAZE + "a.png,900,500\n")
    with pytest.raises(
        StoredError, match='in screen pixels, give its size, such as "screen": "1920x'
    ):
        open_parts([folder])
    with pytest.raises(StoredError, match=r"\(300, 150\) lies outside a.png, .*: check screen"):
        open_parts([folder], read=Read(gaze=("screen=1400x800",)))
    main([str(folder), "--gaze", "outside=leave out"])
    assert "many fixations lie outside their images: if points" in capsys.readouterr().out


def test_two_names_of_one_image_are_one_image(tmp_path):
    folder = write_gaze(tmp_path, "file,x,y\np/a.png,100,50\na.png,30.5,20\n./p/a.png,9,9\n")
    (folder / "labels.csv").unlink()
    (folder / "p").mkdir()
    (folder / "a.png").rename(folder / "p" / "a.png")
    (part,) = open_parts([folder])
    assert [part.image_id(i) for i in range(len(part))] == ["p/a.png"]
    assert len(part.fixations(0).at) == 3


def test_a_list_of_points_may_not_be_a_link_out_of_the_folder(tmp_path):
    folder = write_gaze(tmp_path / "gaze")
    (folder / "gaze.csv").rename(tmp_path / "elsewhere.csv")
    (folder / "gaze.csv").symlink_to(tmp_path / "elsewhere.csv")
    with pytest.raises(StoredError, match="gaze.csv is a link that leads out of the folder"):
        open_parts([folder])


def test_fixations_that_all_lasted_nothing_make_no_map(tmp_path):
    said = {"sigma_pixels": 10, "weigh": "counts"}
    folder = write_gaze(tmp_path, ROWS + "a.png,10,10,0,eva\n", "image\na.png\n", said)
    assert first(folder).heatmap.max() == 255
    (part,) = open_parts([folder])
    part.viewing = replace(part.viewing, weigh="durations")
    (found,) = part.read([0])
    assert "every fixation lasted 0; weight them equally" in str(found)


def test_nobody_looks_at_a_bar(tmp_path):
    """Padded, a point beside the image would lie on it."""
    said = {"sigma_pixels": 10, "outside": "keep"}
    folder = write_gaze(tmp_path, "file,x,y\na.png,100,50\na.png,100,-20\n", "image\na.png\n", said)
    found = open_parts([folder], read=Read(fit="pad"))[0].fixations(0)
    np.testing.assert_allclose(found.at, [[128, 128]])
    assert found.outside == 1


def test_what_is_said_of_a_folder_must_fit_it(tmp_path):
    write_shard(tmp_path / "val-0.tfrecords", [make_record(0)])
    assert len(open_parts([tmp_path], read=Read("shards"))[0]) == 1
    for read, message in (
        (Read("osie"), "lacks data/eye/fixations.mat"),
        (Read("maps"), "has no labels.csv, a list of image,map"),
        (Read(fit="pad"), "contains squares with maps of clicks: omit --fit and --gaze"),
        (Read(gaze=("sigma_pixels=3",)), "omit --fit and --gaze"),
    ):
        with pytest.raises(StoredError, match=message):
            open_parts([tmp_path], read=read)
    with pytest.raises(StoredError, match="is not a folder of the layout gaze"):
        open_parts([tmp_path / "val-0.tfrecords"], read=Read("gaze"))
    with pytest.raises(StoredError, match="contains no shards"):
        open_parts([write_gaze(tmp_path / "gaze")], read=Read("shards"))
    with pytest.raises(StoredError, match="expected width and height, such as 1680x1050"):
        open_parts([tmp_path / "gaze"], read=Read(gaze=("screen=-600x400",)))


def test_an_option_is_said_in_place_of_the_files_value(tmp_path):
    folder = write_gaze(tmp_path)
    wide = open_parts([folder], read=Read(gaze=("sigma_degrees=0.5", "pixels_per_degree=60")))[0]
    expected = write_gaze(tmp_path / "other", blur={"sigma_pixels": 30})
    np.testing.assert_array_equal(next(wide.read([0])).heatmap, first(expected).heatmap)
    (folder / "gaze.json").unlink()
    assert len(open_parts([folder], read=Read(gaze=("sigma_pixels=10",)))[0]) == 2
    with pytest.raises(StoredError, match="--gaze: unknown key 'sigma_pixel'. Did you mean"):
        open_parts([folder], read=Read(gaze=("sigma_pixel=10", "sigma_degrees=1")))
    for wrong in (("sigma_pixels",), ("sigma_pixels=1", "sigma_pixels=2")):
        with pytest.raises(StoredError, match="--gaze takes KEY=VALUE, each key once"):
            Read(gaze=wrong)


# --- recorded on a screen -----------------------------------------------------------------

ROWS = "file,x,y,duration,observer\n"


@pytest.mark.parametrize(
    ("screen", "placed", "at", "expected"),
    [
        # a.png is 200 x 100. By hand, where a point of the screen lies on it.
        ("400x300", "centre", (200, 150), (100, 50)),
        ("400x300", "centre", (130, 110), (30, 10)),
        ("400x300", "letterbox", (200, 150), (100, 50)),  # drawn 400 x 200, from y = 50
        ("400x300", "letterbox", (100, 70), (50, 10)),
        ("400x300", "stretch", (200, 150), (100, 50)),
        ("400x300", "stretch", (100, 60), (50, 20)),
    ],
)
def test_points_of_a_screen_are_moved_to_the_image(tmp_path, screen, placed, at, expected):
    folder = write_gaze(tmp_path, f"file,x,y\na.png,{at[0]},{at[1]}\n", "image\na.png\n")
    read = Read(gaze=(f"screen={screen}", f"placed={placed}"), fit="stretch")
    found = open_parts([folder], read=read)[0].fixations(0)
    np.testing.assert_allclose(found.at / [1.28, 2.56], [expected])


def test_first_fixations_are_left_out_of_each_observer(tmp_path):
    gaze = ROWS + "a.png,10,10,9,eva\na.png,60,50,1,bo\na.png,90,50,1,eva\na.png,120,50,3,bo\n"
    folder = write_gaze(tmp_path, gaze, "image\na.png\n")
    part = open_parts([folder], read=Read(gaze=("skip_first=1", "weigh=counts")))[0]
    found = part.fixations(0)
    np.testing.assert_allclose((found.at[:, 0] + 128) / 2.56, [90, 120])  # the square's left is 50
    assert found.weights.tolist() == [1, 1]
    assert found.owners.tolist() == [1, 0]  # bo, eva
    part = open_parts([folder], read=Read(gaze=("skip_first=1",)))[0]
    assert part.fixations(0).weights.tolist() == [1, 3]
    none = open_parts([folder], read=Read(gaze=("skip_first=2",)))[0]
    with pytest.raises(StoredError, match="no fixation left: 4 were recorded, 4 are skipped first"):
        none.fixations(0)


def test_points_beside_the_image_may_reach_into_it(tmp_path):
    """As embedded: a square of a wider image, with the points of all of it."""
    whole = write_gaze(tmp_path / "wide", "file,x,y\na.png,45,50\na.png,120,30\n", "image\na.png\n")
    square = write_gaze(
        tmp_path / "square", "file,x,y\na.png,-5,50\na.png,70,30\n", "image\na.png\n",
        {"sigma_pixels": 10, "outside": "keep"},
    )  # fmt: skip
    with Image.open(whole / "a.png") as wide:
        wide.crop((50, 0, 150, 100)).save(square / "a.png")
    np.testing.assert_allclose(first(square).heatmap, first(whole).heatmap, atol=1e-4)
    found = open_parts([square])[0].fixations(0)
    assert (len(found.at), found.beside, found.outside) == (2, 1, 0)


# --- images that are no squares ----------------------------------------------------------


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_a_whole_image_and_its_points_become_a_square_alike(tmp_path, fit):
    """A white spot where the point is: both maps are highest in the same place."""
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[8:13, 178:183] = 255
    folder = write_gaze(tmp_path, "file,x,y\na.png,180.5,10.5\n", "image\na.png\n")
    Image.fromarray(pixels).save(folder / "a.png")
    part = open_parts([folder], read=Read(fit=fit))[0]
    (found,) = part.read([0])
    bright = np.argwhere(found.image[..., 0] > 128).mean(axis=0)
    highest = np.argwhere(found.heatmap == found.heatmap.max()).mean(axis=0)
    assert np.abs(bright - highest).max() < 1.01
    # By hand: padded, 200 x 100 become 256 x 128 below 64 rows of bar.
    expected = (64 + 10.5 * 1.28, 180.5 * 1.28) if fit == "pad" else (10.5 * 2.56, 180.5 * 1.28)
    np.testing.assert_allclose(highest + 0.5, expected, atol=1)
    if fit == "pad":
        assert not found.heatmap[:64].any()
        assert not found.heatmap[192:].any()
        assert found.heatmap[64:192].min() >= 0
        assert (found.image[:64] == found.image[0, 0]).all()


def test_a_stored_map_is_padded_as_its_image(tmp_path):
    Image.new("RGB", (200, 100), "red").save(tmp_path / "a.png")
    np.save(tmp_path / "m.npy", np.full((50, 100), 7.0) + np.eye(50, 100))
    (tmp_path / "labels.csv").write_text("image,map\na.png,m.npy\n")
    found = next(open_parts([tmp_path], read=Read(fit="pad"))[0].read([0]))
    assert found.label == -1
    assert (found.heatmap[:64] == 7).all()
    assert (found.heatmap[192:] == 7).all()
    assert found.heatmap[64:192].max() > 7.5


def test_a_wrong_layout_or_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown fit 'padd'. Did you mean 'pad'"):
        Read(fit="padd")
    with pytest.raises(ValueError, match="unknown layout 'osiee'"):
        Read(layout="osiee")
    folder = write_gaze(tmp_path)
    (folder / "gaze.csv").unlink()
    with pytest.raises(StoredError, match="has none of gaze.csv, fixations.csv"):
        open_parts([folder], read=Read(layout="gaze"))


# --- the whole folder at once -------------------------------------------------------------


def test_check_says_all_that_is_wrong_at_once(tmp_path, capsys):
    for name in "abcdef":
        Image.new("RGB", (256, 256)).save(tmp_path / f"{name}.png")
        Image.fromarray(np.eye(256, dtype=np.uint8)).save(tmp_path / f"{name}_map.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    Image.new("L", (256, 256)).save(tmp_path / "d_map.png")
    Image.new("RGB", (256, 256), "red").save(tmp_path / "e_map.png")
    (tmp_path / "notes.txt").write_text("a note")
    rows = [f"{n}.png,{n}_map.png,{label}" for n, label in zip("abcde", range(5), strict=True)]
    rows += ["f.png,f_map.png,1000", "g.png,f_map.png,1", "a.png,a_map.png,cat"]
    (tmp_path / "labels.csv").write_text("\n".join(["image,map,label", *rows, ""]))
    assert main([str(tmp_path)]) == 2
    told = capsys.readouterr().out
    for line in (
        "images with human maps that can be read: 3, of 3 classes (0 to 3)",
        "because they rank nothing: 1 (d.png)",
        "files that nothing names: 1 (notes.txt)",
        "problems: 5",
        "labels.csv, line 8: g.png does not exist",
        "labels.csv, line 9: the label ",
        "c.png is not a readable image",
        "e_map.png is in colour",
        "label 1000 is outside 0 … 999",
    ):
        assert line in told


def test_check_finds_nothing_wrong_with_a_good_folder(tmp_path, capsys):
    assert main([str(write_gaze(tmp_path))]) == 0
    told = capsys.readouterr().out
    assert "images with human maps that can be read: 2, of 2 classes (3 to 4)" in told
    assert "gaze points: 3; outside their images, skipped: 0" in told
    assert told.endswith("problems: 0\n")


def test_more_than_ten_problems_are_told_by_check_alone(tmp_path):
    folder = write_gaze(tmp_path, GAZE + "a.png,999,9\n" * 15)
    with pytest.raises(StoredError, match="… and 5 more: dcls-check"):
        open_parts([folder])
    assert len(check(folder).problems) == 15


def test_check_reads_shards_and_says_every_damaged_record(tmp_path):
    path = tmp_path / "val-0.tfrecords"
    write_shard(path, [make_record(i) for i in range(5)])
    content = bytearray(path.read_bytes())
    for index in (1, 3):
        content[Shard(path).addresses[index].offset + 50] ^= 1
    path.write_bytes(content)
    found = check(tmp_path)
    assert found.images == 3
    assert [f"record {i}" in p for i, p in zip((1, 3), found.problems, strict=True)] == [True] * 2


def test_check_of_what_is_not_there(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert main([str(tmp_path)]) == 2
    assert "contains no images" in capsys.readouterr().out


def test_a_subfolder_that_cannot_be_read_is_not_passed_over(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    np.savez(tmp_path / "a.npz", image=np.zeros((256, 256, 3), "u1"), heatmap=np.eye(256), label=1)
    listing = os.scandir

    def refusing(path):  # by hand: for an administrator no folder is locked
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(StoredError, match="locked cannot be read: Permission denied"):
        open_parts([tmp_path])
    (part,) = open_parts([tmp_path], tolerant=True)
    assert len(part) == 1
    assert "locked" in part.damage
