"""Training of the embedded example's miniatures, fast enough for two CPU cores.

The plain and the DCLS form of one backbone have the same recipe, the same seed and the same images
in the same order. Families differ in steps and learning rate.

The loss is binary cross-entropy for how much of the view belongs to each class. The view is the
whole image (the target is the root of the share that the creature fills), and single cells of the
last map (the classifier is applied to each). In trials with class labels alone, networks answered
correctly, but their evidence lay anywhere except on the creature. With all-or-nothing labels for
the whole image, the MetaFormers' plain Grad-CAM became inverted during training (rho .63 after 300
steps, .09 after 500). The graded label corrected this (.77).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ..base.geometry import Preprocessing
from ..networks.backbones import Backbone
from ..networks.building import build_network
from ..networks.dcls import clamp_positions, dcls_layers, use_fast_kernels
from ..networks.preprocessing import prepare_pixels, resize_images


@dataclass(frozen=True)
class Recipe:
    """AdamW with a one-cycle schedule of the learning rate.

    lr : the peak of the learning rate
    positive_weight : weight in the loss of the one right class among twelve; a value above 1 avoids
        hundreds of first steps that only learn "none of them"
    layout : memory layout of weights and images, whichever trains fastest; FastViT's training
        crashes in channels-last
    """

    steps: int
    lr: float
    positive_weight: float = 6.0
    layout: torch.memory_format = torch.contiguous_format
    batch: int = 32
    weight_decay: float = 0.02


RECIPES = {
    "resnet": Recipe(steps=200, lr=2e-3, layout=torch.channels_last),
    "convnext": Recipe(steps=400, lr=3e-3),
    "metaformer": Recipe(steps=420, lr=2e-3, positive_weight=3.0),
    "fastvit": Recipe(steps=200, lr=2e-3),
    "own": Recipe(steps=150, lr=3e-3, layout=torch.channels_last),  # the guided tour's network
}


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose weight gradient is computed with an FFT.

    On a CPU the library's weight gradient of a 17x17 depthwise convolution takes eight times as
    long, and its NCHW forward pass twenty times as long.
    """

    @staticmethod
    def forward(ctx, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.has_bias = bias is not None
        x = x.contiguous(memory_format=torch.channels_last)
        y = F.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2, groups=len(kernel))
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
    """Make the DCLS layers train fast on a CPU; they compute the same function."""
    use_fast_kernels(network)
    for layer in dcls_layers(network).values():
        if layer.groups == layer.in_channels == layer.out_channels and layer.stride == (1, 1):
            layer._conv_forward = MethodType(_depthwise_forward, layer)
    return network


def _optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    # As in the published recipe, positions learn five times as fast and have no weight decay.
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


def _cells(network: nn.Module, features: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The classifier's logits at every cell of the map, and each class's share of the cell."""
    channels, height, width = features.shape[1:]
    shares = F.adaptive_avg_pool2d(wanted, (height, width))
    cells = features.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
    return network.forward_head(cells), shares.permute(0, 2, 3, 1).flatten(0, 2)


@contextmanager
def shown_steps(title: str) -> Iterator[Callable[[int, int, float], None]]:
    """A progress bar; yields a function of step, number of steps and loss, as `train` calls it."""
    with tqdm(desc=title, unit="step") as bar:

        def report(step: int, steps: int, loss: float) -> None:
            bar.total = steps
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()

        yield report


def train(
    backbone: Backbone,
    dcls: bool,
    images: np.ndarray,
    labels: np.ndarray,
    shown: np.ndarray,
    *,
    num_classes: int,
    seed: int,
    report: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    keep: Callable[[int, int, nn.Module], None] = lambda step, steps, network: None,
) -> nn.Module:
    """Train one miniature from scratch; return it in eval mode.

    images : (image, 224, 224, 3) uint8, as the ClickMe reader delivers them
    labels : (image,) class indices; `num_classes` for a scene without a class
    shown  : (image, side, side) in 0-1, where each image shows its creature
    report : called with step, number of steps, and running loss
    keep   : called with step, number of steps, and the current network
    """
    recipe = RECIPES[backbone.family]
    torch.manual_seed(seed)
    network = build_network(backbone, dcls, mini=True, num_classes=num_classes)
    if dcls:
        speed_up_training(network)
    network.train().to(memory_format=recipe.layout)
    optimiser = _optimiser(network, recipe)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        [g["lr"] for g in optimiser.param_groups],
        total_steps=recipe.steps,
        pct_start=0.2,
    )
    resized = torch.from_numpy(resize_images(images, backbone.preprocessing))
    # The label of a scene without a creature is past the last class and means no class.
    targets = F.one_hot(torch.from_numpy(labels), num_classes + 1)[:, :-1].float()
    coverage = _cropped(torch.from_numpy(shown), backbone.preprocessing)
    evidence_loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(recipe.positive_weight))
    order = np.random.default_rng(seed)
    running = float(np.log(2))
    for step in range(recipe.steps):
        chosen = torch.from_numpy(order.choice(len(resized), recipe.batch, replace=False))
        x = prepare_pixels(resized[chosen], backbone.preprocessing)
        x = x.contiguous(memory_format=recipe.layout)
        flips = [axis for axis in (-1, -2) if order.random() < 0.5]
        features = network.forward_features(x.flip(flips))
        wanted = coverage[chosen].flip(flips).unsqueeze(1) * targets[chosen, :, None, None]
        whole = evidence_loss(network.forward_head(features), wanted.mean((2, 3)).sqrt())
        cells = evidence_loss(*_cells(network, features, wanted))
        loss = (whole + cells) / 2
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        schedule.step()
        clamp_positions(network)
        running += 0.05 * (loss.item() - running)
        report(step + 1, recipe.steps, running)
        keep(step + 1, recipe.steps, network)
    for layer in dcls_layers(network).values():
        layer.__dict__.pop("_conv_forward", None)
    return network.eval()


@torch.inference_mode()
def accuracy(network: nn.Module, backbone: Backbone, images: np.ndarray, labels) -> float:
    """Return the share of the images whose most probable class is the label, 0-1."""
    hits = 0
    for start in range(0, len(images), 32):
        part = slice(start, start + 32)
        x = prepare_pixels(
            torch.from_numpy(resize_images(images[part], backbone.preprocessing)),
            backbone.preprocessing,
        )
        hits += int((network(x).argmax(1).numpy() == labels[part]).sum())
    return hits / len(images)
