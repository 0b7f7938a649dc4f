"""Kernels that are forked: as those that are started alone, and gone when they must be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from lib.base.paths import ROOT
from lib.runner.steps import find_steps
from lib.runner.warm import CAN_FORK, ParentGone, WarmParent, names_to_import

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="processes are started anew here")
HEAVY = [("torch", ""), ("matplotlib.pyplot", ""), ("numpy", ""), ("scipy.linalg", "")]
# What must not depend on how a kernel was made; all of it computes on several threads.
COMPUTING = """
import os, sys, hashlib, numpy, torch, scipy.linalg
import matplotlib, matplotlib.pyplot as plt
torch.manual_seed(3)
x = torch.rand(4, 16, 64, 64)
with torch.inference_mode():
    y = torch.nn.Conv2d(16, 32, 5)(x)
a = numpy.random.default_rng(0).random((300, 300))
u = scipy.linalg.eigvalsh(a @ a.T)
print(hashlib.sha256(y.numpy().tobytes() + (a @ a).tobytes() + u.tobytes()).hexdigest())
print(torch.get_num_threads(), torch.initial_seed(), matplotlib.get_backend(), os.getcwd())
print(sys.prefix, sys.path, __name__, os.environ.get("DCLS_STAGING") is not None)
import gc; print(gc.isenabled(), gc.get_threshold())
plt.figure(figsize=(2, 1)); plt.plot([1, 3, 2]);
"""


@pytest.fixture(scope="module")
def heavy():
    parent = WarmParent(HEAVY, ROOT / "tests")
    yield parent
    parent.close()


@pytest.fixture
def light(tmp_path):
    """A parent that has imported nothing but ipykernel."""
    parent = WarmParent([], tmp_path)
    yield parent
    parent.close()


def children(parent: WarmParent) -> list[psutil.Process]:
    return psutil.Process(parent.process.pid).children()


def is_gone(pid: int, seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def outputs(runner) -> list:
    executed = nbformat.read(runner.notebooks / "01_it.ipynb", 4)
    return [cell.outputs for cell in executed.cells if cell.cell_type == "code"]


def test_a_forked_kernel_computes_and_shows_the_same_bytes_as_one_that_is_started_alone(
    runner, heavy
):
    shown = []
    for warm in (heavy, None):
        outcome = runner.run(COMPUTING, warm=warm, force=True)
        assert outcome.status == "ok", outcome.detail
        shown.append(outputs(runner))
    assert shown[0] == shown[1]
    assert "image/png" in shown[0][-1][-1].data


def test_nothing_is_started_before_the_fork_that_a_fork_does_not_copy(runner, heavy):
    """No thread, and no CUDA. OpenBLAS' own threads it ends itself before a fork."""
    asking = (
        "import threading, torch, os\n"
        "assert not torch.cuda.is_initialized()\n"
        f"assert os.getppid() == {heavy.process.pid}"
    )
    assert runner.run(asking, warm=heavy, force=True).is_well
    assert len(list(Path(f"/proc/{heavy.process.pid}/task").iterdir())) == 1


def test_a_forked_kernel_collects_garbage_by_itself_and_when_it_is_asked(runner, light):
    cell = (
        "import gc, weakref\n"
        "class Node: pass\n"
        "def cycle():\n    node = Node(); node.me = node; return weakref.ref(node)\n"
        "told = [cycle() for _ in range(20000)]\n"
        "assert sum(ref() is not None for ref in told) < 2000\n"
        "gc.collect(); assert not any(ref() for ref in told)"
    )
    outcome = runner.run(cell, warm=light)
    assert outcome.is_well, outcome.detail


def test_kernels_of_one_parent_share_no_state(runner, light):
    cell = (
        "import os, sys, random, numpy\n"
        "assert not hasattr(sys, 'marked'); sys.marked = 1\n"
        "assert 'MARKED' not in os.environ; os.environ['MARKED'] = '1'\n"
        "assert os.getsid(0) == os.getpid() and os.getcwd() == "
        f"{str(runner.folder / 'sources')!r}\n"
        "print(os.getpid(), random.random(), numpy.random.random())"
    )
    told = []
    for _ in range(2):
        assert runner.run(cell, warm=light, force=True).is_well
        told.append(outputs(runner)[-1][0].text.split())
    assert all(a != b for a, b in zip(*told, strict=True))


