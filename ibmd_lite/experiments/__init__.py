"""Chapters as experiments: sweeps of a notebook with papermill, and the tables they left.

``stored`` reads a table that came with the package; ``python -m ibmd_lite.experiments.sweep NAME`` makes it.
Imports the standard library; papermill and yaml when a sweep runs.
"""

import json
from importlib import resources
from typing import Any

__all__ = ["stored"]


def stored(name: str) -> list[dict[str, Any]]:
    """The rows of a stored sweep, each with its parameters, its seed and its results; [] if there is none yet."""
    table = resources.files(__package__) / "results" / f"{name}.json"
    if not table.is_file():
        return []
    rows: list[dict[str, Any]] = json.loads(table.read_text("utf8"))["rows"]
    return rows
