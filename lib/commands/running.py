"""How every command ends: one line saying what went wrong, and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable

from lib.base.shortage import is_out_of_memory


def run(name: str, work: Callable[[], int | None], interrupted: str = "", memory: str = "") -> int:
    """Do a command's work; returns its exit status, 2 for an invalid request.

    name        : of the command, before its messages
    interrupted : what to say after Ctrl-C, which ends with 130
    memory      : what to do where memory is short
    """
    try:
        return work() or 0
    except (ValueError, OSError) as error:  # a full disk is one, and so are missing weights
        print(f"{name}: {error}", file=sys.stderr)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        print("\n".join(filter(None, [f"{name}: too little memory: {error}", memory])),
              file=sys.stderr)  # fmt: skip
    except KeyboardInterrupt:
        print(f"{name}: ended{interrupted}", file=sys.stderr)
        return 130
    return 2
