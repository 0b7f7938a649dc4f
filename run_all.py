"""Reproduce the study: run the numbered notebooks and regenerate every result.

    python run_all.py --profile gaze demo    the embedded examples, minutes, need nothing
    python run_all.py                        the full study; needs ClickMe and checkpoints

What has succeeded and is still valid is kept: the same command resumes a run.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import re
import shlex
import shutil
import sys
import warnings
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn


def _lacking(error: ImportError) -> str:
    """What a Python is told that cannot import what a run needs."""
    install, here = f"{shlex.quote(sys.executable)} -m pip install", Path(__file__).resolve().parent
    return (
        f"this Python, {sys.executable}, lacks what is needed: {error}\n"
        "Activate the study's environment, or install it here:\n"
        f"    {install} -r {shlex.quote(str(here / 'requirements.lock'))}\n"
        f"    {install} --no-deps -e {shlex.quote(str(here))}"
    )


try:
    from lib.base.files import existing
    from lib.base.paths import NOTEBOOKS, OUTPUT, ROOT, STAGING, shown
    from lib.base.shortage import is_disk_full
    from lib.base.tables import UnknownName, unknown_name
    from lib.base.words import counted, printable
    from lib.commands.reading import add_reading
    from lib.maps.methods import METHODS, PUBLISHED_METHODS
    from lib.networks.backbones import BACKBONES
    from lib.networks.precision import PRECISIONS
    from lib.people.protocols import PROTOCOLS
    from lib.runner import signals
    from lib.runner.faults import FAULTS, RunError, disk_advice
    from lib.study.choices import NAMES
    from lib.study.comparisons import COMPARISONS
    from lib.study.profiles import PROFILES, TARGETS
    from lib.study.rules import RULES
    from lib.study.study import NamedModels, Study
except ImportError as error:
    print(f"run_all.py: {_lacking(error)}", file=sys.stderr)
    sys.exit(4)  # "not ready"
except KeyboardInterrupt:
    print("\nrun_all.py: interrupted before any notebook began", file=sys.stderr)
    sys.exit(130)

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


class _Parser(argparse.ArgumentParser):
    def parse_args(self, args=None, namespace=None):
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            self.error(str(unknown_name("option", unknown[0], known)))
        return options

    def error(self, message: str) -> NoReturn:
        print(f"run_all.py: {message}\n`python run_all.py --help` lists all.", file=sys.stderr)
        sys.exit(FAULTS["wrong option"].exit_status)


def _names(text: str) -> list[str]:
    if "@" in text and Path(text.partition("@")[2]).exists():
        return [text]  # a path may hold commas
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing; leave the option out for all")
    return names


def _name(text: str) -> str:
    (name,) = _names(text)[:1]
    return name


def _folder(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty text names no folder")
    return text


def _batch_size(text: str) -> int:
    if text == "auto":
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a number of images")
    return int(text)


def _jobs(text: str) -> int:
    if text == "auto":
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a number of notebooks")
    return int(text)


def _share(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no share; write 1/8, 2/8, … or 8/8")
    return int(found[1]), int(found[2])


def duration(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 90s, 30m or 8h")
    return seconds


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="run_all.py",
        description=__doc__,
        epilog="exit status\n   0  all is well\n"
        + "\n".join(f"{fault.exit_status:4}  {fault.meaning}" for fault in FAULTS.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what is studied").add_argument
    what("--profile", nargs="+", action="extend", type=_names, default=[], metavar="KEY",
         help=f"which data: {', '.join(PROFILES)} (default: paper); of several, one after the "
         "other, each with its report as soon as it is done")  # fmt: skip
    what("--models", nargs="+", action="extend", type=_names, default=[], metavar="MODEL",
         help="these models only (spaces or commas): keys of the table, timm:NAME (published "
         "weights; 'timm:resnet*' takes several), untrained:NAME (random weights), NAME@FILE (your "
         "weights) or NAME@FOLDER (checkpoints of a training); see docs/own-models.md")  # fmt: skip
    what("--methods", nargs="+", action="extend", type=_names, default=[], metavar="KEY",
         help=f"these CAM methods (default: {' '.join(PUBLISHED_METHODS)}; "
         "--list shows all)")  # fmt: skip
    what("--limit", type=int, default=0, metavar="N",
         help="a fixed subset of N images (default: all)")  # fmt: skip
    data = parser.add_argument_group("downloads (paper profile)").add_argument
    data("--data-dir", type=_folder, metavar="FOLDER",
         help="where downloaded files are (default: data)")  # fmt: skip
    data("--download", action="store_true", help="fetch what is missing, then run")
    data("--download-only", action="store_true", help="fetch what is missing, run nothing")
    data("--unverified", action="store_true",
         help="fetch files without their publisher's checksum too; results say so")  # fmt: skip
    data("--offline", action="store_true", help="never use the network")
    what("--protocols", nargs="+", action="extend", type=_names, default=[], metavar="KEY",
         help="how human maps are read (default: published corrected; published needs 17 shards "
         "of 18)")  # fmt: skip
    what("--images", type=_folder, metavar="FOLDER",
         help="score these images and human maps in place of the profile's: a data set of gaze, "
         "shards, .npz files, or images with maps or gaze points (docs/own-data.md)")  # fmt: skip
    add_reading(what)
    what("--extend", type=_folder, metavar="FILE.py",
         help="a file that adds models and methods of yours (see docs/own-models.md)")  # fmt: skip
    what("--accept", nargs="+", action="extend", type=_names, default=[], metavar="NAME",
         help="tensors that weights files may lack or have beyond their network's, by name or "
         "pattern ('*.total_ops'); results say so")  # fmt: skip
    what("--target", default="", metavar="CLASS",
         help=f"whose evidence maps show: {' or '.join(TARGETS)} (default: the profile's, most "
         f"often {TARGETS[0]}, the image's label)")  # fmt: skip
    judged = parser.add_argument_group("how results are judged (docs/statistics.md)").add_argument
    judged("--ceiling", type=float, default=0.0, metavar="RHO",
           help="how well these people agree, where you know it (default: ClickMe's own; of other "
           "data estimated from their observers, or none)")  # fmt: skip
    judged("--smallest-effect", type=float, default=RULES.smallest_effect, metavar="SCORE",
           help="difference of scores below which it does not matter (default: "
           f"{RULES.smallest_effect:g})")  # fmt: skip
    judged("--compare", nargs="+", action="extend", type=_names, default=[], metavar="MODEL",
           help=f"what is compared: {', '.join(COMPARISONS)} (default: what the models ask "
           "for); or models, of which every two are: convnext_tiny convnext_tiny_dcls "
           "resnet50:grad_cam")  # fmt: skip
    how = parser.add_argument_group("how").add_argument
    how("--device", default="auto", help="auto, cpu, cuda, cuda:<number>, mps (default: auto)")
    how("--batch-size", type=_batch_size, default=0, metavar="N",
        help="images per forward; auto (default) halves it where memory is short")  # fmt: skip
    how("--precision", default="float32",
        help=f"of the networks' features: {', '.join(PRECISIONS)} (default: float32)")  # fmt: skip
    how("--compile", action="store_true", help="compile networks first: 5-40 s each")
    how("--workers", type=int, default=0, metavar="N", help="score by N processes at once (Dask)")
    how("--scheduler", default="", metavar="ADDRESS",
        help="score on the workers of this Dask scheduler (tcp://host:8786)")  # fmt: skip
    how("--share", type=_share, metavar="I/N",
        help="cache the scores of share I of N and run no notebook; for the tasks of a job array "
        "on one shared disk (docs/cluster.md)")  # fmt: skip
    how("--name", default="", metavar="NAME",
        help="of the folders of results, PROFILE_NAME; else another run on a part of the data "
        "replaces these")  # fmt: skip
    how("--whole", action="store_true",
        help="long analyses on all images of their sample, as for the paper (on the demo: some ten "
        "minutes; results go to PROFILE_whole)")  # fmt: skip
    how("--keep-going", action="store_true",
        help="leave out what is missing or cannot be read, and say so in the results")  # fmt: skip
    how("--jobs", type=_jobs, default=0, metavar="N",
        help="run so many notebooks at once, at most, where none reads the other's results; auto "
        "(default): by cores and free memory; on a GPU, and with --workers, one")  # fmt: skip
    how("--timeout", type=duration, metavar="TIME",
        help="end a notebook after so long: 90s, 30m, 8h (default: never)")  # fmt: skip
    which = parser.add_argument_group("which notebooks").add_argument
    which("--only", nargs="+", action="extend", type=_names, default=[], metavar="NOTEBOOK",
          help="these, by number or name")  # fmt: skip
    which("--from", dest="first", type=_name, metavar="NOTEBOOK",
          help="this one and those after it")  # fmt: skip
    which("--force", action="store_true",
          help="run them even if they are up to date (cached scores are still used)")  # fmt: skip
    which("--dry-run", action="store_true",
          help="check everything, say what would run and why; run nothing")  # fmt: skip
    which("--open", action="store_true",
          help="open each report in the browser when it is done, where there is a desktop; never "
          "in CI or where the output goes to a file")  # fmt: skip
    which("--list", action="store_true", help="list notebooks, models, methods, profiles")
    return parser


def _flat(groups: list[list[str]]) -> list[str]:
    return [name for group in groups for name in group]


def _given(value: object) -> object:
    """An option as notebooks take it: names in one list, "" for a text that is not given."""
    if value is None:
        return ""
    if isinstance(value, list):
        return _flat(value) if value and isinstance(value[0], list) else value
    return value


def _with_own_rows(file: str) -> None:
    from lib.study.extension import load_extension
    from lib.study.plug_ins import load_plug_ins

    try:
        load_plug_ins("models", "methods")
        if file:
            load_extension(Path(file))
    except ValueError as error:
        raise RunError("wrong option", str(error)) from None


def _print_lists(steps) -> None:
    print("notebooks (--only, --from)")
    for step in steps:
        print(f"  {step.name}\n    reads  {', '.join(step.reads) or 'nothing'}")
        print("\n".join(f"    writes {path}" for path in step.writes))
    for title, table in (("models", BACKBONES), ("methods", METHODS), ("protocols", PROTOCOLS),
                         ("compare", COMPARISONS), ("profile", PROFILES)):  # fmt: skip
        print(f"\n{title} (--{title})")
        for row in table.values():
            print(f"  {row.key:<20} {row.label}")
            if note := getattr(row, "note", ""):
                print(f"    {note}")
            if getattr(row, "named", ""):
                print(f"    {row.named}; {_layer(row)}")


def _study(values: dict) -> Study:
    """The study of these options; what names of models stand for is said."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", NamedModels)
        try:
            study = Study.from_profile(**values)
        except ImportError as error:
            raise RunError("not ready", _lacking(error)) from None
    for warning in told:
        if issubclass(warning.category, NamedModels):
            print(printable(f"{warning.message}"), flush=True)
    return study


