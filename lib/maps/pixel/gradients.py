"""Gradients in the resolution of the image: along paths, and under noise.

What all share is told in `lib.maps.pixel.published`. They need the network as published
(`CamMethod.plain`).
"""

from __future__ import annotations

import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from ..forward import HeadPass
from .published import CHUNK, SEED, Probability, gradient, published, shown

_BLUR_STEP = 0.01  # pixels


def integrated_gradients(model: nn.Module, x: Tensor, passed: HeadPass, steps: int = 25) -> Tensor:
    """From an image of the data's mean colour (0 after normalising): the mean gradient at places
    evenly apart, both ends among them, as the published code takes it.

    Source: Sundararajan et al., ICML 2017; the authors' later package, saliency
    """
    with published(model, x) as (network, images):
        probability, total = Probability(network), torch.zeros_like(images)
        for share in torch.linspace(0, 1, steps, dtype=torch.float64).tolist():
            total += gradient(probability, share * images, passed.targets)
        return shown(total * images / steps)


def integrated_gradients_legendre(
    model: nn.Module, x: Tensor, passed: HeadPass, steps: int = 25
) -> Tensor:
    """The same integral by Gauss and Legendre's places and weights, which captum takes: nearer to
    the whole difference of the probabilities by as many gradients."""
    with published(model, x) as (network, images):
        found = IntegratedGradients(Probability(network)).attribute(
            images, 0.0, passed.targets, n_steps=steps,
            internal_batch_size=max(CHUNK, len(images)),
        )  # fmt: skip
        return shown(found)


def smooth_grad(
    model: nn.Module, x: Tensor, passed: HeadPass, samples: int = 50, noise: float = 0.15
) -> Tensor:
    """The mean gradient under noise, whose deviation is a share of each image's range.

    The noise is the same for every image and model of a size.

    Source: Smilkov et al., arXiv 1706.03825
    """
    with published(model, x) as (network, images):
        probability, total = Probability(network), torch.zeros_like(images)
        spread = noise * (images.amax(dim=(1, 2, 3)) - images.amin(dim=(1, 2, 3)))
        generator = torch.Generator().manual_seed(SEED)
        for _ in range(samples):
            drawn = torch.randn(images.shape[1:], generator=generator).to(images)
            noisy = images + spread[:, None, None, None] * drawn
            total += gradient(probability, noisy, passed.targets)
        return shown(total)


def blur_ig(
    model: nn.Module, x: Tensor, passed: HeadPass, steps: int = 100, most: float = 50.0
) -> Tensor:
    """Gradients along the path from a blurred image to the sharp one.

    most : the largest blur, a standard deviation in pixels; steps are even in it

    How an image changes with the blur is a difference quotient, as in the authors' code. The
    sharp image's own is 0, since so small a blur changes no pixel.

    Source: Xu et al., CVPR 2020
    """
    with published(model, x) as (network, images):
        # Softer images differ by little: in float64, where the device has it.
        exact = images if images.device.type == "mps" else images.double()
        probability, total = Probability(network), torch.zeros_like(exact)
        for number in range(steps):
            sigma = number * most / steps
            soft = gaussian_blur(exact, sigma)
            slope = (gaussian_blur(exact, sigma + _BLUR_STEP) - soft) / _BLUR_STEP
            found = gradient(probability, soft.to(images.dtype), passed.targets)
            total -= found * slope * (most / steps)
        return shown(total)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """By a Gaussian that is cut off at four deviations; 0 outside of the image."""
    if not sigma:
        return images
    rows, columns = (_gaussian(side, sigma).to(images) for side in images.shape[-2:])
    return rows @ images @ columns.T


def _gaussian(side: int, sigma: float) -> Tensor:
    """(side, side) matrix that blurs a line."""
    reach = int(4 * sigma + 0.5)
    at = torch.arange(-reach, reach + 1, dtype=torch.float64)
    total = torch.exp(-(at**2) / (2 * sigma**2)).sum()
    places = torch.arange(side, dtype=torch.float64)
    apart = places[:, None] - places
    weights = torch.exp(-(apart**2) / (2 * sigma**2)) / total
    return torch.where(apart.abs() <= reach, weights, 0.0)


def guided_ig(
    model: nn.Module,
    x: Tensor,
    passed: HeadPass,
    steps: int = 200,
    fraction: float = 0.25,
    most: float = 0.02,
) -> Tensor:
    """Integrated gradients on a path that moves first the values that matter least.

    fraction : of the values that may move at a time; most : a value's distance, as a share of
    the straight path, from where the straight path would have it

    In float64, where the device has it: which values move depends on the order of gradients that
    differ by little, and each step on all before it.

    Source: Kapishnikov et al., CVPR 2021, algorithm 1
    """
    with published(model, x, exact=True) as (network, images):
        probability = Probability(network)
        path = [GuidedPath(image, fraction, most) for image in images]
        for step in range(1, steps + 1):
            now = torch.stack([p.at for p in path])
            gradients = gradient(probability, now, passed.targets)
            for one, found in zip(path, gradients, strict=True):
                one.advance(step / steps, found)
        return shown(torch.stack([p.attribution for p in path]))


class GuidedPath:
    """One image's path from 0, and what has been attributed along it."""

    def __init__(self, end: Tensor, fraction: float, most: float):
        self.end, self.fraction, self.most = end, fraction, most
        self.at = torch.zeros_like(end)
        self.attribution = torch.zeros_like(end)
        self._length = end.abs().sum()

    def advance(self, share: float, gradient: Tensor) -> None:
        """Move until so much of the way is left as on the straight path at this share of it."""
        behind, ahead = max(share - self.most, 0.0) * self.end, min(share + self.most, 1) * self.end
        start = self.at
        # What lags too far behind the straight path catches up.
        lags = (behind - self.at) * self.end.sign() > 0
        self.at = torch.where(lags, behind, self.at)
        size = gradient.abs()
        while True:
            left = (self.end - self.at).abs().sum() - (1 - share) * self._length
            may_move = (ahead - self.at) * self.end.sign() > 0
            if left <= 1e-6 * self._length or not may_move.any():
                break
            ordered = torch.where(may_move, size, torch.inf)
            # The count is of all values; those that cannot move any more come last.
            count = max(1, int(self.fraction * (size.numel() - 1)) + 1)
            threshold = ordered.flatten().kthvalue(count).values
            chosen = may_move & (ordered <= threshold)
            possible = ((ahead - self.at).abs() * chosen).sum()
            part = (left / possible).clamp(max=1.0)
            self.at = torch.where(chosen, self.at + part * (ahead - self.at), self.at)
            if part < 1:
                break
        self.attribution += (self.at - start) * gradient
