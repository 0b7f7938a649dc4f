"""Maps that combine other maps: of changed images, of parts of enlarged images, of several layers.

They give the numbers of pytorch-grad-cam. Each map that enters is scaled to 0-1 first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.split import evaluating
from .forward import HeadPass, enlarge, head_pass
from .methods import METHODS, CamMethod, min_max
from .one_pass import first_component, product_map

_FACTORS = (0.9, 1.0, 1.1)
_SCALES = 12
_GROWTH = 2 / 7  # from one scale to the next, as a share of the window
_PARTS = 32  # parts of an image at a time


def unit_maps(
    method: CamMethod, model: nn.Module, x: Tensor, passed: HeadPass, size: tuple[int, int]
) -> Tensor:
    """(image, height, width) maps from 0 to 1, of this size; a constant map becomes 0."""
    return min_max(large_maps(method, model, x, passed, size))


def large_maps(
    method: CamMethod, model: nn.Module, x: Tensor, passed: HeadPass, size: tuple[int, int]
) -> Tensor:
    """Like `unit_maps`, but scaled only before enlarging, which need not reach 0 and 1."""
    return enlarge(min_max(method.maps(model, x, passed)), size)


# --- smoothing ------------------------------------------------------------------------------


def smoothed(method: CamMethod | str, *, eigen: bool = False, aug: bool = False) -> CamMethod:
    """Return a new row for a method with the smoothing options of pytorch-grad-cam.

    eigen : use the first component of the products over channels instead of their sum, with its
            larger side positive (the package leaves the sign to chance)
    aug   : use the mean of the maps of six changed images: original and mirrored, each times 0.9,
            1 and 1.1 after normalising
    Raises ValueError for `eigen` with a method that does not sum products, and for a learned
    method.
    """
    row = METHODS[method] if isinstance(method, str) else method
    if row.learned:
        raise ValueError(f"{row.label} is a learned method and cannot be smoothed: choose another")
    if eigen:
        if row.products is None:
            raise ValueError(
                f"{row.label} does not sum products over channels, so `eigen` has no first "
                f"component to use: choose another method, or `aug`"
            )
        row = replace(
            row, key=f"{row.key}_eigen_smooth", label=f"{row.label}, eigen-smoothed",
            small_map=None, products=None, whole_map=partial(_component_of, row.products),
        )  # fmt: skip
    if aug:
        forwards = 5 if row.forwards == 0 else 6 * row.forwards if row.forwards != "channels" else 0
        row = replace(
            row, key=f"{row.key}_aug_smooth", label=f"{row.label}, augmentation-smoothed",
            small_map=None, products=None, whole_map=partial(_of_six, row),
            forwards=forwards or "channels",
        )  # fmt: skip
    return row


def _component_of(products: Any, model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    return first_component(products(model, x, passed)).relu()


def _of_six(method: CamMethod, model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    def explained(some: Tensor) -> Tensor:
        here = passed if some is x else head_pass(model, some, passed.asked)
        return unit_maps(method, model, some, here, tuple(x.shape[-2:]))

    return mean_of_six(explained, x)


def mean_of_six(explained: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The mean of the maps of six changed images: original and mirrored, times 0.9, 1 and 1.1.

    explained : images -> (image, height, width) maps
    x         : the images
    """
    found = []
    for factor in _FACTORS:
        changed = x if factor == 1 else x * factor
        found += [explained(changed), explained(changed.flip(-1)).flip(-1)]
    return torch.stack(found).mean(dim=0)


# --- several layers -------------------------------------------------------------------------


