"""The ClickMe reader: the format, its faults, and TensorFlow's own values."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from reading import GOLDEN, SHARD, places
from stand_ins import jpeg, make_record
from tfrecord.reader import tfrecord_loader

from lib.base.paths import ROOT
from lib.people.clickme import ClickMe, deliver_images
from lib.people.human_maps import published_human_maps
from lib.people.stored import StoredError
from lib.people.stored.shards import Record, Shard, write_shard
from lib.scores import scoring  # noqa: F401 - it imports the rest of what a study reads with


def index_shard(path: Path):
    return Shard(path).addresses


@pytest.fixture(scope="module")
def demo_batches():
    clickme = ClickMe([SHARD], classes=12)
    return clickme, list(clickme.batches(50))


# --- against TensorFlow ---------------------------------------------------------


def test_reading_equals_tensorflows(demo_batches):
    clickme, batches = demo_batches
    rows, columns = places()
    images = np.concatenate([b.images[:, rows, columns] for b in batches])
    maps = np.concatenate([b.human_maps.numpy()[:, rows, columns] for b in batches])
    labels = np.concatenate([b.labels.numpy() for b in batches])
    with np.load(GOLDEN) as golden:
        scored = len(clickme)
        np.testing.assert_array_equal(labels, golden["labels"][:scored])
        np.testing.assert_allclose(maps, golden["maps"][:scored], atol=1e-3, rtol=0)
        np.testing.assert_array_equal(images, golden["images"][:scored])


def test_an_independent_reader_finds_the_same_records():
    addresses = index_shard(SHARD)
    clickme = ClickMe([SHARD], classes=12)
    stored = list(tfrecord_loader(str(SHARD), None, {"image": "byte", "label": "int"}))
    assert len(stored) == len(addresses) == clickme.stored
    for (_, record), theirs in zip(Shard(SHARD).records(), stored, strict=True):
        assert record.image == bytes(theirs["image"])
        assert record.label == theirs["label"][0]


def test_human_map_equals_a_literal_blur():
    # Shrink, zero-pad, weigh 10x10 neighbours, enlarge: by hand at one pixel of the small map.
    stored = torch.zeros(1, 256, 256)
    stored[0, 100:140, 60:120] = 200
    taps = np.arange(-5, 5)
    weights = np.exp(-(np.arange(4, -6, -1)[:, None] ** 2 + taps[None, :] ** 2) / 200.0)
    weights /= weights.sum()
    # 256 -> 64 bilinear at half pixels is the mean of the two middle of four pixels
    image = stored[0].numpy()
    small = (image[1::4] + image[2::4]) / 2
    small = (small[:, 1::4] + small[:, 2::4]) / 2
    padded = np.pad(small, ((4, 5), (4, 5)))
    blurred = np.array(
        [[(padded[r : r + 10, c : c + 10] * weights).sum() for c in range(64)] for r in range(64)]
    )
    # 64 -> 224: output pixel p lies at (p + 0.5) * 64 / 224 - 0.5
    at = np.clip((np.arange(224) + 0.5) * 64 / 224 - 0.5, 0, 63)
    low = np.minimum(at.astype(int), 62)
    f = at - low
    rows = blurred[low] * (1 - f)[:, None] + blurred[low + 1] * f[:, None]
    expected = rows[:, low] * (1 - f) + rows[:, low + 1] * f
    np.testing.assert_allclose(published_human_maps(stored)[0], expected, atol=1e-3)


def test_zero_padding_dims_the_corners_as_documented():
    maps = published_human_maps(torch.full((1, 256, 256), 255.0))[0] / 255
    corners = [maps[r, c].item() for r in (0, -1) for c in (0, -1)]
    edges = [maps[112, 0], maps[112, -1], maps[0, 112], maps[-1, 112]]
    assert 0.24 < min(corners) < max(corners) < 0.37
    assert all(0.49 < e.item() < 0.61 for e in edges)
    assert maps[112, 112].item() == pytest.approx(1)


def test_images_are_truncated_not_rounded():
    stored = np.zeros((1, 256, 256, 3), np.uint8)
    stored[:, ::2] = 255
    delivered = deliver_images(stored)
    exact = torch.nn.functional.interpolate(
        torch.from_numpy(stored).permute(0, 3, 1, 2).double(), (224, 224), mode="bilinear"
    )
    np.testing.assert_array_equal(delivered, np.floor(exact.numpy() + 1e-4).transpose(0, 2, 3, 1))


# --- protocol, subsets, streaming ----------------------------------------------


def test_the_last_partial_batch_is_left_out_and_counted(shard):
    clickme = ClickMe([shard])
    assert (clickme.stored, len(clickme), clickme.scored("published")) == (36, 32, 32)
    both = ClickMe([shard], ("published", "corrected"))
    assert (len(both), both.scored("published"), both.scored("corrected")) == (36, 32, 36)
    assert [place for batch in both.batches(7) for place in batch.places] == list(range(36))


def test_whole_batches_are_counted_across_shards(shard, tmp_path):
    second = tmp_path / "val-1.tfrecords"
    write_shard(second, (make_record(100 + i) for i in range(30)))
    clickme = ClickMe([shard, second])
    assert (clickme.stored, len(clickme)) == (66, 64)
    ids = [i for batch in clickme.batches(7) for i in batch.image_ids]
    assert ids == [*(f"val-0:{i}" for i in range(36)), *(f"val-1:{i}" for i in range(28))]


def test_an_unread_shard_counts_only_if_it_is_named_and_last(shard, tmp_path):
    second = tmp_path / "val-1.tfrecords"
    write_shard(second, [make_record(0)] * 34)
    for unread, published in (("val-1", 32), ("val-0", 64), ("", 64)):
        clickme = ClickMe([shard, second], ("published", "corrected"), unread=unread)
        assert (clickme.scored("published"), clickme.scored("corrected")) == (published, 70)


def test_batches_hold_everything_once_and_the_last_may_be_smaller(shard):
    clickme = ClickMe([shard])
    batches = list(clickme.batches(5))
    assert [len(b.image_ids) for b in batches] == [5] * 6 + [2]
    one = list(clickme.batches(100))[0]
    assert torch.equal(torch.cat([b.human_maps for b in batches]), one.human_maps)
    assert np.array_equal(np.concatenate([b.images for b in batches]), one.images)
    assert one.images.shape == (32, 224, 224, 3)
    assert one.images.dtype == np.uint8
    assert one.human_maps.shape == (32, 224, 224)
    assert one.labels.tolist() == [i % 5 for i in range(32)]


def test_limit_takes_a_fixed_subset_and_a_smaller_ones_lie_in_it(shard):
    def ids(limit):
        return [a.image_id for a in ClickMe([shard], limit=limit).chosen]

    assert len(ids(10)) == 10
    assert ids(10) == ids(10)
    assert set(ids(4)) < set(ids(10)) < set(ids(0))
    assert ids(10) != ids(0)[:10]
    assert ids(1000) == ids(0)
    both = ClickMe([shard], ("published", "corrected"), limit=10)
    assert [a.image_id for a in both.chosen] == ids(10)  # all are scored by both
    assert both.scored("published") == both.scored("corrected") == 10


def test_a_shard_smaller_than_one_whole_batch_is_refused(tmp_path):
    path = tmp_path / "val-0.tfrecords"
    write_shard(path, (make_record(i) for i in range(31)))
    with pytest.raises(StoredError, match="31 images, fewer than the one whole batch of 32"):
        ClickMe([path])


def test_written_shard_reads_back(tmp_path):
    records = [make_record(i, label=i) for i in range(32)]
    path = tmp_path / "val-0.tfrecords"
    assert write_shard(path, records) == 32
    assert [r for _, r in Shard(path).records()] == records
    assert list(tmp_path.iterdir()) == [path]


# --- faults --------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 5, 30, 1000])
def test_a_truncated_shard_names_file_record_and_offset(shard, cut):
    shard.write_bytes(shard.read_bytes()[:-cut])
    with pytest.raises(StoredError, match=r"val-0.tfrecords, record 35 at byte \d+: truncated"):
        ClickMe([shard])


def test_a_shard_cut_inside_a_header_is_noticed(shard):
    last = index_shard(shard)[-1]
    shard.write_bytes(shard.read_bytes()[: last.offset + 7])
    with pytest.raises(StoredError, match="record 35 .* truncated: 7 bytes of a 12-byte header"):
        ClickMe([shard])


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x40
    path.write_bytes(content)


@pytest.mark.parametrize("inside", [0, 3, 8, 11])
def test_a_corrupt_length_is_noticed_on_opening(shard, inside):
    third = index_shard(shard)[2]
    flip(shard, third.offset + inside)
    with pytest.raises(
        StoredError, match=f"record 2 at byte {third.offset}: the length's checksum"
    ):
        ClickMe([shard])


@pytest.mark.parametrize("inside", [12, 40, -1, -4])
def test_a_corrupt_payload_is_noticed_on_reading(shard, inside):
    third, fourth = index_shard(shard)[2:4]
    flip(shard, (third.offset if inside > 0 else fourth.offset) + inside)
    with pytest.raises(StoredError, match=f"record 2 at byte {third.offset}: the payload's"):
        list(ClickMe([shard]).batches())


def test_a_file_that_is_no_tfrecord_is_refused(tmp_path):
    path = tmp_path / "val-0.tfrecords"
    path.write_bytes(b"<html>404 not found</html>")
    with pytest.raises(StoredError, match="is not a TFRecord file"):
        ClickMe([path])
    path.write_bytes(b"")
    with pytest.raises(StoredError, match="contains no records"):
        ClickMe([path])


def test_an_absurd_length_with_a_right_checksum_is_refused(tmp_path):
    from lib.people.stored.shards import masked_crc

    length = struct.pack("<Q", 1 << 62)
    path = tmp_path / "val-0.tfrecords"
    path.write_bytes(length + struct.pack("<I", masked_crc(length)) + b"x" * 100)
    with pytest.raises(StoredError, match="truncated: the record needs"):
        ClickMe([path])


def shard_with(path: Path, record: Record) -> Path:
    write_shard(path, [*(make_record(i) for i in range(31)), record])
    return path


image = np.zeros((256, 256, 3), np.uint8)
heatmap = np.zeros((256, 256), np.uint8)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (Record(jpeg(image[:224, :224]), jpeg(heatmap), 1), "image is 224x224"),
        (Record(jpeg(image), jpeg(heatmap[:64, :64]), 1), "heatmap is 64x64"),
        (Record(jpeg(heatmap), jpeg(heatmap), 1), "image is 256x256 Gray, expected 256x256 colour"),
        (
            Record(jpeg(image), jpeg(image), 1),
            "heatmap is 256x256 YCbCr, expected 256x256 grey",
        ),
        (Record(b"no jpeg", jpeg(heatmap), 1), "image is not a readable JPEG"),
        (Record(jpeg(image), jpeg(heatmap)[:200], 1), "heatmap is not a readable JPEG"),
        (Record(jpeg(image), jpeg(heatmap), 1000), "label 1000 is outside 0 … 999"),
        (Record(jpeg(image), jpeg(heatmap), -1), "label -1 is outside"),
    ],
)
def test_a_record_that_is_wrong_is_named(tmp_path, record, message):
    path = shard_with(tmp_path / "val-3.tfrecords", record)
    with pytest.raises(StoredError, match=rf"val-3.tfrecords, record 31 at byte \d+: .*{message}"):
        list(ClickMe([path]).batches())


def test_a_record_without_a_feature_is_named(tmp_path, monkeypatch):
    from tfrecord import example_pb2

    from lib.people.stored.shards import masked_crc

    example = example_pb2.Example()
    example.features.feature["image"].bytes_list.value.append(b"")
    payload = example.SerializeToString()
    length = struct.pack("<Q", len(payload))
    framed = length + struct.pack("<I", masked_crc(length)) + payload
    path = tmp_path / "val-0.tfrecords"
    path.write_bytes((framed + struct.pack("<I", masked_crc(payload))) * 32)
    with pytest.raises(StoredError, match=r"record 0 .* lacks the feature heatmap, label"):
        list(Shard(path).records())


def test_what_was_read_before_a_corrupt_record_is_delivered_first(shard):
    flip(shard, index_shard(shard)[20].offset + 50)
    batches = ClickMe([shard]).batches(10)
    assert len(next(batches).image_ids) == 10
    assert len(next(batches).image_ids) == 10
    with pytest.raises(StoredError, match="record 20"):
        next(batches)


def test_the_decoder_is_the_fast_one():
    # TensorFlow's default; the exact transform differs in most pixels of a photograph.
    noisy = jpeg(np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8), 60)
    fast = simplejpeg.decode_jpeg(noisy, fastdct=True)
    exact = simplejpeg.decode_jpeg(noisy, fastdct=False)
    assert (fast != exact).mean() > 0.01


def test_the_study_never_imports_tensorflow():
    assert {"lib.people.clickme", "lib.scores.scoring"} <= set(sys.modules)
    assert "tensorflow" not in sys.modules
    for path in (ROOT / "lib").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) tensorflow", path.read_text(), re.M), path
