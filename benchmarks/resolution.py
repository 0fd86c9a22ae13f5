"""Time and memory of every kind of update against the images' side and the batch: `python benchmarks/resolution.py`.

A teacher's update, an update of the fake (its generator's pass included) and one of the generator, with and without
recomputed layers (``training.recomputing``), beside the operations that ``experiments.cost`` counts for each.  Every
point runs in a process of its own, because a process's peak of memory never falls.  On the CPU, seconds are of its
clock for one thread, and memory is what came on top of the loaded libraries; on a GPU, seconds of the wall and the
tensors' own peak.  On a data-centre GPU:
`--device cuda --precision bfloat16 --networks "ADM, as published" --points 64x16 256x4 512x2 1024x1`.
"""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from report import keep

from ibmd_lite import experiments
from ibmd_lite.bridges import Brownian
from ibmd_lite.distillation import Distillation, DistillationSettings, Student
from ibmd_lite.experiments.cost import Setup
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import UNet
from ibmd_lite.teachers import ADM, Architecture
from ibmd_lite.training import Draws, Settings, peak_memory
from ibmd_lite.training.recomputing import recompute

STORED = Path(experiments.__file__).parent / "results"
NETWORKS = {
    "compact U-Net": UNet,
    "ADM, narrow": lambda: ADM(Architecture(32, (1, 1, 2, 2), 1, (8,), 32)),
    "ADM, as published": lambda: ADM(Architecture()),
}
POINTS = {
    "compact U-Net": ("64x1", "64x4", "128x1", "128x4", "256x1", "256x2"),
    "ADM, narrow": ("64x1", "128x1"),
    "ADM, as published": ("256x1",),
}
LAYERS = {UNet: r"(down|up)\.\d+", ADM: ADM.blocks}
INPUT = {UNet: "input_layer", ADM: ADM.input_layer}
KINDS = ("teacher", "fake", "generator")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS)[:2])
    parser.add_argument("--points", nargs="+", help="sides and batches, as 64x4; by default some for each network")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "RECOMPUTED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one:
        name, recomputed = arguments.one
        print(json.dumps(measured(name, recomputed == "True", *sizes(arguments.points[0]), arguments)))
        return
    rows = []
    for name in arguments.networks:
        for point in arguments.points or POINTS[name]:
            for recomputed in (False, True):
                side, batch = sizes(point)
                told = {f"{kind} GFLOP": batch * count / 1e9 for kind, count in counted(name, recomputed, side).items()}
                row = {"network": name, "side": side, "batch": batch, "recomputed": recomputed}
                rows.append(row | in_a_process(name, recomputed, point, arguments) | told)
                print(rows[-1], file=sys.stderr)
    machine = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "CPU"
    del arguments.one
    name = "resolution" if arguments.device == "cpu" else f"resolution-{arguments.device}"
    keep(name, rows, STORED, machine=machine, **vars(arguments))


def sizes(point: str) -> tuple[int, int]:
    side, batch = point.split("x")
    return int(side), int(batch)


def made(name: str, recomputed: bool, device: str) -> torch.nn.Module:
    with torch.device(device):
        network = NETWORKS[name]()
    return recompute(network, LAYERS[type(network)]) if recomputed else network


@functools.cache
def counted(name: str, recomputed: bool, side: int) -> dict[str, int]:
    """Operations of every kind of update, for one image."""
    network = made(name, recomputed, "meta")
    layer = INPUT[type(network)]
    setup = Setup.of(network, (3, side, side), batch=1, updates=1, fake_updates=1, input_layer=layer)
    return dict(zip(KINDS, (setup.teacher.training, setup.fake_update, setup.generator_update), strict=True))


def in_a_process(name: str, recomputed: bool, point: str, arguments: argparse.Namespace) -> dict[str, float]:
    options = [f"--{key}={getattr(arguments, key)}" for key in ("repeats", "threads", "device", "precision")]
    command = [sys.executable, __file__, *options, "--points", point, "--one", name, str(recomputed)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measured(name: str, recomputed: bool, side: int, batch: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Median seconds of every kind of update, and the peaks of a teacher's training and of a distillation."""
    torch.manual_seed(0)
    network, on_gpu = made(name, recomputed, "cpu"), arguments.device != "cpu"
    teacher = BridgeModel(network, Brownian(0.1))
    images = torch.randn(batch, 3, side, side)
    before = 0 if on_gpu else peak_memory()
    training = TeacherTraining(teacher, Settings(precision=arguments.precision), device=arguments.device)
    spent: dict[str, list[float]] = {kind: [] for kind in KINDS}
    training.learner.step = timed(training.learner.step, spent["teacher"], on_gpu)  # type: ignore[method-assign]
    for _ in training.updates(Draws(lambda n, generator: (images, images), batch), arguments.repeats + 1):
        pass
    peaks = {"teacher MiB": (peak_memory() - before) / 2**20}
    del training
    settings = DistillationSettings(
        generator=Settings(1e-5, average=0.99, precision=arguments.precision),
        fake=Settings(1e-5, average=None, precision=arguments.precision),
        fake_updates=1,
    )
    student = Student.of(teacher, input_layer=INPUT[type(network)])
    run = Distillation(teacher, student, settings=settings, device=arguments.device)
    run.fake_learner.step = timed(run.fake_learner.step, spent["fake"], on_gpu)  # type: ignore[method-assign]
    run.student_learner.step = timed(run.student_learner.step, spent["generator"], on_gpu)  # type: ignore[method-assign]
    for _ in run.updates(Draws(lambda n, generator: images, batch), arguments.repeats + 1):
        pass
    peaks["distillation MiB"] = (peak_memory() - before) / 2**20
    return {f"{kind} s": statistics.median(seconds[1:]) for kind, seconds in spent.items()} | peaks


def timed(step: Callable[..., float], spent: list[float], on_gpu: bool) -> Callable[..., float]:
    """A learner's step that notes its seconds: of the wall on a GPU, else of this process on the processor."""
    clock = time.perf_counter if on_gpu else time.process_time

    def stopped(*given: object) -> float:
        began = clock()
        value = step(*given)
        if on_gpu:
            torch.cuda.synchronize()
        spent.append(clock() - began)
        return value

    return stopped


if __name__ == "__main__":
    main()
