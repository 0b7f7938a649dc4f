"""Images and maps in ordinary files score as the same ones in shards do."""

from __future__ import annotations

import csv
import resource
import struct
import subprocess
import sys
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import simplejpeg
from PIL import Image
from stand_ins import jpeg, make_record

from lib.base.fingerprint import sha256_of, size_of
from lib.people.clickme import ClickMe
from lib.people.images import read_image
from lib.people.stored import StoredError, image_files, open_parts
from lib.people.stored.folders import read_grey, read_listed_image
from lib.people.stored.shards import Record, Shard, write_shard


def records(count: int = 32) -> list[Record]:
    return [make_record(i, label=i % 5) for i in range(count)]


def decoded(record: Record) -> tuple[np.ndarray, np.ndarray]:
    image = simplejpeg.decode_jpeg(record.image, fastdct=True)
    return image, simplejpeg.decode_jpeg(record.heatmap, "GRAY", fastdct=True)[..., 0]


def write_archives(folder: Path, stored: list[Record]) -> Path:
    folder.mkdir(parents=True)
    for i, record in enumerate(stored):
        image, human = decoded(record)
        np.savez(folder / f"p{i:03}.npz", image=image, heatmap=human[..., None], label=record.label)
    return folder


def write_folder(folder: Path, stored: list[Record], map_suffix: str = "png") -> Path:
    for name in ("images", "maps"):
        (folder / name).mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "map", "label", "observer"])
        for i, record in enumerate(stored):
            (folder / f"images/{i:03}.jpg").write_bytes(record.image)
            path = folder / f"maps/{i:03}.{map_suffix}"
            human = decoded(record)[1]
            if map_suffix == "png":
                Image.fromarray(human).save(path)
            elif map_suffix == "jpg":
                path.write_bytes(record.heatmap)
            else:
                np.save(path, human.astype(np.float64))
            writer.writerow([f"images/{i:03}.jpg", f"maps/{i:03}.{map_suffix}", record.label, "a"])
    return folder


def whole(place: Path):
    return next(ClickMe([place], ("corrected",)).batches(1000))


def test_every_kind_of_store_delivers_the_same_images_maps_and_labels(tmp_path):
    stored = records()
    shards = tmp_path / "shards"
    write_shard(shards / "val-0.tfrecords", stored)
    expected = whole(shards)
    for place in (
        write_archives(tmp_path / "archives", stored),
        write_folder(tmp_path / "png", stored),
        write_folder(tmp_path / "jpg", stored, "jpg"),
        write_folder(tmp_path / "npy", stored, "npy"),
    ):
        batch = whole(place)
        np.testing.assert_array_equal(batch.images, expected.images)
        np.testing.assert_array_equal(batch.human_maps, expected.human_maps)
        assert batch.labels.tolist() == expected.labels.tolist()
        assert len(set(batch.image_ids)) == 32


def test_ids_are_the_files_own_names(tmp_path):
    assert whole(write_archives(tmp_path / "a", records())).image_ids[1] == "p001"
    assert whole(write_folder(tmp_path / "b", records())).image_ids[1] == "images/001.jpg"


