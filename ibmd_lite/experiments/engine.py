"""Sweeps on whatever implements ``concurrent.futures.Executor``: processes of this machine, or Dask on many.

``run_sweep`` hands the runs over, takes them back as they finish, and gives what failed one more try.  ``Processes``
is the executor for one machine; Dask's is ``client.get_executor()``.  Imports its neighbours ``sweep`` and ``runs``.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ibmd_lite.experiments.runs import Run, RunError, execute, found
from ibmd_lite.experiments.sweep import Sweep

__all__ = ["Processes", "Progress", "run_sweep"]

ATTEMPTS = 2


@dataclass(frozen=True)
class Progress:
    """One line of the table: what became of a run.

    Attributes:
        state: ``found`` (it had its result), ``done``, ``again`` (failed, and is tried once more) or ``failed``.
        ended: how many of ``total`` runs have ended, well or not.
        reason: of a run that failed, the last line of its traceback.
        remaining: seconds that the others will take at the pace so far; None until a run has ended.
    """

    run: Run
    state: str
    ended: int
    total: int
    seconds: float | None = None
    remaining: float | None = None
    reason: str | None = None


class Processes(ThreadPoolExecutor):
    """Processes that die alone: each thread has one, and starts another where it died.

    A ``ProcessPoolExecutor`` of several ends all of them when one dies, and is of no use afterwards.  The processes end
    with the one that started them, even if that was killed, and their kernels with them.

    Raises ValueError for fewer than one job.
    """

    def __init__(self, jobs: int = 1) -> None:
        if jobs < 1:
            raise ValueError(f"{jobs} processes cannot run anything; give at least 1")
        super().__init__(jobs)
        self._own = threading.local()
        self._pools: list[ProcessPoolExecutor] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """As of any executor; the future raises ``BrokenProcessPool`` where the process died."""
        return super().submit(self._in_process, function, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As of any executor."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        for pool in self._pools:
            pool.shutdown(wait)

    def _in_process(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if getattr(self._own, "pool", None) is None:
            # spawned, not forked: nothing of this process is in it, such as threads or a GPU
            self._own.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _end_with_parent)
            self._pools.append(self._own.pool)
        try:
            return self._own.pool.submit(function, *args, **kwargs).result()
        except BrokenExecutor:
            self._own.pool = None
            raise


def run_sweep(
    sweep: Sweep, out: Path, executor: Executor, report: Callable[[Progress], None] = lambda progress: None
) -> list[dict[str, Any]]:
    """Run what has no result below ``out`` yet, and return all results in the order of ``sweep.cases``.

    A run that fails, or whose process or machine dies, is tried once more.  What is finished is on the disk at once,
    so a sweep that was killed goes on where it was.

    Raises:
        RuntimeError: runs that failed twice, with their tracebacks; the others have been finished before.
    """
    runs = sweep.runs(out)
    results = {k: result for k, run in enumerate(runs) if (result := found(run)) is not None}
    for number, k in enumerate(results, start=1):
        report(Progress(runs[k], "found", number, len(runs)))
    already, began = len(results), time.monotonic()
    ended: SimpleQueue[Future] = SimpleQueue()
    pending: dict[Future, tuple[int, int]] = {}
    failed: dict[int, str] = {}

    def start(k: int, attempt: int) -> None:
        try:
            future = executor.submit(execute, runs[k], attempt)
        except BrokenExecutor as error:  # for good: what is left fails, what is finished stays
            future = Future()
            future.set_exception(error)
        pending[future] = k, attempt
        future.add_done_callback(ended.put)

    try:
        for k in range(len(runs)):
            if k not in results:
                start(k, 1)
        while pending:
            future = ended.get()
            k, attempt = pending.pop(future)
            reason = None
            try:
                results[k] = future.result()
                state, seconds = "done", results[k]["wall_seconds"]
            except Exception as error:  # of the notebook, or whatever an executor raises for a worker that died
                state, seconds = "again" if attempt < ATTEMPTS else "failed", None
                told = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
                reason = told.strip().splitlines()[-1]
                if state == "again":
                    start(k, attempt + 1)
                else:
                    failed[k] = told
            now = len(results) + len(failed)
            pace = (time.monotonic() - began) / (now - already) if now > already else None
            remaining = None if pace is None else pace * (len(runs) - now)
            report(Progress(runs[k], state, now, len(runs), seconds, remaining, reason))
    finally:  # interrupted: what was not begun stays so
        for future in list(pending):
            future.cancel()
    if failed:
        every = "\n\n".join(
            f"{runs[k].case or runs[k].notebook.name}, in {runs[k].folder}:\n{failed[k]}" for k in failed
        )
        raise RuntimeError(f"{len(failed)} of {len(runs)} runs failed, each {ATTEMPTS} times:\n{every}")
    return [results[k] for k in range(len(runs))]


def _end_with_parent() -> None:
    """Watch the process that started this one: without it nobody is there to take the result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and with it this one
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()  # type: ignore[union-attr]
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
