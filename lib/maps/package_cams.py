"""pytorch-grad-cam's own classes, run so that its traps cannot happen.

Methods that look at the features only are run on the head alone: the package's forward and
backward then cost next to nothing. What it does silently is refused or undone here: one target
for several pictures, hooks that stay, gradients left on parameters, a mode that is not
restored, an IndexError swallowed by its `with` form, numbers that are not float32.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, FinerWeightedTarget
from torch import Tensor, nn

from lib.maps.forward import HeadPass, evaluating
from lib.networks.rewrites import PLAIN

_CHUNK = 32  # networks' inputs at a time
_HEADS = 128  # heads' inputs at a time


class _Layer(nn.Module):
    """A network whose target layer is where the study splits it.

    whole : takes pictures; otherwise the features
    """

    def __init__(self, model: nn.Module, whole: bool):
        super().__init__()
        self.model, self.whole, self.layer = model, whole, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        features = self.model.features(x) if self.whole else x
        return self.model.head(self.layer(features))


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Modes, gradients and what requires them are afterwards as they were; float32 within."""
    parameters = list(model.parameters())
    required = [p.requires_grad for p in parameters]
    gradients = [p.grad for p in parameters]
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        try:
            for parameter in parameters:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter, require, gradient in zip(parameters, required, gradients, strict=True):
                parameter.requires_grad_(require)
                parameter.grad = gradient


def run_class(
    name: str | type, model: nn.Module, x: Tensor, asked: Sequence[Callable], whole: bool, **options
) -> Tensor:
    """A class of pytorch-grad-cam's maps, (image, h, w) float32, from 0 to 1 an image.

    name   : of the class, or a reader's own class in its manner
    model  : with `features` and `head`
    x      : features, or pictures if `whole`
    asked  : per image what the package calls its target: logits to a number
    options : attributes set on the object
    Raises ValueError unless there is one target per image, RuntimeError naming the class if
    its maps are not one finite map per picture.
    """
    if len(asked) != len(x):
        raise ValueError(f"need one target per image: {len(x)} images, {len(asked)} targets")
    network = _Layer(model, whole)
    made = getattr(pytorch_grad_cam, name) if isinstance(name, str) else name
    with _untouched(model), _silent():
        cam = made(network, [] if name == "FullGrad" else [network.layer])
        try:
            for option, value in options.items():
                setattr(cam, option, value)
            maps = cam(x.detach().clone().float().requires_grad_(), list(asked))
        finally:
            if hasattr(cam, "activations_and_grads"):
                cam.activations_and_grads.release()
    if len(maps) != len(x) or not np.isfinite(maps).all():
        said = f"pytorch-grad-cam's {name}" if isinstance(name, str) else made.__name__
        raise RuntimeError(f"{said} gave no finite map for every picture")
    return torch.from_numpy(np.ascontiguousarray(maps)).to(x.device)


def _logits_of(targets: Tensor) -> list[Callable]:
    return [ClassifierOutputTarget(int(target)) for target in targets]


@contextmanager
def _silent() -> Iterator[None]:
    """Without the package's own prints and bars, one a picture; errors pass."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def from_head(name: str, model: nn.Module, x: Tensor, passed: HeadPass, **options) -> Tensor:
    """A method that needs the head again, or nothing more: run on the features alone."""
    asked = _logits_of(passed.targets)
    return run_class(name, model, passed.features, asked, whole=False, **options)


def of_class(cam: type, on_pictures: bool, model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """A reader's own class, run on the features alone or, if it wants them, on pictures."""
    asked = _logits_of(passed.targets)
    if on_pictures:
        return run_class(cam, getattr(model, "plain", model), x, asked, whole=True)
    return run_class(cam, model, passed.features, asked, whole=False)


