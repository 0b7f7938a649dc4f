"""Looking for trouble before any work: seconds now, a minute where weights are read, for hours."""

from __future__ import annotations

import inspect
import io
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from nbformat.v4 import new_code_cell, new_notebook

from ..base.files import existing
from ..base.paths import NOTEBOOKS, ROOT, shown
from ..base.shortage import is_disk_full
from ..base.words import in_words
from ..networks.known_files import KnownFiles
from ..people.stored import StoredError, open_parts
from ..study.inputs import MissingInputs
from ..study.outputs import of_another_study
from ..study.places import Places
from ..study.study import Study
from . import within
from .faults import RunError, disk_advice
from .kernel import KERNEL, Kernel
from .progress import Progress
from .steps import Step, literal
from .temporary import temporary_folder
from .warm import WarmParent

# Figures, tables, notebooks and cached scores of the whole study, twice, and some room.
_NEEDED = 200 * 2**20  # bytes
_MARK = "\n--- the kernel's report ---\n"  # imported packages may print as well
# Seconds for starting it, importing what the notebooks import, and reading every weights file,
# of which a cold network disk may hold gigabytes.
_KERNEL_TIMEOUT = 1800.0


def trouble(fault: str, text: str, *mends: str) -> RunError:
    """What is wrong, and the commands that mend it."""
    return RunError(fault, "\n".join([text, *(f"    {mend}" for mend in mends)]))


@dataclass(frozen=True)
class Findings:
    """problems : what would stop the steps
    environment : in which they would run
    remarks     : {variant: what a reader of results must know of its weights}
    left_out    : why weights cannot be used, where the run goes on without them
    """

    problems: Sequence[RunError] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    remarks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    left_out: Sequence[str] = ()


def check(
    steps: Sequence[Step],
    values: Mapping[str, object],
    study: Study,
    warm: WarmParent | None = None,
) -> Findings:
    """Look for everything that would stop the steps.

    warm : the process that kernels are forked from, None to start them alone
    """
    problems = check_files(steps, study)
    if any(p.fault.key == "disk full" for p in problems):
        return Findings(problems)  # nor is there room for a kernel's files
    found = check_kernel(steps, values, warm)
    return replace(found, problems=[*problems, *found.problems])


def check_files(steps: Sequence[Step], study: Study) -> list[RunError]:
    """What needs no kernel: notebooks, what they read, and the disks that they write to."""
    return [*check_notebooks(steps), *check_inputs(steps, study), *check_disk(study.places)]


def check_notebooks(steps: Sequence[Step]) -> list[RunError]:
    """Each is a notebook in every detail, which `steps` does not look at."""
    problems = []
    for step in steps:
        try:
            nbformat.validate(nbformat.read(step.path, as_version=4))
        except (nbformat.ValidationError, ValueError, AttributeError, KeyError, TypeError) as error:
            text = f"{shown(step.path)}: no valid notebook: {str(error).splitlines()[0]}"
            problems.append(trouble("wrong option", text))
    return problems


def check_inputs(steps: Sequence[Step], study: Study) -> list[RunError]:
    problems = []
    try:
        study.inputs.require()
    except MissingInputs as error:
        problems.append(trouble("missing files", str(error)))
    known = {path for paths in study.inputs.files().values() for path in paths}
    problems += check_known(study)
    problems += _check_images(study)
    written: set[Path] = set()
    for step in steps:
        absent = [p for p in step.inputs(study) if p not in known | written and not p.is_file()]
        if absent:
            listed = ", ".join(map(shown, absent))
            verb = "are" if len(absent) > 1 else "is"
            text = f"{step.name} reads {listed}, which {verb} not there"
            problems.append(trouble("missing files", f"{text}; run what writes it before it"))
        for path in step.inputs(study):
            if path not in known | written and (other := of_another_study(study, path)):
                text = f"{step.name} reads {shown(path)}, which is of another study ({other})"
                problems.append(trouble("missing files", f"{text}; run what writes it before it"))
        written.update(step.outputs(study.places))
    return problems


