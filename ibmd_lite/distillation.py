"""Inverse bridge matching distillation (2502.01362): a bridge model becomes a generator of one or a few steps.

Find G(xT, z) whose own bridge matching solution is the teacher (eq:ibmd).  The solution of bridge matching
on G's output is learned beside it, the *fake*.  Nothing here can be given a clean image: a source is xT.

Imports torch, jaxtyping, ``bridges``, ``model``, ``matching``, ``student`` and ``training``.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import cycle, islice
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ibmd_lite.matching import Weight, matching_loss, weighted_mean
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.student import Student
from ibmd_lite.training.learner import Learner, Settings, frozen
from ibmd_lite.training.sharding import shard
from ibmd_lite.training.streams import take

__all__ = [
    "Distillation",
    "DistillationRecord",
    "DistillationSettings",
    "Losses",
    "Student",
    "end_of_chain",
    "ibmd_loss",
    "random_step",
    "refilled_chain",
    "through_chain",
]

Batch = Float[Tensor, "batch *dims"]
Scalar = Float[Tensor, ""]


class Losses(NamedTuple):
    """loss: signed, what the generator descends.  gap: E lambda |x* - x_F|^2.  distance: E |x* - x0|, for scaling."""

    loss: Scalar
    gap: Scalar
    distance: Scalar


Integrand = Callable[[Batch, Batch, Batch], Batch]


def signed(target: Batch, fake_x0: Batch, x0: Batch) -> Batch:
    """|x* - x0|^2 - |x_F - x0|^2, element by element."""
    return (target - x0).square() - (fake_x0 - x0).square()


def ibmd_loss(
    teacher: BridgeModel,
    fake: BridgeModel,
    x0: Batch,
    source: Source | Tensor,
    t: Float[Tensor, " batch"],
    *,
    weight: Weight | None = None,
    noise: Batch | None = None,
    integrand: Integrand = signed,
) -> Losses:
    """E lambda (|x* - x0|^2 - |x_F - x0|^2) on the generator's x0 (eq:ibmd), a mean over elements.

    The gradient reaches x0 directly and through xt, hence through the input Jacobians of teacher and fake;
    their parameters get none.  Per sample this is twice SiD's loss at alpha = 1/2 (2404.04057).
    integrand: what else of (x*, x_F, x0) is averaged; the other losses of ``baselines`` give theirs.
    """
    source = source if isinstance(source, Source) else Source(source)
    xt = teacher.bridge.sample(x0, source.xT, t, noise)  # not detached: the gradient goes through xt too
    with frozen(teacher, fake):
        target = teacher(xt, t, **teacher.given(replace(source, task=None)))  # a teacher has one task only
        fake_x0 = fake(xt, t, **fake.given(source))
    loss = weighted_mean(integrand(target, fake_x0, x0), t, weight, source)
    with torch.no_grad():
        gap = weighted_mean((target - fake_x0).square(), t, weight, source)
        distance = weighted_mean((target - x0).abs(), t, None, source)
    return Losses(loss, gap, distance)


Rollout = Callable[[Student, Source, torch.Generator], Batch]


def end_of_chain(student: Student, source: Source, generator: torch.Generator) -> Batch:
    """Train on the student's final x0 (the paper's regime for I2SB)."""
    return student.walk(source, student.nfe, generator)


def through_chain(student: Student, source: Source, generator: torch.Generator) -> Batch:
    """As ``end_of_chain``, with the gradient through every call: as many times the memory as there are steps."""
    return student.walk(source, student.nfe, generator, through=True)


def refilled_chain(student: Student, source: Source, generator: torch.Generator) -> Batch:
    """As ``end_of_chain``, from other noise in the hole than the bridge to x0 starts from; the same without a mask.

    In the data what stood in a hole knows nothing of the noise there.  A student of the bridge's own draw ties the two,
    and near T the loss asks for less variety than the data have (eq:one-draw); another draw is a z like any other.
    """
    if source.mask is not None:
        noise = torch.randn(source.xT.shape, generator=generator, device=generator.device)
        source = replace(source, xT=torch.where(source.mask > 0.5, noise.to(source.xT), source.xT))
    return end_of_chain(student, source, generator)


def random_step(student: Student, source: Source, generator: torch.Generator) -> Batch:
    """Train on the x0 of a step chosen uniformly, at the state the student itself reaches (the regime for DDBM).

    The fake then learns one mixture of the x0 of all calls, early blurred ones among them.  In the plane this loses
    badly to ``end_of_chain``, unless the fake is told which call an x0 comes from.
    """
    calls = torch.randint(1, student.nfe + 1, (), generator=generator, device=generator.device)
    return student.walk(source, int(calls), generator)


@dataclass(frozen=True)
class DistillationSettings:
    """generator, fake: how each is trained.  fake_updates: L, per generator update.

    weight: lambda(t) of the generator's loss (None: 1), or one for each task, {task: lambda}.
    normalise: divide its loss by E |x* - x0|, without gradient.
    rollout: which x0 of a student of several steps is trained on.
    loss: the generator's; ``baselines`` has others of the same signature.
    reuse: how many fake updates in a row learn from one batch of generated x0, at times and noise of their own; the
    generator then runs L/reuse times instead of L.

    Raises ValueError for counts of updates that are no whole numbers in range, and TypeError for a weight or a loss
    that cannot be called.
    """

    generator: Settings = field(default_factory=lambda: Settings(1e-4, betas=(0.0, 0.999), average=0.99))
    fake: Settings = field(default_factory=lambda: Settings(2e-4, betas=(0.0, 0.999), average=None))
    fake_updates: int = 5
    weight: Weight | Mapping[int, Weight] | None = None
    normalise: bool = True
    rollout: Rollout = end_of_chain
    loss: Callable[..., Losses] = ibmd_loss
    reuse: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.fake_updates, int) or self.fake_updates < 1:
            raise ValueError(f"fake_updates must be a whole number of at least 1, got {self.fake_updates}")
        if not isinstance(self.reuse, int) or not 1 <= self.reuse <= self.fake_updates:
            raise ValueError(
                f"reuse must be a whole number from 1 to fake_updates = {self.fake_updates}, got {self.reuse}"
            )
        weights = self.weight.values() if isinstance(self.weight, Mapping) else [self.weight]
        if not all(weight is None or callable(weight) for weight in weights):
            raise TypeError(f"weight must be a function of t such as teacher.output_weight, got {self.weight!r}")
        if isinstance(self.loss, type) or not callable(self.loss):
            raise TypeError(f"loss must be a function such as ibmd_loss or SiD(1.2), got {self.loss!r}")


@dataclass(frozen=True)
class DistillationRecord:
    """One generator update.  lag = loss - gap is zero when the fake has caught up (eq:gap)."""

    update: int
    loss: float
    gap: float
    lag: float
    fake_loss: float
    seconds: float


class Distillation:
    """Distil a teacher, or several, into a student.  Everything is checked here; ``updates`` yields records.

    Parameters
    ----------
    teacher : a trained BridgeModel, or {task: BridgeModel}; it is frozen, put in evaluation mode, never changed; with
        ``shard`` it is left in shares (``training.whole`` gives a whole one)
    student : trained in place; ``run.student`` is its running average
    fake : trained in place; by default a copy of the teacher, and needed when there are several teachers
        (then its network must take ``task``: a fake that does not see the task pushes the tasks apart)
    settings : learning rates, L, weight, rollout

    Raises TypeError for what is no Student, BridgeModel or DistillationSettings, and ValueError for models that share a
    network or do not fit: in bridge, prediction type, the time they end at, or what they are shown.
    """

    def __init__(
        self,
        teacher: BridgeModel | Mapping[int, BridgeModel],
        student: Student,
        *,
        fake: BridgeModel | None = None,
        settings: DistillationSettings | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.settings = settings or DistillationSettings()
        if not isinstance(self.settings, DistillationSettings):
            raise TypeError(f"settings must be DistillationSettings, got {type(self.settings).__name__}")
        given: Mapping[Any, BridgeModel] = teacher if isinstance(teacher, Mapping) else {None: teacher}
        self.teachers: dict[int | None, BridgeModel] = dict(given)
        if not isinstance(student, Student):
            raise TypeError(
                f"student must be a Student, got {type(student).__name__}; make one with Student.of(teacher)"
            )
        if not self.teachers:
            raise ValueError("at least one teacher is needed, got an empty mapping")
        weight = self.settings.weight
        if isinstance(weight, Mapping) and weight.keys() != self.teachers.keys():
            raise ValueError(f"weight is for the tasks {list(weight)}, the teachers are of {list(self.teachers)}")
        for task, model in self.teachers.items():
            name = "the teacher" if task is None else f"teacher {task}"
            if not isinstance(model, BridgeModel):
                raise TypeError(
                    f"{name} must be a BridgeModel, got {type(model).__name__}; wrap it: BridgeModel(network, bridge)"
                )
            own = student.model_of(task).bridge
            if model.bridge.T != own.T:
                raise ValueError(
                    f"{name} ends at T = {model.bridge.T:g}, the student at T = {own.T:g}: make the student with "
                    "Student.of(teacher), of several teachers with Student.of(..., tasks=teachers)"
                )
            if own != model.bridge and (student.nfe > 1 or own.end_std or model.bridge.end_std):
                raise ValueError(
                    f"{name} walks {model.bridge}, the student {own}: a student of several steps, or of a bridge that "
                    "is not pinned, walks its task's own bridge; give Student.of(..., tasks=teachers)"
                )
        if fake is None:
            if len(self.teachers) > 1:
                raise ValueError("several teachers need a fake whose network takes `task`: pass fake=BridgeModel(...)")
            first = next(iter(self.teachers.values()))
            fake = copy.deepcopy(first).on(first)  # a plain model, whatever the teacher adds to its network
        if not isinstance(fake, BridgeModel):
            raise TypeError(
                f"fake must be a BridgeModel, got {type(fake).__name__}; wrap it: BridgeModel(network, bridge)"
            )
        for model in self.teachers.values():
            if fake.conditional != model.conditional and getattr(fake.network, "conditional", None) != "optional":
                both = "; for teachers of both kinds make fake and student of networks with conditional='optional'"
                raise ValueError(
                    "fake and teacher must both be conditional or both not: the fake sees what the teacher sees"
                    f"{both if len(self.teachers) > 1 else ''}"
                )
        alone = self.teachers.get(None)
        if alone is not None:
            for name, model in {"the fake": fake, "the student": student.model}.items():
                if not model.form.same(alone.form):
                    raise ValueError(
                        f"{name} is {model.form}, the teacher {alone.form}: give them one bridge and prediction"
                    )
        networks = [student.model.network, fake.network, *{model.network for model in self.teachers.values()}]
        if len(set(networks)) < len(networks):
            raise ValueError("teacher, fake and student must not share a network: copy.deepcopy it")
        self.student_learner = Learner(student, self.settings.generator, device)
        self.fake_learner = Learner(fake.requires_grad_(True).eval(), self.settings.fake, self.student_learner.device)
        for model in self.teachers.values():
            model.requires_grad_(False).eval()
            if self.settings.generator.shard:
                shard(model, self.device)
            else:
                model.to(self.device)
            if self.settings.generator.compile:
                model.compile()
        self.fakes = {task: fake.on(model) for task, model in self.teachers.items()}
        self.update = 0

    @property
    def student(self) -> Student:
        """The averaged student, in evaluation mode."""
        return self.student_learner.averaged

    @property
    def fake(self) -> BridgeModel:
        """The fake as it is trained, not averaged."""
        return self.fake_learner.module

    @property
    def device(self) -> torch.device:
        """Where the student is trained."""
        return self.student_learner.device

    def updates(self, sources: Iterable[Source | Tensor], total: int) -> Iterator[DistillationRecord]:
        """Distil until ``total`` generator updates are made in all; ``sources`` yields batches of xT.

        Raises ValueError for a total below 1.
        """
        if total < 1:
            raise ValueError(f"at least one update is needed, got {total}")
        return self._updates(iter(sources), total)

    def _updates(self, sources: Iterator[Source | Tensor], total: int) -> Iterator[DistillationRecord]:
        while self.update < total:
            began = time.perf_counter()
            fake_loss = 0.0
            for turn in range(self.settings.fake_updates):
                if turn % self.settings.reuse == 0:
                    made = cycle(islice(self._generated(sources), self.settings.fake.accumulate))
                fake_loss = self.fake_learner.step(partial(self._fake_loss, made), self.update + 1)
            seen: list[Losses] = []
            self.student_learner.step(partial(self._generator_loss, sources, seen), self.update + 1)
            self.update += 1
            loss, gap, _ = torch.tensor(seen).mean(0).tolist()
            yield DistillationRecord(self.update, loss, gap, loss - gap, fake_loss, time.perf_counter() - began)

    def _generated(self, sources: Iterator[Source | Tensor]) -> Iterator[tuple[Source, Callable[[], Batch]]]:
        """Sources, and what the generator makes of them, once it is asked for."""
        learner = self.student_learner
        while True:
            source = self._take(sources)
            yield (
                source,
                cache(torch.no_grad()(partial(self.settings.rollout, learner.module, source, learner.generator))),
            )

    def _fake_loss(self, made: Iterator[tuple[Source, Callable[[], Batch]]]) -> Scalar:
        """Bridge matching on the generator's own output, with the network's natural weight."""
        source, x0 = next(made)
        fake = self.fakes[source.task]
        t, noise = self._draw_bridge(source, fake)
        return matching_loss(fake, x0(), source, t, weight=fake.output_weight, noise=noise)

    def _generator_loss(self, sources: Iterator[Source | Tensor], seen: list[Losses]) -> Scalar:
        source = self._take(sources)
        learner, teacher, fake = self.student_learner, self.teachers[source.task], self.fakes[source.task]
        t, noise = self._draw_bridge(source, teacher)
        x0 = self.settings.rollout(learner.module, source, learner.generator)
        weight = self.settings.weight
        chosen = weight[source.task] if isinstance(weight, Mapping) else weight  # type: ignore[index]
        losses = self.settings.loss(teacher, fake, x0, source, t, weight=chosen, noise=noise)
        seen.append(Losses(*(part.detach() for part in losses)))
        return losses.loss / losses.distance.clamp_min(1e-8) if self.settings.normalise else losses.loss

    def _draw_bridge(self, source: Source, model: BridgeModel) -> tuple[Tensor, Tensor]:
        learner = self.student_learner
        return model.bridge.draw_times(len(source.xT), learner.generator), learner.randn(source.xT.shape)

    def _take(self, sources: Iterator[Source | Tensor]) -> Source:
        source = Source.of(take(sources, self.update + 1)).to(self.student_learner.device)
        if source.task not in self.teachers:
            known = [task for task in self.teachers if task is not None]
            raise ValueError(
                f"the batch is of task {source.task}, the teachers' tasks are {known}; set Source(xT, task=...)"
            )
        return source

    @property
    def _about(self) -> str:
        return json.dumps([self.student.grid.tolist(), *(model.about for model in self.teachers.values())])

    def state_dict(self) -> dict:
        return {
            "update": self.update,
            "about": self._about,
            "student": self.student_learner.state_dict(),
            "fake": self.fake_learner.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from ``state``.  Raises ValueError where it is of another run: other models, settings or tasks."""
        if state["about"] != self._about:
            raise ValueError(
                f"the checkpoint is of another run: {state['about']}, here {self._about}; give another path"
            )
        self.student_learner.load_state_dict(state["student"])
        self.fake_learner.load_state_dict(state["fake"])
        self.update = state["update"]