def refine_cam(model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """The product of several layers' Grad-CAM++ maps, which sharpens the map of the last layer.

    The layers are two earlier stages and the study's layer; for a network in memory they are the
    named ones. Raises ValueError if there is only one layer.

    Source: Domeniconi et al., "How to evaluate and refine your CAM", arXiv 2605.14641
    """
    published, x = getattr(model, "plain", model), x.contiguous()
    found = torch.ones(len(x), *x.shape[-2:], device=x.device)
    with evaluating(published):
        for tap in published.layer_taps():
            opened = tap.opened(x)
            with torch.enable_grad():
                gradient = opened.gradient(passed.asked.scores(opened.answer).sum())
            small = product_map("grad_cam_plus_plus", opened.features, gradient)
            found = found * min_max(enlarge(min_max(small), tuple(x.shape[-2:])))
    return min_max(found)


# --- parts of enlarged images -------------------------------------------------------------


def sess(
    model: nn.Module, x: Tensor, passed: HeadPass, method: str = "grad_cam", scales: int = _SCALES
) -> Tensor:
    """Combine maps of windows of the enlarged image, which are finer where the object is small.

    The image's shorter side grows in twelve steps, each by 2/7 of the network's input. Every
    window of the input's size, side by side, has a map. A map's weight is the softmax of its
    window's score; a pixel is the mean of the maps that are not 0 there, blurred.

    Source: Tursun et al., "SESS: Saliency enhancing with scaling and sliding", ECCV 2022
    """
    base = METHODS[method]
    found = [_enhanced(base, model, image[None], passed, n, scales) for n, image in enumerate(x)]
    return min_max(torch.stack(found))


def _enhanced(
    base: CamMethod, model: nn.Module, x: Tensor, passed: HeadPass, image: int, scales: int
) -> Tensor:
    size = tuple(x.shape[-2:])
    window = min(size)
    parts: list[tuple[Tensor, int, int, tuple[int, int]]] = []
    for step in range(scales):
        side = window + step * round(window * _GROWTH)
        large = (side, int(side * size[1] / size[0])) if size[0] <= size[1] else (
            int(side * size[0] / size[1]), side)  # fmt: skip
        scaled = x if large == size else F.interpolate(
            x, large, mode="bilinear", align_corners=False)  # fmt: skip
        parts += [
            (scaled[..., top : top + window, left : left + window], top, left, large)
            for top in _starts(large[0], window) for left in _starts(large[1], window)
        ]  # fmt: skip
    score = passed.asked.of(image)
    maps, scores = [], []
    for start in range(0, len(parts), _PARTS):
        some = torch.cat([part[0] for part in parts[start : start + _PARTS]])
        here = head_pass(model, some, passed.asked.repeated(image, len(some)))
        maps.append(unit_maps(base, model, some, here, (window, window)))
        answer = here.logits
        shares = answer.softmax(dim=-1) if isinstance(answer, Tensor) else answer
        scores.append(score(shares).detach().float().clamp(min=0))
    weights, found = torch.cat(scores), torch.cat(maps)
    weights = weights / weights.amax() if weights.amax() > 0 else torch.ones_like(weights)
    total, count = (torch.zeros(size, device=x.device) for _ in range(2))
    for one, weight, (_, top, left, large) in zip(found, weights, parts, strict=True):
        whole = torch.zeros(large, device=x.device)
        whole[top : top + window, left : left + window] = one * weight
        placed = enlarge(whole[None], size)[0]
        total, count = total + placed.clamp(min=0), count + (placed > 0)
    mean = torch.where(count > 0, total / count.clamp(min=1), 0.0)
    return blurred(mean[None, None])[0, 0]


def _starts(length: int, window: int) -> list[int]:
    """Where windows side by side begin; the last one ends at the border."""
    last = length - window
    return [*range(0, last, window), last]


def blurred(images: Tensor) -> Tensor:
    """Blur (image, channel, height, width) by an 11 x 11 Gaussian, sigma 5, mirrored at borders."""
    at = torch.arange(-5, 6, dtype=torch.float32, device=images.device)
    line = torch.exp(-(at**2) / 50)
    channels = images.shape[1]
    kernel = (line[:, None] * line / line.sum() ** 2).expand(channels, 1, 11, 11)
    return F.conv2d(F.pad(images, (5, 5, 5, 5), mode="reflect"), kernel, groups=channels)
