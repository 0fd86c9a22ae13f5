"""One-step students in the plane, against their teachers: `python benchmarks/plane.py`.

Two couplings: Gaussian to eight Gaussians with an unconditional bridge, and two moons rotated and
blurred with a conditional one.  W2 to fresh data is given as the excess over the W2 of two fresh draws.
"""

import argparse
import time

import torch
from report import keep

from ibmd_lite.data.plane import GaussianToEight, RotatedNoisy
from ibmd_lite.distillation import Student
from ibmd_lite.evaluation import wasserstein2_excess
from ibmd_lite.model import BridgeModel
from ibmd_lite.recipes import Coupling, distil, train_teacher
from ibmd_lite.sampling import sample


def train_and_distil(
    coupling: Coupling, conditional: bool, arguments: argparse.Namespace, seed: int
) -> tuple[BridgeModel, Student, float]:
    """A teacher, its student, and the seconds that distillation took."""
    print(f"{type(coupling).__name__}, seed {seed}: teacher and student", flush=True)
    teacher = train_teacher(coupling, conditional=conditional, updates=arguments.teacher_updates, seed=seed)
    began = time.perf_counter()
    student = distil(teacher, coupling, updates=arguments.updates, seed=seed)
    return teacher, student, time.perf_counter() - began


def compare(coupling: Coupling, conditional: bool, arguments: argparse.Namespace, seed: int) -> list[dict[str, object]]:
    teacher, student, seconds = train_and_distil(coupling, conditional, arguments, seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    grid = teacher.bridge.grid
    models = {
        "teacher, 1 NFE": lambda xT: sample(teacher, xT, grid(1), generator=generator).x0,
        "teacher, 100 NFE": lambda xT: sample(teacher, xT, grid(100), generator=generator).x0,
        "student, 1 NFE": lambda xT: student(xT, generator=generator),
    }
    rows = []
    for name, restore in models.items():
        distance = wasserstein2_excess(
            lambda n, restore=restore: restore(coupling.sources(n, generator)),
            lambda n: coupling.targets(n, generator),
            draws=arguments.draws,
        )
        row: dict[str, object] = {"coupling": type(coupling).__name__, "seed": seed, "model": name}
        row |= {
            "W2": distance.distance,
            "floor": distance.floor,
            "excess": distance.excess,
            "s.e.": distance.standard_error,
        }
        if isinstance(coupling, RotatedNoisy):
            xT = coupling.sources(20_000, generator)
            row["pairing error"] = coupling.pairing_error(restore(xT), xT)
        else:
            row["pairing error"] = "-"
        row["distilled in s"] = round(seconds, 1) if name.startswith("student") else "-"
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--teacher-updates", type=int, default=4000)
    parser.add_argument("--updates", type=int, default=1500, help="generator updates")
    parser.add_argument("--draws", type=int, default=10, help="draws of 2,000 points for each distance")
    parser.add_argument("--threads", type=int, default=1, help="more hardly helps such small networks")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for coupling, conditional in ((GaussianToEight(), False), (RotatedNoisy(), True)):
        for seed in arguments.seeds:
            rows += compare(coupling, conditional, arguments, seed)
    keep("plane", rows, **vars(arguments))


if __name__ == "__main__":
    main()
