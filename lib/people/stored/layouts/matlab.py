"""Reading MATLAB files of version 5 (`-v6`, `-v7`) and of version 7.3 into plain values.

| in MATLAB | here |
|---|---|
| numbers, logical | array, with MATLAB's shape |
| char | str |
| cell | list, column by column |
| struct, struct array | list of dict, column by column; a single struct is a list of one |

No code in a file is run; objects of MATLAB classes are refused.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..part import StoredError
from .hdf5 import array, is_reference, member, text, with_hdf5
from .reading import require_within, shown

_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_AT = 512  # bytes of MATLAB's own header before it
_HEADER, _ORDERS = 128, (b"IM", b"MI")
_OBJECT = "an object of a MATLAB class, such as containers.Map, which only MATLAB can read"


def read_mat(folder: Path, path: Path, name: str | None = None) -> Any:
    """Return one variable of a MATLAB file.

    name : None for the only variable

    Raises StoredError, which names the file and says what to do.
    """
    require_within(folder, path)
    try:
        with path.open("rb") as file:
            head = file.read(_HDF5_AT + len(_HDF5))
    except OSError as error:
        raise StoredError(f"{path} cannot be read: {error.strerror}") from None
    if _HDF5 in (head[_HDF5_AT:], head[: len(_HDF5)]):
        return with_hdf5(path, lambda file: _newer(file, name))
    if head[_HEADER - 2 : _HEADER] not in _ORDERS:
        raise StoredError(
            f"{path} is not a MATLAB file of version 5 or 7.3: fetch it again, or save it again in "
            "MATLAB or Octave (save -v7)"
        )
    try:
        return _older(path, name)
    except StoredError as error:
        raise StoredError(f"{path}: {error}") from None
    except Exception as error:  # the reader may raise anything for a damaged file
        raise StoredError(
            f"{path} is not a readable MATLAB file ({type(error).__name__}: {shown(error)}); "
            "fetch it again"
        ) from None


def structs(value: Any) -> Iterator[dict[str, Any] | None]:
    """Yield the elements of a struct array, or of a cell array of structs; None for an empty one.

    Raises ValueError for anything else.
    """
    if not isinstance(value, list):
        raise ValueError(f"expected structs, found {_kind(value)}")
    for each in value:
        if isinstance(each, dict):
            yield each
        elif isinstance(each, list) and len(each) == 1 and isinstance(each[0], dict):
            yield each[0]
        elif isinstance(each, list | np.ndarray) and not len(each):
            yield None
        else:
            raise ValueError(f"expected structs, found {_kind(each)}")


def entry(struct: dict[str, Any], *names: str) -> Any:
    """Return a struct's field; further names are fields of the structs in it. Raises ValueError."""
    value: Any = struct
    for name in names:
        if isinstance(value, list):
            value = next(structs(value), None)
        if not isinstance(value, dict) or name not in value:
            has = ", ".join(value) if isinstance(value, dict) else _kind(value)
            raise ValueError(f"lacks the field {name}; has {shown(has)}")
        value = value[name]
    return value


def numbers(struct: dict[str, Any], *names: str) -> np.ndarray:
    """Return a field that contains numbers, as float64. Raises ValueError."""
    value = entry(struct, *names)
    if isinstance(value, list) and not value:
        value = np.zeros((0, 0))
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{'.'.join(names)} is {_kind(value)}, expected numbers")
    return value.astype(np.float64)


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"numbers {value.shape}"
    if isinstance(value, list):
        return "a struct" if value and isinstance(value[0], dict) else f"a cell of {len(value)}"
    return "text" if isinstance(value, str) else type(value).__name__


def _the_one(names: list[str], name: str | None) -> str:
    if name is None and len(names) == 1:
        return names[0]
    if name is None or name not in names:
        has = shown(", ".join(names[:20])) or "none"
        raise StoredError(
            f"needs the variable {name}; has {has}" if name else f"expected one variable; has {has}"
        )
    return name


# --- version 5 ----------------------------------------------------------------------------


