"""One image task from beginning to end: a teacher, a regression network of equal budget, students, and their table.

Lives here: `Experiment`, whose every finished part is kept in a folder and found again there, so that a run that was
killed goes on, and a chapter that is run again does not train again.  Imports the method, ``tasks``, the evaluation
and the training files.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ibmd_lite.baselines import Regression
from ibmd_lite.data import Corrupted, Images
from ibmd_lite.data.decoding import to_unit
from ibmd_lite.distillation import Distillation, DistillationSettings, Student, refilled_chain
from ibmd_lite.evaluation import FrechetEstimate, diversity, frechet_distance, frechet_estimate, median_seconds
from ibmd_lite.evaluation import psnr as mean_psnr
from ibmd_lite.evaluation import ssim as mean_ssim
from ibmd_lite.evaluation.classifier import CIFAR10, PHOTOGRAPHS, TINY_IMAGENET, Classifier, load_classifier
from ibmd_lite.experiments.legs import claim, in_legs, save_picture
from ibmd_lite.experiments.tasks import PATIENT, TASKS, Mirrored, Pace, Size, images_of, part
from ibmd_lite.matching import TeacherTraining, Weight
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.networks import UNet
from ibmd_lite.sampling import DBIM, Markov, Step, sample
from ibmd_lite.training import Draws, Settings, best_device, load_checkpoint, save_checkpoint, share
from ibmd_lite.training.loop import Run

__all__ = [
    "VARIABLE",
    "Experiment",
    "Method",
    "Precision",
    "Restore",
    "Row",
    "best_walk",
    "chosen_precision",
    "fall",
    "looks",
]

VARIABLE = "IBMD_RUNS"
"""The environment variable that names the folder in which unfinished work is kept; if not set, none is."""

SHOWN = 10  # images of the picture that is made at each look
SEEDS = 8  # seeds of different purposes lie this far apart

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Restore = Callable[[Source, torch.Generator], Tensor]


@dataclass(frozen=True)
class Method:
    """A way to restore: its number of network calls, and ``restore(source, generator) -> x0``."""

    NFE: int
    restore: Restore


@dataclass(frozen=True)
class Row:
    """What one method makes of the test images.

    FD: the Frechet distance to other clean images and its interval.  PSNR, in dB, and SSIM: to the images that were
    corrupted.  accuracy: the share whose class the classifier still finds, None where it does not know the classes.
    diversity: of several answers to one source.  seconds: of the wall clock, for one image in a batch.
    """

    method: str
    NFE: int
    FD: FrechetEstimate
    PSNR: float
    SSIM: float
    accuracy: float | None
    diversity: float
    seconds: float


class Experiment:
    """One task at one size: its images, its trainings, its table.

    Args:
        name: of a task in `TASKS`.
        size: one of `SIZES`, or a `Size` of your own.
        folder: where finished parts and checkpoints are kept; by default ``$IBMD_RUNS/DATA-SIDE/NAME``, and without
            that variable a temporary folder that goes with the experiment.
        precision: of the networks; ``"auto"`` is as in `Settings`, and bfloat16 on a CPU that computes with it.
        device: of the networks, `best_device` by default.

    Raises:
        ValueError: no such task, images of another size, a folder that holds the work of other settings.
    """

    def __init__(
        self,
        name: str,
        size: Size,
        *,
        folder: str | os.PathLike | None = None,
        precision: Precision = "auto",
        device: torch.device | str | None = None,
        seed: int = 0,
    ) -> None:
        if name not in TASKS:
            raise ValueError(f"no task is called {name!r}; expected one of {', '.join(TASKS)}")
        self.name, self.task, self.size, self.seed = name, TASKS[name], size, seed
        self.device = best_device() if device is None else torch.device(device)
        self.precision = chosen_precision(precision, self.device)
        train, self.test, self.classifier, self.reference = _judged_by(size.data, size.side)
        self.folder = self._folder(folder)
        about = {"task": repr(self.task), "size": repr(replace(size, data=""))}  # images may lie elsewhere next time
        claim(
            self.folder,
            about | {"precision": self.precision, "seed": seed, "train": len(train), "test": len(self.test)},
        )
        self.names = (*train.names, *self.test.names)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        held_out, learned = order.tensor_split([size.held_out])
        self.pairs = Corrupted(Mirrored(part(train, learned)), self.task.corruption, self.device)
        clean, self.held_out = self.corrupted(part(train, held_out), 1)
        self.seen = {"corrupted": self.held_out.xT[:SHOWN], "clean": clean[:SHOWN]}
        self.learned = self.reference[learned]

    def _folder(self, given: str | os.PathLike | None) -> Path:
        if given is not None:
            return Path(given)
        if kept := os.environ.get(VARIABLE):
            return Path(kept).expanduser() / f"{Path(self.size.data).stem}-{self.size.side}" / self.name
        folder = tempfile.mkdtemp(prefix="ibmd-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    def model(self) -> BridgeModel:
        """A fresh model of the task: before training its network returns 0."""
        task = self.task
        network = self.network(task.conditional)
        return BridgeModel(network, task.bridge, conditional=task.conditional, prediction=task.prediction)

    def network(self, conditional: bool | Literal["optional"], tasks: int = 0) -> UNet:
        """The U-Net of the size, its weights drawn from the seed."""
        size = self.size
        torch.manual_seed(self.seed)
        return UNet(
            width=size.width,
            multipliers=size.multipliers,
            blocks=size.blocks,
            patch=2,
            conditional=conditional,
            tasks=tasks,
        )

    @property
    def teacher_updates(self) -> int:
        """How long the teacher, and the regression network, are trained on this task."""
        return self.size.teacher_updates * self.task.longer

    @property
    def settings(self) -> Settings:
        """Of the teacher and of the regression network, whose budgets are equal."""
        return Settings(
            1e-3,
            betas=(0.9, 0.99),
            average=0.995,
            precision=self.precision,
            seed=self.seed,
            decay=self.teacher_updates,
        )

    def student_settings(
        self, weight: Weight | Mapping[int, Weight] | None, updates: int, pace: Pace = PATIENT
    ) -> DistillationSettings:
        """Of generator and fake; rates that fall are zero after so many updates."""
        decay = updates if pace.falling else None
        shared = {"betas": (0.0, 0.999), "precision": self.precision, "seed": self.seed, "decay": decay}
        return DistillationSettings(
            generator=Settings(pace.rate, average=pace.average, **shared),  # type: ignore[arg-type]
            fake=Settings(4e-4, average=None, **shared),  # type: ignore[arg-type]
            fake_updates=pace.fake_updates,
            weight=weight,
            rollout=refilled_chain,
        )

    def teacher(self) -> tuple[BridgeModel, list[dict]]:
        """The trained teacher, and its distance on held-out images along the way."""
        run = TeacherTraining(self.model(), self.settings, device=self.device)
        return run.teacher, self._train_on_pairs("teacher", run, lambda: self.walk(run.teacher, self.size.look_nfe))

    def regression(self) -> tuple[Student, list[dict]]:
        """The same network trained as long to answer with the mean, in one call."""
        run = Regression(Student.of(self.model(), noise_channels=0), self.settings, device=self.device)
        points = self._train_on_pairs("regression", run, lambda: self.call(run.student))
        return run.student, points

    def student(self, teacher: BridgeModel, steps: int = 1) -> tuple[Student, list[dict]]:
        """A student of so many calls, from sources alone."""
        size = self.size
        torch.manual_seed(self.seed)
        student = Student.of(teacher, steps=steps, noise_channels=self.task.noise_channels)
        settings = self.student_settings(teacher.output_weight, size.student_updates, self.task.pace)
        run = Distillation(teacher, student, settings=settings, device=self.device)
        stream = Draws(self.pairs.sources, share(size.student_batch), self.seed + 1)
        ends = looks(size.student_updates, size.student_looks)
        return run.student, self._train(f"student-{steps}", run, stream, ends, lambda: self.call(run.student))

    def _train_on_pairs(self, name: str, run: Run, restore: Callable[[], Restore]) -> list[dict]:
        size = self.size
        stream = Draws(self.pairs.draw, share(size.teacher_batch), self.seed)
        return self._train(name, run, stream, looks(self.teacher_updates, size.teacher_looks), restore)

    def _train(self, name: str, run: Run, stream: Draws, ends: list[int], restore: Callable[[], Restore]) -> list[dict]:
        def measure() -> dict[str, float]:
            return {"FD": self.look(restore(), self.folder / "looks" / f"{name}-{run.update:06d}.png")}

        return in_legs(run, stream, ends, self.folder / name, measure, every=self.size.every)

    def distance(self, restore: Restore) -> float:
        """The Frechet distance of the held-out images, restored, to those that were learned from."""
        return frechet_distance(self.classifier.features(self.restored(restore, self.held_out)), self.learned)

    def look(self, restore: Restore, path: Path) -> float:
        """The distance; and the first held-out images, corrupted, restored and clean, as a picture."""
        restored = self.restored(restore, self.held_out)
        rows = self.seen["corrupted"], restored[:SHOWN], self.seen["clean"]
        save_picture(path, torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2))
        return frechet_distance(self.classifier.features(restored), self.learned)

    def walk(self, teacher: BridgeModel, nfe: int, step: Step = Markov()) -> Restore:  # noqa: B008 (frozen)
        """The teacher in so many calls."""
        grid = teacher.bridge.grid(nfe)
        return lambda source, generator: sample(teacher, source, grid, step, generator=generator).x0

    def call(self, student: Student) -> Restore:
        """The student, or the regression network."""
        return lambda source, generator: student(source, generator=generator)

    def methods(
        self, teacher: BridgeModel, regression: Student, students: Mapping[int, Student], **others: Method
    ) -> dict[str, Method]:
        """Everything that the table compares, by name; ``others`` come after the corrupted image itself."""
        found = {"no-op": Method(0, lambda source, generator: source.xT)} | others
        found["regression"] = Method(1, self.call(regression))
        for name, step in {"teacher": Markov(), "DBIM": DBIM(eta=0.0)}.items():
            found |= {f"{name}, {nfe} NFE": Method(nfe, self.walk(teacher, nfe, step)) for nfe in self.size.nfe}
        for steps, student in students.items():
            found[f"student, {steps} NFE"] = Method(steps, self.call(student))
        return found

    def table(self, methods: Mapping[str, Method]) -> dict[str, Row]:
        """A row for each method, on all test images, which no training saw; walks that are kept are not made again."""
        clocks = self._seconds({name: method.restore for name, method in methods.items() if method.NFE})
        return {
            name: self.row(name, method, SEEDS * place, clocks.get(name, 0.0))
            for place, (name, method) in enumerate(methods.items(), start=1)
        }

    def row(self, name: str, method: Method, seed: int, seconds: float = 0.0, *, folder: Path | None = None) -> Row:
        """One method on all test images; its figures are kept under its name, in the experiment's folder by default."""
        kept = self._measured((folder or self.folder) / "rows" / f"{name}.pt", method.restore, seed)
        estimate = frechet_estimate(kept.pop("features"), self.reference, draws=self.size.draws)
        return Row(name, method.NFE, estimate, **kept, seconds=seconds)

    def floor(self) -> FrechetEstimate:
        """The distance of the clean test images: what no restoration can be expected to undercut."""
        return frechet_estimate(
            self.classifier.features(to_unit(self.test.pixels)), self.reference, draws=self.size.draws
        )

    def _measured(self, path: Path, restore: Restore, seed: int) -> dict:
        """Features and figures of one method; kept, because a long walk takes minutes."""
        if path.exists():
            return load_checkpoint(path)
        x0, source = self.corrupted(self.test, 2)
        restored = self.restored(restore, source, seed)
        features = self.classifier.features(restored)
        row = {
            "features": features,
            "PSNR": mean_psnr(restored, x0),
            "SSIM": mean_ssim(restored, x0),
            "accuracy": self.accuracy(features),
            "diversity": self.spread(restore, seed),
        }
        save_checkpoint(path, row)
        return row

    def spread(self, restore: Restore, seed: int = 0) -> float:
        """The diversity of four answers to each of some test images."""
        again = [self.corrupted(self.test, 3 + draw, self.size.repeated)[1] for draw in range(4)]
        return diversity(torch.stack([self.restored(restore, one, seed + draw) for draw, one in enumerate(again, 1)]))

    @torch.no_grad()
    def accuracy(self, features: Tensor) -> float | None:
        """The share of test images whose class the classifier finds in features (n, d); None where it knows others."""
        if self.classifier.names != self.test.classes:
            return None
        guesses = self.classifier.output_layer(features).argmax(dim=1)
        return float((guesses == self.test.labels).float().mean())

    def corrupted(self, images: Images, purpose: int, first: int | None = None) -> tuple[Tensor, Source]:
        """Clean images and what the corruption made of them; its noise depends on the purpose alone."""
        x0 = to_unit(images.pixels)[:first]
        generator = torch.Generator().manual_seed(SEEDS * self.seed + purpose)
        return x0, Source.of(self.task.corruption(x0, generator))

    def shown(self, n: int) -> tuple[Float[Tensor, "n 3 side side"], Source]:
        """The first test images and what the corruption made of them, for looking at."""
        return self.corrupted(self.test, 2, n)

    def restored(self, restore: Restore, source: Source, seed: int = 0) -> Float[Tensor, "n 3 side side"]:
        """What a method makes of the sources, brought back to [-1, 1]."""
        generator = torch.Generator(self.device).manual_seed(seed)
        dtype = getattr(torch, self.precision)
        with torch.no_grad(), torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            answers = [restore(batch.to(self.device), generator).float().cpu() for batch in _batches(source)]
        return torch.cat(answers).clamp(-1, 1)

    def _seconds(self, methods: dict[str, Restore]) -> dict[str, float]:
        """Wall-clock seconds an image, all methods in turns, in one batch."""
        batch = self.shown(self.size.repeated)[1]
        calls = {name: (lambda restore=restore: self.restored(restore, batch)) for name, restore in methods.items()}
        spent = median_seconds(calls, repeats=3, warmup=1)
        return {name: seconds / len(batch.xT) for name, seconds in spent.items()}


