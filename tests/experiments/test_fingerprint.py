"""The fingerprint of a notebook changes with its code and what it imports of the package, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from ibmd_lite.experiments import fingerprint as module
from ibmd_lite.experiments.fingerprint import fingerprint


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A notebook, and a package of three modules of which the notebook reaches two."""
    package = tmp_path / "ibmd_lite"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "near.py").write_text('"""Near."""\nfrom ibmd_lite.far import far\n\n\ndef near():\n    return far\n')
    (package / "far.py").write_text("far = 1  # a number\n")
    (package / "other.py").write_text("other = 1\n")
    monkeypatch.setattr(module, "PACKAGE", package)
    write(tmp_path, "from ibmd_lite.near import near\nnear()")
    return tmp_path


def write(project: Path, code: str, prose: str = "Words.") -> None:
    cells = [nbformat.v4.new_markdown_cell(prose), nbformat.v4.new_code_cell(code)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), project / "chapter.ipynb")


def test_code_changes_it_wherever_it_stands(project: Path) -> None:
    seen = {fingerprint(project / "chapter.ipynb")}
    (project / "ibmd_lite" / "far.py").write_text("far = 2\n")
    seen.add(fingerprint(project / "chapter.ipynb"))
    (project / "ibmd_lite" / "near.py").write_text("from ibmd_lite.far import far\n\n\ndef near():\n    return -far\n")
    seen.add(fingerprint(project / "chapter.ipynb"))
    write(project, "from ibmd_lite.near import near\nnear() + 1")
    seen.add(fingerprint(project / "chapter.ipynb"))
    assert len(seen) == 4


def test_words_and_strangers_do_not_change_it(project: Path) -> None:
    before = fingerprint(project / "chapter.ipynb")
    write(project, "from ibmd_lite.near import near\n\nnear()  # called", "Other words.")
    (project / "ibmd_lite" / "far.py").write_text('"""Far."""\n\nfar = 1\n')
    (project / "ibmd_lite" / "other.py").write_text("other = 2\n")
    assert fingerprint(project / "chapter.ipynb") == before


def test_its_two_words_tell_the_notebook_from_the_package(project: Path) -> None:
    code, package = fingerprint(project / "chapter.ipynb").split("-")
    (project / "ibmd_lite" / "far.py").write_text("far = 2\n")
    changed = fingerprint(project / "chapter.ipynb").split("-")
    assert changed[0] == code
    assert changed[1] != package
    write(project, "from ibmd_lite.near import near\nnear() + 1")
    assert fingerprint(project / "chapter.ipynb").split("-")[0] != code
