"""Results as tables: ``collect`` for pandas, from the folders of any runs, and ``store`` for the package's own.

Imports the standard library and its neighbours; pandas when a table is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibmd_lite.experiments.files import write_text

if TYPE_CHECKING:
    import pandas

    from ibmd_lite.experiments.sweep import Sweep

__all__ = ["collect", "store"]


def collect(*folders: str | Path) -> pandas.DataFrame:
    """One row for every ``result.json`` in the folders and below.

    Columns: the case's name where there is one, every parameter, every metric (which stands for a parameter of the same
    name), and of the run itself ``run_notebook``, ``run_seconds``, ``run_peak_bytes``, ``run_device``, ``run_commit``,
    ``run_fingerprint``, ``run_started``, ``run_folder``.  Where the same notebook was run with the same parameters but
    other code, the newest counts.  Rows are in the order in which they were run.

    Raises:
        FileNotFoundError: no result in any of the folders.
        ImportError: no pandas here (``pip install 'ibmd_lite[many]'``).
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("collect() makes a table of pandas: pip install 'ibmd_lite[many]'") from error
    newest: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in sorted(path for folder in folders for path in Path(folder).rglob("result.json")):
        result = json.loads(path.read_text("utf8"))
        if not isinstance(result, dict) or "wall_seconds" not in result:
            continue  # of something else
        key = json.dumps([result["notebook"], result["parameters"]], sort_keys=True)
        if key not in newest or newest[key][0] <= result["started"]:
            newest[key] = result["started"], _row(result, path.parent)
    if not newest:
        raise FileNotFoundError(f"there is no result in {', '.join(map(str, folders))}; `run` makes them")
    return pandas.DataFrame([row for _, row in sorted(newest.values(), key=lambda each: each[0])])


def store(sweep: Sweep, results: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write ``folder/NAME.json``, the table that ``ibmd_lite.experiments.stored`` reads, one row a line."""
    path = folder / f"{sweep.name}.json"
    head = {"notebook": sweep.notebook.name, "parameters": sweep.parameters}
    rows = [
        {**case, **result["metrics"], "run_seconds": round(result["wall_seconds"], 1)}
        for case, result in zip(sweep.cases, results, strict=True)
    ]
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    write_text(path, json.dumps(head)[:-1] + ', "rows": [\n' + lines + "\n]}\n")
    return path


def _row(result: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    case = {"case": result["case"]["case"]} if "case" in result["case"] else {}
    return {
        **case,
        **result["parameters"],
        **result["metrics"],
        "run_notebook": result["notebook"],
        "run_seconds": result["wall_seconds"],
        "run_peak_bytes": result["peak_memory_bytes"],
        "run_device": result["device"],
        "run_commit": result["commit"],
        "run_fingerprint": result["fingerprint"],
        "run_started": result["started"],
        "run_folder": str(folder),
    }
