"""Stable hashes of everything that determines a result; they tell whether a cached one is valid."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import time
from dataclasses import fields, is_dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .files import write_json
from .paths import OUTPUT, PACKAGE
from .stored_json import SHA256, DamagedJson, mapping, of_each, read_json

HASHES = OUTPUT / "hashes.json"
_STAMP = {"type": "array", "items": {"type": "integer"}}
_ENTRIES = of_each(mapping({"stamp": _STAMP, "sha256": SHA256}))
WORTH_KEEPING = 32 * 2**20  # bytes; hashing a smaller file is quicker than looking its hash up


def _plain(value: Any) -> Any:
    """Return the value as data for JSON that are the same in every process.

    A function is represented by its source, so an edited formula counts as another one.
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
def _sha256(path: Path, *stamp: int) -> str:
    size, *_, changed = stamp
    if size < WORTH_KEEPING:
        return _digest(path)
    known = _known_hashes()
    entry = known.get(str(path))
    if entry is None or entry["stamp"] != [*stamp]:
        entry = {"stamp": stamp, "sha256": _digest(path)}
        # A file that changed just now may change again within the same timestamp.
        if time.time() - changed / 1e9 > 2:
            # The cache only saves time, so a failure to write it must not stop the work.
            with contextlib.suppress(OSError):
                write_json(HASHES, known | {str(path): entry})
    return entry["sha256"]


def _digest(path: Path) -> str:
    if path.is_dir():
        lines = [f"{p.relative_to(path).as_posix()} {_digest(p)}" for p in _files(path)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _known_hashes() -> dict[str, dict]:
    try:
        return read_json(HASHES, _ENTRIES)
    except (OSError, DamagedJson):
        return {}  # missing or damaged: the files are hashed again


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file; for a folder, of its files' names and hashes.

    A large file is hashed once for all processes, as long as its size, inode and timestamps
    stay the same. `data/output/hashes.json` may be deleted at any time.
    """
    if path.is_dir():
        return _sha256(path.absolute(), *_folder_stamp(path))
    s = path.stat()
    return _sha256(path.absolute(), s.st_size, s.st_ino, s.st_mtime_ns, s.st_ctime_ns)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _folder_stamp(folder: Path) -> tuple[int, ...]:
    """Return the total size, a hash of all names and stamps, and the latest time of change."""
    size = changed = 0
    stamps = hashlib.sha256()
    for path in _files(folder):
        s = path.stat()
        size, changed = size + s.st_size, max(changed, s.st_ctime_ns)
        stamps.update(f"{path} {s.st_size} {s.st_ino} {s.st_mtime_ns} {s.st_ctime_ns}".encode())
    return size, int.from_bytes(stamps.digest()[:7]), changed


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(p.stat().st_size for p in _files(path)) if path.is_dir() else path.stat().st_size


@cache
def _hash_of_module(name: str) -> str:
    return _digest(Path(find_spec(f"{PACKAGE}.{name}").origin))


def code_of(*names: str) -> dict[str, str]:
    """Return {module: SHA-256 of its text}, as it was when this process first asked.

    names : module names within the package, such as "base.geometry"; the package may be
            installed under another name

    Modules are found by name, so hashing a module does not import it.
    """
    return {name: _hash_of_module(name) for name in names}


def fingerprint(facts: dict[str, Any]) -> str:
    """Return sixteen hexadecimal digits that change with any of the facts."""
    text = json.dumps(_plain(facts), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
