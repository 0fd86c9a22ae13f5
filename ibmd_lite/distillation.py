"""Inverse bridge matching distillation (2502.01362): a bridge model becomes a generator of one or a few steps.

Find G(xT, z) whose own bridge matching solution is the teacher (eq:ibmd).  The solution of bridge matching
on G's output is learned beside it, the *fake*.  Nothing here can be given a clean image: a source is xT.

Imports torch, jaxtyping and the other four method files, and ``training``.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ibmd_lite import bridges
from ibmd_lite import model as predictions
from ibmd_lite.matching import Weight, matching_loss, weighted_mean
from ibmd_lite.model import BridgeModel, Source, add_noise_input, find_input
from ibmd_lite.training.files import load_weights, read_weights, save_weights
from ibmd_lite.training.learner import Learner, Settings, frozen
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
    "through_chain",
]

Batch = Float[Tensor, "batch *dims"]
Scalar = Float[Tensor, ""]


class Losses(NamedTuple):
    """loss: signed, what the generator descends.  gap: E lambda |x* - x_F|^2.  distance: E |x* - x0|, for scaling."""

    loss: Scalar
    gap: Scalar
    distance: Scalar


def ibmd_loss(
    teacher: BridgeModel,
    fake: BridgeModel,
    x0: Batch,
    source: Source | Tensor,
    t: Float[Tensor, " batch"],
    *,
    weight: Weight | None = None,
    noise: Batch | None = None,
) -> Losses:
    """E lambda (|x* - x0|^2 - |x_F - x0|^2) on the generator's x0 (eq:ibmd), a mean over elements.

    The gradient reaches x0 directly and through xt, hence through the input Jacobians of teacher and fake;
    their parameters get none.  Per sample this is twice SiD's loss at alpha = 1/2 (2404.04057).
    """
    source = source if isinstance(source, Source) else Source(source)
    xt = teacher.bridge.sample(x0, source.xT, t, noise)  # not detached: the gradient goes through xt too
    with frozen(teacher, fake):
        target = teacher(xt, t, **teacher.given(replace(source, task=None)))  # a teacher has one task only
        fake_x0 = fake(xt, t, **fake.given(source))
    loss = weighted_mean((target - x0).square() - (fake_x0 - x0).square(), t, weight, source)
    with torch.no_grad():
        gap = weighted_mean((target - fake_x0).square(), t, weight, source)
        distance = weighted_mean((target - x0).abs(), t, None, source)
    return Losses(loss, gap, distance)


class Student(nn.Module):
    """A generator G(xt, z, t[, xT]) walked down a short grid: ``student(source) -> x0``, one call per step.

    Between two steps the Markov posterior is drawn (eq:few-step); after the last there is no noise.
    Make one with ``Student.of(teacher)``: the teacher's weights, and noise inputs that start at zero.
    """

    def __init__(self, model: BridgeModel, channels: int, noise_channels: int, grid: Float[Tensor, " times"]) -> None:
        super().__init__()
        grid = torch.as_tensor(grid, dtype=torch.float64, device="cpu")
        if (
            grid.ndim != 1
            or len(grid) < 2
            or grid[0] != model.bridge.T
            or grid[-1] != 0
            or not bool((grid.diff() < 0).all())
        ):
            raise ValueError(
                f"a student's grid falls from T = {model.bridge.T:g} to 0, got {grid.tolist()}; use bridge.grid(steps)"
            )
        model.bridge.check_times(grid)
        self.model, self.channels, self.noise_channels, self.grid = model, channels, noise_channels, grid

    @classmethod
    def of(
        cls,
        teacher: BridgeModel,
        *,
        steps: int = 1,
        noise_channels: int | None = None,
        channels: int | None = None,
        input_layer: str = "input_layer",
    ) -> Student:
        """A student that starts as the teacher.

        steps: network calls per image.  noise_channels: channels of z, by default as many as the image has;
        0 makes a deterministic student.  channels: of the image, read off the input layer by default.
        """
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"a student needs a whole number of steps, at least one step, got {steps}")
        if noise_channels is not None and noise_channels < 0:
            raise ValueError(f"noise_channels must be 0 or more, got {noise_channels}")
        width = find_input(teacher.network, input_layer).weight.shape[1]
        if channels is None:
            channels = width // 2 if teacher.conditional else width
        noise_channels = channels if noise_channels is None else noise_channels
        expected = 2 * channels if teacher.conditional else channels
        if width != expected:
            raise ValueError(
                f"the input layer takes {width} channels, expected {expected} for images of {channels}: name another "
                "input_layer, or channels"
            )
        network = add_noise_input(teacher.network, channels, noise_channels, input_layer).requires_grad_(True)
        model = BridgeModel(network, teacher.bridge, conditional=teacher.conditional, prediction=teacher.prediction)
        return cls(model, channels, noise_channels, teacher.bridge.grid(steps)).eval()

    def save(self, path: str | os.PathLike) -> None:
        """Write the weights as safetensors, with the bridge, prediction type and grid they belong to."""
        own = {"channels": self.channels, "noise_channels": self.noise_channels, "grid": self.grid.tolist()}
        save_weights(path, self, self.model.about | own)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        network: nn.Module,
        *,
        input_layer: str = "input_layer",
        bridge: bridges.Bridge | None = None,
        prediction: predictions.Prediction | None = None,
    ) -> Student:
        """The student of a file that ``save`` wrote.  network: one as the teacher's, its weights do not matter.

        bridge, prediction: only needed where they are not of this package; the file names them, no more.
        """
        about, _ = read_weights(path)
        known = {name: getattr(module, name) for module in (bridges, predictions) for name in module.__all__}
        try:
            bridge = bridge or known[about["bridge"].pop("name")](**about["bridge"])
            prediction = prediction or known[about["prediction"].pop("name")](**about["prediction"])
            channels, noise_channels = about["channels"], about["noise_channels"]
            wide = add_noise_input(network, channels, noise_channels, input_layer)
            model = BridgeModel(wide, bridge, conditional=about["conditional"], prediction=prediction)
            student = cls(model, channels, noise_channels, torch.tensor(about["grid"], dtype=torch.float64))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path} holds no student that this package knows: {error}; write it with student.save(path), and give "
                "load() a bridge or prediction of your own"
            ) from error
        load_weights(path, student)
        return student.eval()

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As ``BridgeModel.compile``."""
        self.model.compile(*args, **kwargs)

    @property
    def nfe(self) -> int:
        return len(self.grid) - 1

    @torch.no_grad()
    def forward(self, source: Source | Tensor, *, generator: torch.Generator | None = None) -> Batch:
        """x0 for every source, without gradient (``walk`` has one); noise from ``generator`` or torch's own."""
        return self.walk(Source.of(source), self.nfe, generator)

    def walk(
        self, source: Source, calls: int, generator: torch.Generator | None = None, *, through: bool = False
    ) -> Batch:
        """x0 after ``calls`` network calls on the way down; the gradient is of the last call, or ``through`` all."""
        xT, bridge = source.xT, self.model.bridge
        if xT.shape[1] != self.channels:
            raise ValueError(f"the student takes xT of {self.channels} channels, got shape {tuple(xT.shape)}")
        self.model.check_dtype(xT)
        xt = bridge.start(xT) if bridge.end_std == 0 else bridge.start(xT, _normal(xT, xT.shape, generator))
        with torch.set_grad_enabled(through and torch.is_grad_enabled()):
            for t, s in pairwise(self.grid[:calls]):
                from_xt, from_x0, std = (weight.item() for weight in bridge.posterior(t, s))
                x0 = self.step(xt, t, source, generator)
                xt = from_xt * xt + from_x0 * x0 + std * _normal(xt, xt.shape, generator)
        return self.step(xt, self.grid[calls - 1], source, generator)

    def step(self, xt: Batch, t: Tensor, source: Source, generator: torch.Generator | None = None) -> Batch:
        """G(xt, z, t[, xT]) with fresh z, the known pixels kept."""
        z = _normal(xt, (len(xt), self.noise_channels, *xt.shape[2:]), generator) if self.noise_channels else None
        time = torch.full((len(xt),), t.item(), device=xt.device, dtype=torch.promote_types(xt.dtype, torch.float32))
        return source.compose(self.model(xt, time, z=z, **self.model.given(source)))


