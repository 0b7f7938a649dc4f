"""Tensors from weights files: safetensors, and pickled checkpoints without running their code.

Pickles are read with `weights_only=True`. Objects that a trainer stored beside the weights (its
options, paths, NumPy numbers) are not created: an inert stand-in replaces each. A name that could
run something is always refused, because no trainer stores it. torch verifies no checksum; this
module verifies the zip's.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..base.shortage import is_out_of_memory

# In this order if a file's container is unknown: averaged weights are the evaluated ones.
_CONTAINERS = ("state_dict_ema", "model_ema", "model", "state_dict")
# Modules whose functions run programs, or load code that does; and such names in `builtins`.
_RUNS_CODE = {
    "_posixsubprocess", "bdb", "code", "codeop", "commands", "ctypes", "importlib", "marshal", "nt",
    "os", "pdb", "pickle", "pkgutil", "posix", "pty", "pydoc", "runpy", "shutil", "socket",
    "subprocess", "sys", "timeit", "webbrowser",
}  # fmt: skip
_CALLS = {"_io.open", "_io.FileIO", "io.open", "io.FileIO"}
_BUILTINS = {
    "__import__", "apply", "breakpoint", "compile", "delattr", "eval", "exec", "execfile",
    "getattr", "globals", "help", "input", "locals", "open", "setattr", "vars",
}  # fmt: skip
# The beginnings of files that are not checkpoints, whatever their names say.
_OTHERS = {
    rb"\s*<(!doctype|html|\?xml)": "a web page",
    rb"\x1f\x8b": "a gzip archive",
    rb"\x93NUMPY": "an array of numpy",
    rb"\x89HDF": "an HDF5 file",
    rb".{7}\x00\{\s*\"": "a safetensors file, whose name must end in .safetensors",
}
_SLOW = {"punycode", "idna"}  # encodings whose time grows with the square of a text's length
_DEEPEST = 1000  # nested tuples
_MOST_INSTRUCTIONS = 5_000_000
_OLD_PICKLES = 5  # in files from before torch 1.6: a number, version, machine, weights, keys
_UNPACKS_TO = 4  # times its own size at most: torch.save does not compress
_MOST_NAMES = 100  # of objects beside the weights
_SHOWN = 300  # characters


class WeightsError(ValueError):
    """The error for a weights file that cannot be read safely, or does not fit the model."""


class _Inert:
    """Replaces an object beside the weights: it accepts any input and keeps nothing."""

    def __new__(cls, *_: object, **__: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object):
        pass

    def __setstate__(self, _: object) -> None:
        pass


class _InertMapping:
    """The same for an object filled like a dict: torch's reader fills only its own types."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return collections.OrderedDict()


class _InertList:
    """The same for an object filled like a list."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return []


# It is known how these are filled; any other is tried as an object, then as the others.
_KNOWN: dict[str, Any] = {
    "argparse.Namespace": argparse.Namespace,
    "collections.defaultdict": _InertMapping,
    "collections.deque": _InertList,
}
_OBJECTS = ("numpy.", "pathlib.", "datetime.")


def _stand_in(name: str, kind: type) -> tuple[Any, str]:
    """Return what torch's reader creates for a name."""
    return (_Inert if name.startswith(_OBJECTS) else _KNOWN.get(name, kind)), name


def read_weights(path: Path, container: str = "") -> dict[str, Tensor]:
    """Return the tensors of a safetensors file or a pickled checkpoint, in the file's own naming.

    container : the entry that contains them; "" looks for the usual ones

    Raises WeightsError, which names the file, if it is damaged, contains no tensors with values
    of their own, or would run code when read.
    """
    if path.suffix.lower() == ".safetensors":
        try:
            state = load_file(path)
        except Exception as error:  # safetensors' own error, or any from torch for a bad header
            if is_out_of_memory(error):
                raise
            raise WeightsError(
                f"{path} is not a readable safetensors file; it may be truncated, or something "
                f"else under that name ({_first_line(error)})"
            ) from error
    else:
        state = _unpacked(_read_pickle(path), container, path)
    try:
        problems = [problem for name, t in state.items() if (problem := _unusable(name, t))]
        stored = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
                  for t in state.values() if not problems}  # fmt: skip
    except Exception as error:  # for example, a tensor whose methods the file has replaced
        raise WeightsError(f"{path} contains no usable weights: {_first_line(error)}") from error
    if sum(stored.values()) > path.stat().st_size:
        problems.append("they take more bytes than the file has")
    if {torch.float16, torch.bfloat16} <= {t.dtype for t in state.values()}:
        problems.append(
            "it mixes float16 and bfloat16, so a dtype that was changed in its header would go "
            "unnoticed; save it in one of them"
        )
    if problems:
        raise WeightsError(f"{path} contains no usable weights: {'; '.join(problems[:5])[:_SHOWN]}")
    while sum(name.startswith("module.") for name in state) > len(state) / 2:  # parallel training's
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def _unusable(name: str, tensor: Tensor) -> str:
    """Return why a tensor cannot belong to a network; "" if it may. No value is read."""
    if tensor.is_meta:
        return f"{name!a} has no values (it is on torch's meta device)"
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        kind = "quantized" if tensor.is_quantized else str(tensor.dtype).removeprefix("torch.")
        layout = str(tensor.layout).removeprefix("torch.")
        return f"{name!a} is a {kind} tensor ({layout}), not one of ordinary numbers"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return (
            f"{name!a} claims to have {tensor.numel()} numbers, more than are stored (for a tensor "
            "that was expanded, save `.contiguous()`)"
        )
    return ""


