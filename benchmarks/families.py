"""Every family of public teachers at a reduced width, distilled on real images: `python benchmarks/families.py`.

Each family's network, schedule, prediction type and sampler, in small, on images of 16 x 16: a teacher, its student of
one call and of two, how far both are from the teacher's own long walk, and the refitted gap before and after.  All work
is kept under runs/ (or $IBMD_RUNS): a run that was killed goes on.  About ten minutes a family on one core.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="tiny-imagenet", help="tiny-imagenet, photographs, or a folder or zip")
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--families", nargs="+", choices=tuple(FAMILIES), default=tuple(FAMILIES))
    parser.add_argument("--teacher-updates", type=int, default=Budget.teacher_updates)
    parser.add_argument("--student-updates", type=int, default=Budget.student_updates)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=ROOT / "ibmd_lite" / "experiments" / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    budget = Budget(arguments.teacher_updates, arguments.student_updates)
    train, test = images(arguments.data, arguments.side)
    folder = Path(os.environ.get(VARIABLE, ROOT / "runs")) / f"families-{Path(arguments.data).stem}-{arguments.side}"
    runs = [FamilyRun(name, train, test, budget, folder) for name in arguments.families]
    rows = [row for run in runs for row in run.rows()]
    run = runs[0]
    keep(
        "families",
        rows,
        folder=arguments.results,
        budget=asdict(budget),
        settings={"side": arguments.side, "precision": run.precision, "device": run.device.type},
    )


if __name__ == "__main__":
    main()
