"""A notebook's kernel: started in this environment, watched, and ended without remains."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # before jupyter looks for kernels

import psutil
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from traitlets.config import Config

from ..study.outputs import STAGING
from . import signals
from .memory import MemoryWatch
from .progress import Progress
from .steps import code_cells
from .temporary import temporary_folder

# What nbclient leaves unawaited at an interruption is no news: the runner tells what happened.
logging.getLogger("asyncio").setLevel(logging.CRITICAL)

KERNEL = "python3"
_START_TIMEOUT = 180  # seconds; a cold network disk takes its time
# Seconds that outputs may lag behind the cell that made them: many, and a slow disk.
_OUTPUT_TIMEOUT = 600
# Otherwise ipykernel takes what compiled code prints at its crash, and dies with it.
_CRASHES_TO_LOG = ["--IPKernelApp.capture_fd_output=False"]
_LONGEST_SOCKET = 90  # characters, of the 107 (macOS: 103) that a socket's path may have


@dataclass
class Kernel:
    """What is wished of a kernel, and, once it runs, what is known of it.

    progress    : hears which cell has begun, and the cells' stderr
    log         : file for what the kernel process itself prints, crashes above all
    environment : variables added to this process's own
    timeout     : seconds that the notebook may take, from now on; None for no limit
    where       : the cell that began last
    """

    progress: Progress
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    where: str = "no cell: none had begun"
    memory: MemoryWatch | None = None
    process: subprocess.Popen | None = None
    begun: float = field(default_factory=time.monotonic)

    @property
    def time_left(self) -> float:
        """Seconds until the timeout; infinite without one."""
        return math.inf if self.timeout is None else self.begun + self.timeout - time.monotonic()

    @property
    def ending(self) -> str:
        """How its process ended, in words."""
        code = self.process.poll() if self.process else None
        if code is None:
            return "it still runs"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

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
        counted = code_cells(nb_man.nb)

        def report(cell, cell_index):
            position = next((i for i, c in enumerate(counted, 1) if c is cell), None)
            if position is not None:
                lines = (line for line in cell.source.splitlines() if line.strip())
                first = next((x for x in lines if not x.lstrip().startswith("#")), "")
                kernel.where = f"cell {position}/{len(counted)}: {first}"
                kernel.progress.cell(kernel.where)

        def time_left(_cell):
            return None if kernel.timeout is None else max(kernel.time_left, 0.001)

        with _ended(kernel), _sockets() as config, kernel.log.open("wb") as log:
            client = PapermillNotebookClient(
                nb_man,
                kernel_name=kernel_name,
                startup_timeout=math.ceil(max(min(_START_TIMEOUT, kernel.time_left), 1)),
                iopub_timeout=_OUTPUT_TIMEOUT,
                timeout_func=time_left,
                coalesce_streams=True,  # a bar that moves is one output, not one for each move
                stderr_file=kernel.progress,
                extra_arguments=_CRASHES_TO_LOG,
                on_cell_start=report,
                config=config,
            )

            def started(**_):
                kernel.process = manager.provisioner.process
                kernel.memory = MemoryWatch(kernel.process.pid)

            client.on_notebook_start = started
            manager = client.create_kernel_manager()
            environment = os.environ | {"PYTHONFAULTHANDLER": "1"} | kernel.environment
            client.execute(env=environment, stdout=log, stderr=log)


papermill_engines.register("study", StudyEngine)


@contextlib.contextmanager
def _sockets() -> Iterator[Config]:
    """Sockets in a folder of this run's own: nobody else can listen, and no two runs race
    for a port. Where that cannot be (Windows, a long path), jupyter's own way.
    """
    with temporary_folder() as path:
        folder = str(path)
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
            psutil.wait_procs(started, timeout=10)
            if STAGING in kernel.environment:
                end_processes(Path(kernel.environment[STAGING]))


def end_processes(staging: Path) -> None:
    """End every process of this user whose environment names a staging folder below `staging`.

    What a kernel started can outlive it, as nobody's child; its environment still tells.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            marker = process.environ().get(STAGING)
            if marker and Path(marker).is_relative_to(staging) and process.pid != os.getpid():
                process.kill()
                found.append(process)
    psutil.wait_procs(found, timeout=10)
