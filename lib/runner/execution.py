"""Executing one notebook, and judging what came of it.

A notebook has succeeded only if it returned, every code cell completed, and every file
that it declares was written in this run. Its results wait in a staging folder until then.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError
from papermill.exceptions import PapermillExecutionError

from lib.outputs import STAGING, write_atomically
from lib.paths import ROOT, shown
from lib.runner import signals
from lib.runner.faults import (
    disk_advice,
    is_disk_full,
    says_disk_full,
    says_out_of_memory,
)
from lib.runner.kernel import KERNEL, Kernel
from lib.runner.progress import Progress, clock
from lib.runner.steps import Step, literal
from lib.study import Study


@dataclass
class Outcome:
    """What came of a step.

    status  : "ok", "kept" (up to date, not run), "not run", or a key of FAULTS
    reason  : why it ran, was kept, or was not run
    detail  : what went wrong, and what helps
    outputs : paths from the project's folder on
    """

    notebook: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    outputs: list[str] = field(default_factory=list)
    peak_memory_bytes: int = 0
    peak_gpu_bytes: int = 0
    detail: str = ""

    @property
    def is_well(self) -> bool:
        return self.status in ("ok", "kept")


class _Failure(Exception):
    """(fault's key, what went wrong and what helps)"""


def run_step(
    step: Step,
    values: Mapping[str, object],
    study: Study,
    progress: Progress,
    staging: Path,
    timeout: float | None = None,
) -> Outcome:
    """Execute one notebook in a fresh kernel; a failure or interruption is an outcome.

    Results take their places on success only, all of them; the executed notebook does so
    as `notebooks/<name>.ipynb`, and otherwise as `<name>.failed.ipynb` beside the last
    good one. No process that it started is left.

    staging : folder of this run; emptied
    timeout : seconds for the whole notebook
    """
    started = time.monotonic()
    kernel = Kernel(
        progress,
        log=staging / "kernel.log",
        environment={STAGING: str(staging / "results")},
        time_left=lambda: None if timeout is None else timeout - (time.monotonic() - started),
    )
    executed = staging / f"{step.name}.ipynb"
    outcome = Outcome(step.name, "ok")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        _execute(step, values, study, kernel, executed, timeout)
        with signals.held():
            outcome.outputs = [shown(path) for path in _publish(step, study, staging)]
    except _Failure as failure:
        outcome.status, outcome.detail = failure.args
    except OSError as error:
        outcome.status, outcome.detail = _of_os_error(error, study)
    except signals.Interruption as interruption:
        outcome.status, outcome.detail = interruption.fault.key, f"in {progress.where}"
    finally:
        with signals.held():
            outcome.seconds = time.monotonic() - started
            if kernel.memory:
                outcome.peak_memory_bytes = kernel.memory.peak
                outcome.peak_gpu_bytes = kernel.memory.gpu_peak
            if outcome.status != "ok":
                kept = _keep_failed(step, study, executed, outcome)
                outcome.detail += f"\nsee {shown(kept)}" if kept else ""
            shutil.rmtree(staging, ignore_errors=True)
    return outcome


def _execute(
    step: Step,
    values: Mapping[str, object],
    study: Study,
    kernel: Kernel,
    executed: Path,
    timeout: float | None,
) -> None:
    """Run the notebook. Raises _Failure, or OSError where files could not be written."""
    try:
        notebook = papermill.execute_notebook(
            literal(step.path), literal(executed), dict(values), engine_name="study",
            kernel_name=KERNEL, progress_bar=False, cwd=str(step.path.parent), kernel=kernel,
        )  # fmt: skip
    except PapermillExecutionError as error:
        raise _Failure(*_of_cell_error(error, values, kernel, study)) from None
    except CellTimeoutError:
        raise _Failure(
            "timed out",
            f"it was not done after {clock(timeout or 0)} (--timeout), in {kernel.progress.where}",
        ) from None
    except OSError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise _Failure("disk full", _full(study)) from None
        if kernel.death or kernel.process is None:
            raise _Failure("kernel died", _of_death(kernel, values, error)) from None
        text = f"it could not be run: {type(error).__name__}: {error}"
        raise _Failure("failed", _with_last_words(text, kernel)) from None
    incomplete = [
        position
        for position, cell in enumerate(_code_cells(notebook), 1)
        if cell.metadata.papermill.status != "completed" or cell.execution_count is None
    ]
    if incomplete:
        raise _Failure(
            "incomplete",
            f"code cells {', '.join(map(str, incomplete))} did not complete, though no error was "
            f"raised: something like sys.exit() ended it in {kernel.progress.where}",
        )


def _code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]


