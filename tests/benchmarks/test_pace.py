"""The benchmark of the pace: students of one teacher that differ in nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_students_of_every_pace_and_the_task_s_own_where_the_tables_find_it(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "pace.py"), "--size", "quick", "--data", "photographs"]
    command += ["--tasks", "jpeg-5", "--paces", "patient", "hurried", "--results", str(tmp_path)]
    environment = os.environ | {"IBMD_RUNS": str(tmp_path / "runs")}
    subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found = json.loads((tmp_path / "pace.json").read_text())
    curves = {pace: [row["FD"] for row in found["rows"] if row["pace"] == pace] for pace in ("patient", "hurried")}
    assert [row["update"] for row in found["rows"]] == [3, 6, 3, 6]
    assert curves["patient"] != curves["hurried"]
    assert found["about"]["diversity"]["jpeg-5"].keys() == {"teacher", "patient", "hurried"}
    assert [found["about"]["paces"][pace]["fake_updates"] for pace in curves] == [5, 1]
    folder = tmp_path / "runs" / "photographs-32" / "jpeg-5"
    assert [point["FD"] for point in json.loads((folder / "student-1.json").read_text())] == curves["hurried"]
    assert (folder / "paces" / "patient" / "student-1.pt").exists()
