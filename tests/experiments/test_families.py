"""Every family of public teachers goes the whole way in small: trained, walked, distilled, measured, found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ibmd_lite.data import Images
from ibmd_lite.experiments import families
from ibmd_lite.experiments.families import FAMILIES, Budget, EmptyHole, FamilyRun

TINY = Budget(teacher_updates=2, student_updates=1, batch=2, measured=640, refits=4, every=1, precision="float32")


def images(n: int, seed: int) -> Images:
    """Smooth pictures of two classes."""
    draws = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 2, 2, generator=draws)
    pixels = (255 * torch.nn.functional.interpolate(coarse, size=16, mode="bilinear")).to(torch.uint8)
    names = tuple(f"{k}.png" for k in range(n))
    return Images(pixels, torch.randint(2, (n,), generator=draws), ("one", "other"), names)


def run(name: str, folder: Path, budget: Budget = TINY) -> FamilyRun:
    return FamilyRun(name, images(40, 0), images(640, 1), budget, folder)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_teacher_of_every_family_has_a_student(name: str, tmp_path: Path) -> None:
    family = run(name, tmp_path)
    teacher = family.teacher()
    student = family.student(teacher, 2)
    assert student.nfe == 2
    batch = family.batches(3)[0]
    x0 = student(batch, generator=torch.Generator().manual_seed(0))
    assert x0.shape == batch.xT.shape
    assert bool(x0.isfinite().all())
    before = family.fresh(teacher, 2)(batch, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(before, x0), "a distilled student answers otherwise than a fresh one"


@pytest.mark.parametrize("name", FAMILIES)
def test_the_authors_walk_ends_at_zero(name: str) -> None:
    family = FAMILIES[name]
    grid = family.grid(family.model().bridge)
    assert grid[-1] == 0
    assert len(grid) > family.intervals


def test_rows_compare_student_and_teacher_at_the_same_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = replace(FAMILIES["I2SB"], intervals=3, steps=(1,))
    monkeypatch.setitem(families.FAMILIES, "I2SB", short)
    (row,) = run("I2SB", tmp_path).rows()
    assert (row["NFE"], row["NFE of the walk"]) == (1, 3)
    assert 0 <= row["floor"] < 2 * row["teacher"] + 1
    assert row["gap"] > 0
    assert row["gap before"] > 0
    assert row["gap of the data"] > 0
    assert len({*row["student, more draws"], row["student"]}) == 5, "every draw is another"
    (again,) = run("I2SB", tmp_path).rows()
    assert again == row, "what is finished is found again, and measured alike"
    with pytest.raises(ValueError, match="holds another run"):
        run("I2SB", tmp_path, replace(TINY, batch=3))
    (longer,) = run("I2SB", tmp_path, replace(TINY, refits=8)).rows()
    assert longer["student"] == row["student"], "the same networks"
    assert longer["gap"] != row["gap"], "measured anew"
    monkeypatch.setitem(families.FAMILIES, "I2SB", replace(short, model=FAMILIES["I2SB, ot-ode"].model))
    with pytest.raises(ValueError, match="holds another run"):
        run("I2SB", tmp_path)


def test_a_fresh_student_has_the_teachers_gap(tmp_path: Path) -> None:
    """Measured on the same draws: the gap of a student that is its teacher in one call is not small."""
    family = run("I2SB", tmp_path)
    teacher = family.teacher()
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    assert family.gap(teacher, family.fresh(teacher, 1)).gap > 1e-4


def test_the_gap_of_the_data_is_that_of_the_clean_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a student would answer, the image comes that the source was made of."""
    family = run("I2SB", tmp_path)
    given: list[tuple] = []
    monkeypatch.setattr(families, "refitted_gap", lambda *rest, **_: given.append(rest))
    family.gap_of_data(family.teacher())
    ((_, answer, stream, held_out),) = given
    assert len(held_out) == 5
    for source in (next(iter(stream)), *held_out):
        x0 = answer(source, generator=None)
        assert not torch.allclose(x0, source.xT, atol=0.05)
        assert torch.allclose(family.family.corruption(x0), source.xT, atol=1e-5)


def test_the_clean_images_are_nowhere_from_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(families.FAMILIES, "I2SB", replace(FAMILIES["I2SB"], intervals=3, steps=(1,)))
    family = run("I2SB", tmp_path)
    monkeypatch.setattr(family, "answers", lambda *_: family.features(family.clean))
    (row,) = family.rows()
    assert row["student to clean"] == pytest.approx([0] * 4, abs=1e-3)
    assert min(row["walk to clean"]) > 1
    assert row["student, more draws"] == pytest.approx(row["walk to clean"])


def test_an_empty_hole_holds_zeros_and_a_mask() -> None:
    x0 = torch.rand(4, 3, 16, 16) + 0.5
    source = EmptyHole()(x0, torch.Generator().manual_seed(0))
    hole = source.mask.expand_as(x0) == 1
    assert bool((source.xT[hole] == 0).all())
    assert torch.equal(source.xT[~hole], x0[~hole])


def test_an_unknown_family_is_answered_with_the_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no family is called 'I2BS'; expected one of I2SB, "):
        run("I2BS", tmp_path)


def test_ves_times_and_few_steps_are_where_images_are() -> None:
    """Half of the drawn times show less noise than an image of standard deviation 0.5, and a second call finds one."""
    family = FAMILIES["DDBM, VE"]
    bridge = family.model().bridge
    t = bridge.draw_times(4000, torch.Generator().manual_seed(0))
    assert abs((t < bridge.T / 100).float().mean() - 0.5) < 0.03
    assert 1e-4 * bridge.T <= t.min() < t.max() <= bridge.T
    first, middle, last = bridge.grid(2).tolist()
    assert (first, last) == (bridge.T, 0)
    assert 0.3 < middle < 1
