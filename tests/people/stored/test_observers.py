"""What each observer adds to a human map, in every layout; the human map is that of their sum."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_ins import make_record

from lib.commands.check_images import main
from lib.people.clickme import ClickMe
from lib.people.stored import Part, StoredError, open_parts
from lib.people.stored.shards import observers_path, write_observers, write_shard

AT = np.arange(256) + 0.5


def opened(place: Path, tolerant: bool = False) -> Part:
    (part,) = open_parts([place], tolerant)
    return part


def human_map(part: Part, index: int = 0) -> np.ndarray:
    (found,) = part.read([index])
    if isinstance(found, StoredError):
        raise found
    return found.heatmap


# --- gaze -------------------------------------------------------------------------------------

POINTS = "a.png,100,50,300,ben\na.png,60,30,100,anna\na.png,150,200,200,ben\nb.png,9,9,1,3\n"


def write_gaze(folder: Path, points: str = POINTS, columns: str = "duration,observer") -> Path:
    """Two images of ClickMe's own size."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (256, 256)).save(folder / name)
    (folder / "labels.csv").write_text("image,label\na.png,3\nb.png,4\n")
    (folder / "gaze.csv").write_text(f"file,x,y,{columns}\n{points}")
    (folder / "gaze.json").write_text(json.dumps({"sigma_pixels": 20}))
    return folder


def gaussian(x: float, y: float, sigma: float = 20) -> np.ndarray:
    return np.exp(-((AT[None, :] - x) ** 2 + (AT[:, None] - y) ** 2) / (2 * sigma**2))


def test_an_observers_map_is_the_sum_of_his_own_points_gaussians(tmp_path):
    part = opened(write_gaze(tmp_path))
    maps = part.observer_maps(0)
    assert part.observers(0) == ("anna", "ben")
    assert (maps.dtype, maps.shape) == (np.float32, (2, 256, 256))
    anna, ben = gaussian(60, 30), 3 * gaussian(100, 50) + 2 * gaussian(150, 200)
    scale = 255 / (anna + ben).max()  # one for all, that they can be added
    np.testing.assert_allclose(maps, [anna * scale, ben * scale], rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(maps.sum(axis=0), human_map(part), rtol=1e-5, atol=1e-30)
    assert part.observers(1) == ("3",)
    np.testing.assert_array_equal(part.observer_maps(1)[0], human_map(part, 1))


def test_observers_change_neither_the_human_map_nor_the_name_of_kept_scores(tmp_path):
    part = opened(write_gaze(tmp_path))
    others = opened(write_gaze(tmp_path, POINTS.replace("anna", "ben")))
    nobody = opened(write_gaze(tmp_path, POINTS, "duration,remark"))
    for other in (others, nobody):
        np.testing.assert_array_equal(human_map(other), human_map(part))
        assert other.digest() == part.digest()
    assert len({each.observers_digest() for each in (part, others, nobody)}) == 3


@pytest.mark.parametrize("columns", ["duration,remark", "duration,observer"])
def test_without_names_the_observers_of_gaze_are_not_known(tmp_path, columns):
    unnamed = "a.png,9,9,1, \nb.png,9,9,1,\n" if "observer" in columns else POINTS
    part = opened(write_gaze(tmp_path, unnamed, columns))
    assert part.observers(0) == ()
    assert part.observer_maps(0).shape == (0, 256, 256)
    assert part.observer_maps(0).dtype == np.float32


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,1,1,1, ", "gaze.csv, line 6: lacks an observer: name one in every row, or in none"),
        ("a.png,1,1,1", "line 6: lacks an observer"),
        ("a.png,1,1,1,a\x1bb", r"line 6: the observer 'a.x1bb' is not printable text"),
    ],
)
def test_a_point_without_a_proper_observer_is_named_by_its_row(tmp_path, row, message):
    folder = write_gaze(tmp_path, f"{POINTS}{row}\n")
    with pytest.raises(StoredError, match=message):
        open_parts([folder])
    part = opened(folder, tolerant=True)
    assert [part.image_id(i) for i in range(len(part))] == ["b.png"]


def test_a_column_of_observers_that_is_written_otherwise_is_refused(tmp_path):
    with pytest.raises(
        StoredError,
        match="the column 'Observer' appears twice, or is another spelling of 'observer'",
    ):
        open_parts([write_gaze(tmp_path, columns="duration,Observer")])


