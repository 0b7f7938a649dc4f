"""Loading published weights into a network: names become timm's, and every tensor must fit.

timm's own filters rename tensors that the original repositories name differently. Only names in a
file's `Reading` may be missing or unexpected; they are always reported.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path

import torch
from timm.models import convnext, fastvit, metaformer
from torch import Tensor, nn

from ..base.words import in_lines, printable, some_of
from .dcls import dcls_layers
from .sources import AS_IS, Reading
from .weights_files import WeightsError, read_weights

_FILTERS = {
    "convnext": convnext.checkpoint_filter_fn,
    "metaformer": metaformer.checkpoint_filter_fn,
    "fastvit": fastvit.checkpoint_filter_fn,
}
OF_TIMM = "timm."  # begins the family of a timm network, followed by its module in timm
_LONGEST = 100  # characters of a name
_NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Positions are added to half a window in float32, whose steps there are eps x size; a smaller
# excess changes a kernel no more than the order of a sum does.
_ROUNDING = 4 * torch.finfo(torch.float32).eps  # of the window's size


class MissingWeights(FileNotFoundError):
    """The error for a weights file that does not exist; it says which and what to do."""


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def _shown(name: str) -> str:
    """Return a name from a file as a message may show it."""
    return printable(name if len(name) <= _LONGEST else f"{name[:_LONGEST]} …")


def in_timms_names(
    state: Mapping[str, Tensor], network: nn.Module, family: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors under timm's names, and the names that no filter knows.

    network : already converted to DCLS, if the weights are
    """
    if family.startswith(OF_TIMM) and _FILTERS.get(family.removeprefix(OF_TIMM)) is None:
        return _by_timms_module(state, network, family.removeprefix(OF_TIMM)), []
    family = family.removeprefix(OF_TIMM)
    rename = _FILTERS.get(family)
    if rename is None:
        return dict(state), []
    if family == "fastvit":  # its stages are recognised from all names together
        return rename(dict(state), network), []
    own = network.state_dict().keys()
    if any(name in own and name.startswith("stem") for name in state):
        return dict(state), []  # timm's own naming
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in state.items():
        try:
            found = rename({name: tensor}, network)
        except KeyError:  # the filter looks up the model's tensor of that name
            unknown.append(name)
            continue
        # The filters reshape tensors whenever the count is right, so positions with exchanged
        # axes would pass. Only axes of length 1 may be added or removed.
        same = {n: _squeezed(t) == _squeezed(tensor) for n, t in found.items()}
        renamed |= {n: t if same[n] else tensor for n, t in found.items()}
    return renamed, unknown


def _by_timms_module(
    state: Mapping[str, Tensor], network: nn.Module, module: str
) -> dict[str, Tensor]:
    """Return the tensors under the network's names. They are unchanged unless timm's filter makes
    more of them fit, and neither creates nor resizes any."""
    own = network.state_dict().keys()
    rename = getattr(import_module(f"timm.models.{module}"), "checkpoint_filter_fn", None)
    if own == state.keys() or rename is None:
        return dict(state)
    try:
        renamed = rename(dict(state), network)
    except Exception:  # strange names may raise anything; the comparison reports them
        return dict(state)
    numbers = (sum(t.numel() for t in tensors.values()) for tensors in (renamed, state))
    resized = any(n in state and t.numel() != state[n].numel() for n, t in renamed.items())
    better = len(own - renamed.keys()) <= len(own - state.keys())
    made, given = numbers
    return renamed if better and not resized and made <= given else dict(state)


def _squeezed(tensor: Tensor) -> list[int]:
    return [n for n in tensor.shape if n != 1]


def load_weights(
    network: nn.Module, path: Path, family: str, reading: Reading = AS_IS
) -> list[str]:
    """Load published weights, or weights in timm's naming, into the network.

    Returns what readers of results must know about them, as `fitted`, and raises like it.
    """
    state, remarks = fitted(network, path, family, reading)
    lacking = {name: t for name, t in network.state_dict().items() if name not in state}
    network.load_state_dict({**lacking, **state})
    return remarks


def fitted(
    network: nn.Module, path: Path, family: str, reading: Reading = AS_IS
) -> tuple[dict[str, Tensor], list[str]]:
    """Return a file's tensors by the network's names, and what readers of results must know.

    network : only its names, shapes and dtypes count: it may be on torch's meta device

    Raises MissingWeights, and WeightsError, which lists every tensor that is missing, unexpected,
    of another shape or dtype, or not finite, and positions outside their window.
    """
    if not path.is_file():
        raise MissingWeights(f"no weights at {path}: fetch the file, or name another")
    stored = read_weights(path, reading.container)
    _refuse_other_form(stored, path, family)
    try:
        state, unknown = in_timms_names(stored, network, family)
    except Exception as error:  # timm's filters may raise anything for strange shapes
        raise WeightsError(
            f"{path} does not fit the model: timm cannot rename its tensors "
            f"({type(error).__name__}: {error})"
        ) from error
    return _compared(network, state, unknown, path, reading)


