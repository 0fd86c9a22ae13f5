"""The benchmark of several processes: what one of them measures, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "scaling.py"
SMALL = ["--width", "8", "--side", "8", "--batch", "2", "--updates", "3", "--rounds", "1"]


def test_a_run_of_one_process_is_its_own_measure(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARK), *SMALL, "--processes", "1", "--results", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    found = json.loads((tmp_path / "scaling.json").read_text())
    assert [(row["training"], row["efficiency"]) for row in found["rows"]] == [("teacher", 1.0), ("distillation", 1.0)]
    teacher, distillation = found["rows"]
    assert teacher["optimiser MiB"] == teacher["weights MiB"] > 0, "two moments; weights and their average"
    assert distillation["s"] > teacher["s"] > 0
    assert found["about"]["places"] >= 1


def test_a_batch_that_cannot_be_shared_is_refused_at_once() -> None:
    done = subprocess.run([sys.executable, str(BENCHMARK), "--processes", "1", "3"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "expected 1 first, and numbers that divide the batch, 32" in done.stderr
