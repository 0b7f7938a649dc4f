"""ClickMe's shards: TFRecord files of `tf.train.Example`s, read without TensorFlow.

An example has `image` (JPEG, 256x256x3), `heatmap` (JPEG, 256x256x1) and `label` (ImageNet
index). Both checksums of every record are verified. What each observer painted can lie in
a file beside the shard (`write_observers`); of ClickMe's own it was not published.

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
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np
import simplejpeg
from google.protobuf.message import DecodeError

from lib.base.files import write_atomically
from lib.base.fingerprint import sha256_of
from lib.people.stored.part import (
    MOST_OBSERVERS,
    NO_OBSERVERS,
    STORED_SIZE,
    Part,
    StoredError,
    StoredPicture,
    refuse_unprintable,
)

_SUFFIXES = (".tfrecord", ".tfrecords")
_HEADER = struct.Struct("<QI")  # length, masked CRC of the length
_FOOTER = struct.Struct("<I")  # masked CRC of the payload
_CRC_MASK = 0xA282EAD8
_PACKED = (STORED_SIZE, STORED_SIZE // 8)
_LARGEST_ENTRY = MOST_OBSERVERS * _PACKED[0] * _PACKED[1] + 1024  # bytes, with its header


def find_shards(folder: Path) -> list[Path]:
    """The folder's TFRecord files, val-2 before val-10."""
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if p.suffix in _SUFFIXES and p.name[0] != "."]
    found = [path for path in found if path.is_file()]
    refuse_unprintable(found)
    return sorted(found, key=lambda p: [(len(d), d) for d in re.split(r"(\d+)", p.name)])


@dataclass(frozen=True)
class Record:
    """One stored example: encoded picture, encoded human map, class index."""

    image: bytes
    heatmap: bytes
    label: int


@dataclass(frozen=True)
class Address:
    """Where a record stands. `offset` is that of its header, in bytes."""

    shard: Path
    index: int
    offset: int
    length: int

    def __str__(self) -> str:
        return f"{self.shard}, record {self.index} at byte {self.offset}"

    def error(self, problem: str) -> StoredError:
        return StoredError(f"{self}: {problem}")


class Shard(Part):
    """A TFRecord file as a part; ids are "val-0:17", for ClickMe has none.

    tolerant : if the file is cut or corrupt, hold the records before that place
    Raises FileNotFoundError and StoredError, unless tolerant.
    """

    def __init__(self, path: Path, tolerant: bool = False):
        self.path, self.name = path, path.stem
        self.addresses: list[Address] = []
        try:
            self.addresses.extend(walk_shard(path))
            if not self.addresses:
                raise StoredError(f"{path}: the shard holds no record")
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

    def observer_maps(self, index: int) -> np.ndarray:
        """1 where an observer painted. The human map is that of their sum, as JPEG keeps it."""
        path = observers_path(self.path)
        if not path.is_file():
            return NO_OBSERVERS
        masks = _read_masks(path, index, 0 if self.damage else len(self))
        return np.unpackbits(masks, axis=-1).astype(np.float32)

    def observers_digest(self) -> str:
        path = observers_path(self.path)
        return f"{self.digest()} {sha256_of(path)}" if path.is_file() else self.digest()

    def records(self) -> Iterator[tuple[Address, Record]]:
        """The encoded records, checked, in order. Raises StoredError."""
        with self.path.open("rb") as file:
            for address in self.addresses:
                yield address, read_record(file, address)

    def read(self, indices: Sequence[int]) -> Iterator[StoredPicture | StoredError]:
        with self.path.open("rb") as file:
            for index in indices:
                address = self.addresses[index]
                try:
                    record = read_record(file, address)
                    yield StoredPicture(
                        _decode(record.image, True, "image", address),
                        _decode(record.heatmap, False, "heatmap", address)[..., 0],
                        record.label,
                    )
                except StoredError as error:
                    yield error


def _example_class() -> type:
    # Not at the top: it takes torch along, seconds that listing a shard need not wait for.
    from tfrecord import example_pb2

    return example_pb2.Example


def masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _CRC_MASK) & 0xFFFFFFFF


