"""CAM methods that run the network again, either the layers after the target layer or all of it.

Each returns products, (image, channel, h, w), whose sum over channels is the map, as in
`lib.maps.one_pass`. They are pytorch-grad-cam's methods. If that package's class fails or is not
defined, the function's docstring says what is done instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pytorch_grad_cam.utils.model_targets import FinerWeightedTarget
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..networks.split import evaluating
from .forward import HeadPass

_CHUNK = 32  # networks' inputs at a time
_HEADS = 128  # heads' inputs at a time
_HALVINGS = 4  # random halves of the channels that test whether the answer is a sum over channels
_SUM = 1e-5  # tolerance of float32 sums, as a share of the largest answer


def finer_cam(model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """Grad-CAM of the class's logit minus the three nearest logits, weighted by their softmax.

    Source: Zhang et al., "Finer-CAM", CVPR 2025
    """
    own = passed.logits.gather(1, passed.targets[:, None])
    distance = (passed.logits - own).abs().scatter(1, passed.targets[:, None], torch.inf)
    alike = distance.topk(min(3, distance.shape[1] - 1), dim=1, largest=False).indices
    asked = [
        FinerWeightedTarget(int(target), [int(c) for c in others], 1.0)
        for target, others in zip(passed.targets, alike, strict=True)
    ]
    with evaluating(model):
        opened = model.opened(x, passed.features)
        with torch.inference_mode(False), torch.enable_grad():
            total = sum(f(logits) for f, logits in zip(asked, opened.answer, strict=True))
            gradient = opened.gradient(total)
    return gradient.mean(dim=(-2, -1), keepdim=True) * passed.features


def shapley_cam(model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """Grad-CAM whose weights are reduced by half of a second-order term.

    The package's class fails if the layers after the target layer are linear and nothing else
    requires gradients.

    Source: Cai, "CAMs as Shapley value-based explainers", arXiv 2501.06261
    """
    # The fast attention kernels of transformers have no second derivative.
    with evaluating(model), sdpa_kernel(SDPBackend.MATH):
        opened = model.opened(x, passed.features)
        with torch.inference_mode(False), torch.enable_grad():
            total = passed.asked.scores(opened.answer).sum()
            leaf = opened.leaf
            (gradient,) = torch.autograd.grad(total, leaf, create_graph=True)
            curved = torch.zeros_like(leaf)
            if gradient.requires_grad:
                (found,) = torch.autograd.grad(gradient, leaf, leaf.detach(), allow_unused=True)
                curved = curved if found is None else found
    weights = opened.grid.maps((gradient - curved / 2).detach())
    return weights.mean(dim=(-2, -1), keepdim=True) * passed.features


@torch.inference_mode()
def ablation_cam(model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """Channels weighted by how far the target falls when the channel is set to 0.

    Only the layers after the target layer are run again, if the network can be cut there. If they
    are a sum over channels, such as an average and a matrix product, they need not run again: a
    channel contributes its features times their gradient. If features can be negative, the
    package's class sets a channel to its smallest value minus 1e7, and a layer norm then sees
    nothing else; it also divides by the sign of the logit. For features of 0 or more and a
    positive logit, the maps are the same.

    Source: Desai and Ramaswamy, WACV 2020
    """
    whole = passed.asked.scores(passed.logits).float()
    found = []
    with evaluating(model):
        for image, channels in enumerate(passed.features):
            score, answer = passed.asked.of(image), model.answering(x[image : image + 1])
            if passed.asked.classes is not None and _adds_channels(answer, channels):
                falls = (passed.gradient[image] * channels).sum(dim=(1, 2))
                found.append((falls / whole[image].abs())[:, None, None] * channels)
                continue
            left = []
            for some in torch.arange(len(channels), device=channels.device).split(_HEADS):
                without = channels.repeat(len(some), 1, 1, 1)
                without[torch.arange(len(some)), some] = 0
                left.append(score(answer(without)).float())
            weights = (whole[image] - torch.cat(left)) / whole[image].abs()
            found.append(weights[:, None, None] * channels)
    return torch.stack(found)


def _adds_channels(answer: Callable[[Tensor], Any], channels: Tensor) -> bool:
    """Whether each channel adds to the answer independently of the others.

    The test uses halves of the channels: the answers of both halves must sum to the answers of all
    channels and of none.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(_HALVINGS, len(channels), generator=generator).to(channels.device) < 0.5
    halves = torch.cat([drawn, ~drawn])[:, :, None, None] * channels
    answers = answer(torch.cat([halves, channels[None], torch.zeros_like(channels)[None]]))
    if not isinstance(answers, Tensor):
        return False
    one, other, (every, none) = answers.float().split([_HALVINGS, _HALVINGS, 2])
    off = (one + other - every - none).abs().max()
    return bool(off <= _SUM * answers.float().abs().max())


@torch.inference_mode()
def score_cam(model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """Channels weighted by the score of the image masked by that channel.

    This takes one forward pass per channel, in batches on the device. The weights are the softmax
    of the scores, as in pytorch-grad-cam, whose loop in numpy gives the same maps.

    Source: Wang et al., CVPR workshops 2020
    """
    found = []
    with evaluating(model):
        for place, (image, channels) in enumerate(zip(x, passed.features, strict=True)):
            score, scores = passed.asked.of(place), []
            for some in channels.split(_CHUNK):
                masks = nn.functional.interpolate(
                    some[None], x.shape[-2:], mode="bilinear", align_corners=True
                )[0]
                low, high = masks.amin(dim=(1, 2)), masks.amax(dim=(1, 2))
                masks = (masks - low[:, None, None]) / (high - low + 1e-8)[:, None, None]
                shown = (image * masks[:, None]).to(x.dtype)
                scores.append(score(model(shown)).float())
            weights = torch.cat(scores).softmax(dim=0)
            found.append(weights[:, None, None] * channels)
    return torch.stack(found)
