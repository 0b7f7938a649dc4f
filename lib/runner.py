"""Running the numbered notebooks through papermill and judging what came of it.

A notebook declares its parameters in the cell tagged `parameters` and, in its
second cell, what it writes: every `back-quoted` path after **Writes**, relative to
the project, `{profile}` standing for the run's name (`Study.name`). A notebook has succeeded
only if it returned, every code cell completed, and every declared file was written
by this very run.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # before jupyter looks for kernels

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from nbclient.exceptions import DeadKernelError
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from lib.outputs import write_atomically
from lib.paths import NOTEBOOKS, ROOT, shown
from lib.progress import Progress
from lib.tables import unknown_name

KERNEL = "python3"
_DECLARATION = re.compile(r"\*\*Writes\*\*(.*?)(?:\*\*|\Z)", re.DOTALL)


class RunnerError(RuntimeError):
    """Something that stops the run before a notebook is started."""


@dataclass(frozen=True)
class Step:
    """A notebook: its path, its parameters' types, the files it says it writes."""

    path: Path
    parameters: Mapping[str, str]
    writes: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.path.stem

    def outputs(self, run_name: str) -> list[Path]:
        return [ROOT / template.format(profile=run_name) for template in self.writes]


@dataclass
class Outcome:
    """What came of a step; `detail` says why it failed."""

    notebook: str
    status: str
    seconds: float
    outputs: list[str] = field(default_factory=list)
    detail: str = ""


def read_step(path: Path) -> Step:
    """What a notebook declares. Raises RunnerError naming the notebook and the mend."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except (ValueError, nbformat.reader.NotJSONError) as error:
        raise RunnerError(f"{path} is no readable notebook: {error}") from None
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise RunnerError(f"{path}: {len(tagged)} cells are tagged 'parameters', one must be")
    second = notebook.cells[1] if len(notebook.cells) > 1 else tagged[0]
    found = _DECLARATION.search(second.source)
    if second.cell_type != "markdown" or not found:
        raise RunnerError(f"{path}: its second cell must be text that says what it **Writes**")
    parameters = papermill.inspect_notebook(str(path))
    types = {name: p["inferred_type_name"].split("[")[0] for name, p in parameters.items()}
    return Step(path, types, tuple(re.findall(r"`([^`]+)`", found.group(1))))


def find_steps(folder: Path = NOTEBOOKS) -> list[Step]:
    """The numbered notebooks, in order."""
    return [read_step(path) for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))]


def select_steps(steps: Sequence[Step], only: Sequence[str]) -> list[Step]:
    """Those named by number ("04", "4") or name ("04_scoring"); all for none."""
    known: dict[str, Step] = {}
    for step in steps:
        number = step.name[:2]
        known.update({number: step, str(int(number)): step, step.name: step})
    for name in only:
        if name not in known:
            raise unknown_name("notebook", name, [s.name for s in steps])
    wanted = {known[name].name for name in only}
    return [step for step in steps if not wanted or step.name in wanted]


def check_parameters(steps: Sequence[Step], values: Mapping[str, object]) -> None:
    """Every value must be a parameter of every step, and of its declared type.

    papermill itself only warns of an unknown name and passes any type.
    """
    kinds = {"str": str, "int": int, "float": (int, float), "list": list, "bool": bool}
    for step in steps:
        for name, value in values.items():
            if name not in step.parameters:
                raise unknown_name(f"parameter of {step.name}", name, step.parameters)
            declared = step.parameters[name]
            if declared not in kinds:
                raise RunnerError(
                    f"{step.name} declares {name}: {declared}; none of {', '.join(kinds)}"
                )
            if not isinstance(value, kinds[declared]) or (
                isinstance(value, bool) and declared != "bool"
            ):
                raise RunnerError(f"{step.name} wants {name}: {declared}, got {value!r}")


def check_kernel() -> None:
    """The notebooks' kernel must run in this very environment."""
    mend = f"{sys.executable} -m ipykernel install --sys-prefix --name {KERNEL}"
    try:
        command = KernelSpecManager().get_kernel_spec(KERNEL).argv[0]
    except NoSuchKernel:
        raise RunnerError(f"there is no Jupyter kernel {KERNEL!r}; make it: {mend}") from None
    # A bare "python" is replaced by the running interpreter when the kernel starts. Folders
    # are compared, not what links point to: all environments share their base interpreter.
    if (
        os.sep in command
        and Path(command).parent.resolve() != Path(sys.executable).parent.resolve()
    ):
        raise RunnerError(f"the kernel {KERNEL!r} runs {command}, another Python; mend it: {mend}")