# --- results ------------------------------------------------------------------------------


def _publish(step: Step, study: Study, staging: Path) -> list[Path]:
    """Move everything staged to its place; returns the places. Raises _Failure if the step
    has not written all that it declares.
    """
    results = staging / "results"
    anchor = ROOT.anchor
    moves = {
        Path(anchor, path.relative_to(results)): path
        for path in sorted(results.rglob("*"))
        if path.is_file()
    }
    declared = step.outputs(study)
    absent = [p for p in declared if p not in moves or moves[p].stat().st_size == 0]
    if absent:
        raise _Failure(
            "incomplete",
            f"it ended, but did not write what it declares: {', '.join(map(shown, absent))}. "
            "Notebooks write by lib.outputs: save_figure, save_table, write_result",
        )
    final = notebooks_folder(study) / f"{step.name}.ipynb"
    moves[final] = staging / final.name
    for place, path in moves.items():
        # Moved within a disk, copied between disks: never seen half-written.
        with write_atomically(place) as partial:
            shutil.move(path, partial)
    final.with_suffix(".failed.ipynb").unlink(missing_ok=True)
    others = [place for place in moves if place not in declared and place != final]
    return [*declared, *others, final]


def notebooks_folder(study: Study) -> Path:
    """Where executed notebooks are kept."""
    return study.output / "notebooks"


def _keep_failed(step: Step, study: Study, executed: Path, outcome: Outcome) -> Path | None:
    """Keep what was executed, with what went wrong at its top; None if that cannot be."""
    place = notebooks_folder(study) / f"{step.name}.failed.ipynb"
    try:
        notebook = nbformat.read(executed, as_version=4)
        text = f"**This run of {step.name} is not complete: {outcome.status}.**\n\n"
        text += "\n".join(f"    {line}" for line in outcome.detail.splitlines())
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell(text))
        with write_atomically(place) as partial:
            nbformat.write(notebook, partial)
    except (OSError, ValueError, AttributeError):
        return None
    return place


# --- faults in words -----------------------------------------------------------------------


def _of_cell_error(
    error: PapermillExecutionError, values: Mapping[str, object], kernel: Kernel, study: Study
) -> tuple[str, str]:
    said = f"{error.ename}: {error.evalue}"
    code = "\n".join(f"    {line}" for line in error.source.splitlines())
    text = f"cell {error.exec_count} raised {said}\n\n{code}\n"
    if says_disk_full(said):
        return "disk full", f"{text}\n{_full(study)}"
    if says_out_of_memory(said):
        text += f"\n{_memory(kernel)}. {_lower(values)}"
    return "failed", text


def _of_os_error(error: OSError, study: Study) -> tuple[str, str]:
    if is_disk_full(error):
        return "disk full", _full(study)
    return "failed", f"it could not be run: {type(error).__name__}: {error}"


def _of_death(kernel: Kernel, values: Mapping[str, object], error: Exception) -> str:
    if kernel.process is None:
        return _with_last_words(f"its kernel did not start: {error}", kernel)
    text = f"its kernel died ({kernel.death}) in {kernel.progress.where}\n"
    if kernel.death == "signal SIGKILL" or says_out_of_memory(kernel.last_words()):
        text += f"Probably out of memory: {_memory(kernel)}. {_lower(values)}"
    else:
        text += f"Memory is not the likely cause: {_memory(kernel)}"
    return _with_last_words(text, kernel)


def _memory(kernel: Kernel) -> str:
    return kernel.memory.describe() if kernel.memory else "no memory figures were taken"


def _lower(values: Mapping[str, object]) -> str:
    size = values.get("batch_size")
    if not isinstance(size, int) or size <= 1:
        return "Close other programs, or take a machine with more memory"
    return f"Lower --batch-size (it was {size}): try --batch-size {size // 2}"


def _with_last_words(text: str, kernel: Kernel) -> str:
    said = kernel.last_words()
    return f"{text}\nThe kernel's last words:\n{said}" if said else text


def _full(study: Study) -> str:
    return f"no space is left: {disk_advice((study.output, study.figures))}"
