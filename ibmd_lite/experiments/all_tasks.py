"""One student for several image tasks, from the teachers of their single experiments.

Lives here: `AllTasks`, and `JointTraining` of the network that student and fake start as.  No clean image is used: that
network learns what the teachers answer, at states between samples of their own.  What is finished is kept in a folder,
as in ``restoration``.  Imports the method and ``restoration``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ibmd_lite.distillation import Distillation, Student
from ibmd_lite.experiments.legs import claim, in_legs
from ibmd_lite.experiments.restoration import SEEDS, Experiment, Method, Restore, Row, looks
from ibmd_lite.matching import TeacherTraining, weighted_mean
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.networks import UNet
from ibmd_lite.training import Draws, Settings, load_checkpoint, save_checkpoint, share
from ibmd_lite.training.loop import Run

__all__ = ["AllTasks", "JointTraining"]


class JointTraining(TeacherTraining):
    """One network learns to answer as several teachers do: every batch in the form of its task's teacher.

    The network must take ``task``; ``updates`` takes pairs (x0, Source(xT, task=k)) whose bridges pass the states at
    which the teachers are asked, such as samples of theirs.  The teachers are frozen.
    """

    def __init__(
        self,
        model: BridgeModel,
        teachers: Mapping[int, BridgeModel],
        settings: Settings | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(model, settings, device=device)
        device = self.learner.device
        self.teachers = {task: each.requires_grad_(False).eval().to(device) for task, each in teachers.items()}
        self.forms = {task: model.on(teacher) for task, teacher in teachers.items()}

    def times(self, source: Source) -> Float[Tensor, " batch"]:
        """Times of the bridge of the batch's task."""
        bridge = self.teachers[source.task].bridge  # type: ignore[index]
        return bridge.draw_times(len(source.xT), self.learner.generator)

    def loss(self, x0: Tensor, source: Source, t: Tensor, noise: Tensor) -> Float[Tensor, ""]:
        """E lambda |F_k - x*_k|^2 (eq:joint), a mean over the squared errors of the network's own output."""
        model, teacher = self.forms[source.task], self.teachers[source.task]  # type: ignore[index]
        xt = teacher.bridge.sample(x0, source.xT, t, noise)
        with torch.no_grad():
            target = teacher(xt, t, **teacher.given(replace(source, task=None)))
        error = (model(xt, t, **model.given(source)) - target).square()
        return weighted_mean(error, t, model.output_weight, source)


