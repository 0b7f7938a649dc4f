"""A SLURM cluster of two nodes on this machine, with a configuration and a key of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "squeue", "sinfo")
PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
NODES = ("node1", "node2")
# Neither control groups nor system users: processes are followed by their parents.
CONFIGURATION = """
ClusterName=toy
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
GresTypes=gpu
NodeName=node1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=64000 Gres=gpu:4
NodeName=node2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=64000
PartitionName=main Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> list[str]:
    """The programs of SLURM that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=PLACES) is None]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class ToySlurm:
    """Starts the daemons on entering and ends them, and all that they started, on leaving.

    Each node has one processor, so it runs one job at a time.
    """

    def __enter__(self) -> ToySlurm:
        # Not pytest's folder: the path of a socket is short, and munge wants parents to be readable.
        self.folder = Path(tempfile.mkdtemp(prefix="toy-slurm-"))
        self.folder.chmod(0o755)
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        configuration = self.folder / "slurm.conf"
        # Four GPUs that are empty files.
        for number in range(4):
            (self.folder / f"gpu{number}").touch()
        gpus = f"NodeName=node1 Name=gpu File={self.folder}/gpu[0-3]\n"
        (self.folder / "gres.conf").write_text(gpus)
        values = {"ports": _free_ports(3), "user": getpass.getuser(), "folder": self.folder}
        configuration.write_text(CONFIGURATION.format(**values))
        self.environment = {
            name: text for name, text in os.environ.items()
            if not name.startswith(("SLURM_", "SBATCH_"))
        } | {"SLURM_CONF": str(configuration), "PATH": PLACES}  # fmt: skip
        self._daemons: list[subprocess.Popen] = []
        try:
            munge = ("key-file=munge.key", "socket=munge.sock", "pid-file=munged.pid",
                     "log-file=munged.log", "seed-file=munged.seed")  # fmt: skip
            named = [f"--{n}={self.folder / f}" for n, f in (one.split("=") for one in munge)]
            self._start("munged", "--foreground", "--force", *named)
            self._until(lambda: (self.folder / "munge.sock").exists(), "munge's socket")
            self._start("slurmctld", "-D", "-f", str(configuration))
            for node in NODES:
                self._start("slurmd", "-D", "-N", node, "-f", str(configuration))
            self._until(lambda: self._states() == ["idle"] * len(NODES), "idle nodes")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        # What SLURM started is no child of ours; it has our configuration in its environment.
        for process in (*reversed(self._daemons), *self._ours()):
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                process.kill()
        for daemon in self._daemons:
            daemon.wait(30)
        psutil.wait_procs(self._ours(), timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _ours(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                is_ours = process.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"]
                if is_ours and process.pid != os.getpid():
                    found.append(process)
        return found

    def _start(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.out").open("ab") as out:
            self._daemons.append(subprocess.Popen(
                [shutil.which(program, path=PLACES), *arguments], cwd=self.folder,
                env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            ))  # fmt: skip

    def _states(self) -> list[str]:
        told = self.run("sinfo", "--noheader", "--Node", "--format=%t", check=False)
        return told.stdout.split()

    def _until(self, is_so, what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            ended = [daemon.args[0] for daemon in self._daemons if daemon.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = "\n".join(p.read_text(errors="replace") for p in self.folder.glob("*.out"))
                raise RuntimeError(f"{what} did not come; ended: {ended}\n{logs[-3000:]}")
            time.sleep(0.05)

    def run(self, *command: str, check: bool = True, **options) -> subprocess.CompletedProcess:
        """A command of SLURM, or one that uses it, with what it printed."""
        environment = self.environment | options.pop("env", {})
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            **options,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done

    def start(self, *command: str, **options) -> subprocess.Popen:
        """A program that uses SLURM's commands."""
        environment = self.environment | options.pop("env", {})
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, **options)

    def states(self, job: str) -> dict[str, str]:
        """{task, or job: state, as RUNNING or COMPLETED} of a job or an array."""
        told = self.run("scontrol", "--oneliner", "show", "job", job).stdout
        rows = [dict(part.split("=", 1) for part in line.split() if "=" in part)
                for line in told.splitlines()]  # fmt: skip
        return {row.get("ArrayTaskId", row["JobId"]): row["JobState"] for row in rows}

    def wait(self, job: str, seconds: float = 600) -> dict[str, str]:
        """The states of a job or an array once nothing of it waits or runs."""
        unfinished = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED"}
        self._until(
            lambda: not unfinished & set(self.states(job).values()), f"{job}'s end", seconds
        )
        return self.states(job)