def _layer(backbone) -> str:
    """Where the maps of a model by name are made."""
    from lib.networks.checked import where  # here, as above: it pulls in torch

    return f"layer: {where(backbone)}"


def _here() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - may fail
    except FileNotFoundError:
        return ""


def _from_here(path: Path) -> str:
    """A path that can be pasted into the terminal: from the project's folder on only there."""
    return shown(path) if _here() == str(ROOT) else str(path)


def _complain(text: object) -> None:
    print(printable(f"run_all.py: {text}"), file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # for terminals without some sign
    arguments = sys.argv[1:] if arguments is None else arguments
    options = build_parser().parse_args(arguments)
    try:
        with signals.handled():
            return _run(options, arguments)
    except signals.Interruption as interruption:
        _complain(f"{interruption.fault.key} before any notebook began; what was fetched is kept")
        return interruption.fault.exit_status
    except UnknownName as error:
        _complain(error)
        return FAULTS["wrong option"].exit_status
    except RunError as error:
        _complain(error)
        return error.fault.exit_status
    except BrokenPipeError:  # `--list | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


@dataclass(frozen=True)
class _Asked:
    """What is asked for of one profile. values : the notebooks' parameters; chosen : notebooks"""

    study: Study
    values: dict
    chosen: list


def _run(options: argparse.Namespace, arguments: list[str]) -> int:
    # What takes long to be imported comes later: a refused option, or a list, is told at once.
    try:
        from lib.runner import steps
    except ImportError as error:
        raise RunError("not ready", _lacking(error)) from None
    if not _here():
        os.chdir(ROOT)  # the folder that this was started in has been deleted

    known = steps.find_steps()
    profiles = list(dict.fromkeys(_flat(options.profile))) or ["paper"]
    values = {name: _given(getattr(options, name)) for name in NAMES} | {"profile": profiles[0]}
    if options.list:
        _with_own_rows(options.extend)
        if options.models:
            try:
                _study(values)
            except ValueError as error:
                raise RunError("wrong option", str(error)) from None
        _print_lists(known)
        return 0
    asked = [_asked(options, values | {"profile": profile}, known) for profile in profiles]
    if options.only and options.first:
        raise RunError("wrong option", "--only and --from exclude each other")
    if options.unverified and not (options.download or options.download_only):
        raise RunError("wrong option", "--unverified is for --download and --download-only")
    if options.offline and (options.download or options.download_only):
        raise RunError("wrong option", "--offline and --download exclude each other")
    if options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # for the notebooks' kernels
    if options.share:
        return _score_shares(options, [each.study for each in asked])
    command = shlex.join(["python", "run_all.py", *arguments])
    with contextlib.ExitStack() as stack:
        return _work(options, arguments, command, known, asked, stack)


def _score_shares(options: argparse.Namespace, studies: list[Study]) -> int:
    """Cache one share of each study's scores; returns the exit status."""
    # Not --only and the like: one list of options serves the array and the notebooks' job.
    beside = ("workers", "scheduler", "dry_run", "download", "download_only")
    if others := [name.replace("_", "-") for name in beside if getattr(options, name)]:
        raise RunError("wrong option", f"--share and --{others[0]} exclude each other")
    from lib.networks.checkpoints import WeightsError  # here, as above: they pull in torch
    from lib.people.stored import StoredError
    from lib.scores import score_share

    number, count = options.share
    is_complete = True
    for study in studies:
        try:
            result = score_share(study, number, count)
        except FileNotFoundError as error:
            raise RunError("missing files", str(error)) from None
        except (StoredError, WeightsError) as error:
            raise RunError("unreadable files", str(error)) from None
        except OSError as error:
            fault = "disk full" if is_disk_full(error) else "not ready"
            place = shown(study.places.scores)
            raise RunError(fault, f"scores cannot be written to {place}: {error}") from None
        except signals.Interruption as interruption:
            _complain(
                f"{interruption.fault.key}: share {number}/{count} is not complete. Finished "
                "scores are cached: run the same command again"
            )
            return interruption.fault.exit_status
        is_complete &= not result.skipped
        print(printable(
            f"{study.choices.profile.label}, share {number}/{count}: {result.computed} scored, "
            f"{result.cached} in the cache, {counted(len(result.skipped), 'item')} skipped"
        ), flush=True)  # fmt: skip
    return 0 if is_complete else FAULTS["left out"].exit_status


def _asked(options: argparse.Namespace, values: dict, known: list) -> _Asked:
    from lib.runner import steps

    try:
        study = _study(values)
        # Kernels run in the notebooks' folder: from there a relative path leads elsewhere.
        values |= {name: getattr(study.choices, name) for name in ("data_dir", "images", "extend")}
        if any(backbone.named for backbone in study.choices.backbones):
            values["models"] = study.choices.options()["models"]
    except ValueError as error:
        raise RunError("wrong option", str(error)) from None
    takes = study.choices.takes
    chosen = steps.select_steps(known, _flat(options.only), options.first or "", takes)
    steps.check_parameters(chosen, values)
    return _Asked(study, values, chosen)


def _work(
    options: argparse.Namespace, arguments: list[str], command: str, known: list,
    asked: list[_Asked], stack: contextlib.ExitStack,
) -> int:  # fmt: skip
    """Fetch, check and run what is asked for; returns the exit status."""
    from lib.runner.exclusive import sole_run
    from lib.runner.progress import Progress

    screen = Progress()
    is_dry = options.dry_run
    logs = [None if is_dry else each.study.places.output / "run.log" for each in asked]
    progress = [Progress(log=log, beside=screen) for log in logs]
    for each, tell in zip(asked, progress, strict=True):
        if is_dry:
            continue
        killed = stack.enter_context(sole_run(OUTPUT / each.study.choices.profile.key, command))
        if killed:
            tell.say(f"The last run was killed ({killed}). What it had finished is kept.\n")
        if options.download or options.download_only:
            tolerant = options.keep_going and not options.download_only
            _download(each.study, tell, tolerant, options.unverified)
    if options.download_only and not is_dry:
        return 0
    warm = _warm_parent(asked, stack)
    _import_the_rest()
    from lib.runner import preflight
    from lib.runner.side_by_side import SideBySide, usual_jobs

    def session(of: _Asked, tell: Progress):
        return prepared(options, of.study, known, of.chosen, of.values, command, tell, warm)

    for each in asked[1:]:
        if problems := preflight.check_files(each.chosen, each.study):
            raise RunError(problems[0].fault.key, "\n\n".join(map(str, problems)))
    first = session(asked[0], progress[0])
    if is_dry:
        for each, tell in zip(asked[1:], progress[1:], strict=True):
            session(each, tell)
        return 0

    def sessions() -> Iterator:
        yield first
        for each, tell in zip(asked[1:], progress[1:], strict=True):
            yield session(each, tell)

    statuses: list[int] = []

    def closing(ended) -> None:
        statuses.append(_close(options, _for_one(arguments, asked, ended.study), ended))

    workers = bool(options.workers or options.scheduler)
    jobs = options.jobs or usual_jobs(first.environment["device"], workers)
    SideBySide(jobs, closing).run(sessions())
    signals.forget()
    ending = [status for status in statuses if status > 128]
    return next(iter([*ending, *filter(None, statuses)]), 0)


def _warm_parent(asked: list[_Asked], stack: contextlib.ExitStack):
    """The process that kernels are forked from, which begins to import; None where none can be."""
    from lib.runner.manifest import code_of_the_package
    from lib.runner.temporary import staging_folder
    from lib.runner.warm import CAN_FORK, WarmParent, names_to_import

    if not CAN_FORK:
        return None
    names = names_to_import(step for each in asked for step in each.chosen)
    # By which the next run finds it, and what it has forked, should nobody be left to end them.
    marker = {STAGING: str(staging_folder(asked[0].study.places.output))}
    warm = WarmParent(names, NOTEBOOKS, marker, code_of_the_package())
    stack.callback(warm.close)
    return warm


def _import_the_rest() -> None:
    """What executing notebooks needs. Raises RunError for a package that is not there."""
    # jsonschema, of nbformat, makes a grammar of web addresses for seconds where this is
    # installed; no notebook's schema asks for one.
    grammar = "rfc3987_syntax"
    is_hidden = sys.modules.setdefault(grammar, None) is None
    try:
        from lib.runner import preflight, side_by_side  # noqa: F401
    except ImportError as error:
        raise RunError("not ready", _lacking(error)) from None
    finally:
        if is_hidden:
            del sys.modules[grammar]


def _for_one(arguments: list[str], asked: list[_Asked], study: Study) -> list[str]:
    """The arguments that ask for this study alone."""
    if len(asked) == 1:
        return arguments
    from lib.runner.outcomes import without

    return ["--profile", study.choices.profile.key, *without(arguments, "--profile")]


def _close(options: argparse.Namespace, arguments: list[str], session) -> int:
    """Tell what came of a session, and write its report; returns its exit status."""
    from lib.runner import outcomes

    study, results = session.study, session.outcomes
    missed = _left_out(study, results) if study.choices.keep_going else []
    status = outcomes.exit_status(results)
    if missed and not status:
        status = FAULTS["left out"].exit_status
    again = outcomes.resume_command(arguments, results, options.force, options.batch_size)
    told = _rows_of(study, results, "weights.csv", "label", "remarks")
    table = outcomes.closing_table(results)
    session.progress.say(_closing(study, table, missed, told, status, again))
    session.progress.say(_reported(study, options.open))
    return status


_ADVICE = {1: "mend it, then go on with", 6: "with a longer --timeout, go on with"}


def _left_out(study: Study, results) -> list[str]:
    """What this run's results say that they lack."""
    names = ("left_out.csv", "cose_left_out.csv")
    found = [_rows_of(study, results, name, "left_out", "reason") for name in names]
    return list(dict.fromkeys(line for lines in found for line in lines))


def _rows_of(study: Study, results, name: str, of: str, said: str) -> list[str]:
    """Lines of a table of this run: what something is said of, and what, if anything."""
    path = study.places.tables / name
    if not any(shown(path) in outcome.outputs for outcome in results):
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [f"  {row[of]}: {row[said]}" for row in csv.DictReader(file) if row[said]]
    except FileNotFoundError:
        return []


def _closing(
    study: Study, table: str, missed: list[str], told: list[str], status: int, again: str
) -> str:
    advice = _ADVICE.get(status, "go on with")
    where = f"{_from_here(study.places.output)}/manifest.json, run.json; run.log"
    lines = ["", table, "", f"With hashes and versions: {where}"]
    if missed:
        more = f"\n  … and {len(missed) - 10} more, see left_out.csv" if len(missed) > 10 else ""
        lines += [f"Left out ({len(missed)}):", *missed[:10]] + ([more] if more else [])
    if told:
        lines += ["About the weights:", *told]
    if status == FAULTS["left out"].exit_status:
        lines += [f"Complete but for that (exit status {status}); once mended, run it again with"]
        lines += [f"    {again}"]
    elif status:
        lines += [f"Not complete (exit status {status}). What is finished is kept; {advice}"]
        lines += [f"    {again}"]
    return "\n".join([*lines, *filter(None, [study.choices.profile.caveat])])


def _reported(study: Study, open_it: bool) -> str:
    """Where the report is, or why there is none."""
    from lib.report.page import write_report  # here, as above

    try:
        page = write_report(study)
        if open_it and has_desktop():
            webbrowser.open(page.as_uri())
        return f"All of it on one page: {_from_here(page)}"
    except Exception as error:  # the results are there, whatever keeps them from one page
        return f"The report could not be written: {type(error).__name__}: {error}"


def has_desktop() -> bool:
    """Whether somebody sits before a browser."""
    own = sys.platform in ("darwin", "win32")
    shows = own or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(shows) and not os.environ.get("CI") and bool(sys.stdout) and sys.stdout.isatty()


def _download(study: Study, progress, tolerant: bool, unverified: bool) -> None:
    """Fetch what the study lacks. Raises RunError naming what could not be, unless tolerant."""
    # Here, as in `_run`: what a broken installation lacks is told, and `--help` does not wait.
    from lib.networks.download import fetch
    from lib.networks.requesting import DownloadError

    place = study.inputs.downloads
    sources = [s for s in study.inputs.sources() if not (place / s.place).is_file()]
    needed = sum(source.about_bytes for source in sources)
    if shutil.disk_usage(existing(place)).free < needed:
        raise RunError("disk full", f"{needed / 1e9:.1f} GB are needed; {disk_advice([place])}")
    try:
        fetch(sources, place, progress.say, unverified)
    except DownloadError as error:
        if tolerant:
            progress.say(f"{error}\n")
            return
        raise RunError("not fetched", str(error)) from None
    except ValueError as error:  # known_files.json is damaged
        raise RunError("changed files", str(error)) from None
    except OSError as error:
        fault = "disk full" if is_disk_full(error) else "not ready"
        raise RunError(fault, f"{shown(place)} cannot be written: {error}") from None
    progress.say(f"all {len(study.inputs.sources())} files are in {shown(place)}\n")


def prepared(options, study, known, chosen, values, command, progress, warm=None):
    """The session, after the preflight; says what it will do. Raises RunError for trouble."""
    from lib.runner import preflight
    from lib.runner.session import Session

    progress.say("Checking inputs, disk, kernel, packages and weights …")
    found = preflight.check(chosen, values, study, warm)
    if found.problems:
        raise RunError(found.problems[0].fault.key, "\n\n".join(map(str, found.problems)))
    for variant, remarks in found.remarks.items():
        progress.say(f"about the weights of {variant}: {'; '.join(remarks)}")
    for backbone in study.choices.backbones:
        if backbone.named:
            progress.say(f"{backbone.label}: {_layer(backbone)}")
    for why in found.left_out:
        progress.say(f"will be left out: {why}")
    session = Session(
        chosen, known, values, study, found.environment, progress,
        options.force, options.timeout, command, warm,
    )  # fmt: skip
    chosen = [
        *(
            study.choices.profile.label,
            counted(len(study.choices.variants), "model"),
            counted(len(study.choices.methods), "method"),
        ),
        *([counted(study.choices.limit, "image")] if study.choices.limit else []),
        found.environment["device"],
    ]
    progress.say(
        f"{', '.join(chosen)}; results go to {_from_here(study.places.figures)} and "
        f"{_from_here(study.places.output)}\n"
        f"{session.plan()}\n"
    )
    return session


if __name__ == "__main__":
    exit_status = main()
    signals.ignore()  # all is said and kept
    sys.exit(exit_status)
