"""Tapping a network for heatmaps: its features at a layer, and its answer to changed features.

There are two kinds. `Halves` is a network that can be cut in two at its layer; the part after the
layer is run alone. `Around` is a network in which a connection bypasses the layer (a residual
connection, a transformer's class token), or whose forward cannot be followed. A hook then watches
the layer during a call, and its output is replaced by running the whole network again.

Neither runs a backward pass through the part before the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..base.shortage import is_out_of_memory
from .grids import CHANNELS_FIRST, Grid, NoMaps, grid_by, grid_of
from .split import split_at

_TRIED = 20  # layers, backwards from the watched one, at which a cut is tried


def answer_of(output: Any) -> Any:
    """Return a network's answer from what its forward returns: a tensor itself; `logits` or `out`
    of a mapping, which Hugging Face's and torchvision's networks return; the first of a tuple.
    Anything else is returned unchanged."""
    if isinstance(output, Mapping):
        for name in ("logits", "out"):
            if name in output:
                return output[name]
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    return output


def same_answer(
    network: nn.Module,
    cut: tuple[Callable, Callable],
    x: Tensor,
    reached: Tensor | None = None,
) -> bool:
    """Return whether both halves together answer like the network, and meet at a tensor.

    They may not, or may fail: for example, tracing fixes the outcome of a forward's checks of its
    inputs.

    reached : the first half's output, if it is known
    """
    before, after = cut
    with torch.no_grad():
        whole = answer_of(network(x))
        try:
            with redirect_stderr(StringIO()):  # torch.fx would also print a failure
                reached = before(x) if reached is None else reached
                found = answer_of(after(reached.clone())) if isinstance(reached, Tensor) else None
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return False
    return (
        isinstance(found, Tensor)
        and isinstance(whole, Tensor)
        and found.shape == whole.shape
        and torch.allclose(found, whole, rtol=1e-3, atol=1e-4, equal_nan=True)
    )


def gives_channels_last(layer: nn.Module) -> bool | None:
    """Return whether a layer's type implies channels last; None if that is unknown."""
    convolves = any(isinstance(m, nn.Conv2d | nn.BatchNorm2d) for m in layer.modules())
    normalises = any(isinstance(m, nn.LayerNorm | nn.Linear) for m in layer.modules())
    return None if convolves == normalises else normalises