def looks(total: int, count: int) -> list[int]:
    """The updates at which a training is measured, evenly spaced, the last at its end."""
    return [look * total // count for look in range(1, count + 1)]


def best_walk(rows: Mapping[str, Row]) -> Row:
    """The teacher where its Frechet distance is least, whatever the number of steps and the sampler."""
    return min(
        (row for name, row in rows.items() if name.startswith(("teacher", "DBIM"))), key=lambda row: row.FD.distance
    )


def fall(curve: list[dict]) -> float:
    """By which share the distance fell in the last fifth of a training."""
    done = curve[-1]["update"]
    before = min(curve, key=lambda point: abs(point["update"] - 0.8 * done))
    return 1 - curve[-1]["FD"] / before["FD"]


@lru_cache(maxsize=1)
def _judged_by(data: str, side: int) -> tuple[Images, Images, Classifier, Tensor]:
    """Training and test images, who judges them, and the features of the training images: alike for all tasks."""
    train, test = (images_of(data, split, side) for split in ("train", "test"))
    recipe = PHOTOGRAPHS if data == "photographs" else CIFAR10 if side <= 32 else TINY_IMAGENET
    classifier = load_classifier(recipe.weights)
    return train, test, classifier, classifier.features(to_unit(train.pixels))


def chosen_precision(given: Precision, device: torch.device) -> Precision:
    """What ``"auto"`` means on a device."""
    if given != "auto":
        return given
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device)[0] >= 8 else "float16"
    told: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch do not tell
    return "bfloat16" if device.type == "cpu" and told.get("avx512_bf16") else "float32"


def _batches(source: Source, size: int = 100) -> Iterator[Source]:
    for first in range(0, len(source.xT), size):
        rows = slice(first, first + size)
        yield replace(source, xT=source.xT[rows], mask=None if source.mask is None else source.mask[rows])
