"""Mutation testing: would a test notice if the project computed something wrong?

    python tests/mutants/run.py [--only KEY ...] [--under FOLDER ...]

The project's tracked files are copied to a temporary folder. Each mutant of `mutants.py` in turn is
put there, its tests are run, and its file is restored; the working tree is only read. A mutant is
caught if a test fails or takes too long.

Exit status 0: each mutant fits its file, the tests pass without any, and at least 95 % of the
mutants are caught, those whose survival is explained not counted. Else 1.
"""

from __future__ import annotations

import os
import sys

# Before torch is imported. Several threads a process can do no good after a fork.
for _library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"

import argparse
import multiprocessing
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import hypothesis
import pytest
from mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
SHARE = 0.95
LIMIT = 60  # seconds for a mutant's tests, which take a few
# Tests run in processes forked from this one. It imports what takes seconds, and nothing of the
# project itself.
HEAVY = (
    "torch", "torchvision", "timm", "DCLS.construct.modules", "pytorch_grad_cam", "captum.attr",
    "scipy.stats", "sklearn.metrics", "statsmodels.stats.power", "matplotlib.pyplot", "seaborn",
    "pandas", "pyarrow.parquet", "numba", "nbformat", "tfrecord",
)  # fmt: skip
OPTIONS = ("-x", "-q", "--assert=plain", "-p", "no:cacheprovider")
CAUGHT = ("caught", "too slow")


def copy_tracked(folder: Path) -> None:
    """The project's tracked files, as they are in the working tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():  # it may be deleted and not yet committed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def _test(folder: Path, tests: Sequence[str], compiled_is_kept: bool) -> None:
    """What a tests' process does. It ends with pytest's status plus 10: python's own is 1."""
    with (folder / "said.txt").open("w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    os.chdir(folder)
    sys.path[0] = str(folder)
    sys.dont_write_bytecode = not compiled_is_kept
    sys.exit(10 + pytest.main([*OPTIONS, *tests]))


def run_tests(folder: Path, tests: Sequence[str], limit: float, mutated: bool = True) -> str:
    """ "survived" if they pass, "caught" if one fails, "too slow", or "error": they cannot run."""
    shutil.rmtree(folder / "data" / "output", ignore_errors=True)  # an earlier mutant's scores
    process = multiprocessing.get_context("fork").Process(
        target=_test, args=(folder, tests, not mutated), daemon=True
    )
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
        return "too slow"
    return {10: "survived", 11: "caught"}.get(process.exitcode, "error")


def run_mutant(folder: Path, mutant: Mutant) -> str:
    """How its tests end, in a copy of the project that is as before afterwards."""
    path = folder / mutant.file
    text, times = path.read_text(), path.stat()
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        return run_tests(folder, mutant.tests, LIMIT)
    finally:
        path.write_text(text)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # what is compiled of it is right


def run_all(folder: Path, mutants: Sequence[Mutant]) -> int:
    """Run the mutants one by one, print a table of them and what follows; the exit status."""
    copy_tracked(folder)
    unfit = [m.key for m in mutants if (folder / m.file).read_text().count(m.old) != 1]
    if unfit:
        print(f"not exactly once in its file is the old text of: {', '.join(unfit)}")
        return 1
    tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    print(f"without a mutant: {len(tests)} files and tests", flush=True)
    if run_tests(folder, tests, LIMIT * len(tests), mutated=False) != "survived":
        print((folder / "said.txt").read_text(), "\nthe tests do not pass without a mutant")
        return 1
    ends: dict[str, str] = {}
    for number, mutant in enumerate(mutants, 1):
        started = time.perf_counter()
        end = ends[mutant.key] = run_mutant(folder, mutant)
        took = time.perf_counter() - started
        print(f"{number:3}/{len(mutants)}  {mutant.key:42}{mutant.file:34}{took:5.1f} s  {end}",
              flush=True)  # fmt: skip
        if end == "error":
            print((folder / "said.txt").read_text())
    for mutant in mutants:
        if mutant.why_survives:
            print(f"{mutant.key} {ends.pop(mutant.key)}; explained: {mutant.why_survives}")
    caught = sum(end in CAUGHT for end in ends.values())
    share = caught / len(ends) if ends else 1.0
    print(f"caught {caught} of {len(ends)} ({share:.0%})")
    if survivors := [key for key, end in ends.items() if end not in CAUGHT]:
        print(f"survivors: {', '.join(survivors)}")
    return int(share < SHARE or "error" in ends.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--only", nargs="+", default=[], metavar="KEY", help="these mutants")
    parser.add_argument("--under", nargs="+", default=[""], metavar="FOLDER",
                        help="those of files in these folders, such as lib/scores")  # fmt: skip
    options = parser.parse_args()
    if unknown := set(options.only) - {mutant.key for mutant in MUTANTS}:
        parser.error(f"no mutant is called {', '.join(sorted(unknown))}")
    chosen = [m for m in MUTANTS if m.file.startswith(tuple(options.under))]
    chosen = [m for m in chosen if m.key in options.only or not options.only]
    if not chosen:
        parser.error("there is no such mutant")
    # The same examples every time, and no search for smaller ones that fail too.
    hypothesis.settings.register_profile(
        "mutants", derandomize=True, database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )  # fmt: skip
    hypothesis.settings.load_profile("mutants")
    for name in HEAVY:
        import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        return run_all(Path(folder), chosen)


if __name__ == "__main__":
    sys.exit(main())
