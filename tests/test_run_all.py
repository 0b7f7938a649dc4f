"""`python run_all.py`, as a user starts it: options, interruptions, two at once, killed runs.

Toy notebooks run in a copy of the project; its results lie in a temporary folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from stand_ins import EVIL, copy_lib, write_notebook

import run_all
from lib.base.paths import DEMO, PUBLISHED_SCORES, ROOT, shown
from lib.people.stored.shards import Shard
from lib.runner import preflight
from lib.runner.faults import FAULTS
from lib.runner.outcomes import Outcome
from lib.runner.session import Session
from lib.runner.steps import find_steps, select_steps
from lib.study.study import Study

PARAMETERS = """profile: str = "demo"
models: list = []
methods: list = []
limit: int = 0
options: dict = {}"""
# Writes a result that depends on nothing but the name, then lingers.
CELL = """from lib.outputs import write_result
from lib.base.paths import FIGURES, OUTPUT
with write_result(FIGURES / profile / "{name}.txt") as partial:
    partial.write_text("{name}" * 1000)
import os, time
(OUTPUT / "{name}.pid").write_text(str(os.getpid()))
time.sleep({seconds})"""
# Toy notebooks compute nothing: what takes seconds to be imported is not needed for them.
STAND_INS = {
    # The preflight asks it for the device.
    "torch": """from types import SimpleNamespace as _Namespace
cuda = _Namespace(is_available=lambda: False, device_count=lambda: 0)
backends = _Namespace(cuda=_Namespace(matmul=_Namespace()), cudnn=_Namespace())
class device(str):
    type, index = "cpu", None
""",
    # jsonschema, of nbformat, checks addresses of other alphabets by it, if it is there.
    "rfc3987_syntax": "raise ImportError",
}


class Project:
    """A copy of the project with notebooks of the test's own.

    light : with stand-ins for packages that toy notebooks do not need
    """

    def __init__(self, folder: Path, light: bool = True):
        self.folder = folder
        copy_lib(folder, "demo")
        shutil.copy(ROOT / "run_all.py", folder)
        (folder / "data").mkdir()
        (folder / "data" / "demo").symlink_to(ROOT / "data" / "demo")
        (folder / "notebooks").mkdir()
        for name, text in STAND_INS.items() if light else ():
            (folder / f"{name}.py").write_text(text)

    def add(self, name: str, seconds: float = 0.0, *cells: str) -> None:
        cells = cells or (CELL.format(name=name, seconds=seconds),)
        writes = f"`figures/{{profile}}/{name}.txt`" if "write_result" in cells[0] else ""
        write_notebook(
            self.folder / "notebooks", name, *cells, writes=writes, parameters=PARAMETERS
        )

    def start(self, *arguments: str, **options) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": str(self.folder)} | options.pop("env", {})
        options.setdefault("preexec_fn", _hear)
        return subprocess.Popen(
            [sys.executable, "run_all.py", "--profile", "demo", *arguments], cwd=self.folder,
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
        )  # fmt: skip

    def run(self, *arguments: str, **options) -> tuple[int, str, str]:
        process = self.start(*arguments, **options)
        printed, error = process.communicate(timeout=600)
        return process.returncode, printed, error

    def kernel(self, name: str) -> psutil.Process:
        """The notebook's kernel, once its first cell is in its sleep."""
        path = self.folder / "data" / "output" / f"{name}.pid"
        deadline = time.monotonic() + 60
        while not (path.exists() and path.read_text()):
            assert time.monotonic() < deadline, "the kernel did not come"
            time.sleep(0.05)
        return psutil.Process(int(path.read_text()))

    def figures(self) -> dict[str, str]:
        folder = self.folder / "figures" / "demo"
        return {
            p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())
        }


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project")


