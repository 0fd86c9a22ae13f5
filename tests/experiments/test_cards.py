"""Networks with their card: what is written loads again and answers alike."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ibmd_lite.distillation import Student
from ibmd_lite.experiments import cards
from ibmd_lite.experiments.cards import described, publish
from ibmd_lite.experiments.restoration import Experiment
from ibmd_lite.experiments.tasks import SIZES
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import UNet

TINY = replace(SIZES["quick"], width=8, multipliers=(1,), nfe=(1,), teacher_updates=2, student_updates=1, draws=2)


def test_the_load_line_of_a_card_gives_the_networks_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = Experiment("sketch", TINY, folder=tmp_path, device="cpu")
    teacher, regression = experiment.teacher()[0], experiment.regression()[0]
    students = {2: experiment.student(teacher, 2)[0]}
    rows = experiment.table(experiment.methods(teacher, regression, students))
    card = publish(tmp_path / "models", experiment, teacher, students, rows).read_text("utf8")

    line = next(part for part in card.split("`") if part.startswith("network = "))
    calls = [part for part in card.split("`") if ".load(" in part]
    monkeypatch.chdir(tmp_path / "models")
    names = {"UNet": UNet, "BridgeModel": BridgeModel, "Student": Student}
    found = []
    for call in calls:
        exec(line, names)
        found.append(eval(call, names))
    for kept, again in zip((teacher, students[2]), found, strict=True):
        assert kept.state_dict().keys() == again.state_dict().keys()
        assert all(torch.equal(again.state_dict()[name], value) for name, value in kept.state_dict().items())
    assert not any(again.training for again in found)
    assert found[0].form == teacher.form
    assert found[1].nfe == 2
    for method in ("no-op", "regression", "student, 2 NFE"):
        assert f"| {method} | {rows[method].NFE} | {rows[method].FD.distance:.1f} (" in card


def test_a_description_tells_one_set_of_images_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = Experiment("jpeg-5", TINY, device="cpu")
    told = described(experiment)
    assert told["training images"] == 2000 - TINY.held_out
    assert told["list"] is None
    listed = dict.fromkeys(experiment.names, ("", ""))
    monkeypatch.setattr(cards, "listed_digests", lambda split: listed)
    assert described(experiment)["list"] == "cifar10.txt", "all the images of the list, and no others"
    experiment.names = experiment.names[1:]
    other = described(experiment)
    assert other["list"] is None
    assert other["digest of the names"] != told["digest of the names"]
