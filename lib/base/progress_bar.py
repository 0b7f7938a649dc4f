"""Progress bars that suit the place where they are shown."""

from __future__ import annotations

import os
from typing import Any

from tqdm import tqdm

from .paths import STAGING


def progress_bar(*arguments: Any, **options: Any) -> tqdm:
    """A bar with tqdm's own arguments: a widget in JupyterLab, else text on standard error.

    A notebook under `run_all.py` gets text too: the runner reads it and shows it in the terminal.
    """
    if os.environ.get(STAGING):
        return tqdm(*arguments, **options)
    # Imported here because it finds out at its import whether a notebook's kernel runs; a process
    # may import this module before it becomes one.
    from tqdm.auto import tqdm as suitable

    return suitable(*arguments, **options)