class _ReportingEngine(NBClientEngine):
    """papermill's own engine; `stderr_file`, a `Progress`, also hears which cell has begun."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, stderr_file: Progress, **kwargs):
        code_cells = [c for c in nb_man.nb.cells if c.cell_type == "code"]
        begin = nb_man.cell_start

        def cell_start(cell, cell_index=None, **options):
            if cell.cell_type == "code":
                position = next(i for i, c in enumerate(code_cells, 1) if c is cell)
                stderr_file.cell(position, len(code_cells), cell.source)
            return begin(cell, cell_index, **options)

        nb_man.cell_start = cell_start
        # Sockets in a folder of this run's own rather than TCP ports: nobody else can listen,
        # and two runs cannot clash. Windows has none; the name must be short.
        with tempfile.TemporaryDirectory(prefix="dcls-") as sockets:
            files = {"transport": "ipc", "ip": f"{sockets}/kernel"}
            config = Config({} if sys.platform == "win32" else {"KernelManager": files})
            super().execute_managed_notebook(
                nb_man,
                kernel_name,
                stderr_file=stderr_file,
                coalesce_streams=True,
                config=config,
                **kwargs,
            )


papermill_engines.register("study", _ReportingEngine)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino


def _incomplete_cells(notebook: nbformat.NotebookNode) -> list[int]:
    """Positions among the code cells (from 1) of those that did not complete."""
    code_cells = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    return [
        position
        for position, cell in enumerate(code_cells, 1)
        if cell.metadata.get("papermill", {}).get("status") != "completed"
        or cell.execution_count is None
    ]


def run_step(
    step: Step, values: Mapping[str, object], run_name: str, folder: Path, progress: Progress
) -> Outcome:
    """Execute one notebook in a fresh kernel; a failure is an outcome, not an exception.

    The executed notebook appears in `folder` under its name on success, and as
    `*.failed.ipynb` otherwise; a good one of before is then left alone. Raises
    KeyboardInterrupt only, after the kernel has ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    running = folder / f".{step.name}.running.ipynb"
    expected = step.outputs(run_name)
    before = {path: _stamp(path) for path in expected}
    started = time.monotonic()
    failure = ""
    try:
        notebook = papermill.execute_notebook(
            str(step.path), str(running), dict(values), engine_name="study", kernel_name=KERNEL,
            progress_bar=False, cwd=str(step.path.parent), start_timeout=180, stderr_file=progress,
        )  # fmt: skip
        incomplete = _incomplete_cells(notebook)
        absent = [path for path in expected if _stamp(path) in (None, before[path])]
        if incomplete:
            failure = f"code cells {incomplete} did not complete, though no error was raised"
        elif absent:
            listed = ", ".join(shown(path) for path in absent)
            failure = f"it ended, but did not write what it declares: {listed}"
    except PapermillExecutionError as error:
        failure = (
            f"cell {error.exec_count} raised {error.ename}: {error.evalue}\n\n"
            f"{_indent(error.source)}"
        )
    except DeadKernelError:
        failure = (
            f"its kernel died in {progress.where}. The usual cause is too little memory: "
            "try a smaller --batch-size, or a --limit"
        )
    except Exception as error:  # the kernel could not be started, the disk is full, …
        failure = f"it could not be run: {type(error).__name__}: {error}"
    finally:
        seconds = time.monotonic() - started
        succeeded = not failure and sys.exc_info()[0] is None
        final = folder / f"{step.name}{'' if succeeded else '.failed'}.ipynb"
        if running.exists():
            running.replace(final)
    if failure:
        where = f"\n  see {shown(final)}" if final.exists() else ""
        return Outcome(step.name, "failed", seconds, [], f"{failure}{where}")
    (folder / f"{step.name}.failed.ipynb").unlink(missing_ok=True)
    return Outcome(step.name, "ok", seconds, [shown(path) for path in (*expected, final)])


def _indent(source: str) -> str:
    return "\n".join(f"    {line}" for line in source.splitlines())


def run_steps(
    steps: Sequence[Step],
    values: Mapping[str, object],
    run_name: str,
    output: Path,
    progress: Progress,
) -> list[Outcome]:
    """Execute the steps in order; those after a failed or interrupted one are not run.

    Writes what came of it to `run.json`, also when interrupted.
    """
    outcomes = [Outcome(step.name, "not run", 0.0) for step in steps]
    try:
        for number, step in enumerate(steps, 1):
            progress.begin(step.name, number, len(steps))
            started = time.monotonic()
            outcome = None
            try:
                outcome = run_step(step, values, run_name, output / "notebooks", progress)
            finally:
                outcome = outcome or Outcome(step.name, "interrupted", time.monotonic() - started)
                outcomes[number - 1] = outcome
                progress.end(outcome.status, outcome.seconds, outcome.detail)
            if outcome.status != "ok":
                break
    finally:
        facts = {"parameters": dict(values), "notebooks": [asdict(o) for o in outcomes]}
        with write_atomically(output / "run.json") as partial:
            partial.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return outcomes


def closing_table(outcomes: Sequence[Outcome]) -> str:
    """The run at a glance: notebook, status, seconds, number of outputs."""
    width = max(len(o.notebook) for o in outcomes)
    lines = [f"{'notebook':<{width}}  {'status':<8} {'seconds':>8}  outputs"]
    for o in outcomes:
        first, *others = o.outputs or [""]
        lines.append(f"{o.notebook:<{width}}  {o.status:<8} {o.seconds:8.1f}  {first}")
        lines += [f"{'':<{width + 21}}{other}" for other in others]
    return "\n".join(lines)
