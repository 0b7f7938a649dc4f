"""The public names of lib's rooms and doors, read from their text: nothing is imported."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from building.layout import ROOT

ROOMS = (
    "study", "work", "scores", "maps", "networks", "people", "analyses", "figures", "report",
    "explorer", "base",
)  # fmt: skip
INNER = (
    "analyses.faithfulness", "analyses.cose", "analyses.lcam", "maps.learned", "maps.pixel",
    "people.stored", "people.stored.layouts",
)  # fmt: skip
DOORS = (
    "backbones", "cam", "clickme", "dcls", "extension", "outputs", "spearman", "stored",
    "stored.check", "timm_variants",
)  # fmt: skip


def _file(module: str) -> Path:
    place = ROOT / module.replace(".", "/")
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text(encoding="utf-8"))


def words_of(module: str) -> str:
    """A module's docstring."""
    return ast.get_docstring(_tree(module)) or ""


def _package(module: str) -> str:
    return module if _file(module).name == "__init__.py" else module.rpartition(".")[0]


def _text(node: ast.expr, known: dict[str, str]) -> str:
    """What a name or an f-string of names is."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, known) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, known)
    return known[node.id] if isinstance(node, ast.Name) else ast.literal_eval(node)


@cache
def _lazy(module: str) -> dict[str, str]:
    """{name: the module that it is asked of} where names are imported on first use."""
    found: dict[str, str] = {}
    for node in ast.walk(_tree(module)):
        if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "lazy_loader.attach"):
            continue
        own = _text(node.args[0], {"__name__": module, "__package__": _package(module)})
        (rows,) = [word.value for word in node.keywords if word.arg == "submod_attrs"]
        for submodule, names in ast.literal_eval(rows).items():
            found |= dict.fromkeys(names, f"{own}.{submodule}")
    return found


@cache
def _imported(module: str) -> dict[str, str]:
    """{name: the module that it is imported from}, for imports within lib."""
    package, found = _package(module), {}
    for node in _tree(module).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = package.split(".")[: len(package.split(".")) - node.level + 1]
            own = ".".join([*parts, *([node.module] if node.module else [])])
            found |= {name.asname or name.name: own for name in node.names}
    return found


@cache
def _defined(module: str) -> dict[str, bool]:
    """{name that a module defines: whether its assignment is of several names at once}."""
    names, nodes = {}, list(_tree(module).body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If):
            nodes += node.body + node.orelse
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = False
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = False
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                several = isinstance(target, ast.Tuple)
                names |= {one.id: several for one in ast.walk(target) if isinstance(one, ast.Name)}
    return names


def is_one_of_several(full: str) -> bool:
    """Whether a constant is assigned together with others, which mkdocstrings does not see."""
    module, _, name = full.rpartition(".")
    return _defined(module)[name]


def home_of(module: str, name: str) -> str:
    """The full name of what a module calls `name`, where it is defined.

    Raises ValueError for a name that the module does not have.
    """
    if name in _defined(module):
        return f"{module}.{name}"
    for asked in (_lazy(module), _imported(module)):
        if name in asked:
            return home_of(asked[name], name)
    raise ValueError(f"{module} has no {name}")


def names_of(module: str) -> dict[str, str]:
    """{public name: its full name} of a room or a door, in its own order."""
    if names := _lazy(module):
        return {name: home_of(module, name) for name in names}
    for node in _tree(module).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return {name: home_of(module, name) for name in ast.literal_eval(node.value)}
    for name, origin in _imported(module).items():
        if name == "*":
            return names_of(origin)
    return {}


@cache
def all_names() -> dict[str, str]:
    """{public name: its full name} over every room and door; the first room's, where two differ."""
    found: dict[str, str] = {}
    for module in ("lib", *(f"lib.{one}" for one in (*ROOMS, *INNER, *DOORS))):
        found = names_of(module) | found
    return found
