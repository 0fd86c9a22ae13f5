"""Every family of public teachers at a reduced width, distilled on real images: `python benchmarks/families.py`.

Each family's network, schedule, prediction type and sampler, in small, on images of 16 x 16: a teacher, its student of
one call and of two, how far both are from the teacher's own long walk, and the refitted gap before and after.  All work
is kept under runs/ (or $IBMD_RUNS): a run that was killed goes on.  About half an hour a family on one core.
"""

import argparse
import os
from dataclasses import asdict
from pathlib import Path

import torch
from report import keep

from ibmd_lite.data import Images
from ibmd_lite.experiments.families import FAMILIES, Budget, FamilyRun
from ibmd_lite.experiments.restoration import VARIABLE
from ibmd_lite.experiments.tasks import images_of, part

ROOT = Path(__file__).resolve().parents[1]


def images(data: str, side: int) -> tuple[Images, Images]:
    """To learn from, and to measure on; of a folder or zip its splits train and val."""
    if data in ("photographs", "tiny-imagenet"):
        train, test = (images_of(data, split, side) for split in ("train", "test"))
        return train, test
    train, test = (Images.read(data, size=side, split=split) for split in ("train", "val"))
    return train, part(test, torch.randperm(len(test), generator=torch.Generator().manual_seed(0)))


def options(description: str | None) -> argparse.ArgumentParser:
    """What every benchmark of families can be told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="tiny-imagenet", help="tiny-imagenet, photographs, or a folder or zip")
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--teacher-updates", type=int, default=Budget.teacher_updates)
    parser.add_argument("--student-updates", type=int, default=Budget.student_updates)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=ROOT / "ibmd_lite" / "experiments" / "results")
    return parser


def folder_of(name: str, arguments: argparse.Namespace) -> Path:
    """Where the work of that benchmark is kept."""
    return Path(os.environ.get(VARIABLE, ROOT / "runs")) / f"{name}-{Path(arguments.data).stem}-{arguments.side}"


def told(name: str, rows: list[dict[str, object]], run: FamilyRun, arguments: argparse.Namespace) -> None:
    """Print the table and keep it, with what it was made with."""
    settings = {"side": arguments.side, "precision": run.precision, "device": run.device.type}
    keep(name, rows, folder=arguments.results, budget=asdict(run.budget), settings=settings)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--refits", type=int, default=Budget.refits, help="updates of a refitted fake, for the gap")
    parser.add_argument("--families", nargs="+", choices=tuple(FAMILIES), default=tuple(FAMILIES))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    budget = Budget(arguments.teacher_updates, arguments.student_updates, refits=arguments.refits)
    train, test = images(arguments.data, arguments.side)
    folder = folder_of("families", arguments)
    runs = [FamilyRun(name, train, test, budget, folder) for name in arguments.families]
    told("families", [row for run in runs for row in run.rows()], runs[0], arguments)


if __name__ == "__main__":
    main()
