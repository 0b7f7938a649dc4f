"""The run's manifest: from what, and when, every result was made; and whether it still holds.

`data/output/<run>/manifest.json` has one record for every notebook that has succeeded.
A step is up to date only if everything that determines it (its code cells and
declarations, its parameters, `lib/`, the files it reads, the environment) is as it was
then, and its outputs still have the hashes that they had.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from ..base.files import write_json
from ..base.fingerprint import sha256_of
from ..base.paths import ROOT, shown
from ..base.stored_json import TEXT, mapping, of_each, read_json
from ..study.study import Study
from .steps import Step

_LIB_SUFFIXES = (".py", ".mplstyle")


@dataclass(frozen=True)
class Facts:
    """What determines a step's results.

    code        : hash of its code cells and its declarations
    parameters  : as passed
    lib         : {file: SHA-256} of the package's own code
    inputs      : {file: SHA-256} of what it reads
    environment : versions and device
    """

    code: str
    parameters: Mapping[str, object]
    lib: Mapping[str, str]
    inputs: Mapping[str, str]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Record:
    """A success. outputs : {file: SHA-256}; commit : the checkout's, "-dirty" if changed"""

    facts: Facts
    outputs: Mapping[str, str]
    commit: str
    finished: str
    seconds: float
    peak_memory_bytes: int
    peak_gpu_bytes: int


def step_facts(
    step: Step, values: Mapping[str, object], study: Study, environment: Mapping[str, str]
) -> Facts:
    """What determines the step's results now; a file that is missing has the hash ""."""
    text = json.dumps([step.code, step.reads, step.writes])
    return Facts(
        hashlib.sha256(text.encode()).hexdigest(),
        dict(values),
        code_of_the_package(),
        hashes([*step.inputs(study), *study.inputs.files()["extension"]]) | _verified(step, study),
        dict(environment),
    )


def code_of_the_package() -> dict[str, str]:
    """{file: SHA-256} of `lib/` now."""
    code = [p for p in (ROOT / "lib").rglob("*") if p.suffix in _LIB_SUFFIXES]
    return hashes(sorted(code))


def _verified(step: Step, study: Study) -> dict[str, str]:
    """{file, in words: why no checksum of its publisher has verified it}, of what the step reads:
    its results tell it."""
    read = set(step.inputs(study))
    unverified = study.inputs.unverified().items()
    return {f"the checksum of {shown(path)}": why for path, why in unverified if path in read}


def hashes(paths: Sequence[Path]) -> dict[str, str]:
    """{path from the project's folder on: SHA-256, "" where there is no file}."""
    return {shown(p): sha256_of(p) if p.exists() else "" for p in paths}


def _differences(kind: str, old: Mapping, new: Mapping) -> list[str]:
    words = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if kind == "value":
            words.append(f"{name}: {_shown(before)} → {_shown(after)}")
        elif before and after:
            words.append(f"{name} changed")
        elif after:
            words.append(f"{name} is new")
        else:
            left = kind == "input" and name not in new
            words.append(f"{name} is {'not read now' if left else 'gone'}")
    return words


def _shown(value: object) -> str:
    text = "none" if value is None or value == "" else str(value)
    return text if len(text) < 80 else f"{text[:60]} … ({len(text)} characters)"


def _summary(words: Sequence[str]) -> str:
    more = f" and {len(words) - 2} more" if len(words) > 2 else ""
    return f"{', '.join(words[:2])}{more}"


_TEXTS, _WHOLE = of_each(TEXT), {"type": "integer"}
_FACTS = {
    "code": TEXT, "parameters": {"type": "object"}, "lib": _TEXTS, "inputs": _TEXTS,
    "environment": _TEXTS,
}  # fmt: skip
_RECORD = {
    "facts": mapping(_FACTS) | {"additionalProperties": False}, "outputs": _TEXTS, "commit": TEXT,
    "finished": TEXT, "seconds": {"type": "number"}, "peak_memory_bytes": _WHOLE,
    "peak_gpu_bytes": _WHOLE,
}  # fmt: skip
_STORED = mapping({"notebooks": of_each(mapping(_RECORD) | {"additionalProperties": False})})


def _record(fields: Mapping) -> Record:
    """A record as it was stored. Raises ValueError for a time that is none."""
    record = Record(**{**fields, "facts": Facts(**fields["facts"])})
    datetime.fromisoformat(record.finished)
    return record


class Manifest:
    """The records of a results folder, read once and written after every success."""

    def __init__(self, path: Path):
        self.path = path
        self.problem = ""
        self._records: dict[str, Record] = {}
        try:
            for name, fields in read_json(path, _STORED)["notebooks"].items():
                self._records[name] = _record(fields)
        except FileNotFoundError:
            pass
        except (OSError, ValueError):
            self.problem = f"{shown(path)} is damaged: every notebook runs anew"
            self._records = {}

    def __getitem__(self, name: str) -> Record | None:
        return self._records.get(name)

    def add(self, name: str, record: Record, known: Sequence[str]) -> None:
        """Keep a success; records of notebooks that are not `known` any more are dropped."""
        self._records = {n: r for n, r in self._records.items() if n in known} | {name: record}
        self._write()

    def drop(self, name: str) -> None:
        """Forget a success, if there was one."""
        if self._records.pop(name, None):
            self._write()

    def _write(self) -> None:
        facts = {"notebooks": {name: asdict(r) for name, r in sorted(self._records.items())}}
        write_json(self.path, facts)

    def why_run(self, name: str, facts: Facts) -> str:
        """Why the step must run, in words; "" if its results still hold."""
        record = self._records.get(name)
        if record is None:
            return "not run yet"
        outputs = hashes([ROOT / output for output in record.outputs])
        touched = _summary(_differences("file", record.outputs, outputs))
        return "; ".join(words for words in (differences(record.facts, facts), touched) if words)


def differences(old: Facts, new: Facts) -> str:
    """What is not as it was, in words; "" if all is."""
    parts = [
        ["its cells changed"] if old.code != new.code else [],
        _differences("value", old.parameters, new.parameters),
        _differences("file", old.lib, new.lib),
        _differences("input", old.inputs, new.inputs),
        _differences("value", old.environment, new.environment),
    ]
    return "; ".join(_summary(words) for words in parts if words)
