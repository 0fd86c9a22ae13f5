"""Files that say the same thing say it alike: versions, ranges, labels, pages, commands."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import tomllib
from itertools import takewhile
from pathlib import Path

import pytest
import yaml
from links import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ibmd_lite.experiments import stored

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
ON_REQUEST = {"inception"}  # extras that no command of this project installs
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}


def declared() -> dict[str, Requirement]:
    extras = [texts for name, texts in PROJECT["optional-dependencies"].items() if name not in ON_REQUEST]
    every = [Requirement(text) for texts in [PROJECT["dependencies"], *extras] for text in texts]
    return {canonicalize_name(each.name): each for each in every if canonicalize_name(each.name) != "ibmd-lite"}


def test_pyproject_gives_ranges_not_pins() -> None:
    assert [str(each) for each in declared().values() if "==" in str(each.specifier)] == []


def test_constraints_pin_everything_within_the_ranges() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf8").splitlines()
    pins = {canonicalize_name(name): version for name, version in (x.split("==") for x in lines if "==" in x)}
    wrong = [name for name, each in declared().items() if not each.specifier.contains(pins.get(name, "0"))]
    assert wrong == []
    assert "+" not in pins["torch"], "a local version (such as +cpu) cannot be installed elsewhere"


def test_conda_and_pip_ask_for_the_same() -> None:
    entries = yaml.safe_load((ROOT / "environment.yml").read_text("utf8"))["dependencies"]
    (by_pip,) = (entry["pip"] for entry in entries if isinstance(entry, dict))
    texts = [*(entry for entry in entries if isinstance(entry, str)), *by_pip]
    asked = [Requirement(text) for text in texts if not text.startswith("--editable")]
    conda = {canonicalize_name(CONDA_NAMES.get(each.name, each.name)): str(each.specifier) for each in asked}
    python = Requirement(f"python{PROJECT['requires-python']}")
    assert str(python.specifier) == conda.pop("python")
    for extra in ("pip", "setuptools", "nodejs"):
        conda.pop(extra)
    assert conda == {name: str(each.specifier) for name, each in declared().items()}


def test_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))
    assert citation["version"] == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text("utf8")


def test_equations_cited_in_docstrings_exist() -> None:
    pages = [*ROOT.glob("book/**/*.md"), *ROOT.glob("book/**/*.ipynb")]
    known = {label for page in pages for label in re.findall(r"\$\$ \((eq:[a-z0-9-]+)\)", page.read_text("utf8"))}
    missing = set()
    for path in ROOT.glob("ibmd_lite/**/*.py"):
        nodes = ast.walk(ast.parse(path.read_text("utf8")))
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        text = "\n".join(ast.get_docstring(node) or "" for node in nodes if isinstance(node, kinds))
        missing |= {f"{path.name}: {label}" for label in re.findall(r"eq:[a-z0-9-]+", text) if label not in known}
    assert missing == set()


def test_every_page_of_the_contents_exists() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    names = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    assert [name for name in names if not any((ROOT / f"{name}{end}").exists() for end in (".md", ".ipynb"))] == []


def test_the_address_stands_in_one_place() -> None:
    url = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))["repository"]["url"]
    texts = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CITATION.cff", ROOT / "pyproject.toml"]
    assert [path.name for path in texts if url in path.read_text("utf8")] == []


@pytest.fixture
def empty_checkout(tmp_path: Path) -> Path:
    """A checkout in which nothing was installed yet."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "book/_ext").mkdir(parents=True)
    shutil.copy(ROOT / "book/_ext/assets.py", tmp_path / "book/_ext")
    return tmp_path


def make(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["make", "--no-print-directory", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode != 0
    return done.stdout + done.stderr


def script(path: Path, text: str) -> Path:
    path.write_text("#!/bin/sh\n" + text, "utf8")
    path.chmod(0o755)
    return path


def test_make_refuses_an_old_python(empty_checkout: Path) -> None:
    old = script(empty_checkout / "old", 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac\n')
    said = make(empty_checkout, "env", f"PYTHON={old}")
    assert "Python 3.9.2; this project needs Python 3.11, 3.12 or 3.13" in said
    assert not (empty_checkout / ".venv").exists()


def test_make_says_how_to_get_venv(empty_checkout: Path) -> None:
    bare = script(empty_checkout / "bare", 'case "$2" in *ensurepip*) exit 1;; *) exit 0;; esac\n')
    assert "apt install python3-venv" in make(empty_checkout, "env", f"PYTHON={bare}")
    assert not (empty_checkout / ".venv").exists()


def test_make_says_when_there_is_no_python(empty_checkout: Path) -> None:
    assert "There is no 'python-that-is-not'" in make(empty_checkout, "env", "PYTHON=python-that-is-not")


def test_make_help_names_both_commands(empty_checkout: Path) -> None:
    said = subprocess.run(["make", "help"], cwd=empty_checkout, capture_output=True, text=True, check=True).stdout
    for word in ("book", "test", "PYTHON=", "INDEX=", "SIZE="):
        assert word in said


def test_the_readme_shows_the_stored_distances_of_the_image_tasks() -> None:
    lines = iter((ROOT / "README.md").read_text("utf8").splitlines())
    title = next(line for line in lines if line.startswith("| `python benchmarks/images.py TASK`"))
    tasks = ["sr4x-bicubic", "sr4x-pool", "jpeg-5", "jpeg-10", "inpainting", "sketch"]
    assert len(title.split("|")) == len(tasks) + 4
    next(lines)
    found = {task: {row["method"]: row["FD"] for row in stored(f"images/{task}")} for task in tasks}
    names = {"corrupted image": "no-op", "regression of equal budget": "regression", "DBIM, the same teacher": "DBIM"}
    shown = 0
    for line in takewhile(lambda line: line.startswith("|"), lines):
        what, calls, *distances = (cell.strip() for cell in line.strip("|").split("|"))
        name = names.get(what, what)
        method = name if name in ("no-op", "regression") else f"{name}, {calls} NFE"
        expected = [f"{found[task][method]:.1f}" if method in found[task] else "" for task in tasks]
        assert distances == expected, method
        shown += 1
    assert shown == 9