def _hear() -> None:
    """In a process that starts: signals do what they do in a terminal."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_DFL)


def is_gone(process: psutil.Process) -> bool:
    try:
        process.wait(timeout=10)
    except psutil.TimeoutExpired:
        return process.status() == psutil.STATUS_ZOMBIE
    return True


# --- a run and the next one -----------------------------------------------------------------


def test_options_of_gaze_reach_the_study_whole():
    import run_all

    given = run_all.build_parser().parse_args(
        ["--gaze", "sigma_pixels=24", "weigh=counts", "--gaze", "skip_first=1", "--fit", "pad",
         "--models", "resnet50,convnext_tiny", "caformer_s18"]
    )  # fmt: skip
    assert run_all._given(given.gaze) == ["sigma_pixels=24", "weigh=counts", "skip_first=1"]
    assert run_all._given(given.models) == ["resnet50", "convnext_tiny", "caformer_s18"]
    assert given.fit == "pad"


def test_a_run_is_told_kept_and_resumed(project):
    project.add("01_a")
    project.add("02_b", 0, "raise ValueError('the map is odd')")
    project.add("03_c")
    status, printed, _ = project.run()
    assert status == 1
    assert re.search(r"01_a +run +not run yet \(seconds\)", printed)
    assert re.search(
        r"\[2/3\] 02_b: failed in 0:0\d\n  ValueError: the map is odd\n  raised in cell 2/2",
        printed,
    )
    assert re.search(r"03_c +ok .* figures/demo/03_c.txt and 1 more", printed)
    assert re.search(
        r"mend it, then go on with\n    \S*python run_all.py --profile demo\n", printed
    )
    assert "\r" not in printed
    assert "No evidence about DCLS" in printed

    project.add("02_b")
    status, printed, _ = project.run()
    assert status == 0
    assert re.search(r"01_a +keep +unchanged since 20", printed)
    assert "[1/3] 01_a: kept, unchanged since" in printed
    assert re.search(r"02_b +ok", printed)
    output = project.folder / "data" / "output" / "demo"
    run = json.loads((output / "run.json").read_text())
    assert [n["status"] for n in run["notebooks"]] == ["kept", "ok", "kept"]
    assert run["notebooks"][0]["outputs"]["figures/demo/01_a.txt"] == project.figures()["01_a.txt"]
    assert {p.name for p in output.iterdir()} == {
        "manifest.json", "notebooks", "report.html", "run.json", "run.lock", "run.log",
    }  # fmt: skip

    status, printed, _ = project.run("--dry-run", "--force", "--from", "2")
    assert status == 0
    assert "embedded example, 16 models, 2 methods, cpu" in printed
    assert re.search(r"02_b +run +--force \(took 0:0\d last time\)", printed)
    assert "01_a" not in printed
    assert "[1/2]" not in printed


def test_profiles_may_be_named_one_by_one():
    options = run_all.build_parser().parse_args(["--profile", "gaze", "--profile", "demo"])
    assert options.profile == [["gaze"], ["demo"]]


def test_a_list_may_go_into_a_pipe_that_closes_early():
    read, write = os.pipe()
    os.close(read)
    listing = [sys.executable, "run_all.py", "--list"]
    done = subprocess.run(
        listing, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_two_profiles_run_as_one_each_with_its_report_when_it_is_done(project):
    (project.folder / "data" / "gaze").symlink_to(ROOT / "data" / "gaze")
    project.add("01_a", 2)  # not of a whole run on gaze
    project.add("04_b")
    status, printed, error = project.run("--profile", "demo", "gaze", "--jobs", "1")
    assert status == 0, printed + error
    pages = [f"All of it on one page: data/output/{name}/report.html" for name in ("demo", "gaze")]
    assert printed.index(pages[0]) < printed.index(pages[1])
    for name in ("demo", "gaze"):
        assert (project.folder / "figures" / name / "04_b.txt").is_file()
        assert (project.folder / "data" / "output" / name / "report.html").is_file()
    assert not (project.folder / "figures" / "gaze" / "01_a.txt").exists()
    # Of what fails, the command that goes on is of its profile alone.
    project.add("04_b", 0, "assert profile == 'demo'")
    status, printed, _ = project.run("--profile", "demo", "gaze")
    assert status == 1
    assert re.search(r"go on with\n    \S*python run_all.py --profile gaze\n", printed)


@pytest.mark.parametrize("arguments", [["--list"], ["--profile", "dmeo"], ["--jobs", "1"]])
def test_an_answer_that_needs_no_run_waits_for_no_import(arguments):
    """Packages that take long to be imported are not, for a list or for a refusal."""
    code = (
        "import sys, run_all\n"
        f"run_all.main([*{arguments!r}, '--from', '04', '--only', '05'])\n"
        "heavy = {'torch', 'pandas', 'nbformat', 'papermill', 'IPython', 'jupyter_client', 'scipy'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("setting", "opened"),
    [({"DISPLAY": ":0"}, True), ({"DISPLAY": ":0", "CI": "true"}, False), ({}, False)],
)
def test_a_report_is_opened_only_where_somebody_sits_before_a_desktop(
    setting, opened, monkeypatch, tmp_path
):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert run_all.has_desktop() is opened
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert run_all.has_desktop() is False


# --- interruptions ----------------------------------------------------------------------------


def is_ended_by(process: subprocess.Popen, kernel: psutil.Process, name: str) -> str:
    """Signals a run that is in 02_b, and checks its end; what it printed."""
    for pause in (
        (0, 0.02, 0.3, 0.3) if name == "SIGINT" else (0,)
    ):  # further Ctrl-Cs change nothing
        process.send_signal(getattr(signal, name))
        time.sleep(pause)
    printed, error = process.communicate(timeout=60)
    fault = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}[name]
    assert process.returncode == FAULTS[fault].exit_status == 128 + getattr(signal, name)
    assert is_gone(kernel)
    assert re.search(rf"02_b +{fault} .*in cell 2/2: from lib.outputs", printed)
    assert "What is finished is kept; go on with" in printed
    assert error == f"\n{fault}: the run is ending …\n"
    return printed


@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGHUP", marks=pytest.mark.slow)])
def test_an_interruption_ends_the_kernel_keeps_what_is_finished_and_says_so(project, name):
    project.add("01_a")
    project.add("02_b", 600)
    project.add("03_c")
    process = project.start("--jobs", "1")
    printed = is_ended_by(process, project.kernel("02_b"), name)
    assert re.search(r"03_c +not run", printed)
    assert list(project.figures()) == ["01_a.txt"]
    project.add("02_b")
    status, printed, _ = project.run("--only", "01", "02")
    assert status == 0
    assert "[1/2] 01_a: kept" in printed


def test_a_second_run_on_the_profile_refuses_and_names_the_first_which_can_be_terminated(project):
    project.add("02_b", 600)
    first = project.start()
    kernel = project.kernel("02_b")
    status, _, error = project.run("--models", "resnet50")
    assert status == FAULTS["busy"].exit_status == 8
    assert f"process {first.pid} on" in error
    assert "`python run_all.py --profile demo`" in error
    is_ended_by(first, kernel, "SIGTERM")


def test_a_closed_output_and_a_folder_that_is_gone_are_no_reason_to_stop(project, tmp_path):
    project.add("01_a")
    gone = tmp_path / "gone"
    gone.mkdir()
    script = project.folder / "run_all.py"
    command = f"cd {gone} && rmdir {gone} && {sys.executable} {script} --profile demo >&-"
    done = subprocess.run(
        ["sh", "-c", command], env={**os.environ, "PYTHONPATH": str(project.folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    log = project.folder / "data" / "output" / "demo" / "run.log"
    assert re.search(r"01_a +ok", log.read_text())


@pytest.mark.slow
def test_what_nohup_ignores_is_ignored(project):
    project.add("01_a", 3)
    process = project.start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    project.kernel("01_a")
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 0
    process.communicate()


def test_an_interruption_before_any_work_says_that_nothing_changed(monkeypatch, capsys):
    monkeypatch.setattr(
        "lib.runner.preflight.check",
        lambda *_: os.kill(os.getpid(), signal.SIGINT) or time.sleep(1),
    )
    assert run_all.main(["--profile", "demo", "--dry-run"]) == 130
    assert "interrupted before any notebook began" in capsys.readouterr().err


def test_a_killed_run_leaves_no_kernel_no_lock_and_no_half_result(project):
    project.add("01_a")
    project.add("02_b", 600)
    process = project.start("--jobs", "1")
    kernel = project.kernel("02_b")
    process.kill()
    process.communicate(timeout=60)
    assert is_gone(kernel)
    assert list(project.figures()) == ["01_a.txt"]
    project.add("02_b")
    status, printed, _ = project.run()
    assert status == 0
    assert f"The last run was killed (process {process.pid} on" in printed
    assert "[1/2] 01_a: kept" in printed
    assert not list((project.folder / "data" / "output" / "demo").glob(".staging*"))


def test_a_full_disk_under_the_results_is_told_and_leaves_what_was_there(project):
    """On a small disk of the test's own, where this machine lets one be mounted."""
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    disk = project.folder / "data" / "output"
    disk.mkdir()
    mounting = f"mount -t tmpfs -o size=230m none {disk}"
    if not shutil.which("unshare") or subprocess.run([*mount, mounting], check=False).returncode:
        pytest.skip("no disk can be mounted here; a full disk in a cell is tested elsewhere")
    project.add("01_a")
    # The second notebook fills the disk to the last byte; saving it as executed then fails.
    project.add("03_c")
    filling = "import os\nfrom lib.base.paths import OUTPUT\nwith open(OUTPUT / 'filler', 'wb', 0) as f:\n    try:\n        while True: f.write(b'x' * 4096)\n    except OSError: pass"
    project.add("02_b", 0, filling, "'x' * 10**6")
    run = f"{mounting} && {sys.executable} run_all.py --profile demo --jobs 1; code=$?; ls {disk}/demo; exit $code"
    done = subprocess.run(
        [*mount, run], cwd=project.folder, env={**os.environ, "PYTHONPATH": str(project.folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == FAULTS["disk full"].exit_status == 7, done.stdout + done.stderr
    assert re.search(r"02_b +disk full", done.stdout)
    assert "MiB free" in done.stdout
    assert re.search(r"03_c +not run", done.stdout)
    assert "Traceback" not in done.stdout + done.stderr
    assert list(project.figures()) == ["01_a.txt"]


# --- downloads -----------------------------------------------------------------------------------


def test_downloads_are_for_who_asks_and_what_cannot_be_fetched_is_told(project, tmp_path):
    project.add("01_a")
    data = str(tmp_path / "data")
    paper = ["--profile", "paper", "--models", "resnet50", "--data-dir", data]
    nowhere = {"DCLS_MIRROR": "http://127.0.0.1:9"}
    status, printed, error = project.run(*paper, env=nowhere)
    assert status == FAULTS["missing files"].exit_status == 3
    assert "127.0.0.1:9/zenodo.org/records/8373830" in error
    assert "fetched" not in printed
    status, _, error = project.run(*paper, "--download-only", "--offline", env=nowhere)
    assert status == 2
    assert "exclude each other" in error


def test_changed_downloads_are_told(no_real_data, tmp_path):
    study = Study.from_profile("paper", models=["resnet50"])
    path = study.inputs.weights_path("resnet50", False)
    path.parent.mkdir(parents=True)
    path.write_text("one")
    assert preflight.check_known(study) == []
    path.write_text("two")
    (error,) = preflight.check_known(study)
    assert error.fault.exit_status == 12
    assert "checkpoints/resnet50.a1_in1k.safetensors" in str(error)
    assert f"rm {path} && python run_all.py --download-only" in str(error)


# --- preflight ---------------------------------------------------------------------------------


def test_another_pythons_kernel_is_refused_with_the_mend(project, tmp_path):
    project.add("01_a")
    other = tmp_path / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(other)], check=True)
    site = next(other.glob("lib/python*/site-packages"))
    (site / "lent.pth").write_text(os.pathsep.join(p for p in sys.path if "site-packages" in p))
    spec = tmp_path / "share" / "kernels" / "python3"
    spec.mkdir(parents=True)
    argv = [str(other / "bin" / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "x"}))
    status, _, error = project.run(env={"JUPYTER_PATH": str(tmp_path / "share")})
    assert status == FAULTS["not ready"].exit_status == 4
    assert f"runs {other}/bin/python, another Python than this one, {sys.executable}" in error
    assert f"{sys.executable} -m ipykernel install --sys-prefix --name python3" in error
    (spec / "kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "x"}))
    status, _, error = project.run(env={"JUPYTER_PATH": str(tmp_path / "share")})
    assert status == 4
    assert "does not start" in error
    assert "ipykernel install" in error


def test_an_import_that_fails_another_copy_and_a_missing_device_are_told_together(project):
    project.add("01_a", 0, "import not_installed\nfrom lib.outputs import write_result")
    status, _, error = project.run("--device", "cuda:63", env={"PYTHONPATH": ""})
    assert status == 4
    assert "`import not_installed` fails: ModuleNotFoundError" in error
    assert "pip install -r" in error
    assert f"the notebooks import `lib` from {ROOT / 'lib'}, not from here" in error
    assert f"pip install --no-deps -e {project.folder}" in error
    assert "device 'cuda:63' does not exist" in error
    assert "--device cpu" in error
    assert not (project.folder / "figures" / "demo" / "01_a.txt").exists()


def test_a_torch_that_cannot_be_loaded_is_told_in_one_line_with_the_mend(project, tmp_path):
    project.add("01_a", 0, "import torch\nfrom lib.outputs import write_result")
    (project.folder / "torch.py").write_text("raise OSError('libcudart.so.12:\\nno such file')")
    status, _, error = project.run()
    assert status == 4
    assert "torch cannot be loaded: OSError: libcudart.so.12: no such file (" in error
    assert "--force-reinstall" in error
    assert "`import" not in error
    status, _, error = project.run("--models", "timm:resnet18", "--dry-run")
    assert status == 4
    assert "torch cannot be loaded: libcudart.so.12:" in error
    assert "Traceback" not in error


def test_an_interruption_while_packages_are_imported_is_told_without_a_traceback(project):
    (project.folder / "numpy.py").write_text("raise KeyboardInterrupt")
    status, _, error = project.run()
    assert status == 130
    assert error == "\nrun_all.py: interrupted before any notebook began\n"


def test_a_python_without_the_packages_is_told_the_mend(project, tmp_path):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    done = subprocess.run(
        [bare / "bin" / "python", "run_all.py", "--profile", "demo"], cwd=project.folder,
        capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 4
    assert "lacks what is needed: No module named" in done.stderr
    assert f"{bare}/bin/python -m pip install -r" in done.stderr


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "dmeo"], "Did you mean 'demo'"),
        (["--modles", "resnet50"], "Did you mean '--models'"),
        (["--profile", "demo", "--models", "resnet5"], "Did you mean 'resnet50'"),
        (
            ["--profile", "demo", "--methods", "treshold_grad_cam"],
            "Did you mean 'threshold_grad_cam",
        ),
        (["--profile", "demo", "--limit", "-3"], "limit must be a whole number of 0 or more"),
        (["--profile", "demo", "--limit", "many"], "invalid int value: 'many'"),
        (["--profile", "demo", "--images", ""], "an empty text names no folder"),
        (["--profile", "demo", "--images", "run_all.py"], "must be a folder"),
        (["--profile", "demo", "--precision", "fp8"], "unknown precision 'fp8'"),
        (["--profile", "demo", "--workers", "-1"], "workers must be a whole number"),
        (["--profile", "demo", "--batch-size", "0"], "neither auto nor a number of images"),
        (["--profile", "demo", "--device", "tpu"], "device 'tpu' is not one of"),
        (["--profile", "demo", "--only", "12"], "unknown notebook '12'"),
        (["--profile", "demo", "--from", "12"], "unknown notebook '12'"),
        (["--profile", "demo", "--from", "2", "--only", "3"], "exclude each other"),
        (["--profile", "demo", "--only", ""], "'' names nothing"),
        (["--profile", "demo", "--from", ""], "'' names nothing"),
        (["--profile", "demo", "--timeout", "soon"], "'soon' is no time; write 90s, 30m or 8h"),
        (["--profile", "demo", "--timeout", "0"], "'0' is no time"),
        (["--profile", "demo", "--jobs", "0"], "neither auto nor a number of notebooks"),
        (["--profile", "demo", "dmeo"], "Did you mean 'demo'"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_starts(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(run_all, "prepared", lambda *_: pytest.fail("something started"))
    try:
        status = run_all.main(arguments)
    except SystemExit as leaving:
        status = leaving.code
    assert status == FAULTS["wrong option"].exit_status == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("8h", 28800), ("45", 45), ("1.5h", 5400)]
)
def test_a_timeout_is_given_with_its_unit(text, seconds):
    assert run_all.duration(text) == seconds


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> None:
    """Runs within this process write nothing to the checkout and start no kernel."""
    for place in ("lib.study.places.OUTPUT", "lib.study.places.FIGURES", "run_all.OUTPUT"):
        monkeypatch.setattr(place, tmp_path / place)
    monkeypatch.setattr(preflight, "check_kernel", lambda *_: preflight.Findings())
    monkeypatch.setattr("lib.runner.warm.CAN_FORK", False)


