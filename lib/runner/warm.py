"""Kernels from a warm parent: one process imports what notebooks import, and is forked for each.

Importing takes seconds of processor time, and would else be paid for every notebook. Each kernel
is a process of its own all the same. Where processes cannot be forked safely, or the parent has
gone, a kernel is started alone.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from . import forking
from .steps import Step

# Elsewhere processes are started anew: macOS' own libraries do not bear a fork, Windows has none.
CAN_FORK = sys.platform == "linux"
# Of every kernel, however many run at once. Threads of torch that wait for one another must not
# keep a processor busy that another kernel wants: else all take many times longer on a busy one.
# numpy's products are small here: more threads only wait for one another. torch's large arrays in
# large pages of memory: the system then spends less time on handing them out (Linux).
ENVIRONMENT = {
    "PYTHONFAULTHANDLER": "1",
    "OMP_WAIT_POLICY": "passive",
    "OPENBLAS_NUM_THREADS": "1",
    "THP_MEM_ALLOC_ENABLE": "1",
}
_LAUNCHER = "ipykernel_launcher"
# What a study imports when it is asked for images, networks or its device.
_LATER = ("lib.people.clickme", "lib.study.device", "lib.study.networks")


def names_to_import(steps: Iterable[Step]) -> list[tuple[str, str]]:
    """(module, name in it or "") of what notebooks take from this package, and what that takes.

    Nothing else: a package of somebody else's may start threads, which a fork does not copy.
    """
    steps = [*steps]
    names = {name for step in steps for name in step.imported_names()}
    return sorted(n for n in names if n[0].partition(".")[0] == "lib") + [(n, "") for n in _LATER]


class ParentGone(ConnectionError):
    """The warm parent does not answer any more."""


class WarmParent:
    """The process that kernels are forked from. It ends with this one, or when it is closed.

    names       : what it imports: (module, name in it or "")
    cwd         : where kernels are started
    environment : added to this process's own variables; libraries read some when they are imported
    code        : {file: SHA-256} of the package's code, which it is about to import
    """

    def __init__(
        self,
        names: Sequence[tuple[str, str]],
        cwd: Path,
        environment: Mapping[str, str] | None = None,
        code: Mapping[str, str] | None = None,
    ):
        self.code = dict(code or {})
        self._answers = threading.Lock()
        self._has_answered = False
        self._channel, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", inspect.getsource(forking), str(theirs.fileno()),
                 json.dumps([[*name] for name in names])],
                cwd=cwd, env=os.environ | ENVIRONMENT | dict(environment or {}),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip

    def makes(self, command: Sequence[str]) -> bool:
        """Whether this command starts what it can fork: ipykernel, by the same Python."""
        return [*command[:3]] == [sys.executable, "-m", _LAUNCHER] and self._channel.fileno() >= 0

    def fork(
        self,
        command: Sequence[str],
        cwd: str,
        environment: Mapping[str, str],
        stdout: int,
        stderr: int,
        timeout: float | None = None,
    ) -> Forked:
        """A process that goes on as the command does.

        stdout, stderr : descriptors of open files
        timeout        : seconds to wait while the parent still imports; None for no limit
        Raises ParentGone, and TimeoutError.
        """
        asked = {
            "arguments": [_LAUNCHER, *command[3:]], "cwd": cwd, "environment": {**environment},
        }  # fmt: skip
        text = json.dumps(asked).encode()
        reading, writing = os.pipe()
        try:
            with self._answers:
                self._channel.settimeout(timeout)
                head = [forking.LENGTH.pack(len(text))]
                socket.send_fds(self._channel, head, [stdout, stderr, writing])
                self._channel.sendall(text)
                answer = b""
                while not answer.endswith(b"\n"):
                    more = self._channel.recv(64)
                    if not more:
                        raise ParentGone("the process that kernels are forked from has ended")
                    answer += more
                self._has_answered = True
            return Forked(int(answer), reading)
        except BaseException as error:
            os.close(reading)
            self.close()  # what it would answer next belongs to this request
            if isinstance(error, OSError) and not isinstance(error, TimeoutError | ParentGone):
                raise ParentGone(str(error)) from None
            raise
        finally:
            os.close(writing)

    def close(self) -> None:
        """End it, and every kernel of it."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)  # for a thread that waits for its answer
        self._channel.close()
        if not self._has_answered:  # it may still import, and hears of nothing; it has no kernel
            self.process.kill()
        self.process.wait()


class Forked:
    """A process that the warm parent has forked; as much of subprocess.Popen as is asked for."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int, status: int):
        self.pid = pid
        self.returncode: int | None = None
        self.lost_parent = False  # whether it ended because the warm parent did
        self._status = status  # where the parent tells how it ended
        self._asking = threading.Lock()

    def poll(self) -> int | None:
        with self._asking:
            if self.returncode is None and select.select([self._status], [], [], 0)[0]:
                told = os.read(self._status, 16)
                os.close(self._status)
                # A parent that was killed tells nothing; its kernels end with it.
                self.lost_parent = not told
                self.returncode = int(told) if told else -signal.SIGKILL
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        started = time.monotonic()
        while self.poll() is None:
            if timeout is not None and time.monotonic() - started > timeout:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.02)
        return self.poll()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
