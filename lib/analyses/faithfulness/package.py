"""pytorch-grad-cam's faithfulness metrics for any network and target, in batches on its device.

The numbers are those of the package's own classes, which give the measures their names. Silent
errors of the package are refused here or give NaN: constant maps, missing targets, train mode.

Source: pytorch-grad-cam 1.5.7 (`CamMultImageConfidenceChange`, `DropInConfidence`,
`IncreaseInConfidence`, the ROAD classes, `ARCC`); Chattopadhyay et al., WACV 2018; Rong et al.,
ICML 2022 (ROAD); Poppi et al., CVPR workshops 2021 (complexity, coherency)
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ...maps.forward import is_constant
from ...maps.methods import min_max
from ...networks.split import evaluating
from ...networks.taps import answer_of, gradients_kept
from ...scores.statistics import means_by
from .definitions import ends_of
from .imputing import imputed
from .removal import NOISE

PERCENTILES = (10, 20, 30, 40, 50, 60, 70, 80, 90)
AUTO = "auto"
_ARCC_PERCENTILES = (20, 40, 60, 80)
_TINY = 1e-8  # the package adds it to avoid division by 0
_MORF, _LERF = "ROADMostRelevantFirst", "ROADLeastRelevantFirst"

Target = Callable[[Tensor], Tensor] | int
Percentile = float | str


def package_metrics(
    network: nn.Module,
    x: Tensor,
    maps: Tensor | np.ndarray,
    targets: Target | Sequence[Target] | Tensor | np.ndarray,
    *,
    explain: Callable[[Tensor], Tensor | np.ndarray] | None = None,
    percentiles: Sequence[Percentile] | Percentile = PERCENTILES,
    noise: float | Tensor = NOISE,
    seed: int = 0,
    image_ids: Sequence[str] | None = None,
    batch: int = 16,
) -> pd.DataFrame:
    """Return pytorch-grad-cam's faithfulness metrics of heatmaps: `image, measure, value`.

    network : any module; its output is a tensor or a list with one entry per image, or a mapping
              with such a tensor as `logits` or `out`
    x       : (image, channel, h, w), normalised for the network
    maps    : (image, h, w); each is scaled to 0-1 by its own range
    targets : one for all images, or one per image. A target is a function that returns one number
              from the network's output for one image, such as pytorch-grad-cam's own target
              classes; or a class's number, which means its softmax probability
    explain : function that returns heatmaps, (image, h, w), of images like x for the same targets
              in the same order. It is called once, with all of x times the maps. Without it there
              are no `Coherency` and no `ARCC`
    percentiles : percentiles for ROAD. Several give the `…Average` over them, one gives the single
              class. At p, the pixels at or above the map's p-th percentile are removed, so 80
              removes a fifth. "auto" is Otsu's threshold. As in the package, it removes the pixels
              at or below it, so that most relevant first then begins with the least relevant
    noise   : noise on imputed pixels, in the units of x: a standard deviation, with the same random
              numbers for every percentile, or the numbers themselves, with the shape of x
    seed    : seed of these random numbers, together with an image's place in x
    image_ids : names in the column `image`; otherwise places in x
    batch   : images per forward pass

    `FAITHFULNESS` defines each measure. It is NaN for a map that is constant or not finite;
    `Coherency` and `ARCC` are also NaN if the map of the masked image is. These cases are counted
    by `summarise_package_metrics`. The network is scored in eval mode. Its mode, its gradients and
    `requires_grad` are restored afterwards, whatever `explain` does to them.

    Raises ValueError if shapes or numbers of images, maps, targets and names differ, for a target
    that returns more than one number, for a class that does not exist, or for a network whose
    output does not have one entry per image.
    """
    shown, nothing = _scaled(maps, x)
    asked = _asked(targets, len(x))
    single = np.isscalar(percentiles)
    thresholds = _checked([percentiles] if single else percentiles)
    for_arcc = _ARCC_PERCENTILES if explain is not None else ()
    if image_ids is not None and len(image_ids) != len(x):
        raise ValueError(
            f"image_ids must have one name per image: {len(x)} images, {len(image_ids)} names"
        )
    device = next((p.device for p in network.parameters()), x.device)
    x, shown, nothing = x.detach().to(device), shown.to(device), nothing.to(device)
    added = _noise(noise, seed, x)

    with _left_as_it_was(network):
        scores = _Scores(network, asked, batch)
        whole = scores.of(x)
        change = scores.of(x * shown[:, None].to(x)) - whole
        left = {
            (name, p): scores.of(x, _removed(ordered, p), added) - whole
            for p in dict.fromkeys([*thresholds, *for_arcc])
            for name, ordered in ((_MORF, shown), (_LERF, 1 - shown))
        }
        again = None if explain is None else _explained(explain, x, shown)

    def mean(name: str, chosen: Sequence[Percentile]) -> Tensor:
        return torch.stack([left[name, p] for p in chosen]).mean(dim=0)

    def combined(chosen: Sequence[Percentile]) -> Tensor:
        return (mean(_LERF, chosen) - mean(_MORF, chosen)) / 2

    found = {
        "CamMultImageConfidenceChange": change,
        "DropInConfidence": (-change).clamp(min=0),
        "IncreaseInConfidence": torch.where(change.isnan(), change, (change > 0).double()),
    }
    if thresholds:
        suffix = "" if single else "Average"
        found |= {f"{name}{suffix}": mean(name, thresholds) for name in (_MORF, _LERF)}
        found["ROADCombined"] = combined(thresholds)
    found["Complexity"] = shown.cpu().double().mean(dim=(1, 2))
    if again is not None:
        found["Coherency"] = _coherency(shown, again)
        parts = (found["Coherency"], 1 - found["Complexity"],
                 (2 * combined(_ARCC_PERCENTILES)).clamp(0, 1))  # fmt: skip
        found["ARCC"] = 3 / sum(1 / (part + _TINY) for part in parts)
    names = range(len(x)) if image_ids is None else image_ids
    return pd.concat(
        [
            pd.DataFrame({"image": names, "measure": measure,
                          "value": values.masked_fill(nothing.cpu(), torch.nan).numpy()})
            for measure, values in found.items()
        ],
        ignore_index=True,
    )  # fmt: skip


def summarise_package_metrics(table: pd.DataFrame) -> pd.DataFrame:
    """Return means over images with 95 % intervals: `measure, value, low, high, n, missing`.

    table   : from `package_metrics`
    missing : number of images without a value, which the mean skips
    """
    means = means_by(table, ["measure"], "value", "value", lambda key: ends_of(key[0]))
    images = table.groupby("measure").size()
    return means.assign(missing=means.measure.map(images) - means.n)


# --- checks of the arguments ---------------------------------------------------------------------


def _scaled(maps: Tensor | np.ndarray, x: Tensor) -> tuple[Tensor, Tensor]:
    """Maps in 0-1, and which of them are unusable; those are 0 everywhere."""
    if x.ndim != 4 or not len(x) or not x.is_floating_point():
        raise ValueError(
            "images must be (image, channel, height, width), normalised floating-point numbers, "
            f"got {tuple(x.shape)} {x.dtype}"
        )
    return _like(torch.as_tensor(maps), (len(x), *x.shape[2:]), "maps")


def _like(maps: Tensor, shape: tuple[int, ...], name: str) -> tuple[Tensor, Tensor]:
    if maps.shape != shape:
        raise ValueError(
            f"{name} must be (image, height, width) like the images, {shape}, "
            f"got {tuple(maps.shape)}"
        )
    maps = maps.detach().float()
    nothing = is_constant(maps) | ~maps.isfinite().flatten(1).all(dim=1)
    return min_max(maps.masked_fill(nothing[:, None, None], 0)), nothing


def _asked(
    targets: Target | Sequence[Target] | Tensor | np.ndarray, count: int
) -> list[Callable[[Tensor], Tensor]]:
    """One function per image."""
    if callable(targets) and not isinstance(targets, Tensor):
        return [targets] * count
    if isinstance(targets, Tensor | np.ndarray):
        targets = targets.tolist()
    if not isinstance(targets, Sequence) or isinstance(targets, str):
        raise ValueError(f"targets must be a list with one target per image, got {targets!r}")
    if len(targets) != count:
        raise ValueError(f"need one target per image: {count} images, {len(targets)} targets")
    return [target if callable(target) else _Probability(_whole(target)) for target in targets]


def _whole(target: object) -> int:
    try:
        if isinstance(target, bool):
            raise TypeError
        return operator.index(target)
    except TypeError:
        raise ValueError(
            f"a target must be a function of the network's output or a class's number, "
            f"got {target!r}"
        ) from None


@dataclass(frozen=True)
class _Probability:
    """A class's probability by softmax."""

    number: int

    def __call__(self, output: Tensor) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 1 or len(output) < 2:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                "a class's number as a target needs one score per class for each image, but the "
                f"network returned {shape}; give a function of that output as the target"
            )
        if not 0 <= self.number < len(output):
            raise ValueError(
                f"target {self.number} is not a class: classes are 0 … {len(output) - 1}"
            )
        return output.float().softmax(dim=0)[self.number]


