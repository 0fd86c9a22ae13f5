"""Chapters as experiments: sweeps of a notebook with papermill, image tasks, and the tables they left.

``stored`` and ``about`` read a table that came with the package.  ``make sweep NAME=...`` makes those of the
sweeps, ``python benchmarks/images.py TASK`` those of the image tasks, ``images/TASK``.  ``python -m
ibmd_lite.experiments`` runs any chapter or sweep.
Imports the standard library alone.
"""

import json
from importlib import resources
from typing import Any

__all__ = ["about", "stored"]


def stored(name: str) -> list[dict[str, Any]]:
    """The rows of a stored table, each with its parameters and its results; [] if there is none yet."""
    rows: list[dict[str, Any]] = _table(name).get("rows", [])
    return rows


def about(name: str) -> dict[str, Any]:
    """What was stored beside the rows: settings, curves, the machine; {} if there is no such table yet."""
    found = _table(name)
    return found.get("about", {key: value for key, value in found.items() if key != "rows"})


def _table(name: str) -> dict[str, Any]:
    path = resources.files(__package__) / "results" / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text("utf8")) if path.is_file() else {}
    return found
