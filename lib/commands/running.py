"""How every command ends: with one line that says what went wrong, and an exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence

from ..base.shortage import is_out_of_memory
from ..base.words import printable

# The option --accept, as in run_all.py; `accepted` reads it.
ACCEPT = {
    "nargs": "+", "action": "extend", "default": [], "metavar": "NAME",
    "help": "tensors that weights files may lack, or have beyond those of their model, by name or "
    "pattern ('*.total_ops')",
}  # fmt: skip


def accepted(options: argparse.Namespace) -> list[str]:
    """Return the names of --accept, given with spaces or commas between them."""
    return [name.strip() for text in options.accept for name in text.split(",") if name.strip()]


def print_remarks(remarks: Mapping[str, Sequence[str]]) -> None:
    """Print what readers of results must know about the weights, one line per variant."""
    for variant, words in remarks.items():
        print(printable(f"about the weights of {variant}: {'; '.join(words)}"), file=sys.stderr)


def run(name: str, work: Callable[[], int | None], interrupted: str = "", memory: str = "") -> int:
    """Do a command's work and return its exit status, 2 for an invalid request.

    name        : the command's name, which begins its messages
    interrupted : what to say after Ctrl-C, which gives the exit status 130
    memory      : what to do if memory is short
    """
    try:
        return work() or 0
    except (ValueError, OSError) as error:  # including a full disk and missing weights
        print(printable(f"{name}: {error}"), file=sys.stderr)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        print("\n".join(filter(None, [f"{name}: out of memory: {error}", memory])),
              file=sys.stderr)  # fmt: skip
    except KeyboardInterrupt:
        print(f"{name}: interrupted{interrupted}", file=sys.stderr)
        return 130
    return 2
