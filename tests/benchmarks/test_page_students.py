"""The students of the page: what they learn from, and that what is judged is what is exported."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ibmd_lite.data import JPEG, Photographs
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import UNet

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("page_students")
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_every_image_has_a_quality_of_its_own(script: ModuleType) -> None:
    x0 = Photographs(64, "test").crops(1, torch.Generator().manual_seed(0)).expand(12, -1, -1, -1)
    files = script.AnyJPEG(5, 9)(x0, torch.Generator().manual_seed(0))
    known = {quality: JPEG(quality)(x0[:1])[0] for quality in range(5, 10)}
    found = [next(quality for quality, file in known.items() if torch.equal(file, one)) for one in files]
    assert len(set(found)) > 2
    assert torch.equal(files, script.AnyJPEG(5, 9)(x0, torch.Generator().manual_seed(0)))


def test_stored_weights_are_float16s(script: ModuleType) -> None:
    task = script.TASKS["sketch"]
    torch.manual_seed(0)
    model = BridgeModel(UNet(width=8, multipliers=(1,)), task.bridge, prediction=task.prediction)
    rounded = script.stored(model)
    for before, after in zip(model.parameters(), rounded.parameters(), strict=True):
        assert torch.equal(after, before.half().float())
        assert after.dtype == torch.float32
    assert not all(map(torch.equal, model.parameters(), rounded.parameters())), "the model itself stays as it was"


def test_the_walks_end_without_noise(script: ModuleType) -> None:
    task = script.TASKS["jpeg"]
    model = BridgeModel(UNet(width=8, multipliers=(1,)), task.bridge, prediction=task.prediction)
    (steps,) = script.walks({"jpeg": (model, None)}).values()
    assert len(steps) == script.CALLS
    assert steps[0][0] == task.bridge.T
    assert steps[-1][1:] == [0.0, 1.0, 0.0]
    assert all(std > 0 for *_, std in steps[:-1])
