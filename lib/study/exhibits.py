"""The images of a study that are looked at: in figures, in the explorer, for a quick check."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lib.base.paths import PHOTOGRAPHS
from lib.people.clickme import ClickMeBatch
from lib.people.photographs import photographs
from lib.people.stored import StoredError
from lib.study.study import Study


@dataclass(frozen=True)
class Exhibit:
    """Pictures to explain, and the class whose evidence is asked for.

    pictures : (image, 224, 224, 3) uint8
    targets  : (image,) class indices, or None for each model's predicted class
    titles   : one per picture
    credits  : attributions, "" for pictures of the embedded example
    """

    pictures: np.ndarray
    targets: Tensor | None
    titles: list[str]
    credits: str = ""


def held_out(study: Study, count: int) -> ClickMeBatch:
    """The first pictures of a fixed, seeded subset of the profile's shards.

    Where some cannot be read, with `keep_going`, of a larger subset. Raises StoredError.
    """
    for limit in (count, 4 * count, 0):
        batch = next(study.clickme(limit=limit).batches(count), None)
        if batch is not None:
            return batch
    raise StoredError("no picture of the study can be read")


def exhibit(study: Study, count: int = 10) -> Exhibit:
    """What Figures 5 and 6 show: photographs, or the demo's held-out pictures."""
    if study.choices.profile.photographs == "photographs":
        found = photographs(PHOTOGRAPHS, count)
        credits = "; ".join(f"{p.name}: {p.attribution}" for p in found)
        return Exhibit(np.stack([p.pixels for p in found]), None, [p.name for p in found], credits)
    batch = held_out(study, count)
    names = study.networks.class_names()
    titles = [names[label] for label in batch.labels]
    return Exhibit(batch.pictures, batch.labels, titles)
