"""The runner, notebook by notebook: what counts as success, what is kept, what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import psutil
import pytest
import safetensors.torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from stand_ins import write_notebook
from toy_runs import VALUES, Runner, writing

from lib.base.fingerprint import sha256_of
from lib.base.paths import DEMO, ROOT
from lib.base.tables import Table, UnknownName
from lib.base.words import clock
from lib.runner import clean, memory, preflight, signals, within
from lib.runner.exclusive import sole_run
from lib.runner.execution import Attempt
from lib.runner.faults import FAULTS, RunError
from lib.runner.manifest import Manifest
from lib.runner.outcomes import Outcome, closing_table, exit_status, resume_command
from lib.runner.progress import Progress, Running
from lib.runner.steps import Step, check_parameters, find_steps, read_step, select_steps
from lib.runner.temporary import sweep_temporary_folders, temporary_folder
from lib.runner.warm import CAN_FORK, WarmParent
from lib.study.profiles import PROFILES
from lib.study.study import Study

# --- success and failure -------------------------------------------------------------


def test_a_notebook_that_writes_what_it_declares_succeeds(runner, figures, declared):
    check = "assert (profile, limit, batch_size) == ('demo', 3, 32)"
    outcome = runner.run(check, figures, writing(), writes=declared)
    assert outcome.status == "ok", outcome.detail
    assert runner.figure().read_text() == "made"
    executed = nbformat.read(runner.notebooks / "01_it.ipynb", 4)
    assert all(c.execution_count for c in executed.cells if c.cell_type == "code")
    assert list(outcome.outputs) == [str(runner.figure()), str(runner.notebooks / "01_it.ipynb")]
    assert outcome.peak_memory_bytes > 20 * 2**20
    left = {p.name for p in runner.study.places.output.iterdir()}
    assert left == {"notebooks", "manifest.json", "run.json", "run.log"}


def test_an_error_names_the_cell_and_leaves_the_last_good_results(runner, figures, declared):
    assert runner.run(figures, writing("good"), writes=declared).is_well
    outcome = runner.run(
        figures, writing("half-way"), "raise ValueError('the map is odd')", writes=declared
    )
    assert outcome.status == "failed"
    assert "ValueError: the map is odd" in outcome.detail
    assert "raised in cell 4/4: raise ValueError('the map is odd'), line 1" in outcome.detail
    assert runner.figure().read_text() == "good"
    assert [p.name for p in runner.figure().parent.iterdir()] == ["a.txt"]
    assert sorted(p.name for p in runner.notebooks.iterdir()) == [
        "01_it.failed.ipynb", "01_it.ipynb"
    ]  # fmt: skip
    assert "half-way" not in (runner.notebooks / "01_it.ipynb").read_text()
    failed = nbformat.read(runner.notebooks / "01_it.failed.ipynb", 4)
    assert "not complete: failed" in failed.cells[0].source
    assert "the map is odd" in failed.cells[0].source
    assert runner.run(figures, writing("better"), writes=declared).is_well
    assert runner.figure().read_text() == "better"
    assert [p.name for p in runner.notebooks.iterdir()] == ["01_it.ipynb"]


def test_an_output_of_an_earlier_run_does_not_count(runner, declared):
    runner.figure().parent.mkdir(parents=True)
    runner.figure().write_text("yesterday's")
    outcome = runner.run("pass", writes=declared)
    assert outcome.status == "incomplete"
    assert f"did not write what it declares: {runner.figure()}. It wrote nothing" in outcome.detail
    assert "lib.outputs" in outcome.detail


def test_an_empty_output_does_not_count(runner, figures, declared):
    assert runner.run(figures, writing(""), writes=declared).status == "incomplete"


def test_sys_exit_is_no_success(runner, figures, declared):
    outcome = runner.run(figures, writing(), "import sys; sys.exit(0)", "2", writes=declared)
    assert outcome.status == "incomplete"
    assert "code cells 4, 5 did not complete" in outcome.detail
    assert "began is cell 4/5: import sys; sys.exit(0)" in outcome.detail
    assert not runner.figure().exists()


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (["raise ValueError"], "ValueError"),
        (
            [
                "get_ipython().set_custom_exc((ValueError,), lambda *_, **__: None)",
                "raise ValueError",
            ],
            "an error that the cell's output does not show",
        ),
    ],
)
def test_an_error_without_words_is_told_in_words(runner, cells, told):
    outcome = runner.run(*cells)
    assert outcome.status == "failed"
    assert outcome.detail.splitlines()[0] == told


@pytest.mark.parametrize("is_warm", [True, False])
def test_a_notebook_that_clears_its_environment_writes_into_the_staging_folder(
    runner, figures, declared, tmp_path, is_warm
):
    clearing = (
        f"{figures}\nimport os\nfrom lib.study import Study\n"
        "study = Study.from_profile('demo', limit=3)\nos.environ.clear()"
    )
    warm = WarmParent([("lib.study", "Study")], tmp_path) if is_warm and CAN_FORK else None
    try:
        outcome = runner.run(clearing, writing(), "1 / 0", writes=declared, warm=warm)
        assert outcome.status == "failed"
        assert not runner.figure().exists()
        assert runner.run(clearing, writing(), writes=declared, warm=warm).is_well
        assert runner.figure().read_text() == "made"
    finally:
        if warm:
            warm.close()


def test_a_report_that_cannot_be_written_is_told_once(runner, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lib.runner.session.write_run", full)
    runner.run("1")
    assert runner.printed.getvalue().count("run.json could not be written") == 1


def test_a_bar_that_moves_sixty_times_is_one_output(runner):
    cell = "import tqdm\nfor _ in tqdm.tqdm(range(60), mininterval=0, desc='maps'): pass"
    assert runner.run(cell).is_well
    executed = nbformat.read(runner.notebooks / "01_it.ipynb", 4)
    (output,) = executed.cells[-1].outputs
    assert output.name == "stderr"
    assert output.text.count("maps") == 1
    assert "60/60" in output.text


def test_notebooks_run_in_their_own_folder_with_this_environment(runner):
    cell = (
        "import os, sys, lib\n"
        f"assert os.getcwd() == {str(runner.folder / 'sources')!r}\n"
        f"assert lib.__path__[0] == {str(ROOT / 'lib')!r}\n"
        f"assert sys.prefix == {sys.prefix!r}"
    )
    assert runner.run(cell).is_well


def test_braces_in_a_path_are_no_placeholders(tmp_path, monkeypatch):
    folder = tmp_path / "{study}"
    monkeypatch.setattr("lib.study.places.OUTPUT", folder / "output")
    monkeypatch.setattr("lib.study.places.FIGURES", folder / "figures")
    runner = Runner(folder)
    assert runner.run("1").is_well
    assert (folder / "output" / "demo_subset" / "notebooks" / "01_it.ipynb").exists()


# --- faults, provoked for real ---------------------------------------------------------


def test_a_killed_kernel_is_told_with_memory_and_the_option_that_helps(runner):
    cell = "import os, signal, time; time.sleep(0.6); os.kill(os.getpid(), signal.SIGKILL)"
    outcome = runner.run("x = 1", cell, "2")
    assert outcome.status == "kernel died"
    for words in (
        "signal SIGKILL", "in cell 3/4: import os, signal", "Probably out of memory",
        "the kernel held", "GiB were free at least", "it was 32", "--batch-size 16",
    ):  # fmt: skip
        assert words in outcome.detail
    failed = nbformat.read(runner.notebooks / "01_it.failed.ipynb", 4)
    assert "kernel died" in failed.cells[0].source


def test_a_crash_is_told_with_the_kernels_last_words(runner):
    outcome = runner.run("import ctypes; ctypes.string_at(0)")
    assert outcome.status == "kernel died"
    assert "signal SIGSEGV" in outcome.detail
    assert "Segmentation fault" in outcome.detail
    assert "Probably out of memory" not in outcome.detail


def test_a_kernel_that_ends_itself_is_no_success(runner):
    outcome = runner.run("import os; os._exit(0)", "2")
    assert outcome.status == "kernel died"
    assert "exit status 0" in outcome.detail


def test_memory_refused_within_a_cell_is_told_with_the_option_that_helps(runner):
    cell = (
        "import resource, os\n"
        "limit = int(open('/proc/self/statm').read().split()[0]) * 4096 + 2**28\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "bytearray(2**31)"
    )
    outcome = runner.run(cell)
    assert outcome.status == "out of memory"
    assert "MemoryError" in outcome.detail
    assert "--batch-size 16" in outcome.detail


def test_a_notebook_that_takes_too_long_is_ended(runner):
    started = time.monotonic()
    outcome = runner.run("import time; time.sleep(0.5)", "time.sleep(600)", timeout=4.0)
    assert outcome.status == "timed out"
    assert "0:04 (--timeout), in cell 3/3: time.sleep(600)" in outcome.detail
    assert time.monotonic() - started < 60


def test_a_full_disk_is_told_as_such(runner):
    outcome = runner.run("with open('/dev/full', 'w') as file:\n    file.write('x' * 10**6)")
    assert outcome.status == "disk full"
    assert "MiB free" in outcome.detail
    assert "make clean" in outcome.detail


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "pass"])
def test_nothing_that_a_notebook_started_outlives_it(runner, tmp_path, end):
    pids = tmp_path / "pids"
    cell = (
        "import os, signal, subprocess, pathlib\n"
        "children = [subprocess.Popen(['sleep', '1000'], start_new_session=own) "
        "for own in (False, True)]\n"
        "pids = [os.getpid(), *(child.pid for child in children)]\n"
        f"pathlib.Path({str(pids)!r}).write_text(' '.join(map(str, pids)))\n{end}"
    )
    assert runner.run(cell).status == ("ok" if end == "pass" else "kernel died")
    for pid in map(int, pids.read_text().split()):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


def test_only_notebooks_that_need_a_failed_ones_results_are_not_run(runner, figures):
    b = str(runner.figure("b.txt"))
    runner.write("01_a", "1 / 0", writes=f"`{runner.figure()}`")
    runner.write("02_b", "1", reads=f"`{runner.figure()}`", writes=f"`{b}`")
    runner.write("03_c", "1", reads=f"`{b}`")
    runner.write("04_d", "1")
    outcomes = runner.session().run()
    assert [o.status for o in outcomes] == ["failed", "not run", "not run", "ok"]
    table = closing_table(outcomes)
    assert re.search(r"01_a +failed +0:0\d +\d+ MiB +not run yet +ZeroDivisionError", table)
    assert re.search(r"02_b +not run +it needs the results of 01_a", table)
    kept = json.loads((runner.study.places.output / "run.json").read_text())
    assert [n["status"] for n in kept["notebooks"]] == ["failed", "not run", "not run", "ok"]
    assert kept["exit_status"] == 1


def test_a_half_written_file_is_no_result(runner, figures, declared):
    late = writing(name="late.txt") + "; import time; time.sleep(600)"
    thread = f"import threading, time\ndef late():\n{textwrap.indent(late, '    ')}"
    start = "threading.Thread(target=late, daemon=True).start(); time.sleep(0.5)"
    outcome = runner.run(figures, thread, start, writing(), writes=declared)
    assert outcome.status == "ok"
    assert [p.name for p in runner.study.places.figures.iterdir()] == ["a.txt"]


def test_a_timeout_counts_from_the_kernels_start(runner):
    assert runner.run("1", timeout=0.2).status == "timed out"


def test_a_whole_folder_that_is_read_needs_what_is_written_into_it(runner, figures):
    runner.figure().parent.mkdir(parents=True)
    runner.figure().write_text("old")
    runner.write("01_a", "1 / 0", writes=f"`{runner.study.places.figures}/./a.txt`")
    runner.write("02_b", "1", reads=f"`{runner.study.places.figures}/`")
    assert [o.status for o in runner.session().run()] == ["failed", "not run"]


def test_an_executed_notebook_put_back_is_the_same_source(runner):
    assert runner.run("1").is_well
    path = runner.folder / "sources" / "01_it.ipynb"
    shutil.copy(runner.notebooks / "01_it.ipynb", path)
    outcome = runner.session().run()[0]
    assert (outcome.status, outcome.detail) == ("kept", "")


@pytest.mark.slow
def test_slow_outputs_are_no_timeout(runner, monkeypatch):
    write = Running.write
    monkeypatch.setattr(Running, "write", lambda *a: time.sleep(0.02) or write(*a))
    cell = "import sys\nfor i in range(400): print(i, file=sys.stderr, flush=True)"
    assert runner.run(cell).status == "ok"


def test_trouble_of_the_runners_own_is_not_laid_on_memory(runner, monkeypatch):
    monkeypatch.setattr(Running, "cell", lambda *_: 1 / 0)
    outcome = runner.run("1")
    assert outcome.status == "failed"
    assert "ZeroDivisionError" in outcome.detail


@pytest.mark.parametrize("blocked", ["file", "folder"])
def test_results_that_cannot_be_placed_leave_all_of_the_old_ones(
    runner, figures, declared, blocked
):
    """One of two figures cannot be written: the other keeps its old content as well."""
    b = runner.figure("deep/b.txt")
    cells = [figures, writing("old"), writing("old", "deep/b.txt")]
    assert runner.run(*cells, writes=f"{declared} `{b}`").is_well
    b.unlink()
    if blocked == "file":
        b.parent.rmdir()
        b.parent.write_text("a file in the folder's place")
    else:
        b.mkdir()
    new = [cell.replace("'old'", "'new'") for cell in cells]
    outcome = runner.run(*new, writes=f"{declared} `{b}`")
    assert outcome.status == "failed"
    assert "cannot take their places" in outcome.detail
    assert (runner.notebooks / "01_it.failed.ipynb").exists()
    assert runner.figure().read_text() == "old"
    assert sorted(p.name for p in runner.study.places.figures.iterdir()) == ["a.txt", "deep"]


def test_results_go_to_another_disk_by_a_link(runner, figures, declared):
    other = Path("/dev/shm") / f"dcls-test-{os.getpid()}"
    other.mkdir()
    try:
        runner.study.places.figures.parent.mkdir(parents=True)
        runner.study.places.figures.symlink_to(other)
        assert runner.run(figures, writing(), writes=declared).is_well
        assert [p.name for p in other.iterdir()] == ["a.txt"]
        assert runner.study.places.figures.is_symlink()
    finally:
        shutil.rmtree(other)


def test_a_relative_path_is_meant_from_the_notebooks_folder(runner):
    cell = (
        "from pathlib import Path\nfrom lib.outputs import write_result\n"
        "with write_result(Path('../made.txt')) as partial: partial.write_text('x')"
    )
    outcome = runner.run(cell, writes=f"`{runner.folder / 'made.txt'}`")
    assert outcome.status == "ok", outcome.detail
    assert (runner.folder / "made.txt").read_text() == "x"


def test_an_interruption_while_results_take_their_places_comes_after_the_record(
    runner, figures, declared, monkeypatch
):
    """The notebook counts as done, and the next one does not begin."""
    publish = Attempt.publish

    def interrupted(self):
        os.kill(os.getpid(), signal.SIGINT)
        return publish(self)

    monkeypatch.setattr(Attempt, "publish", interrupted)
    runner.write("01_a", figures, writing(), writes=declared)
    runner.write("02_b", "1")
    with signals.handled():
        outcomes = runner.session().run()
    assert [o.status for o in outcomes] == ["ok", "interrupted"]
    assert exit_status(outcomes) == 130
    monkeypatch.undo()
    monkeypatch.setattr("lib.study.places.OUTPUT", runner.folder / "output")
    monkeypatch.setattr("lib.study.places.FIGURES", runner.folder / "figures")
    assert [o.status for o in runner.session().run()] == ["kept", "ok"]


def test_code_that_changes_while_a_notebook_runs_leaves_no_record(
    runner, figures, declared, monkeypatch
):
    monkeypatch.setattr(Attempt, "publish", lambda self, publish=Attempt.publish: (
        runner.environment.update(torch="3") or publish(self)
    ))  # fmt: skip
    outcome = runner.run(figures, writing(), writes=declared)
    assert outcome.status == "ok"
    assert "while it ran: torch: 2 → 3. It will run again" in outcome.detail
    assert Manifest(runner.study.places.output / "manifest.json")["01_it"] is None


def test_the_report_says_that_a_run_is_at_work_and_when(runner):
    cell = (
        "import json, pathlib\n"
        f"run = json.loads(pathlib.Path({str(runner.study.places.output / 'run.json')!r}).read_text())\n"
        "assert run['notebooks'][0]['status'] == 'running' and run['exit_status'] is None"
    )
    assert runner.run(cell).is_well
    run = json.loads((runner.study.places.output / "run.json").read_text())
    assert run["started"] <= run["ended"]
    assert run["exit_status"] == 0


# --- what is kept ------------------------------------------------------------------------


def test_what_has_succeeded_is_kept_as_long_as_nothing_changes(runner, figures, declared):
    first = runner.run(figures, writing(), writes=declared)
    assert first.reason == "not run yet"
    again = runner.run(figures, writing(), writes=declared)
    assert again.status == "kept"
    assert again.reason.startswith("unchanged since 20")
    assert set(again.outputs) == set(first.outputs)
    assert runner.run(figures, writing(), writes=declared, force=True).reason == "--force"


def change_input(runner):
    (runner.folder / "input.csv").write_text("other")


def change_code(runner):
    runner.write("01_it", "2", reads=f"`{runner.folder}/input.csv`", writes=f"`{runner.figure()}`")


def change_environment(runner):
    runner.environment = {"python": "3", "torch": "3"}


def change_output(runner):
    runner.figure().write_text("touched up by hand")


def delete_notebook(runner):
    (runner.notebooks / "01_it.ipynb").unlink()


def damage_manifest(runner):
    (runner.study.places.output / "manifest.json").write_text('{"notebooks": {"01_it": 3}}')


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_input, "input.csv changed"),
        (change_code, "its cells changed"),
        (change_environment, "torch: 2 → 3"),
        (change_output, "a.txt changed"),
        (delete_notebook, "01_it.ipynb is gone"),
        (damage_manifest, "not run yet"),
    ],
)
def test_a_change_of_anything_that_determines_results_is_told_and_runs_it(
    runner, figures, change, reason
):
    (runner.folder / "input.csv").write_text("one")
    runner.write(
        "01_it", figures, writing(), reads=f"`{runner.folder}/input.csv`",
        writes=f"`{runner.figure()}`",
    )  # fmt: skip
    assert runner.session().run()[0].status == "ok"
    assert runner.session().why_run(runner.session().steps[0]) == ""
    change(runner)
    session = runner.session()
    assert reason in session.why_run(session.steps[0])
    assert reason in session.plan()
    if change is damage_manifest:
        assert "manifest.json is damaged" in session.plan()


def test_a_source_that_is_not_asked_for_and_old_is_told(runner, figures):
    runner.write("01_a", figures, writing(), writes=f"`{runner.figure()}`")
    runner.write("02_b", "1", reads=f"`{runner.figure()}`")
    assert all(o.is_well for o in runner.session().run())
    runner.write("01_a", figures, writing("other"), writes=f"`{runner.figure()}`")
    session = runner.session()
    session.steps = session.steps[1:]
    assert "attention: 01_a, whose results are read, is not up to date" in session.plan()
    assert "--from 01" in session.plan()


def test_a_changed_parameter_is_told(runner):
    assert runner.run("1").is_well
    session = runner.session({"limit": 4, "batch_size": 8})
    assert session.why_run(session.steps[0]) == "batch_size: 32 → 8, limit: 3 → 4"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: "[" * 200_000,
        lambda text: re.sub(r'"finished": "[^"]*"', '"finished": "garbage"', text),
        lambda text: re.sub(r'"outputs": {[^}]*}', '"outputs": ["a"]', text),
    ],
)
def test_a_damaged_manifest_is_told_and_everything_runs_anew(runner, damage):
    assert runner.run("1").is_well
    path = runner.study.places.output / "manifest.json"
    path.write_text(damage(path.read_text()))
    session = runner.session()
    assert "manifest.json is damaged: every notebook runs anew" in session.plan()
    assert session.run()[0].status == "ok"


def test_changed_code_of_the_package_is_told(runner, monkeypatch, tmp_path):
    assert runner.run("1").is_well
    copy = tmp_path / "copy"
    (copy / "lib").mkdir(parents=True)
    for path in (ROOT / "lib").rglob("*.py"):
        place = copy / path.relative_to(ROOT)
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(path.read_bytes() + b"#" * (path.parts[-2:] == ("maps", "cam.py")))
    (copy / "lib" / "figures" / "study.mplstyle").write_bytes(
        (ROOT / "lib" / "figures" / "study.mplstyle").read_bytes()
    )
    for place in ("lib.runner.manifest.ROOT", "lib.base.paths.ROOT", "lib.base.paths._WORKING"):
        monkeypatch.setattr(place, copy)
    session = runner.session()
    assert session.why_run(session.steps[0]) == "lib/maps/cam.py changed"


def test_results_that_a_rerun_step_writes_are_not_taken_for_settled(runner, figures):
    runner.write("01_a", figures, writing(), writes=f"`{runner.figure()}`")
    runner.write("02_b", "1", reads=f"`{runner.figure()}`")
    assert all(o.status == "ok" for o in runner.session().run())
    runner.write("01_a", figures, writing("other"), writes=f"`{runner.figure()}`")
    plan = runner.session().plan()
    assert re.search(r"01_a +run +its cells changed \(took 0:0\d last time\)", plan)
    assert re.search(r"02_b +run +\S+a.txt is written anew", plan)
    outcomes = runner.session().run()
    assert [o.status for o in outcomes] == ["ok", "ok"]
    assert "a.txt changed" in outcomes[1].reason


def test_a_large_input_is_hashed_anew_when_it_changes_under_its_old_time(
    runner, monkeypatch, tmp_path
):
    monkeypatch.setattr("lib.base.fingerprint.WORTH_KEEPING", 0)
    monkeypatch.setattr("lib.base.fingerprint.HASHES", tmp_path / "hashes.json")
    path = tmp_path / "shard"
    path.write_text("one")
    os.utime(path, (1, 1))
    time.sleep(2.1)
    assert sha256_of(path) == hashlib.sha256(b"one").hexdigest()
    assert str(path) in json.loads((tmp_path / "hashes.json").read_text())
    path.write_text("two")
    os.utime(path, (1, 1))
    assert sha256_of(path) == hashlib.sha256(b"two").hexdigest()
    (tmp_path / "hashes.json").write_text("damaged")
    assert sha256_of(path) == hashlib.sha256(b"two").hexdigest()


def test_a_failure_leaves_the_record_of_the_last_success(runner, figures, declared):
    assert runner.run(figures, writing(), writes=declared).is_well
    assert runner.run("1 / 0", writes=declared).status == "failed"
    assert runner.run(figures, writing(), writes=declared).status == "kept"


def test_the_manifest_ties_every_result_to_its_making(runner, figures, declared):
    runner.run(figures, writing(), writes=declared)
    record = Manifest(runner.study.places.output / "manifest.json")["01_it"]
    hash_of_made = hashlib.sha256(b"made").hexdigest()
    assert record.outputs[str(runner.figure())] == hash_of_made
    assert record.facts.parameters == VALUES
    assert record.facts.lib["lib/maps/cam.py"]
    assert record.commit
    assert record.seconds > 0


# --- declarations ---------------------------------------------------------------------


def test_the_studys_notebooks_declare_parameters_inputs_and_outputs():
    steps = find_steps()
    assert [s.name for s in steps] == [
        "00_real_people", "01_setup", "02_dcls_conversion", "03_heatmaps", "04_scoring", "04b_controls",
        "04c_threshold", "04d_sanity", "05_figures", "05b_verdicts",
        "05c_leaderboard", "06_methods",
        "07_cose", "08_lcam", "09_your_own",
    ]  # fmt: skip
    study = Study.from_profile("demo")
    for step in steps:
        assert step.writes
        assert step.cost
        assert step.parameters == {
            "profile": "str", "models": "list", "methods": "list", "limit": "int",
            "options": "dict",
        }  # fmt: skip
        assert all(path.is_relative_to(ROOT) for path in step.outputs(study.places))
        assert all(path.suffix for path in step.inputs(study))
        assert step.inputs(study)
        assert "lib.study" in step.imports()


def test_outputs_of_demo_and_paper_never_meet():
    demo, paper = (
        {path for step in find_steps() for path in step.outputs(Study.from_profile(profile).places)}
        for profile in ("demo", "paper")
    )
    # the tour is always of the shipped data, whatever the profile
    assert all("demo_tour_rows_subset" in path.parts for path in demo & paper)


def test_a_notebook_without_contract_or_parameters_is_refused(tmp_path):
    path = tmp_path / "01_bare.ipynb"
    bare = new_notebook(cells=[new_markdown_cell("# x"), new_markdown_cell("y")])
    nbformat.write(bare, path)
    with pytest.raises(RunError, match="0 cells are tagged 'parameters'"):
        read_step(path)
    cell = new_code_cell("a: int = 1")
    cell.metadata["tags"] = ["parameters"]
    nbformat.write(new_notebook(cells=[*bare.cells, cell]), path)
    with pytest.raises(RunError, match=r"says what it \*\*Reads\*\* and \*\*Writes\*\*"):
        read_step(path)
    sound = json.loads(write_notebook(tmp_path, "02_sound", "1").read_text())
    for damaged in (
        {}, [], sound | {"cells": None}, sound | {"cells": sound["cells"][2:3]},
        sound | {"cells": [{"cell_type": "code", "metadata": {}, "id": "a"}]},
        sound | {"metadata": {"kernelspec": {"name": "ir", "language": "R"}}},
    ):  # fmt: skip
        path.write_text(json.dumps(damaged))
        with pytest.raises(RunError, match="01_bare.ipynb: "):
            read_step(path)
    path.write_text("[" * 100_000)
    with pytest.raises(RunError, match="no readable notebook"):
        read_step(path)
    write_notebook(tmp_path, "01_bare", writes="`figures/../../x`")
    with pytest.raises(RunError, match="must lie in the project's folder"):
        read_step(path)
    write_notebook(tmp_path, "01_bare", "for x in")
    with pytest.raises(RunError, match=r"no Python: .*for x in"):
        read_step(path)


def test_an_unknown_input_is_refused_with_the_nearest(tmp_path):
    step = read_step(write_notebook(tmp_path, "01_it", reads="`image`"))
    with pytest.raises(RunError, match="01_it declares that it reads.*Did you mean 'images'"):
        step.inputs(Study.from_profile("demo"))


def test_two_notebooks_that_write_the_same_file_are_refused(tmp_path):
    for name in ("01_a", "02_b"):
        write_notebook(tmp_path, name, writes="`figures/x.png`")
    with pytest.raises(RunError, match="02_b and 01_a both write figures/x.png"):
        find_steps(tmp_path)


def test_imports_are_those_of_the_cells():
    optional = "try:\n    import g\nexcept ImportError:\n    pass"
    code = ("%time 1\nimport a.b, d", "!ls\nfrom e import f\nx?", optional)
    step = Step(Path("x"), {}, code=code)
    assert step.imports() == ["a.b", "d", "e"]


STEPS = [Step(Path(f"{n}.ipynb"), {"limit": "int", "device": "str", "models": "list"}) for n in
         ("01_setup", "04_scoring", "05_figures")]  # fmt: skip


@pytest.mark.parametrize("name", ["4", "04", "04_scoring"])
def test_steps_are_selected_by_number_or_name(name):
    assert [s.name for s in select_steps(STEPS, [name])] == ["04_scoring"]
    assert [s.name for s in select_steps(STEPS, [], name)] == ["04_scoring", "05_figures"]


def test_a_number_names_every_notebook_that_has_it():
    steps = [Step(Path(f"{name}.ipynb"), {}) for name in ("04_a", "04_b", "05_c")]
    assert [s.name for s in select_steps(steps, ["4"])] == ["04_a", "04_b"]
    assert [s.name for s in select_steps(steps, [], "4")] == ["04_a", "04_b", "05_c"]


def test_an_unknown_step_is_refused_with_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean '04_scoring'"):
        select_steps(STEPS, ["scoring"])
    with pytest.raises(UnknownName, match="unknown notebook '9'"):
        select_steps(STEPS, [], "9")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"limt": 3}, "unknown parameter of 01_setup 'limt'. Did you mean 'limit'"),
        ({"limit": "100"}, "wants limit: int, got '100'"),
        ({"limit": True}, "wants limit: int, got True"),
        ({"device": ("cpu",)}, "wants device: str"),
        ({"models": ("resnet50",)}, "wants models: list"),
        ({"models": [Path("x")]}, "list of texts or numbers"),
    ],
)
def test_parameters_are_checked_against_the_declarations(values, message):
    with pytest.raises((RunError, UnknownName), match=message):
        check_parameters(STEPS, values)


# --- preflight ---------------------------------------------------------------------------


def test_too_little_disk_space_is_found_before_any_work(runner, monkeypatch):
    usage = type("Usage", (), {"free": 3 * 2**20})
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage)
    problems = preflight.check([], {}, runner.study).problems
    assert {p.fault.key for p in problems} == {"disk full"}
    assert "200 MiB needed" in str(problems[0])
    assert "has 3 MiB free" in str(problems[0])


def test_results_that_cannot_be_written_are_found_before_any_work(runner):
    runner.study.places.figures.parent.mkdir(parents=True)
    runner.study.places.figures.write_text("a file in the folder's place")
    problems = preflight.check_disk(runner.study.places)
    assert problems[0].fault.key == "not ready"
    assert "cannot be written" in str(problems[0])


def test_a_missing_file_that_an_earlier_notebook_writes_is_no_problem(runner):
    runner.write("01_a", writes=f"`{runner.figure()}`")
    runner.write("02_b", reads=f"`{runner.figure()}`")
    first, second = find_steps(runner.folder / "sources")
    assert preflight.check_inputs([first, second], runner.study) == []
    (problem,) = preflight.check_inputs([second], runner.study)
    assert problem.fault.exit_status == 3
    assert "02_b reads" in str(problem)
    assert "a.txt, which is not there" in str(problem)
    runner.write("03_c", reads=f"`{runner.figure()}`, `{runner.figure('b.txt')}`")
    (problem,) = preflight.check_inputs(find_steps(runner.folder / "sources")[2:], runner.study)
    assert "b.txt, which are not there" in str(problem)


def test_weights_that_cannot_be_used_are_found_before_any_work(tmp_path, monkeypatch):
    """By what the preflight's kernel is asked: it opens every file of weights."""
    data = tmp_path / "data"
    shutil.copytree(DEMO, data, ignore=shutil.ignore_patterns("tour", "training"))
    row = replace(PROFILES["demo"], data=data)
    monkeypatch.setattr("lib.study.choices.PROFILES", Table("profile", [row]))
    models = ["resnet50", "convnext_tiny"]
    assert json.loads(within.report([], {"models": models}, ["weights"]))["weights"] == []
    path = data / "checkpoints" / "resnet50_dcls.safetensors"
    state = safetensors.torch.load_file(path)
    state["fc.bias"][0] = float("nan")
    state["stranger"] = state["fc.bias"].clone()
    safetensors.torch.save_file(state, path)
    path.with_name("convnext_tiny.safetensors").write_bytes(b"cut")
    report = json.loads(within.report([], {"models": models}, ["weights"]))
    first, second = report["weights"]
    assert "unexpected: stranger" in first
    assert "fc.bias: 1 of its 12 values are not finite" in first
    assert "convnext_tiny.safetensors is not a readable" in second
    tolerant = within.report([], {"models": models, "keep_going": True}, ["weights"])
    assert "weights" not in json.loads(tolerant)
    assert len(json.loads(tolerant)["left_out"]) == 2
    state["fc.bias"][0] = 0
    safetensors.torch.save_file(state, path)
    report = json.loads(
        within.report([], {"models": models[:1], "accept": ["stranger"]}, ["weights"])
    )
    assert report["weights"] == []
    assert list(report["remarks"]) == ["resnet50_dcls"]


