"""The command that trains a task, alone and in several processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ibmd_lite import train
from ibmd_lite.data import JPEG, Photographs
from ibmd_lite.distillation import Student
from ibmd_lite.experiments.restoration import VARIABLE
from ibmd_lite.experiments.tasks import SIZES
from ibmd_lite.networks import UNet

SMALL = ["jpeg-5", "--size", "quick", "--teacher-updates", "4", "--student-updates", "2"]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command sets where nothing is set would stay for the tests after this one."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "runs"))


@pytest.mark.parametrize("kept", ["whole", "in shares"])
def test_what_two_processes_began_one_ends(tmp_path: Path, kept: str) -> None:
    words = [*SMALL, "--folder", str(tmp_path)]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    shard = ["--shard"] if kept == "in shares" else []
    done = subprocess.run([*command, "-m", "ibmd_lite.train", *words, *shard], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    told = [line for line in done.stdout.splitlines() if line.startswith(("teacher 4/4", "networks: ", "processes: "))]
    assert len(told) == 3, "one of them speaks"
    assert told[0] == "processes: 2"
    models = {path.name: path.read_bytes() for path in (tmp_path / "models").iterdir()}
    assert {*models} == {"teacher.safetensors", "student-1.safetensors"}

    for path in [*tmp_path.glob("models/*"), *tmp_path.glob("student-1.*")]:
        path.unlink()
    train.main(words)
    assert (tmp_path / "models" / "teacher.safetensors").read_bytes() == models["teacher.safetensors"]
    assert [point["update"] for point in json.loads((tmp_path / "teacher.json").read_text())] == [2, 4]
    size = SIZES["quick"]
    network = UNet(width=size.width, multipliers=size.multipliers, blocks=size.blocks, patch=2)
    student = Student.load(tmp_path / "models" / "student-1.safetensors", network)
    xT = JPEG(5)(Photographs(32, "test").draw(2)[0])
    assert student(xT).shape == xT.shape


def test_what_cannot_be_is_said_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"error: .*nowhere"):
        train.main([*SMALL, "--data", str(tmp_path / "nowhere"), "--folder", str(tmp_path / "run")])
    with monkeypatch.context() as three:
        three.setattr("ibmd_lite.training.processes.process", lambda: (0, 3))
        with pytest.raises(SystemExit, match="error: 3 processes cannot share a batch of 16"):
            train.main([*SMALL, "--folder", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()
    with pytest.raises(SystemExit):
        train.main(["denoising"])
    assert "invalid choice: 'denoising'" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["0", "-3", "many", "1.5"])
@pytest.mark.parametrize("option", ["--teacher-updates", "--student-updates", "--threads"])
def test_numbers_that_train_nothing_are_refused(option: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["jpeg-5", option, word])
    said = capsys.readouterr().err
    assert said.startswith("usage: python -m ibmd_lite.train ")
    assert f"argument {option}: expected a whole number of at least 1, got '{word}'" in said
