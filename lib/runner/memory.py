"""How much memory a kernel takes, and how much there is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pynvml

from ..base.words import in_words

CGROUP = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


class MemoryWatch:
    """Samples a process and its children until stopped; a peak shorter than the interval escapes.

    now, peak, gpu_peak : bytes; the GPU's is what is in use on all GPUs together, by anyone
    """

    def __init__(self, pid: int, interval: float = 0.5):
        self.now = self.peak = self.gpu_peak = self.gpu_total = 0
        self.least_available = psutil.virtual_memory().available
        self._interval = interval
        self._kills = _out_of_memory_kills()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, args=(pid,), daemon=True)
        self._thread.start()

    def _sample(self, pid: int) -> None:
        with contextlib.suppress(psutil.Error), _gpus() as gpus:
            process = psutil.Process(pid)
            while True:
                self.now = _resident(process)
                self.peak = max(self.peak, self.now)
                self.least_available = min(self.least_available, psutil.virtual_memory().available)
                used, self.gpu_total = _gpu_memory(gpus)
                self.gpu_peak = max(self.gpu_peak, used)
                if self._stop.wait(self._interval):
                    return

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def describe(self) -> str:
        """The figures, for a message."""
        limit = _container_limit()
        figures = [
            f"the kernel held {in_words(self.peak)} at most",
            f"{in_words(self.least_available)} of {in_words(psutil.virtual_memory().total)} "
            "were free at least",
        ]
        if limit:
            figures.append(f"this container may take {in_words(limit)}")
        if self.gpu_total:
            used, total = in_words(self.gpu_peak), in_words(self.gpu_total)
            figures.append(f"of {total} GPU memory {used} were in use at most")
        if _out_of_memory_kills() > self._kills:
            figures.append("the system counts a process killed for memory meanwhile")
        return "; ".join(figures)


def _resident(process: psutil.Process) -> int:
    total = process.memory_info().rss
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += child.memory_info().rss
    return total


@contextlib.contextmanager
def _gpus() -> Iterator[list]:
    """NVIDIA's GPUs, without a CUDA context; none where there is no driver."""
    try:
        pynvml.nvmlInit()
        gpus = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        gpus = []
    yield gpus
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlShutdown()


def _gpu_memory(gpus: list) -> tuple[int, int]:
    """(used, total) bytes of all GPUs together; 0 where they do not tell."""
    try:
        memory = [pynvml.nvmlDeviceGetMemoryInfo(gpu) for gpu in gpus]
    except pynvml.NVMLError:
        return 0, 0
    return sum(m.used for m in memory), sum(m.total for m in memory)


def _groups() -> Iterator[Path]:
    """Folders of this process's Linux control group and those that it lies in, v2 or v1."""
    with contextlib.suppress(OSError, ValueError):
        for line in OWN_GROUP.read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0" or "memory" in controllers.split(","):
                root = CGROUP if number == "0" else CGROUP / "memory"
                own = root / path.strip("/")
                yield from (p for p in (own, *own.parents) if p.is_relative_to(root))


def _container_limit() -> int:
    """Bytes that this control group may take; 0 for no limit, or where that cannot be read."""
    limits = [psutil.virtual_memory().total]
    for group in _groups():
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                limits.append(int((group / name).read_text()))
    return min(limits) if min(limits) < limits[0] else 0


def available() -> int:
    """Bytes that processes may take yet: of this machine, and of this control group."""
    free = [psutil.virtual_memory().available]
    for group in _groups():
        for limit, used in (("memory.max", "memory.current"),
                            ("memory.limit_in_bytes", "memory.usage_in_bytes")):  # fmt: skip
            with contextlib.suppress(OSError, ValueError):
                free.append(int((group / limit).read_text()) - int((group / used).read_text()))
    return max(min(free), 0)


def _out_of_memory_kills() -> int:
    """How often Linux has killed a process of this control group for memory."""
    for group in _groups():
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                return int((group / name).read_text().split("oom_kill ")[1].split()[0])
    return 0
