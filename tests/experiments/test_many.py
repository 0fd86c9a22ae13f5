"""Sweeps on Dask: real worker processes, one of them killed, and the recipe for SLURM."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from links import ROOT
from trials import logged
from trials import sweep as write

from ibmd_lite.experiments.engine import run_sweep
from ibmd_lite.experiments.sweep import Sweep

pytestmark = [pytest.mark.notebook, pytest.mark.filterwarnings("default")]

RECIPE = ROOT / "book" / "_sweeps" / "slurm.py"

KILL_ONCE = """
import os, signal, time
if seed == 1 and not os.path.exists("killed"):
    open("killed", "w").close()
    os.kill(os.getppid(), signal.SIGKILL)  # the worker, whose child the kernel is
    time.sleep(60)
with open("workers", "a") as file:
    print(os.getppid(), file=file)
time.sleep(0.3)
"""


def test_a_killed_worker_of_dask_loses_no_run(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (extra: many)")
    sweep = Sweep.read(write(tmp_path, KILL_ONCE, "assert seed != 5, 'five is too many'", seeds=[0, 1, 2, 3, 4, 5]))
    cluster = distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(tmp_path)
    )
    with cluster, distributed.Client(cluster) as client:
        with pytest.raises(RuntimeError, match=r"(?s)1 of 6 runs failed, each 2 times:.*Error: five is too many"):
            run_sweep(sweep, tmp_path / "runs", client.get_executor())
        assert logged(tmp_path) == {"0": 1, "1": 2, "2": 1, "3": 1, "4": 1, "5": 2}
        assert len(set((tmp_path / "book" / "workers").read_text().split())) >= 2, "the others went on"
        fewer = Sweep(sweep.name, sweep.notebook, seeds=(4, 3, 2, 1, 0))
        results = run_sweep(fewer, tmp_path / "runs", client.get_executor())
    assert [result["metrics"]["value"] for result in results] == [5, 4, 3, 2, 1]
    assert sum(logged(tmp_path).values()) == 8, "what was finished is not run again"


def test_the_recipe_for_slurm_gives_a_job_script(tmp_path: Path) -> None:
    ast.parse(RECIPE.read_text("utf8"))
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed (extra: many)")
    file = write(tmp_path, seeds=[0])
    words = [sys.executable, str(RECIPE), str(file), "--queue", "small", "--gpus", "1", "--cpus", "3", "--print"]
    said = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    for line in ("#SBATCH -p small", "#SBATCH --cpus-per-task=3", "#SBATCH --gres=gpu:1", "--nthreads 1 "):
        assert line in said
