"""pytorch-grad-cam's classes, and a reader's own in their manner, run without that package's traps.

Classes that look at the features only are given these: the package's forward and backward then
cost next to nothing. What it does silently is refused or undone here: one target for several
images, hooks that stay, gradients left on parameters, a mode that is not restored, an
IndexError swallowed by its `with` form.
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
    """A network whose target layer is where the study taps it.

    images : of the features that it is called with; None: it is called with images
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
    """A class of pytorch-grad-cam's maps, (image, h, w) float32, from 0 to 1 an image.

    name     : of the class, or a reader's own class in its manner
    model    : with `features` and `answered`
    x        : images
    asked    : per image what the package calls its target: logits to a number
    features : of the images; the class is called with them, and with the images where none
               are given
    Raises ValueError unless there is one target per image, RuntimeError naming the class if
    its maps are not one finite map per image.
    """
    if len(asked) != len(x):
        raise ValueError(f"need one target per image: {len(x)} images, {len(asked)} targets")
    # FullGrad watches every layer, each of which must run once: it has the network as it is.
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
        raise RuntimeError(f"{said} gave no finite map for every image")
    return torch.from_numpy(np.ascontiguousarray(maps)).to(x.device)


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    with evaluating(model), frozen(model), torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def _silent() -> Iterator[None]:
    """Without the package's own prints and bars, one an image; errors pass."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def from_features(name: str, model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """A class that needs the features, and what follows them, only."""
    return run_class(name, model, x, passed.asked.callables, passed.features)


def of_class(cam: type, on_images: bool, model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """A reader's own class, run on the features alone or, if it wants them, on images."""
    if on_images:
        return run_class(cam, getattr(model, "plain", model), x, passed.asked.callables)
    return run_class(cam, model, x, passed.asked.callables, passed.features)


def full_grad(model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """Gradients of the biases of every convolution and batch norm: a full backward.

    On the network as published: where it is rewritten for speed other biases would count.
    Raises ValueError for a rewritten model that does not keep it (`keep_plain`).

    Source: Srinivas and Fleuret, NeurIPS 2019
    """
    plain = getattr(model, "plain", None)
    if plain is None and getattr(model, "form", PLAIN) != PLAIN:
        raise ValueError("FullGrad needs `for_inference(keep_plain=True)`")
    return run_class("FullGrad", plain or model, x.contiguous(), passed.asked.callables)
