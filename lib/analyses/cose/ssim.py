"""Structural similarity of maps as in scikit-image, with a uniform window of 5 x 5 pixels.

Source: Wang et al., IEEE TIP 13 (2004); sample covariances and data range as in
`skimage.metrics.structural_similarity`.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...base.loops import mean_ssim
from ...base.threads import each

WINDOW = 5
_K1, _K2 = 0.01, 0.03
_SAMPLE = WINDOW**2 / (WINDOW**2 - 1)  # from the covariance of a window to a sample covariance


def _windows(x: Tensor) -> Tensor:
    """Means of all complete windows: (…, h, w) -> (…, h - 4, w - 4), rows first, then columns."""
    rows = sum(x[..., i : x.shape[-2] - WINDOW + 1 + i, :] for i in range(WINDOW))
    columns = sum(rows[..., i : x.shape[-1] - WINDOW + 1 + i] for i in range(WINDOW))
    return columns / WINDOW**2


def _eroded(inside: Tensor) -> Tensor:
    """(…, h, w) bool -> (…, h - 4, w - 4): windows that lie entirely inside."""
    flat = inside.flatten(0, -3)[:, None].float()
    return (-F.max_pool2d(-flat, WINDOW, 1))[:, 0].view(
        *inside.shape[:-2], inside.shape[-2] - WINDOW + 1, inside.shape[-1] - WINDOW + 1
    ) > 0.5  # fmt: skip


def structural_similarity(
    a: Tensor,
    b: Tensor,
    inside: Tensor | None = None,
    beyond: bool = False,
    reach: float | None = None,
) -> Tensor:
    """Return the mean SSIM of maps: -1 to 1, and 1 for equal maps.

    a, b   : (pair, h, w), or one `a` of shape (1, h, w) for all `b`; at least 5 pixels per side
    inside : (pair, h, w) bool, the pixels that count; windows that reach outside them do not
             count. None counts all pixels
    beyond : whether windows may reach beyond the image's border, where maps are mirrored and all
             pixels count
    reach  : the range of the data; None means the larger of the two maps' ranges
    Returns (pair,) float64; NaN if both maps are constant and no range is given, or if no window
    counts.

    Without `inside` and `beyond` this is scikit-image's `structural_similarity(…, win_size=5,
    data_range=…)`. With both it is the mean of its full map within `inside`, eroded by
    `skimage.morphology.binary_erosion`, which does not erode at the border.
    """
    if min(a.shape[-2:]) < WINDOW or a.shape[-2:] != b.shape[-2:]:
        raise ValueError(
            f"maps must have one size, at least {WINDOW} x {WINDOW}, got "
            f"{tuple(a.shape[-2:])} and {tuple(b.shape[-2:])}"
        )
    if reach is None:
        ranges = torch.maximum(value_range(a), value_range(b)).double()
    else:
        ranges = torch.full((len(b),), reach, dtype=torch.float64, device=b.device)
    if beyond:
        a, b = _mirrored(a), _mirrored(b)
        inside = None if inside is None else F.pad(inside, [WINDOW // 2] * 4, value=True)
    found = (_by_loops if b.device.type == "cpu" else by_tensors)(a, b, ranges, inside)
    return torch.where(ranges > 0, found, torch.nan)


def _mirrored(maps: Tensor) -> Tensor:
    """Extend maps by half a window on each side, like scipy's "reflect", which repeats the edge."""
    margin = WINDOW // 2

    def places(count: int) -> Tensor:
        at = torch.arange(-margin, count + margin, device=maps.device)
        at = torch.where(at < 0, -1 - at, at)
        return torch.where(at >= count, 2 * count - 1 - at, at)

    return maps[..., places(maps.shape[-2]), :][..., places(maps.shape[-1])]


def _by_loops(a: Tensor, b: Tensor, reach: Tensor, inside: Tensor | None) -> Tensor:
    """SSIM on CPUs, with one pass over the pixels of each pair."""
    first, second = (maps.detach().contiguous().numpy() for maps in (a.expand_as(b), b))
    everywhere = np.ones(b.shape[-2:], np.uint8)
    counts = None if inside is None else inside.to(torch.uint8).contiguous().numpy()

    def of_pair(number: int) -> float:
        here = everywhere if counts is None else counts[number]
        c1, c2 = ((k * float(reach[number])) ** 2 for k in (_K1, _K2))
        return mean_ssim(first[number], second[number], here, c1, c2)

    return torch.tensor(each(of_pair, range(len(b))), dtype=torch.float64)


def by_tensors(a: Tensor, b: Tensor, reach: Tensor, inside: Tensor | None) -> Tensor:
    """The same by operations on all pairs at once, on their device."""
    a, b = a.double(), b.double()
    c1, c2 = ((k * reach).square()[:, None, None] for k in (_K1, _K2))
    mean_a, mean_b = _windows(a), _windows(b)
    variance_a = _SAMPLE * (_windows(a * a) - mean_a * mean_a)
    variance_b = _SAMPLE * (_windows(b * b) - mean_b * mean_b)
    covariance = _SAMPLE * (_windows(a * b) - mean_a * mean_b)
    similar = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similar = similar / (
        (mean_a.square() + mean_b.square() + c1) * (variance_a + variance_b + c2)
    )  # fmt: skip
    if inside is None:
        return similar.mean(dim=(1, 2))
    counts = _eroded(inside)
    return (similar.nan_to_num() * counts).sum(dim=(1, 2)) / counts.sum(dim=(1, 2))


def value_range(maps: Tensor) -> Tensor:
    return maps.amax(dim=(-2, -1)) - maps.amin(dim=(-2, -1))
