"""JSON that is damaged, of another shape, or endless: one documented error, naming the file."""

from __future__ import annotations

import json
import random

import pytest

from lib.base import stored_json
from lib.base.stored_json import SHA256, TEXT, DamagedJson, mapping, of_each, parse_json, read_json

SCHEMA = of_each(mapping({"sha256": SHA256, "stamp": {"type": "array"}}, {"note": TEXT}))
RIGHT = {"a/b.pth": {"sha256": "0" * 64, "stamp": [1, 2]}, "c": {"sha256": "f" * 64, "stamp": []}}


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16"], ids=["utf-8", "with a mark", "utf-16"]
)
def test_what_has_the_shape_is_read(tmp_path, encoding):
    path = tmp_path / "known.json"
    path.write_text(json.dumps(RIGHT), encoding=encoding)
    assert read_json(path, SCHEMA) == RIGHT


WRONG = {
    "no json": "{",
    "empty": "",
    "null": "null",
    "a list": "[]",
    "a text": '"x"',
    "a number": "1e999",
    "entries of another kind": '{"a": 1}',
    "an entry without all": '{"a": {"sha256": "' + "0" * 64 + '"}}',
    "a short hash": '{"a": {"sha256": "0", "stamp": []}}',
    "a hash that goes on": '{"a": {"sha256": "' + "0" * 64 + '\\n", "stamp": []}}',
    "an optional one of another kind": '{"a": {"sha256": "%s", "stamp": [], "note": 3}}'
    % ("0" * 64),
    "nested without end": "[" * 1_000_000,
    "nested deep, and whole": '{"a": ' + "[" * 50_000 + "]" * 50_000 + "}",
    "nested as deep as can be read": '{"a": ' + "[" * 900 + "]" * 900 + "}",
    "a number of many digits": "9" * 100_000,
    "no text": b"\xff\xfe\xfd",
    "what steers a terminal": '{"\x1b]0;x\x07": 1}',
}


@pytest.mark.parametrize("content", WRONG.values(), ids=list(WRONG))
def test_anything_else_is_the_documented_error_and_printable(tmp_path, content):
    path = tmp_path / "known.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(
        DamagedJson, match="known.json (cannot be read|does not have the expected shape)"
    ) as caught:
        read_json(path, SCHEMA)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500 + len(str(path))


def test_a_file_of_gigabytes_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_json, "LARGEST", 1000)
    path = tmp_path / "known.json"
    path.write_text(" " * 1001 + "{}")
    with pytest.raises(DamagedJson, match="it is larger than"):
        read_json(path, SCHEMA)
    with pytest.raises(DamagedJson, match="the answer cannot be read: it is larger than"):
        parse_json(b" " * 1001, SCHEMA, "the answer")


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json", SCHEMA)


def test_mutations_are_read_or_refused():
    dice, text = random.Random(0), json.dumps(RIGHT).encode()
    outcomes = set()
    for _ in range(2000):
        made = bytearray(text)
        for _ in range(dice.randrange(1, 4)):
            made[dice.randrange(len(made))] = dice.randrange(256)
        try:
            found = parse_json(bytes(made), SCHEMA, "x")
        except DamagedJson:
            outcomes.add("refused")
        else:
            outcomes.add("read")
            assert all(len(entry["sha256"]) == 64 for entry in found.values())
    assert outcomes == {"refused", "read"}
