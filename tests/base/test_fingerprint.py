"""Fingerprints: equal in every process, different for different facts."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest
import torch

from lib.base.fingerprint import fingerprint, sha256_of
from lib.maps.methods import METHODS, grad_cam_variant
from lib.networks.backbones import BACKBONES


def test_fingerprint_is_the_same_in_another_process():
    facts = "{'b': BACKBONES['resnet50'], 'm': list(METHODS.values())}"
    code = (
        "from lib.networks.backbones import BACKBONES; from lib.maps.methods import METHODS;"
        f"from lib.base.fingerprint import fingerprint; print(fingerprint({facts}))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    mine = fingerprint({"b": BACKBONES["resnet50"], "m": list(METHODS.values())})
    assert other.stdout.strip() == mine


def test_fingerprint_tells_methods_and_values_apart():
    prints = {
        fingerprint({"x": value})
        for value in (1, "1", [1], None, *METHODS.values(), grad_cam_variant("a", "a", floor=0.1),
                      grad_cam_variant("a", "a", floor=0.2), fingerprint, BACKBONES["resnet50"])
    }  # fmt: skip
    assert len(prints) == 4 + len(METHODS) + 2 + 2


def test_fingerprint_sees_what_a_made_function_remembers():
    def make(scale):
        return lambda features, gradient: features.mean(1) * scale

    assert fingerprint({"x": make(1)}) != fingerprint({"x": make(2)})
    assert fingerprint({"x": make(1)}) == fingerprint({"x": make(1)})


def test_fingerprint_refuses_what_it_cannot_describe():
    with pytest.raises(TypeError, match="cannot fingerprint a Tensor"):
        fingerprint({"x": torch.ones(2)})


@pytest.mark.parametrize(
    "damage",
    ["{", "[]", "null", '{"a": 1}', "[" * 10**5, '{"%s": {"stamp": [1], "sha256": "x"}}',
     '{"%s": {"stamp": "x", "sha256": 3}}', '{"%s": []}'],
)  # fmt: skip
def test_a_damaged_memory_of_hashes_is_made_anew(tmp_path, monkeypatch, damage):
    memory, path = tmp_path / "hashes.json", tmp_path / "shard"
    monkeypatch.setattr("lib.base.fingerprint.WORTH_KEEPING", 0)
    monkeypatch.setattr("lib.base.fingerprint.HASHES", memory)
    path.write_text("one")
    os.utime(path)
    memory.write_text(damage.replace("%s", str(path)))
    changed = path.stat().st_ctime_ns / 1e9
    monkeypatch.setattr("time.time", lambda: changed + 10)  # long enough ago to be kept
    expected = hashlib.sha256(b"one").hexdigest()
    assert sha256_of(path) == expected
    assert json.loads(memory.read_text())[str(path)]["sha256"] == expected
