"""The SHA-256 of every published file at its first use: `known_files.json` in the data folder.

A file is known once it is fetched, or found where a user has put it. A known file that changes
is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ..base.files import write_json
from ..base.fingerprint import sha256_of
from ..base.stored_json import SHA256, TEXT, mapping, of_each, parse_json

_CHECKSUM = re.compile("(md5|sha256|crc32c):[0-9a-f]{8,64}")
_KNOWN = of_each(mapping({"sha256": SHA256}, {"origin": TEXT, "publishers_checksum": TEXT}))


class KnownFiles:
    """The SHA-256 of every published file at its first use."""

    def __init__(self, data: Path):
        self.data = data
        self.path = data / "known_files.json"
        self._entries = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            return parse_json(self.path.read_bytes(), _KNOWN, "its JSON")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self.path} cannot be read ({error}); it holds the hashes of your files: "
                "restore it, or delete it to accept the files as they are now"
            ) from None

    def check(self, paths: Iterable[Path], origin: str = "found in place") -> list[str]:
        """Return the names of files that have changed; record new ones."""
        new, changed = {}, []
        for path in paths:
            name, digest = self._name(path), sha256_of(path)
            if name not in self._entries:
                new[name] = {"sha256": digest, **_facts(path, origin)}
            elif self._entries[name]["sha256"] != digest:
                changed.append(name)
        if new:
            self._write(new)
        return changed

    def record(self, place: Path, fetched: Path, origin: str, checksum: str) -> None:
        """Record a file that has just been fetched and is about to be put in its place.

        checksum : the publisher's, "" if it was unavailable
        """
        entry = {"sha256": sha256_of(fetched), **_facts(fetched, origin)}
        self._write({self._name(place): entry | {"publishers_checksum": checksum}})

    def unverified(self, paths: Iterable[Path]) -> dict[str, str]:
        """Return {name: why} of files that no publisher's checksum has confirmed as they are."""
        whys = {}
        for path in paths:
            name = self._name(path)
            entry = self._entries.get(name)
            if entry is None:
                whys[name] = "found in place"
            elif entry["sha256"] != sha256_of(path):
                whys[name] = "changed since its first use"
            elif "publishers_checksum" not in entry:
                whys[name] = entry.get("origin", "found in place")
            elif not _CHECKSUM.fullmatch(entry["publishers_checksum"]):
                whys[name] = "its publisher's checksum was unavailable (--unverified)"
        return whys

    def _name(self, path: Path) -> str:
        return path.relative_to(self.data).as_posix()

    def _write(self, new: Mapping[str, dict[str, Any]]) -> None:
        """Add entries to the current ones: another process may have added some."""
        self._entries = {**self._read(), **new}
        write_json(self.path, self._entries)


def _facts(path: Path, origin: str) -> dict[str, Any]:
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"bytes": path.stat().st_size, "origin": origin, "since": now}
