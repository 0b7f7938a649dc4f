"""Writing a file whole or not at all."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterable, Iterator
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


def _mode_of_new(path: Path) -> int:
    """The mode of a new file there; asking for the umask would change it in every thread."""
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    path.unlink()
    return mode


def refuse_as_output(path: Path, read: Iterable[Path], suffix: str = ".csv") -> None:
    """Raise ValueError unless a file that is asked for can be written there and replaces none of
    those that are read; before hours of work."""
    if path.suffix != suffix:
        raise ValueError(f"--out {path} must end in {suffix}")
    for other in read:
        if other.exists() and path.exists() and other.samefile(path):
            raise ValueError(f"--out {path} is a file that is read: choose another name")
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {path} cannot be written: {error}") from None


def write_json(path: Path, value: object) -> None:
    """The value as a JSON file, whole or not at all."""
    with write_atomically(path) as partial:
        partial.write_text(json.dumps(value, indent=1), encoding="utf-8")


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that replaces it on success only, and may then be
    read by whom the umask lets, however it was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    try:
        mode = _mode_of_new(partial)
        yield partial
        if stat.S_IMODE(partial.stat().st_mode) != mode:  # safetensors' are the owner's alone
            partial.chmod(mode)
        partial.replace(path)
    except OSError as error:
        if error.filename is None:  # as where the disk is full
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
