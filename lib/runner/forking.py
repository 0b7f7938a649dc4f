"""The process that kernels are forked from: the runner starts it with this file's text.

It imports once what notebooks import, and waits. For each kernel that is asked for it forks: the
child has every module, and else all that a process of its own has. It ends when the runner does,
however that ends, and its kernels with it. By its text, so that a kernel imports the same `lib`
as one that is started alone.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from select import select

LENGTH = struct.Struct("!Q")  # of what follows, in bytes
# IPython names it for a kernel; matplotlib reads it once, when it is imported.
_BACKEND = "module://matplotlib_inline.backend_inline"


def main() -> None:
    """Arguments: the number of the open socket, and JSON of [[module, name in it or ""], …]."""
    channel, names = socket.socket(fileno=int(sys.argv[1])), json.loads(sys.argv[2])
    if sys.path[0] in ("", os.getcwd()):  # noqa: PTH109 - as ipykernel_launcher does
        del sys.path[0]
    # Both are read when a module is imported. A kernel ends when its parent does.
    os.environ["JPY_PARENT_PID"] = str(os.getpid())
    os.environ.setdefault("MPLBACKEND", _BACKEND)
    gc.disable()  # what is imported stays: looking through it for garbage takes a second and more
    for module, name in [["ipykernel.kernelapp", ""], *names]:
        with contextlib.suppress(BaseException):  # the preflight's kernel says what fails
            found = importlib.import_module(module)
            if name and not hasattr(found, name):  # a module within it
                importlib.import_module(f"{module}.{name}")
    gc.freeze()  # nor do kernels look through it, which would copy every page of it for each
    kernel = _serve(channel)
    if kernel is None:
        os._exit(0)  # the runner need not wait until all that was imported is taken down
    kernel()


def _serve(channel: socket.socket) -> Callable[[], None] | None:
    """Fork what is asked for until the runner has gone. In a child returns what it is to do."""
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    signal.set_wakeup_fd(waking)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    told: dict[int, int] = {}  # process: where its exit status is told
    while True:
        ready, _, _ = select([channel, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _tell_ended(told)
        if channel not in ready:
            continue
        asked = _receive(channel)
        if asked is None:
            for process in told:
                with contextlib.suppress(OSError):
                    os.killpg(process, signal.SIGKILL)
                with contextlib.suppress(OSError):  # it has no group yet
                    os.kill(process, signal.SIGKILL)
            return None
        request, (out, error, status) = asked
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if not process:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number in (woken, waking, status, *told.values()):
                os.close(number)
            channel.close()
            return lambda: _become_kernel(request, out, error)
        told[process] = status
        os.close(out)
        os.close(error)
        with contextlib.suppress(OSError):  # a runner that has gone is noticed above
            channel.sendall(f"{process}\n".encode())


def _receive(channel: socket.socket) -> tuple[dict, list[int]] | None:
    """What is asked for, and the files that go with it; None if the runner has gone."""
    try:
        head, files, _, _ = socket.recv_fds(channel, LENGTH.size, 3)
        text = b""
        while head and len(text) < LENGTH.unpack(head)[0]:
            more = channel.recv(LENGTH.unpack(head)[0] - len(text))
            if not more:
                return None
            text += more
    except OSError:
        return None
    return (json.loads(text), files) if head else None


def _tell_ended(told: dict[int, int]) -> None:
    """Write how a child has ended to where the runner reads it."""
    while told:
        with contextlib.suppress(ChildProcessError):
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            if process in told:
                place = told.pop(process)
                with contextlib.suppress(OSError):
                    os.write(place, str(os.waitstatus_to_exitcode(status)).encode())
                os.close(place)


def _become_kernel(request: dict, out: int, error: int) -> None:
    """As if this process had been started for the kernel alone."""
    gc.enable()
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, place in ((nothing, 0), (out, 1), (error, 2)):
        os.dup2(number, place)
        os.close(number)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"], JPY_PARENT_PID=str(os.getppid()))
    sys.argv = request["arguments"]
    if "numpy" in sys.modules:  # else all kernels had the same random numbers
        sys.modules["numpy"].random.seed()
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()


if __name__ == "__main__":
    main()
