"""How much memory a kernel takes, and how much there is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pynvml

_CGROUP = Path("/sys/fs/cgroup")


def in_words(size: float) -> str:
    """1536 MiB: "1.5 GiB"."""
    mebibytes = size / 2**20
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1000 else f"{mebibytes:.0f} MiB"


class MemoryWatch:
    """Samples a process and its children until stopped; a peak shorter than the interval escapes.

    peak, gpu_peak : bytes; the GPU's is what is in use on all GPUs together, by anyone
    """

    def __init__(self, pid: int, interval: float = 0.25):
        self.peak = self.gpu_peak = self.gpu_total = 0
        self.least_available = psutil.virtual_memory().available
        self._interval = interval
        self._kills = _out_of_memory_kills()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, args=(pid,), daemon=True)
        self._thread.start()

    def _sample(self, pid: int) -> None:
        with contextlib.suppress(psutil.Error, pynvml.NVMLError), _gpus() as gpus:
            process = psutil.Process(pid)
            while True:
                self.peak = max(self.peak, _resident(process))
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
    except pynvml.NVMLError:
        yield []
        return
    try:
        yield [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _gpu_memory(gpus: list) -> tuple[int, int]:
    """(used, total) bytes of all GPUs together."""
    memory = [pynvml.nvmlDeviceGetMemoryInfo(gpu) for gpu in gpus]
    return sum(m.used for m in memory), sum(m.total for m in memory)


def _container_limit() -> int:
    """Bytes that this control group may take; 0 for no limit, or where that cannot be read."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limit = int((_CGROUP / name).read_text())
            if limit < psutil.virtual_memory().total:
                return limit
    return 0


def _out_of_memory_kills() -> int:
    """How often Linux has killed a process of this control group for memory."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = (_CGROUP / "memory.events").read_text()
        return int(text.split("oom_kill ")[1].split()[0])
    return 0
