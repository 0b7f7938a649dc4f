"""Finding the layer for heatmaps if nobody names one, and tapping a row's network there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO

import torch
from torch import Tensor, nn

from ..base.shortage import is_out_of_memory
from .backbones import Backbone
from .building import draw_zeros
from .grids import CHANNELS_LAST, Grid, NoMaps, grid_of
from .split import evaluating, split_at
from .taps import answer_of, frozen, gives_channels_last, same_answer


def found_layer(network: nn.Module, x: Tensor) -> str:
    """Return the name of the last layer with maps of several cells on which the answer depends.

    Layers at which the network can be cut are preferred to others, and layers without a channel
    per class to those with one. Of layers of tokens, only outputs of blocks and normalisations
    are considered, because keys, queries and the like are inside them.

    x : one image, as the network takes it

    Raises NoMaps if there is none.
    """
    # Some networks start with a zero head, on which no layer has an effect yet.
    usable = _usable(network, x) or _usable(draw_zeros(copy.deepcopy(network)), x)
    if not usable:
        raise NoMaps(
            "no layer is suitable for heatmaps: none has an output (image, channel, h, w), or "
            "tokens, of more than one cell on which the answer depends; name one, with `reshape` "
            "if necessary"
        )
    last = usable[-1]
    if last[1]:  # a connection bypasses most layers of tokens
        return last[0]
    for name, tokens in reversed(usable):
        if tokens:
            break
        try:
            split_at(network, name)
        except ValueError:
            continue
        return name
    return last[0]


@torch.no_grad()
def tapped(row: Backbone, network: nn.Module, images: Tensor) -> Backbone:
    """Return a row with its layer, whether it can be cut there, and the order of its axes.

    The layer is found if none is named and timm's own cut gives no maps.

    network : the row's
    images  : two or more, as the network takes them

    Raises NoMaps for a layer that does not exist, is not used exactly once, or gives no maps.
    """
    if not row.layer and row.reshape is None:
        halves = getattr(network, "forward_features", None), getattr(network, "forward_head", None)
        if None not in halves and (grid := _met_at(network, halves, images, False)):
            return replace(row, around=False, channels_last=grid is CHANNELS_LAST)
    if not row.layer:
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(images[:1].shape, generator=generator).to(images)
        row = replace(row, layer=found_layer(network, noise))
    modules = dict(network.named_modules())
    if row.layer not in modules:
        children = ", ".join(name for name, _ in network.named_children())
        raise NoMaps(f"layer {row.layer!r} does not exist; the network's parts are {children}")
    watched = replace(row, around=True)
    if row.reshape is not None:
        return watched
    try:
        halves = split_at(network, row.layer)
    except ValueError:
        return watched
    grid = _met_at(network, halves, images, gives_channels_last(modules[row.layer]))
    if grid is None:
        return watched
    return replace(row, around=False, channels_last=grid is CHANNELS_LAST)


def _met_at(
    network: nn.Module,
    halves: tuple[Callable, Callable],
    images: Tensor,
    channels_last: bool | None,
) -> Grid | None:
    """Return the arrangement of maps where two halves meet; None if these are tokens or the like,
    or if the halves compute another function than the network."""
    with evaluating(network):
        try:
            with redirect_stderr(StringIO()):  # torch.fx would also print a failure
                raw = halves[0](images)
        except Exception as error:  # a traced forward may behave differently from a run one
            if is_out_of_memory(error):
                raise
            return None
        if not isinstance(raw, Tensor) or raw.ndim != 4:
            return None
        if not same_answer(network, halves, images, raw):
            return None
    try:
        return grid_of(raw.shape, images.shape[-2:], None, channels_last)
    except NoMaps:
        return None


def _usable(network: nn.Module, x: Tensor) -> list[tuple[str, bool]]:
    """Return, in order, the names of layers whose maps affect the answer, and whether they are
    tokens. Layers with a channel per class are included only if there are no others."""
    seen: list[tuple[str, Tensor]] = []
    modules = dict(network.named_modules())

    def note(name: str, module: nn.Module, given: tuple, output: object) -> None:
        several = isinstance(output, tuple) and output
        raw = output[0] if several else output
        if not isinstance(raw, Tensor) or not raw.requires_grad or len(raw) != len(x):
            return  # windows, for example
        if several and any(raw is one for one in given):
            return  # passed through, in addition to its own output
        whole = any(True for _ in module.children()) or "norm" in type(module).__name__.lower()
        if raw.ndim == 4 or (raw.ndim == 3 and whole):
            seen.append((name, raw))

    handles = [
        module.register_forward_hook(
            lambda m, given, output, name=name: note(name, m, given, output)
        )
        for name, module in network.named_modules() if name
    ]  # fmt: skip
    try:
        with (
            evaluating(network), frozen(network), torch.inference_mode(False), torch.enable_grad()
        ):  # fmt: skip
            answer = answer_of(network(x.detach().clone().requires_grad_()))
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(answer, Tensor):
        raise NoMaps(
            f"the network returns a {type(answer).__name__}, so no layer can be found: name one"
        )
    # As many rows and columns as tokens: how tokens attend to tokens.
    counts = {raw.shape[1] for _, raw in seen if raw.ndim == 3}
    seen = [s for s in seen if s[1].ndim == 3 or s[1].shape[2] != s[1].shape[3]
            or s[1].shape[2] not in counts]  # fmt: skip
    prefix = getattr(network, "num_prefix_tokens", None)
    hints = {name: gives_channels_last(modules[name]) for name, _ in seen}
    bearing = _bearing_on(answer, seen, x.shape[-2:], prefix, hints)
    classes = answer.shape[1] if answer.ndim > 1 else 0
    others = [found for found in bearing if found[1] != classes]
    return [(name, tokens) for name, _, tokens in others or bearing]


def _bearing_on(
    answer: Tensor,
    seen: list[tuple[str, Tensor]],
    image: torch.Size,
    prefix: int | None,
    hints: Mapping[str, bool | None],
) -> list[tuple[str, int, bool]]:
    """Return name, channels and whether tokens, of outputs on whose maps the answer depends."""
    arranged = []
    for name, raw in seen:
        try:
            arranged.append((name, raw, grid_of(raw.shape, image, prefix, hints[name])))
        except NoMaps:
            continue
    if not arranged or not answer.requires_grad:
        return []
    with torch.enable_grad():
        total = answer.float().square().sum()
    gradients = torch.autograd.grad(total, [raw for _, raw, _ in arranged], allow_unused=True)
    return [
        (name, grid.maps(raw.detach()).shape[1], raw.ndim == 3)
        for (name, raw, grid), gradient in zip(arranged, gradients, strict=True)
        if gradient is not None and bool(grid.maps(gradient).any())
    ]
