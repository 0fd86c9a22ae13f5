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
ROWS = {
    "torch and jaxtyping": "pass",
    "import ibmd_lite": "import ibmd_lite",
    "the six files of the method": f"import {METHOD}",
}
TIMED = """
import time
start = time.perf_counter()
import torch, jaxtyping
between = time.perf_counter()
{}
print(between - start, time.perf_counter() - between)
"""


def seconds(statement: str) -> tuple[float, float]:
    """Of torch, and of the statement after it."""
    words = [sys.executable, "-W", "ignore", "-c", TIMED.format(statement)]
    torch, after = map(float, subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    return torch, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="interpreters a row (default 5); the median is told")
    times = parser.parse_args().times
    print("| seconds | torch and jaxtyping | added to it |\n| --- | --- | --- |")
    for name, statement in list(ROWS.items())[1:]:
        torch, added = map(statistics.median, zip(*(seconds(statement) for _ in range(times)), strict=True))
        print(f"| {name} | {torch:.2f} | {added:.3f} |", flush=True)


if __name__ == "__main__":
    main()
