"""`run_all.py` and its runner: what counts as success, and what is refused before it."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import run_all
from lib import runner
from lib.paths import ROOT
from lib.progress import Progress
from lib.runner import (
    RunnerError,
    Step,
    check_parameters,
    closing_table,
    find_steps,
    read_step,
    run_step,
    run_steps,
    select_steps,
)
from lib.tables import UnknownName


def write_notebook(folder: Path, name: str, *cells: str, writes: str = "") -> Path:
    parameters = new_code_cell('profile: str = "demo"\nlimit: int = 0')
    parameters.metadata["tags"] = ["parameters"]
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# A title"),
            new_markdown_cell(f"**Reads** nothing · **Writes** {writes} · seconds"),
            parameters,
            *(new_code_cell(source) for source in cells),
        ],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
    )
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def run(tmp_path):
    """Runs cells as a notebook; returns the outcome and the folder of executed ones."""

    def run(*cells: str, writes: str = "", name: str = "01_it"):
        step = read_step(write_notebook(tmp_path, name, *cells, writes=writes))
        folder = tmp_path / "executed"
        values = {"profile": "demo", "limit": 3}
        return run_step(step, values, "demo", folder, Progress(io.StringIO())), folder

    return run


# --- success and failure -------------------------------------------------------------


def test_a_notebook_that_writes_what_it_declares_succeeds(run, tmp_path):
    target = tmp_path / "made.txt"
    outcome, folder = run(
        "assert (profile, limit) == ('demo', 3)",
        f"open({str(target)!r}, 'w').write('x')",
        writes=f"`{target}`",
    )
    assert outcome.status == "ok", outcome.detail
    executed = nbformat.read(folder / "01_it.ipynb", 4)
    assert all(c.execution_count for c in executed.cells if c.cell_type == "code")
    assert [p.name for p in folder.iterdir()] == ["01_it.ipynb"]


def test_an_error_names_the_cell_and_keeps_the_last_good_notebook(run):
    run("1 + 1")
    outcome, folder = run("x = 1", "raise ValueError('the map is odd')")
    assert outcome.status == "failed"
    assert "ValueError: the map is odd" in outcome.detail
    assert "raise ValueError" in outcome.detail
    assert sorted(p.name for p in folder.iterdir()) == ["01_it.failed.ipynb", "01_it.ipynb"]
    assert "1 + 1" in (folder / "01_it.ipynb").read_text()
    run("2 + 2")
    assert [p.name for p in folder.iterdir()] == ["01_it.ipynb"]


def test_a_declared_output_left_from_an_earlier_run_does_not_count(run, tmp_path):
    target = tmp_path / "made.txt"
    target.write_text("yesterday's")
    outcome, _ = run("pass", writes=f"`{target}`")
    assert outcome.status == "failed"
    assert f"did not write what it declares: {target}" in outcome.detail


def test_leaving_early_is_no_success(run):
    outcome, _ = run("import os; os._exit(0)", "2")
    assert outcome.status == "failed"
    assert "kernel died" in outcome.detail


def test_sys_exit_is_no_success(run):
    outcome, _ = run("import sys; sys.exit(0)", "2")
    assert outcome.status == "failed"


def test_steps_after_a_failed_one_are_not_run(tmp_path):
    steps = [
        read_step(write_notebook(tmp_path, "01_a", "1 / 0")),
        read_step(write_notebook(tmp_path, "02_b", "1")),
    ]
    outcomes = run_steps(
        steps, {"profile": "demo"}, "demo", tmp_path / "out", Progress(io.StringIO())
    )
    assert [o.status for o in outcomes] == ["failed", "not run"]
    table = closing_table(outcomes)
    assert re.search(r"01_a +failed", table)
    assert re.search(r"02_b +not run", table)
    kept = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [n["status"] for n in kept["notebooks"]] == ["failed", "not run"]


# --- declarations ---------------------------------------------------------------------


def test_the_studys_notebooks_declare_parameters_and_outputs():
    steps = find_steps()
    assert [s.name for s in steps] == [
        "01_setup", "02_dcls_conversion", "03_heatmaps", "04_scoring", "05_figures"
    ]  # fmt: skip
    for step in steps:
        assert step.writes
        assert step.parameters == {
            "profile": "str", "models": "list", "methods": "list", "limit": "int",
            "device": "str", "batch_size": "int",
        }  # fmt: skip
        for path in step.outputs("demo"):
            assert path.is_relative_to(ROOT)


def test_outputs_of_demo_and_paper_never_meet():
    demo = {p for s in find_steps() for p in s.outputs("demo")}
    assert not demo & {p for s in find_steps() for p in s.outputs("paper")}


def test_a_notebook_without_declaration_or_parameters_is_refused(tmp_path):
    bare = new_notebook(cells=[new_markdown_cell("# x"), new_markdown_cell("y")])
    nbformat.write(bare, tmp_path / "01_bare.ipynb")
    with pytest.raises(RunnerError, match="0 cells are tagged 'parameters'"):
        read_step(tmp_path / "01_bare.ipynb")
    cell = new_code_cell("a: int = 1")
    cell.metadata["tags"] = ["parameters"]
    nbformat.write(new_notebook(cells=[*bare.cells, cell]), tmp_path / "01_bare.ipynb")
    with pytest.raises(RunnerError, match=r"says what it \*\*Writes\*\*"):
        read_step(tmp_path / "01_bare.ipynb")


STEPS = [Step(Path(f"{n}.ipynb"), {"limit": "int", "device": "str"}, ()) for n in
         ("01_setup", "04_scoring")]  # fmt: skip


@pytest.mark.parametrize("name", ["4", "04", "04_scoring"])
def test_steps_are_selected_by_number_or_name(name):
    assert [s.name for s in select_steps(STEPS, [name])] == ["04_scoring"]


def test_an_unknown_step_is_refused_with_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean '04_scoring'"):
        select_steps(STEPS, ["scoring"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"limt": 3}, "unknown parameter of 01_setup 'limt'. Did you mean 'limit'"),
        ({"limit": "100"}, "wants limit: int, got '100'"),
        ({"limit": True}, "wants limit: int, got True"),
        ({"device": ("cpu",)}, "wants device: str"),
    ],
)
def test_parameters_are_checked_against_the_declarations(values, message):
    with pytest.raises((RunnerError, UnknownName), match=message):
        check_parameters(STEPS, values)


def test_a_kernel_of_another_python_is_refused(monkeypatch):
    class Elsewhere:
        def get_kernel_spec(self, name):
            return type("Spec", (), {"argv": ["/usr/bin/false"]})

    monkeypatch.setattr(runner, "KernelSpecManager", Elsewhere)
    with pytest.raises(
        RunnerError, match=r"runs /usr/bin/false, another Python.*ipykernel install"
    ):
        runner.check_kernel()


# --- the command line -------------------------------------------------------------------


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
        (["--profile", "demo", "--batch-size", "0"], "batch_size must be a whole number of 1"),
        (["--profile", "demo", "--device", "tpu"], "device 'tpu' is none of"),
        (["--profile", "demo", "--device", "cuda:63"], "is not there"),
        (["--profile", "demo", "--only", "9"], "unknown notebook '9'"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_starts(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(runner, "run_steps", lambda *_: pytest.fail("something started"))
    try:
        status = run_all.main(arguments)
    except SystemExit as leaving:
        status = leaving.code
    assert status == run_all.WRONG_OPTION
    assert message in capsys.readouterr().err


def test_the_paper_profile_without_data_says_what_is_missing(capsys, no_real_data):
    assert run_all.main(["--models", "resnet50"]) == run_all.MISSING
    error = capsys.readouterr().err
    assert "clickme/val-0.tfrecords" in error
    assert "--profile demo" in error


def test_list_names_everything(capsys):
    assert run_all.main(["--list"]) == 0
    printed = capsys.readouterr().out
    for name in ("05_figures", "fastvit_sa36", "threshold_grad_cam", "paper"):
        assert name in printed


def test_names_may_be_separated_by_commas_or_spaces(monkeypatch):
    taken = {}
    monkeypatch.setattr(runner, "run_steps", lambda s, values, *_: taken.update(values) or [
        runner.Outcome("x", "ok", 0.0)
    ])  # fmt: skip
    models = ["resnet50,convnext_tiny", "caformer_s18"]
    assert run_all.main(["--profile", "demo", "--models", *models]) == 0
    assert taken["models"] == ["resnet50", "convnext_tiny", "caformer_s18"]


def test_a_failed_notebook_gives_a_failing_status(monkeypatch):
    failed = [runner.Outcome("x", "failed", 0.0)]
    monkeypatch.setattr(runner, "run_steps", lambda *_: failed)
    assert run_all.main(["--profile", "demo"]) == run_all.FAILED


def test_an_interruption_has_a_status_of_its_own(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run_steps", interrupt)
    assert run_all.main(["--profile", "demo"]) == run_all.INTERRUPTED
    assert "the same command resumes" in capsys.readouterr().err


def test_one_notebook_of_the_study_runs_by_the_command_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "run_all.py", "--profile", "demo", "--only", "01", "--limit", "8"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"01_setup +ok", done.stdout)
    assert "No evidence about DCLS" in done.stdout


# --- progress ----------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_keeps_one_line_on_a_terminal():
    terminal = Terminal()
    progress = Progress(terminal)
    progress.begin("04_scoring", 4, 5)
    progress.cell(2, 6, "scores = score_study(study)")
    progress.write("\rscoring:  10%|█   | 1/16\rscoring:  20%|██  | 3/16")
    progress.end("ok", 12.0)
    text = terminal.getvalue()
    assert "[4/5] 04_scoring" in text
    assert "cell 2/6: scores = score_study(study)" in text
    assert "3/16" in text
    assert text.count("\n") == 1
    assert text.endswith("[4/5] 04_scoring: ok in 12 s\n")


def test_progress_in_a_file_has_a_line_at_start_and_end_only():
    stream = io.StringIO()
    progress = Progress(stream)
    progress.begin("01_setup", 1, 5)
    progress.cell(1, 3, "x")
    progress.write("10%\r20%")
    progress.end("ok", 2.0)
    assert stream.getvalue() == "[1/5] 01_setup …\n[1/5] 01_setup: ok in 2 s\n"


@pytest.mark.slow
def test_the_whole_demo_writes_everything_it_declares():
    done = subprocess.run(
        [sys.executable, "run_all.py", "--profile", "demo"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for step in find_steps():
        assert re.search(rf"{step.name} +ok", done.stdout)
        assert all(path.stat().st_size for path in step.outputs("demo"))


def test_two_runs_at_once_do_not_meet(tmp_path):
    """Both kernels start at the same moment; their sockets lie apart and are removed."""
    before = set((ROOT / "notebooks").iterdir())
    command = [sys.executable, "run_all.py", "--profile", "demo", "--only", "01", "--models",
               "resnet50", "--limit", "8"]  # fmt: skip
    runs = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    for run in runs:
        printed, _ = run.communicate(timeout=300)
        assert run.returncode == 0, printed.decode()
    assert set((ROOT / "notebooks").iterdir()) == before


def test_a_termination_ends_the_kernel_and_says_so():
    command = [sys.executable, "run_all.py", "--profile", "demo", "--only", "01", "--limit", "8"]
    run = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert "01_setup" in run.stdout.readline()
    run.terminate()
    _, error = run.communicate(timeout=120)
    assert run.returncode == run_all.INTERRUPTED
    assert "interrupted" in error