def test_what_the_kernel_says_of_weights_ends_the_run_or_is_told(monkeypatch):
    report = {
        "prefix": sys.prefix, "version": sys.version, "errors": {}, "environment": {"python": "3"},
        "weights": ["x.pth is damaged"], "remarks": {"resnet50": ["a"]},
    }  # fmt: skip
    answer = new_notebook(cells=[new_code_cell("")])
    text = f"\n--- the kernel's report ---\n{json.dumps(report)}"
    answer.cells[0].outputs = [new_output("stream", name="stdout", text=text)]
    monkeypatch.setattr(preflight.papermill, "execute_notebook", lambda *_, **__: answer)
    found = preflight.check_kernel([], {})
    assert (found.environment, found.remarks) == ({"python": "3"}, {"resnet50": ["a"]})
    (problem,) = found.problems
    assert problem.fault.exit_status == 13
    assert "x.pth is damaged" in str(problem)
    assert "--keep-going" in str(problem)


# --- what killed runs leave, and make clean ---------------------------------------------------


def test_temporary_folders_of_killed_runs_are_swept_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import tempfile, time; tempfile.tempdir = {!r}\n"
        "from lib.runner.temporary import temporary_folder\n"
        "with temporary_folder() as folder: print(folder, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code.format(str(tmp_path))], stdout=subprocess.PIPE, text=True
    )
    with process:
        killed = Path(process.stdout.readline().strip())
        (tmp_path / "dcls-other").mkdir()
        with temporary_folder() as alive:
            (alive / "kernel-1").touch()
            sweep_temporary_folders()
            assert killed.is_dir()  # its process is at work
            process.kill()
            process.wait()
            sweep_temporary_folders()
            assert (alive / "kernel-1").exists()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["dcls-other"]


