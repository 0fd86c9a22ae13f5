"""Running a notebook to store its outputs: what is told of it is made anew, what it says of itself stays."""

from __future__ import annotations

from pathlib import Path

import nbformat
import outputs
import pytest
from trials import notebook

from ibmd_lite.experiments.fingerprint import fingerprint


@pytest.mark.notebook
@pytest.mark.filterwarnings("default")
def test_what_a_notebook_depends_on_stays_in_it(tmp_path: Path) -> None:
    path = notebook(tmp_path / "chapter.ipynb")
    (tmp_path / "recipe.txt").write_text("1")
    chapter = nbformat.read(path, as_version=4)
    chapter.metadata["ibmd"] = {"depends": ["recipe.txt"], "reviewed": [{"package": "x", "why": "y"}]}
    nbformat.write(chapter, path)
    outputs.run(path)
    told = nbformat.read(path, as_version=4).metadata["ibmd"]
    assert told == {"depends": ["recipe.txt"], "fingerprint": fingerprint(path), "seconds": told["seconds"]}
