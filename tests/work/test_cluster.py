"""Work by several processes: the tables are a single process's, whoever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from stand_ins import copy_lib, make_record

from lib.base.paths import ROOT
from lib.people.stored.shards import write_shard
from lib.scores import score_study
from lib.scores.units import ScoreWork
from lib.study.study import Study
from lib.work import cluster

SHARDS, IMAGES = 4, 12
CHOICES = {
    "models": ["resnet50", "convnext_tiny"], "protocols": ["corrected"], "batch_size": 4,
}  # fmt: skip
# A program of its own: Dask starts its workers from one.
PROGRAM = f"""
import sys
from pathlib import Path
from lib.analyses import score_faithfulness, score_forgetting
from lib.analyses.cose import score_cose
from lib.scores import score_controls, score_measures, score_study
from lib.study import Study

if __name__ == "__main__":
    images, out, workers = sys.argv[1:]
    study = Study.from_profile("demo", **{CHOICES}, images=images, workers=int(workers))
    few = study.changed(models=["resnet50"], methods=["grad_cam"])
    tables = {{
        "scores": lambda: score_study(study),
        "controls": lambda: score_controls(study),
        "measures": lambda: score_measures(few),
        "faithfulness": lambda: score_faithfulness(
            study, few.choices.backbones, few.choices.methods, 20, True),
        "forgetting": lambda: score_forgetting(few, 2),
        "cose": lambda: score_cose(few, 2),
    }}
    for name, table in tables.items():
        table().to_csv(Path(out) / f"{{name}}.csv", index=False)
"""


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    for number in range(SHARDS):
        path = folder / f"val-{number}.tfrecords"
        write_shard(path, (make_record(100 * number + i, label=i % 12) for i in range(IMAGES)))
    return folder


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of the project: its workers keep scores of their own."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    copy_lib(folder)
    (folder / "data" / "demo").symlink_to(ROOT / "data" / "demo")
    (folder / "program.py").write_text(PROGRAM)
    return folder


def start(project: Path, *arguments: object, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "program.py", *map(str, arguments)], cwd=project,
        env={**os.environ, "PYTHONPATH": str(project), **variables},
    )  # fmt: skip


def kept(project: Path) -> list[Path]:
    return list((project / "data" / "output").rglob("[!.]*.parquet"))


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The processes in which Dask's workers live, once they are there."""
    below = psutil.Process(process.pid).children(recursive=True)
    return [p for p in below if "spawn_main" in " ".join(p.cmdline())]


@pytest.mark.slow
def test_two_workers_one_of_them_killed_make_the_single_processs_tables(project, images, tmp_path):
    """Every analysis, byte for byte; a worker has one thread, so the single process has one too."""
    two, alone = tmp_path / "two", tmp_path / "alone"
    two.mkdir()
    alone.mkdir()
    process = start(project, images, two, 2)
    deadline = time.monotonic() + 120
    while not kept(project):
        assert process.poll() is None
        assert time.monotonic() < deadline, "the workers did not come"
        time.sleep(0.01)
    victim = workers_of(process)[0]
    os.kill(victim.pid, signal.SIGKILL)
    finished = {path.name: path.stat().st_mtime_ns for path in kept(project)}
    assert process.wait(timeout=600) == 0
    after = {path.name: path.stat().st_mtime_ns for path in kept(project)}
    assert finished.items() <= after.items()  # what was finished is not done again
    assert len(list((project / "data/output/demo/scores").glob("*.parquet"))) == SHARDS * 4
    (project / "data" / "output").rename(tmp_path / "output")
    assert start(project, images, alone, 0, OMP_NUM_THREADS="1").wait(timeout=600) == 0
    names = sorted(path.name for path in two.iterdir())
    assert len(names) == 6
    assert [
        name for name in names if (two / name).read_bytes() != (alone / name).read_bytes()
    ] == []


def test_a_scheduler_that_does_not_answer_is_named(images, tmp_path, monkeypatch):
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path / "output")
    monkeypatch.setattr(cluster, "WAIT", 1)
    study = Study.from_profile("demo", **CHOICES, images=str(images), scheduler="tcp://127.0.0.1:9")
    named = "no Dask scheduler answers at tcp://127.0.0.1:9"
    with pytest.raises(cluster.ClusterError, match=named):
        score_study(study)


def test_workers_that_do_not_start_are_started_again(monkeypatch, capsys):
    """As where a port was taken meanwhile, or a busy machine was too slow."""
    study, tries = Study.from_profile("demo", **CHOICES, workers=2), []

    class Cluster:
        def __init__(self, **_):
            tries.append(1)
            if len(tries) < 3:
                raise RuntimeError("Cluster failed to start: Nanny failed to start.")
            raise KeyboardInterrupt  # it did start

    monkeypatch.setattr(cluster.distributed, "LocalCluster", Cluster)
    work = ScoreWork(study)
    units = list(work.units())
    with pytest.raises(KeyboardInterrupt):
        next(cluster.do_on_cluster(work, units))
    assert capsys.readouterr().out.count("trying again: Cluster failed to start") == 2
    monkeypatch.setattr(cluster, "STARTS", 2)
    tries.clear()
    with pytest.raises(cluster.ClusterError, match="did not start in 2 attempts: .*Nanny"):
        next(cluster.do_on_cluster(work, units))


def test_workers_and_scheduler_exclude_each_other():
    with pytest.raises(ValueError, match="workers and scheduler exclude each other"):
        Study.from_profile("demo", workers=2, scheduler="tcp://127.0.0.1:8786")
