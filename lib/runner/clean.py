"""What `make clean` does to results: removes what runs wrote, unless one is at work."""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path

from ..base.paths import DATA, FIGURES, OUTPUT, shown
from ..study.profiles import PROFILES
from .exclusive import sole_run
from .faults import RunError


def main() -> int:
    """Returns 0, or the exit status that a run has which finds another one at work."""
    drawn = [path for key in PROFILES for path in FIGURES.glob(f"{key}*")]
    folders = [f for f in (OUTPUT, DATA / "rehearsal", *drawn) if f.is_dir()]
    try:
        with contextlib.ExitStack() as held:
            for lock in sorted(OUTPUT.glob("*/run.lock")):
                held.enter_context(sole_run(lock.parent, "make clean"))
            for folder in folders:
                print(f"removing {shown(folder)}")
                _remove(folder)
    except RunError as error:
        named = str(error).splitlines()[0]
        print(f"make clean: nothing was removed: {named} Wait for it, or end it.", file=sys.stderr)
        return error.fault.exit_status
    except OSError as error:
        print(f"make clean: {error}", file=sys.stderr)
        return 1
    return 0


def _remove(folder: Path) -> None:
    """The folder; of a link to one on another disk what is in it, and the link stays."""
    if not folder.is_symlink():
        shutil.rmtree(folder)
        return
    for path in folder.iterdir():
        _remove(path) if path.is_dir() and not path.is_symlink() else path.unlink()


if __name__ == "__main__":
    raise SystemExit(main())
