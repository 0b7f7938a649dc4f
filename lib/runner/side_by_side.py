"""Which notebook begins when: several at once, where none reads the other's results."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from jupyter_core.utils import ensure_event_loop

from ..base.cores import usable_cores
from ..base.words import in_words
from . import memory, signals
from .execution import Attempt
from .faults import RunError
from .outcomes import END_THE_RUN
from .session import Session
from .temporary import sweep_temporary_folders

MOST = 4  # notebooks at once, unless told: what one reads of another allows hardly more
_PATIENCE = 30.0  # seconds for kernels that are ended to be gone


def usual_jobs(device: str, workers: bool = False) -> int:
    """How many notebooks run at once where nobody says: as many as there are cores, at most four.

    device  : as the preflight found it; a GPU is not shared
    workers : notebooks score by processes of their own
    """
    if workers or not device.startswith("cpu"):
        return 1
    return min(usable_cores(), MOST)


@dataclass
class _Work:
    """A notebook that runs. claim : bytes that it will take"""

    session: Session
    index: int
    attempt: Attempt
    claim: int
    error: RunError | None = None

    def execute(self, done: queue.SimpleQueue) -> None:
        try:
            self.attempt.execute()
        except RunError as error:
            self.error = error
        except BaseException as error:  # else the run would wait for it for ever
            self.error = RunError("failed", f"{type(error).__name__}: {error}")
        finally:
            ensure_event_loop().close()  # this thread's own, that Jupyter's clients have made
            done.put(self)

    @property
    def growth(self) -> int:
        """Bytes of its claim that it does not hold yet."""
        watch = self.attempt.kernel.memory
        return max(self.claim - (watch.now if watch else 0), 0)


class SideBySide:
    """Runs the notebooks of sessions, the first session's before the next one's.

    jobs  : how many at once, at most
    ended : called with each session at its end, while those after it run
    """

    def __init__(self, jobs: int, ended: Callable[[Session], None] = lambda session: None):
        self.jobs, self._tell_ended = jobs, ended
        self._sessions: list[Session] = []
        self._told: set[int] = set()
        self._running: list[_Work] = []
        self._done: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._full: set[tuple[int, int]] = set()  # of which it has been said that memory is short
        self._is_ending = False

    def run(self, sessions: Iterable[Session]) -> None:
        """Run all of them. A signal ends every notebook; what has ended before is kept.

        sessions : prepared when they are asked for, while notebooks of those before run
        Raises RunError of a session that could not be prepared, when those before it have ended.
        """
        coming, trouble = iter(sessions), None
        sweep_temporary_folders()
        try:
            while True:
                self._begin_what_can()
                if self._is_ending:
                    coming = None
                if coming is not None:
                    try:
                        session = next(coming, None)
                    except RunError as error:
                        session, trouble = None, error
                    if session is None:
                        coming = None
                    else:
                        session.open()
                        self._sessions.append(session)
                elif not self._running:
                    break
                self._finish(wait=coming is None)
                self._tell()
        except signals.Interruption as interruption:
            self._interrupt(interruption.fault.key)
        # The run is over: what asks it to end now has been heeded.
        with contextlib.suppress(signals.Interruption), signals.held():
            self._tell(all_of_them=True)
        if trouble:
            raise trouble

    # --- beginning ----------------------------------------------------------------------------

    def _begin_what_can(self) -> None:
        while not self._is_ending:
            waiting = self._waiting()
            if not waiting:
                break
            session, index = waiting[0]
            if self._running and (
                len(self._running) >= self.jobs or not self._has_memory(session, index)
            ):
                break
            attempt = session.begin(index)
            if attempt:
                work = _Work(session, index, attempt, session.memory(index))
                self._running.append(work)
                threading.Thread(target=work.execute, args=(self._done,), daemon=True).start()
        self._tell_rest()

    def _waiting(self) -> list[tuple[Session, int]]:
        """What could begin: of the first session first, and of it what takes longest to its end."""
        return [
            (session, index)
            for session in self._sessions
            for index in sorted(session.ready(), key=lambda i, s=session: (-s.urgency[i], i))
        ]

    def _has_memory(self, session: Session, index: int) -> bool:
        needed = session.memory(index)
        free = memory.available() - sum(work.growth for work in self._running)
        if needed <= free:
            return True
        if (id(session), index) not in self._full:
            self._full.add((id(session), index))
            session.progress.say(
                f"{session.steps[index].name} waits for memory: it takes about "
                f"{in_words(needed)}, and {in_words(max(free, 0))} are free beside what runs"
            )
        return False

    def _tell_rest(self) -> None:
        rests = [session.rest() for session in self._sessions]
        for session in self._sessions:
            session.progress.rest(None if None in rests else sum(rests) / self.jobs)

    # --- ending -------------------------------------------------------------------------------

    def _finish(self, wait: bool) -> None:
        """Publish what has ended; wait for one, if nothing else is to be done."""
        while self._running:
            try:
                work = self._done.get(wait)
            except queue.Empty:
                return
            with signals.held():  # published and recorded, or neither
                self._running.remove(work)
                work.session.finish(work.index, work.attempt, work.error)
                status = work.session.outcomes[work.index].status
                self._is_ending = self._is_ending or status in END_THE_RUN
            wait = False
            self._begin_what_can()

    def _tell(self, all_of_them: bool = False) -> None:
        """Report the sessions that are over."""
        for session in self._sessions:
            if id(session) not in self._told and (session.is_over or all_of_them):
                self._told.add(id(session))
                with signals.held():
                    session.end()
                    self._tell_ended(session)

    def _interrupt(self, fault: str) -> None:
        with signals.held():
            for session in self._sessions:
                if session.warm:
                    session.warm.close()
            for work in self._running:
                work.attempt.kernel.stop()
            ended = {id(work): work for work in self._running}
            while ended:
                try:
                    ended.pop(id(self._done.get(timeout=_PATIENCE)), None)
                except queue.Empty:
                    break
            for work in self._running:
                work.session.interrupt(work.index, work.attempt, fault)
            told = bool(self._running)
            for session in self._sessions:
                for index, outcome in enumerate(session.outcomes):
                    if outcome.status == "running":
                        session.interrupt(index, None, fault)
                        told = True
            for session in self._sessions:
                left = next((o for o in session.outcomes if o.status == "not run"), None)
                if left is not None and not told:
                    left.status, told = fault, True
            self._running.clear()
