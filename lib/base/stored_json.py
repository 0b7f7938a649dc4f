"""Reading JSON that may be damaged or foreign: its shape is checked before any use."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema

LARGEST = 64 * 2**20  # bytes; the project's own files have kilobytes
_TOLD = 200  # characters of an error's description in a message
TEXT = {"type": "string"}
SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}", "maxLength": 64}


class DamagedJson(ValueError):
    """JSON that cannot be read or has an unexpected shape; the message names the file and why."""


def mapping(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict:
    """Return the schema of an object with these entries; it may have others, too."""
    return {
        "type": "object",
        "required": [*required],
        "properties": {**required, **(optional or {})},
    }


def of_each(schema: Mapping[str, Any]) -> dict:
    """Return the schema of an object whose values all have this schema."""
    return {"type": "object", "additionalProperties": schema}


def parse_json(text: str | bytes, schema: Mapping[str, Any], name: object) -> Any:
    """Return the value of a JSON text that has the schema's shape.

    schema : JSON Schema, draft 7
    name   : what errors call the text

    Raise DamagedJson if the text is not JSON or has another shape.
    """
    try:
        if len(text) > LARGEST:
            raise ValueError(f"it is larger than {LARGEST // 2**20} MiB")
        value = json.loads(text)
    except RecursionError:
        raise DamagedJson(f"{name} cannot be read: it is nested too deeply") from None
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
    """Return the value of a JSON file that has the schema's shape.

    Raise DamagedJson, which names the file, and OSError if the file cannot be opened.
    """
    if path.stat().st_size > LARGEST:
        raise DamagedJson(f"{path} cannot be read: it is larger than {LARGEST // 2**20} MiB")
    return parse_json(path.read_bytes(), schema, path)
