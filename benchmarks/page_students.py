"""The students that answer in the page, and their teachers: `python benchmarks/page_students.py --data PATH`.

Three tasks at 64 x 64 on small networks: a painted hole, JPEG of any quality, a sketch.  Each teacher is trained,
distilled into one call, and judged on images that no training saw; then all six are exported as ONNX files into
`book/_assets/students`, with a card.  The images are Tiny ImageNet's: the listed subset, fetched from its publisher, or
read from --data, a folder or zip of `split/class/file`.  All work is kept under runs/: a run that was killed goes on
there when the command is given again.  An hour and a half on one core that computes with bfloat16.
"""

import argparse
import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from report import keep
from torch import Tensor, nn
from torch.nn import functional

from ibmd_lite.bridges import VP, Brownian, ContinuousI2SB
from ibmd_lite.data import JPEG, BrushStrokes, Corrupted, Images, Inpainting, Sketch, held_out_region, tiny_imagenet
from ibmd_lite.data.decoding import to_unit
from ibmd_lite.data.photographs import NAMES
from ibmd_lite.distillation import Distillation, DistillationSettings, Student, refilled_chain
from ibmd_lite.evaluation import frechet_distance, psnr
from ibmd_lite.evaluation.classifier import TINY_IMAGENET, Classifier, load_classifier
from ibmd_lite.experiments.legs import claim, in_legs, save_picture, write_json
from ibmd_lite.experiments.restoration import looks
from ibmd_lite.experiments.tasks import HURRIED, Mirrored, Pace, Task, part
from ibmd_lite.export import export_onnx
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import DDBM, BridgeModel, I2SBNoise, Source
from ibmd_lite.networks import UNet
from ibmd_lite.sampling import sample
from ibmd_lite.training import Draws, Settings

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "book" / "_assets" / "students"
LICENCE = (
    "Weights of the package's licence; Tiny ImageNet is for non-commercial research, its images belong to their authors"
)
SIDE = 64
NETWORK = {"width": 32, "multipliers": (1, 2, 3), "patch": 2}
TEACHER_BATCH, STUDENT_BATCH = 32, 16
HELD_OUT, LOOKED_AT = 256, 96  # training images that are kept back, and how many of them a training is looked at on
REFERENCE = 4000  # training images that the Frechet distance compares with
JUDGED = 640  # test images: as many as the Frechet distance asks for
CALLS = 100  # of a teacher's walk
SHOWN = [1, 2, 6]  # photographs in the picture of answers

Module = TypeVar("Module", bound=nn.Module)
Restore = Callable[[Source, torch.Generator], Tensor]


