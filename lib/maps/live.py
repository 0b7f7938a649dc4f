"""Heatmaps of any network in memory, without a table, a file or a study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from ..base.progress_bar import progress_bar
from ..networks.grids import CHANNELS_FIRST
from ..networks.layers import found_layer
from ..networks.split import evaluating, split_at
from ..networks.taps import Around, Halves, Opened, Tap, answer_of, same_answer
from .combined import large_maps, mean_of_six, smoothed
from .forward import head_pass
from .methods import METHODS, CamMethod, min_max


class LiveModel(nn.Module):
    """A network in memory with access to one of its layers, as for a study's models.

    network : any module that is called with images
    layer   : the layer whose output the maps are made from: a name in `network.named_modules()`,
              the module itself, or several of either. If it is not given, `x` is used to find the
              last layer that has maps and affects the answer
    reshape : arranges that output as (image, channel, h, w), like pytorch-grad-cam's
              `reshape_transform`. Without it, the shape shows whether the output is maps with
              channels first, maps with channels last, or tokens
    x       : a normalised image with which the layer is found
    Raises ValueError if the layer does not exist, or if none is found.

    The network stays unchanged, including its mode, gradients and hooks.
    """

    def __init__(
        self,
        network: nn.Module,
        layer: str | nn.Module | Sequence[str | nn.Module] = "",
        reshape: Callable[[Tensor], Tensor] | None = None,
        x: Tensor | None = None,
    ):
        super().__init__()
        self.network = network
        if isinstance(layer, str | nn.Module):
            layer = [layer]
        names = [_name_of(network, one, x) for one in layer]
        if not names:
            raise ValueError("`layer` is empty: give a layer by name or as a module, or omit it")
        self.layer_names = tuple(names)
        self._reshape = reshape
        self._taps = [_tap(network, name, reshape) for name in names]

    def forward(self, x: Tensor) -> Any:
        return answer_of(self.network(x.to(self._kind())))

    def _kind(self) -> torch.dtype:
        """The type of the network's numbers; maps are made in float32."""
        return next((p.dtype for p in self.network.parameters()), torch.float32)

    def features(self, x: Tensor) -> Tensor:
        return self._taps[-1].features(x.to(self._kind()))

    def answered(self, x: Tensor, features: Tensor) -> Any:
        return self._taps[-1].answered(x, features.to(self._kind()))

    def answering(self, x: Tensor) -> Callable[[Tensor], Any]:
        answer = self._taps[-1].answering(x)
        return lambda features: answer(features.to(self._kind()))

    def opened(self, x: Tensor, features: Tensor | None = None) -> Opened:
        return self._taps[-1].opened(x, features)

    def each_layer(self) -> list[LiveModel]:
        """One LiveModel of the same network for each of the layers."""
        return [LiveModel(self.network, name, self._reshape) for name in self.layer_names]

    def layer_taps(self) -> list[Tap]:
        """One tap per layer, for RefineCAM. Raises ValueError if there is only one layer."""
        if len(self._taps) < 2:
            raise ValueError(
                "RefineCAM multiplies the maps of several layers: name two or more by "
                "layer=[…], the earliest first"
            )
        return list(self._taps)


def _name_of(network: nn.Module, layer: str | nn.Module, x: Tensor | None) -> str:
    modules = dict(network.named_modules())
    if isinstance(layer, nn.Module):
        for name, module in modules.items():
            if module is layer:
                return name
        raise ValueError(
            f"the layer {type(layer).__name__} is not a module of the network: give one of "
            "network.named_modules()"
        )
    if layer == "":
        if x is None:
            raise ValueError("no layer was given: name one, or give an image `x` to find one")
        return found_layer(network, x[:1])
    if layer not in modules:
        children = ", ".join(name for name, _ in network.named_children())
        raise ValueError(f"the network has no layer {layer!r}; its parts are {children}")
    return layer


def _tap(network: nn.Module, name: str, reshape: Callable[[Tensor], Tensor] | None) -> Tap:
    prefix = getattr(network, "num_prefix_tokens", None)
    around = Around(network, network.get_submodule(name), prefix, reshape, f"the layer {name!r}")
    if reshape is not None or not name:
        return around
    try:
        before, after = split_at(network, name)
    except ValueError:
        return around
    return _WhereItCan(Halves(before, after), around)


