"""Run notebooks at full size and store their outputs, without anything that depends on the run.

`make outputs` runs every notebook of the book in place, `make outputs NOTEBOOK=book/x/y.ipynb` one.
A notebook that fails is left as it was. What the outputs depend on is stored with them, as a fingerprint
of the code, so that the tests know which notebooks have changed since, and the seconds that the run took,
which the page shows under its title. Widgets, which need a kernel, are left out. Imports nbclient,
nbformat, the package's `fingerprint` and its neighbour `links`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nbformat
from ibmd_lite.experiments.fingerprint import fingerprint
from nbclient import NotebookClient

from links import ROOT, notebooks


def strip(notebook: nbformat.NotebookNode) -> None:
    """Remove what differs from run to run or from machine to machine: times, versions, reports."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        cell.metadata.pop("papermill", None)


def run(path: Path) -> None:
    """Execute one notebook from its own folder and write it back."""
    notebook = nbformat.read(path, as_version=4)
    total = sum(cell.cell_type == "code" for cell in notebook.cells)
    done = 0

    def report(cell: nbformat.NotebookNode, cell_index: int, **_: object) -> None:
        nonlocal done
        done += 1
        print(f"\r{path.name}: cell {done} of {total}", end="", flush=True)

    start, code = time.perf_counter(), fingerprint(path)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=None,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_executed=report,
    )
    client.execute()
    strip(notebook)
    spent = time.perf_counter() - start
    kept = {name: what for name, what in notebook.metadata.get("ibmd", {}).items() if name == "depends"}
    notebook.metadata["ibmd"] = {**kept, "fingerprint": code, "seconds": round(spent)}
    nbformat.write(notebook, path)
    print(f"\r{path.name}: stored, {spent:.0f} s")


def main() -> None:
    """Run the notebooks named on the command line, or all of them."""
    os.environ["IBMD_STATIC"] = "1"
    for path in [Path(name).resolve() for name in sys.argv[1:]] or notebooks(ROOT):
        run(path)


if __name__ == "__main__":
    main()
