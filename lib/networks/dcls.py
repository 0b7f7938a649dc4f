"""Dilated convolutions with learnable spacings: conversion, kernels, folding.

A DCLS convolution has `kernel_count` weights per kernel and, for each, a
learnable real-valued position inside a `size` x `size` square. Its dense kernel
is built by spreading every weight bilinearly over the four cells around its
position. Layers are the DCLS package's own `Dcls2d`. This module decides which
convolutions they replace, shares the positions within a stage as the study's
checkpoints do, and folds the finished kernel into a plain convolution.

Source: Khalfaoui-Hassani, Pellegrini, Masquelier, "Dilated convolution with
learnable spacings", arXiv 2112.03740; Chamas et al., arXiv 2408.03164.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from DCLS.construct.modules import ConstructKernel2d, Dcls2d
from torch import Tensor, nn

from .backbones import DclsRecipe

# The order in which each version reads the two coordinates of P.
_ROW_AXIS = {"v0": 0, "v1": 1}
# Number of kernels built together when folding; it limits memory to about a gigabyte.
_KERNELS_AT_ONCE = 32_768


class KernelBuilder(nn.Module):
    """Dense kernels from weights and positions, by scattering four taps per weight.

    This is the same function as the DCLS package's kernel construction, which compares
    every weight with every cell of the square: that needs size² times the memory
    and most of the time of training. It is differentiable in both inputs.

    Version "v0" interpolates; "v1" also divides by the taps' sum, which is 1
    unless a position lies at the square's border.
    """

    def __init__(self, size: tuple[int, int], version: str):
        super().__init__()
        if version not in _ROW_AXIS:
            raise ValueError(f"DCLS version {version!r} is not one of {', '.join(_ROW_AXIS)}")
        self.size = size
        self.version = version

    def forward(self, weight: Tensor, positions: Tensor, sigma: None = None) -> Tensor:
        """Return the kernel (out, in/groups, height, width).

        weight    : (out, in/groups, n)
        positions : (2, out, in/groups, n), in cells from the centre
        """
        height, width = self.size
        row_axis = _ROW_AXIS[self.version]
        row = positions[row_axis] + height // 2
        column = positions[1 - row_axis] + width // 2
        top, left = row.floor(), column.floor()
        down, right = row - top, column - left

        cells, shares = [], []
        for step_down, share_down in ((0, 1 - down), (1, down)):
            for step_right, share_right in ((0, 1 - right), (1, right)):
                r, c = top + step_down, left + step_right
                inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
                shares.append(share_down * share_right * inside)
                cells.append((r.clamp(0, height - 1) * width + c.clamp(0, width - 1)).long())
        share = torch.stack(shares)
        if self.version == "v1":
            share = share / (share.sum(0) + 1e-7)
        taps = torch.cat((share * weight).unbind(0), dim=-1)
        kernel = taps.new_zeros(*weight.shape[:2], height * width)
        kernel = kernel.scatter_add(-1, torch.cat(cells, dim=-1), taps)
        return kernel.view(*weight.shape[:2], height, width)


@contextmanager
def _quiet_dcls_package() -> Iterator[None]:
    # Without CUDA, Dcls2d logs to the root logger whenever it is created.
    root = logging.getLogger()
    handlers, disabled = list(root.handlers), root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers


def _dcls_layer(conv: nn.Conv2d, recipe: DclsRecipe) -> Dcls2d:
    same = conv.padding == "same" or conv.padding == tuple(k // 2 for k in conv.kernel_size)
    if conv.dilation != (1, 1) or conv.padding_mode != "zeros" or not same:
        raise ValueError(
            f"cannot convert {conv}: only undilated convolutions zero-padded by half their size "
            "keep the size of their output"
        )
    with _quiet_dcls_package():
        layer = Dcls2d(
            conv.in_channels, conv.out_channels, kernel_count=recipe.kernel_count,
            stride=conv.stride, padding=recipe.size // 2, dilated_kernel_size=recipe.size,
            groups=conv.groups, bias=conv.bias is not None, version=recipe.version,
            use_implicit_gemm=False,
        )  # fmt: skip
    nn.init.normal_(layer.weight, 0.0, 0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    layer.requires_grad_(conv.weight.requires_grad)
    return layer.to(conv.weight.device, conv.weight.dtype)


def convert_to_dcls(model: nn.Module, recipe: DclsRecipe) -> nn.Module:
    """Replace, in place, the convolutions that the recipe names, and return the model.

    Positions are shared per stage. In module order, a layer with more input
    channels than the one before gets a new position tensor `P`, which the
    following layers also use. `state_dict` repeats `P` in every layer, as
    the published checkpoints do; `parameters()` counts it once.

    New weights are drawn from N(0, 0.02), biases are 0, positions N(0, 0.5).

    Raises ValueError if no convolution matches, or if one cannot be converted.
    """
    if recipe.size % 2 == 0:
        raise ValueError(f"size must be odd, or maps would change their size; got {recipe.size}")
    positions: nn.Parameter | None = None
    channels = -1
    made: dict[nn.Module, Dcls2d] = {}
    places: dict[str, Dcls2d] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if not isinstance(module, nn.Conv2d) or not recipe.replaces(module):
            continue
        if module not in made:
            layer = made[module] = _dcls_layer(module, recipe)
            if positions is None or layer.in_channels > channels:
                positions = layer.P
            elif layer.P.shape != positions.shape:
                raise ValueError(
                    f"{name}: its positions {tuple(layer.P.shape)} cannot be shared with "
                    f"the stage's {tuple(positions.shape)}"
                )
            channels = layer.in_channels
            layer.P = positions
        places[name] = made[module]
    if not places or "" in places:
        raise ValueError(
            f"no convolution inside {type(model).__name__} matches the recipe {recipe}"
        )
    for name, layer in places.items():  # only now, so that a refused model stays unchanged
        model.set_submodule(name, layer)
    return model


def dcls_layers(model: nn.Module) -> dict[str, Dcls2d]:
    """Return the model's DCLS layers by dotted name, in module order."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Dcls2d)}


