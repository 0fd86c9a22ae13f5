"""Settings that work for points in the plane, so that chapters and benchmarks share them.

Lives here: a teacher trained on a planar coupling, and its distillation. Both are the package's own classes
with their arguments filled in; a chapter that is about an argument passes it. Imports the method and its
surroundings; nothing in the package imports this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ibmd_lite.bridges import Bridge, Brownian
from ibmd_lite.distillation import Distillation, DistillationRecord, DistillationSettings, Student
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BridgeModel, Prediction, Source
from ibmd_lite.networks import MLP
from ibmd_lite.training import Draws, Settings

__all__ = ["Coupling", "distil", "early_times", "near_zero", "plane_settings", "train_teacher"]


class Coupling(Protocol):
    """Pairs to learn from, and sources alone to distil with; see ``data.plane`` and ``data.Corrupted``."""

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor | Source]: ...

    def sources(self, n: int, generator: torch.Generator | None = None) -> Tensor | Source: ...


def early_times(bridge: Bridge) -> Callable[[int, torch.Generator], Tensor]:
    """Times T u^2, u uniform on [0.01, 1]: more of them near 0, where modes part; the optimum is the same."""
    if bridge.times is not None:
        return bridge.draw_times

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return bridge.T * (0.01 + 0.99 * torch.rand(n, generator=generator)).square()

    return draw


def near_zero(t: Tensor) -> Tensor:
    """lambda(t) = 1/(t^2 + 0.003), for T = 1: the shape of the KL weight 1/(2 t^2), kept finite at 0; (batch,)."""
    return 1 / (t.square() + 0.003)


def train_teacher(
    coupling: Coupling,
    bridge: Bridge | None = None,
    *,
    conditional: bool = False,
    prediction: Prediction | None = None,
    updates: int = 4000,
    batch: int = 1024,
    width: int = 128,
    seed: int = 0,
) -> BridgeModel:
    """An MLP trained by bridge matching on a planar coupling; half a minute on one core.

    bridge: Brownian(1.0) by default. prediction: of the network, x0 by default.
    """
    torch.manual_seed(seed)
    bridge = bridge or Brownian(1.0)
    chosen: dict[str, Any] = {} if prediction is None else {"prediction": prediction}
    model = BridgeModel(MLP(width=width, conditional=conditional), bridge, conditional=conditional, **chosen)
    settings = Settings(2e-3, average=0.995, seed=seed, decay=updates)
    run = TeacherTraining(model, settings, draw_times=early_times(bridge), device="cpu")
    for _ in run.updates(Draws(coupling.draw, batch, seed), updates):
        pass
    return run.teacher


def plane_settings(updates: int, seed: int = 0) -> DistillationSettings:
    """Momentum, one learning rate for both networks, decay to zero, and ``near_zero`` as weight."""
    learning = Settings(2e-3, betas=(0.9, 0.999), average=None, seed=seed, decay=updates)
    return DistillationSettings(generator=replace(learning, average=0.99), fake=learning, weight=near_zero)


def distil(
    teacher: BridgeModel | Mapping[int, BridgeModel],
    coupling: Coupling,
    *,
    updates: int = 1500,
    batch: int = 512,
    seed: int = 0,
    student: Student | None = None,
    fake: BridgeModel | None = None,
    settings: DistillationSettings | None = None,
    watch: Callable[[DistillationRecord, Distillation], None] | None = None,
) -> Student:
    """The teacher's student, from sources alone; under a minute on one core.  Several teachers: {task: teacher}.

    student: one step with noise by default. settings: ``plane_settings`` by default. watch: called after every
    generator update with its record and the run, for curves and stills.
    """
    torch.manual_seed(seed)
    alone = next(iter(teacher.values())) if isinstance(teacher, Mapping) else teacher
    run = Distillation(
        teacher,
        student or Student.of(alone),
        fake=fake,
        settings=settings or plane_settings(updates, seed),
        device="cpu",
    )
    for record in run.updates(Draws(coupling.sources, batch, seed), updates):
        if watch is not None:
            watch(record, run)
    return run.student