class AllTasks:
    """Several tasks of one size, their teachers, and one student that is told the task.

    Args:
        experiments: one for each task, of one size, precision, device and seed.  Their teachers are trained here if
            they are not yet.
        steps: of the student, in every task.
        samples: of each teacher, between which the common start asks it.
        folder: where finished parts are kept.

    Raises:
        ValueError: experiments of different sizes, a folder that holds the work of other tasks or settings.
    """

    def __init__(self, experiments: Sequence[Experiment], folder: Path, *, steps: int = 1, samples: int = 1000) -> None:
        settings = {repr((each.size, each.precision, each.device, each.seed)) for each in experiments}
        if len(settings) != 1:
            raise ValueError(
                f"the experiments differ in size, precision, device or seed: {', '.join(sorted(settings))}"
            )
        self.experiments, self.folder, self.steps, self.samples = list(experiments), folder, steps, samples
        self.teachers = {task: each.teacher()[0] for task, each in enumerate(self.experiments)}
        self.first = self.experiments[0]
        claim(folder, {"tasks": [each.name for each in self.experiments], "steps": steps, "samples": samples})

    def network(self) -> UNet:
        """The single tasks' network, told the task, and xT where its teacher sees it."""
        both = any(teacher.conditional for teacher in self.teachers.values())
        return self.first.network("optional" if both else False, tasks=len(self.experiments))

    def start(self) -> tuple[BridgeModel, list[dict]]:
        """One model of all tasks, taught by the teachers; and how well it walks in their place.

        It begins as a teacher that sees xT, if there is one, and has half of the size's teacher updates for every task.
        The second is as for `student`, of walks in as many calls as the teachers were measured with.
        """
        size = self.first.size
        updates = size.teacher_updates * len(self.experiments) // 2
        first = max(self.teachers.values(), key=lambda teacher: teacher.conditional)
        network = self.network()
        network.load_state_dict(first.network.state_dict(), strict=False)  # but for the vectors of the tasks
        model = BridgeModel(network, **first.form._asdict())
        settings = replace(self.first.settings, decay=updates)
        run = JointTraining(model, self.teachers, settings, device=self.first.device)
        pairs = [self._samples(task) for task in self.teachers]

        def draw(n: int, generator: torch.Generator) -> tuple[Tensor, Source]:
            task = int(torch.randint(len(pairs), (), generator=generator))
            x0, source = pairs[task]
            rows = torch.randint(len(x0), (n,), generator=generator)
            mask = None if source.mask is None else source.mask[rows]
            return x0[rows], Source(source.xT[rows], mask=mask, task=task)

        stream = Draws(draw, share(size.teacher_batch), self.first.seed)

        def walk(task: int) -> Restore:
            walked = self.experiments[task].walk(run.teacher.on(self.teachers[task]), size.look_nfe)
            return lambda source, generator: walked(replace(source, task=task), generator)

        return run.teacher, self._train("start", run, stream, [updates], walk)

    def _samples(self, task: int) -> tuple[Tensor, Source]:
        """Sources of a task and what its teacher makes of them; kept."""
        path, experiment = self.folder / f"samples-{task}.pt", self.experiments[task]
        if not path.exists():
            seed = self.first.seed + SEEDS * task  # so that the tasks' samples are of different images
            drawn = experiment.pairs.sources(self.samples, torch.Generator().manual_seed(seed))
            source = Source.of(drawn)
            walk = experiment.walk(self.teachers[task], self.first.size.look_nfe)
            x0 = experiment.restored(walk, source, self.first.seed)
            save_checkpoint(path, {"x0": x0, "xT": source.xT, "mask": source.mask})
        kept = load_checkpoint(path)
        return kept["x0"], Source(kept["xT"], mask=kept["mask"])

    def student(self) -> tuple[Student, list[dict]]:
        """The student, after as many generator updates as all single ones together, and its distances along the way.

        They are of every task's held-out images, as for a single experiment: ``{"update": ..., "FD": {task: ...}}``.
        """
        start = self.start()[0].requires_grad_(True)
        channels = max(each.task.noise_channels for each in self.experiments)
        student = Student.of(start, steps=self.steps, noise_channels=channels, tasks=self.teachers)
        total = self.first.size.student_updates * len(self.experiments)
        weights = {task: teacher.output_weight for task, teacher in self.teachers.items()}
        settings = self.first.student_settings(weights, total)
        run = Distillation(
            self.teachers, student, fake=copy.deepcopy(start), settings=settings, device=self.first.device
        )
        stream = Draws(self.sources, share(self.first.size.student_batch), self.first.seed + 1)
        ends = looks(total, self.first.size.student_looks)
        return run.student, self._train(
            "student", run, stream, ends, lambda task: partial(self._told, run.student, task)
        )

    def _train(
        self, name: str, run: Run, stream: Draws, ends: list[int], restore: Callable[[int], Restore]
    ) -> list[dict]:
        def measure() -> dict[str, dict[str, float]]:
            distances = {}
            for task, each in enumerate(self.experiments):
                picture = self.folder / "looks" / f"{name}-{run.update:06d}-{each.name}.png"
                distances[each.name] = each.look(restore(task), picture)
            return {"FD": distances}

        return in_legs(run, stream, ends, self.folder / name, measure, every=self.first.size.every)

    def sources(self, n: int, generator: torch.Generator) -> Source:
        """Sources of a random task, one task per batch."""
        task = int(torch.randint(len(self.experiments), (), generator=generator))
        return replace(Source.of(self.experiments[task].pairs.sources(n, generator)), task=task)

    def rows(self, student: Student) -> dict[str, Row]:
        """The student in every task, by the task's name, on the test images of the single experiments."""
        return {
            each.name: each.row(
                "all tasks",
                Method(self.steps, partial(self._told, student, task)),
                SEEDS * (task + 1),
                folder=self.folder / each.name,  # a student of other tasks has rows of its own
            )
            for task, each in enumerate(self.experiments)
        }

    def _told(self, student: Student, task: int, source: Source, generator: torch.Generator) -> Tensor:
        return student(replace(source, task=task), generator=generator)
