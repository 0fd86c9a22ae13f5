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
from ibmd_lite.experiments.runs import code_of

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

    Rows of different code are never in one table: of each notebook those count that its code of today has made, or, if
    there are none, the code of its newest run.  ``tell`` is told of either, of how many others there were, and of each
    file that is no result.

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
        code = _code(notebook, name, [result for result, _ in found], tell)
        newest = [each for each in found if each[0]["fingerprint"] == code]
        if others := len(found) - len(newest):
            tell(f"left out: {others} of {len(found)} results of {name}, which are not of the code {code}")
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


def _code(notebook: Path, name: str, results: Sequence[Mapping[str, Any]], tell: Callable[[str], None]) -> str:
    """The fingerprint of the results that count."""
    try:
        today: str | None = code_of(notebook)
    except ValueError:  # it is not there any more, or is no notebook today
        today = None
    if today in {result["fingerprint"] for result in results}:
        return str(today)
    newest: str = max(results, key=lambda result: result["started"])["fingerprint"]
    if today:
        tell(f"{name}, or what it imports, has changed since its newest results were made; run it again")
    return newest


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