def test_who_looked_beside_the_square_only_has_an_empty_map(tmp_path):
    folder = write_gaze(tmp_path, "a.png,5,50,1,anna\na.png,400,50,1,ben\nb.png,9,9,1,ben\n")
    Image.new("RGB", (800, 100)).save(folder / "a.png")
    (folder / "gaze.json").write_text(json.dumps({"sigma_pixels": 2}))
    maps = opened(folder).observer_maps(0)
    assert [bool(each.any()) for each in maps] == [False, True]


def test_a_image_that_cannot_be_read_has_no_observers_maps_either(tmp_path):
    part = opened(write_gaze(tmp_path))
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(StoredError, match=r"a\.png is not a readable image"):
        part.observer_maps(0)


# --- maps -------------------------------------------------------------------------------------

ROWS = "a.png,two.png,3,ben\na.png,one.npy,3,anna\nb.png,small.npy,4,ben\n"


def write_maps(folder: Path, rows: str = ROWS, column: str = "observer") -> Path:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (256, 256)).save(folder / name)
    np.save(folder / "one.npy", np.eye(256))
    Image.fromarray(np.full((256, 256), 200, np.uint8)).save(folder / "two.png")
    np.save(folder / "small.npy", np.full((64, 64), 7))
    (folder / "labels.csv").write_text(f"image,map,label,{column}\n{rows}")
    return folder


def test_a_images_map_is_the_mean_of_its_observers_maps(tmp_path):
    part = opened(write_maps(tmp_path))
    assert [part.image_id(i) for i in range(len(part))] == ["a.png", "b.png"]
    assert [part.observers(i) for i in range(2)] == [("anna", "ben"), ("ben",)]
    maps = part.observer_maps(0)
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(maps, [np.eye(256), np.full((256, 256), 200)])
    assert human_map(part).dtype == np.float32
    np.testing.assert_array_equal(human_map(part), 100 + np.eye(256) / 2)
    np.testing.assert_array_equal(part.observer_maps(1), np.full((1, 256, 256), 7))


def test_the_hash_of_maps_follows_which_are_of_one_image_and_whose(tmp_path):
    several = opened(write_maps(tmp_path))
    renamed = opened(write_maps(tmp_path, ROWS.replace("anna", "abe")))
    assert several.digest() == renamed.digest()
    assert several.observers_digest() != renamed.observers_digest()
    unnamed = ROWS.replace("a.png,two.png,3,ben\n", "")
    one = opened(write_maps(tmp_path, unnamed))
    assert one.digest() == opened(write_maps(tmp_path, unnamed, "remark")).digest()
    assert one.digest() != several.digest()


def test_without_names_the_observers_of_maps_are_not_known(tmp_path):
    part = opened(write_maps(tmp_path, "a.png,two.png,3,\n"))
    assert part.observers(0) == ()
    assert part.observer_maps(0).shape == (0, 256, 256)
    assert human_map(part).dtype == np.uint8


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("./a.png,two.png,3,ben", "line 5: repeats a.png and its observer ben of line 2"),
        ("a.png,two.png,4,zoe", "line 5: the label of a.png is 4 here, 3 in a line above"),
        ("a.png,two.png,3,", "line 5: lacks an observer"),
        ("a.png,gone.png,3,zoe", "line 5: gone.png does not exist"),
    ],
)
def test_one_wrong_row_of_a_image_leaves_it_out(tmp_path, row, message):
    folder = write_maps(tmp_path, f"{ROWS}{row}\n")
    with pytest.raises(StoredError, match=message):
        open_parts([folder])
    part = opened(folder, tolerant=True)
    assert [part.image_id(i) for i in range(len(part))] == ["b.png"]
    assert "line 5" in part.damage


def test_an_observers_wrong_map_is_named(tmp_path):
    part = opened(write_maps(tmp_path))
    np.save(tmp_path / "one.npy", np.eye(256, 128))
    message = r"one\.npy: the map is 256x128.* their proportions differ"
    with pytest.raises(StoredError, match=message):
        human_map(part)
    with pytest.raises(StoredError, match=message):
        part.observer_maps(0)


# --- archives ---------------------------------------------------------------------------------


