"""The recipes of docs/cluster, run by a SLURM of two nodes on this machine.

One to two and a half minutes each; skipped without SLURM (Debian's packages slurm-wlm and munge).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stand_ins import copy_lib
from toy_slurm import ToySlurm, lacking

from lib.base.paths import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(lacking()), reason=f"SLURM is not complete: no {', '.join(lacking())}"),
]
OPTIONS = ("--profile", "demo", "--limit", "4", "--device", "cpu", "--only", "04")
UNITS, SHARES = 16, 4
# Every Python of a job reads this file first. It refuses addresses beyond this machine.
GUARD = """
import os, socket, psutil

own = {a.address for each in psutil.net_if_addrs().values() for a in each} | {"0.0.0.0", ""}
whole = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}
lookup = socket.getaddrinfo

def refuse(where):
    with open(os.environ["GUARD"], "a") as file:
        file.write(f"{where}\\n")
    raise OSError(f"a compute node has no network: {where}")

def guarded(name):
    def call(self, address):
        # A datagram socket that connects sends nothing: Dask finds its own address so.
        internet = self.family in (socket.AF_INET, socket.AF_INET6)
        if internet and self.type & socket.SOCK_STREAM:
            if str(address[0]) not in own | {"localhost", socket.gethostname()}:
                refuse(address)
        return whole[name](self, address)
    return call

def looked_up(host, *arguments, **options):
    if host and str(host) not in own | {"localhost", socket.gethostname(), socket.getfqdn()}:
        refuse(host)
    return lookup(host, *arguments, **options)

for name in whole:
    setattr(socket.socket, name, guarded(name))
socket.getaddrinfo = looked_up
"""


@pytest.fixture
def slurm():
    with ToySlurm() as toy:
        yield toy


class Project:
    """A copy of the project on the disk that the nodes share, with results of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "data").mkdir(parents=True)
        (folder / "figures").mkdir()
        copy_lib(folder)
        for name in ("notebooks", "docs/cluster"):
            shutil.copytree(ROOT / name, folder / name)
        for name in ("run_all.py", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, folder)
        for name in ("demo", "published_scores.csv"):
            (folder / "data" / name).symlink_to(ROOT / "data" / name)
        # The jobs' environment is this one; `activate` finds python where this Python is.
        (folder / "environment" / "bin").mkdir(parents=True)
        activate = f'export PATH="{Path(sys.executable).parent}:$PATH"\n'
        (folder / "environment" / "bin" / "activate").write_text(activate)
        (folder / "guard").mkdir()
        (folder / "guard" / "sitecustomize.py").write_text(GUARD)
        self.refused = folder / "refused.txt"
        self.environment = {
            "DCLS_VENV": str(folder / "environment"), "SHARES": str(SHARES),
            "RESOURCES": "--cpus-per-task=1", "NOTEBOOKS": "--cpus-per-task=1",
            "PYTHONPATH": f"{folder / 'guard'}:{folder}", "GUARD": str(self.refused),
            "TMPDIR": str(folder / "node"), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        (folder / "node").mkdir()

    @property
    def cached(self) -> dict[str, int]:
        """{file of finished scores: when it was written}"""
        found = (self.folder / "data" / "output").glob("*/scores/[!.]*.parquet")
        found = [path for path in found if not path.name.startswith("people-")]  # the notebook's
        return {path.name: path.stat().st_mtime_ns for path in found}

    @property
    def tables(self) -> dict[str, bytes]:
        found = (self.folder / "data" / "output").glob("*/tables/*")
        return {path.name: path.read_bytes() for path in found if path.suffix != ".json"}

    @property
    def logs(self) -> str:
        return "\n".join(p.read_text(errors="replace") for p in self.folder.glob("slurm-*"))

    def submit(self, slurm: ToySlurm) -> tuple[str, str]:
        """The numbers of the array and of the notebooks' job that waits for it."""
        command = ("bash", "docs/cluster/submit.sh", *OPTIONS)
        told = slurm.run(*command, cwd=self.folder, env=self.environment).stdout.split()
        return told[1].rstrip(","), told[3]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    """The tables of a single process that no SLURM started."""
    project = Project(tmp_path_factory.mktemp("undisturbed") / "project")
    environment = {**os.environ, **project.environment, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "run_all.py", *OPTIONS], cwd=project.folder, env=environment, check=True
    )
    assert len(project.cached) == UNITS
    return project.tables


def test_an_array_with_a_killed_task_submitted_again_makes_the_single_runs_tables(
    slurm, tmp_path, undisturbed
):
    project = Project(tmp_path / "project")
    array, last = project.submit(slurm)
    while not project.cached:
        states = slurm.states(array)
        assert {"PENDING", "RUNNING"} & set(states.values()), project.logs
    running = [task for task, state in states.items() if state == "RUNNING"]
    slurm.run("scancel", "--signal=KILL", "--full", f"{array}_{running[0]}")
    states = slurm.wait(array)
    assert states.pop(running[0]) != "COMPLETED"
    assert set(states.values()) == {"COMPLETED"}, project.logs
    before = project.cached
    assert 0 < len(before) < UNITS
    # The notebooks do not run on scores that are not complete.
    assert slurm.wait(last) == {last: "CANCELLED"}
    assert not project.tables

    array, last = project.submit(slurm)
    assert set(slurm.wait(array).values()) == {"COMPLETED"}, project.logs
    after = project.cached
    assert before.items() <= after.items()  # what was finished is not scored again
    assert len(after) == UNITS
    assert slurm.wait(last) == {last: "COMPLETED"}, project.logs
    assert project.cached == after  # the notebooks found every score
    assert project.tables == undisturbed
    assert not project.refused.exists(), project.refused.read_text()
    assert not list((project.folder / "data" / "output").rglob("*.lease"))


def test_dask_workers_one_of_them_killed_make_the_single_runs_tables(slurm, tmp_path, undisturbed):
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    project = Project(tmp_path / "project")
    command = (sys.executable, "docs/cluster/dask_slurm.py", "--jobs", "2", "--cpus", "1",
               "--memory", "4GB", "--", *OPTIONS)  # fmt: skip
    process = slurm.start(*command, cwd=project.folder, env=project.environment)
    try:
        while not project.cached:
            assert process.poll() is None, project.logs
        told = slurm.run("squeue", "--noheader", "--states=RUNNING", "--format=%i").stdout.split()
        assert len(project.cached) < UNITS
        slurm.run("scancel", "--signal=KILL", "--full", told[0])
        assert process.wait(300) == 0, project.logs
    finally:
        process.kill()
        process.wait()
    assert len(project.cached) == UNITS
    assert project.tables == undisturbed
    assert not project.refused.exists(), project.refused.read_text()


def test_processes_of_one_node_with_four_gpus_make_the_single_runs_tables(
    slurm, tmp_path, undisturbed
):
    """The script and what it asks for; the GPUs are only counted, and processors compute."""
    project = Project(tmp_path / "project")
    environment = project.environment | {"WORKERS": "2"}
    asked = ("sbatch", "--parsable", "--cpus-per-task=1", "--mem=16G", "docs/cluster/gpus.sbatch")
    job = slurm.run(*asked, *OPTIONS, cwd=project.folder, env=environment).stdout.strip()
    assert "gpu:4" in slurm.run("scontrol", "show", "job", job).stdout
    assert slurm.wait(job) == {job: "COMPLETED"}, project.logs
    assert len(project.cached) == UNITS
    assert project.tables == undisturbed
    assert not project.refused.exists(), project.refused.read_text()
