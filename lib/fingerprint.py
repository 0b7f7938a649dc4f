"""Stable hashes of what determines a result, to tell whether a kept one still holds."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any


def _plain(value: Any) -> Any:
    """The value as JSON-able data that is equal in every process.

    Functions count with their source, so an edited formula is another one.
    """
    if isinstance(value, partial):
        return [_plain(value.func), _plain(value.args), _plain(value.keywords)]
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path):
        return str(value)
    if inspect.ismodule(value):
        return [value.__name__, inspect.getsource(value)]
    if inspect.isfunction(value):
        kept = inspect.getclosurevars(value).nonlocals
        try:
            return [inspect.getsource(value), _plain(value.__defaults__), _plain(kept)]
        except OSError:
            raise TypeError(
                f"cannot fingerprint {value.__qualname__}: it has no source file; "
                "define it in a module"
            ) from None
    raise TypeError(f"cannot fingerprint a {type(value).__name__}: {value!r}")


@cache
def _sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(path: Path) -> str:
    """A file's SHA-256; hashed once while its size and time of change stay the same."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


def fingerprint(facts: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits that change with any of the facts."""
    text = json.dumps(_plain(facts), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
