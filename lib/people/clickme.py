"""ClickMe as models receive it: images, human maps and labels, batch by batch.

Other stores of images and maps (`lib.people.stored`) are read in the same way. Images and maps
are read exactly as in the published study, so that scores can equal the published ones.
`PROTOCOLS` defines which of the stored images are scored, and how their maps are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..base.geometry import DELIVERED_SIZE, WHOLE
from .human_maps import human_maps, published_human_maps, truncated_resize
from .listing import Chosen, Listing
from .protocols import PROTOCOLS
from .stored import Part, StoredError, StoredImage
from .stored.part import NO_LABEL

T = TypeVar("T")


@dataclass(frozen=True)
class ClickMeBatch:
    """Consecutive images as delivered to the models.

    image_ids   : one name per image
    images      : (image, 224, 224, 3) uint8
    stored_maps : (image, 256, 256) uint8 or float32, larger = more important
    labels      : (image,) int64, -1 for an image without a class
    places      : (image,) position among the stored images, from 0; it determines which
                  protocols score the image
    """

    image_ids: list[str]
    images: np.ndarray
    stored_maps: Tensor
    labels: Tensor
    places: np.ndarray

    @cached_property
    def human_maps(self) -> Tensor:
        """Return the human maps of the published protocol: (image, 224, 224) float32.

        Values are on the stored scale.
        """
        return published_human_maps(self.stored_maps)

    def human_maps_by(self, protocol: str) -> Tensor:
        """Return the human maps of any protocol, of whole images: (image, 224, 224) float32."""
        return human_maps(self.stored_maps, PROTOCOLS[protocol], WHOLE)


class Observed(NamedTuple):
    """An image that two or more observers saw.

    maps : (observer, 256, 256) float32, what each observer contributes to the human map; see
           `lib.people.stored.Part.observer_maps`
    """

    image_id: str
    place: int
    maps: Tensor


class Fixated(NamedTuple):
    """An image with the positions at which people looked.

    points  : (fixation, 2) float64 x, y in pixels of the stored 256 x 256 square; they may lie
              outside it
    owners  : (fixation,) int64, the observer of each fixation, from 0; empty if observers are
              unknown
    weights : (fixation,) float64, the weight of each fixation in the human map
    outside : how many fixations outside the image's file were skipped
    """

    image_id: str
    place: int
    points: np.ndarray
    owners: np.ndarray
    weights: np.ndarray
    outside: int


def deliver_images(stored: np.ndarray) -> np.ndarray:
    """Scale (image, 256, 256, 3) uint8 to (image, 224, 224, 3) uint8, truncated, not rounded."""
    return truncated_resize(stored, DELIVERED_SIZE)


class ClickMe(Listing):
    """Images, human maps and labels under a protocol; see `Listing`.

    Iteration reads them, so memory does not grow with their number.
    """

    def batches(self, size: int = 32) -> Iterator[ClickMeBatch]:
        """Yield decoded and preprocessed images, `size` at a time; the last batch may be smaller.

        Raises ValueError for a size that is not a whole number of 1 or more.
        """
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"a batch's size must be a whole number of 1 or more, got {size!r}")
        pending: list[tuple[Chosen, StoredImage]] = []
        for item in self._read():
            pending.append(item)
            if len(pending) == size:
                yield _batch(pending)
                pending = []
        if pending:
            yield _batch(pending)

    def observed(self) -> Iterator[Observed]:
        """Yield the images that are known to have two or more observers."""
        for chosen, maps in self._of_each(lambda part, index: part.observer_maps(index)):
            if len(maps) > 1:
                yield Observed(chosen.image_id, chosen.place, torch.from_numpy(maps))

    def fixated(self) -> Iterator[Fixated]:
        """Yield the images whose fixations are stored, rather than only a map."""
        for chosen, found in self._of_each(lambda part, index: part.fixations(index)):
            if found is not None:
                where = found.at, found.owners, found.weights
                yield Fixated(chosen.image_id, chosen.place, *where, found.outside)

    def _of_each(self, read: Callable[[Part, int], T]) -> Iterator[tuple[Chosen, T]]:
        """Yield what `read` returns for each image; with `keep_going`, skip unreadable ones."""
        for chosen in self.chosen:
            try:
                found = read(chosen.part, chosen.index)
            except StoredError as error:
                if not self.keep_going:
                    raise
                self.left_out[chosen.image_id] = str(error)
            else:
                yield chosen, found

    def _read(self) -> Iterator[tuple[Chosen, StoredImage]]:
        for some in self.per_part():
            found = some.part.read([chosen.index for chosen in some.chosen])
            for chosen, image in zip(some.chosen, found, strict=True):
                if isinstance(image, StoredImage):
                    image = self._with_class(image, chosen)
                if isinstance(image, StoredImage):
                    yield chosen, image
                elif self.keep_going:
                    self.left_out[chosen.image_id] = str(image)
                else:
                    raise image

    def _with_class(self, image: StoredImage, chosen: Chosen) -> StoredImage | StoredError:
        where = chosen.part.where(chosen.index)
        if image.label == NO_LABEL:
            if self.labelled:
                return StoredError(f"{where} has no label; `--target predicted` needs none")
            return image
        if not 0 <= image.label < self.classes:
            return StoredError(f"{where}: label {image.label} is outside 0 … {self.classes - 1}")
        return image


def _batch(items: Sequence[tuple[Chosen, StoredImage]]) -> ClickMeBatch:
    return ClickMeBatch(
        [chosen.image_id for chosen, _ in items],
        deliver_images(np.stack([image.image for _, image in items])),
        torch.from_numpy(np.stack([image.heatmap for _, image in items])),
        torch.tensor([image.label for _, image in items]),
        np.array([chosen.place for chosen, _ in items]),
    )
