"""Writing a file whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

_PARTIAL = re.compile(r"\.[0-9a-f]{8}-.")


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(p for p in (path, *path.parents) if p.exists())


def partial_name(path: Path) -> Path:
    """A new temporary name beside `path`."""
    return path.with_name(f".{uuid4().hex[:8]}-{path.name}")


def is_partial(path: Path) -> bool:
    """Whether the name is a temporary one."""
    return bool(_PARTIAL.match(path.name))


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that replaces it on success only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
