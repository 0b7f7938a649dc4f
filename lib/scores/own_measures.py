"""`add_measure`, with which a user's file of rows or a plug-in adds a measure of agreement."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..study.extension import being_read
from .fixation_measures import FIXATION_MEASURES, FixationMeasure, FixationSet, Viewed
from .measures import MEASURES, Compared, Measure


def add_measure(
    key: str,
    of: Callable,
    *,
    label: str = "",
    best: int = 1,
    fixations: bool = False,
    unit: str = "",
    chance: float = math.nan,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Measure | FixationMeasure:
    """Add a measure of agreement to the table. It is first tried on two small maps.

    of     : function (maps, human_maps) -> (image,), both (image, h, w) float64 tensors; NaN where
             the measure is undefined
    best   : 1 if larger values mean more agreement, -1 if smaller ones do
    fixations : whether the measure uses fixations instead of human maps. Then `of` is a function
             (seen, looked) -> float for one image: `seen.flat` is the map, (pixel,) float64, and
             `looked.pixels` the pixel of each fixation (`lib.scores.fixation_measures`)
    unit, chance, within : for a measure of fixations: its unit in words, its mean for random maps,
             and its smallest and largest value
    Returns the new row. Raises ValueError that names what is wrong.
    """
    being_read()
    table = FIXATION_MEASURES if fixations else MEASURES
    if not isinstance(key, str) or not re.fullmatch(r"\w+", key):
        raise ValueError(f"the key {key!r} is not valid: use letters, digits and _ only")
    if best not in (1, -1):
        raise ValueError(f"{key}: best must be 1 or -1, but is {best!r}")
    label = label or key
    if any(row.label == label for row in table.values()):
        raise ValueError(f"{key}: another {table.kind} has the label {label}; choose another one")
    random = np.random.default_rng(0)
    if fixations:
        guarded = _of_one(key, of)
        looked = FixationSet({"a": random.random((5, 2)) * 16, "b": np.ones((2, 2))}, 16, 16)
        guarded(Viewed(random.random((16, 16))), looked.of("a"))
        row = FixationMeasure(key, label, guarded, unit, chance, within)
    else:
        guarded = _of_maps(key, of)
        guarded(*(Compared(torch.from_numpy(random.random((2, 16, 16)))) for _ in range(2)))
        row = Measure(key, label, guarded, best)
    return table.add(row)


def _of_maps(key: str, of: Callable) -> Callable[[Compared, Compared], Tensor]:
    def guarded(ours: Compared, theirs: Compared) -> Tensor:
        try:
            # Copies, because changes in place would affect the measures after it.
            found = torch.as_tensor(of(ours.maps.double().clone(), theirs.maps.double().clone()))
        except Exception as error:  # a user's own function can raise anything
            raise ValueError(f"the measure {key} fails: {type(error).__name__}: {error}") from error
        if found.shape != ours.flat.shape[:1] or found.is_complex():
            raise ValueError(
                f"the measure {key} must return one real number per image, here "
                f"{len(ours.flat)}, but returned {found.dtype} {tuple(found.shape)}"
            )
        return found.double()

    return guarded


def _of_one(key: str, of: Callable) -> Callable:
    def guarded(seen: Viewed, looked: object) -> float:
        try:
            return float(of(seen, looked))
        except Exception as error:  # a user's own function can raise anything
            raise ValueError(f"the measure {key} fails: {type(error).__name__}: {error}") from error

    return guarded
