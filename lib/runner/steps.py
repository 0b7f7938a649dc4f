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

import nbformat
import papermill
from IPython.core.inputtransformer2 import TransformerManager

from ..base.paths import NOTEBOOKS, ROOT, shown
from ..base.tables import unknown_name
from ..study.places import Places
from ..study.study import Study
from .faults import RunError

_CONTRACT = re.compile(r"\*\*Reads\*\*(?P<reads>.*)\*\*Writes\*\*(?P<writes>.*)", re.DOTALL)
_PYTHON = TransformerManager()  # makes Python of `%time` and `!ls`
_QUOTED = re.compile(r"`([^`]+)`")
_KINDS = {"str": str, "int": int, "float": (int, float), "list": list, "bool": bool, "dict": dict}
_REST = "options"  # the parameter that takes all values without one of their own


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
        modules: set[str] = set()
        for source in self.code:
            for node in ast.parse(_PYTHON.transform_cell(source)).body:
                if isinstance(node, ast.Import):
                    modules.update(name.name for name in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module:
                    modules.add(node.module)
        return sorted(modules)


def _place(template: str, places: Places) -> Path:
    return ROOT / template.replace("{profile}", places.name)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code cells that a reader of the source counts: not the injected parameters."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code"
        and cell.source.strip()
        and "injected-parameters" not in cell.metadata.get("tags", [])
    ]


def read_step(path: Path) -> Step:
    """What a notebook declares. Raises RunError naming the notebook and the mend."""

    def refused(reason: str) -> RunError:
        return RunError("wrong option", f"{shown(path)}: {reason}")

    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        raise refused(f"no valid notebook: {str(error).splitlines()[0]}") from None
    except (ValueError, AttributeError, KeyError, TypeError, OSError, RecursionError) as error:
        raise refused(f"no readable notebook: {type(error).__name__}: {error}") from None
    cells = notebook.cells
    tagged = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise refused(f"{len(tagged)} cells are tagged 'parameters', one must be")
    language = notebook.metadata.get("kernelspec", {}).get("language", "python")
    if language != "python":
        raise refused(f"its kernel's language is {language}; the study's notebooks are Python's")
    second = cells[1] if len(cells) > 1 else tagged[0]
    contract = _CONTRACT.search(second.source) if second.cell_type == "markdown" else None
    if not contract:
        raise refused("its second cell must be text that says what it **Reads** and **Writes**")
    try:
        parameters = papermill.inspect_notebook(literal(path))
    except ValueError as error:
        raise refused(f"papermill cannot read its parameters: {error}") from None
    step = Step(
        path,
        {name: p["inferred_type_name"].split("[")[0] for name, p in parameters.items()},
        tuple(posixpath.normpath(read) for read in _QUOTED.findall(contract["reads"])),
        tuple(posixpath.normpath(write) for write in _QUOTED.findall(contract["writes"])),
        contract["writes"].rpartition("`")[2].strip(" ·\n"),
        tuple(cell.source for cell in code_cells(notebook)),
    )
    if any(path.startswith("..") for path in step.reads + step.writes):
        raise refused("what it reads and writes must lie in the project's folder")
    try:
        step.imports()
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise refused(f"a code cell is no Python: {error.msg}: {line}") from None
    return step


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
