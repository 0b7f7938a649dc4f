"""Maps of any network in memory: no table, no file, no study."""

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
    """A network in memory, tapped for maps as a study's networks are.

    network : any module that is called with images
    layer   : whose output maps are made of: a name of `network.named_modules()`, the module
              itself, or several of either. Without one, the last layer that has maps and bears on
              the answer is looked for, with `x`
    reshape : arranges that output as (image, channel, h, w), as pytorch-grad-cam's
              `reshape_transform`; without it, convolutions' maps, channels last, and tokens are
              told by their shape
    x       : an image as the network takes it, to look for the layer with
    Raises ValueError for a layer that is not there, or none that is found.

    The network stays as it is: neither its mode, nor gradients, nor hooks are left changed.
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
            raise ValueError("give a layer, by its name or as a module, or leave `layer` out")
        self.layer_names = tuple(names)
        self._reshape = reshape
        self._taps = [_tap(network, name, reshape) for name in names]

    def forward(self, x: Tensor) -> Any:
        return answer_of(self.network(x.to(self._kind())))

    def _kind(self) -> torch.dtype:
        """Of the network's numbers: maps are made in float32."""
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
        """The same network, tapped at one of the layers each."""
        return [LiveModel(self.network, name, self._reshape) for name in self.layer_names]

    def layer_taps(self) -> list[Tap]:
        """One per layer, of which RefineCAM takes the product. Raises ValueError for one layer."""
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
        raise ValueError(f"the layer {type(layer).__name__} is no module of the network")
    if layer == "":
        if x is None:
            raise ValueError("name a layer, or give an image `x` to look for one with")
        return found_layer(network, x[:1])
    if layer not in modules:
        children = ", ".join(name for name, _ in network.named_children())
        raise ValueError(f"there is no layer {layer!r}; the network's parts are {children}")
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
    """A layer that is watched, but run on from alone where its output is maps as it is, and where
    both halves are seen to answer as the network does."""

    def __init__(self, halves: Halves, around: Around):
        self._halves, self._around = halves, around
        self._same: bool | None = None  # compared at the first use
        self.features = around.features
        self.opened = around.opened

    def answered(self, x: Tensor, features: Tensor) -> Any:
        return self._chosen(x).answered(x, features)

    def answering(self, x: Tensor) -> Callable[[Tensor], Any]:
        return self._chosen(x).answering(x)

    def _chosen(self, x: Tensor) -> Tap:
        if self._around.grid is not CHANNELS_FIRST:  # known since the features were made
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
    """Maps of any network in memory by any of `METHODS` that needs no training.

    network : any module, on whatever device it is; or a `LiveModel` of it
    x       : (image, 3, height, width) images as the network takes them (normalised)
    method  : a key of `METHODS`, or a row of one's own
    targets : what is explained: None, the predicted class; (image,) class indices; or functions
              of the network's answer to an image, see `lib.maps.targets`
    layer, reshape : as for `LiveModel`; maps of several layers are averaged
    eigen_smooth, aug_smooth : as for `lib.maps.combined.smoothed`
    size    : of the maps, a side or (height, width); the images' own if none is given
    batch_size : images a forward
    progress : show a bar
    Returns (image, height, width) float32 on the network's device, each map from 0 to 1 (within
    0 to 1 for `aug_smooth`, a mean of six such maps); a constant one, where no evidence is
    positive, is 0 everywhere (`is_constant`).
    Raises ValueError.
    """
    if not isinstance(method, str | CamMethod):
        raise ValueError(f"method is one key of METHODS, or a row, and not {method!r}")
    row = METHODS[method] if isinstance(method, str) else method
    if row.learned:
        raise ValueError(f"{row.label} is trained for a study's network first: see docs/lcam.md")
    if x.ndim != 4 or not len(x) or not x.is_floating_point():
        raise ValueError(
            f"x must be normalised images (image, channel, height, width), one or more, and is "
            f"{x.dtype} of shape {tuple(x.shape)}"
        )
    if eigen_smooth:
        row = smoothed(row, eigen=True)
    if isinstance(network, LiveModel) and (layer != "" or reshape is not None):
        raise ValueError("a LiveModel has its layer: give the network itself to name another")
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
    """(image, height, width) maps of the network, tapped at each of its layers in turn."""
    if aug_smooth and targets is None:  # what is predicted unchanged
        targets = head_pass(parts[0], x).asked

    def explained(some: Tensor) -> Tensor:
        maps = [large_maps(row, one, some, head_pass(one, some, targets), sides) for one in parts]
        return min_max(torch.stack(maps).float().mean(dim=0))

    return mean_of_six(explained, x) if aug_smooth else explained(x)


def _part(targets: Any, start: int, stop: int, images: int) -> Any:
    """What is asked of some of the images. Raises ValueError unless there is one per image."""
    if targets is None or (callable(targets) and not isinstance(targets, Tensor)):
        return targets
    if isinstance(targets, Integral):
        targets = [targets] * images
    if len(targets) != images:
        raise ValueError(f"need one target per image: {images} images, {len(targets)} targets")
    return targets[start:stop]
