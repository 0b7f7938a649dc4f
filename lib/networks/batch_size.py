"""How many images a forward takes: what suits the device, and less where memory is short."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from tqdm import tqdm

from ..base.shortage import is_out_of_memory

_ON_GPU, _ON_CPU, _OF_MINIATURES = 256, 8, 32


class Sliced(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self: B, some: slice, /) -> B: ...


B = TypeVar("B", bound=Sliced)


class BatchSize:
    """Images per forward: halved, for all that follows, where the memory does not suffice."""

    def __init__(self, now: int):
        self.now = now

    @classmethod
    def chosen(
        cls, asked: int, device: torch.device, mini: bool, of_miniatures: int = _OF_MINIATURES
    ) -> BatchSize:
        """What was asked for; for 0 what is good for the device and the size of the networks."""
        auto = _ON_GPU if device.type == "cuda" else of_miniatures if mini else _ON_CPU
        return cls(asked or auto)

    def work_through(self, block: B, work: Callable[[B], None]) -> None:
        """Do the work on pieces of the block; what did not fit is done again in smaller ones."""
        start = 0
        while start < len(block):
            piece = block[start : start + self.now]
            try:
                work(piece)
            except (RuntimeError, MemoryError) as error:
                if len(piece) == 1 or not is_out_of_memory(error):
                    raise
            else:
                start += len(piece)
                continue
            # Outside of `except`: the error holds the tensors that did not fit.
            self.now = len(piece) // 2
            tqdm.write(
                f"out of memory with {len(piece)} images a forward: going on with {self.now}"
            )
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