def test_the_paper_profile_without_data_says_what_is_missing(capsys, no_real_data, elsewhere):
    assert run_all.main(["--models", "resnet50"]) == FAULTS["missing files"].exit_status == 3
    error = capsys.readouterr().err
    assert "clickme/val/val-0.tfrecords" in error
    assert "--profile demo" in error


def test_list_names_everything(capsys):
    assert run_all.main(["--list"]) == 0
    printed = capsys.readouterr().out
    for name in ("05_figures", "fastvit_sa36", "threshold_grad_cam", "paper", "reads  images"):
        assert name in printed


def test_names_may_be_separated_by_commas_or_spaces(monkeypatch):
    taken = {}

    def take(options, study, known, chosen, values, command, progress, warm):
        taken.update(values)

    monkeypatch.setattr(run_all, "prepared", take)
    models = ["resnet50,convnext_tiny", "--models", "caformer_s18"]
    assert run_all.main(["--profile", "demo", "--dry-run", "--models", *models]) == 0
    assert taken["models"] == ["resnet50", "convnext_tiny", "caformer_s18"]


# --- the study itself ------------------------------------------------------------------------------


@pytest.fixture
def study_copy(tmp_path) -> Project:
    """The project with the study's own notebooks."""
    project = Project(tmp_path / "project", light=False)
    shutil.copytree(ROOT / "notebooks", project.folder / "notebooks", dirs_exist_ok=True)
    table = project.folder / PUBLISHED_SCORES.relative_to(ROOT)
    table.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(PUBLISHED_SCORES, table)
    return project