def test_random_numbers_differ_between_kernels_of_a_parent_that_has_numpy(runner, heavy):
    told = set()
    for _ in range(2):
        assert runner.run(
            "import numpy; print(numpy.random.random())", warm=heavy, force=True
        ).is_well
        told.add(outputs(runner)[-1][0].text)
    assert len(told) == 2


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal SIGKILL"),
        ("import os; os._exit(3)", "exit status 3"),
        ("import ctypes; ctypes.string_at(0)", "Segmentation fault"),
    ],
)
def test_how_a_forked_kernel_ended_is_told(runner, light, cell, words):
    outcome = runner.run(cell, warm=light)
    assert outcome.status == "kernel died"
    assert words in outcome.detail
    assert not children(light)
    assert runner.run("1", warm=light).is_well  # the parent goes on


@pytest.mark.parametrize(
    ("last", "status"),
    [
        ("os._exit(3)", "kernel died"),
        pytest.param("time.sleep(600)", "timed out", marks=pytest.mark.slow),  # fifteen seconds
    ],
)
def test_what_a_forked_kernel_started_ends_with_it(runner, light, tmp_path, last, status):
    pids = tmp_path / "pids"
    cell = (
        "import os, subprocess, pathlib, time\n"
        "child = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "forked = os.fork() or time.sleep(1000)\n"
        f"pathlib.Path({str(pids)!r}).write_text(f'{{os.getpid()}} {{child.pid}} {{forked}}')\n"
        f"{last}"
    )
    assert runner.run(cell, warm=light, timeout=15.0).status == status
    assert all(is_gone(int(pid)) for pid in pids.read_text().split())


def test_a_kernel_ends_with_the_parent_that_is_killed_and_the_next_starts_alone(runner, tmp_path):
    parent = WarmParent([], tmp_path)
    cell = (
        f"import os, signal, time; os.kill({parent.process.pid}, signal.SIGKILL); time.sleep(600)"
    )
    outcome = runner.run(cell, warm=parent)
    assert outcome.status == "kernel died"
    assert "The process that kernels are forked from has ended" in outcome.detail
    assert "out of memory" not in outcome.detail
    with pytest.raises(ParentGone):
        parent.fork([], "/", {}, 1, 2)
    assert runner.run("import os; print(os.getppid())", warm=parent).is_well
    assert outputs(runner)[-1][0].text.strip() == str(os.getpid())
    parent.close()


def test_the_parent_and_its_kernels_end_when_the_process_that_started_it_is_killed(tmp_path):
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom lib.runner.warm import WarmParent\n"
        "warm = WarmParent([], Path('/'))\n"
        "kernel = warm.fork([sys.executable, '-m', 'ipykernel_launcher', '-f', 'x.json'], "
        f"{str(tmp_path)!r}, dict(os.environ), 1, 2)\n"
        "print(warm.process.pid, kernel.pid, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    with process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert all(psutil.pid_exists(pid) for pid in pids)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert all(is_gone(pid) for pid in pids)


def test_changed_code_of_the_package_is_run_by_a_kernel_that_is_started_alone(runner, light):
    cell = "import os; print(os.getppid())"
    session_code = runner.code()
    assert runner.run(cell, warm=light).is_well
    assert outputs(runner)[-1][0].text.strip() == str(light.process.pid)
    runner.changed = {**session_code, "lib/maps/cam.py": "another"}
    assert runner.run(cell, warm=light, force=True).is_well
    assert outputs(runner)[-1][0].text.strip() == str(os.getpid())


def test_what_is_imported_once_is_what_notebooks_take_from_this_package():
    names = names_to_import(find_steps())
    assert ("lib.study", "Study") in names
    assert ("lib.study.networks", "") in names
    assert {module.partition(".")[0] for module, _ in names} == {"lib"}
