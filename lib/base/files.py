"""Writing files safely: a file appears complete, or not at all."""

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
    """Return the path, or its nearest parent folder that exists."""
    return next(p for p in (path, *path.parents) if p.exists())


def partial_name(path: Path) -> Path:
    """Return a new name for a temporary file beside `path`."""
    return path.with_name(f".{uuid4().hex[:8]}-{path.name}")


def is_partial(path: Path) -> bool:
    """Return whether the name is one of `partial_name`'s temporary names."""
    return bool(_PARTIAL.match(path.name))


def _mode_of_new(path: Path) -> int:
    """Return the mode of a new file there. Reading the umask would change it in every thread."""
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    path.unlink()
    return mode


def refuse_as_output(path: Path, read: Iterable[Path], suffix: str = ".csv") -> None:
    """Raise ValueError unless an output file can be written and replaces no file that is read.

    Commands call it before hours of work.
    """
    if path.suffix != suffix:
        raise ValueError(f"--out {path} must end in {suffix}")
    for other in read:
        if other.exists() and path.exists() and other.samefile(path):
            raise ValueError(f"--out {path} is an input file: choose another name")
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder: name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {path} cannot be written: {error}") from None


def write_json(path: Path, value: object) -> None:
    """Write the value as a JSON file, completely or not at all."""
    with write_atomically(path) as partial:
        partial.write_text(json.dumps(value, indent=1), encoding="utf-8")


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces `path` only on success.

    The finished file has the permissions that the umask gives, whoever wrote it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    try:
        mode = _mode_of_new(partial)
        yield partial
        if stat.S_IMODE(partial.stat().st_mode) != mode:  # safetensors lets only the owner read
            partial.chmod(mode)
        partial.replace(path)
    except OSError as error:
        if error.filename is None:  # for example, if the disk is full
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
