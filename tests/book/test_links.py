"""The address of the project stands once, and everything made from it agrees."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
import yaml
from links import ROOT, fill, is_reserved, keeps_trainings, notebooks, quick_instead, setup_cell
from nbformat.v4 import new_code_cell, new_notebook

REPOSITORY = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))["repository"]


@pytest.mark.parametrize("path", notebooks(ROOT), ids=lambda path: path.stem)
def test_the_colab_cells_agree_with_the_address(path: Path) -> None:
    assert fill(path, REPOSITORY["url"], REPOSITORY["branch"], write=False), "run `make links`"


@pytest.mark.parametrize(
    ("url", "reserved"),
    [
        ("https://example.org/ibmd-lite", True),
        ("https://code.example.com/a/b", True),
        ("https://host.invalid/a", True),
        ("", True),
        ("https://github.com/someone/example.org", False),
        ("https://notexample.org/a", False),
    ],
)
def test_reserved_addresses_are_told_from_real_ones(url: str, reserved: bool) -> None:
    assert is_reserved(url) is reserved


def test_the_colab_cell_installs_ranges_and_no_torch() -> None:
    cell = setup_cell("https://github.com/owner/name", "main", {"size": "quick"})
    compile(cell.replace("%pip", "pass  # %pip"), "cell", "exec")
    assert "git+https://github.com/owner/name@main" in cell
    assert "==" not in cell
    assert "torch" not in cell
    assert "prepare(quick={'size': 'quick'})" in cell
    assert "keep_trainings" not in cell


def calls(path: Path) -> set[str]:
    """Names of what a notebook's code calls."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    trees = [ast.parse(source) for source in cells if not source.startswith(("%", "!")) and "\n%" not in source]
    calls = (node.func for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {ast.unparse(call).rpartition(".")[2] for call in calls}


def test_trainings_are_kept_by_the_chapters_whose_code_keeps_them() -> None:
    """Only `Experiment` and `AllTasks` look for the folder that `IBMD_RUNS` names."""
    paths = notebooks(ROOT)
    keeping = {path.stem for path in paths if keeps_trainings(nbformat.read(path, as_version=4))}
    assert keeping == {path.stem for path in paths if calls(path) & {"Experiment", "AllTasks"}}
    assert 0 < len(keeping) < len(paths) / 2
    cell = setup_cell("https://github.com/owner/name", "main", keeps=True)
    assert "import keep_trainings, prepare" in cell
    assert cell.index("keep_trainings()") < cell.index("prepare()")


def test_chapters_that_want_a_gpu_bring_their_quick_size() -> None:
    brought = {path.stem: quick_instead(path) for path in notebooks(ROOT)}
    assert brought["one-step"] == {"size": "quick", "threads": 1, "short_updates": 2, "short_batch": 8}
    assert brought["ibmd-in-forty-lines"] is None, "the plane is for any processor"


def test_the_colab_cell_does_nothing_elsewhere() -> None:
    assert "google.colab" not in sys.modules
    exec(setup_cell("https://example.org/x", "main"), {})


def test_the_colab_cell_says_what_to_do_while_the_address_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
    with pytest.raises(RuntimeError, match=r"repository\.url"):
        exec(setup_cell("https://example.org/x", "main"), {})


def test_one_command_fills_a_new_address(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "_config.yml").write_text("repository: {url: 'https://github.com/owner/name', branch: main}", "utf8")
    cell = new_code_cell("", metadata={"tags": ["colab-setup"]})
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "book" / "chapter.ipynb")
    command = [sys.executable, str(ROOT / "book/_ext/links.py"), "--root", str(tmp_path)]

    before = subprocess.run([*command, "--check"], capture_output=True, text=True)
    assert before.returncode == 1
    assert "make links" in before.stderr
    subprocess.run(command, check=True, capture_output=True)
    subprocess.run([*command, "--check"], check=True)
    assert "git+https://github.com/owner/name@main" in (tmp_path / "book" / "chapter.ipynb").read_text("utf8")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("url", "shown"), [("https://example.org/x", False), ("https://github.com/owner/name", True)])
def test_buttons_only_for_a_real_address(url: str, shown: bool) -> None:
    from pages import drop_dead_buttons

    options: dict[str, Any] = {
        "repository_url": url,
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
        "use_repository_button": True,
    }
    drop_dead_buttons(None, SimpleNamespace(html_theme_options=options))  # type: ignore[arg-type]
    assert ("launch_buttons" in options) is shown
    assert options["use_repository_button"] is shown
