"""Nothing in the batch loop waits for a GPU. No GPU is needed: a stand-in has shapes, but no values.

Whoever asks for a value of it gets an error, as with `item`, `if tensor` and `nonzero`; what is
copied from or to it is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import pytest
import torch
from stand_ins import mini
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from lib.maps.methods import METHODS
from lib.networks.models import StudyModel
from lib.scores.prepared import Block
from lib.scores.scoring import Scores
from lib.scores.spearman import rank_maps

DEVICE = torch.device("meta")
MODE = FakeTensorMode(allow_non_fake_inputs=True)  # one for all: caches hold tensors of it
KEYS = ("grad_cam", "threshold_grad_cam", "grad_cam_plus_plus", "eigen_grad_cam", "random_cam")


class Waiting(TorchDispatchMode):
    """Records the copies for which the program waits."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        to = torch.device(kwargs.get("device") or (tensors[0].device if tensors else "cpu"))
        if to.type == "cpu" and not any(isinstance(t, FakeTensor) for t in tensors):
            with _disable_current_modes():  # labels and the like have values
                return func(*args, **kwargs)
        if "copy" in str(func):
            devices = {tensor.device.type for tensor in tensors} | {to.type}
            back = to.type == "cpu"
            if len(devices) > 1 and (back or not kwargs.get("non_blocking")):
                self.copies.append(f"{func} {sorted(devices)} {kwargs}")
        return func(*args, **kwargs)


def modules_of(model: StudyModel) -> Iterator[nn.Module]:
    """All modules that it reaches, also those in functions and lists."""
    seen: set[int] = set()
    waiting: list[Any] = [model]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, nn.Module):
            yield one
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one
        elif isinstance(one, MethodType):
            waiting.append(one.__self__)
        elif isinstance(one, partial):
            waiting += [one.func, *one.args, *one.keywords.values()]
        elif isinstance(one, FunctionType):
            waiting += [cell.cell_contents for cell in one.__closure__ or ()]
        elif isinstance(one, nn.Module) or type(one).__module__.startswith("lib."):
            waiting += getattr(one, "__dict__", {}).values()


def moved(model: StudyModel, mode: FakeTensorMode) -> StudyModel:
    for module in modules_of(model):
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    there = mode.from_tensor(tensor).to(DEVICE)
                    is_weight = isinstance(tensor, nn.Parameter)
                    held[name] = nn.Parameter(there, requires_grad=False) if is_weight else there
    return model


def waited_for(scored) -> list[str]:
    """The copies that a second batch waits for; the first may fill caches."""
    with MODE as mode:
        for _ in range(2):
            with Waiting() as waiting:
                scored(mode)
    return waiting.copies


def block(mode: FakeTensorMode, side: int) -> Block:
    pixels = mode.from_tensor(torch.zeros(4, side, side, 3, dtype=torch.uint8))
    human = rank_maps(torch.rand(4, 224, 224, device=DEVICE), True)
    ids = [str(n) for n in range(4)]
    with _disable_current_modes():
        labels = torch.zeros(4, dtype=torch.int64)
    return Block(ids, labels, np.arange(4), pixels, {"corrected": human})


@pytest.mark.parametrize("predicted", [False, True])
@pytest.mark.parametrize(
    ("key", "dcls"), [("resnet50", False), ("convnext_tiny", True), ("fastvit_sa24", True)]
)
def test_scoring_a_batch_waits_for_nothing(key, dcls, predicted, monkeypatch):
    made, tensor = [], torch.tensor

    def recorded(data, *others, device=None, **options):
        if device is not None and torch.device(device) == DEVICE:
            made.append(data)  # a copy of numbers, for which the program waits
        return tensor(data, *others, device=device, **options)

    model = mini(key, dcls)
    model = model.for_inference()
    ready: list[StudyModel] = []
    methods = [METHODS[name] for name in KEYS]

    def scored(mode: FakeTensorMode) -> None:
        if not ready:
            ready.append(moved(model, mode))
        else:
            monkeypatch.setattr(torch, "tensor", recorded)
        Scores(methods, predicted).add(ready[0], block(mode, model.backbone.preprocessing.crop))

    assert waited_for(scored) == []
    assert made == []


@pytest.mark.parametrize(
    "wait", [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: bool(x.any()), Tensor.tolist]
)
def test_the_stand_in_has_no_value_to_wait_for(wait):
    with MODE, pytest.raises((DataDependentOutputException, RuntimeError)):
        wait(torch.ones(3, device=DEVICE))


def test_the_stand_in_notices_a_copy_that_is_waited_for():
    def scored(mode: FakeTensorMode) -> None:
        there = torch.ones(3, device=DEVICE)
        mode.from_tensor(torch.zeros(3)).to(DEVICE, non_blocking=True)
        there.cpu()

    assert len(waited_for(scored)) == 1
