"""How errors, and what a process printed last, say that memory or disk did not suffice."""

from __future__ import annotations

import errno

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_SPACE_TEXTS = ("No space left on device", "Disk quota exceeded")
_NO_MEMORY_TEXTS = (
    "out of memory", "MemoryError", "can't allocate memory", "Unable to allocate", "bad_alloc",
    "Cannot allocate memory", "ALLOC_FAILED",
)  # fmt: skip


def is_disk_full(error: BaseException) -> bool:
    """The error, or one that it comes from, says that no space is left."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _NO_SPACE:
            return True
        seen = seen.__cause__ or seen.__context__
    return says_disk_full(str(error))


def says_disk_full(text: str) -> bool:
    return any(words in text for words in _NO_SPACE_TEXTS)


def is_out_of_memory(error: BaseException) -> bool:
    """The device, or the machine, had too little memory for what was asked."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    return isinstance(error, RuntimeError) and says_out_of_memory(str(error))


def says_out_of_memory(text: str) -> bool:
    return any(words in text for words in _NO_MEMORY_TEXTS)
