"""Reproduce the study: run the numbered notebooks and regenerate every result.

    python run_all.py --profile demo    the embedded example, minutes, needs nothing
    python run_all.py                   the full study; needs ClickMe and checkpoints

Exit status: 0 all is well; 1 a notebook failed; 2 an option is wrong; 3 input files
are missing; 130 interrupted.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import NoReturn

from lib.backbones import BACKBONES
from lib.methods import METHODS
from lib.study import PROFILES, MissingInputs, Study
from lib.tables import UnknownName, unknown_name

FAILED, WRONG_OPTION, MISSING, INTERRUPTED = 1, 2, 3, 130


class _Parser(argparse.ArgumentParser):
    def parse_args(self, args=None, namespace=None):
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            self.error(str(unknown_name("option", unknown[0], known)))
        return options

    def error(self, message: str) -> NoReturn:
        print(f"run_all.py: {message}\n`python run_all.py --help` lists all.", file=sys.stderr)
        sys.exit(WRONG_OPTION)


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="run_all.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--profile", default="paper", help=f"which data: {', '.join(PROFILES)} (default: paper)")
    add("--models", nargs="+", type=_names, default=[], metavar="KEY",
        help="these backbones only (spaces or commas), plain and with DCLS")  # fmt: skip
    add("--methods", nargs="+", type=_names, default=[], metavar="KEY", help="these methods only")
    add("--limit", type=int, default=0, metavar="N",
        help="a fixed subset of N pictures (default: all)")  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda, cuda:<number>, mps (default: auto)")
    add(
        "--batch-size", type=int, default=32, metavar="N", help="pictures per forward (default: 32)"
    )
    add("--only", nargs="+", type=_names, default=[], metavar="NOTEBOOK",
        help="these notebooks only, by number or name")  # fmt: skip
    add(
        "--list", action="store_true", help="list notebooks, models, methods, profiles; run nothing"
    )
    return parser


def _flat(groups: list[list[str]]) -> list[str]:
    return [name for group in groups for name in group]


def _print_lists(steps) -> None:
    print("notebooks (--only)")
    for step in steps:
        print(f"  {step.name:<20} writes {', '.join(step.writes) or 'nothing'}")
    for title, table in (("models", BACKBONES), ("methods", METHODS), ("profile", PROFILES)):
        print(f"\n{title} (--{title})")
        for row in table.values():
            print(f"  {row.key:<20} {row.label}")


def _interrupt(*_) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # end the kernel, keep what is finished
    try:
        return _run(_parser().parse_args(arguments))
    except KeyboardInterrupt:
        print(
            "\nrun_all.py: interrupted. What is finished is kept; the same command resumes.",
            file=sys.stderr,
        )
        return INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    from lib import runner  # jupyter and papermill: after the options are read
    from lib.progress import Progress

    try:
        steps = runner.find_steps()
        if options.list:
            _print_lists(steps)
            return 0
        values = {
            "profile": options.profile,
            "models": _flat(options.models),
            "methods": _flat(options.methods),
            "limit": options.limit,
            "device": options.device,
            "batch_size": options.batch_size,
        }
        study = Study.from_profile(**values)
        chosen = runner.select_steps(steps, _flat(options.only))
        runner.check_parameters(chosen, values)
        study.require_inputs()
        if options.device not in ("auto", "cpu"):
            study.torch_device()
        runner.check_kernel()
        for folder in (study.output / "notebooks", study.figures):
            folder.mkdir(parents=True, exist_ok=True)
    except MissingInputs as error:
        print(f"run_all.py: {error}", file=sys.stderr)
        return MISSING
    except OSError as error:
        print(f"run_all.py: cannot write results: {error}", file=sys.stderr)
        return FAILED
    except (UnknownName, ValueError, runner.RunnerError) as error:
        print(f"run_all.py: {error}", file=sys.stderr)
        return WRONG_OPTION

    outcomes = runner.run_steps(chosen, values, study.name, study.output, Progress())
    print(f"\n{runner.closing_table(outcomes)}")
    if study.profile.caveat:
        print(f"\n{study.profile.caveat}")
    return FAILED if any(outcome.status != "ok" for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