# --- pickled checkpoints --------------------------------------------------------------------


def _read_pickle(path: Path) -> object:
    with path.open("rb") as file:
        begins = file.read(16)
    for magic, kind in _OTHERS.items():
        if re.match(magic, begins, re.IGNORECASE | re.DOTALL):
            raise WeightsError(f"{path} is not a pickled checkpoint: it begins like {kind}")
    try:
        is_zip = begins.startswith(b"PK\x03\x04")  # the same test as torch's
        if is_zip:
            _check_zip(path)
        return _loaded(path, _names_in(path, is_zip))
    except WeightsError:
        raise
    except Exception as error:  # readers may raise anything for a damaged file
        if is_out_of_memory(error):
            raise
        if "Unsupported operand" in str(error):
            raise _not_skipped(path, str(error), []) from None
        if "torchscript" in str(error).lower():
            raise WeightsError(
                f"{path} is a TorchScript program, not weights: save its `state_dict()`"
            ) from None
        raise WeightsError(
            f"{path} is not a readable checkpoint, or is truncated: {_first_line(error)}. If it "
            "was fetched or copied, do so again"
        ) from error


def _names_in(path: Path, is_zip: bool) -> list[str]:
    """Return the names in a checkpoint's pickles. Their instructions are read, not followed.

    Raises WeightsError for a file that would run code, or keep its reader busy for hours.
    """
    names, nested, deepest, texts = set(), 0, 0, set()
    recent: list[str] = []
    for opcode, argument in _instructions(path, is_zip):
        nested = nested + 1 if opcode in ("TUPLE1", "MARK") else 0
        deepest = max(deepest, nested)
        if opcode == "GLOBAL":
            names.add(argument.replace(" ", "."))
        elif opcode == "STACK_GLOBAL":
            names.add(".".join(recent[-2:]))
        elif isinstance(argument, str):
            recent = [*recent[-1:], argument]
            if argument in _SLOW:
                texts.add(argument)
        if len(names) > _MOST_NAMES:
            raise WeightsError(f"{path} is refused: it names over {_MOST_NAMES} kinds of objects")
    _refuse_code(path, sorted(names))
    if deepest > _DEEPEST or texts or "builtins.bytearray" in names:
        raise WeightsError(f"{path} is refused: it is made to keep its reader busy")
    return sorted(names)


class _Bounded:
    """A file that never reads beyond its size, although an instruction may claim any length."""

    def __init__(self, file: BinaryIO, size: int):
        self.readline, self.tell = file.readline, file.tell
        self._file, self._size = file, size

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self._size - self._file.tell()))


def _instructions(path: Path, is_zip: bool) -> Iterator[tuple[str, Any]]:
    """Yield (name, argument) of each instruction of the pickles in a checkpoint."""
    with contextlib.ExitStack() as held:
        if is_zip:
            archive = held.enter_context(zipfile.ZipFile(path))
            pickles = [m for m in archive.infolist() if m.filename.endswith("data.pkl")]
            for member in pickles:
                member.CRC = None  # verified before, if there is one
            files: list[Any] = [held.enter_context(archive.open(member)) for member in pickles]
        else:  # several pickles in sequence, then the numbers
            file = held.enter_context(path.open("rb"))
            files = [_Bounded(file, path.stat().st_size)] * _OLD_PICKLES
        for file in files:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
                if count > _MOST_INSTRUCTIONS:
                    raise WeightsError(f"{path} is refused: no checkpoint has so long a list")
                yield opcode.name, argument