def _normal(x: Tensor, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    return torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)


Rollout = Callable[[Student, Source, torch.Generator], Batch]


def end_of_chain(student: Student, source: Source, generator: torch.Generator) -> Batch:
    """Train on the student's final x0 (the paper's regime for I2SB)."""
    return student.walk(source, student.nfe, generator)


def through_chain(student: Student, source: Source, generator: torch.Generator) -> Batch:
    """As ``end_of_chain``, with the gradient through every call: as many times the memory as there are steps."""
    return student.walk(source, student.nfe, generator, through=True)


def random_step(student: Student, source: Source, generator: torch.Generator) -> Batch:
    """Train on the x0 of a step chosen uniformly, at the state the student itself reaches (the regime for DDBM)."""
    calls = torch.randint(1, student.nfe + 1, (), generator=generator, device=generator.device)
    return student.walk(source, int(calls), generator)


@dataclass(frozen=True)
class DistillationSettings:
    """generator, fake: how each is trained.  fake_updates: L, per generator update.

    weight: lambda(t) of the generator's loss (None: 1).  normalise: divide its loss by E |x* - x0|, without
    gradient.  rollout: which x0 of a student of several steps is trained on.
    """

    generator: Settings = field(default_factory=lambda: Settings(1e-4, betas=(0.0, 0.999), average=0.99))
    fake: Settings = field(default_factory=lambda: Settings(2e-4, betas=(0.0, 0.999), average=None))
    fake_updates: int = 5
    weight: Weight | None = None
    normalise: bool = True
    rollout: Rollout = end_of_chain

    def __post_init__(self) -> None:
        if not isinstance(self.fake_updates, int) or self.fake_updates < 1:
            raise ValueError(f"fake_updates must be a whole number of at least 1, got {self.fake_updates}")
        if self.weight is not None and not callable(self.weight):
            raise TypeError(f"weight must be a function of t such as teacher.output_weight, got {self.weight!r}")


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
    teacher : a trained BridgeModel, or {task: BridgeModel}; it is frozen, put in evaluation mode, never changed
    student : trained in place; ``run.student`` is its running average
    fake : trained in place; by default a copy of the teacher, and needed when there are several teachers
        (then its network must take ``task``: a fake that does not see the task pushes the tasks apart)
    settings : learning rates, L, weight, rollout
    """

    def __init__(
        self,
        teacher: BridgeModel | Mapping[int | None, BridgeModel],
        student: Student,
        *,
        fake: BridgeModel | None = None,
        settings: DistillationSettings | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.settings = settings or DistillationSettings()
        if not isinstance(self.settings, DistillationSettings):
            raise TypeError(f"settings must be DistillationSettings, got {type(self.settings).__name__}")
        given: Mapping[int | None, BridgeModel] = teacher if isinstance(teacher, Mapping) else {None: teacher}
        self.teachers = dict(given)
        if not isinstance(student, Student):
            raise TypeError(
                f"student must be a Student, got {type(student).__name__}; make one with Student.of(teacher)"
            )
        if not self.teachers:
            raise ValueError("at least one teacher is needed, got an empty mapping")
        for task, model in self.teachers.items():
            name = "the teacher" if task is None else f"teacher {task}"
            if not isinstance(model, BridgeModel):
                raise TypeError(
                    f"{name} must be a BridgeModel, got {type(model).__name__}; wrap it: BridgeModel(network, bridge)"
                )
            if model.bridge.T != student.model.bridge.T:
                raise ValueError(
                    f"{name} ends at T = {model.bridge.T:g}, the student at T = {student.model.bridge.T:g}: "
                    "make the student with Student.of(teacher), or give both one bridge"
                )
        if fake is None:
            if len(self.teachers) > 1:
                raise ValueError("several teachers need a fake whose network takes `task`: pass fake=BridgeModel(...)")
            fake = copy.deepcopy(next(iter(self.teachers.values())))
        if not isinstance(fake, BridgeModel):
            raise TypeError(
                f"fake must be a BridgeModel, got {type(fake).__name__}; wrap it: BridgeModel(network, bridge)"
            )
        for model in self.teachers.values():
            if fake.conditional != model.conditional:
                raise ValueError(
                    "fake and teacher must both be conditional or both not: the fake sees what the teacher sees"
                )
        alone = self.teachers.get(None)
        if alone is not None:
            for name, model in {"the fake": fake, "the student": student.model}.items():
                if model.about != alone.about:
                    raise ValueError(
                        f"{name} is {model.about}, the teacher {alone.about}: give them one bridge and prediction"
                    )
        networks = [student.model.network, fake.network, *{model.network for model in self.teachers.values()}]
        if len(set(networks)) < len(networks):
            raise ValueError("teacher, fake and student must not share a network: copy.deepcopy it")
        self.student_learner = Learner(student, self.settings.generator, device)
        self.fake_learner = Learner(fake.requires_grad_(True).eval(), self.settings.fake, self.student_learner.device)
        for model in self.teachers.values():
            model.requires_grad_(False).eval().to(self.student_learner.device)
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
        return self.student_learner.device

    def updates(self, sources: Iterable[Source | Tensor], total: int) -> Iterator[DistillationRecord]:
        """Distil until ``total`` generator updates are made in all; ``sources`` yields batches of xT."""
        if total < 1:
            raise ValueError(f"at least one update is needed, got {total}")
        return self._updates(iter(sources), total)

    def _updates(self, sources: Iterator[Source | Tensor], total: int) -> Iterator[DistillationRecord]:
        while self.update < total:
            began = time.perf_counter()
            fake_loss = 0.0
            for _ in range(self.settings.fake_updates):
                fake_loss = self._update_fake(self._take(sources))
            losses = self._update_generator(self._take(sources))
            self.update += 1
            loss, gap = losses.loss.item(), losses.gap.item()
            yield DistillationRecord(self.update, loss, gap, loss - gap, fake_loss, time.perf_counter() - began)

    def _update_fake(self, source: Source) -> float:
        """One step of bridge matching on the generator's own output, with the network's natural weight."""
        learner, fake = self.fake_learner, self.fakes[source.task]
        t, noise = self._draw_bridge(source, fake)
        with learner.autocast():
            with torch.no_grad():
                x0 = self.settings.rollout(self.student_learner.module, source, self.student_learner.generator)
            loss = matching_loss(fake, x0, source, t, weight=fake.output_weight, noise=noise)
        return learner.step(loss, self.update + 1)

    def _update_generator(self, source: Source) -> Losses:
        learner, teacher, fake = self.student_learner, self.teachers[source.task], self.fakes[source.task]
        t, noise = self._draw_bridge(source, teacher)
        with learner.autocast():
            x0 = self.settings.rollout(learner.module, source, learner.generator)
            losses = ibmd_loss(teacher, fake, x0, source, t, weight=self.settings.weight, noise=noise)
            scale = losses.distance.clamp_min(1e-8) if self.settings.normalise else 1.0
        learner.step(losses.loss / scale, self.update + 1)
        return losses

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
        if state["about"] != self._about:
            raise ValueError(
                f"the checkpoint is of another run: {state['about']}, here {self._about}; give another path"
            )
        self.student_learner.load_state_dict(state["student"])
        self.fake_learner.load_state_dict(state["fake"])
        self.update = state["update"]
