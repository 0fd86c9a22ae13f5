"""The notebooks run: at quick size from end to end, and what is stored in them comes out again.

A chapter runs when its code, or the package's code that it imports, is no longer what its stored outputs were made
with; two always run, the Quickstart against its outputs (`make book` runs it under papermill) and a short one under
papermill. `make quick` runs them all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from chapters import quick_parameters, skip_unchanged
from links import ROOT, notebooks
from lint import QUICK
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

pytestmark = [pytest.mark.notebook, pytest.mark.filterwarnings("default")]

BOOK = notebooks(ROOT)

# A picture's bytes depend on the fonts and the processor; its description and caption do not.
SANITIZE = """[pictures]
regex: data:image/png;base64,[A-Za-z0-9+/=]+
replace: PICTURE

[animations]
regex: film-[0-9a-f]{12}
replace: FILM
"""

ENVIRONMENT = {
    **os.environ,
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "JUPYTER_PLATFORM_DIRS": "1",
    "IBMD_STATIC": "1",  # no widgets: they need someone to move them
}


@pytest.mark.parametrize("path", BOOK, ids=lambda path: path.stem)
def test_a_notebook_runs_at_quick_size(path: Path) -> None:
    skip_unchanged(path, always="three-curves")
    before = path.read_bytes()
    output = ROOT / "_build" / "quick" / path.name
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "papermill", str(path), str(output), "--cwd", str(path.parent)]
    command += ["-f", str(ROOT / QUICK / f"{path.stem}.yaml"), "--no-progress-bar"]
    # Two attempts: kernels that start at the same moment can be given the same port.
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=ENVIRONMENT)
        if done.returncode == 0 or "Kernel died before replying" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr[-3000:]
    assert path.read_bytes() == before, "a run must not change the tracked notebook"
    cells = nbformat.read(output, as_version=4).cells
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code" and cell.source.strip())


@pytest.mark.parametrize("path", BOOK, ids=lambda path: path.stem)
def test_stored_outputs_come_out_again(path: Path, tmp_path: Path) -> None:
    skip_unchanged(path)
    # At quick size: the outputs that are compared (cells not tagged `nbval-ignore-output`) are the same.
    notebook = parameterize_notebook(load_notebook_node(str(path)), quick_parameters(path))
    # Beside the original, so that relative paths in it lead where they should.
    copy = path.with_name(f".{path.stem}-compared.ipynb")
    (tmp_path / "sanitize.cfg").write_text(SANITIZE, "utf8")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-cell-timeout", "600", "-q", "-p", "no:cacheprovider"]
    command += [
        "-c",
        os.devnull,
        "--rootdir",
        str(path.parent),
        "--nbval-sanitize-with",
        str(tmp_path / "sanitize.cfg"),
    ]
    try:
        nbformat.write(notebook, copy)
        done = subprocess.run([*command, str(copy)], capture_output=True, text=True, env=ENVIRONMENT, cwd=path.parent)
    finally:
        copy.unlink()
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert "passed" in done.stdout


@pytest.mark.parametrize("path", BOOK, ids=lambda path: path.stem)
def test_something_stored_is_compared(path: Path) -> None:
    """A notebook in which every output is ignored would make the comparison say nothing."""
    ignored = {"nbval-ignore-output", "nbval-skip"}
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code" and cell.outputs]
    assert any(not ignored & set(cell.metadata.get("tags", [])) for cell in cells)


@pytest.mark.parametrize("path", BOOK, ids=lambda path: path.stem)
def test_quick_parameters_differ_from_the_full_ones(path: Path) -> None:
    known = papermill.inspect_notebook(str(path))
    assert quick_parameters(path), "quick size must change something"
    assert set(quick_parameters(path)) <= set(known)
