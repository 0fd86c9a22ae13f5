"""The benchmark of the image tasks: whole at quick size, killed and ending equal."""

import io
import json
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from ibmd_lite.evaluation.classifier import CIFAR10, load_classifier

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MACHINE = {"s an image", "seconds an update", "times quicker", "peak_memory"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip in CIFAR-10's layout: as many images as the distance asks for, each some coloured patches."""
    path, generator = tmp_path_factory.mktemp("data") / "pictures.zip", torch.Generator().manual_seed(0)
    names = load_classifier(CIFAR10.weights).names
    with zipfile.ZipFile(path, "w") as archive:
        for split, n in (("train", 1300), ("test", 640)):
            patches = torch.randint(256, (n, 4, 4, 3), generator=generator, dtype=torch.uint8)
            for k, patch in enumerate(patches):
                file = io.BytesIO()
                Image.fromarray(patch.numpy()).resize((32, 32), Image.Resampling.BICUBIC).save(file, "PNG")
                archive.writestr(f"{split}/{names[k % 10]}/{k:04d}.png", file.getvalue())
    return path


def _command(pictures: Path, folder: Path) -> list[str]:
    command = [sys.executable, str(BENCHMARKS / "images.py"), "inpainting", "--data", str(pictures), "--size", "quick"]
    return [*command, "--folder", str(folder / "work"), "--results", str(folder)]


def _kill_when(command: list[str], appears: Path) -> None:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not appears.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def _without_clocks(found: object) -> object:
    if isinstance(found, dict):
        return {key: _without_clocks(value) for key, value in found.items() if key not in MACHINE}
    return [_without_clocks(value) for value in found] if isinstance(found, list) else found


def test_a_run_killed_ends_as_an_unbroken_one(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBMD_CACHE", str(tmp_path / "cache"))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(_command(pictures, whole), check=True, capture_output=True, text=True)
    _kill_when(_command(pictures, broken), broken / "work" / "regression.pt")
    assert not (broken / "work" / "student-1.pt").exists(), "killed too late to say anything"
    subprocess.run(_command(pictures, broken), check=True, capture_output=True, text=True)
    first, second = (json.loads((folder / "inpainting.json").read_text()) for folder in (whole, broken))
    assert _without_clocks(first) == _without_clocks(second)

    rows = {row["method"]: row for row in first["rows"]}
    assert list(rows) == [
        "no-op",
        "regression",
        *(f"{name}, {nfe} NFE" for name in ("teacher", "DBIM") for nfe in (1, 5)),
        *(f"student, {steps} NFE" for steps in (1, 2, 4)),
    ]
    assert rows["teacher, 1 NFE"]["FD"] == rows["DBIM, 1 NFE"]["FD"], "one step is one step"
    assert rows["teacher, 5 NFE"]["FD"] != rows["DBIM, 5 NFE"]["FD"]
    about = first["about"]
    assert about["data"]["training images"] + about["data"]["held-out images"] == 1300
    assert about["data"]["list"] is None
    models = whole / "work" / "models"
    assert {path.name for path in models.iterdir()} == {
        "README.md",
        "teacher.safetensors",
        *(f"student-{steps}.safetensors" for steps in (1, 2, 4)),
    }
    card = (models / "README.md").read_text("utf8")
    assert f"| student, 4 NFE | 4 | {rows['student, 4 NFE']['FD']:.1f} (" in card
    assert about["data"]["digest of the names"] in card
    assert 0 < about["floor"]["FD"] < 0.2 * rows["no-op"]["FD"]
    assert about["images"] == 640
    best = min(row["FD"] for name, row in rows.items() if name.startswith(("teacher", "DBIM")))
    for compared in about["compared"]:
        assert rows[compared["best teacher"]]["FD"] == best
        assert compared["FD ratio"]["value"] == pytest.approx(rows[compared["student"]]["FD"] / best)
    assert [point["update"] for point in about["curves"]["teacher"]] == [40, 80]

    other = [*_command(pictures, whole), "--seed", "1"]
    refused = subprocess.run(other, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "holds another run (seed 0 there and 1 here)" in refused.stderr
