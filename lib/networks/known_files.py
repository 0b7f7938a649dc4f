"""The SHA-256 of every published file at its first use: `known_files.json` in the data folder.

A file that is fetched, or found where a user has put it, is known from then on. A known file
that changes is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from lib.base.files import write_json
from lib.base.fingerprint import sha256_of
from lib.base.stored_json import SHA256, TEXT, mapping, of_each, parse_json

_KNOWN = of_each(mapping({"sha256": SHA256}, {"origin": TEXT, "publishers_checksum": TEXT}))
_NONE_HAD = "none was had (--unverified)"


class KnownFiles:
    """The SHA-256 of every published file at its first use."""

    def __init__(self, data: Path):
        self.data = data
        self.path = data / "known_files.json"
        try:
            self._entries = parse_json(self.path.read_bytes(), _KNOWN, "its JSON")
        except FileNotFoundError:
            self._entries = {}
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self.path} cannot be read ({error}); it holds the hashes of your files: "
                "restore it, or delete it to take the files as they are now"
            ) from None

    def check(self, paths: Iterable[Path], origin: str = "found in place") -> list[str]:
        """Names of those that are not what they were; new ones become known."""
        changed = []
        known = len(self._entries)
        for path in paths:
            name = self._name(path)
            digest = sha256_of(path)
            entry = self._entries.setdefault(name, {"sha256": digest, **_facts(path, origin)})
            if entry["sha256"] != digest:
                changed.append(name)
        if len(self._entries) > known:
            self._write()
        return changed

    def record(self, path: Path, origin: str, checksum: str) -> None:
        """A file that has just been fetched. checksum : the publisher's, "" if none was had"""
        verified = {"publishers_checksum": checksum or _NONE_HAD}
        entry = {"sha256": sha256_of(path), **_facts(path, origin), **verified}
        self._entries[self._name(path)] = entry
        self._write()

    def unverified(self, paths: Iterable[Path]) -> dict[str, str]:
        """{name: why} of the known ones that no publisher's checksum has confirmed."""
        whys = {}
        for name in map(self._name, paths):
            entry = self._entries.get(name)
            if entry and "publishers_checksum" not in entry:
                whys[name] = entry.get("origin", "found in place")
            elif entry and entry["publishers_checksum"].startswith("none"):
                whys[name] = f"fetched; publisher's checksum: {entry['publishers_checksum']}"
        return whys

    def _name(self, path: Path) -> str:
        return path.relative_to(self.data).as_posix()

    def _write(self) -> None:
        write_json(self.path, self._entries)


def _facts(path: Path, origin: str) -> dict[str, Any]:
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"bytes": path.stat().st_size, "origin": origin, "since": now}
