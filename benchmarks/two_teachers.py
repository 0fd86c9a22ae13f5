"""Two teachers of one task, each of half of the classes, into one student: `python benchmarks/two_teachers.py`.

I2SB's 4x super-resolution at reduced width, on images of 16 x 16.  There are teachers of all classes, of the first and
of the second half of them, and one-call students of each, of the average of the two halves and of their barycentre.
All answer the same sources, of all classes; measured is how far they are from the clean images, and from what the
teacher of all classes makes in its long walk.  All work is kept under runs/ (or $IBMD_RUNS): a run that was killed goes
on.  Under an hour on one core.
"""

import copy

import torch
from families import folder_of, images, options, told
from torch import Tensor

from ibmd_lite.data import Images
from ibmd_lite.distillation import Student, ibmd_loss
from ibmd_lite.evaluation import frechet_distance
from ibmd_lite.experiments.families import Budget, FamilyRun
from ibmd_lite.experiments.tasks import part
from ibmd_lite.model import BridgeModel
from ibmd_lite.teachers.several import average_teacher, barycentre_loss

FAMILY = "I2SB"


def halves(whole: Images) -> dict[str, Images]:
    """All images, and those of the first and of the second half of the classes, in the order of their names."""
    first = whole.labels < len(whole.classes) // 2
    rows = {"the first half": first, "the second half": ~first}
    return {"all classes": whole} | {name: part(whole, kept.nonzero()[:, 0]) for name, kept in rows.items()}


def students(run: FamilyRun, teachers: dict[str, BridgeModel]) -> dict[str, Student]:
    """Of every teacher alone, of the average of the halves and of their barycentre."""
    made = {
        f"student of {name}": run.distilled(teacher, run.fresh(teacher, 1), name) for name, teacher in teachers.items()
    }
    _, *both = teachers.values()
    for name, loss in {"the average": ibmd_loss, "the barycentre": barycentre_loss}.items():
        begins = run.fresh(both[0], 1)  # a student of the average itself would be as large as both
        fake = copy.deepcopy(both[0])
        made[f"student of {name}"] = run.distilled(average_teacher(both), begins, name, fake, loss)
    return made


def measured(
    run: FamilyRun, teachers: dict[str, BridgeModel], distilled: dict[str, Student]
) -> list[dict[str, object]]:
    """A row for every walk and every student."""
    grid, step = run.family.grid(run.family.model().bridge), run.family.walk
    walks = {f"walk of {name}": run.walk(teacher, grid, step, 1) for name, teacher in teachers.items()}
    goal, _ = run.walk(teachers["all classes"], grid, step, 2)
    clean = run.features(run.clean)
    answers: dict[str, tuple[Tensor, int]] = walks | {name: (run.answers(one), 1) for name, one in distilled.items()}
    return [
        {"method": name, "NFE": nfe, "to clean": frechet_distance(x, clean), "to the walk": frechet_distance(x, goal)}
        for name, (x, nfe) in answers.items()
    ]


def main() -> None:
    arguments = options(__doc__).parse_args()
    torch.set_num_threads(arguments.threads)
    budget = Budget(arguments.teacher_updates, arguments.student_updates)
    train, test = images(arguments.data, arguments.side)
    folder = folder_of("two-teachers", arguments)
    runs = {name: FamilyRun(FAMILY, some, test, budget, folder / name) for name, some in halves(train).items()}
    teachers = {name: run.teacher() for name, run in runs.items()}
    run = runs["all classes"]
    told("two_teachers", measured(run, teachers, students(run, teachers)), run, arguments)


if __name__ == "__main__":
    main()
