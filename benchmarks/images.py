"""Every image task at 32 x 32 on CIFAR-10: `python benchmarks/images.py TASK --path DATA`.

A teacher, a regression network of equal budget and one student or two, then one table on the test images, which no
training saw.  DATA is a folder or a zip of `split/class/file`; without it the data set is fetched from its publisher.
All work is kept under runs/images/TASK: a run that was killed, at whatever moment, goes on there when the same command
is given again, and ends with the numbers of an unbroken one.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from report import RESULTS, keep
from torch import Tensor
from torch.nn import functional

from ibmd_lite.baselines import Regression
from ibmd_lite.bridges import VP, Bridge, Brownian, ContinuousI2SB
from ibmd_lite.data import JPEG, Corrupted, Corruption, Images, Inpainting, Sketch, SuperResolution, cifar10
from ibmd_lite.data.decoding import to_unit
from ibmd_lite.distillation import Distillation, DistillationSettings, Student
from ibmd_lite.evaluation import FrechetEstimate, diversity, frechet_distance, frechet_estimate, median_seconds
from ibmd_lite.evaluation import psnr as mean_psnr
from ibmd_lite.evaluation import ssim as mean_ssim
from ibmd_lite.evaluation.classifier import CIFAR10, load_classifier
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import DDBM, BridgeModel, I2SBNoise, Prediction, Source
from ibmd_lite.networks import UNet
from ibmd_lite.sampling import DBIM, Markov, sample
from ibmd_lite.training import Draws, Settings, checkpointed, load_checkpoint, save_checkpoint
from ibmd_lite.training.files import writing
from ibmd_lite.training.loop import Run

ROOT = Path(__file__).resolve().parents[1]
RANDOM = 8  # seeds of different purposes lie this far apart


@dataclass(frozen=True)
class Task:
    """What is restored, on which bridge; noise_channels and steps are the student's."""

    corruption: Corruption
    bridge: Bridge
    prediction: Prediction
    conditional: bool = False
    noise_channels: int = 3
    steps: tuple[int, ...] = (1,)


def restoration(corruption: Corruption) -> Task:
    """I2SB with a constant beta, and less noise than published: a small network learns it sooner, and its student too.

    4x super-resolution (pool), after 400 teacher updates: Frechet distance 75 in 20 steps and 87 in one, against 84 and
    120 for ``ContinuousI2SB(0.3)``.
    """
    return Task(corruption, Brownian(0.02), I2SBNoise())


TASKS = {
    "sr4x-bicubic": restoration(SuperResolution(4, "bicubic")),
    "sr4x-pool": restoration(SuperResolution(4, "pool")),
    "jpeg-5": restoration(JPEG(5)),
    "jpeg-10": restoration(JPEG(10)),
    # The hole holds noise already: the bridge adds little, and the student needs none of its own.
    "inpainting": Task(Inpainting(), ContinuousI2SB(0.3), I2SBNoise(), noise_channels=0, steps=(4,)),
    # Many images fit a sketch: the bridge has to remember it, and needs more noise (DDBM's own choice).
    "sketch": Task(Sketch(), VP(), DDBM(), conditional=True, steps=(1, 2)),
}


@dataclass(frozen=True)
class Size:
    """Of networks, trainings and measurements; looks: how often a training is measured on held-out images."""

    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2)
    teacher_updates: int = 4000
    teacher_batch: int = 64
    student_updates: int = 1000
    student_batch: int = 32
    teacher_looks: int = 5
    student_looks: int = 10
    every: int = 50  # updates between two checkpoints
    held_out: int = 1000
    nfe: tuple[int, ...] = (1, 5, 20, 100)
    look_nfe: int = 20
    repeated: int = 64  # images restored four times, for diversity
    draws: int = 200  # of the bootstrap


FULL = Size()
QUICK = Size(
    width=8,
    multipliers=(1,),
    teacher_updates=8,
    teacher_batch=4,
    student_updates=4,
    student_batch=4,
    teacher_looks=2,
    student_looks=1,
    every=1,
    held_out=640,
    nfe=(1, 2),
    look_nfe=1,
    repeated=4,
    draws=4,
)


@dataclass(frozen=True)
class Mirrored:
    """Images of which every other one, at random, is mirrored left to right."""

    images: Images

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        x0, labels = self.images.draw(n, generator)
        mirrored = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
        return torch.where(mirrored, x0.flip(-1), x0), labels


Restore = Callable[[Source, torch.Generator], Tensor]


