"""What every notebook of the book must satisfy; `make lint` and the tests call `faults`.

A notebook is published with the outputs that are stored in it, so the rules look at those: executed
in order, no errors, no warnings, no paths of the machine, no picture without a description, no long
cell, no code without a sentence before it, in the parts' chapters four exercises with solutions, and outputs that
the code of today has made, or that a reviewed reason says it would make.
Imports nbformat, papermill, yaml, the package's `fingerprint` and its neighbour `links`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import papermill
import yaml
from ibmd_lite.experiments.fingerprint import fingerprint

from links import ROOT, TAG, notebooks

SIZES = Path("book/_parameters")
QUICK = SIZES / "quick"
PARTS = {"bridges", "distillation", "images", "teachers", "scale"}
LONGEST_CELL = 30
EXERCISES = 4

MACHINE_PATH = re.compile(
    r"(?<![\w.:/<])/(?:home|Users|root|tmp|work|var|opt|usr|mnt|private|content|kaggle|workspace)/[\w.-]|\b[A-Z]:\\\w"
)
IMG = re.compile(r"<img\b[^>]*>", re.DOTALL)
ALT = re.compile(r"""\balt\s*=\s*(?:"[^"]*\S[^"]*"|'[^']*\S[^']*')""")
DATA = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s]+")
DRAWN = re.compile(r"""<[^>]*\brole\s*=\s*["']img["'][^>]*>""", re.DOTALL)
LABEL = re.compile(r"""\baria-label\s*=\s*(?:"[^"]*\S[^"]*"|'[^']*\S[^']*')""")
EXERCISE = re.compile(r"^:::+\{exercise\}.*?^:label:\s*(\S+)", re.DOTALL | re.MULTILINE)
SOLUTION = re.compile(r"^:::+\{solution(?:-start)?\}\s+(\S+)", re.MULTILINE)
BARE_MARKDOWN_IMAGE = re.compile(r"!\[\s*\]\(")


def faults(path: Path, sizes: Path) -> list[str]:
    """Every rule that the notebook breaks, in words; `sizes` holds a folder of parameter files for each size."""
    notebook = nbformat.read(path, as_version=4)
    return [
        *_tag_faults(notebook),
        *_execution_faults(notebook),
        *_output_faults(notebook),
        *_picture_faults(notebook),
        *_prose_faults(notebook),
        *(_exercise_faults(notebook) if path.parent.name in PARTS else ()),
        *_size_faults(path, sizes),
        *_stale_faults(path, notebook),
    ]


def _tagged(notebook: nbformat.NotebookNode, tag: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def _code(notebook: nbformat.NotebookNode) -> Iterator[tuple[int, nbformat.NotebookNode]]:
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code" and cell.source.strip():
            yield number, cell


def _tag_faults(notebook: nbformat.NotebookNode) -> Iterator[str]:
    for tag in ("parameters", TAG):
        found = len(_tagged(notebook, tag))
        if found != 1:
            yield f"needs exactly one cell tagged `{tag}`, has {found}"
    checks = _tagged(notebook, "check")
    if not any("assert" in cell.source for cell in checks):
        yield "needs a cell tagged `check` that asserts what the chapter claims"


def _execution_faults(notebook: nbformat.NotebookNode) -> Iterator[str]:
    last = 0
    for number, cell in _code(notebook):
        if cell.execution_count is None:
            yield f"cell {number} was not executed"
        elif cell.execution_count <= last:
            yield f"cell {number} was executed out of order; run the notebook from top to bottom"
        else:
            last = cell.execution_count


def _output_faults(notebook: nbformat.NotebookNode) -> Iterator[str]:
    for number, cell in _code(notebook):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {number} stores an error: {output.ename}"
            if output.output_type == "stream" and output.name == "stderr":
                yield f"cell {number} stores text on stderr: {output.text.strip()[:80]!r}"
            for text in _texts(output):
                found = MACHINE_PATH.search(DATA.sub("", text))
                if found:
                    start = found.start()
                    yield f"cell {number} stores a path of the machine: {text[start : start + 60]!r}"


def _texts(output: nbformat.NotebookNode) -> Iterator[str]:
    if output.output_type == "stream":
        yield output.text
    elif output.output_type == "error":
        yield "\n".join(output.traceback)
    else:
        for kind, data in output.data.items():
            if not kind.startswith("image/"):
                yield data if isinstance(data, str) else str(data)


def _picture_faults(notebook: nbformat.NotebookNode) -> Iterator[str]:
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "markdown":
            written = [cell.source]
            if BARE_MARKDOWN_IMAGE.search(cell.source):
                yield f"cell {number} has a picture without alternative text"
        else:
            outputs = [output for output in cell.get("outputs", []) if "data" in output]
            written = [output.data.get("text/html", "") for output in outputs]
            if any(kind.startswith("image/") for output in outputs for kind in output.data):
                yield f"cell {number} shows a bare figure; show it with display.figure(fig, alt=..., caption=...)"
        for text in written:
            if any(not ALT.search(DATA.sub("", tag)) for tag in IMG.findall(text)):
                yield f"cell {number} has a picture without alternative text"
            if any(not LABEL.search(tag) for tag in DRAWN.findall(text)):
                yield f"cell {number} has an animation without a description"
            if text.count("<figure") != text.count("<figcaption"):
                yield f"cell {number} has a figure without a caption"


def _prose_faults(notebook: nbformat.NotebookNode) -> Iterator[str]:
    said = False
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "markdown":
            said = True
        elif cell.source.strip():
            lines = len(cell.source.splitlines())
            if lines > LONGEST_CELL:
                yield f"cell {number} has {lines} lines; at most {LONGEST_CELL}, split it or move code to the package"
            if "remove-cell" not in cell.metadata.get("tags", []):
                if not said:
                    yield f"cell {number} has no sentence before it"
                said = False


def _exercise_faults(notebook: nbformat.NotebookNode) -> Iterator[str]:
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    asked, solved = EXERCISE.findall(text), set(SOLUTION.findall(text))
    if len(asked) < EXERCISES:
        yield f"has {len(asked)} exercises; a chapter has at least {EXERCISES}"
    for label in asked:
        if label not in solved:
            yield f"exercise {label} has no solution"


def _size_faults(path: Path, sizes: Path) -> Iterator[str]:
    """Of the sizes' files: one for `quick`, of an image chapter one for `large`; all of parameters that it has."""
    files = sorted(sizes.glob(f"*/{path.stem}.yaml"))
    needed = ("quick", "large") if path.parent.name == "images" else ("quick",)
    for size in needed:
        if size not in {file.parent.name for file in files}:
            yield f"has no {size}-size parameters in {size}/{path.stem}.yaml"
    known = papermill.inspect_notebook(str(path)) if files else {}
    for file in files:
        for name in yaml.safe_load(file.read_text("utf8")) or {}:
            if name not in known:
                yield (
                    f"does not know the {file.parent.name} parameter `{name}`; "
                    f"it has {', '.join(sorted(known)) or 'none'}"
                )


def _stale_faults(path: Path, notebook: nbformat.NotebookNode) -> Iterator[str]:
    """A notebook whose code, or package, or tables are others than when its outputs were stored."""
    stored = notebook.metadata.get("ibmd", {}).get("fingerprint", "")
    now = fingerprint(path)
    where = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    if stored.partition("-")[0] != now.partition("-")[0]:
        yield f"is stale: its code is another than the one that was run; `make outputs NOTEBOOK={where}` runs it"
    elif stored != now:
        package = stored.split("-")[1:2] != now.split("-")[1:2]
        what = "the package that it imports has changed" if package else "a stored table that it reads has changed"
        yield (
            f"is stale: {what}; `make outputs NOTEBOOK={where}` runs it, or "
            f'`make unchanged WHY="..." NOTEBOOK={where}` keeps what is stored where the change cannot alter it'
        )


def main() -> None:
    """Print the faults of all notebooks of the book, and fail if there are any."""
    found = [f"{path.relative_to(ROOT)}: {fault}" for path in notebooks(ROOT) for fault in faults(path, ROOT / SIZES)]
    print("\n".join(found) or "The notebooks are in order.")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
