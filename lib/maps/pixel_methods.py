"""Explanations in the resolution of the picture: gradients along paths, and LIME.

All are of the class that is asked for and use its probability, as the COSE study does. Of
the gradients the sum of the colours' absolute values is shown, cut off at the 99th
percentile. They need the network as published (`CamMethod.plain`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import IntegratedGradients, Lime
from captum.attr._core.lime import get_exp_kernel_similarity_function
from skimage.segmentation import quickshift
from torch import Tensor, nn

from lib.maps.forward import HeadPass, evaluating
from lib.maps.methods import min_max

_SEED = 20240803
_CHUNK = 16  # pictures a backward, or a forward of LIME's
_CUT = 0.99
_BLUR_STEP = 0.01  # pixels


class _Probability(nn.Module):
    """(image, class) probabilities of a model."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).softmax(dim=1)


def _explained(
    model: nn.Module, x: Tensor, explain: Callable[[nn.Module, Tensor], Tensor]
) -> Tensor:
    """What a function makes of the published network, with gradients at hand, as a map."""
    published = getattr(model, "plain", None) or model
    required = [(p, p.requires_grad) for p in published.parameters()]
    pictures = x.contiguous()  # FastViT's backward crashes on channels-last
    with evaluating(published), torch.inference_mode(False), torch.enable_grad():
        try:
            for parameter, _ in required:
                parameter.requires_grad_(False)
            found = explain(_Probability(published), pictures.detach().clone())
        finally:
            for parameter, require in required:
                parameter.requires_grad_(require)
    return found.detach().float()


def _shown(attribution: Tensor) -> Tensor:
    """(image, 3, side, side) -> (image, side, side) from 0 to 1, without the highest hundredth."""
    total = attribution.abs().sum(dim=1)
    cut = total.flatten(1).quantile(_CUT, dim=1)[:, None, None]
    return min_max(total.minimum(cut))


