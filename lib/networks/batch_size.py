"""How many images a forward pass takes: as many as suit the device, fewer if memory is short."""

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
    """Images per forward pass; halved for the rest of the work if memory runs out."""

    def __init__(self, now: int):
        self.now = now

    @classmethod
    def chosen(
        cls, asked: int, device: torch.device, mini: bool, of_miniatures: int = _OF_MINIATURES
    ) -> BatchSize:
        """Return the requested size; for 0, one that suits the device and the models' size."""
        auto = _ON_GPU if device.type == "cuda" else of_miniatures if mini else _ON_CPU
        return cls(asked or auto)

    def work_through(self, block: B, work: Callable[[B], None]) -> None:
        """Do the work on pieces of the block; repeat in smaller pieces what did not fit."""
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
            # Outside `except`, because the error holds the tensors that did not fit.
            self.now = len(piece) // 2
            tqdm.write(
                f"out of memory with {len(piece)} images per forward pass: going on with {self.now}"
            )
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
