"""The benchmark of a sweep's overhead: the same runs by papermill alone and by a sweep, all of them complete."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

pytestmark = pytest.mark.notebook


def test_both_are_measured_in_turns(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("reads the memory of processes in /proc, which this system has not")
    command = [sys.executable, str(BENCHMARKS / "sweep_overhead.py"), "--runs", "2", "--block", "1"]
    done = subprocess.run([*command, "--results", str(tmp_path)], check=True, capture_output=True, text=True)
    assert "a sweep's run costs" in done.stdout
    found = json.loads((tmp_path / "sweep_overhead.json").read_text())
    assert [row["runs"] for row in found["rows"]] == [1, 2]
    for row in found["rows"]:
        assert 0 < row["papermill cpu s"] < 60
        assert 0 < row["sweep cpu s"] < 60
        assert 20 < row["worker MB"] < 500
    sums = [sum(row[f"{name} cpu s"] for row in found["rows"]) for name in ("sweep", "papermill")]
    assert found["about"]["ratio_of_cpu_time"] == pytest.approx(sums[0] / sums[1])
