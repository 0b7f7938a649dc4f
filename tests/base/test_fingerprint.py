"""Fingerprints: equal in every process, different for different facts."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lib.base.fingerprint import fingerprint
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
