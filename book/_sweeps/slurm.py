"""A sweep on a cluster that SLURM manages.

    python book/_sweeps/slurm.py SWEEP.yaml --queue NAME --jobs 8 --gpus 1

Run it on the login node, in the environment that the jobs should have, from a
folder that all nodes see. Each job is a Dask worker that runs one notebook at a
time and is handed the next when it is done. A job that ends is replaced, and what
it was running begins anew elsewhere. `--print` shows the job script and submits
nothing. Change what your cluster asks for (an account, modules, another way to ask
for a GPU) in `cluster` below.
Imports dask-jobqueue and distributed: pip install 'ibmd_lite[many]'.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dask_jobqueue import SLURMCluster
from distributed import Client
from ibmd_lite.experiments.__main__ import show
from ibmd_lite.experiments.engine import run_sweep
from ibmd_lite.experiments.sweep import Sweep


def cluster(arguments: argparse.Namespace) -> SLURMCluster:
    """Jobs of one worker with one thread; none is submitted before `adapt`."""
    asked = [f"--gres=gpu:{arguments.gpus}"] if arguments.gpus else []
    return SLURMCluster(
        queue=arguments.queue,
        walltime=arguments.walltime,
        memory=arguments.memory,
        cores=1,  # threads of the worker: notebooks at the same time
        job_cpu=arguments.cpus,
        processes=1,
        python=sys.executable,
        job_extra_directives=asked,
        log_directory=str(arguments.out / "slurm"),
        local_directory="/tmp",
    )


def main() -> None:
    """Submit the jobs, run the sweep on them, and let them go."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path)
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="a folder that all nodes see"
    )
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--queue")
    parser.add_argument("--cpus", type=int, default=4, help="of a job")
    parser.add_argument("--gpus", type=int, default=0, help="of a job: 0 or 1")
    parser.add_argument("--memory", default="16GB", help="of a job")
    parser.add_argument(
        "--walltime",
        default="04:00:00",
        help="of a job; a notebook that takes longer never ends",
    )
    parser.add_argument(
        "--print", action="store_true", help="show the job script and stop"
    )
    arguments = parser.parse_args()
    sweep = Sweep.read(arguments.sweep)  # refused here, not in the queue
    with cluster(arguments) as jobs:
        if arguments.print:
            print(jobs.job_script())
            return
        jobs.adapt(
            maximum_jobs=arguments.jobs
        )  # no more jobs than runs are left; those that end are replaced
        with Client(jobs) as client:
            run_sweep(sweep, arguments.out, client.get_executor(), show)


if __name__ == "__main__":
    main()
