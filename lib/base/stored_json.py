"""Reading JSON that may be damaged, or somebody else's: its shape is checked before any use."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema

LARGEST = 64 * 2**20  # bytes; ours have kilobytes
_TOLD = 200  # characters of what is wrong
TEXT = {"type": "string"}
SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}", "maxLength": 64}


class DamagedJson(ValueError):
    """JSON that cannot be read, or has another shape than it should; says which file and why."""


def mapping(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict:
    """The schema of an object with these entries; others may be there too."""
    return {
        "type": "object",
        "required": [*required],
        "properties": {**required, **(optional or {})},
    }


def of_each(schema: Mapping[str, Any]) -> dict:
    """The schema of an object whose every value has this one."""
    return {"type": "object", "additionalProperties": schema}


def parse_json(text: str | bytes, schema: Mapping[str, Any], name: object) -> Any:
    """What a JSON text says, if it has the schema's shape.

    schema : JSON Schema, draft 7
    name   : how errors call it
    Raises DamagedJson.
    """
    try:
        if len(text) > LARGEST:
            raise ValueError(f"it is larger than {LARGEST // 2**20} MiB")
        value = json.loads(text)
    except RecursionError:
        raise DamagedJson(f"{name} cannot be read: it is nested too deep") from None
    except ValueError as error:
        raise DamagedJson(f"{name} cannot be read: {_shown(error)}") from None
    try:
        _check(json.dumps(schema))(value)
    except fastjsonschema.JsonSchemaValueException as error:
        raise DamagedJson(
            f"{name} does not have the expected shape: {_shown(error.message)}"
        ) from None
    return value


@cache
def _check(schema: str) -> Callable[[object], object]:
    return fastjsonschema.compile(json.loads(schema), use_default=False)


def _shown(said: object) -> str:
    text = ascii(str(said))[1:-1]
    return text if len(text) <= _TOLD else f"{text[:_TOLD]} …"


def read_json(path: Path, schema: Mapping[str, Any]) -> Any:
    """What a JSON file says, if it has the schema's shape.

    Raises DamagedJson naming the file, and OSError where it cannot be read at all.
    """
    if path.stat().st_size > LARGEST:
        raise DamagedJson(f"{path} cannot be read: it is larger than {LARGEST // 2**20} MiB")
    return parse_json(path.read_bytes(), schema, path)
