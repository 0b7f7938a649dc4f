"""Plug-ins: installed packages that add models, methods, data sets and measures by entry points.

An entry point of a group below is a function without parameters that calls `add_model`,
`add_comparison`, `add_method`, `add_layout` or `add_measure`. No plug-in is imported before a
study asks for measures, or for a name that no table has; see docs/plug-ins.md.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from ..base.fingerprint import sha256_of
from ..base.paths import NAME
from ..base.tables import Table
from ..maps.methods import METHODS
from ..networks.backbones import BACKBONES
from ..networks.sources import WEIGHTS
from ..people.stored import PLAIN
from ..people.stored.layouts import LAYOUTS
from .comparisons import COMPARISONS
from .extension import ExtensionError, rows_added_by

VARIABLE = "DCLS_ALIGNMENT_PLUG_INS"  # names of packages, separated by commas; "none" for none
MODELS, METHODS_, DATA_SETS, MEASURES = GROUPS = ("models", "methods", "data_sets", "measures")
_TABLES: dict[str, tuple[Table, ...]] = {
    MODELS: (BACKBONES, WEIGHTS, COMPARISONS),
    METHODS_: (METHODS,),
    DATA_SETS: (LAYOUTS,),
}
_ELSEWHERE = {table.kind for tables in _TABLES.values() for table in tables}

loaded: dict[EntryPoint, str] = {}  # with the hash that is the origin of its rows


class PlugInError(ExtensionError):
    """The error for a plug-in that cannot be imported, fails, or adds rows of another group."""


def found(*groups: str) -> list[EntryPoint]:
    """Return the entry points of these groups (all groups if none are named), sorted by package;
    those that the environment variable excludes are omitted."""
    points = {p for group in groups or GROUPS for p in entry_points(group=f"{NAME}.{group}")}
    wanted = os.environ.get(VARIABLE)
    if wanted is not None:
        names = {_plain(name) for name in wanted.split(",")}
        points = {p for p in points if _plain(_package(p)[0]) in names}
    return sorted(points, key=lambda p: (*_package(p), p.group, p.name))


def load_plug_ins(*groups: str) -> None:
    """Add the rows of plug-ins of these groups (all groups if none are named), once per process.

    Raises PlugInError, which names package and entry point.
    """
    for point in found(*groups):
        if point not in loaded:
            loaded[point] = _load(point)


def load_asked(models: Iterable = (), methods: Iterable = (), layout: str | None = None) -> None:
    """Load plug-ins if a name is in no table yet.

    layout : the layout of a folder of images, "" to recognise it; None without a folder
    """
    if any(map(_is_unknown, _texts(models))):
        load_plug_ins(MODELS)
    if any(name not in METHODS for name in _texts(methods)):
        load_plug_ins(METHODS_)
    if layout is not None and layout not in (*PLAIN, *LAYOUTS):
        load_plug_ins(DATA_SETS)


def plug_in_origins(rows: Iterable) -> set[str]:
    """Return the origins of those of these rows that plug-ins added."""
    return {getattr(row, "origin", "") for row in rows} & set(loaded.values())


def plug_ins_used(rows: Iterable) -> Mapping[str, str]:
    """Return {package: version} of the plug-ins that added these rows."""
    asked = plug_in_origins(rows)
    return dict(_package(point) for point, origin in loaded.items() if origin in asked)


def plug_in_files(rows: Iterable) -> list[Path]:
    """Return the Python files of plug-ins that added these rows, and of all that add measures."""
    asked = plug_in_origins(rows)
    points = [point for point, origin in loaded.items() if origin in asked]
    return sorted({file for point in (*points, *found(MEASURES)) for file in _files(point)})


def _texts(names: Iterable) -> list[str]:
    """Return the names, without rows; () for a text instead of a list, which is refused later."""
    return [] if isinstance(names, str) else [name for name in names if isinstance(name, str)]


def _is_unknown(name: str) -> bool:
    base = name.partition("@")[0].removeprefix("untrained:")
    return not (base.startswith("timm:") or base.removesuffix("_dcls") in BACKBONES)


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def _package(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("a package", "unknown")


def _load(point: EntryPoint) -> str:
    name, version = _package(point)
    said = f"the plug-in {name} {version}, {point.group}: {point.name} = {point.value},"
    instead = f"; to run without plug-ins: {VARIABLE}=none"
    try:
        origin = hashlib.sha256(f"{name} {version} ".encode())
        for file in _files(point):
            origin.update(sha256_of(file).encode())
        function = point.load()
        if not callable(function):
            raise TypeError(f"{point.value} is not a function")
        place = Path(getattr(sys.modules[point.module], "__file__", None) or ".")
        with rows_added_by(place, origin.hexdigest()) as added:
            function()
            _check(point, [table for table, _ in added])
    except (Exception, SystemExit) as error:  # another package may raise anything
        raise PlugInError(f"{said} fails: {type(error).__name__}: {error}{instead}") from error
    return origin.hexdigest()


def _check(point: EntryPoint, added: list[Table]) -> None:
    group = point.group.removeprefix(f"{NAME}.")
    if not added:
        raise ValueError("it adds nothing")
    for table in added:
        known = _TABLES.get(group)
        if table not in known if known else table.kind in _ELSEWHERE:
            raise ValueError(
                f"it adds a {table.kind}, but belongs to the group {point.group}: each group adds "
                "its own kind of rows"
            )


def _files(point: EntryPoint) -> list[Path]:
    """Return the Python files of an entry point's outermost package, or of its module."""
    parts = point.module.split(".")
    for number in range(len(parts)):
        try:
            spec = find_spec(".".join(parts[: number + 1]))
        except (ImportError, ValueError):
            return []  # loading reports the error
        if spec is None:
            return []
        if spec.has_location and spec.origin:  # a namespace has none
            if spec.submodule_search_locations is None:
                return [Path(spec.origin)]
            return sorted(p for d in spec.submodule_search_locations for p in Path(d).rglob("*.py"))
    return []
