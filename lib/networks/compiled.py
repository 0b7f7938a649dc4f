"""A network's forward pass compiled by torch.compile, with its weights frozen into the code."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class CompiledForward:
    """A forward pass that is compiled once for each of a few batch sizes.

    Compiling takes 5 to 40 seconds, and a part's last batch may have any size. A smaller batch is
    therefore padded to a size that is already compiled, unless that would at least double the
    work. On a CPU the weights are packed for its library, and must not change afterwards. If
    gradients are recorded, the forward pass runs uncompiled.

    forward : (image, …) -> (image, …), image by image, of a network in eval mode
    layout  : the memory layout of the input
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