@contextmanager
def gradients_kept(network: nn.Module) -> Iterator[None]:
    """Restore afterwards which parameters require gradients, and their gradients."""
    held = [(p, p.requires_grad, p.grad) for p in network.parameters()]
    try:
        yield
    finally:
        for parameter, required, gradient in held:
            parameter.requires_grad_(required)
            parameter.grad = gradient


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Let no parameter require or receive a gradient; restore everything afterwards."""
    with gradients_kept(network):
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        yield


@dataclass(frozen=True)
class Opened:
    """A forward pass whose answer can be differentiated with respect to the layer's output.

    features : (image, channel, h, w), without gradient
    answer   : the network's
    leaf     : the layer's output in the network's own form
    """

    answer: Any
    leaf: Tensor
    grid: Grid = CHANNELS_FIRST

    @property
    def features(self) -> Tensor:
        return self.grid.maps(self.leaf.detach())

    def gradient(self, total: Tensor) -> Tensor:
        """Return the gradient of one number with respect to the features, in their shape. Raises
        NoMaps if the number does not depend on them."""
        found = None
        if total.requires_grad:
            (found,) = torch.autograd.grad(total, self.leaf, allow_unused=True)
        if found is None:
            raise NoMaps(
                "the explained number does not depend on the layer by any gradient: the layer has "
                "no effect, or the network ends gradients there (no_grad, detach, a reentrant "
                "checkpoint)"
            )
        return self.grid.maps(found)


class Tap(Protocol):
    """What heatmaps are made with.

    features : images -> (image, channel, h, w)
    answered : (images, features) -> the network's answer, as if its layer had returned these
    opened   : images -> `Opened`; with features that are already known, only what is
               necessary is computed
    answering : one image -> a function that answers to many versions of its features
    """

    def features(self, x: Tensor) -> Tensor: ...
    def answered(self, x: Tensor, features: Tensor) -> Any: ...
    def answering(self, x: Tensor) -> Callable[[Tensor], Any]: ...
    def opened(self, x: Tensor, features: Tensor | None = None) -> Opened: ...


class Halves:
    """A network in two halves that meet at the layer.

    before : images -> (image, channel, h, w)
    after  : features -> the answer
    """

    def __init__(self, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Any]):
        self.features, self.after = before, after

    def answered(self, x: Tensor, features: Tensor) -> Any:
        return answer_of(self.after(features.clone()))  # the network may change them in place

    def answering(self, x: Tensor) -> Callable[[Tensor], Any]:
        return lambda features: self.answered(x, features)

    def opened(self, x: Tensor, features: Tensor | None = None) -> Opened:
        if features is None:
            with torch.inference_mode():
                features = self.features(x)
        with torch.inference_mode(False), torch.enable_grad():
            # clone: features made under a caller's inference_mode cannot be recorded
            leaf = features.clone() if features.is_inference() else features.detach()
            leaf.requires_grad_()
            return Opened(answer_of(self.after(leaf.clone())), leaf)


class Around:
    """A network whose layer is watched.

    network : called with images
    layer   : one of its modules; heatmaps are made of its output, or of the output's first part
    prefix  : tokens before those of the image, if that is known
    reshape : output -> (image, channel, h, w), if the shape does not determine the arrangement
    """

    def __init__(
        self,
        network: nn.Module,
        layer: nn.Module,
        prefix: int | None = None,
        reshape: Callable[[Tensor], Tensor] | None = None,
        name: str = "the layer",
    ):
        self.network, self.layer = network, layer
        self._prefix, self._reshape, self._name = prefix, reshape, name
        self.grid: Grid | None = None  # of the last output seen
        self._arranged: dict[torch.Size, Grid] = {}  # by `reshape`, by the output's shape
        self._cut: tuple[Callable, Callable] | None = None
        self._cut_looked_for = False

    def features(self, x: Tensor) -> Tensor:
        seen: list[Tensor] = []

        def watch(raw: Tensor) -> Tensor:
            seen.append(raw.clone())  # the network may continue in place
            return raw

        self._run(x, watch)
        return self._grid(seen[0], x).maps(seen[0])

    def answered(self, x: Tensor, features: Tensor) -> Any:
        return self._run(x, self._put(x, features))

    def answering(self, x: Tensor) -> Callable[[Tensor], Any]:
        """Run the part before the layer only once, if the network can be cut before it."""
        if not self._cut_looked_for:
            self._cut, self._cut_looked_for = self._cut_before(x), True
        if self._cut is None:
            return lambda features: self.answered(x.expand(len(features), *x.shape[1:]), features)
        before, after = self._cut
        reached = before(x)

        def answer(features: Tensor) -> Any:
            many = reached.expand(len(features), *reached.shape[1:]).clone()
            return self._run(many, self._put(x, features), after)

        return answer

    def _put(self, x: Tensor, features: Tensor) -> Callable[[Tensor], Tensor]:
        def put(raw: Tensor) -> Tensor:
            grid = self._grid(raw, x)
            if grid.back is None:
                raise NoMaps(
                    f"`reshape` does more than arrange the output of {self._name}: methods that "
                    "change features cannot put them back"
                )
            return grid.back(features.to(raw.dtype), raw).clone()

        return put

    def _cut_before(self, x: Tensor) -> tuple[Callable, Callable] | None:
        """Return two halves that meet at the last possible module before the layer; None if the
        network cannot be cut."""
        run: list[str] = []
        reached = False

        def note(name: str, output: Any) -> None:
            nonlocal reached
            reached = reached or self.network.get_submodule(name) is self.layer
            if not reached and isinstance(output, Tensor):
                run.append(name)

        handles = [
            module.register_forward_hook(lambda m, _, output, name=name: note(name, output))
            for name, module in self.network.named_modules() if name
        ]  # fmt: skip
        try:
            self.network(x)
        finally:
            for handle in handles:
                handle.remove()
        for name in list(dict.fromkeys(reversed(run)))[:_TRIED]:
            try:
                cut = split_at(self.network, name)
            except ValueError:
                continue
            return cut if same_answer(self.network, cut, x) else None
        return None

    def opened(self, x: Tensor, features: Tensor | None = None) -> Opened:
        leaves: list[Tensor] = []

        def leave(raw: Tensor) -> Tensor:
            leaves.append(raw.detach().clone().requires_grad_())
            return leaves[0].clone()  # the network may change it in place

        with torch.inference_mode(False), torch.enable_grad(), frozen(self.network):
            answer = self._run(x.clone() if x.is_inference() else x.detach(), leave)
        return Opened(answer, leaves[0], self._grid(leaves[0], x))

    def _grid(self, raw: Tensor, x: Tensor) -> Grid:
        if self._reshape is not None:
            if raw.shape[1:] not in self._arranged:
                self._arranged[raw.shape[1:]] = grid_by(self._reshape, raw)
            self.grid = self._arranged[raw.shape[1:]]
        else:
            last = gives_channels_last(self.layer)
            self.grid = grid_of(raw.shape, x.shape[-2:], self._prefix, last)
        return self.grid

    def _run(
        self,
        x: Tensor,
        change: Callable[[Tensor], Tensor],
        forward: Callable[[Tensor], Any] | None = None,
    ) -> Any:
        """Return the answer of a forward pass (by default the network's) with a changed layer."""
        calls = 0

        def hook(_module: nn.Module, _given: Any, output: Any) -> Any:
            nonlocal calls
            calls += 1
            raw = output[0] if isinstance(output, tuple) and output else output
            if not isinstance(raw, Tensor):
                raise NoMaps(
                    f"{self._name} returns a {type(raw).__name__}, but must return a tensor"
                )
            if calls > 1:
                raise NoMaps(f"the forward uses {self._name} more than once, but must use it once")
            changed = change(raw)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handle = self.layer.register_forward_hook(hook)
        try:
            output = (forward or self.network)(x)
        finally:
            handle.remove()
        if not calls:
            raise NoMaps(f"the forward does not use {self._name}")
        return answer_of(output)
