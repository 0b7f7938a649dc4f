"""Reading HDF5 files from others: nothing outside the file is followed.

An HDF5 file may refer to other files by links, external storage and virtual arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..part import StoredError

T = TypeVar("T")

LARGEST = 2**31  # bytes of one unpacked array


def with_hdf5(path: Path, how: Callable[[Any], T]) -> T:
    """Open an HDF5 file and return what `how` makes of it.

    Raises StoredError, which names the file, for any problem with it.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return how(file)
    except StoredError as error:
        raise StoredError(f"{path}: {error}") from None
    except Exception as error:  # the library may raise anything for a damaged file
        raise StoredError(
            f"{path} is not a readable HDF5 file ({type(error).__name__}: {error}); fetch it again"
        ) from None


def member(group: Any, name: str) -> Any:
    """Return a group's array or group of this name. Raises StoredError."""
    import h5py

    link = group.get(name, getlink=True)
    if link is None:
        has = ascii(", ".join(sorted(group)[:20]))[1:-1] or "nothing"
        raise StoredError(f"lacks {name}; has {has}")
    if not isinstance(link, h5py.HardLink):
        raise StoredError(f"{name} is a link, which might lead to another file")
    return group[name]


def array(dataset: Any) -> np.ndarray:
    """Return an array's values. Raises StoredError if they lie elsewhere or are not an array."""
    if not hasattr(dataset, "dtype"):
        raise StoredError(f"{dataset.name} is a group, expected an array")
    if dataset.external or dataset.is_virtual:
        raise StoredError(f"{dataset.name} lies in another file")
    if dataset.size and dataset.size * dataset.dtype.itemsize > LARGEST:
        raise StoredError(f"{dataset.name} is larger than {LARGEST // 2**30} GiB")
    return np.asarray(dataset[()])


def is_reference(dataset: Any) -> bool:
    """Return whether an array refers to other arrays of its file."""
    import h5py

    return h5py.check_ref_dtype(dataset.dtype) is h5py.Reference


def text(value: object) -> str:
    """Return an attribute or element as text, in whichever way HDF5 stores it."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)
