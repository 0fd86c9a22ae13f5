"""What the tests of chapters share: which there are, their quick sizes, which changed since they were stored."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from links import ROOT
from lint import QUICK
from unchanged import changed

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
CHAPTERS = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]


def quick_parameters(path: Path) -> dict[str, object]:
    return yaml.safe_load((ROOT / QUICK / f"{path.stem}.yaml").read_text("utf8")) or {}


def skip_unchanged(path: Path, always: str = "quickstart") -> None:
    every = os.environ.get("IBMD_EVERY_NOTEBOOK") == "1"
    if not (every or path.stem == always or changed(path)):
        pytest.skip("a notebook whose code has not changed since its outputs were stored; `make quick` runs every one")
