"""Trained networks to keep or to give away: safetensors, and beside them a card that says what they are.

Lives here: ``publish``, and ``described``, which names the images of an experiment.  Imports the method,
``restoration`` and the lists of images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ibmd_lite.data.official import listed_digests, listed_names
from ibmd_lite.distillation import Student
from ibmd_lite.experiments.restoration import Experiment, Row, best_walk
from ibmd_lite.model import BridgeModel
from ibmd_lite.training.files import writing

__all__ = ["described", "publish"]

LICENCES = {
    "cifar10.txt": "CIFAR-10 (Krizhevsky, 2009) is free for research; its images belong to their authors",
    "tiny_imagenet.txt": "Tiny ImageNet is for non-commercial research; its images belong to their authors",
    "photographs": "the photographs are public domain, CC0 and CC BY 2.0; their wheels name the authors",
}


def described(experiment: Experiment) -> dict[str, Any]:
    """The images of an experiment: how many, a digest of their names, and the list of the package that names them."""
    names = experiment.names
    lists = {
        "cifar10.txt": {*listed_digests("train"), *listed_digests("test")},
        "tiny_imagenet.txt": {*listed_names("train"), *listed_names("val")},
    }
    return {
        "data": Path(experiment.size.data).stem,
        "list": next((name for name, listed in lists.items() if listed == set(names)), None),
        "training images": len(experiment.learned),
        "held-out images": len(experiment.held_out.xT),
        "test images": len(experiment.test),
        "digest of the names": hashlib.blake2b("\n".join(sorted(names)).encode(), digest_size=8).hexdigest(),
    }


def publish(
    folder: Path, experiment: Experiment, teacher: BridgeModel, students: Mapping[int, Student], rows: Mapping[str, Row]
) -> Path:
    """Write ``teacher.safetensors``, ``student-N.safetensors`` and their card, ``README.md``; the path of the card."""
    teacher.save(folder / "teacher.safetensors")
    for steps, student in students.items():
        student.save(folder / f"student-{steps}.safetensors")
    card = folder / "README.md"
    with writing(card) as temporary:
        temporary.write_text(_card(experiment, students, rows), "utf8")
    return card


def _card(experiment: Experiment, students: Mapping[int, Student], rows: Mapping[str, Row]) -> str:
    size, task, images = experiment.size, experiment.task, described(experiment)
    source = images["list"] or images["data"]
    licence = LICENCES.get(source, "say here under which licence your images are")
    named = f"`ibmd_lite/data/lists/{source}` names them" if images["list"] else f"`{images['data']}`"
    shape = f"width={size.width}, multipliers={size.multipliers}, blocks={size.blocks}, patch=2"
    network = f"UNet({shape}{', conditional=True' if task.conditional else ''})"
    shown = ["no-op", "regression", best_walk(rows).method, *(f"student, {steps} NFE" for steps in students)]
    return f"""# Model card: {experiment.name}, {size.side} x {size.side}

- **What**: `teacher.safetensors`, a {"conditional " if task.conditional else ""}bridge model of {task.corruption!r} on
  {task.bridge!r}; {", ".join(f"`student-{steps}.safetensors`" for steps in students)}, made of it by inverse bridge
  matching distillation, in so many network calls.
- **Load**: `network = {network}`; then `BridgeModel.load("teacher.safetensors", network)`, or
  `Student.load("student-{next(iter(students), 1)}.safetensors", network)`.
- **Data**: {images["training images"]:,} training images, {images["held-out images"]:,} held out; {named}; digest of
  all names {images["digest of the names"]}. The student saw corrupted images alone. Licence: {licence}.
- **Settings**: teacher {experiment.teacher_updates:,} updates of {size.teacher_batch} images, students
  {size.student_updates:,} of {size.student_batch} at {task.pace!r}, {experiment.precision}, seed {experiment.seed}.
- **Metrics**, on {images["test images"]:,} test images that no training saw:

{_table([rows[name] for name in shown])}

- **Limits**: the Frechet distance is on the features of the package's classifier: compare it within this table, not
  with a paper's. One seed. The networks know images of this size and kind, corrupted in this way.
- **Licence**: that of the package.
"""


def _table(rows: Sequence[Row]) -> str:
    heads = ["method", "NFE", "FD (95 %)", "PSNR", "SSIM", "accuracy", "diversity"]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        told = asdict(row.FD)
        accuracy = "" if row.accuracy is None else f"{row.accuracy:.3f}"
        distance = f"{told['distance']:.1f} ({told['low']:.1f} to {told['high']:.1f})"
        figures = [f"{row.PSNR:.1f}", f"{row.SSIM:.3f}", accuracy, f"{row.diversity:.3f}"]
        lines.append([row.method, str(row.NFE), distance, *figures])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
