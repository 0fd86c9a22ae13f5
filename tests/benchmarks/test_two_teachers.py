"""Two teachers of one task on images: each of its own classes, and what is distilled of them together."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ibmd_lite.data import Images
from ibmd_lite.experiments import families
from ibmd_lite.experiments.families import FAMILIES, Budget, FamilyRun

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TINY = Budget(teacher_updates=2, student_updates=1, batch=2, measured=640, refits=4, every=1, precision="float32")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("two_teachers")
    finally:
        sys.path.remove(str(BENCHMARKS))


def images(n: int) -> Images:
    draws = torch.Generator().manual_seed(n)
    pixels = torch.randint(0, 256, (n, 3, 16, 16), generator=draws, dtype=torch.uint8)
    names = tuple(f"{k}.png" for k in range(n))
    return Images(pixels, torch.arange(n) % 3, ("ant", "bee", "cat"), names)


def test_the_halves_share_no_class_and_lose_no_image(script: ModuleType) -> None:
    whole, first, second = script.halves(images(12)).values()
    assert len(whole) == 12
    assert set(first.labels.tolist()) == {0}
    assert set(second.labels.tolist()) == {1, 2}
    assert sorted(first.names + second.names) == sorted(whole.names)


def test_every_student_is_of_its_own_teachers(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(families.FAMILIES, "I2SB", replace(FAMILIES["I2SB"], intervals=2))
    runs = {
        name: FamilyRun("I2SB", some, images(640), TINY, tmp_path / name)
        for name, some in script.halves(images(12)).items()
    }
    teachers = {name: run.teacher() for name, run in runs.items()}
    run = runs["all classes"]
    rows = script.measured(run, teachers, script.students(run, teachers))
    assert [row["NFE"] for row in rows] == [2, 2, 2, 1, 1, 1, 1, 1]
    assert rows[-1]["method"] == "student of the barycentre"
    assert rows[0]["to the walk"] < min(row["to the walk"] for row in rows[1:]), "its own walk is the nearest"
    assert len({round(row["to clean"], 6) for row in rows}) == len(rows), "no two methods answer alike"
