"""ClickMe's shards: TFRecord files of `tf.train.Example`s, read without TensorFlow.

An example has `image` (JPEG, 256x256x3), `heatmap` (JPEG, 256x256x1) and `label` (ImageNet
index). Both checksums of every record are verified. A file beside the shard can contain what each
observer painted (`write_observers`); for ClickMe this was not published.

Source: Linsley et al., "Learning what and where to attend", ICLR 2019 (data);
Fel et al., "Harmonizing the object recognition strategies of deep neural
networks with humans", NeurIPS 2022 (shards).
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np
import simplejpeg
from google.protobuf.message import DecodeError

from ...base.files import write_atomically
from ...base.fingerprint import sha256_of
from .part import (
    MOST_OBSERVERS,
    NO_OBSERVERS,
    STORED_SIZE,
    Part,
    StoredError,
    StoredImage,
    refuse_unprintable,
)

_SUFFIXES = (".tfrecord", ".tfrecords")
_HEADER = struct.Struct("<QI")  # length, masked CRC of the length
_FOOTER = struct.Struct("<I")  # masked CRC of the payload
_CRC_MASK = 0xA282EAD8
_LARGEST_MASKS = 2**28  # bytes, unpacked: thirty observers for each of a shard's 1,024 images


def find_shards(folder: Path) -> list[Path]:
    """Return the folder's TFRecord files, val-2 before val-10."""
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if p.suffix in _SUFFIXES and p.name[0] != "."]
    found = [path for path in found if path.is_file()]
    refuse_unprintable(found)
    return sorted(found, key=lambda p: [(len(d), d) for d in re.split(r"(\d+)", p.name)])


@dataclass(frozen=True)
class Record:
    """One stored example: encoded image, encoded human map, class index."""

    image: bytes
    heatmap: bytes
    label: int


@dataclass(frozen=True)
class Address:
    """The position of a record. `offset` is that of its header, in bytes."""

    shard: Path
    index: int
    offset: int
    length: int

    def __str__(self) -> str:
        return f"{self.shard}, record {self.index} at byte {self.offset}"

    def error(self, problem: str) -> StoredError:
        return StoredError(f"{self}: {problem}")


class Shard(Part):
    """A TFRecord file as a part; ids are "val-0:17", because ClickMe has none.

    tolerant : whether a truncated or corrupt file gives the records before the damage

    Raises FileNotFoundError and StoredError, unless tolerant.
    """

    def __init__(self, path: Path, tolerant: bool = False):
        self.path, self.name = path, path.stem
        self.addresses: list[Address] = []
        try:
            self.addresses.extend(walk_shard(path))
            if not self.addresses:
                raise StoredError(f"{path}: the shard contains no records")
        except (StoredError, OSError) as error:
            if not tolerant:
                raise
            self.damage = str(error)

    def __len__(self) -> int:
        return len(self.addresses)

    def image_id(self, index: int) -> str:
        return f"{self.name}:{index}"

    def where(self, index: int) -> str:
        return str(self.addresses[index])

    def digest(self) -> str:
        return sha256_of(self.path)

    @cached_property
    def _masks(self) -> list[np.ndarray]:
        return _read_masks(observers_path(self.path), 0 if self.damage else len(self))

    def observer_maps(self, index: int) -> np.ndarray:
        """Return 1 where an observer painted. The human map is made of their sum, as a JPEG."""
        if not observers_path(self.path).is_file():
            return NO_OBSERVERS
        if index >= len(self._masks):
            raise StoredError(f"{observers_path(self.path)} has no record {index}")
        masks = np.unpackbits(self._masks[index], axis=-1).astype(np.float32)
        times = STORED_SIZE // masks.shape[1]
        return masks.repeat(times, axis=1).repeat(times, axis=2)

    def observers_digest(self) -> str:
        path = observers_path(self.path)
        return f"{self.digest()} {sha256_of(path)}" if path.is_file() else self.digest()

    def records(self) -> Iterator[tuple[Address, Record]]:
        """Yield the encoded records in order, after checking them. Raises StoredError."""
        with self.path.open("rb") as file:
            for address in self.addresses:
                yield address, read_record(file, address)

    def read(self, indices: Sequence[int]) -> Iterator[StoredImage | StoredError]:
        with self.path.open("rb") as file:
            for index in indices:
                address = self.addresses[index]
                try:
                    record = read_record(file, address)
                    if record.label < 0:
                        raise address.error(f"label {record.label} is outside 0 …")
                    yield StoredImage(
                        _decode(record.image, True, "image", address),
                        _decode(record.heatmap, False, "heatmap", address)[..., 0],
                        record.label,
                    )
                except StoredError as error:
                    yield error