def _check_zip(path: Path) -> None:
    """Check the declared sizes and every checksum: nothing else would find a changed bit."""
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            size, unpacked = path.stat().st_size, sum(member.file_size for member in members)
            if unpacked > _UNPACKS_TO * size:
                raise WeightsError(
                    f"{path} is refused: its {size / 1e6:.1f} MB would unpack to "
                    f"{unpacked / 1e6:.0f} MB, but torch.save does not compress"
                )
            # torch does not read an entry marked as a folder, and uses uninitialised memory.
            if any(m.is_dir() or m.external_attr & 0x10 for m in members):
                raise WeightsError(f"{path} is damaged: a part of it is marked as a folder")
            # torch can be told to omit checksums; then all are 0.
            damaged = file.testzip() if any(member.CRC for member in members) else None
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise WeightsError(
            f"{path} is not a readable checkpoint, or is truncated: {_first_line(error)}"
        ) from None
    if damaged is not None:
        raise WeightsError(
            f"{path} is damaged: the checksum of {damaged!a} in it does not match. Fetch or copy "
            "it again"
        )


def _loaded(path: Path, names: list[str]) -> object:
    """Return the file's content, with stand-ins for these names and for further names that torch
    reports: for files that are not zips it reports one at a time."""
    kind: type = _Inert
    for _ in range(_MOST_NAMES):
        _refuse_code(path, names)
        stand_ins = [_stand_in(name, kind) for name in names]
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old protocols and types; only errors matter
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                name, said = _wanted(str(error)), str(error)
                if name and name not in names:
                    names = [*names, name]
                elif kind is _Inert and "SETITEM" in said:
                    kind = _InertMapping
                elif kind is _Inert and " lists" in said:
                    kind = _InertList
                else:
                    raise _not_skipped(path, said, names) from None
    raise WeightsError(f"{path} is refused: it names more than {_MOST_NAMES} kinds of objects")


def _wanted(said: str) -> str:
    """Return the name that torch's reader does not allow; torch omits `builtins`."""
    found = re.search(r"GLOBAL ([\w.]+)", said)
    return "" if not found else found[1] if "." in found[1] else f"builtins.{found[1]}"


def _refuse_code(path: Path, names: list[str]) -> None:
    for name in names:
        module, _, rest = name.partition(".")
        is_code = (
            rest in _BUILTINS if module in ("builtins", "__builtin__") else module in _RUNS_CODE
        )
        if is_code or name in _CALLS:
            raise WeightsError(
                f"{path} is refused: it would run code ({name[:100]}) if it were read in the usual "
                "way. No trainer stores that: do not use the file, fetch the publisher's own"
            )


def _not_skipped(path: Path, said: str, names: list[str]) -> WeightsError:
    if "Unsupported operand" in said:
        reason = "it was pickled with another protocol than torch.save's own"
    else:
        others = f" ({ascii(', '.join(names[:5]))[1:-1][:_SHOWN]})" if names else ""
        reason = f"objects beside its weights cannot be skipped{others}"
    return WeightsError(
        f"{path} is refused: {reason}. Save only its weights where it was made: "
        "`torch.save({'model': network.state_dict()}, FILE)`, or as safetensors"
    )


def _unpacked(stored: object, container: str, path: Path) -> dict[str, Tensor]:
    # Uses dict's own functions, because a file may give a dict attributes of their names.
    entries = dict(dict.items(stored)) if isinstance(stored, dict) else None
    for name in [container] if container else [*_CONTAINERS, ""]:
        found = entries.get(name) if name and entries is not None else stored
        tensors = dict(dict.items(found)) if isinstance(found, dict) else {}
        if tensors and all(isinstance(tensor, Tensor) for tensor in tensors.values()):
            strange = [key for key in tensors if not isinstance(key, str)]
            if strange:
                raise WeightsError(
                    f"{path} contains no named weights: {len(strange)} of its names are not "
                    f"strings, such as {strange[0]!a:.50}"
                )
            return tensors
        if name and tensors:  # skipping averaged weights would load other ones
            raise WeightsError(
                f"{path} has no plain weights under {name!r}, but {_kinds(tensors)}: save weights "
                "alone"
            )
    wanted = f"no weights under {container!r}" if container else "no weights"
    if entries is not None:
        names = [key if isinstance(key, str) else type(key).__name__ for key in entries]
        there = ascii(", ".join(names[:50]))[1:-1] or "nothing"
    elif isinstance(stored, _Inert):
        there = "a whole pickled network; save its `state_dict()`"
    elif isinstance(stored, Tensor):
        there = "a bare tensor; save a network's `state_dict()`"
    else:
        there = type(stored).__name__
    raise WeightsError(f"{path} contains {wanted}; it contains: {there[:_SHOWN]}")


def _kinds(tensors: Mapping[object, object]) -> str:
    others = {type(v).__name__ for v in tensors.values() if not isinstance(v, Tensor)}
    return f"{', '.join(sorted(others))} among them"


def _first_line(error: BaseException) -> str:
    said = str(error).strip().split("\n")[0] or type(error).__name__
    return ascii(said)[1:-1][:_SHOWN]
