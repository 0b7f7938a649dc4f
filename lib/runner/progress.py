"""What the terminal shows, and the log keeps, while notebooks run.

On a terminal one line is kept up to date: notebook, elapsed and expected time, and the
progress bar of a long cell or the cell itself. In a file each notebook has a line at its
start and one at its end, and a sign of life every few minutes; in CI the latter is left
out. The log has all of it with the time of day, every cell, and each bar once.
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
_ERASE = "\r\x1b[K"
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# tqdm's line, of which the drawing and the rate are left out: a terminal is narrow.
_BAR = re.compile(r"^([^|]*?)\s*(\d+%)\|[^|]*\|\s*(\S+ \[[^<,\]]*(?:<([\d:]+))?).*$")


def _seconds(text: str) -> float:
    """ "1:15": 75."""
    total = 0
    for part in text.split(":"):
        total = total * 60 + int(part)
    return total


class Progress:
    """Receives the run's events; also a writable file for the cells' stderr.

    stream : where to show them; standard output if not given
    log    : a file to append to
    quiet  : no sign of life where there is no terminal; the default in CI
    """

    def __init__(
        self, stream: TextIO | None = None, log: Path | None = None, quiet: bool | None = None
    ):
        # None where standard output is closed: then only the log is kept.
        self.stream = stream or sys.stdout or io.StringIO()
        self.live = self.stream.isatty()
        self.quiet = bool(os.environ.get("CI")) if quiet is None else quiet
        self.log = log
        self._lock = threading.Lock()
        self._title = self._cell = self._bar = ""
        self._started = 0.0
        self._usual_after: float | None = None
        self._usual: float | None = None
        self._bar_left: float | None = None
        self._beating: threading.Event | None = None

    # --- events ---------------------------------------------------------------

    def say(self, text: str) -> None:
        """A line that stays."""
        text = printable(text)
        self._put(f"{_ERASE * self.live}{text}\n")
        self._note(text)

    def begin(
        self, title: str, usual: float | None = None, usual_after: float | None = None
    ) -> None:
        """A notebook begins.

        usual       : seconds that it took last time, if there was one
        usual_after : seconds that all notebooks after it took, if each is known
        """
        self._title, self._cell, self._bar = title, "", ""
        self._usual, self._usual_after = usual, usual_after
        self._started = time.monotonic()
        self._beating = threading.Event()
        if self.live:
            self._note(f"{title} …")
        else:
            self.say(f"{title} …")
        threading.Thread(target=self._beat, args=(self._beating,), daemon=True).start()

    def cell(self, text: str) -> None:
        """A cell begins. text : "cell 2/6: its first line" """
        self._note_bar()
        self._cell = text
        self._note(text)
        self._draw()

    def end(self, status: str, seconds: float, detail: str = "") -> None:
        """The notebook has ended."""
        if self._beating is not None:
            self._beating.set()
            self._beating = None
        self._note_bar()
        more = "".join(f"\n  {line}" if line else "\n" for line in detail.splitlines())
        self.say(f"{self._title}: {status} in {clock(seconds)}{more}")

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
        self._draw()
        return len(text)

    def flush(self) -> None:
        """Part of a file's interface; every line is flushed as it is drawn."""

    # --- drawing --------------------------------------------------------------

    def state(self, width: int = 1000) -> str:
        elapsed = time.monotonic() - self._started
        usual = "" if self._usual is None else f" of ~{clock(self._usual)}"
        parts = [self._title, f"{clock(elapsed)}{usual}", self._bar or self._cell]
        left = self._left(elapsed)
        whole = [*parts[:2], f"~{clock(left)} left", parts[2]] if left else parts
        # A bar tells its own time: rather than cut it, the estimate is left out.
        text = " · ".join(whole)
        return text if len(text) <= width or not self._bar else " · ".join(parts)

    def _left(self, elapsed: float) -> float | None:
        """Seconds until the run's end, from what its notebooks took last time and the bar."""
        if self._usual is None or self._usual_after is None:
            return None
        here = max(self._usual - elapsed, self._bar_left or 0)
        return here + self._usual_after if here > 0 else None

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(1.0 if self.live else SIGN_OF_LIFE):
            if self.live:
                self._draw()
            elif not self.quiet:
                self.say(self.state())

    def _draw(self) -> None:
        if not self.live or self._beating is None:
            return
        width = max(shutil.get_terminal_size().columns - 1, 20)
        self._put(f"{_ERASE}{self.state(width)[:width]}")

    def _put(self, text: str) -> None:
        # A terminal that has gone must not end a run that works through the night.
        with self._lock, contextlib.suppress(OSError):
            self.stream.write(text)
            self.stream.flush()

    def _note_bar(self) -> None:
        if self._bar:
            self._note(self._bar)
            self._bar, self._bar_left = "", None

    def _note(self, text: str) -> None:
        if self.log is None:
            return
        now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        # A log that cannot be written, a full disk above all, must not end the run.
        with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8") as log:
            log.write("".join(f"{now}  {line}\n" for line in text.splitlines()))