def write_archive(folder: Path, **maps: np.ndarray) -> Path:
    np.savez(folder / "a.npz", image=np.zeros((256, 256, 3), np.uint8), label=1, **maps)
    return folder


def test_an_archives_map_is_the_mean_of_its_heatmaps(tmp_path):
    maps = np.stack([np.eye(256), np.full((256, 256), 3)])
    part = opened(write_archive(tmp_path, heatmaps=maps))
    np.testing.assert_array_equal(part.observer_maps(0), maps.astype(np.float32))
    np.testing.assert_array_equal(human_map(part), (maps.sum(axis=0) / 2).astype(np.float32))
    assert part.observers(0) == ()
    before = part.observers_digest()
    assert opened(write_archive(tmp_path, heatmaps=maps[::-1])).observers_digest() != before


def test_an_archive_of_one_map_tells_no_observers(tmp_path):
    part = opened(write_archive(tmp_path, heatmap=np.eye(256)))
    assert part.observer_maps(0).shape == (0, 256, 256)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (
            {"heatmap": np.eye(256), "heatmaps": np.ones((2, 256, 256))},
            "has heatmap and also heatmaps, the observers' maps: keep one",
        ),
        ({}, "lacks heatmap or heatmaps; has"),
        ({"heatmaps": np.eye(256)}, r"heatmaps is float64 \(256, 256\), expected numbers .obs"),
        ({"heatmaps": np.ones((0, 256, 256))}, r"heatmaps is float64 \(0, 256, 256\)"),
        ({"heatmaps": np.ones((2, 256, 64))}, "the map is 256x64.* their proportions differ"),
        ({"heatmaps": np.full((2, 256, 256), np.nan)}, "values that are not finite"),
        ({"heatmaps": np.ones((2000, 2, 2))}, "2000 observers of one image, at most 1024"),
        ({"heatmaps": np.array([[["a"]]])}, "expected numbers"),
    ],
)
def test_wrong_maps_of_an_archive_are_named(tmp_path, maps, message):
    part = opened(write_archive(tmp_path, **maps))
    with pytest.raises(StoredError, match=rf"a\.npz.*{message}"):
        human_map(part)
    with pytest.raises(StoredError, match=rf"a\.npz.*{message}"):
        part.observer_maps(0)


# --- shards -----------------------------------------------------------------------------------


def write_painted(folder: Path, *counts: int) -> tuple[Path, list[np.ndarray]]:
    """A shard of two records, and what so many observers painted on each."""
    shard = folder / "val-0.tfrecords"
    write_shard(shard, [make_record(i) for i in range(2)])
    rng = np.random.default_rng(0)
    masks = [rng.random((count, 256, 256)) < 0.3 for count in counts]
    if masks:
        write_observers(shard, masks)
    return shard, masks


def test_what_observers_painted_lies_beside_their_shard(tmp_path):
    shard, masks = write_painted(tmp_path, 3, 1)
    part = opened(shard)
    for index in range(2):
        found = part.observer_maps(index)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, masks[index])
    with np.load(tmp_path / "val-0.observers.npz") as entries:
        assert [*entries["counts"]] == [3, 1]
        np.testing.assert_array_equal(
            np.unpackbits(entries["masks"], axis=2), np.concatenate(masks)
        )
    assert open_parts([tmp_path])[0].image_id(1) == "val-0:1"  # a folder of shards still


def test_a_shard_alone_tells_no_observers_and_is_named_as_before(tmp_path):
    shard, _ = write_painted(tmp_path)
    part = opened(shard)
    assert part.observer_maps(0).shape == (0, 256, 256)
    alone = part.digest()
    assert part.observers_digest() == alone
    write_painted(tmp_path, 2, 2)
    assert part.digest() == alone
    assert part.observers_digest() != alone


def test_observers_can_be_kept_at_a_coarser_side(tmp_path):
    shard, _ = write_painted(tmp_path)
    masks = np.zeros((1, 256, 256), bool)
    masks[0, 128:, :64] = True
    write_observers(shard, [masks, masks[:0]], side=64)
    np.testing.assert_array_equal(opened(shard).observer_maps(0), masks)
    assert opened(shard).observer_maps(1).shape == (0, 256, 256)


