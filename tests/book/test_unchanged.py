"""Stored outputs are accepted after a change of the package, never after one of the notebook or without a reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
import unchanged
from links import ROOT

from ibmd_lite.experiments.fingerprint import fingerprint

REASON = "a class was added, none was changed"


@pytest.fixture
def chapter(tmp_path: Path) -> Path:
    """A real chapter, as if it had been stored before some change of the package."""
    path = tmp_path / "three-curves.ipynb"
    shutil.copy(ROOT / "book" / "bridges" / path.name, path)
    store(path, fingerprint(path).split("-")[0] + "-00000000-00000000")
    return path


def store(path: Path, value: str) -> None:
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["ibmd"] = {"fingerprint": value}
    nbformat.write(notebook, path)


def told(path: Path) -> dict:
    return nbformat.read(path, as_version=4).metadata["ibmd"]


def test_the_reason_is_kept_beside_the_new_fingerprint(chapter: Path) -> None:
    outputs = [cell.get("outputs") for cell in nbformat.read(chapter, as_version=4).cells]
    assert unchanged.changed(chapter)
    unchanged.accept(chapter, REASON)
    assert not unchanged.changed(chapter)
    assert told(chapter)["reviewed"] == [{"package": fingerprint(chapter).partition("-")[2], "why": REASON}]
    assert [cell.get("outputs") for cell in nbformat.read(chapter, as_version=4).cells] == outputs


def test_a_notebook_of_other_code_is_refused(chapter: Path) -> None:
    notebook = nbformat.read(chapter, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("1 + 1"))
    nbformat.write(notebook, chapter)
    with pytest.raises(ValueError, match=r"other code than the one that was run; run it: make outputs"):
        unchanged.accept(chapter, REASON)
    assert "reviewed" not in told(chapter)


@pytest.mark.parametrize("comes_out", [True, False])
def test_only_what_comes_out_again_is_accepted(chapter, comes_out, monkeypatch, capsys) -> None:
    monkeypatch.setattr(unchanged, "comes_out_again", lambda path: comes_out)
    monkeypatch.setattr("sys.argv", ["unchanged.py", REASON, str(chapter)])
    assert unchanged.main() == (0 if comes_out else 1)
    assert unchanged.changed(chapter) != comes_out
    assert ("accepted" if comes_out else "run it at full size") in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["", "x.ipynb"], ["no change"]])
def test_a_reason_is_needed(words, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["unchanged.py", *words])
    assert unchanged.main() == 2
    assert "Say in a sentence why" in capsys.readouterr().out
