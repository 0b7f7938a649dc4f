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
from importlib.metadata import EntryPoint
from pathlib import Path

os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # before jupyter looks for kernels

import psutil
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.iorw import write_ipynb
from traitlets.config import Config

from ..base.paths import STAGING
from .memory import MemoryWatch
from .progress import Running
from .steps import code_cells
from .temporary import temporary_folder
from .warm import ENVIRONMENT, Forked, ParentGone, WarmParent

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
    cwd         : the folder that it runs in
    executed    : where the notebook is saved at its end, whatever that is
    environment : variables added to this process's own
    timeout     : seconds that the notebook may take, from now on; None for no limit
    warm        : the process that it is forked from; None to start it alone
    where       : the cell that began last
    process     : its process, once it answers
    """

    progress: Running
    log: Path
    cwd: Path
    executed: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    warm: WarmParent | None = None
    where: str = "no cell: none had begun"
    memory: MemoryWatch | None = None
    process: subprocess.Popen | Forked | None = None
    begun: float = field(default_factory=time.monotonic)
    _launched: subprocess.Popen | Forked | None = None
    _is_unwanted: bool = False

    @property
    def time_left(self) -> float:
        """Seconds until the timeout; infinite without one."""
        return math.inf if self.timeout is None else self.begun + self.timeout - time.monotonic()

    @property
    def patience(self) -> float | None:
        """Seconds for a wait that ends with the timeout; None for no limit."""
        return None if self.timeout is None else max(self.time_left, 0.001)

    @property
    def ending(self) -> str:
        """How its process ended, in words."""
        code = self.process.poll() if self.process else None
        if code is None:
            return "it still runs"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def stop(self) -> None:
        """End its process now, or as soon as there is one; for another thread than its own."""
        self._is_unwanted = True
        if self._launched:
            self._launched.kill()

    def launched(self, process: subprocess.Popen | Forked) -> None:
        """Its process has been started."""
        self._launched = process
        if self._is_unwanted:
            process.kill()

    def end(self) -> None:
        """No process lives any more that began with it: its own, and whatever that started."""
        if self.memory:
            self.memory.stop()
        if self._launched is None:
            return
        session, tree = self._launched.pid, []
        if self._launched.poll() is None:
            with contextlib.suppress(psutil.Error):
                tree = psutil.Process(session).children(recursive=True)
            self._launched.kill()
        for process in tree:
            with contextlib.suppress(psutil.Error):
                process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._launched.wait(timeout=10)
        marked = self.environment.get(STAGING)
        end_processes(Path(marked) if marked else None, session)

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

        with contextlib.ExitStack() as stack:
            stack.callback(kernel.end)
            config, log = (
                stack.enter_context(_sockets()),
                stack.enter_context(kernel.log.open("wb")),
            )
            client = PapermillNotebookClient(
                nb_man,
                kernel_name=kernel_name,
                startup_timeout=math.ceil(max(min(_START_TIMEOUT, kernel.time_left), 1)),
                iopub_timeout=_OUTPUT_TIMEOUT,
                timeout_func=lambda _cell: kernel.patience,
                coalesce_streams=True,  # a bar that moves is one output, not one for each move
                shutdown_kernel="immediate",  # all is written: a kernel that is asked takes seconds
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
            manager.study_kernel = kernel  # for the provisioner
            environment = os.environ | ENVIRONMENT | kernel.environment
            try:
                client.execute(env=environment, stdout=log, stderr=log, cwd=str(kernel.cwd))
            except BaseException:
                with contextlib.suppress(OSError):
                    write_ipynb(nb_man.nb, str(kernel.executed))
                raise


papermill_engines.register("study", StudyEngine)


class ForkingProvisioner(LocalProvisioner):
    """Forks the kernel of its manager's `study_kernel` from that one's warm parent, if it has one;
    else starts it alone. Tells the study's kernel of its process in either case.
    """

    async def launch_kernel(self, cmd, **kwargs):
        kernel = getattr(self.parent, "study_kernel", None)
        if kernel is None:
            return await super().launch_kernel(cmd, **kwargs)
        try:
            if kernel.warm is None or not kernel.warm.makes(cmd):
                raise ParentGone
            self.process = kernel.warm.fork(
                cmd, str(kwargs["cwd"]), kwargs["env"], kwargs["stdout"].fileno(),
                kwargs["stderr"].fileno(), kernel.patience,
            )  # fmt: skip
            self.pid = self.pgid = self.process.pid  # it leads a session of its own
            self.cwd = kwargs["cwd"]
        except ParentGone:
            await super().launch_kernel(cmd, **kwargs)
        kernel.launched(self.process)
        return self.connection_info


def _provide() -> None:
    """Let Jupyter start the kernels of this process by ForkingProvisioner."""
    factory, name = KernelProvisionerFactory.instance(), "study"
    place = f"{ForkingProvisioner.__module__}:{ForkingProvisioner.__name__}"
    factory.provisioners[name] = EntryPoint(name, place, KernelProvisionerFactory.GROUP_NAME)
    factory.default_provisioner_name = name


_provide()


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


def end_processes(staging: Path | None, session: int = 0) -> None:
    """End every process of this user of a session, or whose environment names a staging folder
    below `staging`.

    What a kernel started can outlive it, as nobody's child; its session or environment still tells.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and _began_there(process, staging, session):
                process.kill()
                found.append(process)
    psutil.wait_procs(found, timeout=10)


def _began_there(process: psutil.Process, staging: Path | None, session: int) -> bool:
    if session and hasattr(os, "getsid") and os.getsid(process.pid) == session:
        return True
    marker = process.environ().get(STAGING) if staging else None
    return bool(marker) and Path(marker).is_relative_to(staging)
