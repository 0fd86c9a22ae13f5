"""A stored figure says what its cell says now: a caption that was edited later is not yet in the picture's HTML."""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from links import ROOT, notebooks
from nbformat.v4 import new_code_cell, new_notebook, new_output

BOOK = notebooks(ROOT)


def plain(text: str) -> str:
    """Without escapes and the marks of formulas, which differ in HTML."""
    return re.sub(r"\$|\\[()]", "", html.unescape(text))


def stale(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """Captions and descriptions that stand in a cell's source in full, and not in its output."""
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type != "code":
            continue
        stored = plain("".join(output.get("data", {}).get("text/html", "") for output in cell.outputs))
        for node in ast.walk(ast.parse(cell.source)):
            if not (isinstance(node, ast.keyword) and node.arg in ("alt", "caption")):
                continue
            if isinstance(node.value, ast.Constant) and plain(node.value.value) not in stored:
                yield f"cell {number}: {node.arg} {node.value.value!r} is not what is stored"


@pytest.mark.parametrize("path", BOOK, ids=lambda path: path.stem)
def test_captions_are_those_that_are_stored(path: Path) -> None:
    assert list(stale(nbformat.read(path, as_version=4))) == []


def test_a_caption_that_was_edited_is_seen() -> None:
    told = '<figure><img alt="A &lt; B"><figcaption>State \\(x_t\\).</figcaption></figure>'
    cell = new_code_cell('figure(f, alt="A < B", caption="State $x_t$.")')
    cell.outputs = [new_output("display_data", data={"text/html": told})]
    assert not list(stale(new_notebook(cells=[cell])))
    cell.source = cell.source.replace("State", "Place")
    assert [line[:15] for line in stale(new_notebook(cells=[cell]))] == ["cell 1: caption"]