@pytest.mark.slow
def test_the_tour_runs_by_the_command_line(study_copy):
    status, printed, error = study_copy.run("--only", "09")
    assert status == 0, printed + error
    assert re.search(r"09_your_own +ok", printed)
    tables = study_copy.folder / "data" / "output" / "demo_tour_rows_subset" / "tables"
    models, maps = (pd.read_csv(tables / f"tour_{name}.csv") for name in ("models", "maps"))
    assert set(models.group) == {"ResNet-50 mini", "SmallNet"}
    assert set(models.method) == {"Grad-CAM", "Evidence"}
    assert models.score.notna().all()
    assert models.difference[models.place == 1].notna().all()
    assert maps.n.tolist() == [8]


@pytest.mark.slow
def test_the_whole_demo_writes_everything_it_declares(study_copy):
    status, printed, error = study_copy.run()
    assert status == 0, printed + error
    study = Study.from_profile("demo")
    steps = select_steps(find_steps(), (), "", study.choices.takes)
    assert len(steps) == 14
    for step in steps:
        assert re.search(rf"{step.name} +ok", printed)
        places = [study_copy.folder / path.relative_to(ROOT) for path in step.outputs(study.places)]
        assert all(path.stat().st_size for path in places)


@pytest.fixture
def evil(tmp_path) -> tuple[Path, Path]:
    """A folder of images and a file of own rows; whatever can have a name has an evil one."""
    folder, rows = tmp_path / EVIL, tmp_path / "rows"
    folder.mkdir()
    lines = ["image,map,label"]
    shard = Shard(DEMO / "clickme" / "val" / "val-0.tfrecords")
    for index, (_, record) in zip(range(36), shard.records(), strict=False):
        for kind, content in (("image", record.image), ("map", record.heatmap)):
            (folder / f"{index} {kind} {EVIL}.jpg").write_bytes(content)
        lines.append(f"{index} image {EVIL}.jpg,{index} map {EVIL}.jpg,{record.label}")
    (folder / "labels.csv").write_text("\n".join(lines))
    shutil.copytree(DEMO / "tour", rows)
    text = (rows / "tour_rows.py").read_text()
    for label in ("SmallNet", "Evidence"):
        text = text.replace(f'label="{label}"', f"label={f'{label} {EVIL}'!r}")
    assert text.count(EVIL) == 2
    own = rows / f"{EVIL}.py"
    own.write_text(text)
    return folder, own