class _WhereItCan:
    """A layer that is watched with hooks, unless the network can be cut there: then only the second
    half is run again. It can be cut if the layer's output consists of maps, and if both halves
    together give the network's answer."""

    def __init__(self, halves: Halves, around: Around):
        self._halves, self._around = halves, around
        self._same: bool | None = None  # compared when first used
        self.features = around.features
        self.opened = around.opened

    def answered(self, x: Tensor, features: Tensor) -> Any:
        return self._chosen(x).answered(x, features)

    def answering(self, x: Tensor) -> Callable[[Tensor], Any]:
        return self._chosen(x).answering(x)

    def _chosen(self, x: Tensor) -> Tap:
        if self._around.grid is not CHANNELS_FIRST:  # known once the features were computed
            return self._around
        if self._same is None:
            halves = self._halves.features, self._halves.after
            self._same = same_answer(self._around.network, halves, x[:1])
        return self._halves if self._same else self._around


def live_maps(
    network: nn.Module | LiveModel,
    x: Tensor,
    method: str | CamMethod = "grad_cam",
    *,
    targets: Any = None,
    layer: str | nn.Module | Sequence[str | nn.Module] = "",
    reshape: Callable[[Tensor], Tensor] | None = None,
    eigen_smooth: bool = False,
    aug_smooth: bool = False,
    size: int | tuple[int, int] | None = None,
    batch_size: int = 16,
    progress: bool = False,
) -> Tensor:
    """Return heatmaps of any network in memory, by any of `METHODS` that needs no training.

    network : any module, on any device; or a `LiveModel` of it
    x       : (image, 3, height, width), normalised for the network
    method  : a key of `METHODS`, or your own row
    targets : what is explained: None for the predicted class; (image,) class indices; or functions
              of the network's answer to an image, see `lib.maps.targets`
    layer, reshape : as for `LiveModel`; maps of several layers are averaged
    eigen_smooth, aug_smooth : as for `lib.maps.combined.smoothed`
    size    : size of the maps, a side or (height, width); the images' own size if it is not given
    batch_size : images per forward pass
    progress : show a progress bar
    Returns (image, height, width) float32 on the network's device. Each map reaches from 0 to 1; it
    lies within 0 to 1 for `aug_smooth`, a mean of six maps. A map without positive evidence is
    constant and 0 everywhere (`is_constant`).
    Raises ValueError if an argument does not fit; the message says which.
    """
    if not isinstance(method, str | CamMethod):
        raise ValueError(f"method must be one key of METHODS, or a row, but is {method!r}")
    row = METHODS[method] if isinstance(method, str) else method
    if row.learned:
        raise ValueError(f"{row.label} must first be trained for a study's model: see docs/lcam.md")
    if x.ndim != 4 or not len(x) or not x.is_floating_point():
        raise ValueError(
            f"x must be normalised images (image, channel, height, width), at least one, but is "
            f"{x.dtype} of shape {tuple(x.shape)}"
        )
    if eigen_smooth:
        row = smoothed(row, eigen=True)
    if isinstance(network, LiveModel) and (layer != "" or reshape is not None):
        raise ValueError("a LiveModel has its layer already: give the network itself, or no layer")
    first = next(network.parameters(), x)
    size = size or tuple(x.shape[-2:])
    sides = (size, size) if isinstance(size, int) else tuple(size)
    found = []
    with evaluating(network):
        model = network if isinstance(network, LiveModel) else None
        if model is None:
            model = LiveModel(network, layer, reshape, x[:1].to(first.device, first.dtype))
        together = row.key == "refine_cam" or len(model.layer_names) == 1
        parts = [model] if together else model.each_layer()
        for start in progress_bar(range(0, len(x), batch_size), disable=not progress, unit="batch"):
            some = x[start : start + batch_size].to(first.device, first.dtype)
            asked = _part(targets, start, start + len(some), len(x))
            found.append(_of_batch(row, parts, some, asked, sides, aug_smooth))
    return torch.cat(found)


def _of_batch(
    row: CamMethod,
    parts: Sequence[LiveModel],
    x: Tensor,
    targets: Any,
    sides: tuple[int, int],
    aug_smooth: bool,
) -> Tensor:
    """(image, height, width) maps of the network, one for each of its layers in turn."""
    if aug_smooth and targets is None:  # the class predicted for the unchanged image
        targets = head_pass(parts[0], x).asked

    def explained(some: Tensor) -> Tensor:
        maps = [large_maps(row, one, some, head_pass(one, some, targets), sides) for one in parts]
        return min_max(torch.stack(maps).float().mean(dim=0))

    return mean_of_six(explained, x) if aug_smooth else explained(x)


def _part(targets: Any, start: int, stop: int, images: int) -> Any:
    """The targets of some of the images. Raises ValueError unless there is one per image."""
    if targets is None or (callable(targets) and not isinstance(targets, Tensor)):
        return targets
    if isinstance(targets, Integral):
        targets = [targets] * images
    if len(targets) != images:
        raise ValueError(f"need one target per image: {images} images, {len(targets)} targets")
    return targets[start:stop]
