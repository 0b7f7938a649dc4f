"""What the numbered notebooks declare: parameters, what they read, what they write.

The second cell of a notebook is its contract, for readers and for the runner:

    **Reads** `images` · `weights` · **Writes** `figures/{profile}/map.png` · seconds

Reads are names of `Inputs.files` or paths; writes are paths, from the project's folder
on. `{profile}` stands for the run's name (`Places.name`). What follows is the time it takes.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..base.paths import NOTEBOOKS, ROOT, shown
from ..base.stored_json import TEXT, DamagedJson, mapping, read_json
from ..base.tables import unknown_name
from ..study.places import Places
from ..study.study import Study
from .faults import RunError

_CONTRACT = re.compile(r"\*\*Reads\*\*(?P<reads>.*)\*\*Writes\*\*(?P<writes>.*)", re.DOTALL)
_QUOTED = re.compile(r"`([^`]+)`")
_KINDS = {"str": str, "int": int, "float": (int, float), "list": list, "bool": bool, "dict": dict}
_REST = "options"  # the parameter that takes all values without one of their own
# As much of a notebook as is read here: nbformat, which checks all of it before a run, takes long
# to be imported.
_LINES = {"anyOf": [TEXT, {"type": "array", "items": TEXT}]}
_METADATA = {"type": "object", "properties": {"tags": {"type": "array", "items": TEXT}}}
_CELL = mapping({"cell_type": TEXT, "metadata": _METADATA, "source": _LINES})
_NOTEBOOK = mapping(
    {"nbformat": {"const": 4}, "cells": {"type": "array", "items": _CELL}},
    {"metadata": {"type": "object", "properties": {"kernelspec": {"type": "object"}}}},
)
_SECONDS = {"second": 1, "minute": 60, "hour": 3600}
_NUMBERS = {
    "half an": 0.5, "half a": 0.5, "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4,
    "five": 5,
}  # fmt: skip
_COST = re.compile(rf"(?:({'|'.join(_NUMBERS)}|\d+) )?({'|'.join(_SECONDS)})s?\b")


@dataclass(frozen=True)
class Step:
    """A notebook and its declarations.

    parameters : {name: declared type}
    cost       : how long it says that it takes
    code       : the sources of its code cells
    """

    path: Path
    parameters: Mapping[str, str]
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    cost: str = ""
    code: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def number(self) -> str:
        """ "04b" of 04b_controls."""
        return self.name.split("_")[0]

    def inputs(self, study: Study) -> list[Path]:
        """The files it reads. Raises RunError for a name that is neither input nor path."""
        named = study.inputs.files()
        paths: list[Path] = []
        for read in self.reads:
            if read in named:
                paths += named[read]
            elif "/" in read:
                place = _place(read, study.places)
                inside = sorted(p for p in place.rglob("*") if p.is_file())
                paths += inside if place.is_dir() else [place]
            else:
                error = unknown_name(
                    "input", read, [*named, "or a path from the project's folder on"]
                )
                raise RunError("wrong option", f"{self.name} declares that it reads: {error}")
        return paths

    def outputs(self, places: Places) -> list[Path]:
        return [_place(template, places) for template in self.writes]

    def bound(self, values: Mapping[str, object]) -> dict[str, object]:
        """The values as its parameters take them: by name, the others together as `options`."""
        own = {name: value for name, value in values.items() if name in self.parameters}
        rest = {name: value for name, value in values.items() if name not in own}
        return own | ({_REST: rest} if _REST in self.parameters and rest else {})

    def needed(self, writes: Iterable[str]) -> list[str]:
        """Those of other steps' declared writes that it reads, by themselves or in a folder."""
        return [
            write
            for write in writes
            if any("/" in read and PurePosixPath(write).is_relative_to(read) for read in self.reads)
        ]

    def imports(self) -> list[str]:
        """Every module that its cells import in any case: not in a `try`, not in a function."""
        return sorted({module for module, _ in self.imported_names()})

    def imported_names(self) -> list[tuple[str, str]]:
        """`imports`, each with every name that is imported from it; "" for the module itself."""
        found: set[tuple[str, str]] = set()
        for source in self.code:
            for node in _parsed(source).body:
                if isinstance(node, ast.Import):
                    found.update((name.name, "") for name in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.update((node.module, name.name) for name in node.names)
        return sorted(found)

    @property
    def declared_seconds(self) -> float:
        """About how long it says that it takes: "half a minute on the demo" is 30, "seconds" 5."""
        found = _COST.search(self.cost)
        if not found:
            return 60.0
        number, unit = found.groups()
        return float(_NUMBERS.get(number or "five", number or 5)) * _SECONDS[unit]


def _parsed(source: str) -> ast.Module:
    """A cell's code; `%time` and `!ls` as IPython understands them."""
    try:
        return ast.parse(source)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager  # takes long to be imported

        return ast.parse(TransformerManager().transform_cell(source))


def _place(template: str, places: Places) -> Path:
    return ROOT / template.replace("{profile}", places.name)


def source_of(cell: Mapping) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def code_cells(notebook: Mapping) -> list:
    """The code cells that a reader of the source counts: not the injected parameters."""
    return [
        cell
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
        and source_of(cell).strip()
        and "injected-parameters" not in cell["metadata"].get("tags", [])
    ]


def read_step(path: Path) -> Step:
    """What a notebook declares. Raises RunError naming the notebook and the mend."""

    def refused(reason: str) -> RunError:
        return RunError("wrong option", f"{shown(path)}: {reason}")

    try:
        notebook = read_json(path, _NOTEBOOK)
    except DamagedJson as error:
        raise refused(f"no readable notebook: {error}") from None
    except OSError as error:
        raise refused(f"no readable notebook: {type(error).__name__}: {error}") from None
    cells = notebook["cells"]
    tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise refused(f"{len(tagged)} cells are tagged 'parameters', one must be")
    kernel = notebook.get("metadata", {}).get("kernelspec", {})
    if kernel.get("language", "python") != "python":
        raise refused(
            f"its kernel's language is {kernel['language']}; the study's notebooks are Python's"
        )
    second = cells[1] if len(cells) > 1 else tagged[0]
    is_text = second["cell_type"] == "markdown"
    contract = _CONTRACT.search(source_of(second)) if is_text else None
    if not contract:
        raise refused("its second cell must be text that says what it **Reads** and **Writes**")
    try:
        step = Step(
            path,
            _parameters(source_of(tagged[0])),
            tuple(posixpath.normpath(read) for read in _QUOTED.findall(contract["reads"])),
            tuple(posixpath.normpath(write) for write in _QUOTED.findall(contract["writes"])),
            contract["writes"].rpartition("`")[2].strip(" ·\n"),
            tuple(source_of(cell) for cell in code_cells(notebook)),
        )
        step.imports()
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise refused(f"a code cell is no Python: {error.msg}: {line}") from None
    if any(path.startswith("..") for path in step.reads + step.writes):
        raise refused("what it reads and writes must lie in the project's folder")
    return step


def _parameters(source: str) -> dict[str, str]:
    """{name: its declared type, "None" without one}, of the cell that sets them."""
    found: dict[str, str] = {}
    for node in _parsed(source).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = ast.unparse(node.annotation).split("[")[0]
        elif isinstance(node, ast.Assign):
            found |= {name.id: "None" for name in node.targets if isinstance(name, ast.Name)}
    return found


def literal(path: Path) -> str:
    """The path for papermill, which takes braces in it for placeholders."""
    return str(path).replace("{", "{{").replace("}", "}}")


def find_steps(folder: Path = NOTEBOOKS) -> list[Step]:
    """The numbered notebooks, in order. Raises RunError for two that write the same file."""
    steps = [read_step(path) for path in sorted(folder.glob("[0-9][0-9]*_*.ipynb"))]
    if not steps:
        raise RunError("wrong option", f"{shown(folder)} holds no numbered notebook")
    writer: dict[str, Step] = {}
    for step in steps:
        for path in step.writes:
            if writer.setdefault(path, step) is not step:
                raise RunError(
                    "wrong option", f"{step.name} and {writer[path].name} both write {path}"
                )
    return steps


def select_steps(
    steps: Sequence[Step],
    only: Sequence[str],
    first: str = "",
    takes: Callable[[str], bool] = lambda number: True,
) -> list[Step]:
    """Those named by number ("04", "4", "04b") or name ("04_scoring"); for none all that a whole
    run takes.

    first : the notebook to begin with; "" for the first
    takes : whether a whole run has the notebook of a number
    """
    names: dict[str, list[str]] = {}
    for step in steps:
        for name in {step.number, step.number.lstrip("0"), step.name}:
            names.setdefault(name, []).append(step.name)
    for name in (*only, *([first] if first else [])):
        if name not in names:
            raise unknown_name("notebook", name, [s.name for s in steps])
    wanted = {full for name in only for full in names[name]}
    begin = names[first][0] if first else ""
    return [
        step
        for step in steps
        if (step.name in wanted if wanted else takes(step.number)) and step.name >= begin
    ]


def check_parameters(steps: Sequence[Step], values: Mapping[str, object]) -> None:
    """Every value must be a parameter of every step and of its declared type, or an option.

    papermill itself only warns of an unknown name, passes any type, and turns what it
    does not know into text. Raises UnknownName, and RunError for a type.
    """
    for step in steps:
        for name, value in values.items():
            if name not in step.parameters:
                if _REST in step.parameters:
                    continue
                known = [*step.parameters, f"and `{_REST}: dict = {{}}` would take all others"]
                raise unknown_name(f"parameter of {step.name}", name, known)
            declared = step.parameters[name]
            if declared not in _KINDS:
                problem = f"declares {name}: {declared}; none of {', '.join(_KINDS)}"
            elif not isinstance(value, _KINDS[declared]) or (
                isinstance(value, bool) and declared != "bool"
            ):
                problem = f"wants {name}: {declared}, got {value!r}"
            elif declared == "list" and not all(isinstance(v, str | int | float) for v in value):
                problem = f"wants a list of texts or numbers as {name}, got {value!r}"
            else:
                continue
            raise RunError("wrong option", f"{step.name} {problem}")