def test_a_folder_is_read_in_parts_of_a_shards_size(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.people.stored.folders.PER_PART", 10)
    folder = write_archives(tmp_path / "my gaze", records(24))
    parts = open_parts([folder])
    assert [(p.name, len(p)) for p in parts] == [
        ("my_gaze-0", 10),
        ("my_gaze-1", 10),
        ("my_gaze-2", 4),
    ]
    before = [p.digest() for p in parts]
    np.savez(
        folder / "p015.npz", image=np.zeros((256, 256, 3), np.uint8), heatmap=np.eye(256), label=1
    )
    after = [p.digest() for p in open_parts([folder])]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    assert len(list(ClickMe([folder], ("corrected",)).per_part())) == 3


def test_shards_in_a_folder_are_read_by_number(tmp_path):
    for number in (10, 2, 0):
        write_shard(tmp_path / f"val-{number}.tfrecords", records(1))
    assert [p.name for p in open_parts([tmp_path])] == ["val-0", "val-2", "val-10"]
    assert [p.stem for p in image_files(tmp_path)] == ["val-0", "val-2", "val-10"]


def test_the_published_protocol_takes_whole_batches_of_a_folder_of_any_size(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "lib.people.stored.folders.PER_PART", 2
    )  # more parts than ClickMe has shards
    clickme = ClickMe([write_archives(tmp_path / "a", records(70))], ("published", "corrected"))
    assert (clickme.scored("published"), clickme.scored("corrected")) == (64, 70)


def test_other_sizes_become_the_centred_square(tmp_path):
    """A wide image and its map: what lies off-centre in both is cut from both."""
    folder = tmp_path / "wide"
    folder.mkdir()
    image = np.zeros((300, 600, 3), np.uint8)
    image[:, 150:450] = 200  # just the centred square
    human = np.zeros((150, 300), np.float32)
    human[:, 75:225] = np.linspace(0, 1, 150)[:, None]
    Image.fromarray(image).save(folder / "a.png")
    np.save(folder / "a.npy", human)
    (folder / "labels.csv").write_text("image,map,label\na.png,a.npy,3\n")
    (found,) = open_parts([folder])[0].read([0])
    assert found.image.shape == (256, 256, 3)
    assert (found.image[:, 2:-2] == 200).all()
    assert found.heatmap.shape == (256, 256)
    rows = found.heatmap[:, 128]
    assert np.all(np.diff(rows) >= 0)  # still a ramp from 0 to 1
    assert rows[0] == pytest.approx(0, abs=0.01)
    assert rows[-1] == pytest.approx(1, abs=0.01)
    inner = found.heatmap[:, 1:-1]  # the outermost columns see what was cut
    np.testing.assert_allclose(inner, np.broadcast_to(rows[:, None], inner.shape), atol=1e-5)


def test_a_turned_photograph_is_read_upright(tmp_path):
    pixels = np.zeros((256, 256, 3), np.uint8)
    pixels[:20] = 255  # a white band above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    Image.fromarray(np.eye(256, dtype=np.uint8)).save(tmp_path / "m.png")
    (tmp_path / "labels.csv").write_text("image,map,label\na.jpg,m.png,0\n")
    (found,) = open_parts([tmp_path])[0].read([0])
    assert found.image[:, -10].mean() > 240  # the band is at the right
    assert found.image[:, 10].mean() < 15


def test_sixteen_bit_maps_keep_their_steps(tmp_path):
    steps = np.arange(256 * 256, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(steps).save(tmp_path / "m.png")
    Image.new("RGB", (256, 256)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("image,map,label\na.png,m.png,0\n")
    (found,) = open_parts([tmp_path])[0].read([0])
    np.testing.assert_array_equal(found.heatmap, steps)


def test_float_images_of_either_range_are_read(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    for name, image in (("a", pixels), ("b", pixels / 255.0), ("c", pixels.astype(np.float32))):
        np.savez(tmp_path / f"{name}.npz", image=image, heatmap=np.eye(256), label=np.array([2]))
    for found in open_parts([tmp_path])[0].read(range(3)):
        np.testing.assert_array_equal(found.image, pixels)
        assert found.label == 2


def test_float_images_are_rounded(tmp_path):
    image = np.full((256, 256, 3), 0.29)
    image[0] = 1
    np.savez(tmp_path / "a.npz", image=image, heatmap=np.eye(256), label=1)
    (found,) = open_parts([tmp_path])[0].read([0])
    assert (found.image[1:] == 74).all()  # 73.95


# --- what is wrong is named ---------------------------------------------------------------


GOOD = {"image": np.zeros((256, 256, 3), np.uint8), "heatmap": np.eye(256), "label": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": -1}, "label is -1, expected a class index from 0"),
        ({"label": 1.5}, "label is float64"),
        ({"label": [1, 2]}, "label is int64 .2,., expected one integer"),
        ({"image": np.zeros((256, 256), np.uint8)}, r"image has shape \(256, 256\)"),
        ({"image": np.full((256, 256, 3), 300.0)}, "values are not in 0-1 or 0-255"),
        ({"image": np.full((256, 256, 3), np.nan)}, "values are not in 0-1 or 0-255"),
        ({"heatmap": np.full((256, 256), np.inf)}, "not finite"),
        ({"heatmap": np.zeros((256, 256, 3))}, "expected numbers"),
        ({"heatmap": np.zeros((64, 128))}, "their proportions differ"),
        ({"heatmap": np.array([["a"]])}, "expected numbers"),
        ({"heatmap": np.array([[{}]], object)}, "not a readable .npz"),  # would need unpickling
    ],
)  # fmt: skip
def test_a_wrong_archive_is_named(tmp_path, change, message):
    values = {k: v for k, v in (GOOD | change).items() if v is not None}
    np.savez(tmp_path / "bad.npz", **values)
    with pytest.raises(StoredError, match=rf"bad\.npz.*{message}"):
        list(ClickMe([tmp_path], ("corrected",)).batches())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x93NUMPY", b"<html>"])
def test_what_is_no_archive_is_named(tmp_path, content):
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(StoredError, match=r"bad\.npz"):
        list(ClickMe([tmp_path], ("corrected",)).batches())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/etc/passwd,m.png,1", "line 2: /etc/passwd leads out of the folder"),
        ("../a.png,m.png,1", "line 2: ../a.png leads out"),
        ("..\\a.png,m.png,1", "leads out"),
        ("C:a.png,m.png,1", "leads out"),
        ("b.png,m.png,1", "line 2: b.png does not exist"),
        ("a.png,m.png,cat", "line 2: the label 'cat' is not a class index"),
        ("a.png,m.png,٣", "line 2: the label '٣' is not a class index"),
        ("a.png,m.png,1_0", "line 2: the label '1_0' is not a class index"),
        (f"{'a' * 5000}.png,m.png,1", "line 2: a+ … does not exist: no file has so long a name"),
        ("a.png,,1", "line 2: lacks a path"),
        ("a.png", "line 2: lacks a path"),
        ("a.png,m.png,1\na.png,m.png,2", "line 3: repeats a.png of line 2"),
        ("", "lists no image"),
        ("a\x1b]0;x\x07.png,m.png,1", r"line 2: 'a.x1b.0;x.x07.png' is not printable text"),
        ("a.png,m\u202e.png,1", "line 2: 'm.u202e.png' is not printable text"),
        ("out.png,m.png,1", "line 2: out.png is a link that leads out of the folder"),
        ("a.png,outer/m.png,1", "line 2: outer/m.png is a link that leads out of the folder"),
    ],
)
def test_a_wrong_line_of_the_list_is_named(tmp_path, tmp_path_factory, line, message):
    outside = tmp_path_factory.mktemp("outside")
    Image.new("L", (256, 256)).save(outside / "m.png")
    Image.new("RGB", (256, 256)).save(tmp_path / "a.png")
    Image.new("L", (256, 256)).save(tmp_path / "m.png")
    (tmp_path / "labels.csv").write_text(f"image,map,label\n{line}\n")
    (tmp_path / "out.png").symlink_to(outside / "m.png")
    (tmp_path / "outer").symlink_to(outside)
    with pytest.raises(StoredError, match=message) as caught:
        open_parts([tmp_path])
    assert all(words.isprintable() for words in str(caught.value).splitlines())


def test_links_within_the_folder_are_read_and_those_of_archives_that_lead_out_are_told(tmp_path):
    folder = write_archives(tmp_path / "a", records(2))
    inner = next(folder.glob("*.npz"))
    (folder / "again.npz").symlink_to(inner)
    assert len(open_parts([folder])[0]) == 3
    inner.rename(tmp_path / "elsewhere.npz")
    (folder / "again.npz").unlink()
    (folder / "again.npz").symlink_to(tmp_path / "elsewhere.npz")
    with pytest.raises(StoredError, match="again.npz is a link that leads out of the folder"):
        open_parts([folder])
    assert len(open_parts([folder], tolerant=True)[0]) == 1


def claiming(path: Path, side: int) -> Path:
    """A JPEG or PNG of a few hundred bytes whose header says that it is side x side."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".png":
        content[16:24] = struct.pack(">II", side, side)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    else:
        begin = content.index(b"\xff\xc0") + 5
        content[begin : begin + 4] = struct.pack(">HH", side, side)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("side", [65_500, 12_000])
def test_a_image_that_claims_to_be_huge_is_refused_by_its_header(tmp_path, suffix, mode, side):
    path = tmp_path / f"a{suffix}"
    Image.new(mode, (256, 256)).save(path)
    claiming(path, side)
    said = (
        f"a{suffix} is not a readable .*: its header says ({side} x|far more).* at most 89 million"
    )
    for read in (read_image, read_grey, read_listed_image):
        with limited(2**30), pytest.raises(ValueError, match=said):
            read(path)


@contextmanager
def limited(more: int):
    """This process may take so many bytes more; what asks for gigabytes fails at once."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_record_whose_image_claims_to_be_huge_is_refused_by_its_header(tmp_path):
    record = records(1)[0]
    (tmp_path / "a.jpg").write_bytes(record.image)
    image = claiming(tmp_path / "a.jpg", 65_500).read_bytes()
    write_shard(tmp_path / "s.tfrecords", [Record(image, record.heatmap, 1)])
    with limited(2**30):
        (found,) = open_parts([tmp_path / "s.tfrecords"])[0].read([0])
    assert "the image is 65500x65500" in str(found)


def test_a_list_without_its_columns_or_text_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_text("file,label\n")
    with pytest.raises(StoredError, match="needs the columns image,map;"):
        open_parts([tmp_path])
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(StoredError, match="not a CSV file in UTF-8"):
        open_parts([tmp_path])


@pytest.mark.parametrize(
    ("image", "human", "message"),
    [
        ("text", "good", "a.png is not a readable image"),
        ("good", "text", "m.png is not a readable map"),
        ("good", "colour", "m.png is in colour"),
        ("good", "small", "their proportions differ"),
        ("wide", "good", "their proportions differ"),
    ],
)
def test_a_wrong_image_or_map_is_named(tmp_path, image, human, message):
    made = {
        "good": Image.new("L", (256, 256)), "small": Image.new("L", (256, 128)),
        "colour": Image.new("RGB", (256, 256), "red"), "wide": Image.new("RGB", (300, 256)),
    }  # fmt: skip
    for name, kind in (("a.png", image), ("m.png", human)):
        if kind == "text":
            (tmp_path / name).write_text("no image")
        else:
            made[kind].save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("image,map,label\na.png,m.png,1\n")
    with pytest.raises(StoredError, match=message):
        list(ClickMe([tmp_path], ("corrected",)).batches())


def test_an_empty_folder_and_none_are_told_apart(tmp_path):
    with pytest.raises(StoredError, match="contains no images: neither shards"):
        open_parts([tmp_path])
    with pytest.raises(FileNotFoundError):
        open_parts([tmp_path / "nowhere"])


# --- leaving out what cannot be read --------------------------------------------------------


def test_tolerant_reading_holds_what_lies_before_the_damage(shard):
    content = shard.read_bytes()
    cut = Shard(shard).addresses[20].offset + 100
    shard.write_bytes(content[:cut])
    part = Shard(shard, tolerant=True)
    assert len(part) == 20
    assert "record 20 at byte" in part.damage
    clickme = ClickMe([shard], ("corrected",), keep_going=True)
    assert sum(len(b.image_ids) for b in clickme.batches(7)) == 20
    assert list(clickme.left_out) == ["val-0"]


def test_a_damaged_record_is_left_out_alone_and_named(shard):
    content = bytearray(shard.read_bytes())
    content[Shard(shard).addresses[5].offset + 50] ^= 1
    shard.write_bytes(content)
    clickme = ClickMe([shard], ("corrected",), keep_going=True)
    ids = [i for batch in clickme.batches(7) for i in batch.image_ids]
    assert ids == [f"val-0:{i}" for i in range(36) if i != 5]
    assert "checksum does not match" in clickme.left_out["val-0:5"]


def test_labels_outside_the_classes_are_left_out_too(tmp_path):
    path = tmp_path / "val-0.tfrecords"
    write_shard(path, [*records(3), Record(*decoded_pair(), 7)])
    clickme = ClickMe([path], ("corrected",), classes=5, keep_going=True)
    assert [len(b.image_ids) for b in clickme.batches(9)] == [3]
    assert "label 7 is outside 0 … 4" in clickme.left_out["val-0:3"]


def decoded_pair() -> tuple[bytes, bytes]:
    return jpeg(np.zeros((256, 256, 3), np.uint8)), jpeg(np.zeros((256, 256), np.uint8))


# --- hashes, imports --------------------------------------------------------------------------


def test_a_folders_hash_follows_its_contents_and_names(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "x").write_text("one")
    first = sha256_of(folder)
    assert size_of(folder) == 3
    (folder / "y").write_text("two")
    second = sha256_of(folder)
    (folder / "y").rename(folder / "z")
    assert len({first, second, sha256_of(folder)}) == 3
    (folder / "z").unlink()
    assert sha256_of(folder) == first


def test_listing_a_store_imports_no_torch(tmp_path):
    write_shard(tmp_path / "val-0.tfrecords", records(1))
    code = (
        "import sys; from pathlib import Path; from lib.people.stored import open_parts;"
        f"open_parts([Path({str(tmp_path)!r})]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