@dataclass(frozen=True)
class AnyJPEG:
    """``JPEG`` of a quality that is drawn for every image, uniform from ``least`` to ``most``."""

    least: int = 5
    most: int = 40

    def __call__(self, x0: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The images as they come out of the files."""
        qualities = torch.randint(self.least, self.most + 1, (len(x0),), generator=generator).tolist()
        return torch.cat([JPEG(quality)(image[None]) for quality, image in zip(qualities, x0, strict=True)])


# Fewer fake updates than the image chapters' five: the images are larger, and the hour is short.
STEADY = Pace(fake_updates=3)

TASKS = {
    # As the image chapters do, with thinner holes too: a reader begins with one stroke.
    "paint": Task(
        Inpainting(BrushStrokes(0.04, 0.3, 3)), ContinuousI2SB(0.3), I2SBNoise(), noise_channels=0, pace=STEADY
    ),
    "jpeg": Task(AnyJPEG(), Brownian(0.02), I2SBNoise(), pace=HURRIED),
    "sketch": Task(Sketch(), VP(), DDBM(), conditional=True, pace=STEADY),
}
TEACHER_UPDATES = {"paint": 2400, "jpeg": 2400, "sketch": 4000}
STUDENT_UPDATES = {"paint": 700, "jpeg": 800, "sketch": 800}


@dataclass(frozen=True)
class Pictures:
    """What is learned from, looked at and judged on, and who judges."""

    learned: Images
    held_out: Images
    test: Images
    classifier: Classifier
    reference: Tensor


def pictures(data: str) -> Pictures:
    if data == "tiny-imagenet":
        train, test = (tiny_imagenet(split, subset=True, size=SIDE) for split in ("train", "val"))
    else:
        train, test = (Images.read(data, size=SIDE, split=split) for split in ("train", "val"))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    held_out, learned = order.tensor_split([HELD_OUT])
    test = part(test, torch.randperm(len(test), generator=torch.Generator().manual_seed(0)))
    classifier = load_classifier(TINY_IMAGENET.weights)
    reference = classifier.features(to_unit(train.pixels[learned[:REFERENCE]]))
    return Pictures(part(train, learned), part(train, held_out[:LOOKED_AT]), test, classifier, reference)


def corrupted(task: Task, images: Images, seed: int = 1) -> tuple[Tensor, Source]:
    x0 = to_unit(images.pixels)
    return x0, Source.of(task.corruption(x0, torch.Generator().manual_seed(seed)))


def figures(seen: Pictures, x0: Tensor, answers: Tensor) -> dict[str, float]:
    answers = answers.clamp(-1, 1)
    return {"FD": frechet_distance(seen.classifier.features(answers), seen.reference), "PSNR": psnr(answers, x0)}


def walk(teacher: BridgeModel, nfe: int) -> Restore:
    return lambda source, generator: sample(teacher, source, teacher.bridge.grid(nfe), generator=generator).x0


def train(name: str, seen: Pictures, folder: Path, precision: str) -> tuple[BridgeModel, Student]:
    """The teacher and its student, from where they were left."""
    task, updates = TASKS[name], (TEACHER_UPDATES[name], STUDENT_UPDATES[name])
    claim(folder, {"task": repr(task), "network": repr(NETWORK), "updates": repr(updates), "precision": precision})
    pairs = Corrupted(Mirrored(seen.learned), task.corruption)
    x0, source = corrupted(task, seen.held_out)

    def measured(restore: Restore) -> Callable[[], dict[str, float]]:
        return lambda: {"PSNR": psnr(restore(source, torch.Generator().manual_seed(0)).clamp(-1, 1), x0)}

    torch.manual_seed(0)
    network = UNet(conditional=task.conditional, **NETWORK)
    model = BridgeModel(network, task.bridge, conditional=task.conditional, prediction=task.prediction)
    settings = Settings(1e-3, betas=(0.9, 0.99), average=0.995, precision=precision, decay=updates[0])
    run = TeacherTraining(model, settings, device="cpu")
    stream = Draws(pairs.draw, TEACHER_BATCH)
    in_legs(run, stream, looks(updates[0], 1), folder / "teacher", measured(walk(run.teacher, 10)), every=50)

    torch.manual_seed(0)
    student = Student.of(run.teacher, noise_channels=task.noise_channels)
    distilled = Distillation(
        run.teacher, student, settings=pace_settings(run.teacher, task.pace, updates[1], precision), device="cpu"
    )
    stream = Draws(pairs.sources, STUDENT_BATCH, 1)
    ends = looks(updates[1], 2)
    call = lambda source, generator: distilled.student(source, generator=generator)  # noqa: E731
    in_legs(distilled, stream, ends, folder / "student", measured(call), every=25)
    return run.teacher, distilled.student


def pace_settings(teacher: BridgeModel, pace: Pace, updates: int, precision: str) -> DistillationSettings:
    shared = {"betas": (0.0, 0.999), "precision": precision, "decay": updates if pace.falling else None}
    return DistillationSettings(
        generator=Settings(pace.rate, average=pace.average, **shared),
        fake=Settings(4e-4, average=None, **shared),
        fake_updates=pace.fake_updates,
        weight=teacher.output_weight,
        rollout=refilled_chain,
    )


def stored(module: Module) -> Module:
    """The module with its weights as the files store them: rounded to float16.  What is judged is what is exported."""
    module = copy.deepcopy(module).eval()
    for parameter in module.parameters():
        parameter.data = parameter.data.half().float()
    return module


def methods(teacher: BridgeModel, student: Student) -> dict[str, tuple[int, Restore]]:
    return {
        "no-op": (0, lambda source, generator: source.xT),
        "teacher, 1 call": (1, walk(teacher, 1)),
        f"teacher, {CALLS} calls": (CALLS, walk(teacher, CALLS)),
        "student": (1, lambda source, generator: student(source, generator=generator)),
    }


def restored(restore: Restore, source: Source, precision: str) -> Tensor:
    """What a method makes of the sources, in batches that a processor's cache can hold."""
    generator, answers = torch.Generator().manual_seed(1), []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        for rows in torch.arange(len(source.xT)).split(STUDENT_BATCH):
            mask = None if source.mask is None else source.mask[rows]
            answers.append(restore(Source(source.xT[rows], mask), generator).float())
    return torch.cat(answers)


def judge(
    name: str, seen: Pictures, teacher: BridgeModel, student: Student, folder: Path, precision: str
) -> list[dict[str, object]]:
    """Every method on the same test images.  A row is kept as soon as it is made: a hundred calls take minutes."""
    images = part(seen.test, torch.arange(JUDGED))
    x0, source = corrupted(TASKS[name], images, 2)
    floor = frechet_distance(seen.classifier.features(x0), seen.reference)
    rows: list[dict[str, object]] = []
    for method, (nfe, restore) in methods(teacher, student).items():
        path = folder / "rows" / f"{method}.json"
        if not path.exists():
            row = {"task": name, "method": method, "NFE": nfe}
            row |= figures(seen, x0, restored(restore, source, precision)) | {"FD of clean images": floor}
            write_json(path, row)
        rows.append(json.loads(path.read_text()))
    return rows


def photographs() -> Tensor:
    """The held-out region of every photograph of the package, at 64 x 64."""
    return functional.avg_pool2d(torch.stack([held_out_region(name) for name in NAMES]), 2)


def export(name: str, teacher: BridgeModel, student: Student) -> list[float]:
    """Two ONNX files; by how much their answers differ from torch's."""
    example = Source.of(TASKS[name].corruption(photographs(), torch.Generator().manual_seed(0)))
    files = {"student": student, "teacher": teacher}
    return [
        export_onnx(
            what, ASSETS / f"{name}-{kind}.onnx", example, any_size=False, half_weights=True, licence=LICENCE
        ).difference
        for kind, what in files.items()
    ]


def answered(trained: Mapping[str, tuple[BridgeModel, Student]]) -> Tensor:
    """One picture, a row a task: for three photographs what is given, the student's and the teacher's answer, x0."""
    x0, rows = photographs()[SHOWN], []
    for name, pair in trained.items():
        source = Source.of(TASKS[name].corruption(x0, torch.Generator().manual_seed(3)))
        ways = methods(*pair)
        made = [
            ways[way][1](source, torch.Generator().manual_seed(4))
            for way in ("no-op", "student", f"teacher, {CALLS} calls")
        ]
        cells = torch.stack([*made, x0], 1).clamp(-1, 1)  # photograph, way, channel, height, width
        framed = functional.pad(cells, (0, 2, 0, 2), value=1.0)
        rows.append(torch.cat([functional.pad(torch.cat(list(four), -1), (0, 8), value=1.0) for four in framed], -1))
    picture = torch.cat(rows, -2)[..., :-2, :-10]
    return picture.repeat_interleave(2, -1).repeat_interleave(2, -2)


def walks(trained: Mapping[str, tuple[BridgeModel, Student]]) -> dict[str, list[list[float]]]:
    """The teachers' steps as the page takes them: t, and the weights of xt and x0_hat and the std of (eq:posterior)."""
    found = {}
    for name, (teacher, _) in trained.items():
        intervals = pairwise(teacher.bridge.grid(CALLS))
        steps = [[t.item(), *(weight.item() for weight in teacher.bridge.posterior(t, s))] for t, s in intervals]
        steps[-1][3] = 0.0  # no noise after the last call
        found[name] = steps
    return found


def told(rows: Sequence[Mapping[str, object]]) -> str:
    """The figures as a table in Markdown, for the page and the card."""
    lines = ["| task | method | network calls | Fréchet distance | PSNR, dB |", "| --- | --- | --- | --- | --- |"]
    for before, r in zip([{}, *rows], rows, strict=False):
        if r["task"] != before.get("task"):
            lines.append(f"| {r['task']} | clean images | | {r['FD of clean images']:.1f} | |")
        lines.append(f"| {r['task']} | {r['method']} | {r['NFE']} | {r['FD']:.1f} | {r['PSNR']:.1f} |")
    return "\n".join(lines) + "\n"


def card(seen: Pictures, rows: Sequence[Mapping[str, object]], precision: str) -> str:
    names = sorted([*seen.learned.names, *seen.held_out.names, *seen.test.names])
    digest = hashlib.blake2b("\n".join(names).encode(), digest_size=8).hexdigest()
    tasks = "\n".join(f"  - `{name}`: {task.corruption!r} on {task.bridge!r}" for name, task in TASKS.items())
    return f"""# Model card: students in the page, 64 x 64

- **What**: for each task `TASK-teacher.onnx`, one call of a bridge model, and `TASK-student.onnx`, made of it by
  inverse bridge matching distillation, one call an image.  Weights are stored as float16 and computed with as float32.
{tasks}
- **Made by**: `python benchmarks/page_students.py`; `about.json` (the teachers' steps), `photographs.png` and
  `answers.png` too.
- **Network**: `UNet` of {NETWORK}.
- **Data**: Tiny ImageNet, {len(seen.learned):,} training images, {len(seen.held_out)} held out; digest of all names
  {digest}.  The students saw corrupted images alone.  {LICENCE}.
- **Settings**: {precision}; teachers {TEACHER_UPDATES} updates of {TEACHER_BATCH} images, students {STUDENT_UPDATES}
  of {STUDENT_BATCH}; {", ".join(f"{name} {task.pace!r}" for name, task in TASKS.items())}.
- **Metrics**, on {JUDGED} test images that no training saw (the Fréchet distance of the clean ones is
  {rows[0]["FD of clean images"]:.1f}):

{told(rows)}
- **Limits**: the Fréchet distance is on the features of the package's classifier: compare it within this table.  One
  seed, minutes of training, images of 64 x 64.  JPEG leaves a grain; a sketch is answered with colours and grain.
- **Licence**: that of the package.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="tiny-imagenet", help="tiny-imagenet, or a folder or zip of images")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "page-students")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seen = pictures(arguments.data)
    trained, differences = {}, {}
    for name in TASKS:
        trained[name] = tuple(map(stored, train(name, seen, arguments.folder / name, arguments.precision)))
        differences[name] = export(name, *trained[name])
    write_json(ASSETS / "about.json", {"photographs": NAMES, "walks": walks(trained)})
    save_picture(ASSETS / "photographs.png", torch.cat(list(photographs()), -1))
    save_picture(ASSETS / "answers.png", answered(trained))
    rows = [
        row
        for name, pair in trained.items()
        for row in judge(name, seen, *pair, arguments.folder / name, arguments.precision)
    ]
    (ASSETS / "README.md").write_text(card(seen, rows, arguments.precision), "utf8")
    (ASSETS / "figures.md").write_text(told(rows), "utf8")
    sizes = {path.name: path.stat().st_size for path in sorted(ASSETS.glob("*.onnx"))}
    keep("page_students", rows, bytes=sizes, judged=JUDGED, differences=differences, precision=arguments.precision)


if __name__ == "__main__":
    main()
