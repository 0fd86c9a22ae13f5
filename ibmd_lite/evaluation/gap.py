"""The honest figure of a distillation: the gap with a fake refitted to the finished student.

During training the fake runs after a moving generator, and the gap it shows can be low because the fake has not
learned.  Here the generator stands still.  Imports the method files and ``training``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ibmd_lite.distillation import Student, ibmd_loss
from ibmd_lite.matching import Weight, matching_loss
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.training import Learner, Settings
from ibmd_lite.training.streams import take

__all__ = ["RefittedGap", "refitted_gap"]


@dataclass(frozen=True)
class RefittedGap:
    """gap: E lambda |x* - x_F|^2 on held-out sources.  lag: what the refitted fake still misses.  updates it took."""

    gap: float
    lag: float
    updates: int


def refitted_gap(
    teacher: BridgeModel,
    student: Student,
    sources: Iterable[Tensor | Source],
    held_out: Sequence[Tensor | Source],
    *,
    settings: Settings | None = None,
    weight: Weight | None = None,
    every: int = 100,
    patience: int = 3,
    longest: int = 5000,
    seed: int = 0,
) -> RefittedGap:
    """Freeze the student, fit a fresh fake to it, measure on held-out batches (eq:gap).

    The fake starts as the teacher and learns on fresh draws from ``sources`` until its loss on the held-out
    batches has not fallen for ``patience`` looks, one every ``every`` updates, or until ``longest`` updates.
    Its best weights are used.  The held-out times and noise are drawn once, from ``seed``.

    Raises ValueError for no held-out batch, and for an unusable stream when it is drawn from.
    """
    if not held_out:
        raise ValueError("held_out holds no batch: give a list of batches of xT that distillation has not seen")
    learner = Learner(
        copy.deepcopy(teacher).requires_grad_(True),
        settings or Settings(1e-3, betas=(0.9, 0.999), average=0.99),
        next(teacher.parameters()).device,
    )
    draws = [_draw(teacher, student, Source.of(batch), seed + k) for k, batch in enumerate(held_out)]
    sources = iter(sources)
    best, best_state, looks, update = math.inf, {}, 0, 0
    while update < longest and looks < patience:
        for _ in range(every):
            update += 1
            learner.step(partial(_fresh_loss, teacher, student, learner, sources, update), update)
        fake = learner.averaged
        with torch.no_grad():
            losses = [matching_loss(fake, x0, s, t, weight=teacher.output_weight, noise=n) for x0, s, t, n in draws]
        held = sum(loss.item() for loss in losses) / len(draws)
        looks += 1
        if held < best:
            best, best_state, looks = held, copy.deepcopy(fake.state_dict()), 0
    fake.load_state_dict(best_state)
    with torch.no_grad():
        found = [ibmd_loss(teacher, fake, x0, s, t, weight=weight, noise=n) for x0, s, t, n in draws]
    gap, loss = (sum(part) / len(found) for part in zip(*((x.gap.item(), x.loss.item()) for x in found), strict=True))
    return RefittedGap(gap, loss - gap, update)


def _fresh_loss(
    teacher: BridgeModel,
    student: Student,
    learner: Learner[BridgeModel],
    sources: Iterator[Tensor | Source],
    update: int,
) -> Tensor:
    source = Source.of(take(sources, update)).to(learner.device)
    x0 = student(source, generator=learner.generator)
    t = teacher.bridge.draw_times(len(x0), learner.generator)
    return matching_loss(learner.module, x0, source, t, weight=teacher.output_weight, noise=learner.randn(x0.shape))


def _draw(teacher: BridgeModel, student: Student, source: Source, seed: int) -> tuple[Tensor, Source, Tensor, Tensor]:
    source = source.to(next(teacher.parameters()).device)
    generator = torch.Generator(source.xT.device).manual_seed(seed)
    x0 = student(source, generator=generator)
    t = teacher.bridge.draw_times(len(x0), generator)
    return x0, source, t, torch.randn(x0.shape, generator=generator, device=x0.device)