def _checked(percentiles: Sequence[Percentile]) -> list[Percentile]:
    for p in percentiles:
        if p != AUTO and (isinstance(p, str) or not 0 < p <= 100):
            raise ValueError(
                f"a percentile must be above 0 and at most 100, or {AUTO!r}; got {p!r}"
            )
    return list(percentiles)


def _noise(noise: float | Tensor, seed: int, x: Tensor) -> Tensor:
    if isinstance(noise, Tensor):
        if noise.shape != x.shape:
            raise ValueError(
                f"noise must have the shape of the images, {tuple(x.shape)}, got "
                f"{tuple(noise.shape)}"
            )
        return noise.to(x)
    draws = [np.random.default_rng([seed, i]).standard_normal(x.shape[1:]) for i in range(len(x))]
    return noise * torch.from_numpy(np.stack(draws)).to(x.dtype).to(x.device)


# --- the network ----------------------------------------------------------------------------------


@contextmanager
def _left_as_it_was(network: nn.Module) -> Iterator[None]:
    """A context in eval mode that restores modes, gradients and `requires_grad` afterwards."""
    with evaluating(network), gradients_kept(network):
        for parameter in network.parameters():
            parameter.grad = None  # a backward pass would add to the gradient in place
        yield


@dataclass(frozen=True)
class _Scores:
    """The numbers that the targets return, one batch at a time."""

    network: nn.Module
    asked: Sequence[Callable[[Tensor], Tensor]]
    batch: int

    # No inference mode: tensors that a user's network caches in it could not be recorded later.
    @torch.no_grad()
    def of(self, x: Tensor, removed: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """(image,) float64 on the CPU, for the images unchanged or with removed, imputed pixels."""
        found: list[Tensor] = []
        for places in torch.arange(len(x)).split(self.batch):
            part = slice(int(places[0]), int(places[-1]) + 1)
            some = x[part] if removed is None else imputed(x[part], removed[part], noise[part])
            outputs = _one_per_image(answer_of(self.network(some)), len(some))
            found += [
                _number(self.asked[place](output), place)
                for place, output in zip(places.tolist(), outputs, strict=True)
            ]
        return torch.stack([value.to(x.device) for value in found]).cpu().double()


def _one_per_image(outputs: object, count: int) -> Sequence:
    if not isinstance(outputs, Tensor | list) or (isinstance(outputs, Tensor) and not outputs.ndim):
        raise ValueError(
            f"the network returned {type(outputs).__name__}, so the part of each image is unknown: "
            "wrap it in a module that returns a tensor or a list, one entry per image"
        )
    if len(outputs) != count:
        raise ValueError(
            f"the network returned {len(outputs)} outputs for {count} images: it must return one "
            "per image"
        )
    return outputs


def _number(value: object, place: int) -> Tensor:
    found = torch.as_tensor(value).detach()
    if found.numel() != 1:
        raise ValueError(
            f"the target of image {place} returned {found.numel()} numbers, of shape "
            f"{tuple(found.shape)}; a target must give one number per image"
        )
    return found.float().reshape(())


def _explained(
    explain: Callable[[Tensor], Tensor | np.ndarray], x: Tensor, shown: Tensor
) -> tuple[Tensor, Tensor]:
    """Maps in 0-1 of the images times the maps, and which of them are unusable."""
    with torch.inference_mode(False), torch.enable_grad():
        maps = torch.as_tensor(explain(x.clone() * shown[:, None].to(x)))
    return _like(maps.to(x.device), tuple(shown.shape), "the maps that `explain` returns")


# --- formulas ------------------------------------------------------------------------------------


def _removed(maps: Tensor, percentile: Percentile) -> Tensor:
    """(image, h, w) bool: the pixels that ROAD removes."""
    # numpy's thresholds, so that a pixel at the threshold is treated as in the package.
    flat = maps.flatten(1).cpu().numpy()
    if percentile == AUTO:
        levels = (maps * 255).to(torch.uint8)
        cuts = torch.tensor([_otsu(row) for row in (flat * 255).astype(np.uint8)])
        return levels <= cuts.to(maps.device)[:, None, None]
    cuts = torch.from_numpy(np.percentile(flat, percentile, axis=1))
    return maps >= cuts.to(maps.device)[:, None, None]


def _otsu(levels: np.ndarray) -> int:
    """The level, 0-255, that splits the values into two classes whose means differ most; the first
    class lies at or below it (Otsu 1979)."""
    count = np.bincount(levels, minlength=256)
    below, total = np.cumsum(count), np.cumsum(count * np.arange(256))
    above = below[-1] - below
    parted = (below > 0) & (above > 0)
    means = total / np.maximum(below, 1) - (total[-1] - total) / np.maximum(above, 1)
    return int(np.argmax(np.where(parted, below * above * means**2, 0.0)))


def _coherency(shown: Tensor, again: tuple[Tensor, Tensor]) -> Tensor:
    """Pearson's correlation of two maps, scaled to 0-1; NaN if the second is unusable."""
    second, nothing = again
    a, b = (maps.flatten(1).cpu().double() for maps in (shown, second))
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    free = a.shape[1] - 1
    spread = ((a**2).sum(dim=1) / free).sqrt() * ((b**2).sum(dim=1) / free).sqrt()
    correlation = (a * b).sum(dim=1) / free / (spread + _TINY)
    return ((correlation + 1) / 2).masked_fill(nothing.cpu(), torch.nan)
