"""A network's forward compiled by torch.compile, its weights frozen into the code."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class CompiledForward:
    """A forward that is compiled once for each of a few batch sizes.

    Compiling takes 5 to 40 seconds, and a part's last batch has any size: a smaller batch is
    filled up to a size that is compiled already, unless that would be twice the work or more.
    On a processor the weights are packed as its library wants them, and must not change
    afterwards. Where gradients are recorded the forward runs as it is.

    forward : (image, …) -> (image, …), image by image, of a network in eval mode
    layout  : in memory, of what the forward is given
    """

    def __init__(
        self, forward: Callable[[Tensor], Tensor], device: torch.device, layout: torch.memory_format
    ):
        options = {"freezing": True} if device.type == "cpu" else None
        self._plain, self._layout = forward, layout
        self._compiled = torch.compile(forward, dynamic=False, options=options)
        self._sizes: set[int] = set()

    def __call__(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self._plain(x)
        count = len(x)
        size = min((s for s in self._sizes if count <= s < 2 * count), default=count)
        self._sizes.add(size)
        if size > count:
            x = torch.cat([x, x[-1:].expand(size - count, *x.shape[1:])])
        return self._compiled(x.contiguous(memory_format=self._layout))[:count]
