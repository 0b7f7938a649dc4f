"""How many processor cores this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Return their number: those assigned to this process, where the system says so."""
    assigned = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if assigned else os.cpu_count() or 1
