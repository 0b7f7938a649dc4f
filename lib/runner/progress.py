"""What the terminal shows, and the log keeps, while notebooks run.

On a terminal a line is kept up to date for each notebook that runs: its name, elapsed and expected
time, and the progress bar of a long cell or the cell itself. In a file each notebook has a line at
its start and one at its end, and a sign of life every few minutes; in CI the latter is omitted. The
log has all of it with the time of day, every cell with its notebook's number, and each bar once.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import TextIO

from ..base.words import clock, printable

SIGN_OF_LIFE = 300.0  # seconds
_ERASE, _ERASE_ABOVE = "\r\x1b[K", "\x1b[A\x1b[K"
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# tqdm's line, of which the drawing and the rate are left out: a terminal is narrow.
_BAR = re.compile(r"^([^|]*?)\s*(\d+%)\|[^|]*\|\s*(\S+ \[[^<,\]]*(?:<([\d:]+))?).*$")


def _seconds(text: str) -> float:
    """ "1:15": 75."""
    total = 0
    for part in text.split(":"):
        total = total * 60 + int(part)
    return total


class _Screen:
    """A stream that keeps lines up to date at its end, if it is a terminal; for several threads.

    running : the notebooks that run, a line for each
    rest    : seconds that those which have not begun take, if that is known
    """

    def __init__(self, stream: TextIO | None):
        # None where standard output is closed: then only the log is kept.
        self.stream = stream or sys.stdout or io.StringIO()
        self.live = self.stream.isatty()
        self.running: list[Running] = []
        self.rest: float | None = None
        self._lock = threading.RLock()
        self._drawn = 0  # lines

    def say(self, text: str) -> None:
        with self._lock:
            self._put(f"{self._erased()}{text}\n")
            self.draw()

    def draw(self) -> None:
        if not self.live:
            return
        size = shutil.get_terminal_size()
        width = max(size.columns - 1, 20)
        with self._lock:
            lines = [each.state(width)[:width] for each in self.running[: max(size.lines - 1, 1)]]
            if lines:
                text = f"{self._erased()}{chr(10).join(lines)}"
                self._drawn = len(lines)
                self._put(text)

    def _erased(self) -> str:
        above, self._drawn = max(self._drawn - 1, 0), 0
        return (_ERASE + above * _ERASE_ABOVE) * self.live

    def _put(self, text: str) -> None:
        # A terminal that has gone must not end a run that works through the night.
        with contextlib.suppress(OSError):
            self.stream.write(text)
            self.stream.flush()


class Progress:
    """Receives a run's events.

    stream : where to show them; standard output if not given
    log    : a file to append to
    quiet  : no sign of life where there is no terminal; the default in CI
    beside : another run's, with which it shares the terminal
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        log: Path | None = None,
        quiet: bool | None = None,
        beside: Progress | None = None,
    ):
        self.screen = beside.screen if beside else _Screen(stream)
        self.quiet = bool(os.environ.get("CI")) if quiet is None else quiet
        self.log = log

    def say(self, text: str) -> None:
        """A line that stays."""
        text = printable(text)
        self.screen.say(text)
        self.note(text)

    def begin(self, title: str, usual: float | None = None) -> Running:
        """A notebook begins.

        usual : seconds that it took last time, if there was one
        """
        return Running(self, title, usual)

    def rest(self, seconds: float | None) -> None:
        """What has not begun takes so many seconds; None where that is not known."""
        self.screen.rest = seconds

    def note(self, text: str) -> None:
        """Lines for the log alone."""
        if self.log is None:
            return
        now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        # A log that cannot be written, a full disk above all, must not end the run.
        with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8") as log:
            log.write("".join(f"{now}  {line}\n" for line in text.splitlines()))


class Running:
    """A notebook that runs; also a writable file for its cells' stderr."""

    def __init__(self, progress: Progress, title: str, usual: float | None):
        self._progress, self._screen, self._title = progress, progress.screen, title
        self._number = title.rpartition(" ")[2].partition("_")[0]
        self._cell = self._bar = ""
        self._usual, self._bar_left = usual, None
        self._started = time.monotonic()
        self._ended = threading.Event()
        if self._screen.live:
            progress.note(f"{title} …")
        else:
            progress.say(f"{title} …")
        self._screen.running.append(self)
        threading.Thread(target=self._beat, daemon=True).start()

    def cell(self, text: str) -> None:
        """A cell begins. text : "cell 2/6: its first line" """
        self._note_bar()
        self._cell = text
        self._note(text)
        self._screen.draw()

    def end(self, status: str, seconds: float, detail: str = "") -> None:
        """The notebook has ended."""
        self._ended.set()
        self._note_bar()
        self._screen.running.remove(self)
        more = "".join(f"\n  {line}" if line else "\n" for line in detail.splitlines())
        self._progress.say(f"{self._title}: {status} in {clock(seconds)}{more}")

    # --- the cells' stderr: bars, and warnings -----------------------------------

    def write(self, text: str) -> int:
        for back, line in re.findall(r"(\r?)([^\r\n]*)", _ESCAPE.sub("", text)):
            found = _BAR.match(line.strip())
            if found:
                *parts, left = found.groups()
                self._bar = " ".join(part for part in parts if part) + "]"
                self._bar_left = _seconds(left) if left else None
            elif back and line.strip():  # a bar whose end is not known, or another's
                self._bar, self._bar_left = line.strip(), None
            elif line.strip():
                self._note(line.strip()[:1000])
        self._screen.draw()
        return len(text)

    def flush(self) -> None:
        """Part of a file's interface; every line is flushed as it is drawn."""

    # --- drawing --------------------------------------------------------------

    def state(self, width: int = 1000) -> str:
        """Its line: title, times, and what it does now."""
        elapsed = time.monotonic() - self._started
        usual = "" if self._usual is None else f" of ~{clock(self._usual)}"
        parts = [self._title, f"{clock(elapsed)}{usual}", self._bar or self._cell]
        left = self._all_left()
        whole = [*parts[:2], f"~{clock(left)} left", parts[2]] if left else parts
        # A bar tells its own time: rather than cut it, the estimate is omitted.
        text = " · ".join(whole)
        return text if len(text) <= width or not self._bar else " · ".join(parts)

    def left(self) -> float | None:
        """Seconds until its end, by what it took last time and by its bar."""
        if self._usual is None:
            return None
        elapsed = time.monotonic() - self._started
        return max(self._usual - elapsed, self._bar_left or 0)

    def _all_left(self) -> float | None:
        """Seconds until the run's end, on the first line alone."""
        running, rest = self._screen.running, self._screen.rest
        if not running or running[0] is not self or rest is None:
            return None
        left = [each.left() for each in running]
        return max(left) + rest if None not in left and max(left) > 0 else None

    def _beat(self) -> None:
        while not self._ended.wait(1.0 if self._screen.live else SIGN_OF_LIFE):
            if self._screen.live:
                self._screen.draw()
            elif not self._progress.quiet:
                self._progress.say(self.state())

    def _note_bar(self) -> None:
        if self._bar:
            self._note(self._bar)
            self._bar, self._bar_left = "", None

    def _note(self, text: str) -> None:
        self._progress.note("".join(f"{self._number}  {line}\n" for line in text.splitlines()))