def _compared(
    network: nn.Module,
    state: Mapping[str, Tensor],
    unknown: Sequence[str],
    path: Path,
    reading: Reading,
) -> tuple[dict[str, Tensor], list[str]]:
    """Compare tensors by timm's names with the network, and refuse names that no filter knows."""
    expected = network.state_dict()
    surplus = [name for name in [*state, *unknown] if name not in expected]
    lacking = [name for name in expected if name not in state]
    passed = [n for n in surplus if _matches(n, (*reading.surplus, *reading.accepted))]
    left = [n for n in lacking if _matches(n, (*reading.lacking, *reading.accepted))]
    refused = [name for name in surplus if name not in passed]
    state = {name: tensor for name, tensor in state.items() if name in expected}
    problems = [f"missing: {name}" for name in lacking if name not in left]
    problems += [f"unexpected: {_shown(name)}" for name in refused]
    problems += [p for name, t in state.items() if (p := _misfit(name, t, expected[name]))]
    remarks = _left_and_passed(passed, left)
    if not problems:
        found, more = _positions(network, state, reading.accepted)
        problems, remarks = found, remarks + more
    if problems:
        if len(lacking) > len(expected) / 2:
            count = f"{len(lacking)} of the network's {len(expected)} names"
            problems.insert(0, f"{count} are missing: the file is of another network or variant")
        listed = in_lines([f"  {problem}" for problem in problems], 20)
        advice = ""
        if refused:
            name = shlex.quote(_shown(refused[0]))
            advice = f"\nTo accept names that you know to be harmless: --accept {name}"
        raise WeightsError(f"{path} does not fit the model:\n{listed}{advice}")
    return state, remarks


def _refuse_other_form(stored: Mapping[str, Tensor], path: Path, family: str) -> None:
    folded = [name for name in stored if ".reparam_conv." in name or ".lkb_reparam." in name]
    if family.removeprefix(OF_TIMM) == "fastvit" and folded:
        raise WeightsError(
            f"{path} holds FastViT re-parameterised for inference (such as {_shown(folded[0])}): "
            "its branches are folded, including the convolutions that DCLS replaces. The study "
            "needs the network as it was trained: use the file from before `reparameterize_model`"
        )


def _misfit(name: str, tensor: Tensor, expected: Tensor) -> str:
    """Return why a tensor of the file cannot be the network's; "" if it can."""
    if tensor.shape != expected.shape:
        return f"{name}: file has shape {tuple(tensor.shape)}, model {tuple(expected.shape)}"
    kind = str(tensor.dtype).removeprefix("torch.")
    if not expected.is_floating_point():
        counts = not tensor.is_floating_point() and tensor.dtype != torch.bool
        return "" if counts else f"{name}: file has {kind}, model whole numbers"
    if tensor.dtype not in _NUMBERS:
        return f"{name}: file has {kind}, which no weights have"
    strange = int((~tensor.to(expected.dtype).isfinite()).sum())
    return f"{name}: {strange} of its {tensor.numel()} values are not finite" if strange else ""


def _left_and_passed(passed: Sequence[str], left: Sequence[str]) -> list[str]:
    remarks = []
    if passed:
        names = some_of([*map(_shown, passed)])
        remarks.append(f"not read, because the network has no such names: {len(passed)} ({names})")
    if left:
        names = some_of(left)
        remarks.append(f"not in the file, initialised as in a new network: {len(left)} ({names})")
    return remarks


def _positions(
    network: nn.Module, state: Mapping[str, Tensor], accepted: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return what is wrong with a file's positions, and what readers must know about them.

    A stage shares one tensor, and the file repeats it for each layer. Loading keeps the last,
    as the original code does.
    """
    problems, remarks = [], []
    stages: dict[int, list[tuple[str, float]]] = {}
    for name, layer in dcls_layers(network).items():
        if f"{name}.P" in state:
            stages.setdefault(id(layer.P), []).append((f"{name}.P", max(layer.dilated_kernel_size)))
    for copies in stages.values():
        last, size = copies[-1]
        positions = state[last].double()
        furthest = float(positions.abs().max())
        if furthest > size // 2 + _ROUNDING * size:
            words = f"positions up to {furthest:.4g} from the centre of a window of {size:g}"
            if _matches(last, accepted):
                remarks.append(f"{last}: {words}: weights there are lost")
            else:
                problems.append(f"{last}: {words}; --accept {last!a} loses the weights there")
        apart = {n: float((state[n].double() - positions).abs().max()) for n, _ in copies}
        name, most = max(apart.items(), key=lambda item: item[1])
        if most > _ROUNDING * size:
            remarks.append(
                f"the stage's copies of its positions differ by up to {most:.3g} cells ({name} "
                f"from {last}): the last is used, as in the original code"
            )
        elif most:
            remarks.append(
                f"copies of the positions of {last} differ by rounding ({most:.1e} cells)"
            )
    return problems, remarks
