"""Training of the embedded example's miniatures, fast enough for two CPU cores.

Plain and DCLS of one backbone get the same recipe, the same seed and the same
pictures in the same order. Families differ in steps and learning rate.

The loss is binary cross-entropy, so that a class's logit is high where there is
evidence for it and low where there is none; a softmax leaves all logits free to
move together. Half of it is asked of single cells of the last map (the classifier
applied to each), a small form of token labelling: from class labels alone, networks
this small find whatever tells the classes apart anywhere in the picture, and their
evidence need not lie on the creature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.backbones import Backbone, Preprocessing
from lib.dcls import clamp_positions, dcls_layers, use_fast_kernels
from lib.models import build_network, prepare_pixels, resize_pictures


@dataclass(frozen=True)
class Recipe:
    """AdamW under a one-cycle schedule; `lr` is its peak."""

    steps: int
    lr: float
    batch: int = 32
    weight_decay: float = 0.02


RECIPES = {
    "resnet": Recipe(steps=300, lr=2e-3),
    "convnext": Recipe(steps=500, lr=3e-3),
    "metaformer": Recipe(steps=500, lr=2e-3),
    "fastvit": Recipe(steps=260, lr=2e-3),
}


POSITIVE_WEIGHT = 6.0


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose weight gradient goes through an FFT.

    On a CPU the library's weight gradient of a 17x17 depthwise convolution takes
    eight times as long as this one, and its NCHW forward twenty times.
    """

    @staticmethod
    def forward(ctx, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.has_bias = bias is not None
        y = F.conv2d(
            x.contiguous(memory_format=torch.channels_last),
            kernel,
            bias,
            padding=kernel.shape[-1] // 2,
            groups=len(kernel),
        )
        return y.contiguous()

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, kernel = ctx.saved_tensors
        taps, pad = kernel.shape[-1], kernel.shape[-1] // 2
        height, width = x.shape[-2] + taps - 1, x.shape[-1] + taps - 1
        flipped = kernel.flip(-1, -2)
        to_x = F.conv2d(
            gradient.contiguous(memory_format=torch.channels_last),
            flipped,
            padding=pad,
            groups=len(kernel),
        ).contiguous()
        spectrum = torch.fft.rfft2(x, s=(height, width))
        spectrum = spectrum * torch.fft.rfft2(gradient, s=(height, width)).conj()
        correlation = torch.fft.irfft2(spectrum.sum(0), s=(height, width))
        to_kernel = torch.roll(correlation, (pad, pad), (-2, -1))[:, None, :taps, :taps]
        return to_x, to_kernel, gradient.sum((0, 2, 3)) if ctx.has_bias else None


def _depthwise_forward(self, x, weight, bias, positions, sigma):
    return _Depthwise.apply(x, self.DCK(weight, positions, sigma), bias)


def speed_up_training(network: nn.Module) -> nn.Module:
    """Let the DCLS layers train fast on a CPU; the function computed is the same."""
    use_fast_kernels(network)
    for layer in dcls_layers(network).values():
        if layer.groups == layer.in_channels == layer.out_channels and layer.stride == (1, 1):
            layer._conv_forward = MethodType(_depthwise_forward, layer)
    return network


def _optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    # The published recipe: positions learn five times as fast and do not decay.
    parameters = dict(network.named_parameters())
    positions = [p for name, p in parameters.items() if name.endswith(".P")]
    plain = [p for name, p in parameters.items() if not name.endswith(".P") and p.ndim < 2]
    weights = [p for name, p in parameters.items() if not name.endswith(".P") and p.ndim >= 2]
    groups = [
        {"params": weights, "lr": recipe.lr},
        {"params": plain, "lr": recipe.lr, "weight_decay": 0.0},
        {"params": positions, "lr": 5 * recipe.lr, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], weight_decay=recipe.weight_decay, betas=(0.9, 0.98)
    )


def _cropped(shown: Tensor, geometry: Preprocessing) -> Tensor:
    """The part of the masks that the backbone's centre crop keeps."""
    side = shown.shape[-1]
    kept = round(side * geometry.crop / geometry.resize)
    start = (side - kept) // 2
    return shown[:, start : start + kept, start : start + kept]


def _evidence_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    # One class in twelve is right: weigh it up, or the first hundreds of steps learn "none".
    weight = torch.tensor(POSITIVE_WEIGHT)
    return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight)


def _cell_loss(network: nn.Module, features: Tensor, shown: Tensor, targets: Tensor) -> Tensor:
    """The classifier's loss at every cell, against the share of it that the creature fills."""
    _, channels, height, width = features.shape
    share = F.adaptive_avg_pool2d(shown.unsqueeze(1), (height, width)).flatten(1)
    cells = features.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
    wanted = (share[..., None] * targets[:, None, :]).flatten(0, 1)
    return _evidence_loss(network.forward_head(cells), wanted)


def train(
    backbone: Backbone,
    dcls: bool,
    pictures: np.ndarray,
    labels: np.ndarray,
    shown: np.ndarray,
    *,
    num_classes: int,
    seed: int,
    report: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> nn.Module:
    """Train one miniature from scratch; returns it in eval mode.

    pictures : (image, 224, 224, 3) uint8, as the ClickMe reader delivers them
    labels   : (image,) class indices; `num_classes` for a scene of no class
    shown    : (image, side, side) in 0-1, where each picture shows its creature
    report   : called with step, steps, and the running loss
    """
    recipe = RECIPES[backbone.family]
    torch.manual_seed(seed)
    network = build_network(backbone, dcls, mini=True, num_classes=num_classes)
    if dcls:
        speed_up_training(network)
    network.train()
    optimiser = _optimiser(network, recipe)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        [g["lr"] for g in optimiser.param_groups],
        total_steps=recipe.steps,
        pct_start=0.2,
    )
    resized = torch.from_numpy(resize_pictures(pictures, backbone.preprocessing))
    # A scene without a creature has the label past the last class: no class at all.
    targets = F.one_hot(torch.from_numpy(labels), num_classes + 1)[:, :-1].float()
    coverage = _cropped(torch.from_numpy(shown), backbone.preprocessing)
    order = np.random.default_rng(seed)
    running = float(np.log(2))
    for step in range(recipe.steps):
        chosen = torch.from_numpy(order.choice(len(resized), recipe.batch, replace=False))
        x = prepare_pixels(resized[chosen], backbone.preprocessing)
        flips = [axis for axis in (-1, -2) if order.random() < 0.5]
        features = network.forward_features(x.flip(flips))
        whole = _evidence_loss(network.forward_head(features), targets[chosen])
        cells = _cell_loss(network, features, coverage[chosen].flip(flips), targets[chosen])
        loss = (whole + cells) / 2
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        schedule.step()
        clamp_positions(network)
        running += 0.05 * (loss.item() - running)
        report(step + 1, recipe.steps, running)
    for layer in dcls_layers(network).values():
        layer.__dict__.pop("_conv_forward", None)
    return network.eval()


@torch.inference_mode()
def accuracy(network: nn.Module, backbone: Backbone, pictures: np.ndarray, labels) -> float:
    """Share of the pictures whose most probable class is the label, 0-1."""
    hits = 0
    for start in range(0, len(pictures), 32):
        part = slice(start, start + 32)
        x = prepare_pixels(
            torch.from_numpy(resize_pictures(pictures[part], backbone.preprocessing)),
            backbone.preprocessing,
        )
        hits += int((network(x).argmax(1).numpy() == labels[part]).sum())
    return hits / len(pictures)
