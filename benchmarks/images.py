"""Every image task of the book: `python benchmarks/images.py TASK`.

A teacher, a regression network of equal budget and one student or two, then one table on the test images, which no
training saw.  The images are fetched from their publisher, or read from --data, a folder or a zip of
`split/class/file`.  All work is kept under runs/: a run that was killed, at whatever moment, goes on there when the
same command is given again, and ends with the numbers of an unbroken one.
"""

import argparse
import os
from dataclasses import asdict, replace
from pathlib import Path

import torch
from report import keep
from torch import Tensor
from torch.nn import functional

from ibmd_lite.evaluation import FrechetEstimate
from ibmd_lite.experiments.restoration import VARIABLE, Experiment, Method, Row, best_walk, fall
from ibmd_lite.experiments.tasks import SIZES, TASKS
from ibmd_lite.model import Source

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
        settings=asdict(experiment.size) | {"precision": experiment.precision, "seed": experiment.seed, "data": None},
    )


def _flat(row: Row) -> dict[str, object]:
    figures = {"PSNR": row.PSNR, "SSIM": row.SSIM, "accuracy": row.accuracy, "diversity": row.diversity}
    return {"method": row.method, "NFE": row.NFE} | _interval(row.FD) | figures | {"s an image": row.seconds}


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=tuple(TASKS))
    parser.add_argument("--size", choices=tuple(SIZES), default="full")
    parser.add_argument("--data", help="photographs, cifar10, tiny-imagenet, or a folder or zip of images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    parser.add_argument("--teacher-updates", type=int, help="and the regression's")
    parser.add_argument("--student-updates", type=int)
    parser.add_argument("--folder", type=Path, help=f"where unfinished work is kept; default: in ${VARIABLE} or runs/")
    parser.add_argument(
        "--results", type=Path, help="where the table goes; default: in the package for full size, else --folder"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ.setdefault(VARIABLE, str(ROOT / "runs"))
    given = {name: getattr(arguments, name) for name in ("data", "teacher_updates", "student_updates")}
    size = replace(SIZES[arguments.size], **{name: value for name, value in given.items() if value is not None})
    experiment = Experiment(
        arguments.task, size, folder=arguments.folder, precision=arguments.precision, seed=arguments.seed
    )
    results = RESULTS if arguments.size == "full" else experiment.folder
    run(experiment, arguments.results or results)


if __name__ == "__main__":
    main()