def check_known(study: Study) -> list[RunError]:
    """Downloaded files are what they were at their first use."""
    published = [study.inputs.downloads / source.place for source in study.inputs.sources()]
    present = [path for path in published if path.is_file()]
    if not present:
        return []
    try:
        changed = KnownFiles(study.inputs.downloads).check(present)
    except (OSError, ValueError) as error:
        return [trouble("changed files", str(error))]
    if not changed:
        return []
    text = (
        f"not what they were at their first use: {', '.join(changed)}. Fetch them anew, or, if "
        "you mean the change, delete their entries in known_files.json:"
    )
    mend = "rm " + " ".join(shlex.quote(str(study.inputs.downloads / name)) for name in changed)
    return [trouble("changed files", text, f"{mend} && {study.inputs.fetch_command()}")]


def _check_images(study: Study) -> list[RunError]:
    """Shards and lists of images are whole, as far as their headers tell."""
    if study.choices.keep_going:
        return []
    problems = []
    for place in study.inputs.image_paths():
        try:
            if place.exists():
                open_parts([place], read=study.choices.read)
        except (StoredError, OSError) as error:
            problems.append(str(error))
    if not problems:
        return _check_enough(study)
    text = "\n".join([*problems, "Mend them, or leave them out with --keep-going."])
    return [trouble("unreadable files", text)]


def _check_enough(study: Study) -> list[RunError]:
    """There are as many images as the protocols score."""
    if not study.choices.images or not all(place.exists() for place in study.inputs.image_paths()):
        return []
    try:
        study.clickme()
    except StoredError as error:
        return [trouble("wrong option", str(error))]
    return []


def check_disk(places: Places) -> list[RunError]:
    """Results can be written, and there is room for them."""
    problems = []
    for folder in (places.output, places.figures, places.scores):
        try:
            place = existing(folder)
            with tempfile.TemporaryFile(dir=place) as file:
                file.write(b"0" * 4096)
                file.flush()
        except OSError as error:
            if is_disk_full(error):
                problems.append(trouble("disk full", disk_advice([folder])))
            else:
                text = f"results cannot be written to {shown(folder)}: {error}"
                problems.append(trouble("not ready", text, f"ls -ld {shlex.quote(str(folder))}"))
            continue
        if shutil.disk_usage(place).free < _NEEDED:
            text = f"too little space for the results ({in_words(_NEEDED)} needed): "
            problems.append(trouble("disk full", text + disk_advice([folder])))
    return problems


# --- the kernel -----------------------------------------------------------------------------


def check_kernel(
    steps: Sequence[Step], values: Mapping[str, object], warm: WarmParent | None = None
) -> Findings:
    """Start a kernel as the notebooks will have, and look at it from within."""
    try:
        spec = KernelSpecManager().get_kernel_spec(KERNEL)
    except NoSuchKernel:
        text = f"there is no Jupyter kernel {KERNEL!r}; make it:"
        return Findings([trouble("not ready", text, *_mends(""))])
    except ValueError as error:
        text = f"the kernel {KERNEL!r} is no valid JSON: {error}"
        return Findings([trouble("not ready", text)])
    mends = _mends(spec.resource_dir)
    report, failure = _ask_kernel(steps, values, warm)
    if failure:
        text = f"the kernel {KERNEL!r} ({spec.resource_dir}) does not start: {failure}"
        return Findings([trouble("not ready", text, *mends)])
    if not _is_this_python(report):
        text = (
            f"the kernel {KERNEL!r} ({spec.resource_dir}) runs {report['executable']}, another "
            f"Python than this one, {sys.executable}; let this environment's own be found:"
        )
        return Findings([trouble("not ready", text, *mends)])
    return Findings(
        _problems_within(report), report.get("environment", {}),
        report.get("remarks", {}), report.get("left_out", []),
    )  # fmt: skip


