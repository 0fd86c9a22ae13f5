"""Every image task of the book: `python benchmarks/images.py TASK`.

A teacher, a regression network of equal budget and its students, then one table on the test images, which no training
saw; the networks are left as safetensors with a card.  The task `all-tasks` is one student of all, beside the single
ones.  The images are fetched from their publisher, or read from --data, a folder or a zip of
`split/class/file`.  All work is kept under runs/: a run that was killed, at whatever moment, goes on there when the
same command is given again, and ends with the numbers of an unbroken one.
"""

import os
from dataclasses import asdict
from pathlib import Path

import torch
from report import keep
from torch import Tensor
from torch.nn import functional

from ibmd_lite.evaluation import FrechetEstimate
from ibmd_lite.experiments.all_tasks import AllTasks
from ibmd_lite.experiments.cards import described, publish
from ibmd_lite.experiments.restoration import VARIABLE, Experiment, Method, Row, best_walk, fall
from ibmd_lite.experiments.tasks import TASKS
from ibmd_lite.model import Source
from ibmd_lite.train import options, size_of
from ibmd_lite.training import peak_memory

ALL = "all-tasks"
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "ibmd_lite" / "experiments" / "results" / "images"  # in the package: the book reads them


def bicubic(source: Source, generator: torch.Generator) -> Tensor:
    """The small picture inside a pooled one, enlarged smoothly."""
    small = functional.avg_pool2d(source.xT, 4)
    return functional.interpolate(small, scale_factor=4.0, mode="bicubic", antialias=True)


def run(experiment: Experiment, results: Path) -> Path:
    """Train, measure, print the table and keep it."""
    teacher, curve = experiment.teacher()
    regression, regression_curve = experiment.regression()
    curves, students = {"teacher": curve, "regression": regression_curve}, {}
    for steps in experiment.task.steps:
        students[steps], curves[f"student, {steps} NFE"] = experiment.student(teacher, steps)
    others = {"bicubic": Method(0, bicubic)} if experiment.name == "sr4x-pool" else {}
    rows = experiment.table(experiment.methods(teacher, regression, students, **others))
    print(f"networks and their card: {publish(experiment.folder / 'models', experiment, teacher, students, rows)}")
    return keep(
        experiment.name,
        [_flat(row) for row in rows.values()],
        folder=results,
        task=repr(experiment.task),
        floor=_interval(experiment.floor()),
        compared=[_compared(rows[f"student, {steps} NFE"], best_walk(rows)) for steps in students],
        plateau=fall(curve),
        curves=curves,
        parameters=sum(parameter.numel() for parameter in teacher.parameters()),
        images=len(experiment.test),
        device=experiment.device.type,
        peak_memory=peak_memory(),
        settings=_settings(experiment),
        data=described(experiment),
    )


def run_all(experiments: list[Experiment], folder: Path, results: Path, samples: int) -> Path:
    """One student of all tasks, in one call, beside the single students of one call and the teachers."""
    everything = AllTasks(experiments, folder, samples=samples)
    start_curve = everything.start()[1]
    student, curve = everything.student()
    shared, rows, compared = everything.rows(student), [], []
    for one, teacher in zip(experiments, everything.teachers.values(), strict=True):
        regression, single = one.regression()[0], {1: one.student(teacher, 1)[0]}
        others = one.table(one.methods(teacher, regression, single))
        own, row = others["student, 1 NFE"], shared[one.name]
        rows += [{"task": one.name} | _untimed(each) for each in (best_walk(others), own, row)]
        compared.append({"task": one.name, "FD ratio": asdict(row.FD.over(own.FD))})
    student.save(folder / "student.safetensors")
    first = experiments[0]
    return keep(
        "all-tasks",
        rows,
        folder=results,
        tasks=[one.name for one in experiments],
        samples=samples,
        compared=compared,
        curves={"start": start_curve, "student": curve},
        parameters=sum(parameter.numel() for parameter in student.parameters()),
        images=len(first.test),
        device=first.device.type,
        settings=_settings(first),
        data=described(first),
    )


def _settings(experiment: Experiment) -> dict[str, object]:
    about = asdict(experiment.size) | {"precision": experiment.precision, "seed": experiment.seed}
    del about["data"]  # a path of this machine, perhaps
    return about


def _flat(row: Row) -> dict[str, object]:
    figures = {"PSNR": row.PSNR, "SSIM": row.SSIM, "accuracy": row.accuracy, "diversity": row.diversity}
    return {"method": row.method, "NFE": row.NFE} | _interval(row.FD) | figures | {"s an image": row.seconds}


def _untimed(row: Row) -> dict[str, object]:
    return {name: figure for name, figure in _flat(row).items() if name != "s an image"}


def _interval(estimate: FrechetEstimate) -> dict[str, float]:
    return {"FD": estimate.distance, "FD low": estimate.low, "FD high": estimate.high}


def _compared(student: Row, best: Row) -> dict[str, object]:
    """A student beside its teacher where that is best."""
    return {
        "student": student.method,
        "best teacher": best.method,
        "FD ratio": asdict(student.FD.over(best.FD)),
        "diversity ratio": student.diversity / max(best.diversity, 1e-9),
        "times quicker": best.seconds / student.seconds,
    }


def main() -> None:
    parser = options(__doc__, (*TASKS, ALL))
    parser.add_argument("--samples", type=int, default=2000, help="of each teacher, for the common start of all tasks")
    parser.add_argument(
        "--results", type=Path, help="where the table goes; default: in the package for full size, else --folder"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ.setdefault(VARIABLE, str(ROOT / "runs"))
    size = size_of(arguments)
    together = arguments.task == ALL
    names = [name for name in TASKS if name != "inpainting-conditional"] if together else [arguments.task]
    experiments = [
        Experiment(
            name,
            size,
            folder=arguments.folder / name if together and arguments.folder else arguments.folder,
            precision=arguments.precision,
            seed=arguments.seed,
        )
        for name in names
    ]
    first = experiments[0].folder
    results = arguments.results or (RESULTS if arguments.size == "full" else first)
    if together:
        run_all(experiments, first / ALL, results, arguments.samples)
    else:
        run(experiments[0], results)


if __name__ == "__main__":
    main()