def test_make_clean_refuses_while_a_run_is_at_work(tmp_path, monkeypatch, capsys):
    output, figures = tmp_path / "output", tmp_path / "figures"
    for name, place in (("OUTPUT", output), ("FIGURES", figures), ("DATA", tmp_path)):
        monkeypatch.setattr(f"lib.runner.clean.{name}", place)
    (output / "paper" / "scores").mkdir(parents=True)
    (figures / "demo_subset").mkdir(parents=True)
    (figures / "README.md").touch()
    with sole_run(output / "demo", "python run_all.py --profile demo"):
        assert clean.main() == 8
        error = capsys.readouterr().err
        assert "nothing was removed" in error
        assert f"process {os.getpid()} on" in error
        assert "`python run_all.py --profile demo`" in error
        assert (output / "paper" / "scores").is_dir()
    assert clean.main() == 0
    assert [p.name for p in tmp_path.rglob("*")] == ["figures", "README.md"]


@pytest.mark.parametrize("content", ["", "[]", "null", "[" * 10**5, '{"pid": 1}', "{"])
def test_a_damaged_note_of_a_run_is_no_trouble(tmp_path, content):
    (tmp_path / "running.json").write_text(content)
    with sole_run(tmp_path, "x") as killed:
        assert killed == ""


# --- memory ------------------------------------------------------------------------------


