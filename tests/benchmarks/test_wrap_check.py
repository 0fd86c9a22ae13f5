"""The benchmark of the wrapper: every mistake is counted once, on both kinds of images."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ibmd_lite.bridges import VP, Brownian
from ibmd_lite.model import BridgeModel

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_every_case_is_counted(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "wrap_check.py"), "--families", "flow", "--images", "--seeds", "1"]
    command += ["--updates", "3", "--weak", "2", "--results", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads((tmp_path / "wrap_check.json").read_text())
    outcomes = ("right", "silent", "doubted", "other")
    counts = {(row["mistake"], row["on"], row["teacher"]): sum(row[name] for name in outcomes) for row in found["rows"]}
    for teacher in ("good", "weak"):
        assert counts["what it is", "pairs", teacher] == counts["order of the pairs", "pairs", teacher] == 1
        assert counts["prediction", "pairs", teacher] == 4  # of six, less its own kind and what needs a prior
    assert counts["prediction", "own samples", "good"] == 4
    assert found["about"]["settings"]["teachers"] == ["flow, plane, seed 0"]
    assert len(found["about"]["slack"]["weak"]) == len(found["about"]["averaging_gains"]) == 1


def test_images_are_wrapped_on_another_bridge_and_in_another_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from wrap_check import wrong_ways

    x0, xT = torch.randn(2, 2, 3, 8, 8)
    cases = {case.name: case for case in wrong_ways(BridgeModel(nn.Identity(), Brownian(0.5)), x0, xT)}
    assert cases["another bridge"].model.bridge == VP()
    assert torch.equal(cases["range of the images"].x0, (x0 + 1) / 2)
    points = wrong_ways(BridgeModel(nn.Identity(), Brownian(0.5)), x0[:, 0, 0], xT[:, 0, 0])
    assert not {"another bridge", "range of the images"} & {case.name for case in points}