def replaced_layers(model: nn.Module) -> list[dict]:
    """Return a row for each DCLS layer that a conversion made, for inspection.

    `positions` numbers the position tensors: layers with the same number share theirs.
    """
    groups: dict[int, int] = {}
    return [
        {"layer": name, "channels": layer.in_channels, "groups": layer.groups,
         "stride": layer.stride[0], "points": layer.kernel_count,
         "size": layer.dilated_kernel_size[0], "version": layer.version,
         "positions": groups.setdefault(id(layer.P), len(groups))}
        for name, layer in dcls_layers(model).items()
    ]  # fmt: skip


@torch.no_grad()
def dense_kernel(layer: Dcls2d) -> Tensor:
    """Return the kernel that a DCLS layer applies: (out, in/groups, size, size).

    The DCLS package's own construction builds it, so that a folded layer computes the same
    values to the last digit. It uses float32 or better whatever the layer's precision, and only
    the layer's parameters, so it is right on any device. Output channels are processed in groups,
    because the construction needs hundreds of times the kernel's memory.
    """
    working = torch.promote_types(layer.weight.dtype, torch.float32)
    weight, positions = layer.weight.to(working), layer.P.to(working)
    inputs = weight.shape[1]
    at_once = max(1, _KERNELS_AT_ONCE // inputs)
    parts = []
    for start in range(0, len(weight), at_once):
        part = slice(start, start + at_once)
        construct = ConstructKernel2d(
            len(weight[part]), inputs, 1, layer.kernel_count, layer.dilated_kernel_size,
            layer.version,
        )  # fmt: skip
        parts.append(construct(weight[part], positions[:, part], None))
    return torch.cat(parts).to(layer.weight.dtype)


def _plain_layer(layer: Dcls2d) -> nn.Conv2d:
    conv = nn.Conv2d(
        layer.in_channels, layer.out_channels, kernel_size=layer.dilated_kernel_size,
        stride=layer.stride, padding=layer.padding, groups=layer.groups,
        bias=layer.bias is not None, device=layer.weight.device, dtype=layer.weight.dtype,
    )  # fmt: skip
    with torch.no_grad():
        conv.weight.copy_(dense_kernel(layer))
        if layer.bias is not None:
            conv.bias.copy_(layer.bias)
    conv.train(layer.training)
    return conv


def fold_dcls(model: nn.Module) -> nn.Module:
    """Return a copy of the model with every kernel folded into a plain Conv2d.

    The copy computes the same function without building kernels in each forward pass
    (most of a DCLS forward pass's time), and can move between devices and dtypes, which
    `Dcls2d` cannot after its first forward pass. The given model is unchanged.
    """
    folded = copy.deepcopy(model)
    for name, layer in dcls_layers(folded).items():
        folded.set_submodule(name, _plain_layer(layer))
    return folded


def use_fast_kernels(model: nn.Module) -> nn.Module:
    """Let the model's DCLS layers build kernels with `KernelBuilder`, for training; return it."""
    for layer in dcls_layers(model).values():
        layer.DCK = KernelBuilder(layer.dilated_kernel_size, layer.version)
    return model


@torch.no_grad()
def clamp_positions(model: nn.Module) -> None:
    """Move positions back inside their squares; the recipe does so after each step."""
    for layer in dcls_layers(model).values():
        layer.clamp_parameters()