def write_shard(path: Path, records: Iterable[Record]) -> int:
    """Write records as a ClickMe shard; returns how many.

    The file appears under its name only when it is whole.
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
    """Where a shard's observers are, if they are known: `val-0.observers.npz` beside it."""
    return shard.with_name(f"{shard.stem}.observers.npz")


def write_observers(shard: Path, painted: Iterable[np.ndarray]) -> None:
    """Write what each observer painted, beside a shard.

    painted : by record (observer, 256, 256) bool. Their entries are "0", "1", …, each
              (observer, 256, 32) uint8: eight neighbours of a row are one byte
    """
    packed = {str(i): np.packbits(masks, axis=-1) for i, masks in enumerate(painted)}
    with write_atomically(observers_path(shard)) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **packed)


def _read_masks(path: Path, index: int, records: int) -> np.ndarray:
    """(observer, 256, 32) uint8. Raises StoredError.

    records : of the shard, each of which must have an entry; 0 if that is not known
    """
    entry = f"{index}.npy"
    try:
        with zipfile.ZipFile(path) as entries:
            sizes = {each.filename: each.file_size for each in entries.infolist()}
            if entry not in sizes or records not in (0, len(sizes)):
                raise StoredError(
                    f"{path} has {len(sizes)} entries, expected one for each of the shard's "
                    f"{records or 'records'}{' records' * bool(records)}, 0 and so on"
                )
            if sizes[entry] > _LARGEST_ENTRY:
                raise StoredError(
                    f"{path}: entry {index} would unpack to {sizes[entry] / 1e6:.0f} MB, more "
                    f"than {MOST_OBSERVERS} observers need"
                )
            with entries.open(entry) as file:
                masks = np.lib.format.read_array(file, allow_pickle=False)
    except StoredError:
        raise
    except Exception as error:  # whatever zipfile and numpy make of a damaged file
        raise StoredError(f"{path} is no readable .npz file: {error}") from None
    if masks.dtype != np.uint8 or masks.ndim != 3 or masks.shape[1:] != _PACKED:
        raise StoredError(
            f"{path}: entry {index} is {masks.dtype} {masks.shape}, expected uint8 (observer, "
            f"{_PACKED[0]}, {_PACKED[1]}), eight pixels of a row in a byte"
        )
    return masks


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """A picture (height, width, 3) or a map (height, width), uint8, as shards hold them."""
    grey = pixels.ndim == 2
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels[..., None] if grey else pixels),
        quality=quality,
        colorspace="GRAY" if grey else "RGB",
        colorsubsampling="Gray" if grey else "420",
    )


def walk_shard(path: Path) -> Iterator[Address]:
    """Where every record of a shard stands, from the record headers alone.

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
                    "or is no TFRecord file"
                )
            end = offset + _HEADER.size + length + _FOOTER.size
            if end > size:
                raise here.error(f"truncated: the record needs {end - size} more bytes")
            yield Address(path, count, offset, length)
            count, offset = count + 1, end
            file.seek(offset)


def _one(values: Sequence, name: str, address: Address):
    if len(values) != 1:
        raise address.error(f"feature {name!r} holds {len(values)} values, expected one")
    return values[0]


def read_record(file: BinaryIO, address: Address) -> Record:
    """The record at an address of an open shard, its checksum verified.

    Raises StoredError naming file, record and offset.
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
        raise address.error(f"no tf.train.Example ({error})") from None
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
        raise address.error(f"the {name} is no readable JPEG ({error})") from None
    if (height, width) != (STORED_SIZE, STORED_SIZE) or (stored == "Gray") == colour:
        expected = f"{STORED_SIZE}x{STORED_SIZE} {'colour' if colour else 'grey'}"
        raise address.error(f"the {name} is {height}x{width} {stored}, expected {expected}")
    try:
        wanted = "RGB" if colour else "GRAY"
        # The fast inverse transform is TensorFlow's default; the exact one differs.
        return simplejpeg.decode_jpeg(jpeg, colorspace=wanted, fastdct=True, strict=True)
    except ValueError as error:
        raise address.error(f"the {name} is no readable JPEG ({error})") from None
