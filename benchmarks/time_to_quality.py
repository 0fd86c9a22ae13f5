"""What it costs to reach the quality of the plain loop: `python benchmarks/time_to_quality.py`.

One teacher, trained once and kept; then every variant of the loop spends the same budget of network passes, over some
seeds, and looks at the Frechet distance of held-out images and at the refitted gap as it goes.  The plain loop, L = 5
with nothing frozen, sets the target.  Passes are counted from arithmetic, so a busy machine does not change them;
seconds are those of an iteration, all variants in turns, times the iterations needed, after those of the compiler
where it is used.  Work is kept under runs/: a run that was killed goes on there.  Once the teachers are trained,
commands with different --seeds may run side by side; a last one with all the seeds makes the table.
"""

import argparse
import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from report import keep
from step_cost import nothing_frozen

from ibmd_lite.distillation import Distillation, DistillationSettings, Student
from ibmd_lite.evaluation import flops, median_seconds, refitted_gap
from ibmd_lite.experiments.legs import in_legs
from ibmd_lite.experiments.restoration import Experiment, Precision
from ibmd_lite.experiments.tasks import Size
from ibmd_lite.model import BridgeModel
from ibmd_lite.training import Draws, Settings

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "ibmd_lite" / "experiments" / "results"  # in the package: the book reads them
TASK = "sr4x-pool"
PLAIN, COMPILED = "L = 5, nothing frozen", "L = 3, shared, bfloat16, compiled"
ALIKE = {PLAIN: "L = 5", COMPILED: "L = 3, shared, bfloat16"}  # they learn as those do, at prices of their own
ALL = 10**9


@dataclass(frozen=True)
class Variant:
    """A way to run the loop.  fake_width: of a smaller fake, trained on pairs as its teacher was."""

    fake_updates: int = 5
    reuse: int = 1
    precision: Precision = "float32"
    fake_width: int | None = None
    compile: bool = False


VARIANTS = {
    "L = 5": Variant(),
    "L = 5, shared": Variant(reuse=5),
    "L = 3, shared": Variant(3, 3),
    "L = 3, shared, bfloat16": Variant(3, 3, "bfloat16"),
    "L = 2, shared": Variant(2, 2),
    "L = 1": Variant(1),
    "L = 5, narrow fake": Variant(fake_width=16),
}


