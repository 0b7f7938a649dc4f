"""One process at a time on a file, also where the other one is on another node."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import SoftFileLease

from lib.base.alone import alone

PROCESSES = multiprocessing.get_context("spawn")
SHORT = {"lease": 1.0, "poll": 0.02}


def hold(path: Path, holds, may_end) -> None:
    """In another process: hold the file until it is killed, or told to end."""
    with alone(path, **SHORT):
        holds.set()
        may_end.wait()


def claim_of(path: Path) -> Path:
    return path.with_suffix(".lease")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "scores" / "unit.parquet"


@pytest.fixture
def other(path):
    """Another process that holds the file, and the event that ends it."""
    holds, may_end = PROCESSES.Event(), PROCESSES.Event()
    process = PROCESSES.Process(target=hold, args=(path, holds, may_end), daemon=True)
    process.start()
    assert holds.wait(60)
    yield process, may_end
    process.kill()
    process.join()


def test_nobody_else_means_no_waiting_and_nothing_left(path):
    with alone(path) as waited:
        assert not waited
        assert claim_of(path).exists()
    assert list(path.parent.iterdir()) == []


def test_a_file_that_another_process_holds_is_waited_for(path, other):
    _, may_end = other
    entered = threading.Event()

    def work() -> bool:
        with alone(path, **SHORT) as waited:
            entered.set()
            return waited

    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(work)
        # Longer than a lease: its owner is alive and refreshes it.
        assert not entered.wait(1.5)
        may_end.set()
        assert result.result(timeout=60) is True
    assert list(path.parent.iterdir()) == []


def test_what_a_killed_process_of_this_host_held_is_taken_over_at_once(path, other):
    process, _ = other
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert claim_of(path).exists()
    with alone(path, lease=3600) as waited:  # whose end nobody could wait for
        assert not waited
    assert list(path.parent.iterdir()) == []


def as_of_another_host(path: Path, lease: float) -> None:
    """A claim as a process on another node leaves it that was killed: nobody refreshes it."""
    path.parent.mkdir(parents=True)
    mine = SoftFileLease(claim_of(path), lease_duration=lease)
    with mine:
        text = claim_of(path).read_text()
    lines = [line for line in text.splitlines() if not line.startswith("start=")]
    lines = ["host=another-node" if line.startswith("host=") else line for line in lines]
    claim_of(path).write_text("\n".join(lines) + "\n")


def test_a_dead_claim_of_another_node_is_taken_over_after_the_lease(path):
    as_of_another_host(path, SHORT["lease"])
    with alone(path, **SHORT) as waited:
        assert waited
        assert "another-node" not in claim_of(path).read_text()
    assert list(path.parent.iterdir()) == []


def test_a_claim_without_an_owner_is_taken_over_after_the_lease(path):
    """As a process leaves it that is killed between creating its claim and writing to it."""
    path.parent.mkdir()
    claim_of(path).touch()
    with alone(path, **SHORT) as waited:
        assert waited
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(38, "Function not implemented"), NotImplementedError()])
def test_where_no_claim_can_be_made_the_work_is_done_all_the_same(path, error, monkeypatch):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(SoftFileLease, "acquire", refuse)
    with alone(path) as waited:
        assert not waited


def test_a_claim_of_another_version_does_not_stop_the_work(path):
    as_of_another_host(path, 7.0)
    with alone(path, **SHORT):
        pass


def test_an_error_of_the_work_is_its_own(path):
    with pytest.raises(OSError, match="no disk"), alone(path):
        raise OSError("no disk")
    assert list(path.parent.iterdir()) == []
