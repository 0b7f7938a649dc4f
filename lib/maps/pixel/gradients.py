"""Gradients at the resolution of the image: along paths, and under noise.

`lib.maps.pixel.published` describes what all of them share. They need the network as published
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
    """The mean gradient at evenly spaced places on a straight path, including both ends.

    The path starts at an image of the data's mean colour (0 after normalising), as in the
    published code.

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
    """The same integral by Gauss-Legendre quadrature, as in captum, which comes nearer to the
    difference of the probabilities with the same number of gradients."""
    with published(model, x) as (network, images):
        found = IntegratedGradients(Probability(network)).attribute(
            images, 0.0, passed.targets, n_steps=steps,
            internal_batch_size=max(CHUNK, len(images)),
        )  # fmt: skip
        return shown(found)


def smooth_grad(
    model: nn.Module, x: Tensor, passed: HeadPass, samples: int = 50, noise: float = 0.15
) -> Tensor:
    """The mean gradient under noise whose standard deviation is a share of each image's range.

    The noise is the same for all images and models of one size.

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

    most : the largest blur, a standard deviation in pixels; the steps are evenly spaced

    The change of an image with the blur is a difference quotient, as in the authors' code. For the
    sharp image it is 0, because such a small blur changes no pixel.

    Source: Xu et al., CVPR 2020
    """
    with published(model, x) as (network, images):
        # Blurred images differ little, so this is in float64, if the device has it.
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
    """Blur images by a Gaussian that ends at four standard deviations; 0 outside the image."""
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
    """Integrated gradients on a path that first moves the values that matter least.

    fraction : the share of the values that may move at a time
    most     : a value's largest distance from the straight path, as a share of that path

    It uses float64 if the device has it, because the values that move depend on the order of
    gradients that differ little, and each step depends on all earlier ones.

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
    """The path of one image from 0, and the attribution along it."""

    def __init__(self, end: Tensor, fraction: float, most: float):
        self.end, self.fraction, self.most = end, fraction, most
        self.at = torch.zeros_like(end)
        self.attribution = torch.zeros_like(end)
        self._length = end.abs().sum()

    def advance(self, share: float, gradient: Tensor) -> None:
        """Move until as much of the way is left as on the straight path at this share."""
        behind, ahead = max(share - self.most, 0.0) * self.end, min(share + self.most, 1) * self.end
        start = self.at
        # Values that lag too far behind the straight path catch up.
        lags = (behind - self.at) * self.end.sign() > 0
        self.at = torch.where(lags, behind, self.at)
        size = gradient.abs()
        while True:
            left = (self.end - self.at).abs().sum() - (1 - share) * self._length
            may_move = (ahead - self.at) * self.end.sign() > 0
            if left <= 1e-6 * self._length or not may_move.any():
                break
            ordered = torch.where(may_move, size, torch.inf)
            # The count covers all values; those that cannot move any more come last.
            count = max(1, int(self.fraction * (size.numel() - 1)) + 1)
            threshold = ordered.flatten().kthvalue(count).values
            chosen = may_move & (ordered <= threshold)
            possible = ((ahead - self.at).abs() * chosen).sum()
            part = (left / possible).clamp(max=1.0)
            self.at = torch.where(chosen, self.at + part * (ahead - self.at), self.at)
            if part < 1:
                break
        self.attribution += (self.at - start) * gradient
