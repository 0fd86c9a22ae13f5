"""The benchmark of larger images: one point, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "resolution.py"


def test_a_point_has_the_time_of_every_kind_of_update_and_two_peaks() -> None:
    command = [sys.executable, str(BENCHMARK), "--points", "16x1", "--repeats", "1", "--one", "compact U-Net", "True"]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    assert list(told) == ["teacher s", "fake s", "generator s", "teacher MiB", "distillation MiB"]
    assert all(value > 0 for name, value in told.items() if name.endswith(" s"))
    assert told["distillation MiB"] >= told["teacher MiB"] >= 0, "so small a point can hide under what imports took"
