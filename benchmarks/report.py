"""What every benchmark does with its numbers: print one table, keep them as one small JSON file."""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from ibmd_lite.training.files import writing

__all__ = ["RESULTS", "keep", "table"]

RESULTS = Path(__file__).parent / "results"


def table(rows: Sequence[dict[str, object]]) -> str:
    """Rows of one set of columns as an aligned plain-text table."""
    names = list(rows[0])
    cells = [names] + [
        [f"{row[name]:.4g}" if isinstance(row[name], float) else str(row[name]) for name in names] for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def keep(name: str, rows: Sequence[dict[str, object]], folder: Path = RESULTS, **about: object) -> Path:
    """Print the table and write <name>.json, into results/ by default, with the settings and the machine's kind."""
    print(table(rows))
    machine = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "system": platform.machine(),
    }
    path = folder / f"{name}.json"
    with writing(path) as temporary:
        temporary.write_text(json.dumps({"about": about | machine, "rows": list(rows)}, indent=1) + "\n")
    return path
