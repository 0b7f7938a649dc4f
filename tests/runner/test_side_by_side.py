"""Several notebooks at once: what waits for what, and what one means for the others."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from toy_runs import Runner, writing

from lib.runner import signals, warm
from lib.runner.faults import RunError
from lib.runner.outcomes import exit_status
from lib.runner.side_by_side import SideBySide, usual_jobs
from lib.study.study import Study


def meeting(runner: Runner, own: str, other: str) -> str:
    """A cell that ends only while the other notebook runs as well."""
    return (
        "import time, pathlib\n"
        f"folder = pathlib.Path({str(runner.folder)!r})\n"
        f"(folder / {own!r}).touch()\n"
        "until = time.monotonic() + 60\n"
        f"while not (folder / {other!r}).exists():\n"
        "    assert time.monotonic() < until, 'alone'\n"
        "    time.sleep(0.05)"
    )


def started(runner: Runner) -> list[str]:
    return re.findall(r"\] (\w+) …", runner.printed.getvalue())


def test_notebooks_that_do_not_read_each_other_run_at_once_as_many_as_asked_for(runner):
    runner.write("01_a", meeting(runner, "a", "b"))
    runner.write("02_b", meeting(runner, "b", "a"))
    outcomes = runner.session().run(jobs=2)
    assert [o.status for o in outcomes] == ["ok", "ok"]
    run = json.loads((runner.study.places.output / "run.json").read_text())
    assert [n["notebook"] for n in run["notebooks"]] == ["01_a", "02_b"]
    assert run["exit_status"] == 0


def test_with_one_job_one_runs_after_the_other(runner):
    runner.write("01_a", "1")
    runner.write("02_b", "1")
    assert all(o.is_well for o in runner.session().run(jobs=1))
    text = runner.printed.getvalue()
    assert text.index("01_a: ok") < text.index("02_b …")


def test_what_reads_anothers_results_waits_for_them_however_many_may_run(runner, figures, declared):
    runner.write("01_a", figures, "import time; time.sleep(1)", writing("new"), writes=declared)
    check = f"assert open({str(runner.figure())!r}).read() == 'new'"
    runner.write("02_b", check, reads=declared)
    assert [o.status for o in runner.session().run(jobs=4)] == ["ok", "ok"]


def test_one_failure_lets_the_others_finish(runner, figures, declared):
    runner.write("01_a", "1 / 0", writes=declared)
    runner.write("02_b", "1", reads=declared)
    runner.write("03_c", "import time; time.sleep(2)")
    outcomes = runner.session().run(jobs=2)
    assert [o.status for o in outcomes] == ["failed", "not run", "ok"]
    assert outcomes[1].reason == "it needs the results of 01_a"


def test_one_interruption_ends_all_that_run(runner):
    runner.write("01_a", "import time; time.sleep(600)")
    runner.write("02_b", "import time; time.sleep(600)")
    runner.write("03_c", "1")

    def interrupt():
        until = time.monotonic() + 60
        log = runner.study.places.output / "run.log"
        while not log.exists() or log.read_text().count("cell 2/2") < 2:
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with signals.handled():
        thread.start()
        outcomes = runner.session().run(jobs=2)
    thread.join()
    assert [o.status for o in outcomes] == ["interrupted", "interrupted", "not run"]
    assert all("in cell 2/2: import time" in o.detail for o in outcomes[:2])
    assert exit_status(outcomes) == 130


def test_a_second_one_does_not_begin_where_memory_is_short_and_that_is_said(runner, monkeypatch):
    monkeypatch.setattr("lib.runner.memory.available", lambda: 3 * 2**30)
    for name in ("01_a", "02_b"):
        runner.write(name, "import time; time.sleep(1)")
    assert all(o.is_well for o in runner.session().run(jobs=2))
    text = runner.printed.getvalue()
    assert text.index("_a: ok") < text.index("02_b …")
    assert text.count("02_b waits for memory: it takes about 2.0 GiB, and 1") == 1
    # The next time it is known what they take.
    runner.printed.truncate(0)
    session = runner.session(force=True)
    assert all(0 < session.memory(index) < 2**30 for index in range(2))
    assert all(o.is_well for o in session.run(jobs=2))
    assert "waits for memory" not in runner.printed.getvalue()


def test_what_takes_longest_to_its_end_begins_first(runner, figures, declared):
    """Longest of all: one that is short itself, for which a long one waits."""
    for name, cost, reads, writes in (
        ("01_a", "two minutes", "", ""),
        ("02_b", "seconds", "", declared),
        ("03_c", "half an hour", declared, ""),
    ):
        cells = (figures, writing()) if writes else ("1",)
        runner.write(name, *cells, reads=reads, writes=writes, cost=cost)
    session = runner.session()
    assert [step.declared_seconds for step in session.steps] == [120, 5, 1800]
    assert session.urgency == [120, 1805, 1800]
    assert all(o.is_well for o in session.run())
    assert started(runner) == ["02_b", "03_c", "01_a"]
    assert [o.notebook for o in session.outcomes] == ["01_a", "02_b", "03_c"]


def test_the_next_session_is_prepared_while_the_first_runs_and_each_is_told_at_its_end(
    runner, tmp_path, monkeypatch
):
    runner.write("01_a", meeting(runner, "a", "prepared"))
    first, second, told = runner.session(), None, []

    def sessions():
        nonlocal second
        yield first
        (runner.folder / "prepared").touch()
        other = Study.from_profile("demo", limit=4)
        other.places.output.mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(runner, "study", Study.from_profile("demo", name="other"))
        second = runner.session()
        yield second

    SideBySide(1, lambda session: told.append((session, session.is_over))).run(sessions())
    assert told == [(first, True), (second, True)]
    assert [s.outcomes[0].status for s in (first, second)] == ["ok", "ok"]


def test_a_session_that_cannot_be_prepared_leaves_the_first_its_end(runner):
    runner.write("01_a", "1")
    first, told = runner.session(), []

    def sessions():
        yield first
        raise RunError("unreadable files", "x.pth is damaged")

    with pytest.raises(RunError, match="x.pth is damaged"):
        SideBySide(1, told.append).run(sessions())
    assert told == [first]
    assert first.outcomes[0].status == "ok"


def test_how_many_run_at_once_where_nobody_says(monkeypatch):
    cores = SimpleNamespace(count=1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores.count), raising=False)
    found = []
    for cores.count in (1, 2, 3, 64):
        found.append(usual_jobs("cpu Some processor"))
    assert found == [1, 2, 3, 4]
    assert usual_jobs("cuda:0 Some GPU") == usual_jobs("mps") == 1
    assert usual_jobs("cpu", workers=True) == 1


def test_every_kernel_has_the_same_threads_however_many_run(runner):
    """Else sums in another order would be other results."""
    cell = (
        "import os\n"
        "told = {name: os.environ.get(name) for name in ('OMP_NUM_THREADS', 'OMP_WAIT_POLICY')}\n"
        f"assert told == {{'OMP_NUM_THREADS': {os.environ.get('OMP_NUM_THREADS')!r}, "
        f"'OMP_WAIT_POLICY': {warm.ENVIRONMENT['OMP_WAIT_POLICY']!r}}}, told"
    )
    for name in ("01_a", "02_b"):
        runner.write(name, cell)
    for jobs in (1, 2):
        assert [o.detail for o in runner.session(force=True).run(jobs=jobs)] == ["", ""]
