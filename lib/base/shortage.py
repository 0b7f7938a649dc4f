"""Recognising a lack of memory or disk from an error, or from a process's last output."""

from __future__ import annotations

import errno

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_SPACE_TEXTS = ("No space left on device", "Disk quota exceeded")
_NO_MEMORY_TEXTS = (
    "out of memory", "MemoryError", "can't allocate memory", "Unable to allocate", "bad_alloc",
    "Cannot allocate memory", "ALLOC_FAILED",
)  # fmt: skip


def is_disk_full(error: BaseException) -> bool:
    """Return whether the error, or one that caused it, says that no space is left."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _NO_SPACE:
            return True
        seen = seen.__cause__ or seen.__context__
    return says_disk_full(str(error))


def says_disk_full(text: str) -> bool:
    return any(words in text for words in _NO_SPACE_TEXTS)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the error says that the device or the machine ran out of memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    return isinstance(error, RuntimeError) and says_out_of_memory(str(error))


def says_out_of_memory(text: str) -> bool:
    return any(words in text for words in _NO_MEMORY_TEXTS)
