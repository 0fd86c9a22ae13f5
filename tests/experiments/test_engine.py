"""Sweeps with real processes, real notebooks and real kills: complete, resumable, and each run once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from trials import logged
from trials import sweep as write

from ibmd_lite.experiments.engine import Processes, Progress, run_sweep
from ibmd_lite.experiments.runs import RunError, execute
from ibmd_lite.experiments.sweep import Sweep

pytestmark = [pytest.mark.notebook, pytest.mark.filterwarnings("default")]

KILL_ONCE = """
import os, signal, time
if seed == 1 and not os.path.exists("killed"):
    open("killed", "w").close()
    os.kill(os.getppid(), signal.SIGKILL)  # the worker, whose child the kernel is
    time.sleep(60)
while seed == 0 and not os.path.exists("killed"):
    time.sleep(0.05)
if seed == 0:
    time.sleep(2)  # still running when the other worker dies
"""


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes(2) as executor:
        yield executor


def test_every_case_is_run_once(tmp_path: Path, processes: Processes) -> None:
    sweep = Sweep.read(write(tmp_path, parameters={"scale": 2.0}, grid={"steps": [1, 4]}, seeds=[0, 1]))
    lines: list[Progress] = []
    results = run_sweep(sweep, tmp_path / "runs", processes, lines.append)
    assert [result["case"] for result in results] == sweep.cases
    assert [result["metrics"]["value"] for result in results] == [2, 3, 8, 9]
    assert [(line.state, line.ended, line.total) for line in lines] == [("done", k, 4) for k in (1, 2, 3, 4)]
    assert lines[1].remaining > lines[3].remaining == 0  # type: ignore[operator]
    lines.clear()
    assert run_sweep(sweep, tmp_path / "runs", processes, lines.append) == results
    assert [line.state for line in lines] == ["found"] * 4
    renamed = Sweep.read(write(tmp_path, parameters={"scale": 2.0}, cases={"one": {"steps": 1}}, seeds=[0]))
    (result,) = run_sweep(renamed, tmp_path / "runs", processes)
    assert (result["case"], result["metrics"]) == ({"case": "one", "seed": 0}, {"value": 2})
    assert logged(tmp_path) == {"0": 2, "1": 2}


def test_what_fails_is_tried_again_and_told_and_the_others_are_kept(tmp_path: Path, processes: Processes) -> None:
    once = "import os\nif seed == 1 and not os.path.exists('tried'):\n    open('tried', 'w').close()\n    seed[0]"
    sweep = Sweep.read(write(tmp_path, once, "assert seed != 2, 'two is too many'", seeds=[2, 1, 0]))
    lines: list[Progress] = []
    with pytest.raises(RuntimeError, match=r"(?s)1 of 3 runs failed, each 2 times:.*'seed': 2.*Error: two is too many"):
        run_sweep(sweep, tmp_path / "runs", processes, lines.append)
    assert logged(tmp_path) == {"2": 2, "1": 2, "0": 1}
    assert sorted(line.state for line in lines) == ["again", "again", "done", "done", "failed"]
    assert len(list((tmp_path / "runs" / "trial").glob("*/result.json"))) == 2
    told = {(line.state, line.reason) for line in lines if line.run.case["seed"] == 2}
    assert told == {(state, "AssertionError: two is too many") for state in ("again", "failed")}
    assert {line.reason for line in lines if line.state == "done"} == {None}


def test_a_killed_worker_costs_its_own_run_alone(tmp_path: Path) -> None:
    sweep = Sweep.read(write(tmp_path, KILL_ONCE, seeds=[0, 1, 2, 3]))
    with Processes(2) as executor:
        results = run_sweep(sweep, tmp_path / "runs", executor)
    assert [result["metrics"]["value"] for result in results] == [1, 2, 3, 4]
    assert [result["attempt"] for result in results] == [1, 2, 1, 1]
    assert logged(tmp_path) == {"0": 1, "1": 2, "2": 1, "3": 1}


def test_an_executor_that_breaks_loses_nothing_that_was_finished(tmp_path: Path, processes: Processes) -> None:
    sweep = Sweep.read(write(tmp_path, KILL_ONCE, seeds=[2, 1]))
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as executor,
        pytest.raises(RuntimeError, match=r"(?s)1 of 2 runs failed.*BrokenProcessPool"),
    ):
        run_sweep(sweep, tmp_path / "runs", executor)
    assert [result["seed"] for result in run_sweep(sweep, tmp_path / "runs", processes)] == [2, 1]
    assert logged(tmp_path) == {"2": 1, "1": 2}


def command(file: Path, out: Path, jobs: int = 1) -> subprocess.Popen:
    words = [sys.executable, "-m", "ibmd_lite.experiments", "run", str(file), "--out", str(out), "--jobs", str(jobs)]
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": out.parent}
    return subprocess.Popen(words, preexec_fn=heeds_ctrl_c, **told)


def heeds_ctrl_c() -> None:
    """As when started by hand; what a shell starts in the background inherits that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def until(condition: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "nothing came of it in time"
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_sweep_leaves_no_process_and_goes_on(tmp_path: Path, processes: Processes) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("looks for processes in /proc, which this system has not")
    wait = "import os, time\nif seed == 1 and not os.path.exists('ids'):\n"
    wait += (
        "    open('part', 'w').write(f'{os.getpid()} {os.getppid()}')\n    os.rename('part', 'ids')\n    time.sleep(60)"
    )
    file, ids = write(tmp_path, wait, seeds=[0, 1, 2]), tmp_path / "book" / "ids"
    running = command(file, tmp_path / "runs")
    until(ids.exists)
    kernel, worker = map(int, ids.read_text().split())
    assert alive(kernel)
    assert alive(worker)
    assert worker != running.pid
    running.kill()
    assert running.wait() == -signal.SIGKILL
    until(lambda: not alive(worker) and not alive(kernel))
    running.communicate()
    results = run_sweep(Sweep.read(file), tmp_path / "runs", processes)
    assert [result["seed"] for result in results] == [0, 1, 2]
    assert logged(tmp_path) == {"0": 1, "1": 2, "2": 1}


def test_two_sweeps_at_once_share_a_folder(tmp_path: Path) -> None:
    file = write(tmp_path, "import time\ntime.sleep(1)", seeds=[0, 1])
    both = [command(file, tmp_path / "runs") for _ in range(2)]
    said = [each.communicate(timeout=120)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert logged(tmp_path) == {"0": 1, "1": 1}


def test_runs_wait_for_the_one_gpu(tmp_path: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "the-only-one")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    alone = "import os, time\nassert os.environ['CUDA_VISIBLE_DEVICES'] == 'the-only-one'\nos.mkdir('busy')\n"
    sweep = Sweep.read(write(tmp_path, alone + "time.sleep(1.5)\nos.rmdir('busy')", seeds=[0, 1]))
    with Processes(2) as executor:  # of this environment
        results = run_sweep(sweep, tmp_path / "runs", executor)
    assert [result["attempt"] for result in results] == [1, 1], "two at once fail, as the folder is there"


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_sweep_and_keeps_what_is_finished(tmp_path: Path, sent: signal.Signals, status: int) -> None:
    wait = "import time\nif seed == 1:\n    time.sleep(60)"
    file = write(tmp_path, wait, seeds=[0, 1, 2])
    running = command(file, tmp_path / "runs")
    until(lambda: logged(tmp_path) == {"0": 1, "1": 1})
    os.kill(running.pid, sent)
    said = running.communicate(timeout=60)[0]
    assert running.returncode == status
    assert said.endswith("stopped; what is finished is kept, the same command goes on\n"), "and nothing is left behind"
    assert len(list((tmp_path / "runs" / "trial").glob("*/result.json"))) == 1
    assert logged(tmp_path) == {"0": 1, "1": 1}


HANG = """
import os, signal, subprocess, time
if seed == 1:
    child = subprocess.Popen(["sleep", "600"])
    with open("ids", "a") as file:
        print(os.getpid(), child.pid, file=file)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it does not even hear Ctrl-C
    for _ in range(60):
        time.sleep(1)
"""


def test_a_notebook_that_hangs_is_ended_and_told_and_the_others_are_kept(tmp_path: Path, processes: Processes) -> None:
    sweep = Sweep.read(write(tmp_path, HANG, seeds=[1, 0, 2], minutes=0.05))
    with pytest.raises(
        RuntimeError, match=r"(?s)1 of 3 runs failed, each 2 times:.*'seed': 1.*ended after the 0.05 min"
    ):
        run_sweep(sweep, tmp_path / "runs", processes)
    assert logged(tmp_path) == {"1": 2, "0": 1, "2": 1}
    assert len(list((tmp_path / "runs" / "trial").glob("*/result.json"))) == 2
    hung = [int(word) for word in (tmp_path / "book" / "ids").read_text().split()]
    assert len(hung) == 4
    if Path("/proc/self/stat").exists():
        until(lambda: not any(map(alive, hung)))


def test_the_minutes_are_those_of_all_cells_together(tmp_path: Path) -> None:
    (run,) = Sweep.read(write(tmp_path, *["import time; time.sleep(2)"] * 3, minutes=0.05)).runs(tmp_path / "runs")
    with pytest.raises(RunError, match=r"time.sleep(?s:.*)\nended after the 0.05 minutes that its sweep allows$"):
        execute(run)
    assert not (run.folder / "result.json").exists()
    (run,) = Sweep.read(write(tmp_path, "import time; time.sleep(2)", minutes=1)).runs(tmp_path / "runs")
    assert execute(run)["metrics"] == {"value": 1}


def test_no_process_is_too_few() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Processes(0)
