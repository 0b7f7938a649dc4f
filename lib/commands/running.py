"""How every command ends: one line saying what went wrong, and an exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence

from ..base.shortage import is_out_of_memory
from ..base.words import printable

# The option --accept, as run_all.py has it; `accepted` reads it.
ACCEPT = {
    "nargs": "+", "action": "extend", "default": [], "metavar": "NAME",
    "help": "tensors that weights files may lack or have beyond their network's, by name or "
    "pattern ('*.total_ops')",
}  # fmt: skip


def accepted(options: argparse.Namespace) -> list[str]:
    """The names of --accept, given with spaces or commas between them."""
    return [name.strip() for text in options.accept for name in text.split(",") if name.strip()]


def print_remarks(remarks: Mapping[str, Sequence[str]]) -> None:
    """Print what a reader of results must know of the weights, a line per variant."""
    for variant, words in remarks.items():
        print(printable(f"about the weights of {variant}: {'; '.join(words)}"), file=sys.stderr)


def run(name: str, work: Callable[[], int | None], interrupted: str = "", memory: str = "") -> int:
    """Do a command's work; returns its exit status, 2 for an invalid request.

    name        : of the command, before its messages
    interrupted : what to say after Ctrl-C, which ends with 130
    memory      : what to do where memory is short
    """
    try:
        return work() or 0
    except (ValueError, OSError) as error:  # a full disk is one, and so are missing weights
        print(printable(f"{name}: {error}"), file=sys.stderr)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        print("\n".join(filter(None, [f"{name}: too little memory: {error}", memory])),
              file=sys.stderr)  # fmt: skip
    except KeyboardInterrupt:
        print(f"{name}: ended{interrupted}", file=sys.stderr)
        return 130
    return 2