MASKS, COUNTS = np.zeros((3, 64, 8), np.uint8), np.array([2, 1])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"masks": MASKS}, "is not a readable .npz file"),
        ({"counts": np.array([3]), "masks": MASKS}, "counts must give how many of the 3 masks"),
        ({"counts": np.array([2, 2]), "masks": MASKS}, "counts must give how many of the 3 masks"),
        ({"counts": np.array([2.0, 1]), "masks": MASKS}, "counts must give.*float64"),
        ({"counts": COUNTS, "masks": MASKS[0]}, r"masks is uint8 \(64, 8\), expected uint8"),
        ({"counts": COUNTS, "masks": MASKS.astype(bool)}, "masks is bool"),
        ({"counts": COUNTS, "masks": np.zeros((3, 48, 6), np.uint8)}, "a side that divides 256"),
        ({"counts": COUNTS, "masks": np.array([{}], object)}, "is not a readable .npz file"),
        (
            {"counts": np.array([1025, 0]), "masks": np.zeros((1025, 8, 1), np.uint8)},
            "at most 1024",
        ),
        ({"counts": COUNTS, "masks": np.zeros((40000, 256, 32), np.uint8)}, "328 MB"),
    ],
)
def test_wrong_observers_of_a_shard_are_named(tmp_path, entries, message):
    shard, _ = write_painted(tmp_path)
    np.savez_compressed(observers_path(shard), **entries)
    with pytest.raises(StoredError, match=rf"val-0\.observers\.npz.*{message}"):
        opened(shard).observer_maps(0)


@pytest.mark.parametrize("damage", ["text", "cut", "flipped"])
def test_damaged_observers_of_a_shard_are_named(tmp_path, damage):
    shard, _ = write_painted(tmp_path, 2, 2)
    path = observers_path(shard)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as entries:
        content[entries.infolist()[1].header_offset + 500] ^= 1
    path.write_bytes({"text": b"<html>", "cut": content[:600], "flipped": content}[damage])
    with pytest.raises(StoredError, match=r"val-0\.observers\.npz is not a readable .npz file"):
        opened(shard).observer_maps(0)


# --- all of them ------------------------------------------------------------------------------


def test_images_of_two_or_more_observers_are_given_one_by_one(tmp_path):
    clickme = ClickMe([write_gaze(tmp_path)], ("corrected",))
    ((image_id, place, maps),) = clickme.observed()  # b.png has one observer
    assert (image_id, place) == ("a.png", 0)
    np.testing.assert_array_equal(maps.numpy(), opened(tmp_path).observer_maps(0))
    nobody = ClickMe([write_gaze(tmp_path, POINTS, "duration,remark")], ("corrected",))
    assert list(nobody.observed()) == []


def test_only_chosen_images_are_given_by_their_places_among_all(tmp_path):
    shard, _ = write_painted(tmp_path, 2, 2)
    (chosen,) = ClickMe([shard], ("corrected",), limit=1).chosen
    (found,) = ClickMe([shard], ("corrected",), limit=1).observed()
    assert (found.image_id, found.place) == (chosen.image_id, chosen.place)


def test_observers_that_cannot_be_read_are_left_out_where_that_is_asked(tmp_path):
    folder = write_gaze(tmp_path, POINTS + "b.png,1,1,1,4\n")
    (folder / "a.png").write_text("no image")
    with pytest.raises(StoredError, match=r"a\.png"):
        list(ClickMe([folder], ("corrected",)).observed())
    tolerant = ClickMe([folder], ("corrected",), keep_going=True)
    assert [found.image_id for found in tolerant.observed()] == ["b.png"]
    assert "not a readable image" in tolerant.left_out["a.png"]


def checked(place: Path, capsys) -> str:
    main([str(place)])
    return capsys.readouterr().out


def test_check_counts_observers(tmp_path, capsys):
    assert "\nobservers: 3, 1 to 2 per image\n" in checked(write_gaze(tmp_path), capsys)
    write_gaze(tmp_path, POINTS, "duration,remark")
    assert "\nobservers: unknown\n" in checked(tmp_path, capsys)


def test_check_counts_observers_without_names_and_tells_their_file_once(tmp_path, capsys):
    shard, _ = write_painted(tmp_path, 2, 2)
    assert "\nobservers: 2 per image\n" in checked(shard, capsys)
    observers_path(shard).write_text("<html>")
    told = checked(tmp_path, capsys)
    assert "problems: 1\n" in told
    assert "val-0.observers.npz is not a readable .npz file" in told
