"""An image task from the command line: `python -m ibmd_lite.train TASK`, in one process or in many.

Trains the task's teacher and distils its students, by the functions that the chapters call.  In many processes, one a
GPU: `torchrun --nproc_per_node 4 -m ibmd_lite.train TASK`, or `accelerate launch --multi_gpu --num_processes 4 -m
ibmd_lite.train TASK`; they share each batch, so that the training is the same one; with ``--shard`` the networks too,
each process keeping a share of every weight.  What is finished is kept in the folder: the same command goes on, also
with another number of processes, with or without shares.  Imports the experiments.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ibmd_lite.distillation import DistillationSettings
from ibmd_lite.experiments.restoration import VARIABLE, Experiment
from ibmd_lite.experiments.tasks import SIZES, TASKS, Size
from ibmd_lite.training import Settings, process, share, whole

__all__ = ["main", "options", "size_of"]


def options(description: str | None, tasks: tuple[str, ...] = tuple(TASKS)) -> argparse.ArgumentParser:
    """What every command that trains a task can be told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=tasks)
    parser.add_argument("--size", choices=tuple(SIZES), default="full")
    parser.add_argument("--data", help="photographs, cifar10, tiny-imagenet, or a folder or zip of images")
    parser.add_argument("--threads", type=_positive, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    parser.add_argument("--teacher-updates", type=_positive)
    parser.add_argument("--student-updates", type=_positive)
    parser.add_argument("--folder", type=Path, help=f"where work is kept; default: in ${VARIABLE} or runs/")
    return parser


def _positive(word: str) -> int:
    number = int(word) if word.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {word!r}")
    return number


def size_of(arguments: argparse.Namespace) -> Size:
    """The size that was named, with what was told otherwise."""
    given = {name: getattr(arguments, name) for name in ("data", "teacher_updates", "student_updates")}
    return replace(SIZES[arguments.size], **{name: value for name, value in given.items() if value is not None})


class InShares(Experiment):
    """The same trainings, of networks of which each process keeps a share."""

    @property
    def settings(self) -> Settings:
        """As of every experiment, in shares."""
        return replace(super().settings, shard=True)

    def student_settings(self, *given: Any, **named: Any) -> DistillationSettings:
        """As of every experiment, both networks, and so the teacher, in shares."""
        both = super().student_settings(*given, **named)
        return replace(both, generator=replace(both.generator, shard=True), fake=replace(both.fake, shard=True))


def main(words: list[str] | None = None) -> None:
    """Train, distil, and save the networks."""
    parser = options(__doc__)
    parser.prog = "python -m ibmd_lite.train"
    parser.add_argument("--shard", action="store_true", help="of many processes each keeps a share of the networks")
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    os.environ.setdefault(VARIABLE, "runs")
    size = size_of(arguments)
    try:
        for batch in (size.teacher_batch, size.student_batch):
            share(batch)
        kind = InShares if arguments.shard else Experiment
        experiment = kind(
            arguments.task, size, folder=arguments.folder, precision=arguments.precision, seed=arguments.seed
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    number, count = process()
    if number == 0:
        print(f"processes: {count}", flush=True)
    teacher, _ = experiment.teacher()
    networks: dict[str, Any] = {"teacher": whole(teacher)}
    for steps in experiment.task.steps:  # a distillation leaves its teacher in shares
        networks[f"student-{steps}"] = whole(experiment.student(whole(teacher), steps)[0])
    if number == 0:
        for name, network in networks.items():
            network.save(experiment.folder / "models" / f"{name}.safetensors")
        print(f"networks: {experiment.folder / 'models'}")
    if count > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
