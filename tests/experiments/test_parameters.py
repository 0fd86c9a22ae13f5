"""What a notebook's cell of parameters declares, and which values it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from links import ROOT, notebooks
from trials import notebook

from ibmd_lite.experiments.parameters import check, declared

CELL = """seed = 0
rate = 1e-3
clip = 1.0  # the largest norm, or None
film = True
data = ""
tasks = ["one", "two"]
sizes = (
    1,
    2,
)
free = None
limit: float = float("inf")
kinds = {1, 2}
if film:
    other = 1
"""


@pytest.fixture
def chapter(tmp_path: Path) -> Path:
    return notebook(tmp_path / "chapter.ipynb", parameters=CELL)


def test_the_cell_is_read_and_not_run(chapter: Path) -> None:
    known = declared(chapter)
    assert list(known) == ["seed", "rate", "clip", "film", "data", "tasks", "sizes", "free", "limit", "kinds"]
    assert known["sizes"].default == (1, 2)
    assert known["limit"].default == "float('inf')"
    assert not known["limit"].known
    assert not known["kinds"].known, "JSON has no sets"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 3),
        ("rate", 1),
        ("clip", None),
        ("film", False),
        ("tasks", []),
        ("sizes", [4]),
        ("free", "anything"),
        ("free", None),
        ("limit", 2.0),
    ],
)
def test_values_of_its_types_are_taken(chapter: Path, name: str, value: Any) -> None:
    check(chapter, declared(chapter), {name: value})


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("seed", "3", r"seed is 0, which '3' \(str\) cannot stand for"),
        ("seed", 1.5, "which 1.5"),
        ("seed", True, "which True"),
        ("seed", None, "name None in the parameter's line"),
        ("rate", "1e-3", "needs a point and a sign"),
        ("rate", False, "which False"),
        ("film", 1, "which 1"),
        ("data", 5, "which 5"),
        ("tasks", "one", "which 'one'"),
        ("tasks", ["one", 2], "which"),
        ("free", {1, 2}, "JSON"),
        ("rate", float("nan"), "JSON"),
    ],
)
def test_values_of_other_types_are_refused(chapter: Path, name: str, value: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        check(chapter, declared(chapter), {name: value})


def test_unknown_names_are_refused(chapter: Path) -> None:
    with pytest.raises(ValueError, match=r"chapter.ipynb does not know \['sede'\]; it has clip, data"):
        check(chapter, declared(chapter), {"sede": 1})


def test_what_is_no_notebook_is_refused(tmp_path: Path, chapter: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        declared(tmp_path / "missing.ipynb")
    (tmp_path / "text.ipynb").write_text("words")
    with pytest.raises(ValueError, match="cannot be read"):
        declared(tmp_path / "text.ipynb")
    for text in ('{"cells": 3}', '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": 3}', "[]"):
        (tmp_path / "text.ipynb").write_text(text)
        with pytest.raises(ValueError, match=r"text.ipynb cannot be read"):
            declared(tmp_path / "text.ipynb")
    with pytest.raises(ValueError, match="no Python"):
        declared(notebook(tmp_path / "broken.ipynb", parameters="seed = "))
    chapter.write_text(chapter.read_text("utf8").replace('"parameters"', '"other"'), "utf8")
    with pytest.raises(ValueError, match="one cell tagged `parameters`, has 0"):
        declared(chapter)


def test_every_chapter_can_be_given_a_seed_or_says_what_it_has() -> None:
    for path in notebooks(ROOT):
        assert all(each.known for each in declared(path).values()), f"{path.name}: a default that is no literal"
