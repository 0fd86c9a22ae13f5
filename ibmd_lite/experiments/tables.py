"""Results as tables: ``collect`` for pandas, from the folders of any runs, and ``store`` for the package's own.

Imports the standard library and its neighbours; pandas when a table is made.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibmd_lite.experiments.files import write_text
from ibmd_lite.experiments.reading import result_of

if TYPE_CHECKING:
    import pandas

    from ibmd_lite.experiments.sweep import Sweep

__all__ = ["collect", "store"]


def collect(*folders: str | Path, tell: Callable[[str], None] = warnings.warn) -> pandas.DataFrame:
    """One row for every ``result.json`` in the folders and below, of each notebook's newest code.

    Columns: the case's name where there is one, every parameter, every metric (which stands for a parameter of the same
    name), and of the run itself ``run_notebook``, ``run_seconds``, ``run_peak_bytes``, ``run_device``, ``run_commit``,
    ``run_fingerprint``, ``run_started``, ``run_folder``.  ``run_notebook`` is the notebook's path below the folder that
    all of them share, so that two of one name are told apart.  Rows are in the order in which they were run; the
    table's ``attrs["metrics"]`` are the names of the metrics.

    Rows of different code are never in one table: of each notebook those count whose fingerprint is that of its run
    which began last.  ``tell`` is told how many others there were, and of each file that is no result.

    Raises:
        FileNotFoundError: no result in any of the folders.
        ImportError: no pandas here (``pip install 'ibmd_lite[many]'``).
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("collect() makes a table of pandas: pip install 'ibmd_lite[many]'") from error
    of_notebook: dict[Path, list[tuple[dict[str, Any], Path]]] = {}
    paths = {path.resolve(): path for folder in folders for path in sorted(Path(folder).rglob("result.json"))}
    for path in paths.values():
        try:
            result = result_of(path)
        except (OSError, ValueError) as error:
            tell(f"left out: {error}")
            continue
        notebook = (path.parent / result["notebook_path"]).resolve()
        of_notebook.setdefault(notebook, []).append((result, path.parent))
    if not of_notebook:
        raise FileNotFoundError(f"there is no result in {', '.join(map(str, folders))}; `run` makes them")
    common = os.path.commonpath([notebook.parent for notebook in of_notebook])
    rows: dict[str, dict[str, Any]] = {}  # two sweeps may have the same run
    metrics: dict[str, None] = {}
    for notebook, found in of_notebook.items():
        name = notebook.relative_to(common).as_posix()
        code = max(found, key=lambda each: each[0]["started"])[0]["fingerprint"]
        newest = [each for each in found if each[0]["fingerprint"] == code]
        if older := len(found) - len(newest):
            tell(
                f"left out: {older} of {len(found)} results of {name}, which are of other code than the newest, {code}"
            )
        for result, folder in sorted(newest, key=lambda each: each[0]["started"]):
            metrics |= dict.fromkeys(result["metrics"])
            rows[json.dumps([name, result["parameters"]], sort_keys=True)] = _row(result, folder, name)
    table = pandas.DataFrame(sorted(rows.values(), key=lambda row: row["run_started"]))
    table.attrs["metrics"] = list(metrics)
    return table


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


def _row(result: Mapping[str, Any], folder: Path, notebook: str) -> dict[str, Any]:
    case = {"case": result["case"]["case"]} if "case" in result["case"] else {}
    return {
        **case,
        **result["parameters"],
        **result["metrics"],
        "run_notebook": notebook,
        "run_seconds": result["wall_seconds"],
        "run_peak_bytes": result.get("peak_memory_bytes"),
        "run_device": result.get("device"),
        "run_commit": result.get("commit"),
        "run_fingerprint": result["fingerprint"],
        "run_started": result["started"],
        "run_folder": str(folder),
    }
