"""Looking for trouble before any work: seconds now for hours later."""

from __future__ import annotations

import inspect
import io
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from nbformat.v4 import new_code_cell, new_notebook

from lib.paths import NOTEBOOKS, ROOT, shown
from lib.runner import within
from lib.runner.faults import FAULTS, Fault, disk_advice, is_disk_full
from lib.runner.kernel import KERNEL, Kernel
from lib.runner.memory import in_words
from lib.runner.progress import Progress
from lib.runner.steps import Step, literal
from lib.study import MissingInputs, Study

# Figures, tables, notebooks and kept scores of the whole study, twice, and some room.
_NEEDED = 200 * 2**20  # bytes


@dataclass(frozen=True)
class Problem:
    """What is wrong, and the command that mends it."""

    fault: Fault
    text: str


def problem(fault: str, text: str, *mends: str) -> Problem:
    return Problem(FAULTS[fault], "\n".join([text, *(f"    {mend}" for mend in mends)]))


def check(
    steps: Sequence[Step], values: Mapping[str, object], study: Study
) -> tuple[list[Problem], dict[str, str]]:
    """Everything that would stop the steps, and the environment in which they would run."""
    problems = [*_check_inputs(steps, study), *_check_disk(study)]
    if any(p.fault.key == "disk full" for p in problems):
        return problems, {}
    more, environment = _check_kernel(steps, values)
    return problems + more, environment


def _check_inputs(steps: Sequence[Step], study: Study) -> list[Problem]:
    problems = []
    try:
        study.require_inputs()
    except MissingInputs as error:
        problems.append(problem("missing files", str(error)))
    known = {path for paths in study.inputs().values() for path in paths}
    written: set[Path] = set()
    for step in steps:
        absent = [p for p in step.inputs(study) if p not in known | written and not p.is_file()]
        if absent:
            listed = ", ".join(map(shown, absent))
            text = f"{step.name} reads {listed}, which is not there"
            problems.append(problem("missing files", f"{text}; run what writes it before it"))
        written.update(step.outputs(study))
    return problems


def _check_disk(study: Study) -> list[Problem]:
    """Results can be written, and there is room for them."""
    problems = []
    for folder in (study.output, study.figures):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"0" * 4096)
                file.flush()
        except OSError as error:
            if is_disk_full(error):
                problems.append(problem("disk full", disk_advice([folder])))
            else:
                text = f"results cannot be written to {shown(folder)}: {error}"
                problems.append(problem("not ready", text, f"ls -ld {shlex.quote(str(folder))}"))
            continue
        if shutil.disk_usage(folder).free < _NEEDED:
            text = f"too little space for the results ({in_words(_NEEDED)} needed): "
            problems.append(problem("disk full", text + disk_advice([folder])))
    return problems


# --- the kernel -----------------------------------------------------------------------------


def _check_kernel(
    steps: Sequence[Step], values: Mapping[str, object]
) -> tuple[list[Problem], dict[str, str]]:
    """Start the kernel that the notebooks will have, and look at it from within."""
    register = f"{_python()} -m ipykernel install --sys-prefix --name {KERNEL}"
    try:
        spec = KernelSpecManager().get_kernel_spec(KERNEL)
    except NoSuchKernel:
        text = f"there is no Jupyter kernel {KERNEL!r}; make it:"
        return [problem("not ready", text, register)], {}
    report, failure = _ask_kernel(steps, values)
    if failure:
        text = f"the kernel {KERNEL!r} ({spec.resource_dir}) does not start: {failure}"
        return [problem("not ready", text, register)], {}
    if not _is_this_python(report):
        text = (
            f"the kernel {KERNEL!r} ({spec.resource_dir}) runs {report['executable']}, another "
            f"Python than this one, {sys.executable}; make one of this environment's own:"
        )
        return [problem("not ready", text, register)], {}
    return _problems_within(report), report.get("environment", {})


def _problems_within(report: Mapping) -> list[Problem]:
    install = f"{_python()} -m pip install -r {shlex.quote(str(ROOT / 'requirements.lock'))}"
    own = f"{_python()} -m pip install --no-deps -e {shlex.quote(str(ROOT))}"
    problems = [
        problem("not ready", f"the notebooks' `import {name}` fails: {error}", install, own)
        for name, error in report["errors"].items()
    ]
    found = report.get("lib")
    if found and Path(found).resolve() != (ROOT / "lib").resolve():
        text = f"the notebooks import `lib` from {found}, not from here; install this copy:"
        problems.append(problem("not ready", text, own))
    if "device" in report:
        problems.append(problem("wrong option", report["device"], "run_all.py … --device cpu"))
    return problems


def _python() -> str:
    return shlex.quote(sys.executable)


def _is_this_python(report: Mapping[str, str]) -> bool:
    return os.path.realpath(report["prefix"]) == os.path.realpath(sys.prefix)


def _ask_kernel(steps: Sequence[Step], values: Mapping[str, object]) -> tuple[dict, str]:
    """The kernel's report on itself, or why there is none."""
    modules = sorted({name for step in steps for name in step.imports()})
    # By its text: which `lib` the kernel imports is part of the question.
    source = inspect.getsource(within)
    cell = new_code_cell(f"{source}\n\nprint(report({modules!r}, {dict(values)!r}))")
    with tempfile.TemporaryDirectory(prefix="dcls-") as folder:
        kernel = Kernel(Progress(io.StringIO()), Path(folder, "kernel.log"))
        paths = Path(folder, "question.ipynb"), Path(folder, "answer.ipynb")
        nbformat.write(new_notebook(cells=[cell]), paths[0])
        try:
            answer = papermill.execute_notebook(
                *map(literal, paths), engine_name="study", kernel_name=KERNEL,
                progress_bar=False, cwd=str(NOTEBOOKS), kernel=kernel,
            )  # fmt: skip
            printed = [o.text for o in answer.cells[0].outputs if o.get("name") == "stdout"]
            return json.loads("".join(printed).splitlines()[-1]), ""
        except Exception as error:
            said = kernel.last_words()
            return {}, f"{type(error).__name__}: {error}" + (f"\n{said}" if said else "")