def _example_class() -> type:
    # Not at the top: this imports torch, which takes seconds and is not needed to list a shard.
    from tfrecord import example_pb2

    return example_pb2.Example


def masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _CRC_MASK) & 0xFFFFFFFF


def write_shard(path: Path, records: Iterable[Record]) -> int:
    """Write records as a ClickMe shard, and return how many there are.

    The file appears under its name only when it is complete.
    """
    count, new_example = 0, _example_class()
    with write_atomically(path) as partial, partial.open("wb") as file:
        for record in records:
            count += 1
            example = new_example()
            feature = example.features.feature
            feature["image"].bytes_list.value.append(record.image)
            feature["heatmap"].bytes_list.value.append(record.heatmap)
            feature["label"].int64_list.value.append(record.label)
            payload = example.SerializeToString(deterministic=True)
            length = struct.pack("<Q", len(payload))
            file.write(length + _FOOTER.pack(masked_crc(length)))
            file.write(payload + _FOOTER.pack(masked_crc(payload)))
    return count


def observers_path(shard: Path) -> Path:
    """Return the path of a shard's observers, if they are known: `val-0.observers.npz`."""
    return shard.with_name(f"{shard.stem}.observers.npz")


def write_observers(shard: Path, painted: Iterable[np.ndarray], side: int = STORED_SIZE) -> None:
    """Write what each observer painted, beside a shard.

    painted : for each record (observer, 256, 256) bool
    side    : pixels kept per side, each from the middle of those that it represents; the
              published protocol begins by shrinking maps to 64

    The entry "counts" contains the number of observers of each record. "masks" contains all
    masks in sequence, (observer, side, side / 8) uint8: a byte is eight neighbours in a row.
    """
    step = STORED_SIZE // side
    kept = [masks[:, step // 2 :: step, step // 2 :: step] for masks in painted]
    arrays = {
        "counts": np.array([len(masks) for masks in kept], np.uint16),
        "masks": np.packbits(np.concatenate(kept), axis=-1),
    }
    with (
        write_atomically(observers_path(shard)) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_LZMA) as entries,
    ):
        for name, array in arrays.items():
            # A fixed time, so that the same masks give the same file.
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_LZMA
            with entries.open(entry, "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _read_masks(path: Path, records: int) -> list[np.ndarray]:
    """Return for each record (observer, side, side / 8) uint8. Raises StoredError.

    records : the number of records in the shard, each of which must have a count; 0 if unknown
    """
    try:
        with zipfile.ZipFile(path) as entries:
            size = sum(each.file_size for each in entries.infolist())
            if size > _LARGEST_MASKS:
                raise StoredError(
                    f"{path} would unpack to {size / 1e6:.0f} MB: no shard's masks need that"
                )
            arrays = {}
            for name in ("counts", "masks"):
                with entries.open(f"{name}.npy") as file:
                    arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    except StoredError:
        raise
    except Exception as error:  # zipfile and numpy may raise anything for a damaged file
        raise StoredError(f"{path} is not a readable .npz file: {error}") from None
    counts, masks = arrays["counts"], arrays["masks"]
    if masks.dtype != np.uint8 or masks.ndim != 3 or not _is_packed(*masks.shape[1:]):
        raise StoredError(
            f"{path}: masks is {masks.dtype} {masks.shape}, expected uint8 (observer, side, side "
            f"/ 8), eight pixels of a row in a byte, with a side that divides {STORED_SIZE}"
        )
    whole = counts.ndim == 1 and counts.dtype.kind in "ui" and counts.sum() == len(masks)
    if not whole or records not in (0, len(counts)) or (counts > MOST_OBSERVERS).any():
        raise StoredError(
            f"{path}: counts must give how many of the {len(masks)} masks each of the shard's "
            f"{records or ''} records has, at most {MOST_OBSERVERS}; it is {counts.dtype} "
            f"{counts.shape}"
        )
    return np.split(masks, np.cumsum(counts.astype(np.int64))[:-1])


def _is_packed(side: int, packed: int) -> bool:
    return side == 8 * packed and side > 0 and STORED_SIZE % side == 0


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """Encode an image (height, width, 3) or a map (height, width), uint8, as shards store them."""
    grey = pixels.ndim == 2
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels[..., None] if grey else pixels),
        quality=quality,
        colorspace="GRAY" if grey else "RGB",
        colorsubsampling="Gray" if grey else "420",
    )


