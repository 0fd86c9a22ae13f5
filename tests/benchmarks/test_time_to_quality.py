"""The benchmark of time to quality: whole with tiny budgets, found again, and its arithmetic."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TINY = {"data": "photographs", "width": 8, "teacher-updates": 4, "budget": 60, "looks": 2, "refit-each": 1, "refits": 4}
CHOICE = [word for name, value in (TINY | {"repeats": 1, "seeds": 0}).items() for word in (f"--{name}", str(value))]


def test_a_run_is_complete_and_found_again(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "time_to_quality.py"), *CHOICE, "--variants", "L = 5", "L = 2, shared"]
    command += ["--folder", str(tmp_path / "work"), "--results", str(tmp_path)]
    first = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads((tmp_path / "time_to_quality.json").read_text())
    passes = {row["variant"]: row["passes an iteration"] for row in found["rows"]}
    expected = {"L = 5": 27, "L = 2, shared": 14, found["about"]["plain"]: 29}
    assert passes == pytest.approx(expected, abs=0.3)
    curves = found["about"]["curves"]
    assert [point["update"] for point in curves["L = 5"][0]] == [0, 1, 2]
    assert [point["update"] for point in curves["L = 2, shared"][0]] == [0, 2, 4]
    assert all(point["FD"] > 0 and point["gap"] >= 0 for several in curves.values() for one in several for point in one)
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ": FD" in first.stdout
    assert ": FD" not in again.stdout, "nothing is trained twice"
    assert json.loads((tmp_path / "time_to_quality.json").read_text())["about"]["curves"] == curves


def test_a_target_is_met_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from time_to_quality import reached

    points = [
        {"update": 0, "FD": 16.0, "gap": 1.0},
        {"update": 20, "FD": 4.0},
        {"update": 40, "FD": 8.0, "gap": 0.25},
    ]
    assert reached(points, "FD", 8.0) == pytest.approx(10), "halfway in the logarithm"
    assert reached(points, "FD", 4.0) == pytest.approx(20)
    assert reached(points, "FD", 3.0) is None
    assert reached(points, "gap", 0.5) == pytest.approx(20)
