"""What several processes gain on one machine: `python benchmarks/scaling.py`.

Updates of a teacher and of a distillation in 1, 2 and 4 processes, as many as there are cores (GPUs with
`--device cuda`), each with one thread.  Strong scaling shares one batch among them, weak scaling gives each as many
images as one has alone.  Efficiency is the time alone over n times the time of n (strong), or over the time of n
(weak).  Every round starts all of them anew, one after the other, and compares within itself.  'in shares' is
`Settings(shard=True)`; held is what a process keeps of weights (teacher and averages among them) and of Adam's moments.
'message' is the averaging of whole gradients alone.  Needs a machine that does nothing else.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from report import keep
from torch import Tensor

from ibmd_lite import experiments
from ibmd_lite.bridges import Brownian
from ibmd_lite.distillation import Distillation, DistillationSettings, Student
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BridgeModel, I2SBNoise
from ibmd_lite.networks import UNet
from ibmd_lite.training import Draws, Learner, Settings, process, share
from ibmd_lite.training.processes import average_over_processes

STORED = Path(experiments.__file__).parent / "results"
WARMUP = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--processes", type=int, nargs="+", help="1 first; by default 1, 2 and 4 as far as there are cores"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32, help="of one process alone")
    parser.add_argument("--updates", type=int, default=12, help="that are timed, in every round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=STORED)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.one:
        found = measured(arguments)
        if process()[0] == 0:
            print(json.dumps(found))
        if process()[1] > 1:
            torch.distributed.destroy_process_group()
        return
    places = torch.cuda.device_count() if arguments.device == "cuda" else len(os.sched_getaffinity(0))
    counts = arguments.processes or [count for count in (1, 2, 4) if count <= places]
    if counts[0] != 1 or any(arguments.batch % count for count in counts):
        sys.exit(f"error: {counts} processes: expected 1 first, and numbers that divide the batch, {arguments.batch}")
    began = time.perf_counter()
    rounds = [{count: in_processes(count) for count in counts} for _ in range(arguments.rounds)]
    machine = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    told = {name: value for name, value in vars(arguments).items() if name not in ("one", "results", "processes")}
    about = told | {"machine": machine, "places": places, "seconds": time.perf_counter() - began}
    keep("scaling", compared(rounds), arguments.results, **about)


def in_processes(count: int) -> list[dict]:
    """The same command in so many processes; what the first of them measured."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"] if count > 1 else []
    command = [sys.executable, *launcher, __file__, *sys.argv[1:], "--one"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measured(arguments: argparse.Namespace) -> list[dict]:
    """Every training, batch and way to keep the networks, in this number of processes."""
    count = process()[1]
    rows = []
    for kind, training in {"teacher": teacher, "distillation": distillation}.items():
        for shares in (False, True) if count > 1 else (False,):
            batches = {"strong": share(arguments.batch)} | ({"weak": arguments.batch} if count > 1 else {})
            for scaling, batch in batches.items():
                torch.manual_seed(0)
                seconds, held, message = training(arguments, batch, shares)
                row = {"training": kind, "scaling": scaling, "processes": count, "in shares": shares}
                rows.append(row | {"batch": batch * count, "s": seconds} | held | {"message s": message})
    return rows


def model(arguments: argparse.Namespace) -> BridgeModel:
    network = UNet(width=arguments.width, multipliers=(1, 2, 2), patch=2)
    return BridgeModel(network, Brownian(0.02), prediction=I2SBNoise())


def teacher(arguments: argparse.Namespace, batch: int, shares: bool) -> tuple[float, dict[str, float], float]:
    settings = Settings(1e-5, precision=arguments.precision, shard=shares)
    run = TeacherTraining(model(arguments), settings, device=device(arguments))
    shape = (batch, 3, arguments.side, arguments.side)
    pairs = Draws(lambda n, generator: tuple(torch.randn(2, *shape, generator=generator)), batch)
    seconds = median(run.updates(pairs, WARMUP + arguments.updates))
    return seconds, held([run.learner], []), message(run.learner)


def distillation(arguments: argparse.Namespace, batch: int, shares: bool) -> tuple[float, dict[str, float], float]:
    of = model(arguments)
    both = {"betas": (0.0, 0.999), "precision": arguments.precision, "shard": shares}
    settings = DistillationSettings(Settings(1e-5, average=0.99, **both), Settings(1e-5, average=None, **both))
    run = Distillation(of, Student.of(of), settings=settings, device=device(arguments))
    shape = (batch, 3, arguments.side, arguments.side)
    sources = Draws(lambda n, generator: torch.randn(*shape, generator=generator), batch)
    seconds = median(run.updates(sources, WARMUP + arguments.updates // 3))  # an update is six of a teacher
    learners = [run.student_learner, run.fake_learner]
    return seconds, held(learners, of.parameters()), message(run.student_learner) + 5 * message(run.fake_learner)


def device(arguments: argparse.Namespace) -> torch.device:
    number = process()[0]
    return torch.device("cuda", number) if arguments.device == "cuda" else torch.device("cpu")


def median(updates: Iterable) -> float:
    return statistics.median([record.seconds for record in updates][WARMUP:])


def held(learners: list[Learner], frozen: Iterable[Tensor]) -> dict[str, float]:
    """MiB that this process keeps between two updates."""
    weights, moments = list(frozen), []
    for learner in learners:
        weights += [*learner.parameters, *(learner.average.module.parameters() if learner.average else [])]
        moments += [x for kept in learner.optimiser.state.values() for name, x in kept.items() if name != "step"]
    return {"weights MiB": mebibytes(weights), "optimiser MiB": mebibytes(moments)}


def mebibytes(tensors: Iterable[Tensor]) -> float:
    own = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
    return sum(tensor.numel() * tensor.element_size() for tensor in own) / 2**20


def message(learner: Learner) -> float:
    """Seconds to average whole gradients once."""
    gradients = [torch.zeros(parameter.shape, device=learner.device) for parameter in learner.parameters]
    spent = []
    for _ in range(7):
        began = time.perf_counter()
        average_over_processes(gradients)
        gradients[0].sum().item()  # a GPU takes orders and works them off later
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def compared(rounds: list[dict[int, list[dict]]]) -> list[dict[str, object]]:
    """A row for every training and number of processes: medians over the rounds, efficiency within each."""
    rows = []
    for count, first in rounds[0].items():
        for place, row in enumerate(first):
            many = row["scaling"] == "strong"
            ratios, seconds = [], []
            for found in rounds:
                alone = next(one for one in found[1] if one["training"] == row["training"])["s"]
                seconds.append(found[count][place]["s"])
                ratios.append(alone / seconds[-1] / (count if many else 1))
            told = {"s": statistics.median(seconds), "updates a second": 1 / statistics.median(seconds)}
            told |= {"efficiency": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
            rows.append(row | told)
    return rows


if __name__ == "__main__":
    main()