def _mends(folder: str) -> list[str]:
    """Commands after which this environment's own kernel is the one that is found.

    folder : where the kernel that is found now is described, "" for nowhere
    """
    register = f"{_python()} -m ipykernel install --sys-prefix --name {KERNEL}"
    if not folder:
        return [_install_command(), register]
    if Path(folder).is_relative_to(sys.prefix):
        return [register]
    searched = os.environ.get("JUPYTER_PATH", "").split(os.pathsep)
    if any(path and Path(folder).is_relative_to(path) for path in searched):
        return ["unset JUPYTER_PATH", register]
    return [f"{_python()} -m jupyter kernelspec remove -y {KERNEL}", register]


def _install_command() -> str:
    return f"{_python()} -m pip install -r {shlex.quote(str(ROOT / 'requirements.lock'))}"


def _problems_within(report: Mapping) -> list[RunError]:
    own = f"{_python()} -m pip install --no-deps -e {shlex.quote(str(ROOT))}"
    problems = [
        trouble(
            "not ready", f"the notebooks' `import {name}` fails: {error}", _install_command(), own
        )
        for name, error in report["errors"].items()
    ]
    if torch := report.get("torch"):
        text = f"torch cannot be loaded: {torch}\nCheck the GPU's driver, or install torch anew:"
        is_missing = torch.startswith("ModuleNotFoundError")
        mend = _install_command() + " --force-reinstall" * (not is_missing)
        problems.append(trouble("not ready", text, mend))
    found = report.get("lib")
    if found and Path(found).resolve() != (ROOT / "lib").resolve():
        text = f"the notebooks import `lib` from {found}, not from here"
        searched = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        led = Path(found).resolve().parent in [Path(path).resolve() for path in searched if path]
        problems.append(trouble("not ready", text, "unset PYTHONPATH" if led else own))
    if "device" in report:
        problems.append(trouble("wrong option", report["device"]))
    if report.get("weights"):
        text = "\n".join([*report["weights"], "Mend them, or leave them out with --keep-going."])
        problems.append(trouble("unreadable files", text))
    return problems


def _python() -> str:
    return shlex.quote(sys.executable)


def _is_this_python(report: Mapping[str, str]) -> bool:
    there, here = (report["prefix"], report["version"]), (sys.prefix, sys.version)
    return os.path.realpath(there[0]) == os.path.realpath(here[0]) and there[1] == here[1]


def _ask_kernel(
    steps: Sequence[Step], values: Mapping[str, object], warm: WarmParent | None
) -> tuple[dict, str]:
    """The kernel's report on itself, or why there is none."""
    modules = sorted({name for step in steps for name in step.imports()})
    # By its text: which `lib` the kernel imports is part of the question.
    source = inspect.getsource(within)
    asked = f"{modules!r}, {dict(values)!r}, {sorted({r for step in steps for r in step.reads})!r}"
    cell = new_code_cell(f"{source}\n\nprint({_MARK!r} + report({asked}))")
    with temporary_folder() as folder:
        paths = Path(folder, "question.ipynb"), Path(folder, "answer.ipynb")
        asking = Progress(io.StringIO(), quiet=True).begin("the preflight")
        kernel = Kernel(
            asking, Path(folder, "kernel.log"), NOTEBOOKS, paths[1], timeout=_KERNEL_TIMEOUT,
            warm=warm,
        )  # fmt: skip
        nbformat.write(new_notebook(cells=[cell]), paths[0])
        try:
            answer = papermill.execute_notebook(
                *map(literal, paths), engine_name="study", kernel_name=KERNEL,
                progress_bar=False, kernel=kernel,
            )  # fmt: skip
            printed = [o.text for o in answer.cells[0].outputs if o.get("name") == "stdout"]
            return json.loads("".join(printed).rpartition(_MARK)[2]), ""
        except Exception as error:
            said = kernel.last_words()
            return {}, f"{type(error).__name__}: {error}" + (f"\n{said}" if said else "")
        finally:
            asking.end("done", 0)