def finer_cam(model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """Grad-CAM of the class's logit less the nearest three's, weighed by their softmax.

    Source: Zhang et al., "Finer-CAM", CVPR 2025
    """
    own = passed.logits.gather(1, passed.targets[:, None])
    distance = (passed.logits - own).abs().scatter(1, passed.targets[:, None], torch.inf)
    alike = distance.topk(min(3, distance.shape[1] - 1), dim=1, largest=False).indices
    asked = [
        FinerWeightedTarget(int(target), [int(c) for c in others], 1.0)
        for target, others in zip(passed.targets, alike, strict=True)
    ]
    return run_class("GradCAM", model, passed.features, asked, whole=False)


def shapley_cam(model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """Grad-CAM whose weights take away half of what the head's curvature says.

    The package's class fails where the head is linear and nothing else requires gradients.

    Source: Cai, "CAMs as Shapley value-based explainers", arXiv 2501.06261
    """
    with _untouched(model):
        leaf = passed.features.detach().clone().float().requires_grad_()
        chosen = model.head(leaf).gather(1, passed.targets[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, leaf, create_graph=True)
        curved = torch.zeros_like(leaf)
        if gradient.requires_grad:
            (curved,) = torch.autograd.grad(gradient, leaf, leaf.detach())
    weights = (gradient - curved / 2).detach().mean(dim=(-2, -1), keepdim=True)
    return (weights * passed.features).sum(dim=1).relu()


@torch.inference_mode()
def ablation_cam(model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """Channels weighed by how far the logit falls once they are 0; only the head is run again.

    The package's class sets a channel to its least value less 1e7 where features can be
    negative, after which a layer norm sees nothing else; and it divides by the logit's sign.
    For features that are 0 or more, and a positive logit, it gives the same maps.

    Source: Desai and Ramaswamy, WACV 2020
    """
    maps = []
    with evaluating(model):
        for channels, logits, target in zip(
            passed.features.float(), passed.logits.float(), passed.targets, strict=True
        ):
            numbers = torch.arange(len(channels), device=channels.device)
            left = []
            for some in numbers.split(_HEADS):
                without = channels.repeat(len(some), 1, 1, 1)
                without[torch.arange(len(some)), some] = 0
                left.append(model.head(without)[:, target].float())
            weights = (logits[target] - torch.cat(left)) / logits[target].abs()
            maps.append((weights[:, None, None] * channels).sum(dim=0).relu())
    return torch.stack(maps)


def full_grad(model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """Gradients of the biases of every convolution and batch norm: a full backward.

    On the network as published: where it is rewritten for speed other biases would count.
    Raises ValueError for a rewritten model that does not keep it (`keep_plain`).

    Source: Srinivas and Fleuret, NeurIPS 2019
    """
    plain = getattr(model, "plain", None)
    if plain is None and getattr(model, "form", PLAIN) != PLAIN:
        raise ValueError("FullGrad needs `for_inference(keep_plain=True)`")
    asked = _logits_of(passed.targets)
    return run_class("FullGrad", plain or model, x.contiguous(), asked, whole=True)


@torch.inference_mode()
def score_cam(model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """Channels weighed by the logit of the picture that each of them leaves visible.

    One forward a channel, in batches on the device. The weights are the softmax of the logits,
    as in pytorch-grad-cam, whose loop in numpy gives the same maps.

    Source: Wang et al., CVPR workshops 2020
    """
    features = passed.features.float()
    maps = []
    with evaluating(model):
        for picture, channels, target in zip(x, features, passed.targets, strict=True):
            logits = []
            for some in channels.split(_CHUNK):
                masks = nn.functional.interpolate(
                    some[None], x.shape[-2:], mode="bilinear", align_corners=True
                )[0]
                low, high = masks.amin(dim=(1, 2)), masks.amax(dim=(1, 2))
                masks = (masks - low[:, None, None]) / (high - low + 1e-8)[:, None, None]
                logits.append(model.head(model.features(picture * masks[:, None]))[:, target])
            weights = torch.cat(logits).float().softmax(dim=0)
            maps.append((weights[:, None, None] * channels).sum(dim=0).relu())
    return torch.stack(maps)
