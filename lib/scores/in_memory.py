"""Agreement of maps in memory, without a study, a file or a protocol."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..maps.elsewhere import as_scored
from .spearman import spearman_per_image

Maps = Tensor | np.ndarray | Sequence[Tensor | np.ndarray]


def agreement(maps: Maps, human_maps: Maps) -> float | np.ndarray:
    """Return Spearman's rank correlation ρ between maps and human maps, image by image.

    1 means the same order of pixels, 0 no relation, -1 the reverse order.

    maps       : (image, h, w), or (h, w) for one image, of any real type and scale; images of
                 several sizes as a list of (h, w)
    human_maps : as many human maps. A map of another size is resized to its human map, bilinearly,
                 as in scoring
    Returns (image,) float64, or a float for one image; NaN if all pixels of either map are equal.
    Maps are neither blurred nor rounded first; equal values share their rank.
    Raises ValueError for other shapes, for different numbers of images, for no image, for masked
    arrays, and for values that are not finite.
    """
    ours, alone = _listed(maps, "maps")
    theirs, theirs_alone = _listed(human_maps, "human_maps")
    if len(ours) != len(theirs) or alone != theirs_alone:
        raise ValueError(
            f"each map needs its own human map: got {_counted(ours, alone)} as maps and "
            f"{_counted(theirs, theirs_alone)} as human_maps"
        )
    found = [
        spearman_per_image(as_scored(a, b.shape)[None], torch.from_numpy(b)[None]).item()
        if b.size > 1
        else float("nan")
        for a, b in zip(ours, theirs, strict=True)
    ]
    return found[0] if alone else np.array(found)


def _counted(maps: list[np.ndarray], alone: bool) -> str:
    return "one map (h, w)" if alone else f"{len(maps)} of them (image, h, w)"


def _listed(given: Maps, name: str) -> tuple[list[np.ndarray], bool]:
    """(h, w) float32 or float64 each, and whether it was one map without an axis of images."""
    several = given if isinstance(given, list | tuple) else [given]
    if any(isinstance(one, np.ma.MaskedArray) for one in several):
        raise ValueError(
            f"{name} is masked, but every pixel of a map counts: crop both maps to the same part, "
            "or fill the masked pixels (`.filled(0)`)"
        )
    if hasattr(given, "__len__") and not len(given):
        raise ValueError(f"{name} is empty: give one map or more")
    if isinstance(given, list | tuple) and not all(np.isscalar(one) for one in given):
        arrays = [_array(one, f"{name}[{number}]") for number, one in enumerate(given)]
        if arrays and all(one.ndim == 1 for one in arrays):  # one map as lists of numbers
            arrays, alone = [_array(given, name)], True
        else:
            alone = False
    else:
        whole = _array(given, name)
        alone = whole.ndim == 2
        if whole.ndim not in (2, 3):
            raise ValueError(f"{name} must be (image, h, w) or (h, w), but is {whole.shape}")
        arrays = [whole] if alone else list(whole)
    for number, one in enumerate(arrays):
        where = name if alone else f"{name}[{number}]"
        if one.ndim != 2 or not one.size:
            raise ValueError(f"{where} must be (h, w), but is {one.shape}")
        if bad := int((~np.isfinite(one)).sum()):
            raise ValueError(f"{where} has {bad} values that are not finite (NaN or infinite)")
    return arrays, alone


def _array(given: object, name: str) -> np.ndarray:
    """float32 where that holds its values, else float64."""
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = (given.float() if given.dtype == torch.bfloat16 else given).numpy()
    try:
        found = np.asarray(given)
    except ValueError:
        raise ValueError(f"{name} has rows of different lengths") from None
    if found.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers, but holds {found.dtype}")
    kind = np.float32 if found.dtype.kind == "f" and found.dtype.itemsize <= 4 else np.float64
    return np.ascontiguousarray(found, kind)