def walk_shard(path: Path) -> Iterator[Address]:
    """Yield the position of every record of a shard, from the record headers alone.

    Raises FileNotFoundError, and StoredError at a truncated or corrupt place.
    """
    size = path.stat().st_size
    count = 0
    with path.open("rb") as file:
        offset = 0
        while offset < size:
            here = Address(path, count, offset, 0)
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                raise here.error(f"truncated: {len(header)} bytes of a {_HEADER.size}-byte header")
            length, crc = _HEADER.unpack(header)
            if masked_crc(header[:8]) != crc:
                raise here.error(
                    "the length's checksum does not match: the file is corrupt here, "
                    "or is not a TFRecord file"
                )
            end = offset + _HEADER.size + length + _FOOTER.size
            if end > size:
                raise here.error(f"truncated: the record needs {end - size} more bytes")
            yield Address(path, count, offset, length)
            count, offset = count + 1, end
            file.seek(offset)


def _one(values: Sequence, name: str, address: Address):
    if len(values) != 1:
        raise address.error(f"feature {name!r} has {len(values)} values, expected one")
    return values[0]


def read_record(file: BinaryIO, address: Address) -> Record:
    """Return the record at an address of an open shard, after verifying its checksum.

    Raises StoredError, which names file, record and offset.
    """
    file.seek(address.offset + _HEADER.size)
    payload = file.read(address.length)
    footer = file.read(_FOOTER.size)
    if len(payload) < address.length or len(footer) < _FOOTER.size:
        raise address.error("truncated: the file ends inside the record")
    if masked_crc(payload) != _FOOTER.unpack(footer)[0]:
        raise address.error("the payload's checksum does not match: the record is corrupt")
    try:
        feature = _example_class().FromString(payload).features.feature
    except DecodeError as error:
        raise address.error(f"not a tf.train.Example ({error})") from None
    missing = [name for name in ("image", "heatmap", "label") if name not in feature]
    if missing:
        raise address.error(f"lacks the feature {', '.join(missing)}; has {sorted(feature)}")
    return Record(
        _one(feature["image"].bytes_list.value, "image", address),
        _one(feature["heatmap"].bytes_list.value, "heatmap", address),
        _one(feature["label"].int64_list.value, "label", address),
    )


def _decode(jpeg: bytes, colour: bool, name: str, address: Address) -> np.ndarray:
    try:
        height, width, stored, _ = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError as error:
        raise address.error(f"the {name} is not a readable JPEG ({error})") from None
    if (height, width) != (STORED_SIZE, STORED_SIZE) or (stored == "Gray") == colour:
        expected = f"{STORED_SIZE}x{STORED_SIZE} {'colour' if colour else 'grey'}"
        raise address.error(f"the {name} is {height}x{width} {stored}, expected {expected}")
    try:
        wanted = "RGB" if colour else "GRAY"
        # The fast inverse transform is TensorFlow's default; the exact one differs.
        return simplejpeg.decode_jpeg(jpeg, colorspace=wanted, fastdct=True, strict=True)
    except ValueError as error:
        raise address.error(f"the {name} is not a readable JPEG ({error})") from None
