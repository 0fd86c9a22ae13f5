"""One student of several tasks: a common start that has learned every teacher, and a student that is told the task."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ibmd_lite.bridges import I2SB, Brownian
from ibmd_lite.experiments import all_tasks
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


def test_the_benchmark_keeps_one_student_beside_the_single_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    from images import run_all

    size = replace(TINY, nfe=(1,))
    experiments = [Experiment(name, size, folder=tmp_path / name, device="cpu") for name in NAMES[:2]]
    found = json.loads(run_all(experiments, tmp_path / "all", tmp_path, samples=4).read_text())
    rows = {(row["task"], row["method"]): row for row in found["rows"]}
    assert set(rows) >= {(task, method) for task in NAMES[:2] for method in ("student, 1 NFE", "all tasks")}
    for compared in found["about"]["compared"]:
        own, shared = (rows[compared["task"], method]["FD"] for method in ("student, 1 NFE", "all tasks"))
        assert compared["FD ratio"]["value"] == pytest.approx(shared / own)
    assert found["about"]["curves"]["student"][-1]["update"] == 2
    assert (tmp_path / "all" / "student.safetensors").is_file()
    assert len(list((tmp_path / "all" / "looks").glob("student-*-jpeg-5.png"))) == size.student_looks


class Says(nn.Module):
    """A network that always answers one value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, xt: Tensor, time: Tensor) -> Tensor:
        return self.value.expand_as(xt)


def test_a_joint_training_learns_every_teacher() -> None:
    """Two teachers whose answers are opposite, one on a table of times: a network told the task can be both."""
    torch.manual_seed(0)
    bridges = Brownian(0.5), I2SB(n=20)
    teachers = {task: BridgeModel(Says(value), bridges[task]) for task, value in enumerate((-1.0, 1.0))}
    model = BridgeModel(UNet(width=8, multipliers=(1,), patch=2, tasks=2), bridges[0])
    training = JointTraining(model, teachers, Settings(1e-2), device="cpu")
    xT = torch.randn(8, 3, 8, 8)

    def pairs():
        while True:
            for task in teachers:
                yield torch.zeros_like(xT), Source(xT, task=task)

    list(training.updates(pairs(), 100))
    answers = [training.model(xT, torch.ones(8), task=torch.full((8,), task)).mean().item() for task in teachers]
    assert answers[0] < -0.5 < 0.5 < answers[1], "the teachers' answers, not the samples"
    assert all(not teacher.network.value.requires_grad for teacher in teachers.values())


def test_the_common_start_begins_as_the_teacher_that_sees_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiments = [Experiment(name, TINY, folder=tmp_path / name, device="cpu") for name in NAMES]
    everything = AllTasks(experiments, tmp_path / "all", samples=4)
    begun: dict[str, Tensor] = {}

    class Seen(JointTraining):
        def __init__(self, model: BridgeModel, *given: object, **more: object) -> None:
            begun.update({name: value.clone() for name, value in model.network.state_dict().items()})
            super().__init__(model, *given, **more)  # type: ignore[arg-type]
            decays.append(self.learner.settings.decay)

    decays: list[int | None] = []
    monkeypatch.setattr(all_tasks, "JointTraining", Seen)
    points = everything.start()[1]
    own = everything.teachers[NAMES.index("sketch")].network.state_dict()
    assert all(torch.equal(begun[name], value) for name, value in own.items())
    assert decays == [points[-1]["update"]] == [3], "half of what three teachers of two updates have"


def test_experiments_of_two_sizes_are_refused(tmp_path: Path) -> None:
    other = replace(TINY, width=16)
    experiments = [Experiment("jpeg-5", size, device="cpu") for size in (TINY, other)]
    with pytest.raises(ValueError, match="differ in size"):
        AllTasks(experiments, tmp_path)
