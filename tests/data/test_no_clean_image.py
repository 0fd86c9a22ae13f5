"""A whole distillation runs with no clean image in memory or on disk: its process has files of corrupted ones alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from pictures import save
from torch import Tensor

from ibmd_lite.bridges import Brownian
from ibmd_lite.data import Corrupted, Own, Photographs
from ibmd_lite.distillation import Student
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import UNet
from ibmd_lite.training import Draws, Settings, save_weights

RECIPE = Path(__file__).with_name("distil_files.py")
PICTURES = {f"corrupted/{number:02}.png" for number in range(48)}

# Runs a script and tells what it opened, which modules it loaded, whether it started other processes, and what its
# variable `images` holds; then reads a clean image in two ways, and tells again.  The hook stands before the first
# import of anything that could read an image.  Only safetensors are opened past it: the cache begins empty.
WATCH = """
import os, sys
opened, started = set(), []
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        opened.add(os.path.realpath(os.fsdecode(arguments[0])))
    elif event in ("subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"):
        started.append(event)
sys.addaudithook(hook)
import json, runpy
def tell():
    return {"opened": sorted(opened), "started": list(started), "modules": sorted(sys.modules)}
report, stray, script, *sys.argv[1:] = sys.argv[1:]
namespace = runpy.run_path(script, run_name="__main__")
told = tell() | {"pixels": namespace["images"].pixels.flatten(1).tolist()}
open(stray, "rb").close()
import subprocess
from ibmd_lite.data import photograph
photograph("cat")
subprocess.run(["true"])
with open(report, "w") as file:
    json.dump([told, tell()], file)
"""


def fogged(x0: Tensor) -> Tensor:
    return 0.4 * x0 + 0.5


def to_bytes(images: Tensor) -> Tensor:
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte()


def may_hold_images(path: str) -> bool:
    """By its content: JPEG, PNG, WebP, GIF, TIFF, bitmaps, zips (and npz), gzip, npy; safetensors by their name."""
    file = Path(path)
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        start = stream.read(12)
    kinds = (
        b"\xff\xd8\xff",
        b"\x89PNG",
        b"RIFF",
        b"GIF8",
        b"II*\0",
        b"MM\0*",
        b"BM",
        b"PK\3\4",
        b"\x1f\x8b",
        b"\x93NUMPY",
    )
    return start.startswith(kinds) or file.suffix == ".safetensors"


def seen_outside(told: dict, folder: Path) -> list[str]:
    outside = [path for path in told["opened"] if not Path(path).is_relative_to(folder.resolve())]
    return [path for path in outside if may_hold_images(path)]


def clean_modules(told: dict) -> list[str]:
    """Modules that hold clean images or read them."""
    return [name for name in told["modules"] if name.split(".")[0] in ("skimage", "sklearn") or "photographs" in name]


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def network() -> UNet:
    return UNet(width=16, multipliers=(1, 2), patch=2)


@dataclass(frozen=True)
class Done:
    """folder: all that the process had; told: what it did; control: and after it had read two clean images."""

    folder: Path
    teacher: BridgeModel
    clean: Tensor
    corrupted: Tensor
    told: dict
    control: dict


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    torch.manual_seed(0)
    model = BridgeModel(network(), Brownian(0.02))
    training = TeacherTraining(model, Settings(4e-3, average=0.9, decay=100), device="cpu")
    for _ in training.updates(Draws(Corrupted(Photographs(16), Own(fogged)).draw, 16), 100):
        pass
    clean = Photographs(16, "test").crops(48, torch.Generator().manual_seed(0))
    corrupted = to_bytes(fogged(clean))
    place = tmp_path_factory.mktemp("distillation")
    folder = place / "all_there_is"
    for number, image in enumerate(corrupted):
        save(folder / f"corrupted/{number:02}.png", image.permute(1, 2, 0).numpy())
    save_weights(folder / "teacher.safetensors", training.teacher.network)
    stray = save(place / "clean.data", to_bytes(clean[0]).permute(1, 2, 0).numpy(), format="PNG")
    assert names(folder) == {"teacher.safetensors", *PICTURES}
    command = [sys.executable, "-c", WATCH, *map(str, (place / "told.json", stray, RECIPE, folder))]
    environment = os.environ | {"IBMD_CACHE": str(folder / "cache")}  # not one that may hold anything already
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr[-2000:]
    told, control = json.loads((place / "told.json").read_text())
    return Done(folder, training.teacher, clean, corrupted, told, control)


def test_the_process_has_corrupted_images_alone(done: Done) -> None:
    assert clean_modules(done.told) == []
    assert seen_outside(done.told, done.folder) == []
    assert done.told["started"] == []
    inside = {Path(path).name for path in done.told["opened"] if Path(path).parent == done.folder / "corrupted"}
    assert inside >= {Path(name).name for name in PICTURES}, "the hook sees what is read"
    assert done.told["pixels"] == done.corrupted.flatten(1).tolist()
    left = {name.partition("/")[0] for name in names(done.folder) - PICTURES}
    assert left == {"teacher.safetensors", "cache", "student.safetensors"}


def test_the_student_it_leaves_restores(done: Done) -> None:
    file = done.folder / "student.safetensors"
    student, start = Student.load(file, network()), Student.of(done.teacher).state_dict()
    assert all(not torch.equal(value, start[name]) for name, value in student.state_dict().items()), "it was trained"
    xT = done.corrupted.float() / 127.5 - 1
    before, after = ((x - done.clean).square().mean() for x in (xT, student(xT)))
    assert after < 0.25 * before


def test_a_clean_image_would_be_noticed(done: Done) -> None:
    assert {"ibmd_lite.data.photographs", "skimage.data"} <= set(clean_modules(done.control))
    assert {Path(path).name for path in seen_outside(done.control, done.folder)} == {"clean.data", "chelsea.png"}
    assert done.control["started"]
