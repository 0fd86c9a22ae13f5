"""Wheel and sdist, built for real from the files that git tracks: nothing is missing and nothing else is in them."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from links import ROOT

BUILD = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"


def tracked(*under: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", *under], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.splitlines())


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both, made from a copy without the notebooks, which no distribution has."""
    folder = tmp_path_factory.mktemp("project")
    for name in tracked():
        if not name.endswith(".ipynb") and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", BUILD], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "dist"


def test_the_wheel_holds_the_package_and_nothing_else(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    assert names == tracked("ibmd_lite")
    assert "ibmd_lite/py.typed" in names
    assert "License-Expression: MIT" in metadata
    assert "Typing :: Typed" in metadata


def test_the_sdist_holds_the_tests_and_what_they_need(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    wanted = tracked("ibmd_lite", "tests", "benchmarks", "book/_ext", "book/_sweeps", "book/_parameters")
    assert {name for name in wanted if not name.startswith("tests/book/")} - names == set()
    assert {"LICENSE", "README.md", "CHANGELOG.md", "Makefile", "constraints.txt", "pyproject.toml"} <= names
    assert {name for name in names if name.endswith(".ipynb") or name.startswith("tests/book/")} == set()
    assert sdist.stat().st_size < 10e6


@pytest.mark.parametrize(("tag", "code"), [("", 0), ("v{}", 0), ("v9.9.9", 1), ("{}", 1)])
def test_a_tag_that_is_not_the_version_is_refused(tag: str, code: int) -> None:
    version = next(
        line for line in (ROOT / "pyproject.toml").read_text("utf8").splitlines() if line.startswith("version")
    )
    words = [sys.executable, ROOT / ".ci" / "version.py", tag.format(version.split('"')[1])]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == code
    assert ("pyproject.toml says" in done.stderr) == bool(code)
