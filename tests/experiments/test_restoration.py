"""Image tasks as experiments: every task on its feet, its images apart, its table and its folder."""

from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

from ibmd_lite.data.decoding import as_bytes
from ibmd_lite.distillation import Student
from ibmd_lite.evaluation import frechet_distance
from ibmd_lite.experiments.restoration import Experiment, best_walk, fall
from ibmd_lite.experiments.tasks import SIZES, TASKS, images_of
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.networks import UNet
from ibmd_lite.sampling import sample

TINY = replace(SIZES["quick"], width=8, multipliers=(1,), teacher_updates=4, student_updates=2, every=1, draws=4)


def test_every_task_has_a_teacher_and_a_student() -> None:
    x0 = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name, task in TASKS.items():
        source = Source.of(task.corruption(x0, torch.Generator().manual_seed(0)))
        network = UNet(width=8, multipliers=(1,), patch=2, conditional=task.conditional)
        teacher = BridgeModel(network, task.bridge, conditional=task.conditional, prediction=task.prediction)
        assert sample(teacher, source, task.bridge.grid(2)).x0.isfinite().all(), name
        for steps in task.steps:
            student = Student.of(teacher, steps=steps, noise_channels=task.noise_channels)
            assert student(source).shape == x0.shape, name


def test_images_of_training_and_test_share_no_image_and_come_mixed() -> None:
    train, test = (images_of("photographs", split, 32) for split in ("train", "test"))
    assert not {pixels.numpy().tobytes() for pixels in train.pixels} & {p.numpy().tobytes() for p in test.pixels}
    assert len(test.labels[:16].unique()) >= 5
    again = images_of("photographs", "test", 32)
    assert torch.equal(again.pixels, test.pixels)
    assert again.names == test.names
    assert all(test.classes[label] in name for label, name in zip(test.labels, test.names, strict=True))


def test_a_second_experiment_finds_what_the_first_one_made(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows, texts = [], []
    for _ in range(2):
        experiment = Experiment("sketch", TINY, folder=tmp_path, device="cpu")
        teacher, curve = experiment.teacher()
        regression, _ = experiment.regression()
        students = {steps: experiment.student(teacher, steps)[0] for steps in (1, 2)}
        rows.append(experiment.table(experiment.methods(teacher, regression, students)))
        texts.append(capsys.readouterr().out)
    assert [row.NFE for row in rows[0].values()] == [0, 1, 1, 5, 1, 5, 1, 2]
    assert [replace(row, seconds=0.0) for row in rows[0].values()] == [
        replace(row, seconds=0.0) for row in rows[1].values()
    ]
    assert [point["update"] for point in curve] == [4, 8], "a sketch takes twice the updates of the size"
    assert "student-2" in texts[0]
    assert texts[1] == "", "nothing is trained again"
    assert best_walk(rows[0]).FD.distance == min(
        rows[0][name].FD.distance for name in rows[0] if name.startswith(("teacher", "DBIM"))
    )
    assert experiment.floor().distance < rows[0]["no-op"].FD.distance
    with pytest.raises(ValueError, match="holds another run"):
        Experiment("sketch", TINY, folder=tmp_path, device="cpu", seed=1)


def test_the_folder_is_the_named_one_or_goes_with_the_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IBMD_RUNS", str(tmp_path))
    assert Experiment("jpeg-5", TINY, device="cpu").folder == tmp_path / "photographs-32" / "jpeg-5"
    monkeypatch.delenv("IBMD_RUNS")
    experiment = Experiment("jpeg-5", TINY, device="cpu")
    folder = experiment.folder
    assert folder.is_dir()
    del experiment
    assert not folder.exists()


def test_every_look_leaves_a_picture(tmp_path: Path) -> None:
    experiment = Experiment("jpeg-5", TINY, folder=tmp_path, device="cpu")
    teacher, points = experiment.teacher()
    assert [path.name for path in sorted((tmp_path / "looks").iterdir())] == [
        f"teacher-{point['update']:06d}.png" for point in points
    ]
    with Image.open(tmp_path / "looks" / "teacher-000004.png") as opened:
        seen = torch.from_numpy(numpy.asarray(opened).copy()).permute(2, 0, 1)
    rows = seen.unfold(1, 32, 32).unfold(2, 32, 32)  # channels, three rows, ten images
    answers = experiment.restored(experiment.walk(teacher, TINY.look_nfe), experiment.held_out)
    for row, images in enumerate((experiment.held_out.xT, answers)):
        assert torch.equal(rows[:, row].transpose(0, 1), as_bytes(images[: rows.shape[2]]))
    clean = rows[:, 2].transpose(0, 1)
    assert (clean.float() - rows[:, 0].transpose(0, 1).float()).abs().mean() > 1, "the last row is not the first"
    assert frechet_distance(experiment.classifier.features(answers), experiment.learned) == pytest.approx(
        points[-1]["FD"], rel=1e-6
    )


def test_a_torch_that_tells_nothing_of_its_processor_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert Experiment("jpeg-5", TINY, device="cpu").precision == "float32"


def test_a_student_is_trained_at_the_pace_of_its_task() -> None:
    hurried, patient = (
        experiment.student_settings(None, 10, experiment.task.pace)
        for experiment in (Experiment(name, TINY, device="cpu") for name in ("jpeg-5", "sr4x-pool"))
    )
    assert (hurried.fake_updates, patient.fake_updates) == (1, 5)
    for part in ("generator", "fake"):
        staying, falling = getattr(hurried, part), getattr(patient, part)
        assert staying.rate(11) == staying.rate(1) == falling.rate(1)
        assert falling.rate(11) == 0


def test_students_are_distilled_from_another_fill_of_the_hole() -> None:
    experiment = Experiment("inpainting", TINY, device="cpu")
    student = Student.of(experiment.model(), steps=2, noise_channels=0)
    starts: list[Tensor] = []
    student.model.register_forward_pre_hook(lambda _m, given: starts.append(given[0]))
    _, source = experiment.shown(4)
    experiment.student_settings(None, 1).rollout(student, source, torch.Generator().manual_seed(0))
    hole = source.mask.expand_as(source.xT) == 1
    assert torch.equal(starts[0][~hole], source.xT[~hole])
    assert (starts[0][hole] != source.xT[hole]).all()


def test_unknown_task_and_other_size_are_refused() -> None:
    with pytest.raises(ValueError, match="'blur'; expected one of sr4x-bicubic"):
        Experiment("blur", TINY)


def test_last_fifth_is_read_off_the_curve() -> None:
    curve = [{"update": 20 * k, "FD": 10.0 - k} for k in range(1, 6)]
    assert fall(curve) == pytest.approx(1 / 6)
