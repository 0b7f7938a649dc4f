"""Starting a command as several processes of this machine, one for each device."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import wait

import torch.distributed as dist
import torch.multiprocessing as mp

_STARTED = "DCLS_STARTED"  # set in processes that this module starts
_GRACE = 10  # seconds after which a process that does not end is killed


def is_one_of_several() -> bool:
    """Whether this process is one of several of the same command, by `start` or torchrun."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_started() -> bool:
    """Whether `start` started this process, and so reports what ended its peers."""
    return _STARTED in os.environ


def start(name: str, size: int, work: Callable[..., int], *arguments: object) -> int:
    """Call `work(*arguments)` in `size` new processes; return the exit status of all.

    work : a function that another process can import. Its environment is as torchrun sets it
    If one process ends with an error, the others are ended. What ended a process that could not
    say so itself, is printed after `name`.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = mp.get_context("spawn")
    started = [
        context.Process(target=_one, args=(rank, size, store.port, work, arguments))
        for rank in range(size)
    ]
    try:
        for process in started:
            process.start()
        left = list(started)
        while left and not any(process.exitcode for process in started):
            wait([process.sentinel for process in left])
            left = [process for process in left if process.exitcode is None]
        # A signal's victim comes first: its peers fail because of it.
        codes = [process.exitcode or 0 for process in started]
        for rank, code in enumerate(codes):
            if code < 0:
                killed = signal.Signals(-code).name
                why = ", perhaps for lack of memory" if killed == "SIGKILL" else ""
                print(  # on a line of its own, below the bar of a process that was ended
                    f"\n{name}: process {rank + 1} of {size} was ended by {killed}{why}, and this "
                    "ended the others: resume with the same command and --resume",
                    file=sys.stderr,
                )  # fmt: skip
                return 2
        return max(codes)
    finally:
        for process in started:
            if process.is_alive():
                process.terminate()
        for process in started:
            if process.pid is not None:
                process.join(_GRACE)
                if process.is_alive():
                    process.kill()


def _one(rank: int, size: int, port: int, work: Callable[..., int], arguments: tuple) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the process that started these holds the store
        _STARTED: "1",
    }  # fmt: skip
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(work(*arguments))


def _end_with_parent() -> None:
    """End this process if the one that started it was killed. Files are replaced at once or not
    at all, so none stays half written."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(2)
