"""Executing one notebook in a staging folder, and giving its results their places.

A notebook has succeeded only if it returned, every code cell completed, and every file
that it declares was written in this run. Only then do all its results take their places.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from ..base.files import is_partial, partial_name, write_atomically
from ..base.paths import ROOT, STAGING, shown
from ..base.shortage import is_disk_full, says_disk_full, says_out_of_memory
from ..base.words import clock
from ..study.places import Places
from .faults import RunError, full_disk
from .kernel import KERNEL, Kernel
from .progress import Running
from .steps import Step, code_cells, literal
from .warm import WarmParent


class Attempt:
    """One notebook, executed in a staging folder, which is emptied first.

    values  : the notebook's parameters
    timeout : seconds for the whole notebook, None for no limit
    warm    : the process that its kernel is forked from, None to start it alone
    """

    def __init__(
        self,
        step: Step,
        values: Mapping[str, object],
        places: Places,
        progress: Running,
        staging: Path,
        timeout: float | None = None,
        warm: WarmParent | None = None,
    ):
        self.step, self.values, self.places, self.staging = step, values, places, staging
        self.results = staging / "results"
        self.executed = staging / f"{step.name}.ipynb"
        self.final = final_place(step, places)
        self.ran_as_read = False  # whether what was executed is what the step says
        self.kernel = Kernel(
            progress, staging / "kernel.log", step.path.parent, self.executed,
            {STAGING: str(self.results)}, timeout, warm,
        )  # fmt: skip

    def execute(self) -> None:
        """Run it in a fresh kernel; no process that it started is left.

        Raises RunError saying what happened. It changes no directory and heeds no signal: several
        may run at once, in threads.
        """
        try:
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging.mkdir(parents=True)
            notebook = papermill.execute_notebook(
                literal(self.step.path), literal(self.executed), self.step.bound(self.values),
                engine_name="study", kernel_name=KERNEL, progress_bar=False,
                request_save_on_cell_execute=False, kernel=self.kernel,
            )  # fmt: skip
        except PapermillExecutionError as error:
            raise self._of_cell(error) from None
        except Exception as error:
            raise self._of_error(error) from None
        self._check(notebook)

    def _check(self, notebook: nbformat.NotebookNode) -> None:
        incomplete = [
            position
            for position, cell in enumerate(code_cells(notebook), 1)
            if cell.metadata.papermill.status != "completed" or cell.execution_count is None
        ]
        if incomplete:
            raise RunError(
                "incomplete",
                f"code cells {', '.join(map(str, incomplete))} did not complete, though none "
                "raised an error. sys.exit() ends a notebook so, and the tag skip-execution skips "
                f"a cell: remove it. The last cell that began is {self.kernel.where}",
            )
        self.ran_as_read = tuple(cell.source for cell in code_cells(notebook)) == self.step.code
        moves = self._moves()
        absent = [
            path
            for path in self.step.outputs(self.places)
            if path not in moves or moves[path].stat().st_size == 0
        ]
        if absent:
            others = [path for path in moves if path != self.final]
            raise RunError(
                "incomplete",
                f"it ended, but did not write what it declares: {', '.join(map(shown, absent))}. "
                f"It wrote {', '.join(map(shown, others)) or 'nothing'} by lib.outputs "
                "(save_figure, save_table, write_result), which is how notebooks write",
            )

    def _moves(self) -> dict[Path, Path]:
        """{where it belongs: where it is staged}; what is declared first, the notebook last."""
        staged = {
            Path(ROOT.anchor, path.relative_to(self.results)): path
            for path in sorted(self.results.rglob("*"))
            if path.is_file() and not is_partial(path)
        }
        declared = [path for path in self.step.outputs(self.places) if path in staged]
        return {path: staged[path] for path in declared} | staged | {self.final: self.executed}

    def publish(self) -> list[Path]:
        """Give every result its place; returns the places. Raises RunError if that cannot be,
        before any of them is changed: first all are brought to their disks, then renamed.
        """
        moves = self._moves()
        partials: dict[Path, Path] = {}
        try:
            for place, path in moves.items():
                if place.is_dir():
                    raise IsADirectoryError(f"a folder stands at {shown(place)}")
                place.parent.mkdir(parents=True, exist_ok=True)
                partials[place] = partial_name(place)
                shutil.move(path, partials[place])
            for place, partial in partials.items():
                partial.replace(place)
        except OSError as error:
            if partials.get(self.final) and partials[self.final].exists():
                shutil.move(partials[self.final], self.executed)
            if is_disk_full(error):
                raise self._full() from None
            raise RunError("failed", f"its results cannot take their places: {error}") from None
        finally:
            for partial in partials.values():
                partial.unlink(missing_ok=True)
        forget_failure(self.step, self.places)
        return list(moves)

    def keep_failed(self, status: str, detail: str) -> Path | None:
        """Keep what was executed, with what went wrong at its top; None if that cannot be."""
        place = self.final.with_suffix(".failed.ipynb")
        try:
            notebook = nbformat.read(self.executed, as_version=4)
            text = f"**This run of {self.step.name} is not complete: {status}.**\n\n"
            text += "\n".join(f"    {line}" for line in detail.splitlines())
            notebook.cells.insert(0, nbformat.v4.new_markdown_cell(text))
            with write_atomically(place) as partial:
                nbformat.write(notebook, partial)
        except (OSError, ValueError, AttributeError):
            return None
        return place

    # --- faults in words -------------------------------------------------------------------

    def _of_cell(self, error: PapermillExecutionError) -> RunError:
        said = _cut(f"{error.ename}: {error.evalue.strip()}".removesuffix(": "))
        if said == "CellExecutionError":  # papermill's word where it has no other
            said = "an error that the cell's output does not show"
        code = "\n".join(f"    {line}" for line in _cut(error.source).splitlines())
        plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
        line = re.search(r"^-+> *(\d+)", plain, re.MULTILINE)  # the cell's is the first frame
        at = f", line {line[1]}" if line else ""
        text = f"{said}\nraised in {self.kernel.where}{at}\n\n{code}"
        if says_disk_full(said):
            return self._full(f"\n{text}")
        if says_out_of_memory(said):
            return RunError("out of memory", f"{text}\n\n{self._memory()}\n{self._lower()}")
        unreadable = error.ename in ("StoredError", "WeightsError", "AttentionError")
        return RunError("unreadable files" if unreadable else "failed", text)

    def _of_error(self, error: Exception) -> RunError:
        kernel = self.kernel
        if is_disk_full(error):
            return self._full()
        if kernel.time_left <= 0 and isinstance(error, RuntimeError | TimeoutError):
            limit = clock(kernel.timeout or 0)
            return RunError(
                "timed out", f"it was not done after {limit} (--timeout), in {kernel.where}"
            )
        if isinstance(error, DeadKernelError) and kernel.process:
            text = f"its kernel died ({kernel.ending}) in {kernel.where}\n"
            if getattr(kernel.process, "lost_parent", False):  # of a forked one
                text += "The process that kernels are forked from has ended: run it again"
            elif kernel.ending == "signal SIGKILL" or says_out_of_memory(kernel.last_words()):
                text += f"Probably out of memory: {self._memory()}\n{self._lower()}"
            else:
                text += f"Memory is not the likely cause: {self._memory()}"
            return RunError("kernel died", self._with_last_words(text))
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
        if isinstance(error, OSError) or kernel.process:
            return RunError("failed", self._with_last_words(f"it could not be run: {text}"))
        return RunError("kernel died", self._with_last_words(f"its kernel did not start: {text}"))

    def _memory(self) -> str:
        watch = self.kernel.memory
        return watch.describe() if watch else "no memory figures were taken"

    def _lower(self) -> str:
        size = self.values.get("batch_size")
        if not isinstance(size, int) or size == 1:
            return "Close other programs, or take a machine with more memory"
        told, smaller = (size, size // 2) if size else ("auto", 8)
        return f"Lower --batch-size (it was {told}): try --batch-size {smaller}"

    def _with_last_words(self, text: str) -> str:
        said = self.kernel.last_words()
        return f"{text}\nThe kernel's last words:\n{said}" if said else text

    def _full(self, more: str = "") -> RunError:
        return full_disk(self.places.output, self.places.figures, more=more)


def final_place(step: Step, places: Places) -> Path:
    """Where a notebook lies as executed."""
    return places.output / "notebooks" / f"{step.name}.ipynb"


def forget_failure(step: Step, places: Places) -> None:
    """Remove what an earlier failure left."""
    final_place(step, places).with_suffix(".failed.ipynb").unlink(missing_ok=True)


def _cut(text: str, length: int = 4000) -> str:
    """For the terminal: the whole stands in the notebook."""
    return text if len(text) <= length else f"{text[:length]} … ({len(text)} characters)"
