"""Running pytorch-grad-cam's classes, and users' own classes of the same form, safely.

Classes that need only the features receive only these, so that the package's forward and backward
passes cost almost nothing. Silent side effects of the package are refused or undone: one target
for several images, hooks that stay, gradients left on parameters, a mode that is not restored,
and an IndexError swallowed by its `with` form.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytorch_grad_cam
import torch
from torch import Tensor, nn

from ..networks.rewrites import PLAIN
from ..networks.split import evaluating
from ..networks.taps import frozen
from .forward import HeadPass


class _Layer(nn.Module):
    """A network whose target layer is the study's layer.

    images : the images of the features that it is called with; None if it is called with images
    """

    def __init__(self, model: nn.Module, images: Tensor | None):
        super().__init__()
        self.model, self.images, self.layer = model, images, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.images is None:
            return self.model.answered(x, self.layer(self.model.features(x)))
        return self.model.answered(self.images, self.layer(x))


def run_class(
    name: str | type,
    model: nn.Module,
    x: Tensor,
    asked: Sequence[Callable],
    features: Tensor | None = None,
) -> Tensor:
    """Return maps of one of pytorch-grad-cam's classes: (image, h, w) float32, each from 0 to 1.

    name     : the class's name, or a user's own class of the same form
    model    : has `features` and `answered`
    x        : images
    asked    : a target per image, as in the package: a function from logits to a number
    features : features of the images, with which the class is called; without them it is called
               with the images
    Raises ValueError unless there is one target per image, and RuntimeError naming the class if it
    does not return one finite map per image.
    """
    if len(asked) != len(x):
        raise ValueError(f"need one target per image: {len(x)} images, {len(asked)} targets")
    # FullGrad watches every layer, and each must run once, so it gets the original network.
    everywhere = name == "FullGrad"
    network = model if everywhere else _Layer(model, None if features is None else x)
    made = getattr(pytorch_grad_cam, name) if isinstance(name, str) else name
    x = x if features is None else features
    with _untouched(model), _silent():
        cam = made(network, [] if everywhere else [network.layer])
        try:
            maps = cam(x.detach().clone().float().requires_grad_(), list(asked))
        finally:
            if hasattr(cam, "activations_and_grads"):
                cam.activations_and_grads.release()
    if len(maps) != len(x) or not np.isfinite(maps).all():
        said = f"pytorch-grad-cam's {name}" if isinstance(name, str) else made.__name__
        raise RuntimeError(f"{said} did not return a finite map for every image")
    return torch.from_numpy(np.ascontiguousarray(maps)).to(x.device)


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    with evaluating(model), frozen(model), torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def _silent() -> Iterator[None]:
    """Suppress the package's own prints and progress bars; errors are raised."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def from_features(name: str, model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """Run a class that needs only the features and the layers after them."""
    return run_class(name, model, x, passed.asked.callables, passed.features)


def of_class(cam: type, on_images: bool, model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """Run a user's own class on the features or, if it needs them, on the images."""
    if on_images:
        return run_class(cam, getattr(model, "plain", model), x, passed.asked.callables)
    return run_class(cam, model, x, passed.asked.callables, passed.features)


def full_grad(model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """FullGrad: gradients of the biases of every convolution and batch norm.

    It needs a full backward pass of the network as published, because a network rewritten for
    speed has other biases. Raises ValueError for a rewritten model that does not keep the
    published network (`keep_plain`).

    Source: Srinivas and Fleuret, NeurIPS 2019
    """
    plain = getattr(model, "plain", None)
    if plain is None and getattr(model, "form", PLAIN) != PLAIN:
        raise ValueError(
            "FullGrad needs the network as published: make the model with "
            "`for_inference(keep_plain=True)`"
        )
    return run_class("FullGrad", plain or model, x.contiguous(), passed.asked.callables)
