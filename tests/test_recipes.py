"""The plane's recipes are the package's classes with their arguments filled in."""

from __future__ import annotations

import pytest
import torch

from ibmd_lite.bridges import I2SB, VE, Brownian
from ibmd_lite.data.plane import RotatedNoisy
from ibmd_lite.distillation import Student
from ibmd_lite.recipes import distil, early_times, near_zero, plane_settings, train_teacher


def test_early_times_are_early_and_inside() -> None:
    generator = torch.Generator().manual_seed(0)
    t = early_times(VE(T=80))(10_000, generator)
    assert t.min() >= 80e-4 * (1 - 1e-6)
    assert t.max() <= 80
    assert t.median() == pytest.approx(80 * (0.01 + 0.99 / 2) ** 2, rel=0.05)
    table = early_times(I2SB())(100, generator)
    assert torch.equal(table, table.round())


def test_the_weight_has_the_shape_of_the_kl_weight_away_from_zero() -> None:
    t = torch.tensor([0.5, 1.0])
    assert near_zero(t) == pytest.approx(2 * Brownian().kl_weight(t), rel=0.02)
    assert near_zero(torch.zeros(1)).isfinite().all()


@pytest.mark.parametrize("conditional", [False, True])
def test_teacher_and_student_are_reproducible_and_watched(conditional: bool) -> None:
    coupling, seen = RotatedNoisy(), []
    teachers = [train_teacher(coupling, conditional=conditional, updates=20, batch=32, width=16) for _ in range(2)]
    assert all(map(torch.equal, *(teacher.state_dict().values() for teacher in teachers)))
    students = [
        distil(
            teacher, coupling, updates=3, batch=32, watch=lambda record, run: seen.append((record.update, run.student))
        )
        for teacher in teachers
    ]
    assert all(map(torch.equal, *(student.state_dict().values() for student in students)))
    assert [update for update, _ in seen] == [1, 2, 3] * 2
    assert all(isinstance(student, Student) for _, student in seen)
    other = distil(teachers[0], coupling, updates=3, batch=32, settings=plane_settings(3, seed=1), seed=1)
    assert not all(map(torch.equal, other.state_dict().values(), students[0].state_dict().values()))
