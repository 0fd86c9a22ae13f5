"""What a sweep costs beside papermill alone, run by run of a notebook that does nothing, and whether memory stays flat.

Both execute in a process of their own that lives through all runs, in turns of ``--block`` runs, so that whatever else
the machine does meets both.  A sweep's start (reading, checking, fingerprint) is paid in every block, not once.  Wall
time and CPU time, the kernels' included, are per run; memory is that of the process that executes (``worker``) and of
the one that hands out the runs (``sweep``).  Needs /proc.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import papermill

from ibmd_lite.experiments.engine import Processes, run_sweep
from ibmd_lite.experiments.sweep import Sweep


def trivial(path: Path) -> Path:
    """A notebook of two cells that computes nothing."""
    cells = [nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell("print('{\"value\": %d}' % seed)", metadata={"tags": ["result"]})]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


def papermill_alone(notebook: Path, out: Path, seed: int) -> None:
    papermill.execute_notebook(notebook, out / f"{seed}.ipynb", {"seed": seed}, progress_bar=False, cwd=notebook.parent)


def spent(executor: Processes) -> float:
    """CPU seconds of the executor's process and of all kernels that it has had."""
    return sum(executor.submit(os.times).result()[:4])


def timed(executor: Processes, block: Callable[[], Any], runs: int) -> tuple[float, float]:
    """Wall and CPU seconds of a run."""
    cpu, began = spent(executor), time.perf_counter()
    block()
    return (time.perf_counter() - began) / runs, (spent(executor) - cpu) / runs


def megabytes(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def measure(folder: Path, runs: int, block: int) -> list[dict[str, Any]]:
    """One row for each block."""
    notebook, plain = trivial(folder / "trivial.ipynb"), folder / "plain"
    plain.mkdir()
    rows = []
    with Processes(1) as alone, Processes(1) as worker:
        ours = worker.submit(os.getpid).result()
        for end in range(block, runs + 1, block):
            seeds = range(end - block, end)
            sweep = Sweep("trivial", notebook, seeds=tuple(seeds))

            def one_by_one(seeds: range = seeds) -> None:
                for seed in seeds:
                    alone.submit(papermill_alone, notebook, plain, seed).result()

            wall, cpu = timed(alone, one_by_one, block)
            own_wall, own_cpu = timed(worker, lambda sweep=sweep: run_sweep(sweep, folder / "runs", worker), block)
            rows.append(
                {
                    "runs": end,
                    "papermill s": wall,
                    "sweep s": own_wall,
                    "papermill cpu s": cpu,
                    "sweep cpu s": own_cpu,
                    "worker MB": megabytes(ours),
                    "sweep MB": megabytes(os.getpid()),
                    "worker files": len(os.listdir(f"/proc/{ours}/fd")),
                }
            )
            print(f"{end} of {runs} runs", flush=True)
        done = run_sweep(Sweep("trivial", notebook, seeds=tuple(range(runs // block * block))), folder / "runs", worker)
    assert [result["metrics"]["value"] for result in done] == list(range(len(done))), "results are missing"
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--block", type=int, default=10)
    parser.add_argument("--results", type=Path, help="folder of the table (default: benchmarks/results)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), arguments.runs, arguments.block)
    from report import RESULTS, keep  # not above: the processes import this file, and need no torch

    def ratio(kind: str) -> float:
        return sum(row[f"sweep {kind}"] for row in rows) / sum(row[f"papermill {kind}"] for row in rows)

    slope = (rows[-1]["worker MB"] - rows[len(rows) // 4]["worker MB"]) / max(
        1, rows[-1]["runs"] - rows[len(rows) // 4]["runs"]
    )
    keep(
        "sweep_overhead",
        rows,
        arguments.results or RESULTS,
        ratio_of_wall_time=ratio("s"),
        ratio_of_cpu_time=ratio("cpu s"),
        worker_kilobytes_per_run=1024 * slope,
    )
    print(f"a sweep's run costs {ratio('s'):.3f} of papermill's own in wall time, {ratio('cpu s'):.3f} in CPU time")
    print(f"the process that executes grows by {1024 * slope:.1f} kB a run after the first quarter")


if __name__ == "__main__":
    main()
