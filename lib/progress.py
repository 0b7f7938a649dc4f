"""What the terminal shows while notebooks run.

On a terminal one line is kept up to date: notebook, cell, elapsed time, and the
progress bar of a long cell. Elsewhere (a file, CI) each notebook gets one line at
its start and one at its end.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import TextIO


class Progress:
    """Receives the run's events; also a writable file for a kernel's stderr."""

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self._lock = threading.Lock()
        self._title = self._cell = self._bar = ""
        self._started = 0.0
        self._beating: threading.Event | None = None

    # --- events ---------------------------------------------------------------

    def begin(self, name: str, number: int, total: int) -> None:
        self._title = f"[{number}/{total}] {name}"
        self._cell = self._bar = ""
        self._started = time.monotonic()
        if self.live:
            self._beating = threading.Event()
            threading.Thread(target=self._beat, args=(self._beating,), daemon=True).start()
        else:
            print(f"{self._title} …", file=self.stream, flush=True)

    def cell(self, position: int, total: int, source: str) -> None:
        first = next((line for line in source.splitlines() if line.strip()), "")
        self._cell, self._bar = f"cell {position}/{total}: {first}", ""
        self._draw()

    @property
    def where(self) -> str:
        """The cell that has begun last, for messages."""
        return self._cell or "no cell"

    def end(self, status: str, seconds: float, detail: str = "") -> None:
        if self._beating is not None:
            self._beating.set()
            self._beating = None
        with self._lock:
            if self.live:
                self.stream.write("\r\x1b[K")
            print(f"{self._title}: {status} in {seconds:.0f} s", file=self.stream, flush=True)
            if detail:
                print(f"  {detail}", file=self.stream, flush=True)

    # --- a kernel's stderr: the last line of a progress bar -------------------

    def write(self, text: str) -> int:
        lines = [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
        if lines:
            self._bar = lines[-1]
            self._draw()
        return len(text)

    def flush(self) -> None:
        """Part of a file's interface; every line is flushed as it is drawn."""

    # --- drawing --------------------------------------------------------------

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(1.0):
            self._draw()

    def _draw(self) -> None:
        if not self.live or self._beating is None:
            return
        elapsed = time.monotonic() - self._started
        line = f"{self._title} · {elapsed:.0f} s · {self._bar or self._cell}"
        width = shutil.get_terminal_size().columns - 1
        with self._lock:
            self.stream.write(f"\r\x1b[K{line[:width]}")
            self.stream.flush()