def test_the_watch_sees_a_processs_peak_and_its_childrens():
    code = (
        "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', "
        "'x = bytearray(100 * 2**20); import time; time.sleep(3)']); time.sleep(3)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    watch = memory.MemoryWatch(process.pid, interval=0.05)
    process.wait()
    watch.stop()
    assert 100 * 2**20 < watch.peak < 200 * 2**20


def test_figures_of_gpus_are_told_where_there_are_some(monkeypatch):
    figures = type("Memory", (), {"used": 7 * 2**30, "total": 8 * 2**30})
    for name, answer in {
        "nvmlInit": None, "nvmlShutdown": None, "nvmlDeviceGetCount": 2,
        "nvmlDeviceGetHandleByIndex": "gpu", "nvmlDeviceGetMemoryInfo": figures,
    }.items():  # fmt: skip
        monkeypatch.setattr(memory.pynvml, name, lambda *_, answer=answer: answer)
    watch = memory.MemoryWatch(psutil.Process().pid)
    time.sleep(0.1)
    watch.stop()
    assert (watch.gpu_peak, watch.gpu_total) == (14 * 2**30, 16 * 2**30)
    assert "of 16.0 GiB GPU memory 14.0 GiB were in use at most" in watch.describe()


def test_a_kill_that_the_system_counts_is_told(tmp_path, monkeypatch):
    group = tmp_path / "system.slice" / "job"
    group.mkdir(parents=True)
    (tmp_path / "cgroup").write_text("0::/system.slice/job\n")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUP", tmp_path / "cgroup")
    (group / "memory.max").write_text("max")
    (group.parent / "memory.max").write_text(str(2**30))
    events = group / "memory.events"
    events.write_text("low 0\noom 4\noom_kill 3\noom_group_kill 0\n")
    watch = memory.MemoryWatch(psutil.Process().pid)
    assert "counts a process killed" not in watch.describe()
    events.write_text("low 0\noom 5\noom_kill 4\noom_group_kill 0\n")
    watch.stop()
    assert "counts a process killed for memory meanwhile" in watch.describe()
    assert "this container may take 1.0 GiB" in watch.describe()


# --- reports -----------------------------------------------------------------------------


def test_every_fault_has_an_exit_status_of_its_own():
    statuses = [fault.exit_status for fault in FAULTS.values()]
    assert len(set(statuses)) == len(statuses)
    assert 0 not in statuses
    assert exit_status([Outcome("a", "ok"), Outcome("b", "kept"), Outcome("c", "timed out")]) == 6
    assert exit_status([Outcome("a", "ok"), Outcome("b", "kept")]) == 0
    assert exit_status([Outcome("a", "failed"), Outcome("b", "interrupted")]) == 130
    assert exit_status([Outcome("a", "not run")]) == 1


def test_the_command_that_resumes_is_the_same_one_unless_forced_or_short_of_memory(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run_all.py"])
    monkeypatch.setattr(sys, "executable", "/elsewhere/bin/python")
    outcomes = [Outcome("01_a", "ok"), Outcome("02_b", "failed"), Outcome("03_c", "not run")]

    def command(*typed: str) -> str:
        words = resume_command(typed, outcomes, "--force" in typed, 32).split()
        assert words[:2] == ["/elsewhere/bin/python", "run_all.py"]
        return " ".join(words[2:])

    assert command("--profile", "demo") == "--profile demo"
    assert command("--profile", "demo", "--from", "01", "--force") == (
        "--profile demo --force --only 02_b 03_c"
    )
    assert command("--only", "1", "2", "--force", "--limit=3") == (
        "--force --limit=3 --only 02_b 03_c"
    )
    outcomes[1] = Outcome("02_b", "out of memory", detail="Lower --batch-size (it was 32)")
    assert command("--batch-size", "32", "--limit=3") == "--limit=3 --batch-size 16"


def test_a_signal_waits_where_something_must_be_done_whole():
    done = []
    with signals.handled():
        with pytest.raises(signals.Interruption) as caught, signals.held():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            done.append("whole")
        assert caught.value.fault.exit_status == 143
        os.kill(os.getpid(), signal.SIGINT)  # asked already
        time.sleep(0.05)
    with signals.handled(), pytest.raises(signals.Interruption):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert done == ["whole"]


# --- progress ------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


BARS = (
    "\rscoring:  10%|█   | 1/16 [00:02<00:30,  2.00s/model]\rscoring:  19%|██  | 3/16 [00:06<00:26]"
)


def test_progress_keeps_one_line_on_a_terminal(tmp_path):
    terminal = Terminal()
    progress = Progress(terminal, log=tmp_path / "run.log")
    progress.rest(20.0)
    running = progress.begin("[4/5] 04_scoring", usual=57.0)
    running.cell("cell 2/6: scores = score_study(study)")
    running.write(BARS)
    running.write("a warning\n")
    running.end("ok", 12.0)
    text = terminal.getvalue()
    assert "[4/5] 04_scoring · 0:00 of ~0:57 · ~1:17 left · cell 2/6: scores = sco" in text
    assert "scoring: 19% 3/16 [00:06<00:26]" in text
    assert text.count("\n") == 1
    assert text.endswith("[4/5] 04_scoring: ok in 0:12\n")
    log = (tmp_path / "run.log").read_text()
    assert log.count("scoring: ") == log.count("19% 3/16") + 1 == 2
    assert "04  a warning" in log
    assert re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d  \[4/5\] 04_scoring", log)


def shown_on(terminal: str) -> list[str]:
    """The lines that a terminal shows after this text: of what moves its cursor, what is used."""
    lines, row, column = [""], 0, 0
    for part in re.split(r"(\x1b\[A|\x1b\[K|\r|\n)", terminal):
        if part == "\x1b[A":
            row -= 1
        elif part == "\x1b[K":
            lines[row] = lines[row][:column]
        elif part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row == len(lines))
        else:
            lines[row] = lines[row][:column] + part + lines[row][column + len(part) :]
            column += len(part)
    return lines


def test_every_notebook_that_runs_has_a_line_on_a_terminal():
    terminal = Terminal()
    progress = Progress(terminal)
    other = Progress(beside=progress)  # another profile's
    first, second = progress.begin("[1/2] 01_a"), other.begin("[2/2] 02_b")
    first.cell("cell 1/2: x = 1")
    second.write(BARS)
    both = [
        "[1/2] 01_a · 0:00 · cell 1/2: x = 1",
        "[2/2] 02_b · 0:00 · scoring: 19% 3/16 [00:06<00:26]",
    ]
    assert shown_on(terminal.getvalue()) == both
    progress.say("a word")
    assert shown_on(terminal.getvalue()) == ["a word", *both]
    first.end("ok", 3.0)
    assert shown_on(terminal.getvalue()) == ["a word", "[1/2] 01_a: ok in 0:03", both[1]]
    second.end("failed", 4.0, "why")
    assert shown_on(terminal.getvalue()) == [
        "a word", "[1/2] 01_a: ok in 0:03", "[2/2] 02_b: failed in 0:04", "  why", "",
    ]  # fmt: skip


def test_the_time_left_is_that_of_the_longest_and_of_what_waits():
    progress = Progress(Terminal())
    progress.rest(20.0)
    first = progress.begin("[4/5] 04_scoring", usual=10.0)
    first.write("scoring:  19%|██  | 3/16 [00:06<01:26,  2.00s/model]")
    assert first.state() == (
        "[4/5] 04_scoring · 0:00 of ~0:10 · ~1:46 left · scoring: 19% 3/16 [00:06<01:26]"
    )
    # On a narrow terminal the estimate makes room for the bar.
    assert first.state(70) == "[4/5] 04_scoring · 0:00 of ~0:10 · scoring: 19% 3/16 [00:06<01:26]"
    second = progress.begin("[5/5] 05_figures", usual=200.0)
    assert " · ~3:40 left · " in first.state()
    assert second.state() == "[5/5] 05_figures · 0:00 of ~3:20 · "
    third = progress.begin("[3/5] 03_x")
    assert "left" not in first.state()  # one is unknown
    for running in (first, second, third):
        running.end("ok", 1.0)


@pytest.mark.parametrize("quiet", [False, True])
def test_progress_in_a_file_has_no_bars_and_a_sign_of_life_unless_quiet(monkeypatch, quiet):
    monkeypatch.setattr("lib.runner.progress.SIGN_OF_LIFE", 0.2)
    stream = io.StringIO()
    running = Progress(stream, quiet=quiet).begin("[1/5] 01_setup")
    running.cell("cell 1/3: x")
    running.write(BARS)
    time.sleep(0.3)
    running.end("failed", 2.0, "cell 1 raised")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[1/5] 01_setup …"
    assert lines[-2:] == ["[1/5] 01_setup: failed in 0:02", "  cell 1 raised"]
    between = ["[1/5] 01_setup · 0:00 · scoring: 19% 3/16 [00:06<00:26]"]
    assert lines[1:-2] == ([] if quiet else between)


def test_the_log_has_each_bar_once_whatever_its_kind(tmp_path):
    running = Progress(io.StringIO(), log=tmp_path / "run.log").begin("x")
    for i in range(50):
        running.write(f"\rfiles: {i}it [00:01, 44.1it/s]")
        running.write(f"\x1b[A\rinner:  {i}%|█| {i}/50 [00:00<00:01, 9it/s]\x1b[A")
    running.write("x" * 10**6)
    running.end("ok", 1.0)
    log = (tmp_path / "run.log").read_text()
    assert len(log.splitlines()) == 4
    assert len(log) < 1500
    assert "inner: 49% 49/50 [00:00<00:01]" in log


def test_ci_is_quiet(monkeypatch):
    monkeypatch.setenv("CI", "true")
    assert Progress(io.StringIO()).quiet


def test_a_terminal_that_has_gone_does_not_end_the_run():
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    Progress(Gone()).begin("x").end("ok", 1.0)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (75, "1:15"), (7200, "2:00:00")])
def test_times_are_told_as_on_a_clock(seconds, text):
    assert clock(seconds) == text


def test_options_take_what_has_no_parameter_of_its_own(tmp_path):
    plain = read_step(write_notebook(tmp_path, "01_a", "1"))
    taking = read_step(
        write_notebook(tmp_path, "02_b", "1", parameters="limit: int = 0\noptions: dict = {}")
    )
    values = {"profile": "demo", "limit": 3, "batch_size": 8}
    assert plain.bound(values) == values
    assert taking.bound(values) == {"limit": 3, "options": {"profile": "demo", "batch_size": 8}}
    assert taking.bound({"limit": 3}) == {"limit": 3}
    check_parameters([taking], {**values, "images": "x"})
    with pytest.raises(UnknownName, match=r"'images'.*options: dict = \{\}` would take all"):
        check_parameters([plain], {"images": "x"})
