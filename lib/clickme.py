"""ClickMe: pictures, human maps and labels from TFRecord shards, without TensorFlow.

A shard is a TFRecord file of `tf.train.Example`s, each with `image` (JPEG,
256x256x3), `heatmap` (JPEG, 256x256x1) and `label` (ImageNet index). Both
checksums of every record are verified. Reading is done as the published study
does it, so that scores can equal its own; `PROTOCOLS` holds what it does.

Source: Linsley et al., "Learning what and where to attend", ICLR 2019 (data);
Fel et al., "Harmonizing the object recognition strategies of deep neural
networks with humans", NeurIPS 2022 (shards and their preprocessing).
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np
import simplejpeg
import torch
from google.protobuf.message import DecodeError
from tfrecord import example_pb2
from torch import Tensor

from lib.files import write_atomically
from lib.human_maps import DELIVERED_SIZE, published_human_maps, resize
from lib.protocols import PROTOCOLS

STORED_SIZE = 256
# The seed of `limit`'s subset: the same pictures for everyone who asks for as many.
SUBSET_SEED = 20240803

_HEADER = struct.Struct("<QI")  # length, masked CRC of the length
_FOOTER = struct.Struct("<I")  # masked CRC of the payload
_CRC_MASK = 0xA282EAD8


class ShardError(ValueError):
    """A shard that cannot be read; the message names file, record and offset."""


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

    @property
    def image_id(self) -> str:
        """Name of the picture in every table: "val-0:17". ClickMe has no ids."""
        return f"{self.shard.stem}:{self.index}"

    def error(self, problem: str) -> ShardError:
        return ShardError(f"{self.shard}, record {self.index} at byte {self.offset}: {problem}")


@dataclass(frozen=True)
class ClickMeBatch:
    """Consecutive pictures as delivered to the models.

    image_ids  : one name per image
    pictures   : (image, 224, 224, 3) uint8
    stored_maps : (image, 256, 256) uint8, larger = more important
    labels     : (image,) int64
    places     : (image,) place among the stored pictures, from 0, which tells by which
                 protocols the picture is scored
    """

    image_ids: list[str]
    pictures: np.ndarray
    stored_maps: Tensor
    labels: Tensor
    places: np.ndarray

    @cached_property
    def human_maps(self) -> Tensor:
        """(image, 224, 224) float32 on a 0-255 scale, in the published reading."""
        return published_human_maps(self.stored_maps)


# --- the file format ------------------------------------------------------------


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _CRC_MASK) & 0xFFFFFFFF


def write_shard(path: Path, records: Iterable[Record]) -> int:
    """Write records as a ClickMe shard; returns how many.

    The file appears under its name only when it is whole.
    """
    count = 0
    with write_atomically(path) as partial, partial.open("wb") as file:
        for record in records:
            count += 1
            example = example_pb2.Example()
            feature = example.features.feature
            feature["image"].bytes_list.value.append(record.image)
            feature["heatmap"].bytes_list.value.append(record.heatmap)
            feature["label"].int64_list.value.append(record.label)
            payload = example.SerializeToString(deterministic=True)
            length = struct.pack("<Q", len(payload))
            file.write(length + _FOOTER.pack(_masked_crc(length)))
            file.write(payload + _FOOTER.pack(_masked_crc(payload)))
    return count


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """A picture (height, width, 3) or a map (height, width), uint8, as shards hold them."""
    grey = pixels.ndim == 2
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels[..., None] if grey else pixels),
        quality=quality,
        colorspace="GRAY" if grey else "RGB",
        colorsubsampling="Gray" if grey else "420",
    )


def index_shard(path: Path) -> list[Address]:
    """Where every record of a shard stands, from the record headers alone.

    Raises FileNotFoundError, or ShardError for a truncated or corrupt shard.
    """
    size = path.stat().st_size
    addresses: list[Address] = []
    with path.open("rb") as file:
        offset = 0
        while offset < size:
            here = Address(path, len(addresses), offset, 0)
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                raise here.error(f"truncated: {len(header)} bytes of a {_HEADER.size}-byte header")
            length, crc = _HEADER.unpack(header)
            if _masked_crc(header[:8]) != crc:
                raise here.error(
                    "the length's checksum does not match: the file is corrupt here, "
                    "or is no TFRecord file"
                )
            end = offset + _HEADER.size + length + _FOOTER.size
            if end > size:
                raise here.error(f"truncated: the record needs {end - size} more bytes")
            addresses.append(Address(path, len(addresses), offset, length))
            offset = end
            file.seek(offset)
    if not addresses:
        raise ShardError(f"{path}: the shard holds no record")
    return addresses


def _one(values: Sequence, name: str, address: Address):
    if len(values) != 1:
        raise address.error(f"feature {name!r} holds {len(values)} values, expected one")
    return values[0]


def read_record(file: BinaryIO, address: Address) -> Record:
    """The record at an address of an open shard, its checksum verified.

    Raises ShardError naming file, record and offset.
    """
    file.seek(address.offset + _HEADER.size)
    payload = file.read(address.length)
    footer = file.read(_FOOTER.size)
    if len(payload) < address.length or len(footer) < _FOOTER.size:
        raise address.error("truncated: the file ends inside the record")
    if _masked_crc(payload) != _FOOTER.unpack(footer)[0]:
        raise address.error("the payload's checksum does not match: the record is corrupt")
    try:
        feature = example_pb2.Example.FromString(payload).features.feature
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


# --- decoding and preprocessing --------------------------------------------------


def _decode(jpeg: bytes, colour: bool, name: str, address: Address) -> np.ndarray:
    try:
        height, width, stored, _ = simplejpeg.decode_jpeg_header(jpeg)
        wanted = "RGB" if colour else "GRAY"
        # The fast inverse transform is TensorFlow's default; the exact one differs.
        pixels = simplejpeg.decode_jpeg(jpeg, colorspace=wanted, fastdct=True, strict=True)
    except ValueError as error:
        raise address.error(f"the {name} is no readable JPEG ({error})") from None
    if (height, width) != (STORED_SIZE, STORED_SIZE) or (stored == "Gray") == colour:
        expected = f"{STORED_SIZE}x{STORED_SIZE} {'colour' if colour else 'grey'}"
        raise address.error(f"the {name} is {height}x{width} {stored}, expected {expected}")
    return pixels


def deliver_pictures(stored: np.ndarray) -> np.ndarray:
    """(image, 256, 256, 3) uint8 -> (image, 224, 224, 3) uint8, truncated, not rounded."""
    x = torch.from_numpy(stored).permute(0, 3, 1, 2).to(torch.float32)
    return resize(x.contiguous(), DELIVERED_SIZE).to(torch.uint8).permute(0, 2, 3, 1).numpy()


# --- reading ---------------------------------------------------------------------


class ClickMe:
    """Pictures, human maps and labels of some shards under a reading protocol.

    shards   : TFRecord files, read in this order
    protocols : keys of `PROTOCOLS`; read is what any of them scores
    limit    : a subset of so many pictures, drawn without replacement by a fixed
               seed from those that every protocol scores; a smaller limit's pictures
               are among a larger one's. 0 takes all.
    classes  : labels must lie in 0 … classes - 1

    Opening indexes the shards; pictures are read when iterated, so memory does
    not grow with their number. Raises FileNotFoundError and ShardError.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        protocols: Sequence[str] = ("published",),
        limit: int = 0,
        classes: int = 1000,
    ):
        if isinstance(shards, str | Path):
            raise ValueError("shards is a list of files, not one path")
        if limit < 0:
            raise ValueError(f"limit must be 0 or more, got {limit}")
        self.protocols = PROTOCOLS.select(protocols)
        self.classes = classes
        by_shard = [index_shard(Path(shard)) for shard in shards]
        stored = [address for addresses in by_shard for address in addresses]
        self.kept = {p.key: p.kept([len(a) for a in by_shard]) for p in self.protocols}
        for key, kept in self.kept.items():
            if not kept:
                raise ShardError(
                    f"the shards hold {len(stored)} pictures, fewer than the one whole batch of "
                    f"32 that protocol {key!r} needs"
                )
        self.stored = len(stored)
        self._places = {address: place for place, address in enumerate(stored)}
        self.addresses = stored[: max(self.kept.values())]
        # The same subset whatever the protocols: every one of them scores what this one does.
        common = PROTOCOLS["published"].kept([len(a) for a in by_shard]) or self.stored
        if limit and limit < common:
            order = np.random.default_rng(SUBSET_SEED).permutation(common)
            self.addresses = [stored[i] for i in sorted(order[:limit])]

    def scored(self, protocol: str) -> int:
        """How many of these pictures a protocol scores."""
        return sum(self._places[address] < self.kept[protocol] for address in self.addresses)

    def __len__(self) -> int:
        return len(self.addresses)

    def per_shard(self) -> Iterator[ClickMe]:
        """The same pictures, shard by shard: a unit of work that fits in memory."""
        for _, group in groupby(self.addresses, key=lambda address: address.shard):
            part = copy.copy(self)
            part.addresses = list(group)
            yield part

    def records(self) -> Iterator[tuple[Address, Record]]:
        """The encoded records, checked, in order."""
        file: BinaryIO | None = None
        try:
            for address in self.addresses:
                if file is None or file.name != str(address.shard):
                    if file is not None:
                        file.close()
                    file = address.shard.open("rb")
                record = read_record(file, address)
                if not 0 <= record.label < self.classes:
                    raise address.error(f"label {record.label} is outside 0 … {self.classes - 1}")
                yield address, record
        finally:
            if file is not None:
                file.close()

    def batches(self, size: int = 32) -> Iterator[ClickMeBatch]:
        """Decoded and preprocessed pictures, `size` at a time; the last may be smaller."""
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"a batch's size must be a whole number of 1 or more, got {size!r}")
        pending: list[tuple[Address, Record]] = []
        for item in self.records():
            pending.append(item)
            if len(pending) == size:
                yield self._decode(pending)
                pending = []
        if pending:
            yield self._decode(pending)

    def _decode(self, items: Sequence[tuple[Address, Record]]) -> ClickMeBatch:
        pictures = np.stack([_decode(r.image, True, "image", a) for a, r in items])
        maps = np.stack([_decode(r.heatmap, False, "heatmap", a)[..., 0] for a, r in items])
        return ClickMeBatch(
            [address.image_id for address, _ in items],
            deliver_pictures(pictures),
            torch.from_numpy(maps),
            torch.tensor([record.label for _, record in items]),
            np.array([self._places[address] for address, _ in items]),
        )
