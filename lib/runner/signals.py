"""Ctrl-C, SIGTERM and a closed terminal: one exception, held back where it would do harm."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .faults import FAULTS, Fault

_FAULTS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}


class Interruption(KeyboardInterrupt):
    """A signal asked the run to end."""

    def __init__(self, signal_number: int):
        super().__init__(signal_number)
        self.signal_number = signal_number

    @property
    def fault(self) -> Fault:
        return FAULTS[_FAULTS[signal.Signals(self.signal_number).name]]


class _State:
    holding = 0
    pending: int | None = None
    asked = False  # to end: what asks again is told nothing new


def _receive(number: int, _frame) -> None:
    if _State.asked:
        return
    _State.asked = True
    name = _FAULTS[signal.Signals(number).name]
    with contextlib.suppress(OSError):  # a terminal that has gone
        os.write(2, f"\n{name}: the run is ending …\n".encode())
    if _State.holding:
        _State.pending = number
    else:
        raise Interruption(number)


@contextmanager
def handled() -> Iterator[None]:
    """Signals raise `Interruption` within; ones that the caller ignores (nohup) stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.asked = False
    before = {}
    for name in _FAULTS:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, _receive)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore() -> None:
    """For the last moments of a process."""
    for name in _FAULTS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def forget() -> None:
    """A signal that waits is not raised."""
    _State.pending = None


@contextmanager
def held() -> Iterator[None]:
    """Within, a signal waits: for steps that must be done whole. Raised at the end."""
    _State.holding += 1
    try:
        yield
    finally:
        _State.holding -= 1
        if not _State.holding and _State.pending is not None:
            number, _State.pending = _State.pending, None
            raise Interruption(number)
