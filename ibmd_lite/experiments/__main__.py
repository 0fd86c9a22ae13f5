"""Chapters and sweeps from the command line: `python -m ibmd_lite.experiments run FILE`, then `collect FOLDER`.

FILE is a sweep's YAML or a notebook.  The results lie under ``runs/NAME``; calling again runs only what is not there.
Imports its neighbours; Dask's client with `--scheduler`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import Executor
from datetime import timedelta
from pathlib import Path
from typing import Any

from ibmd_lite.experiments.engine import Processes, Progress, run_sweep
from ibmd_lite.experiments.reading import yaml_of
from ibmd_lite.experiments.sweep import Sweep
from ibmd_lite.experiments.tables import collect, store

__all__ = ["main", "show"]

ERRORS = (ValueError, TypeError, RuntimeError, ImportError, OSError)


def main(words: list[str] | None = None) -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m ibmd_lite.experiments", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="run | collect")
    run = commands.add_parser("run", help="run sweeps and notebooks")
    run.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a sweep's YAML, or a notebook")
    run.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="of a notebook")
    run.add_argument("-f", type=Path, metavar="YAML", help="parameters of a notebook")
    run.add_argument("--out", type=Path, default=Path("runs"), help="folder of the results (default: runs)")
    run.add_argument("--jobs", type=int, default=1, help="runs at the same time on this machine")
    run.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask scheduler, whose workers run instead")
    run.add_argument("--tables", type=Path, metavar="FOLDER", help="also write each sweep's table there")
    run.set_defaults(command=_run)
    table = commands.add_parser("collect", help="print the results of runs as a table")
    table.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    table.add_argument("--csv", type=Path, metavar="FILE", help="write every column there")
    table.set_defaults(command=_collect)
    arguments = parser.parse_args(words)
    try:
        arguments.command(arguments)
    except ERRORS as error:
        sys.exit(f"error: {error}")


def _run(arguments: argparse.Namespace) -> None:
    given = _given(arguments.f, arguments.p)
    sweeps = [_read(file, given) for file in arguments.files]  # all of them, before the first run
    executor = _executor(arguments)
    failed: list[str] = []
    try:
        for sweep in sweeps:
            try:
                _run_one(sweep, arguments, executor)
            except ERRORS as error:  # the others are run all the same
                failed.append(f"{sweep.name}: {error}")
    except KeyboardInterrupt as error:
        print("stopped; what is finished is kept, the same command goes on", flush=True)
        status = 128 + (error.args[0] if error.args else signal.SIGINT)
        if not isinstance(executor, Processes):
            os._exit(status)  # without a word to the scheduler, which sees that this process is gone
        _end(executor)
        sys.exit(status)
    finally:
        executor.shutdown()
    if failed:
        raise RuntimeError("\n\n".join(failed))


def _run_one(sweep: Sweep, arguments: argparse.Namespace, executor: Executor) -> None:
    print(f"{sweep.name}: {len(sweep.cases)} runs of {sweep.notebook.name}")
    print(f"{'ended':>11}  {'':6}  {'seconds':>8}  {'remaining':>9}  run", flush=True)
    results = run_sweep(sweep, arguments.out, executor, show)
    print(f"{sweep.name}: all {len(results)} results are in {arguments.out / sweep.name}")
    if arguments.tables:
        print(f"{sweep.name}: table in {store(sweep, results, arguments.tables)}")


def _end(executor: Executor) -> None:
    """End the processes of this one with the runs that are going on, so that nothing is waited for or left behind."""
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.05):  # again and again: a thread may be about to start another
            for child in multiprocessing.active_children():
                child.kill()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    executor.shutdown(cancel_futures=True)
    over.set()
    killer.join()


def _terminated(number: int, frame: object) -> None:
    """SIGTERM, which a cluster sends, is taken as Ctrl-C."""
    raise KeyboardInterrupt(number)


def _given(file: Path | None, words: list[list[str]]) -> dict[str, Any]:
    """The parameters of a file, and those of the command line, which stand for the file's."""
    given = yaml_of(file.read_bytes(), str(file)) if file else {}
    if not isinstance(given, dict):
        raise ValueError(f"{file} must hold names with values, holds {given!r}")
    names = [name for name, _ in words]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"-p gives {twice} more than once; give each one time, or several values in a sweep's grid")
    return given | {name: yaml_of(value, f"-p {name}") for name, value in words}


def _read(file: Path, given: dict[str, Any]) -> Sweep:
    if file.suffix == ".ipynb":
        return Sweep(file.stem, file.resolve(), given)
    if given:
        raise ValueError(f"-p and -f are for notebooks; the parameters of {file} are in the file")
    return Sweep.read(file)


def _executor(arguments: argparse.Namespace) -> Executor:
    if not arguments.scheduler:
        return Processes(arguments.jobs)
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError("--scheduler needs Dask: pip install 'ibmd_lite[many]'") from error
    return Client(arguments.scheduler).get_executor()


def show(progress: Progress) -> None:
    """Print one line of the table."""
    seconds = "" if progress.seconds is None else f"{progress.seconds:.1f}"
    remaining = "" if progress.remaining is None else str(timedelta(seconds=round(progress.remaining)))
    varied = ", ".join(f"{name}={value}" for name, value in progress.run.case.items()) or progress.run.folder.name
    reason = f": {progress.reason}" if progress.reason else ""
    ended = f"{progress.ended}/{progress.total}"
    print(f"{ended:>11}  {progress.state:6}  {seconds:>8}  {remaining:>9}  {varied}{reason}", flush=True)


def _collect(arguments: argparse.Namespace) -> None:
    table = collect(*arguments.folders, tell=lambda line: print(line, file=sys.stderr))
    if arguments.csv:
        table.to_csv(arguments.csv, index=False)
    varied = {name for name in table if table[name].map(repr).nunique() > 1}
    own = [name for name in table if not str(name).startswith("run_")]
    shown = [name for name in own if name in varied or name in table.attrs["metrics"]]
    shown += ["run_notebook"] if "run_notebook" in varied else []
    print(table[[*shown, "run_seconds", "run_peak_bytes"]].to_string(index=False))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    main()
