"""At which pace a student of one call learns: `python benchmarks/pace.py`.

One teacher for each task, and from it a student at each pace: the distance of held-out images, on which nothing is
trained, ten times on the way, and at the end the diversity of its answers beside the teacher's.  The paces differ in
several settings at once: this compares recipes, and does not say which setting matters.  All work is kept
under runs/ (or $IBMD_RUNS): teachers and students that `benchmarks/images.py` has trained are found there, and a run
that was killed goes on.
"""

import argparse
import copy
import os
from dataclasses import asdict, replace
from pathlib import Path

import torch
from report import keep

from ibmd_lite.experiments.restoration import VARIABLE, Experiment
from ibmd_lite.experiments.tasks import HURRIED, PATIENT, SIZES, Pace

ROOT = Path(__file__).resolve().parents[1]
TASKS = ("sr4x-pool", "jpeg-5")
PACES = {
    "patient": PATIENT,
    "hurried": HURRIED,
    "slow": Pace(rate=1e-4, fake_updates=2, falling=False, average=0.998),
}


def at_pace(experiment: Experiment, name: str, pace: Pace) -> Experiment:
    """The experiment with students of another pace, which lie in a folder of their own."""
    if pace == experiment.task.pace:
        return experiment
    other = copy.copy(experiment)
    other.task, other.folder = replace(experiment.task, pace=pace), experiment.folder / "paces" / name
    return other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(SIZES), default="full")
    parser.add_argument("--data", help="photographs, cifar10, tiny-imagenet, or a folder or zip of images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--paces", nargs="+", choices=tuple(PACES), default=tuple(PACES))
    parser.add_argument("--results", type=Path, default=ROOT / "ibmd_lite" / "experiments" / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ.setdefault(VARIABLE, str(ROOT / "runs"))
    size = replace(SIZES[arguments.size], **({"data": arguments.data} if arguments.data else {}))
    curves, teachers, spreads = [], {}, {}
    for task in arguments.tasks:
        experiment = Experiment(task, size)
        teacher, points = experiment.teacher()
        teachers[task] = points[-1]["FD"]
        spreads[task] = {"teacher": experiment.spread(experiment.walk(teacher, size.nfe[-1]))}
        for name in arguments.paces:
            student, points = at_pace(experiment, name, PACES[name]).student(teacher)
            spreads[task][name] = experiment.spread(experiment.call(student))
            curves += [{"task": task, "pace": name} | point for point in points]
    keep(
        "pace",
        curves,
        folder=arguments.results,
        teachers=teachers,
        diversity=spreads,
        paces={name: asdict(pace) for name, pace in PACES.items()},
        settings={"size": arguments.size, "precision": experiment.precision, "device": experiment.device.type},
    )


if __name__ == "__main__":
    main()
