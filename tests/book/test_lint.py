"""The lint of the notebooks: clean on every notebook of the book, and each rule seen to bite."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from links import ROOT, notebooks, setup_cell
from lint import SIZES, faults
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ibmd_lite.experiments import fingerprint as fingerprints
from ibmd_lite.experiments.fingerprint import fingerprint

pytestmark = pytest.mark.filterwarnings("default")

BOOK = notebooks(ROOT)


@pytest.mark.parametrize("path", BOOK, ids=lambda path: path.stem)
def test_every_notebook_of_the_book_is_clean(path: Path) -> None:
    assert faults(path, ROOT / SIZES) == []


def test_the_book_has_notebooks() -> None:
    assert BOOK


def good() -> NotebookNode:
    """A notebook that breaks no rule: set-up, parameters, one described figure, one check."""
    html = '<figure><img src="data:image/png;base64,/tmp/aaaa" alt="A line"><figcaption>A line.</figcaption></figure>'
    cells = [
        new_markdown_cell("# A chapter"),
        new_code_cell(setup_cell("https://example.org/x", "main"), metadata={"tags": ["colab-setup", "remove-cell"]}),
        new_code_cell("steps = 3", metadata={"tags": ["parameters", "remove-cell"]}),
        new_code_cell("show(steps)", outputs=[new_output("display_data", data={"text/html": html})]),
        new_code_cell("assert steps > 0", metadata={"tags": ["check", "remove-cell"]}),
        new_code_cell(""),
    ]
    for count, cell in enumerate(cells[1:5], start=1):
        cell.execution_count = count
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def found(
    notebook: NotebookNode, folder: Path, quick: str | None = "steps: 1\n", large: str | None = None
) -> list[str]:
    path = folder / "chapter.ipynb"
    nbformat.write(notebook, path)
    notebook.metadata.setdefault("ibmd", {"fingerprint": fingerprint(path)})
    nbformat.write(notebook, path)
    sizes = folder / "sizes"
    for size, parameters in {"quick": quick, "large": large}.items():
        if parameters is not None:
            (sizes / size).mkdir(parents=True, exist_ok=True)
            (sizes / size / "chapter.yaml").write_text(parameters, "utf8")
    return faults(path, sizes)


def test_a_good_notebook_passes(tmp_path: Path) -> None:
    assert found(good(), tmp_path) == []


def stream(name: str, text: str) -> NotebookNode:
    return new_output("stream", name=name, text=text)


def retag(notebook: NotebookNode, cell: int, tags: list[str]) -> None:
    notebook.cells[cell].metadata["tags"] = tags


BROKEN: dict[str, tuple[Callable[[NotebookNode], object], str]] = {
    "no parameters cell": (lambda n: retag(n, 2, []), "tagged `parameters`"),
    "two parameters cells": (lambda n: retag(n, 3, ["parameters"]), "tagged `parameters`, has 2"),
    "no Colab cell": (lambda n: retag(n, 1, []), "tagged `colab-setup`"),
    "no check": (lambda n: retag(n, 4, []), "tagged `check`"),
    "a check without assert": (lambda n: n.cells[4].update(source="print(1)"), "tagged `check`"),
    "an unexecuted cell": (lambda n: n.cells[3].update(execution_count=None), "cell 4 was not executed"),
    "a stale cell": (lambda n: n.cells[2].update(execution_count=9), "cell 4 was executed out of order"),
    "an error": (
        lambda n: n.cells[3].outputs.append(new_output("error", ename="ValueError", evalue="", traceback=[])),
        "stores an error: ValueError",
    ),
    "a warning": (lambda n: n.cells[3].outputs.append(stream("stderr", "UserWarning")), "text on stderr"),
    "a path": (lambda n: n.cells[3].outputs.append(stream("stdout", "saved /home/me/x.pt")), "path of the machine"),
    "a path in HTML": (
        lambda n: n.cells[3].outputs.append(new_output("display_data", data={"text/html": "<p>/tmp/x</p>"})),
        "path of the machine",
    ),
    "a bare figure": (
        lambda n: n.cells[3].outputs.append(new_output("display_data", data={"image/png": "aaaa"})),
        "bare figure",
    ),
    "an image without alt": (
        lambda n: n.cells[3].outputs[0].data.update({"text/html": '<img src="a.png">'}),
        "without alternative text",
    ),
    "an image with an empty alt": (
        lambda n: n.cells[3].outputs[0].data.update({"text/html": '<img src="a.png" alt=" ">'}),
        "without alternative text",
    ),
    "a figure without caption": (
        lambda n: n.cells[3].outputs[0].data.update({"text/html": '<figure><img src="a.png" alt="A"></figure>'}),
        "without a caption",
    ),
    "an animation without a description": (
        lambda n: n.cells[3].outputs[0].data.update({"text/html": '<div class="film" role="img"></div>'}),
        "animation without a description",
    ),
    "a long cell": (lambda n: n.cells[3].update(source="show(steps)\n" * 31), "cell 4 has 31 lines"),
    "code after code": (lambda n: retag(n, 4, ["check"]), "cell 5 has no sentence before it"),
    "a Markdown image without alt": (lambda n: n.cells[0].update(source="![](a.png)"), "without alternative text"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_each_rule_bites(fault: str, tmp_path: Path) -> None:
    spoil, message = BROKEN[fault]
    notebook = good()
    spoil(notebook)
    assert any(message in line for line in found(notebook, tmp_path)), found(notebook, tmp_path)


def exercise(label: str, solved: bool = True) -> str:
    solution = f"\n\n::::{{solution-start}} {label}\n:class: dropdown\n::::\n\n:::{{solution-end}}\n:::"
    return f":::{{exercise}}\n:label: {label}\n\nWhy?\n:::" + solution * solved


@pytest.mark.parametrize(
    ("exercises", "expected"),
    [
        ([exercise(f"ex-{k}") for k in range(4)], []),
        ([exercise(f"ex-{k}") for k in range(3)], ["has 3 exercises; a chapter has at least 4"]),
        ([exercise(f"ex-{k}", solved=k != 2) for k in range(4)], ["exercise ex-2 has no solution"]),
    ],
)
def test_a_chapter_has_four_exercises_with_solutions(exercises: list[str], expected: list[str], tmp_path: Path) -> None:
    notebook = good()
    notebook.cells += [new_markdown_cell(text) for text in exercises]
    folder = tmp_path / "bridges"
    folder.mkdir()
    assert found(notebook, folder) == expected


def test_a_quick_parameter_that_the_notebook_does_not_have(tmp_path: Path) -> None:
    assert any("`step`" in line for line in found(good(), tmp_path, quick="step: 1\n"))


def test_a_large_parameter_that_the_notebook_does_not_have(tmp_path: Path) -> None:
    assert any("the large parameter `step`" in line for line in found(good(), tmp_path, large="step: 1\n"))


def test_no_file_of_quick_parameters(tmp_path: Path) -> None:
    assert found(good(), tmp_path, quick=None) == ["has no quick-size parameters in quick/chapter.yaml"]


def test_an_image_chapter_has_a_large_size_too(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    fault = "has no large-size parameters in large/chapter.yaml"
    assert fault in found(good(), folder)
    assert fault not in found(good(), folder, large="steps: 9\n")
    assert fault not in found(good(), tmp_path)


# Freshness: continuous integration refuses what is stale.


def test_a_changed_line_of_the_package_makes_its_chapters_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On real chapters: the one that imports the line is named with the two commands, another is left alone."""
    package = tmp_path / "ibmd_lite"
    shutil.copytree(fingerprints.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    monkeypatch.setattr(fingerprints, "PACKAGE", package)
    chapter, other = ROOT / "book/teachers/student-to-tool.ipynb", ROOT / "book/bridges/three-curves.ipynb"
    assert faults(chapter, ROOT / SIZES) == faults(other, ROOT / SIZES) == []
    file = package / "export.py"
    file.write_text(file.read_text("utf8").replace('"""', '"""In other words. ', 1), "utf8")
    assert faults(chapter, ROOT / SIZES) == [], "words make nothing stale"
    file.write_text(file.read_text("utf8") + "CHANGED = 1\n", "utf8")
    (fault,) = faults(chapter, ROOT / SIZES)
    assert fault.startswith("is stale: the package that it imports has changed")
    assert "`make outputs NOTEBOOK=book/teachers/student-to-tool.ipynb`" in fault
    assert '`make unchanged WHY="..." NOTEBOOK=book/teachers/student-to-tool.ipynb`' in fault
    assert faults(other, ROOT / SIZES) == []


def test_a_changed_table_makes_the_chapters_that_read_it_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "PACKAGE", tmp_path / "ibmd_lite")
    table = tmp_path / "ibmd_lite" / "experiments" / "results" / "sizes.json"
    table.parent.mkdir(parents=True)
    table.write_text("{}")
    notebook = good()
    notebook.cells[3].source = "stored('sizes')"
    assert found(notebook, tmp_path) == []
    table.write_text("[]")
    (fault,) = found(notebook, tmp_path)
    assert fault.startswith("is stale: a stored table that it reads has changed; `make outputs NOTEBOOK=chapter.ipynb`")


def test_another_cell_makes_a_notebook_stale_and_only_a_run_mends_it(tmp_path: Path) -> None:
    notebook = good()
    assert found(notebook, tmp_path) == []
    notebook.cells[3].source = "show(steps + 1)"
    (fault,) = found(notebook, tmp_path)
    assert "its code is another than the one that was run; `make outputs NOTEBOOK=chapter.ipynb` runs it" in fault
    assert "make unchanged" not in fault


def test_a_notebook_that_was_stored_by_hand_is_stale(tmp_path: Path) -> None:
    notebook = good()
    notebook.metadata["ibmd"] = {}
    (fault,) = found(notebook, tmp_path)
    assert "is stale" in fault
