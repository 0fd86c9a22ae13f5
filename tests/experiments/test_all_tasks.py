"""One student of several tasks: a common start that has learned every teacher, and a student that is told the task."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ibmd_lite.experiments.all_tasks import AllTasks, JointTraining
from ibmd_lite.experiments.restoration import Experiment
from ibmd_lite.experiments.tasks import SIZES
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.networks import UNet
from ibmd_lite.training import Settings

TINY = replace(SIZES["quick"], width=8, multipliers=(1,), teacher_updates=2, student_updates=1, every=1, draws=4)
NAMES = ("jpeg-5", "inpainting", "sketch")


def test_one_student_of_teachers_of_every_kind(tmp_path: Path) -> None:
    experiments = [Experiment(name, TINY, folder=tmp_path / name, device="cpu") for name in NAMES]
    everything = AllTasks(experiments, tmp_path / "all", samples=20)
    student, points = everything.student()
    assert [set(point["FD"]) for point in points] == [set(NAMES)] * TINY.student_looks
    assert points[-1]["update"] == 3, "as many updates as the three single students"
    assert [student.model_of(task).form for task in range(3)] == [t.form for t in everything.teachers.values()]
    rows = everything.rows(student)
    assert tuple(rows) == NAMES
    assert all(row.NFE == 1 and row.FD.distance > 0 for row in rows.values())
    again, found = AllTasks(experiments, tmp_path / "all", samples=20).student()
    assert found == points
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), student.parameters(), strict=True))
    with pytest.raises(ValueError, match="holds another run"):
        AllTasks(experiments[:2], tmp_path / "all", samples=20)
    x0, source = experiments[1].shown(4)
    answer = student(replace(source, task=1), generator=torch.Generator().manual_seed(0))
    hole = source.mask.expand_as(x0) > 0
    assert torch.equal(answer[~hole], source.xT[~hole])


def test_a_joint_training_learns_every_task() -> None:
    """Two tasks whose answers are opposite: only a network that looks at the task can have both."""
    torch.manual_seed(0)
    form = Experiment("jpeg-5", TINY, device="cpu").model()
    network = UNet(width=8, multipliers=(1,), patch=2, tasks=2)
    training = JointTraining(
        BridgeModel(network, **form.form._asdict()), {0: form, 1: form}, Settings(1e-2), device="cpu"
    )
    xT = torch.randn(8, 3, 8, 8)

    def pairs():
        while True:
            for task, value in enumerate((-1.0, 1.0)):
                yield torch.full_like(xT, value), Source(xT, task=task)

    list(training.updates(pairs(), 100))
    answers = [training.model(xT, torch.ones(8), task=torch.full((8,), task)).mean().item() for task in (0, 1)]
    assert answers[0] < -0.5 < 0.5 < answers[1]


def test_experiments_of_two_sizes_are_refused(tmp_path: Path) -> None:
    other = replace(TINY, width=16)
    experiments = [Experiment("jpeg-5", size, device="cpu") for size in (TINY, other)]
    with pytest.raises(ValueError, match="differ in size"):
        AllTasks(experiments, tmp_path)
