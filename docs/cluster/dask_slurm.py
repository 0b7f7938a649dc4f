"""Start Dask workers as SLURM jobs, run the study on them, and end them.

    python docs/cluster/dask_slurm.py --jobs 8 -- --profile paper

The options after `--` are those of run_all.py. Type it in the project's folder, on a node that
the compute nodes can reach, or submit it as a job of its own.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys

from dask_jobqueue import SLURMCluster


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--jobs", type=int, default=8, help="workers, each a job (default: 8)")
    add("--cpus", type=int, default=8, help="processors of a worker (default: 8)")
    add("--memory", default="16GB", help="of a worker (default: 16GB)")
    add("--time", default="04:00:00", help="of a worker's job (default: 04:00:00)")
    add("--sbatch", default="", metavar="OPTIONS",
        help="other options of sbatch, in one text: '--partition=gpu --gres=gpu:1'")  # fmt: skip
    add("--interface", default=None,
        help="the network that the nodes share, such as ib0 (default: Dask chooses)")  # fmt: skip
    add("run", nargs="*", metavar="OPTION", help="of run_all.py, after --")
    return parser


def main() -> int:
    """Run the study on the cluster; return the exit status of run_all.py."""
    options = build_parser().parse_args()
    cluster = SLURMCluster(
        cores=1,  # one unit at a time
        processes=1,
        job_cpu=options.cpus,
        memory=options.memory,
        walltime=options.time,
        interface=options.interface,
        job_extra_directives=[*shlex.split(options.sbatch), "--output=slurm-dcls-dask-%j.log"],
        job_script_prologue=["source docs/cluster/node.sh"],
    )
    with cluster:
        cluster.scale(jobs=options.jobs)
        command = [sys.executable, "run_all.py", "--offline", *options.run]
        return subprocess.run([*command, "--scheduler", cluster.scheduler_address]).returncode


if __name__ == "__main__":
    sys.exit(main())
