"""A small notebook and a sweep of it, for the tests of experiments; its runs leave their numbers in a log."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import nbformat
import yaml

PARAMETERS = "seed = 0\nsteps = 1\nscale = 1.0  # or None"
RESULT = 'import json\nprint(json.dumps({"value": scale * steps + seed}))'
LOG = 'with open("log", "a") as file:\n    print(seed, file=file)'  # beside the notebook, where the kernel works
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def notebook(path: Path, *sources: str, result: str | None = RESULT, parameters: str = PARAMETERS) -> Path:
    """A notebook of these cells, between that of the parameters and that of the result."""
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in (LOG, *sources)]
    cells += [] if result is None else [nbformat.v4.new_code_cell(result, metadata={"tags": ["result"]})]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), path)
    return path


def sweep(root: Path, *sources: str, **entries: object) -> Path:
    """``root/sweeps/trial.yaml`` of the notebook ``root/book/chapter.ipynb``."""
    notebook(root / "book" / "chapter.ipynb", *sources)
    file = root / "sweeps" / "trial.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump({"notebook": "book/chapter.ipynb", **entries}), "utf8")
    return file


def logged(root: Path) -> Counter[str]:
    """How often each seed was begun."""
    log = root / "book" / "log"
    return Counter(log.read_text("utf8").split()) if log.exists() else Counter()