@pytest.mark.slow
def test_no_name_runs_in_a_browser_as_a_script(study_copy, evil, browser, tmp_path):
    """Every notebook, and the report, of images and models with evil names."""
    from nbconvert import HTMLExporter  # takes a second

    folder, rows = evil
    models = ["--models", "resnet50", "smallnet", "--methods", "grad_cam", "evidence"]
    status, printed, error = study_copy.run("--images", str(folder), "--extend", str(rows), *models)
    assert status == 0, printed + error
    pages = list((study_copy.folder / "data" / "output").glob("*/report.html"))
    for path in sorted((pages[0].parent / "notebooks").glob("*.ipynb")):
        pages.append(tmp_path / f"{path.stem}.html")
        pages[-1].write_text(HTMLExporter().from_filename(path)[0])
    assert len(pages) > 12
    assert sum(EVIL.replace("<", "&lt;").replace(">", "&gt;") in p.read_text() for p in pages) > 5
    page = browser.new_page()
    for path in pages:
        page.goto(path.as_uri())
        page.wait_for_load_state()
        assert page.evaluate("window.ran") is None, path.name
        assert page.locator("img[src=x]").count() == 0, path.name


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_the_results_are_the_same(project, tmp_path):
    """The runner or its kernel is killed ten times; the results equal an undisturbed run's."""
    names = [f"{i:02}_x" for i in range(1, 6)]
    undisturbed = Project(tmp_path / "undisturbed")
    for name in names:
        for each in (project, undisturbed):
            each.add(name, 1)
    assert undisturbed.run()[0] == 0
    moments = random.Random(0)
    for _ in range(10):
        process = project.start()
        time.sleep(moments.uniform(2, 20))
        with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended by itself
            runner = psutil.Process(process.pid)
            children = runner.children()
            victim = children[0] if children and moments.random() < 0.5 else runner
            victim.kill()
        process.communicate(timeout=120)
        done = project.figures() if (project.folder / "figures" / "demo").exists() else {}
        assert done.items() <= undisturbed.figures().items()
    assert project.run()[0] == 0
    assert project.figures() == undisturbed.figures()
    kept = json.loads((project.folder / "data/output/demo/manifest.json").read_text())["notebooks"]
    for name in names:
        path = f"figures/demo/{name}.txt"
        assert kept[name]["outputs"][path] == undisturbed.figures()[f"{name}.txt"]


