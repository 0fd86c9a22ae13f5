"""Trainings in legs: measured in between, found again, and gone on with from wherever they were cut."""

import json
from pathlib import Path

import pytest
import torch

from ibmd_lite.bridges import Brownian
from ibmd_lite.experiments.legs import in_legs
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import MLP
from ibmd_lite.training import Draws, Settings, loop

ENDS = [0, 2, 4, 6]


def training(folder: Path, ends: list[int] = ENDS) -> tuple[list[dict], torch.Tensor]:
    """A run of six updates, measured by its first weight; the points and the weights at the end."""
    torch.manual_seed(0)
    run = TeacherTraining(BridgeModel(MLP(width=8, depth=1), Brownian()), Settings(1e-2), device="cpu")
    first = next(run.model.parameters())

    def draw(n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        x0, xT = torch.randn(2, n, 2, generator=generator)
        return x0, xT

    def measure() -> dict[str, float]:
        return {"weight": first.flatten()[0].item()}

    return in_legs(run, Draws(draw, 8), ends, folder / "run", measure, every=1), first.detach().clone()


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 4])
def test_a_run_that_is_cut_anywhere_ends_as_an_unbroken_one(tmp_path: Path, cut: int) -> None:
    """cut: the points that had been written; the checkpoint is of the last of their updates."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    points, weights = training(tmp_path / "whole")
    assert [point["update"] for point in points] == ENDS
    if cut:
        training(tmp_path / "cut", ENDS[:cut])
    again, found = training(tmp_path / "cut")
    assert torch.equal(found, weights)
    assert [{**p, "seconds an update": 0} for p in again] == [{**p, "seconds an update": 0} for p in points]


def test_a_leg_that_was_trained_and_not_measured_is_measured(tmp_path: Path) -> None:
    points, _ = training(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(points[:3]))  # killed between the last leg and its point
    again, _ = training(tmp_path)
    assert again[:3] == points[:3]
    assert again[3] == {**points[3], "seconds an update": None}


def test_a_finished_run_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points, weights = training(tmp_path)
    read: list[object] = []
    kept = loop.load_checkpoint
    monkeypatch.setattr(loop, "load_checkpoint", lambda path: [read.append(path), kept(path)][1])
    again, found = training(tmp_path)
    assert again == points
    assert torch.equal(found, weights)
    assert len(read) == 1