def _gradient(probability: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    """Of each picture's own target, (image, 3, side, side)."""
    found = []
    for some, asked in zip(x.split(_CHUNK), targets.split(_CHUNK), strict=True):
        leaf = some.detach().clone().requires_grad_()
        chosen = probability(leaf).gather(1, asked[:, None]).sum()
        found.append(torch.autograd.grad(chosen, leaf)[0])
    return torch.cat(found)


def integrated_gradients(model: nn.Module, x: Tensor, passed: HeadPass, steps: int = 25) -> Tensor:
    """From a picture of the data's mean colour (0 after normalising), by captum.

    Source: Sundararajan et al., ICML 2017
    """

    def explain(probability: nn.Module, pictures: Tensor) -> Tensor:
        found = IntegratedGradients(probability).attribute(
            pictures, 0.0, passed.targets, n_steps=steps,
            internal_batch_size=max(_CHUNK, len(pictures)),
        )  # fmt: skip
        return _shown(found)

    return _explained(model, x, explain)


def smooth_grad(
    model: nn.Module, x: Tensor, passed: HeadPass, samples: int = 50, noise: float = 0.15
) -> Tensor:
    """The mean gradient under noise, whose deviation is a share of each picture's range.

    The noise is the same for every picture and model of a size.

    Source: Smilkov et al., arXiv 1706.03825
    """

    def explain(probability: nn.Module, pictures: Tensor) -> Tensor:
        spread = noise * (pictures.amax(dim=(1, 2, 3)) - pictures.amin(dim=(1, 2, 3)))
        generator = torch.Generator().manual_seed(_SEED)
        total = torch.zeros_like(pictures)
        for _ in range(samples):
            drawn = torch.randn(pictures.shape[1:], generator=generator).to(pictures)
            total += _gradient(
                probability, pictures + spread[:, None, None, None] * drawn, passed.targets
            )
        return _shown(total)

    return _explained(model, x, explain)


def blur_ig(
    model: nn.Module, x: Tensor, passed: HeadPass, steps: int = 100, most: float = 50.0
) -> Tensor:
    """Gradients along the path from a blurred picture to the sharp one.

    most : the largest blur, a standard deviation in pixels; steps are even in it

    How a picture changes with the blur is a difference quotient, as in the authors' code. The
    sharp picture's own is 0, since so small a blur changes no pixel.

    Source: Xu et al., CVPR 2020
    """

    def explain(probability: nn.Module, pictures: Tensor) -> Tensor:
        # Softer pictures differ by little: in float64, where the device has it.
        exact = pictures if pictures.device.type == "mps" else pictures.double()
        total = torch.zeros_like(exact)
        for number in range(steps):
            sigma = number * most / steps
            soft = gaussian_blur(exact, sigma)
            slope = (gaussian_blur(exact, sigma + _BLUR_STEP) - soft) / _BLUR_STEP
            gradient = _gradient(probability, soft.to(pictures.dtype), passed.targets)
            total -= gradient * slope * (most / steps)
        return _shown(total)

    return _explained(model, x, explain)


def gaussian_blur(pictures: Tensor, sigma: float) -> Tensor:
    """By a Gaussian that is cut off at four deviations; 0 outside of the picture."""
    if not sigma:
        return pictures
    rows, columns = (_gaussian(side, sigma).to(pictures) for side in pictures.shape[-2:])
    return rows @ pictures @ columns.T


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

    Source: Kapishnikov et al., CVPR 2021, algorithm 1
    """

    def explain(probability: nn.Module, pictures: Tensor) -> Tensor:
        path = [GuidedPath(picture, fraction, most) for picture in pictures]
        for step in range(1, steps + 1):
            now = torch.stack([p.at for p in path])
            gradients = _gradient(probability, now, passed.targets)
            for one, gradient in zip(path, gradients, strict=True):
                one.advance(step / steps, gradient)
        return _shown(torch.stack([p.attribution for p in path]))

    return _explained(model, x, explain)


class GuidedPath:
    """One picture's path from 0, and what has been attributed along it."""

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


def lime(
    model: nn.Module, x: Tensor, passed: HeadPass, samples: int = 1000, features: int = 10
) -> Tensor:
    """Weights of a linear model of the probability on which superpixels are shown, by captum.

    The picture is cut into superpixels by quickshift; one that is hidden has its mean colour.
    Of the superpixels with the largest weights those with positive ones are shown.

    features : so many of the superpixels

    Source: Ribeiro et al., KDD 2016
    """

    def explain(probability: nn.Module, pictures: Tensor) -> Tensor:
        likeness = get_exp_kernel_similarity_function("cosine", kernel_width=0.25)
        maps = []
        for picture, target in zip(pictures, passed.targets, strict=True):
            colours = min_max(picture).permute(1, 2, 0).cpu().double().numpy()
            parts = quickshift(colours, kernel_size=4, max_dist=200, ratio=0.2, rng=0)
            parts = torch.from_numpy(np.ascontiguousarray(parts)).to(picture.device)
            count = int(parts.max()) + 1
            means = torch.zeros(3, count, device=picture.device).index_add(
                1, parts.flatten(), picture.flatten(1)
            ) / parts.flatten().bincount(minlength=count)
            explainer = Lime(probability, SkLearnRidge(alpha=1.0), similarity_func=likeness)
            with torch.random.fork_rng(devices=[picture.device] if picture.is_cuda else []):
                torch.manual_seed(_SEED)
                weights = explainer.attribute(
                    picture[None], means[:, parts][None], int(target),
                    feature_mask=parts[None, None], n_samples=samples,
                    perturbations_per_eval=_CHUNK, return_input_shape=False,
                ).flatten()  # fmt: skip
            shown = torch.zeros_like(weights)
            largest = weights.abs().topk(min(features, count)).indices
            shown[largest] = weights[largest].clamp(min=0)
            maps.append(shown[parts])
        return torch.stack(maps)

    return _explained(model, x, explain)
