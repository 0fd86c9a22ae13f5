"""What importing the package costs beside torch, in fresh interpreters: `python benchmarks/import_cost.py`.

The package alone, and the files of the method with it. A test (`tests/test_import.py`) says which modules come along;
seconds are told here, as they depend on the machine.
"""

import argparse
import statistics
import subprocess
import sys

METHOD = ", ".join(
    f"ibmd_lite.{name}" for name in ("bridges", "model", "matching", "sampling", "student", "distillation")
)
ROWS = {"import ibmd_lite": "import ibmd_lite", "the six files of the method": f"import {METHOD}"}
TIMED = """
import time
clocks = time.perf_counter, time.process_time
times = [[clock() for clock in clocks]]
import torch, jaxtyping
times.append([clock() for clock in clocks])
{}
times.append([clock() for clock in clocks])
print(*(later - sooner for a, b in zip(times, times[1:]) for sooner, later in zip(a, b)))
"""


def seconds(statement: str) -> list[float]:
    """Of torch and jaxtyping, then of the statement after them; of the clock, then of the processor."""
    words = [sys.executable, "-W", "ignore", "-c", TIMED.format(statement)]
    return list(map(float, subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="interpreters a row (default 5); the median is told")
    times = parser.parse_args().times
    print("| added to torch and jaxtyping | seconds | of the processor | torch and jaxtyping | of the processor |")
    print("| --- | --- | --- | --- | --- |")
    for name, statement in ROWS.items():
        told = zip(*(seconds(statement) for _ in range(times)), strict=True)
        wall, busy, added, added_busy = map(statistics.median, told)
        print(f"| {name} | {added:.3f} | {added_busy:.3f} | {wall:.2f} | {busy:.2f} |", flush=True)


if __name__ == "__main__":
    main()