# scipy's reader crashes the process on some damaged files, so another process tries each first.
_TRYING = """
import json, sys, warnings
from scipy.io import loadmat
warnings.simplefilter("ignore")
for line in sys.stdin:
    try:
        loadmat(json.loads(line), appendmat=False)
    except Exception:
        pass  # reading it reports the error
    print("survived", flush=True)
"""


class _Trial:
    """A process that reads files first; it is started when needed, and again after a crash."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None

    def survives(self, path: Path) -> bool:
        """Return whether the process survives reading the file."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _TRYING], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, text=True, encoding="utf-8",
            )  # fmt: skip
            atexit.register(_end, self._process)
        try:
            self._process.stdin.write(json.dumps(str(path.absolute())) + "\n")
            self._process.stdin.flush()
            return self._process.stdout.readline() == "survived\n"
        except BrokenPipeError:
            return False


def _end(process: subprocess.Popen) -> None:
    process.kill()
    with process:  # closes its pipes and waits for it
        pass


_trial = _Trial()


def _older(path: Path, name: str | None) -> Any:
    from scipy.io import loadmat

    if not _trial.survives(path):
        raise StoredError("it crashes the program that reads it, so it is damaged; fetch it again")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about variables that appear twice
        found = loadmat(str(path), appendmat=False, variable_names=None if name is None else [name])
        if name is not None and name not in found:
            found = loadmat(str(path), appendmat=False)
    kept = {key: value for key, value in found.items() if not key.startswith("__")}
    if "None" in kept and name != "None":
        raise StoredError(f"contains {_OBJECT}")  # it is stored without a name
    return _plain(kept[_the_one([*kept], name)])


def _plain(value: Any) -> Any:
    if hasattr(value, "toarray"):
        value = value.toarray()
    if not isinstance(value, np.ndarray) or type(value).__name__.startswith("Matlab"):
        raise StoredError(f"contains {_OBJECT}")
    if value.dtype.names:
        return [
            {name: _plain(each[name]) for name in value.dtype.names}
            for each in value.ravel(order="F")
        ]
    if value.dtype == object:
        return [_plain(each) for each in value.ravel(order="F")]
    if value.dtype.kind == "U":
        return "\n".join(str(row) for row in value.ravel())
    if value.dtype.kind in "biuf":
        return value
    raise StoredError(f"contains values of the kind {value.dtype}, which no data set needs")


# --- version 7.3 --------------------------------------------------------------------------


def _newer(file: Any, name: str | None) -> Any:
    names = [key for key in file if not key.startswith("#")]
    return _node(file, member(file, _the_one(names, name)))


def _node(file: Any, node: Any) -> Any:
    kind = text(node.attrs.get("MATLAB_class", ""))
    if "MATLAB_object_decode" in node.attrs or kind == "function_handle":
        raise StoredError(f"contains {_OBJECT}")
    if hasattr(node, "keys"):
        return _struct(file, node)
    if node.attrs.get("MATLAB_empty"):
        return {"char": "", "cell": [], "struct": []}.get(kind, np.zeros((0, 0)))
    values = array(node)
    if is_reference(node):
        return [_node(file, file[reference]) for reference in values.ravel()]
    if kind == "char":
        return "".join(map(chr, values.ravel().tolist()))
    if values.dtype.kind not in "biuf":
        raise StoredError(f"contains values of the kind {values.dtype}, which no data set needs")
    return values.T


def _struct(file: Any, group: Any) -> list[dict[str, Any]]:
    fields = {name: member(group, name) for name in group}
    # Each field of a struct array refers to its values; a cell does so too, and states its class.
    pointing = [
        hasattr(each, "dtype") and is_reference(each) and "MATLAB_class" not in each.attrs
        for each in fields.values()
    ]
    if not all(pointing):
        return [{name: _node(file, each) for name, each in fields.items()}]
    columns = {
        name: [_node(file, file[reference]) for reference in array(each).ravel()]
        for name, each in fields.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
