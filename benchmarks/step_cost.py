"""What distillation and its student cost beyond their network passes: `python benchmarks/step_cost.py`.

An iteration is L = 5 fake updates and one generator update.  The floor is the time of just the passes that the
mathematics needs, on the same networks and shapes: five generator passes without gradient, five passes
forward and backward through the fake, one forward and backward through the generator, and one through
teacher and fake to their input only.  'Nothing frozen' is the same loop without freezing anybody.  The student's floor
is one call of its bare network.  On a data-centre GPU:
`--device cuda --side 64 --batch 128 --precision bfloat16 --compile`.
"""

import argparse
import contextlib
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from report import keep

from ibmd_lite import distillation
from ibmd_lite.bridges import Brownian
from ibmd_lite.distillation import Distillation, DistillationSettings, Student
from ibmd_lite.model import BridgeModel, I2SBNoise
from ibmd_lite.networks import UNet
from ibmd_lite.training import Settings, Shuffled, frozen

CHANNELS = 3
NETWORKS = {
    "compact U-Net": lambda: UNet(),
    "the Quickstart's, half resolution": lambda: UNet(width=48, multipliers=(1, 2), patch=2),
    "the image chapters', full size": lambda: UNet(width=64, multipliers=(1, 2, 2), patch=2),
    "the image chapters', large size": lambda: UNet(width=128, multipliers=(1, 2, 3), blocks=2, patch=2),
}
Call = Callable[[], object]


def make_run(network: Callable[[], UNet], arguments: argparse.Namespace) -> Distillation:
    torch.manual_seed(0)
    teacher = BridgeModel(network(), Brownian(0.02), prediction=I2SBNoise())
    shared = {"betas": (0.0, 0.999), "precision": arguments.precision, "compile": arguments.compile}
    settings = DistillationSettings(
        generator=Settings(1e-5, average=0.99, **shared),
        fake=Settings(1e-5, average=None, **shared),
        weight=teacher.output_weight,
    )
    return Distillation(teacher, Student.of(teacher), settings=settings, device=arguments.device)


def iterations(run: Distillation, arguments: argparse.Namespace) -> Iterator[object]:
    images = torch.randn(8 * arguments.batch, CHANNELS, arguments.side, arguments.side)
    return run.updates(Shuffled(images, batch=arguments.batch), 10**9)


def make_floor(run: Distillation, arguments: argparse.Namespace) -> tuple[Call, Call]:
    """The bare passes of an iteration, and of the student at work, on copies of the same networks."""
    networks = [
        copy.deepcopy(model.network) for model in (run.teachers[None], run.fake, run.student_learner.module.model)
    ]
    if arguments.compile:  # a copy is not compiled
        for network in networks:
            network.compile()
    teacher, fake, generator = networks
    x, z = torch.randn(2, arguments.batch, CHANNELS, arguments.side, arguments.side, device=run.device)
    wide = torch.cat([x, z], 1)
    time_input = torch.rand(arguments.batch, device=run.device) * 1000
    precision = run.student_learner.autocast

    def call(network: UNet, images: torch.Tensor) -> torch.Tensor:
        with precision():
            return network(images, time_input).float()

    def bare() -> None:
        with torch.no_grad():
            call(generator, wide)

    ones = torch.ones_like(x)

    def passes() -> None:
        for _ in range(run.settings.fake_updates):
            bare()
            call(fake, x).backward(ones)
        call(generator, wide).backward(ones)
        point = x.clone().requires_grad_()
        with frozen(teacher, fake):
            torch.autograd.backward([call(teacher, point), call(fake, point)], [ones, ones])

    return passes, bare


def nothing_frozen(run: Distillation, step: Call) -> Call:
    def passes() -> None:
        run.teachers[None].requires_grad_(True)
        with mock.patch.object(distillation, "frozen", return_value=contextlib.nullcontext()):
            step()

    return passes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS)[:3])
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [row for name in arguments.networks for row in measure(name, arguments)]
    name = "step_cost" if arguments.device == "cpu" else f"step_cost-{arguments.device}"
    machine = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "CPU"
    keep(name, rows, machine=machine, **vars(arguments))


def measure(network: str, arguments: argparse.Namespace) -> list[dict[str, object]]:
    run, naive = make_run(NETWORKS[network], arguments), make_run(NETWORKS[network], arguments)
    floor, bare = make_floor(run, arguments)
    updates, naive_updates = iterations(run, arguments), iterations(naive, arguments)
    student = copy.deepcopy(run.student)
    if arguments.compile:
        student.compile()
    x = torch.randn(arguments.batch, CHANNELS, arguments.side, arguments.side, device=run.device)

    def restore() -> None:
        with run.student_learner.autocast():
            student(x)

    loops: dict[str, Call] = {
        "floor: network passes": floor,
        "ibmd_lite": lambda: next(updates),
        "nothing frozen": nothing_frozen(naive, lambda: next(naive_updates)),
    }
    sampling: dict[str, Call] = {"the student's bare network": bare, "the student": restore}
    return [row for calls in (loops, sampling) for row in compared(network, calls, arguments)]


def compared(network: str, calls: dict[str, Call], arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Each call over the first, turn by turn; the first two turns warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(arguments.repeats + 2):
        for name, call in calls.items():
            wait(arguments.device)
            began = time.perf_counter()
            call()
            wait(arguments.device)
            if turn >= 2:
                seconds[name].append(time.perf_counter() - began)
    floor = next(iter(seconds.values()))
    rows: list[dict[str, object]] = []
    for name, spent in seconds.items():
        ratios = [one / two for one, two in zip(spent, floor, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        rows.append(
            {
                "network": network,
                "call": name,
                "median ms": 1000 * statistics.median(spent),
                "of the floor": median,
                "quartiles": f"{low:.3f} to {high:.3f}",
            }
        )
    return rows


def wait(device: str) -> None:
    """A GPU takes orders and works them off later."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
