"""One run: its folder, its result.json, and what becomes of it when the notebook is wrong."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest
from trials import logged, notebook

from ibmd_lite.experiments.files import locked, one_gpu, write_text
from ibmd_lite.experiments.runs import Run, RunError, execute
from ibmd_lite.experiments.sweep import Sweep

pytestmark = [pytest.mark.notebook, pytest.mark.filterwarnings("default")]


def one(path: Path, **parameters: object) -> Run:
    (run,) = Sweep("trial", path, parameters).runs(path.parents[1] / "runs")
    return run


def test_a_run_leaves_its_notebook_and_one_result(tmp_path: Path) -> None:
    big = "import os\nassert os.environ['IBMD_STATIC']\nblock = b'x' * 200_000_000\ndel block"
    before = Path.cwd(), dict(os.environ)
    run = one(notebook(tmp_path / "book" / "chapter.ipynb", big), steps=4)
    result = execute(run)
    assert (Path.cwd(), dict(os.environ)) == before
    assert logged(tmp_path) == {"0": 1}, "the kernel works beside the notebook"
    assert json.loads((run.folder / "result.json").read_text("utf8")) == result
    assert sorted(path.name for path in run.folder.iterdir()) == ["lock", "result.json", "run.ipynb"]
    assert result["metrics"] == {"value": 4.0}
    assert result["parameters"] == {"seed": 0, "steps": 4, "scale": 1.0}
    assert result["seed"] == 0
    assert result["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert result["device"].startswith(("cpu", "cuda"))
    assert 200e6 < result["peak_memory_bytes"] < 500e6
    assert 0 < result["wall_seconds"] < 60
    assert {"commit", "fingerprint", "started", "notebook", "peak_gpu_memory_bytes"} < result.keys()
    assert execute(run) == result
    assert logged(tmp_path) == {"0": 1}, "a run that has its result is not run again"


def test_a_chapter_without_a_result_has_no_metrics(tmp_path: Path) -> None:
    run = one(notebook(tmp_path / "book" / "chapter.ipynb", result=None))
    assert execute(run)["metrics"] == {}
    assert (run.folder / "result.json").exists()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("seed[0]", r"(?s)TypeError.*not subscriptable"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "DeadKernelError"),
    ],
)
def test_a_notebook_that_fails_leaves_no_result(tmp_path: Path, code: str, told: str) -> None:
    run = one(notebook(tmp_path / "book" / "chapter.ipynb", code))
    with pytest.raises(RunError, match=told):
        execute(run)
    assert not (run.folder / "result.json").exists()


def test_a_result_must_be_one_json_object(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"printed '\[1\]\\n'; there may be one, and it must print one JSON object"):
        execute(one(notebook(tmp_path / "book" / "chapter.ipynb", result="print([1])")))


def test_a_number_that_json_has_not_becomes_none(tmp_path: Path) -> None:
    result = 'print(\'{"lost": NaN, "far": -Infinity, "value": 1.5}\')'
    run = one(notebook(tmp_path / "book" / "chapter.ipynb", result=result))
    assert execute(run)["metrics"] == {"lost": None, "far": None, "value": 1.5}
    assert not {"NaN", "Infinity"} & set(re.findall(r"\w+", (run.folder / "result.json").read_text("utf8")))


def test_code_that_changes_during_a_run_gives_no_result(tmp_path: Path) -> None:
    change = "text = open('chapter.ipynb').read()\nopen('chapter.ipynb', 'w').write(text.replace('steps', 'steppes'))"
    run = one(notebook(tmp_path / "book" / "chapter.ipynb", change))
    with pytest.raises(RunError, match="changed during the run"):
        execute(run)
    assert not (run.folder / "result.json").exists()


@pytest.mark.parametrize("change", ["half", "no UTF-8", "case", "metrics"])
def test_a_damaged_result_is_made_anew(tmp_path: Path, change: str) -> None:
    run = one(notebook(tmp_path / "book" / "chapter.ipynb"))
    whole = execute(run)
    damaged = {"half": b'{"metrics": {"val', "no UTF-8": b"\xff"}
    entries = (
        {key: value for key, value in whole.items() if key != "case"} if change == "case" else {**whole, "metrics": 3}
    )
    (run.folder / "result.json").write_bytes(damaged.get(change, json.dumps(entries).encode()))
    assert execute(run)["metrics"] == {"value": 1.0}
    assert logged(tmp_path) == {"0": 2}


def test_a_file_that_cannot_be_written_whole_is_not_there(tmp_path: Path) -> None:
    write_text(tmp_path / "table.json", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "table.json", "new" * 100_000 + "\ud800")
    assert (tmp_path / "table.json").read_text() == "old"


HOLD = """
import sys, time
from pathlib import Path
from ibmd_lite.experiments.files import locked, one_gpu

with (one_gpu() if sys.argv[1] == "gpu" else locked(Path(sys.argv[1]))) as held:
    print(held, flush=True)
    time.sleep(60)
"""


def started(what: str) -> subprocess.Popen:
    """A process that says so when it has the lock, and holds it for a minute."""
    return subprocess.Popen([sys.executable, "-c", HOLD, what], stdout=subprocess.PIPE, text=True)


def end(*processes: subprocess.Popen | None) -> None:
    for process in filter(None, processes):
        process.kill()
        process.communicate()


def silent(process: subprocess.Popen) -> bool:
    """Whether nothing comes from it for a second."""
    return not select.select([process.stdout], [], [], 1.0)[0]


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    holder, waiter = started(str(tmp_path / "lock")), None
    try:
        assert holder.stdout.readline() == "None\n"
        waiter = started(str(tmp_path / "lock"))
        assert silent(waiter)
        holder.kill()
        assert waiter.stdout.readline() == "None\n"
    finally:
        end(holder, waiter)
    with locked(tmp_path / "lock"):
        pass


def test_a_gpu_is_lent_to_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "first,second")
    one, other, third = started("gpu"), None, None
    try:
        assert one.stdout.readline() == "{'CUDA_VISIBLE_DEVICES': 'first'}\n"
        other = started("gpu")
        assert other.stdout.readline() == "{'CUDA_VISIBLE_DEVICES': 'second'}\n"
        third = started("gpu")
        assert silent(third)
        other.kill()
        assert third.stdout.readline() == "{'CUDA_VISIBLE_DEVICES': 'second'}\n"
    finally:
        end(one, other, third)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with one_gpu() as environment:
        assert environment == {}
