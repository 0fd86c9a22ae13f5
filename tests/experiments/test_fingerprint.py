"""The fingerprint of a notebook changes with its code and what it imports of the package, with the tables it
reads and with what its metadata name, and with nothing else."""

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


def write(project: Path, code: str, prose: str = "Words.", depends: tuple[str, ...] = ()) -> None:
    cells = [nbformat.v4.new_markdown_cell(prose), nbformat.v4.new_code_cell(code)]
    metadata = {"ibmd": {"depends": list(depends)}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), project / "chapter.ipynb")


def words(project: Path) -> list[str]:
    return fingerprint(project / "chapter.ipynb").split("-")


def store(project: Path, name: str, text: str) -> None:
    path = project / "ibmd_lite" / "experiments" / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


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


def test_its_words_tell_the_notebook_from_the_package(project: Path) -> None:
    code, package, tables = fingerprint(project / "chapter.ipynb").split("-")
    (project / "ibmd_lite" / "far.py").write_text("far = 2\n")
    changed = fingerprint(project / "chapter.ipynb").split("-")
    assert changed[0] == code
    assert changed[1] != package
    assert changed[2] == tables
    write(project, "from ibmd_lite.near import near\nnear() + 1")
    assert fingerprint(project / "chapter.ipynb").split("-")[0] != code


@pytest.mark.parametrize(
    ("code", "read"),
    [
        ("stored('sizes')", {"sizes"}),
        ("experiments.about('sizes')['machine']", {"sizes"}),
        ("rows = [stored(f'images/{task}') for task in tasks]", {"images/jpeg", "images/sketch"}),
        ("stored(f'{kind}/sketch')", {"images/sketch"}),
        ("stored(name)", set()),
        ("near()", set()),
    ],
)
def test_tables_change_it_where_they_are_read(project: Path, code: str, read: set[str]) -> None:
    names = ("sizes", "images/jpeg", "images/sketch")
    for name in names:
        store(project, name, "1")
    write(project, f"from ibmd_lite.near import near\n{code}")
    before = words(project)
    for name in names:
        store(project, name, "2")
        now = words(project)
        assert now[:2] == before[:2]
        assert (now[2] != before[2]) == (name in read), name
        before = now


def test_a_table_that_is_new_changes_it(project: Path) -> None:
    write(project, "stored('sizes')")
    before = words(project)
    store(project, "sizes", "1")
    assert words(project)[2] != before[2]


def test_what_the_metadata_name_changes_it(project: Path) -> None:
    (project / "recipe.txt").write_text("1")
    (project / "ibmd_lite" / "started.py").write_text("from ibmd_lite.other import other\n")
    write(project, "1", depends=("ibmd_lite.started", "recipe.txt"))
    seen = {words(project)[1]}
    (project / "recipe.txt").write_text("2")
    seen.add(words(project)[1])
    (project / "ibmd_lite" / "other.py").write_text("other = 2\n")
    seen.add(words(project)[1])
    assert len(seen) == 3
    write(project, "1", depends=("ibmd_lite.nowhere",))
    with pytest.raises(ValueError, match=r"chapter.ipynb: .* depends on 'ibmd_lite.nowhere', which is neither"):
        words(project)


@pytest.mark.parametrize(
    "code",
    [
        "%%bash\nls -{}",
        "files = !ls -{}",
        "for name in 'ab':\n    found = !ls -{}\n    !rm -{}",
        "!ls -{}",
        "%matplotlib {}",
        "that is {} no Python",
    ],
)
def test_what_is_no_python_counts_too(project: Path, code: str) -> None:
    write(project, code.replace("{}", "a"))
    before = words(project)
    write(project, code.replace("{}", "l"))
    assert words(project)[0] != before[0]


def test_imports_beside_a_shell_command_are_followed(project: Path) -> None:
    write(project, "from ibmd_lite.near import near\nfiles = !ls")
    before = words(project)
    (project / "ibmd_lite" / "far.py").write_text("far = 2\n")
    assert words(project)[1] != before[1]
