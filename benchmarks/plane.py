"""One-step students in the plane, against their teachers: `python benchmarks/plane.py`.

Two couplings: Gaussian to eight Gaussians with an unconditional bridge, and two moons rotated and
blurred with a conditional one.  W2 to fresh data is given as the excess over the W2 of two fresh draws.
"""

import argparse
import time

import torch
from report import keep

from ibmd_lite.bridges import Brownian
from ibmd_lite.data.plane import GaussianToEight, RotatedNoisy
from ibmd_lite.distillation import Distillation, DistillationSettings, Student
from ibmd_lite.evaluation import wasserstein2_excess
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import MLP
from ibmd_lite.sampling import sample
from ibmd_lite.training import Draws, Settings, progress

Coupling = GaussianToEight | RotatedNoisy


def train_teacher(coupling: Coupling, conditional: bool, updates: int, seed: int) -> BridgeModel:
    torch.manual_seed(seed)
    model = BridgeModel(MLP(width=128, depth=3, conditional=conditional), Brownian(1.0), conditional=conditional)
    settings = Settings(2e-3, average=0.995, seed=seed, decay=updates)
    run = TeacherTraining(model, settings, draw_times=early_times, device="cpu")
    for _ in progress(run.updates(Draws(coupling.draw, 1024, seed), updates), updates, "teacher"):
        pass
    return run.teacher


def early_times(n: int, generator: torch.Generator) -> torch.Tensor:
    """More times near 0, where the modes part; the optimum is the same."""
    return (1e-4 + (1 - 1e-4) * torch.rand(n, generator=generator)).square()


def weight(t: torch.Tensor) -> torch.Tensor:
    """The shape of the KL weight 1/(2 t^2), with an end: near t = 0 the modes are told apart."""
    return 1 / (t.square() + 0.01)


def distil(teacher: BridgeModel, coupling: Coupling, updates: int, seed: int) -> tuple[Student, float]:
    torch.manual_seed(seed)
    settings = DistillationSettings(
        generator=Settings(2e-3, betas=(0.9, 0.999), average=0.99, seed=seed, decay=updates),
        fake=Settings(2e-3, betas=(0.9, 0.999), average=None, seed=seed, decay=updates),
        weight=weight,
    )
    run = Distillation(teacher, Student.of(teacher), settings=settings, device="cpu")
    began = time.perf_counter()
    for _ in progress(
        run.updates(Draws(coupling.sources, 512, seed), updates), updates, "student", show=("gap", "lag")
    ):
        pass
    return run.student, time.perf_counter() - began


def compare(coupling: Coupling, conditional: bool, arguments: argparse.Namespace, seed: int) -> list[dict[str, object]]:
    teacher = train_teacher(coupling, conditional, arguments.teacher_updates, seed)
    student, seconds = distil(teacher, coupling, arguments.updates, seed)
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
