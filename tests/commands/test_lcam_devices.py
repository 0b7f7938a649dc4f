"""`dcls-lcam --devices`: several processes train, one of them writes, and they end together."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from lib.base.paths import DEMO, ROOT
from lib.commands import lcam
from lib.demo import attention
from lib.maps.learned.training import checkpoint_facts

WORDS = [
    "--models", "resnet50", "--methods", "lcam_fm", "--limit", "20", "--epochs", "2",
    "--batch-size", "5", "--validate", "5", "--device", "cpu",
]  # fmt: skip
# Each process imports this file as well, so its changes hold in all of them.
SCRIPT = """
import os, signal, sys
from pathlib import Path
from lib.commands import lcam
from lib.demo import attention
from lib.maps.learned.training import Run
from lib.study.inputs import Inputs

Inputs.data = property(lambda self: Path({here!r}))
lcam.draw_early = lambda *_: None
step = Run.one_step

def dying(self, *words):
    if os.environ.get("DIES_AT") == str(self.step) and os.environ.get("RANK") == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *words)

Run.one_step = dying
if __name__ == "__main__":
    sys.exit(attention.main())
"""


@pytest.fixture
def command(tmp_path):
    """Train on a copy of the embedded example; its folder is `command.here`."""
    here = tmp_path / "demo"
    shutil.copytree(DEMO, here, ignore=shutil.ignore_patterns("attention", "training"))
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(here=str(here)))

    def run(*words, by=(sys.executable,), **variables):
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return subprocess.run(
            [*by, script, *WORDS, *words], cwd=tmp_path, capture_output=True, text=True,
            check=False, timeout=300, env={**os.environ, "PYTHONPATH": path, **variables},
        )  # fmt: skip

    run.here = here / "attention"
    return run


def losses(command):
    tables = [pd.read_csv(path) for path in sorted(command.here.glob("*/lcam_fm.csv"))]
    assert len(tables) == 2
    return pd.concat(tables)


@pytest.mark.slow  # four times half a minute
def test_a_killed_process_ends_all_and_one_alone_resumes(command):
    alone = command()
    assert alone.returncode == 0, alone.stderr
    assert "on 5 held-out images: loss" in alone.stdout
    expected = losses(command)
    shutil.rmtree(command.here)

    killed = command("--devices", "2", DIES_AT="4")
    assert killed.returncode == 2
    lines = killed.stderr.replace("\r", "\n").splitlines()
    (told,) = [line for line in lines if line.startswith("dcls-lcam: ")]
    assert told.startswith("dcls-lcam: process 2 of 2 was ended by SIGKILL, perhaps for lack of")
    assert "Traceback" not in killed.stderr
    (checkpoint,) = command.here.glob("*/.lcam_fm.unfinished.pt")
    assert checkpoint_facts(checkpoint)["seed"] == 0
    assert torch.load(checkpoint, weights_only=True)["step"] == 3

    refused = command("--devices", "2")
    assert refused.returncode == 2
    assert refused.stderr.count("belongs to an unfinished training") == 1
    resumed = command("--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count("resumed at step 3 of 6") == 1
    assert np.allclose(losses(command), expected, rtol=1e-4)
    for table in command.here.glob("*/lcam_fm.epochs.csv"):
        processes = pd.read_csv(table).processes.tolist()
        assert processes == ([2, 1] if table.parent == checkpoint.parent else [1, 1])


@pytest.mark.slow  # a minute
def test_torchrun_starts_the_processes_as_well(command):
    run = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
           "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0",
           "--local-addr", "127.0.0.1")  # fmt: skip
    killed = command(by=run, DIES_AT="4")
    assert killed.returncode != 0
    assert "Signal 9 (SIGKILL)" in killed.stderr  # torchrun says so; a peer might, too
    assert killed.stderr.count("dcls-lcam: ") <= 1
    done = command("--resume", by=run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held-out images: loss") == 2  # once for each network
    assert losses(command).loss.notna().all()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--devices", "0"], "--devices must be 1 or more, got 0"),
        (["--devices", "2", "--device", "cuda:0"], "names one GPU, but 2 processes train"),
        (["--devices", "2", "--import", "a.pth.tar"], "omit --devices"),
        (["--validate", "-1"], "--validate must be 0 or more, got -1"),
        (["--validate", "19"], "19 of 20 images cannot be held out"),
    ],
)
def test_wrong_numbers_of_devices_are_refused(words, why, capsys, monkeypatch):
    monkeypatch.setattr(lcam, "chosen_device", torch.device)
    assert attention.main([*WORDS, *words]) == 2
    assert why in capsys.readouterr().err
