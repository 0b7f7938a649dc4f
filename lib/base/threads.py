"""Threads and memory of a process that computes scores."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # from malloc.h
T = TypeVar("T")
R = TypeVar("R")


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="each")


@cache
def reuse_memory() -> None:
    """Let glibc keep freed memory for the next allocations; do nothing on other systems.

    Otherwise each forward pass returns its activations' memory and requests it again, page by
    page, which takes some hundredths of the pass.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            for option, value in ((_TRIM_THRESHOLD, 2**31 - 1), (_MMAP_THRESHOLD, 2**25)):
                libc.mallopt(option, value)


def each(work: Callable[[T], R], things: Iterable[T]) -> list[R]:
    """Return `work` of each thing, in the order of the things.

    If torch has only one thread, so does this, so that processes share a machine as intended.
    """
    if torch.get_num_threads() == 1:
        return [work(thing) for thing in things]
    return list(_pool(os.getpid()).map(work, things))