class Experiment:
    """One task: its data, its three trainings, its table.  Every part that is finished is found again in ``folder``."""

    def __init__(self, task: Task, size: Size, path: Path | None, folder: Path, precision: str, seed: int) -> None:
        self.task, self.size, self.folder, self.precision, self.seed = task, size, folder, precision, seed
        train, self.test = _read(path, "train"), _read(path, "test")
        self.classifier = load_classifier(CIFAR10.weights)
        if self.test.classes != self.classifier.names:
            raise ValueError(
                f"the images are of the classes {', '.join(self.test.classes)}; the classifier that judges them knows "
                f"{', '.join(self.classifier.names)}: give CIFAR-10 as a folder or zip of split/class/file"
            )
        about = {"task": repr(task), "size": repr(size), "precision": precision, "seed": seed}
        about |= {"train": len(train), "test": len(self.test)}
        self._claim(about)
        self.reference = self.classifier.features(to_unit(train.pixels))
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        held_out, learned = order.tensor_split([size.held_out])
        self.pairs = Corrupted(Mirrored(_part(train, learned)), task.corruption)
        self.held_out, self.learned = self._corrupted(_part(train, held_out), 1)[1], self.reference[learned]

    def _claim(self, about: dict[str, object]) -> None:
        """Refuse a folder that holds the work of other settings."""
        path = self.folder / "about.json"
        if path.exists() and json.loads(path.read_text()) != about:
            raise ValueError(f"{self.folder} holds another run; delete it, or give another --folder")
        _write(path, about)

    def model(self) -> BridgeModel:
        torch.manual_seed(self.seed)
        network = UNet(
            width=self.size.width, multipliers=self.size.multipliers, patch=2, conditional=self.task.conditional
        )
        return BridgeModel(
            network, self.task.bridge, conditional=self.task.conditional, prediction=self.task.prediction
        )

    @property
    def settings(self) -> Settings:
        """Of the teacher and of the regression network, whose budgets are equal."""
        return Settings(
            1e-3,
            betas=(0.9, 0.99),
            average=0.995,
            precision=self.precision,  # type: ignore[arg-type]
            seed=self.seed,
            decay=self.size.teacher_updates,
        )

    def teacher(self) -> tuple[BridgeModel, list[dict]]:
        run = TeacherTraining(self.model(), self.settings, device="cpu")
        return run.teacher, self._train_on_pairs("teacher", run, lambda: self.walk(run.teacher, self.size.look_nfe))

    def regression(self) -> tuple[Student, list[dict]]:
        run = Regression(Student.of(self.model(), noise_channels=0), self.settings, device="cpu")
        points = self._train_on_pairs("regression", run, lambda: self.call(run.student))
        return run.student, points

    def student(self, teacher: BridgeModel, steps: int) -> tuple[Student, list[dict]]:
        size, shared = self.size, {"betas": (0.0, 0.999), "precision": self.precision, "seed": self.seed}
        settings = DistillationSettings(
            generator=Settings(2e-4, average=0.99, decay=size.student_updates, **shared),
            fake=Settings(4e-4, average=None, decay=size.student_updates, **shared),
            weight=teacher.output_weight,
        )
        torch.manual_seed(self.seed)
        student = Student.of(teacher, steps=steps, noise_channels=self.task.noise_channels)
        run = Distillation(teacher, student, settings=settings, device="cpu")
        sources = Draws(self.pairs.sources, size.student_batch, self.seed + 1)
        points = self._train(
            f"student-{steps}", run, sources, size.student_updates, size.student_looks, lambda: self.call(run.student)
        )
        return run.student, points

    def _train_on_pairs(self, name: str, run: Run, restore: Callable[[], Restore]) -> list[dict]:
        pairs = Draws(self.pairs.draw, self.size.teacher_batch, self.seed)
        return self._train(name, run, pairs, self.size.teacher_updates, self.size.teacher_looks, restore)

    def _train(
        self, name: str, run: Run, stream: Draws, total: int, looks: int, restore: Callable[[], Restore]
    ) -> list[dict]:
        """Train in legs; what is measured after a leg is written before the next begins, so that it is never lost."""
        path, points = self.folder / f"{name}.json", []
        if path.exists():
            points = json.loads(path.read_text())
        for look in range(1, looks + 1):
            leg = checkpointed(run, stream, look * total // looks, self.folder / f"{name}.pt", every=self.size.every)
            seconds = [record.seconds for record in leg]
            if len(points) >= look:
                continue
            restored = self.restored(restore(), self.held_out)
            distance = frechet_distance(self.classifier.features(restored), self.learned)
            spent = statistics.median(seconds) if seconds else None  # None: killed between the leg and its point
            points.append({"update": run.update, "FD": distance, "seconds an update": spent})
            _write(path, points)
            print(f"{name} {run.update}/{total}: FD {distance:.2f} on {len(restored)} held-out images", flush=True)
        return points

    def walk(self, teacher: BridgeModel, nfe: int, step: Markov | DBIM = Markov()) -> Restore:  # noqa: B008 (frozen)
        grid = teacher.bridge.grid(nfe)
        return lambda source, generator: sample(teacher, source, grid, step, generator=generator).x0

    def call(self, student: Student) -> Restore:
        return lambda source, generator: student(source, generator=generator)

    def restored(self, restore: Restore, source: Source, seed: int = 0) -> Float[Tensor, "n 3 32 32"]:
        """What a method makes of the sources, brought back to [-1, 1]."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
            return torch.cat([restore(batch, generator).float() for batch in _batches(source)]).clamp(-1, 1)

    def measured(self, name: str, restore: Restore, seed: int) -> dict:
        """Features and figures of one method on the test images; kept, because a long walk takes minutes."""
        path = self.folder / "rows" / f"{name}.pt"
        if path.exists():
            return load_checkpoint(path)
        x0, source = self._corrupted(self.test, 2)
        restored = self.restored(restore, source, seed)
        again = [self._corrupted(self.test, 3 + draw, self.size.repeated)[1] for draw in range(4)]
        several = torch.stack([self.restored(restore, one, seed + draw) for draw, one in enumerate(again, 1)])
        features = self.classifier.features(restored)
        row = {
            "features": features,
            "PSNR": mean_psnr(restored, x0),
            "SSIM": mean_ssim(restored, x0),
            "accuracy": self.accuracy(features),
            "diversity": diversity(several),
        }
        save_checkpoint(path, row)
        print(f"{name}: PSNR {row['PSNR']:.2f}, accuracy {row['accuracy']:.3f}", flush=True)
        return row

    @torch.no_grad()
    def accuracy(self, features: Tensor) -> float:
        """The share of the test images whose class the classifier still finds."""
        guesses = self.classifier.output_layer(features).argmax(dim=1)
        return float((guesses == self.test.labels).float().mean())

    def _corrupted(self, images: Images, purpose: int, first: int | None = None) -> tuple[Tensor, Source]:
        """Clean images and what the corruption made of them; its noise depends on the purpose alone."""
        x0 = to_unit(images.pixels)[:first]
        generator = torch.Generator().manual_seed(RANDOM * self.seed + purpose)
        return x0, Source.of(self.task.corruption(x0, generator))

    def seconds(self, methods: dict[str, Restore]) -> dict[str, float]:
        """Wall-clock seconds an image, all methods in turns, in one batch."""
        batch = self._corrupted(self.test, 2, self.size.repeated)[1]
        calls = {name: (lambda restore=restore: self.restored(restore, batch)) for name, restore in methods.items()}
        spent = median_seconds(calls, repeats=3, warmup=1)
        return {name: seconds / len(batch.xT) for name, seconds in spent.items()}


def _read(path: Path | None, split: str) -> Images:
    """The subset that the repository lists, from its publisher where there is no path."""
    return cifar10(split, subset=True) if path is None else Images.read(path, size=32, split=split)


def _part(images: Images, rows: Tensor) -> Images:
    names = tuple(images.names[row] for row in rows.tolist())
    return replace(images, pixels=images.pixels[rows], labels=images.labels[rows], names=names)


def _batches(source: Source, size: int = 100) -> Iterator[Source]:
    for first in range(0, len(source.xT), size):
        rows = slice(first, first + size)
        yield replace(source, xT=source.xT[rows], mask=None if source.mask is None else source.mask[rows])


def _write(path: Path, content: object) -> None:
    with writing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def bicubic(source: Source, generator: torch.Generator) -> Tensor:
    """The small picture inside a pooled one, enlarged smoothly."""
    small = functional.avg_pool2d(source.xT, 4)
    return functional.interpolate(small, scale_factor=4.0, mode="bicubic", antialias=True)


def run(name: str, experiment: Experiment, results: Path) -> Path:
    """Train, measure, print the table and keep it."""
    task, size = TASKS[name], experiment.size
    teacher, curve = experiment.teacher()
    regression, regression_curve = experiment.regression()
    methods: dict[str, tuple[int, Restore]] = {"no-op": (0, lambda source, generator: source.xT)}
    if name == "sr4x-pool":
        methods["bicubic"] = (0, bicubic)
    methods["regression"] = (1, experiment.call(regression))
    for nfe in size.nfe:
        methods[f"teacher, {nfe} NFE"] = (nfe, experiment.walk(teacher, nfe))
    for nfe in size.nfe:
        methods[f"DBIM, {nfe} NFE"] = (nfe, experiment.walk(teacher, nfe, DBIM(eta=0.0)))
    curves = {"teacher": curve, "regression": regression_curve}
    for steps in task.steps:
        student, curves[f"student, {steps} NFE"] = experiment.student(teacher, steps)
        methods[f"student, {steps} NFE"] = (steps, experiment.call(student))
    measured = {
        method: experiment.measured(method, restore, seed=RANDOM * (place + 1))
        for place, (method, (_, restore)) in enumerate(methods.items())
    }
    clean = experiment.classifier.features(to_unit(experiment.test.pixels))
    estimates = {
        method: frechet_estimate(row["features"], experiment.reference, draws=size.draws)
        for method, row in measured.items()
    }
    floor = frechet_estimate(clean, experiment.reference, draws=size.draws)
    clocks = experiment.seconds({method: restore for method, (nfe, restore) in methods.items() if nfe})
    rows: list[dict[str, object]] = [
        {"method": method, "NFE": nfe}
        | _interval(estimates[method])
        | {figure: measured[method][figure] for figure in ("PSNR", "SSIM", "accuracy", "diversity")}
        | {"s an image": clocks.get(method, 0.0)}
        for method, (nfe, _) in methods.items()
    ]
    return keep(
        name,
        rows,
        folder=results,
        task=name,
        floor=_interval(floor),
        clean={"accuracy": experiment.accuracy(clean), "images": len(experiment.test)},
        compared=[_compared(method, measured, estimates, clocks) for method in methods if method.startswith("student")],
        plateau=_improvement(curve),
        curves=curves,
        parameters=sum(parameter.numel() for parameter in teacher.parameters()),
        settings=asdict(size) | {"task": repr(task), "precision": experiment.precision, "seed": experiment.seed},
    )


def _interval(estimate: FrechetEstimate) -> dict[str, float]:
    return {"FD": estimate.distance, "FD low": estimate.low, "FD high": estimate.high}


def _compared(student: str, measured: dict, estimates: dict, clocks: dict[str, float]) -> dict[str, object]:
    """A student beside its teacher where that is best, whatever the number of steps and the sampler."""
    walks = [method for method in estimates if method.startswith(("teacher", "DBIM"))]
    best = min(walks, key=lambda method: estimates[method].distance)
    return {
        "student": student,
        "best teacher": best,
        "FD ratio": asdict(estimates[student].over(estimates[best])),
        "diversity ratio": measured[student]["diversity"] / max(measured[best]["diversity"], 1e-9),
        "times quicker": clocks[best] / clocks[student],
    }


def _improvement(curve: list[dict]) -> float:
    """By which share the distance fell in the last fifth of the training."""
    done = curve[-1]["update"]
    before = min(curve, key=lambda point: abs(point["update"] - math.ceil(0.8 * done)))
    return 1 - curve[-1]["FD"] / before["FD"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=tuple(TASKS))
    parser.add_argument("--path", type=Path, help="CIFAR-10 as a folder or zip; fetched if not given")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16", help="of the networks")
    parser.add_argument("--teacher-updates", type=int, default=FULL.teacher_updates, help="and the regression's")
    parser.add_argument("--student-updates", type=int, default=FULL.student_updates)
    parser.add_argument("--quick", action="store_true", help="a tiny run, to see that everything works")
    parser.add_argument("--folder", type=Path, help="where unfinished work is kept; default: runs/images/TASK")
    parser.add_argument("--results", type=Path, help="where the table goes; default: benchmarks/results/images")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    runs = ROOT / "runs" / ("images-quick" if arguments.quick else "images")
    results = arguments.results or (runs if arguments.quick else RESULTS / "images")
    folder = arguments.folder or runs / arguments.task
    size = replace(FULL, teacher_updates=arguments.teacher_updates, student_updates=arguments.student_updates)
    size = QUICK if arguments.quick else size
    task = TASKS[arguments.task]
    experiment = Experiment(task, size, arguments.path, folder, arguments.precision, arguments.seed)
    run(arguments.task, experiment, results)


if __name__ == "__main__":
    main()