class Ended:
    """In place of `SideBySide`: whatever is to be run has ended."""

    def __init__(self, jobs, ended):
        self.ended = ended

    def run(self, sessions):
        for each in sessions:
            self.ended(each)


def test_what_keep_going_left_out_is_told_with_a_status_of_its_own(elsewhere, monkeypatch, capsys):
    def session(options, study, known, chosen, values, command, progress, warm):
        table = study.places.tables / "left_out.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text("left_out,reason\nval-3,it is cut short\n")
        over = Session([], known, values, study, {"device": "cpu"}, progress)
        over.outcomes = [Outcome("04_scoring", "ok", outputs={shown(table): ""})]
        return over

    monkeypatch.setattr(run_all, "prepared", session)
    monkeypatch.setattr("lib.runner.side_by_side.SideBySide", Ended)
    assert run_all.main(["--profile", "demo", "--keep-going"]) == 14
    assert FAULTS["left out"].exit_status == 14
    said = capsys.readouterr().out
    assert "val-3: it is cut short" in said
    assert "Complete but for that" in said
    # Without the option nothing is left out: a table of that name is none of the run's business.
    assert run_all.main(["--profile", "demo"]) == 0
    assert "val-3" not in capsys.readouterr().out


def test_unreadable_images_are_told_before_any_work(tmp_path, capsys, elsewhere):
    (tmp_path / "val-0.tfrecords").write_text("<html>404</html>")
    arguments = ["--profile", "demo", "--images", str(tmp_path), "--dry-run"]
    assert run_all.main(arguments) == FAULTS["unreadable files"].exit_status == 13
    assert "val-0.tfrecords, record 0 at byte 0" in capsys.readouterr().err
    missing = str(tmp_path / "nowhere")
    assert run_all.main(["--profile", "demo", "--images", missing, "--dry-run"]) == 3
    assert "The folder of --images does not exist" in capsys.readouterr().err
    few = ["--profile", "demo", "--images", str(DEMO / "tour" / "gaze"), "--dry-run"]
    assert run_all.main([*few, "--protocols", "published"]) == 2
    assert "fewer than the one whole batch of 32" in capsys.readouterr().err
