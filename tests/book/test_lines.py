"""Lines of Python that a page shows outside its cells: they parse, what they import exists, what they use is known."""

from __future__ import annotations

import ast
import builtins
import importlib
import re
from pathlib import Path

import nbformat
import pytest
from links import ROOT

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def parts(path: Path) -> tuple[str, list[str]]:
    """The prose of a page with its blocks, and the code of its cells."""
    if path.suffix == ".md":
        return path.read_text("utf8"), []
    cells = nbformat.read(path, 4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return prose, [cell.source for cell in cells if cell.cell_type == "code"]


def defined(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found |= {(alias.asname or alias.name).split(".")[0] for alias in names}
    return found


def unknown(prose: str, cells: list[str]) -> list[str]:
    """What the blocks of a page use that neither they nor its cells define, and that its prose does not name."""
    blocks = [ast.parse(block) for block in BLOCK.findall(prose)]
    known = {*dir(builtins)}.union(*map(defined, blocks), *(defined(ast.parse(cell)) for cell in cells))
    told = BLOCK.sub("", prose)
    missing = []
    for node in (node for block in blocks for node in ast.walk(block)):
        match node:
            case ast.Name(id=name) if name not in known and not re.search(rf"`{name}\b", told):
                missing.append(name)
            case ast.ImportFrom(module=str(module), names=names):
                there = importlib.import_module(module)
                missing += [f"{module}.{alias.name}" for alias in names if not hasattr(there, alias.name)]
    return missing


PAGES = [
    path
    for path in [ROOT / "README.md", *sorted((ROOT / "book").rglob("*.md")), *sorted((ROOT / "book").rglob("*.ipynb"))]
    if BLOCK.search(parts(path)[0])
]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_lines_can_be_typed_as_they_stand(path: Path) -> None:
    assert unknown(*parts(path)) == []


def test_what_a_page_forgot_is_found() -> None:
    block = "```python\nfrom ibmd_lite.sampling import smaple\n\nx0 = sample(teacher, xT, times)\n```\n"
    assert unknown(f"Let `xT` be images.\n\n{block}", ["teacher = 1"]) == [
        "ibmd_lite.sampling.smaple",
        "sample",
        "times",
    ]
