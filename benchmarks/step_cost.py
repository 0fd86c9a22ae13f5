"""What one iteration of distillation costs beyond its network passes: `python benchmarks/step_cost.py`.

An iteration is L = 5 fake updates and one generator update.  The floor is the time of just the passes that the
mathematics needs, on the same networks and shapes: five generator passes without gradient, five passes
forward and backward through the fake, one forward and backward through the generator, and one through
teacher and fake to their input only.  'Nothing frozen' is the same loop without freezing anybody.
"""

import argparse
import contextlib
import copy
import statistics
import time
from collections.abc import Callable
from unittest import mock

import torch
from report import keep

from ibmd_lite import distillation
from ibmd_lite.bridges import Brownian
from ibmd_lite.distillation import Distillation, DistillationSettings, Student
from ibmd_lite.model import BridgeModel, I2SBNoise
from ibmd_lite.networks import UNet
from ibmd_lite.training import Settings, Shuffled, frozen

SIZE, CHANNELS = 32, 3


NETWORKS = {
    "compact U-Net": lambda: UNet(),
    "the Quickstart's, half resolution": lambda: UNet(width=48, multipliers=(1, 2), patch=2),
    "the image chapters', full size": lambda: UNet(width=64, multipliers=(1, 2, 2), patch=2),
}


def make_run(network: Callable[[], UNet], batch: int) -> tuple[Distillation, Shuffled]:
    torch.manual_seed(0)
    teacher = BridgeModel(network(), Brownian(0.02), prediction=I2SBNoise())
    settings = DistillationSettings(
        generator=Settings(1e-5, betas=(0.0, 0.999), average=0.99, precision="float32"),
        fake=Settings(1e-5, betas=(0.0, 0.999), average=None, precision="float32"),
        weight=teacher.output_weight,
    )
    run = Distillation(teacher, Student.of(teacher), settings=settings, device="cpu")
    return run, Shuffled(torch.randn(8 * batch, CHANNELS, SIZE, SIZE), batch=batch)


def make_floor(run: Distillation, batch: int) -> Callable[[], None]:
    """The bare passes, on copies of the same networks."""
    teacher, fake, generator = (
        copy.deepcopy(model.network) for model in (run.teachers[None], run.fake, run.student_learner.module.model)
    )
    x, z = torch.randn(2, batch, CHANNELS, SIZE, SIZE)
    wide = torch.cat([x, z], 1)
    time_input = torch.rand(batch) * 1000
    ones = torch.ones_like(x)

    def passes() -> None:
        for _ in range(run.settings.fake_updates):
            with torch.no_grad():
                generator(wide, time_input)
            fake(x, time_input).backward(ones)
        generator(wide, time_input).backward(ones)
        point = x.clone().requires_grad_()
        with frozen(teacher, fake):
            torch.autograd.backward([teacher(point, time_input), fake(point, time_input)], [ones, ones])

    return passes


def nothing_frozen(run: Distillation, step: Callable[[], object]) -> Callable[[], None]:
    def passes() -> None:
        run.teachers[None].requires_grad_(True)
        with mock.patch.object(distillation, "frozen", return_value=contextlib.nullcontext()):
            step()

    return passes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [row for name in NETWORKS for row in measure(name, arguments.batch, arguments.repeats)]
    keep("step_cost", rows, size=SIZE, precision="float32", compiled=False, **vars(arguments))


def measure(network: str, batch: int, repeats: int) -> list[dict[str, object]]:
    candidates: dict[str, Callable[[], object]] = {}
    run, draws = make_run(NETWORKS[network], batch)
    candidates["floor: network passes"] = make_floor(run, batch)
    updates = run.updates(draws, 10**9)
    candidates["ibmd_lite"] = lambda: next(updates)
    naive, more_draws = make_run(NETWORKS[network], batch)
    naive_updates = naive.updates(more_draws, 10**9)
    candidates["nothing frozen"] = nothing_frozen(naive, lambda: next(naive_updates))
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(repeats + 2):
        for name, call in candidates.items():
            began = time.perf_counter()
            call()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - began)
    floor = seconds["floor: network passes"]
    rows: list[dict[str, object]] = []
    for name, spent in seconds.items():
        ratios = [one / two for one, two in zip(spent, floor, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        rows.append(
            {
                "network": network,
                "iteration": name,
                "median ms": 1000 * statistics.median(spent),
                "of the floor": median,
                "quartiles": f"{low:.3f} to {high:.3f}",
            }
        )
    return rows


if __name__ == "__main__":
    main()
