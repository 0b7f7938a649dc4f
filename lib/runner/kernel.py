"""A notebook's kernel: started in this environment, watched, and ended without remains."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # before jupyter looks for kernels

import psutil
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from traitlets.config import Config

from lib.runner import signals
from lib.runner.memory import MemoryWatch
from lib.runner.progress import Progress

KERNEL = "python3"
START_TIMEOUT = 180  # seconds; a cold network disk takes its time
_LONGEST_SOCKET = 90  # characters, of the 107 (macOS: 103) that a socket's path may have


@dataclass
class Kernel:
    """What is wished of a kernel, and, once it runs, what is known of it.

    progress    : hears which cell has begun, and the cells' stderr
    environment : variables added to this process's own
    log         : file for what the kernel process itself prints, crashes above all
    time_left   : seconds that the notebook still may take, None for no limit
    """

    progress: Progress
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    time_left: Callable[[], float | None] = lambda: None
    memory: MemoryWatch | None = None
    process: object = None

    @property
    def death(self) -> str:
        """How its process ended, in words; "" while it runs or if it never ran."""
        code = self.process.poll() if self.process else None
        if code is None:
            return ""
        if code < 0:
            return f"signal {signal.Signals(-code).name}"
        return f"exit status {code}"

    def last_words(self) -> str:
        """A crash that the kernel process reported, or the end of what it printed."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        lines = [line[:200] for line in text.splitlines() if line.strip()]
        crash = next((i for i, line in enumerate(lines) if "Fatal Python error" in line), -8)
        return "\n".join(lines[crash:][:8])


class StudyEngine(Engine):
    """papermill's engine "study": takes a `Kernel` as the option `kernel`."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, kernel: Kernel, **_options):
        code_cells = [c for c in nb_man.nb.cells if c.cell_type == "code"]

        def report(cell, cell_index):
            if cell.cell_type == "code":
                position = next(i for i, c in enumerate(code_cells, 1) if c is cell)
                kernel.progress.cell(position, len(code_cells), cell.source)

        def timeout(_cell):
            left = kernel.time_left()
            return None if left is None else max(left, 0.001)

        with _ended(kernel), _sockets() as config, kernel.log.open("wb") as log:
            client = PapermillNotebookClient(
                nb_man,
                kernel_name=kernel_name,
                startup_timeout=START_TIMEOUT,
                timeout_func=timeout,
                coalesce_streams=True,  # a bar that moves is one output, not one for each move
                stderr_file=kernel.progress,
                on_cell_start=report,
                config=config,
            )

            def started(**_):
                kernel.process = manager.provisioner.process
                kernel.memory = MemoryWatch(kernel.process.pid)

            client.on_notebook_start = started
            manager = client.create_kernel_manager()
            client.execute(env={**os.environ, **kernel.environment}, stdout=log, stderr=log)


papermill_engines.register("study", StudyEngine)


@contextlib.contextmanager
def _sockets() -> Iterator[Config]:
    """Sockets in a folder of this run's own: nobody else can listen, and no two runs race
    for a port. Where that cannot be (Windows, a long path), jupyter's own way.
    """
    with tempfile.TemporaryDirectory(prefix="dcls-", ignore_cleanup_errors=True) as folder:
        if sys.platform == "win32" or len(folder) > _LONGEST_SOCKET:
            yield Config()
        else:
            yield Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})


@contextlib.contextmanager
def _ended(kernel: Kernel) -> Iterator[None]:
    """At the end, no process lives that began within: the kernel, and whatever it started."""
    me = psutil.Process()
    before = set(me.children(recursive=True))
    try:
        yield
    finally:
        with signals.held():
            if kernel.memory:
                kernel.memory.stop()
            started = set(me.children(recursive=True)) - before
            for process in started:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            if kernel.process and hasattr(os, "killpg"):
                # Workers of a dead kernel are nobody's children, but still of its group.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(kernel.process.pid, signal.SIGKILL)
            psutil.wait_procs(started, timeout=10)