@dataclass(frozen=True)
class Problem:
    """The images and the trained networks that all variants share."""

    experiment: Experiment
    teacher: BridgeModel
    fakes: dict[int | None, BridgeModel]

    @classmethod
    def of(cls, size: Size, folder: Path, variants: dict[str, Variant]) -> "Problem":
        experiment = Experiment(TASK, size, folder=folder / "teacher", precision="float32")
        teacher = experiment.teacher()[0]
        fakes = {None: teacher}
        for width in {variant.fake_width for variant in variants.values()} - {None}:
            narrow = Experiment(TASK, replace(size, width=width), folder=folder / f"fake-{width}", precision="float32")
            fakes[width] = narrow.teacher()[0]
        return cls(experiment, teacher, fakes)

    def run(self, variant: Variant, seed: int) -> Distillation:
        torch.manual_seed(seed)
        shared: dict[str, Any] = {"betas": (0.0, 0.999), "precision": variant.precision, "seed": seed}
        shared["compile"] = variant.compile
        settings = DistillationSettings(
            generator=Settings(2e-4, average=0.99, **shared),
            fake=Settings(4e-4, average=None, **shared),
            fake_updates=variant.fake_updates,
            reuse=variant.reuse,
            weight=self.teacher.output_weight,
        )
        teacher, fake = copy.deepcopy(self.teacher), copy.deepcopy(self.fakes[variant.fake_width])
        return Distillation(teacher, Student.of(teacher), fake=fake, settings=settings, device=self.experiment.device)

    def stream(self, seed: int) -> Draws:
        return Draws(self.experiment.pairs.sources, self.experiment.size.student_batch, seed + 1)

    def distance(self, student: Student) -> float:
        return self.experiment.distance(self.experiment.call(student))

    def gap(self, student: Student, refits: int) -> float:
        """Refitted in float32 from the same draws for everybody."""
        held_out = list(self.experiment.held_out.xT.split(100))[:5]
        found = refitted_gap(
            self.teacher,
            student,
            self.stream(10_000),
            held_out,
            settings=Settings(4e-4, betas=(0.0, 0.999), average=0.95, precision="float32"),
            weight=self.teacher.output_weight,
            every=max(1, refits // 4),
            patience=2,
            longest=refits,
        )
        return found.gap


def costs(problem: Problem, variants: dict[str, Variant], repeats: int) -> dict[str, dict[str, float]]:
    """Passes and median seconds of one iteration of every variant and of those alike, and what their compiler takes."""
    xT = next(problem.stream(0)).to(problem.experiment.device)
    one = torch.ones(len(xT), device=xT.device)
    with torch.no_grad():
        forward = flops(lambda: problem.teacher(xT, one))

    def iteration(variant: Variant) -> tuple[Distillation, Callable[[], Any]]:
        run = problem.run(variant, 0)
        updates = run.updates(problem.stream(0), ALL)
        return run, lambda: next(updates)

    calls: dict[str, Callable[[], Any]] = {name: iteration(variant)[1] for name, variant in variants.items()}
    calls[PLAIN] = nothing_frozen(*iteration(Variant()))
    passes = {name: flops(call) / forward for name, call in calls.items()}
    first = dict.fromkeys(calls, 0.0)
    if ALIKE[COMPILED] in variants:
        calls[COMPILED] = iteration(replace(variants[ALIKE[COMPILED]], compile=True))[1]
        passes[COMPILED] = passes[ALIKE[COMPILED]]
        began = time.perf_counter()
        calls[COMPILED]()  # the first one waits for the compiler
        first[COMPILED] = time.perf_counter() - began
    seconds = median_seconds(calls, repeats)
    return {name: {"passes": passes[name], "seconds": seconds[name], "compiler": first[name]} for name in calls}


def curve(
    problem: Problem, variant: Variant, seed: int, passes: float, arguments: argparse.Namespace, path: Path
) -> list[dict[str, float]]:
    """Look, then train in legs of equal passes; every look is written before the next leg begins."""
    run, count = problem.run(variant, seed), arguments.looks
    ends = [round(look / count * arguments.budget / passes) for look in range(count + 1)]

    def measure() -> dict[str, float]:
        found = {"FD": problem.distance(run.student)}
        if ends.index(run.update) % arguments.refit_each == 0:
            found["gap"] = problem.gap(run.student, arguments.refits)
        return found

    return in_legs(run, problem.stream(seed), ends, path, measure, every=200)


def reached(points: list[dict[str, float]], figure: str, target: float) -> float | None:
    """Updates at which a falling curve first meets the target, a straight line in its logarithm; None: never."""
    seen = [(point["update"], point[figure]) for point in points if figure in point]
    for (start, above), (end, below) in pairwise(seen):
        if below <= target < above:
            return start + (end - start) * math.log(above / target) / math.log(above / below)
    return None


def targets(curves: dict[str, list[list[dict[str, float]]]]) -> dict[str, float]:
    """The best look of the plain loop, as the mean over its seeds, plus a tenth: every seed should come so far."""
    found = {}
    for figure in ("FD", "gap"):
        looks = [[point[figure] for point in points if figure in point] for points in curves["L = 5"]]
        found[figure] = 1.1 * min(statistics.mean(look) for look in zip(*looks, strict=True))
    return found


def rows_of(
    curves: dict[str, list[list[dict[str, float]]]], cost: dict[str, dict[str, float]], seeds: list[int]
) -> list[dict[str, object]]:
    """One row for each variant and seed."""
    aim, rows = targets(curves), []
    for name, price in cost.items():
        for seed, points in zip(seeds, curves[ALIKE.get(name, name)], strict=True):
            row: dict[str, object] = {"variant": name, "seed": seed, "passes an iteration": price["passes"]}
            row["time of an iteration, plain = 1"] = price["seconds"] / cost[PLAIN]["seconds"]
            row["seconds of the compiler"] = price["compiler"]
            for figure, target in aim.items():
                updates = reached(points, figure, target)
                row[f"updates to {figure}"] = updates
                row[f"passes to {figure}"] = None if updates is None else updates * price["passes"]
                row[f"seconds to {figure}"] = (
                    None if updates is None else price["compiler"] + updates * price["seconds"]
                )
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="photographs, cifar10, or a folder or zip of images")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--teacher-updates", type=int, default=3000)
    parser.add_argument("--budget", type=int, default=8_100, help="network passes of one run")
    parser.add_argument("--looks", type=int, default=8)
    parser.add_argument("--refit-each", type=int, default=2, help="looks from one refitted gap to the next")
    parser.add_argument("--refits", type=int, default=240, help="updates of a refitted fake, at most")
    parser.add_argument("--repeats", type=int, default=15, help="turns in which an iteration is timed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "time-to-quality")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size = Size(
        data=arguments.data,
        width=arguments.width,
        multipliers=(1, 2),
        teacher_updates=arguments.teacher_updates,
        teacher_looks=2,
        look_nfe=10,
        held_out=640 if arguments.data == "photographs" else 1000,
        every=200,
    )
    variants = {name: VARIANTS[name] for name in arguments.variants}
    problem = Problem.of(size, arguments.folder, variants)
    cost = costs(problem, variants, arguments.repeats)
    curves = {
        name: [
            curve(
                problem,
                variant,
                seed,
                cost[name]["passes"],
                arguments,
                arguments.folder / f"{name.replace(' ', '').replace(',', '-')}-{seed}",
            )
            for seed in arguments.seeds
        ]
        for name, variant in variants.items()
    }
    settings = {key: value for key, value in vars(arguments).items() if key not in ("data", "folder", "results")}
    keep(
        "time_to_quality",
        rows_of(curves, cost, arguments.seeds),
        folder=arguments.results,
        task=TASK,
        images=len(problem.experiment.learned),
        plain=PLAIN,
        targets=targets(curves),
        device=problem.experiment.device.type,
        curves=curves,
        **settings,
    )


if __name__ == "__main__":
    main()
