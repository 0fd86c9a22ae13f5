"""The image tasks of the book and the sizes at which they are run.

Lives here: what each task restores and on which bridge (`TASKS`), how large networks, trainings and measurements are
(`SIZES`), and the images they need (`images_of`).  Imports torch, the method, the data and the corruptions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ibmd_lite.bridges import VP, Bridge, Brownian, ContinuousI2SB
from ibmd_lite.data import (
    JPEG,
    Corruption,
    Images,
    Inpainting,
    Photographs,
    Sketch,
    SuperResolution,
    cifar10,
    tiny_imagenet,
)
from ibmd_lite.data.decoding import as_bytes
from ibmd_lite.data.photographs import NAMES
from ibmd_lite.model import DDBM, I2SBNoise, Prediction

__all__ = ["HURRIED", "PATIENT", "SIZES", "TASKS", "Mirrored", "Pace", "Size", "Task", "images_of", "part"]

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Pace:
    """How generator and fake keep up with each other while a student is trained.

    rate: of the generator; the fake's is 4e-4.  fake_updates: L.  falling: both rates fall to zero, and the fake
    catches up in the end; else they stay, it need not, and the student is an average over more updates.
    average: decay of that average.
    """

    rate: float = 2e-4
    fake_updates: int = 5
    falling: bool = True
    average: float = 0.99


PATIENT = Pace()
# On one seed a student of JPEG 5 ends at a held-out Frechet distance of 16.0 so and of 17.7 patiently, at a lower PSNR
# and accuracy; one of super-resolution never settles (`benchmarks/pace.py`).  JPEG 10 was taken along.
HURRIED = Pace(fake_updates=1, falling=False, average=0.995)


@dataclass(frozen=True)
class Task:
    """What is restored, on which bridge.

    noise_channels, steps and pace are the student's.  longer: how many times the updates of the size its teacher, and a
    regression of equal budget, are trained: the more of the image is to be invented, the later a teacher levels off.
    """

    corruption: Corruption
    bridge: Bridge
    prediction: Prediction
    conditional: bool = False
    noise_channels: int = 3
    steps: tuple[int, ...] = (1,)
    longer: int = 1
    pace: Pace = PATIENT


def restoration(corruption: Corruption, pace: Pace = PATIENT) -> Task:
    """I2SB with a constant beta, and less noise than published: a small network learns it sooner, and its student too.

    4x super-resolution (pool), after 400 teacher updates: Frechet distance 75 in 20 steps and 87 in one, against 84 and
    120 for ``ContinuousI2SB(0.3)``.
    """
    return Task(corruption, Brownian(0.02), I2SBNoise(), pace=pace)


TASKS = {
    "sr4x-bicubic": restoration(SuperResolution(4, "bicubic")),
    "sr4x-pool": restoration(SuperResolution(4, "pool")),
    "jpeg-5": restoration(JPEG(5), pace=HURRIED),
    "jpeg-10": restoration(JPEG(10), pace=HURRIED),
    # The hole holds noise already: the bridge adds little, and the student needs none of its own.
    "inpainting": Task(Inpainting(), ContinuousI2SB(0.3), I2SBNoise(), noise_channels=0, steps=(1, 2, 4), longer=2),
    # Many images fit a sketch: the bridge has to remember it, and needs more noise (DDBM's own choice).
    "sketch": Task(Sketch(), VP(), DDBM(), conditional=True, steps=(1, 2), longer=2),
}
# Shown xT at every call, a model knows the hole's noise, and on a quiet bridge xt gives x0 away too soon.  Held-out
# Frechet distance of the teacher: 8.5 with this bridge and prediction, 13.3 with those above.
TASKS["inpainting-conditional"] = replace(TASKS["inpainting"], bridge=VP(), prediction=DDBM(), conditional=True)


@dataclass(frozen=True)
class Size:
    """Of images, networks, trainings and measurements.

    data: see `images_of`.  looks: how often a training is measured on ``held_out`` images.  every: updates between
    two checkpoints.  nfe: of the teacher's walks in the table.  repeated: images restored four times, for diversity.
    draws: of the bootstrap.
    """

    data: str = "cifar10"
    side: int = 32
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 1
    teacher_updates: int = 4000
    teacher_batch: int = 64
    student_updates: int = 1000
    student_batch: int = 32
    teacher_looks: int = 5
    student_looks: int = 10
    every: int = 50
    held_out: int = 1000
    nfe: tuple[int, ...] = (1, 5, 20, 100)
    look_nfe: int = 20
    repeated: int = 64
    draws: int = 200


SIZES = {
    # A minute on two cores, and no download: everything runs, nothing is learned.
    "quick": Size(
        data="photographs",
        width=16,
        multipliers=(1, 2),
        teacher_updates=40,
        teacher_batch=16,
        student_updates=6,
        student_batch=8,
        teacher_looks=2,
        student_looks=2,
        every=20,
        held_out=640,
        nfe=(1, 5),
        look_nfe=1,
        repeated=8,
        draws=10,
    ),
    # On one core: forty minutes for a task with one patient student, less for a hurried one, an hour and a half for a
    # longer one with three.
    "full": Size(),
    # For a data-centre GPU: 64 x 64, a network of 21 million parameters.
    "large": Size(
        data="tiny-imagenet",
        side=64,
        width=128,
        multipliers=(1, 2, 3),
        blocks=2,
        teacher_updates=12_000,
        teacher_batch=128,
        student_updates=2000,
        student_batch=128,
        every=500,
        held_out=2000,
    ),
}


@dataclass(frozen=True)
class Mirrored:
    """Images of which every other one, at random, is mirrored left to right."""

    images: Images

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        x0, labels = self.images.draw(n, generator)
        mirrored = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
        return torch.where(mirrored, x0.flip(-1), x0), labels


def images_of(data: str, split: Split, side: int) -> Images:
    """The images of a data set in an order of their own, so that the first few are of all classes.

    data: ``"photographs"`` (crops of those that come with the installed packages), ``"cifar10"`` or
    ``"tiny-imagenet"`` (the subsets that the package lists, fetched from their publishers), or the path of a folder
    or zip of ``split/class/file``.  Raises ValueError for a split or a path that there is not.
    """
    if data == "photographs":
        images = _crops(split, side)
    elif data == "cifar10":
        images = cifar10(split, subset=True)
    elif data == "tiny-imagenet":
        images = tiny_imagenet("val" if split == "test" else split, subset=True, size=side)
    else:
        images = Images.read(data, size=side, split=split)
    if images.pixels.shape[-1] != side:
        raise ValueError(f"the images of {data} are {images.pixels.shape[-1]} pixels wide, the size says {side}")
    return images if split == "train" else part(images, torch.randperm(len(images), generator=_seeded(0)))


def part(images: Images, rows: Tensor) -> Images:
    """Those rows (n,) of the images, in that order."""
    names = tuple(images.names[row] for row in rows.tolist())
    return replace(images, pixels=images.pixels[rows], labels=images.labels[rows], names=names)


def _crops(split: Split, side: int) -> Images:
    """Fixed crops of the photographs, as many as the figures need."""
    x0, labels = Photographs(side, split).draw(2000 if split == "train" else 640, _seeded(1))
    return Images(
        as_bytes(x0), labels, NAMES, tuple(f"{split}/{NAMES[label]}/{k:04d}" for k, label in enumerate(labels))
    )


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
