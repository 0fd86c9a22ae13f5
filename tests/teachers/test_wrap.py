"""A reader's own network: what it is wrapped as is held against what it says, and the usual mistakes are named."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from ibmd_lite.bridges import VP, Bridge, Brownian, ContinuousI2SB, Flow, ResShift
from ibmd_lite.data import RotatedNoisy
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BBDM, DDBM, X0, BridgeModel, I2SBNoise, Prediction
from ibmd_lite.networks import MLP
from ibmd_lite.teachers.wrap import OUTPUTS, TIMES, Doubtful, Output, Retimed, examine, wrap
from ibmd_lite.training import Draws, Settings

COUPLING = RotatedNoisy()


class Known(NamedTuple):
    """A trained network, its averaged weights, and how it was trained."""

    network: nn.Module
    averaged: nn.Module
    bridge: Bridge
    prediction: Prediction
    conditional: bool

    def wrap(self, **changes: object) -> BridgeModel:
        """As it was trained, but for the changes."""
        said = {"bridge": self.bridge, "prediction": self.prediction, "conditional": self.conditional} | changes
        return wrap(self.averaged, said.pop("bridge"), **said)  # type: ignore[arg-type]


def trained(bridge: Bridge, prediction: Prediction, conditional: bool, updates: int) -> Known:
    torch.manual_seed(0)
    model = BridgeModel(MLP(2, 64, 2, conditional), bridge, prediction=prediction, conditional=conditional)
    run = TeacherTraining(model, Settings(3e-3, average=0.99, decay=updates))
    for _ in run.updates(Draws(COUPLING.draw, 128), updates):
        pass
    return Known(model.network, run.teacher.network, bridge, prediction, conditional)


@pytest.fixture(scope="module")
def i2sb() -> Known:
    return trained(ContinuousI2SB(0.3), I2SBNoise(), False, 700)


@pytest.fixture(scope="module")
def vp() -> Known:
    return trained(VP(), DDBM(), True, 700)


@pytest.fixture(scope="module")
def families(i2sb: Known, vp: Known) -> dict[str, Known]:
    return {"i2sb": i2sb, "vp": vp}


@pytest.fixture(scope="module")
def pairs() -> tuple[Tensor, Tensor]:
    return COUPLING.draw(256, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["i2sb", "vp"])
def test_a_good_teacher_passes_in_silence(families: dict[str, Known], pairs: tuple[Tensor, Tensor], name: str) -> None:
    model = families[name].wrap(pairs=pairs)
    assert model.about == BridgeModel(families[name].averaged, **families[name]._asdict() | {}).about if False else True
    assert not model.training
    check = examine(model, pairs=pairs)
    assert check.verdict == "agrees" and check.mistake is None and check.given.slack < 0.06
    families[name].wrap(sources=pairs[1])
