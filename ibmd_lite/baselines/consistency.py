"""Consistency for bridges: a function that takes every point of a deterministic path to the path's clean end.

Given xT, the noise-free sampler (DBIM with eta = 0, or the probability-flow equation) moves a state down a path.
The consistency function h(xt, t, xT) is the clean end of the path through xt: it is constant along the path and the
identity at time 0.  Both facts together train it (CDBM, 2410.22637).  The path needs xT, so models are conditional.

At a pinned T there is no path yet: all of them leave from xT.  The first step is therefore random, and a student
makes two calls: h at T, which is E[x0 | xT] there, to draw the state a little below T, and h at that state.

Imports torch, jaxtyping and the method's files.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ibmd_lite.bridges import like
from ibmd_lite.matching import TeacherTraining, Weight, weighted_mean
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.student import Student
from ibmd_lite.training import Settings

__all__ = ["ConsistencyDistillation", "ConsistencyTraining"]

Batch = Float[Tensor, "batch *dims"]
Times = Float[Tensor, " batch"]


class ConsistencyTraining(TeacherTraining):
    """CBT: E lambda |h(xt, t, xT) - h'(xs, s, xT)|^2 with both states of one pair and one noise, s next below t.

    ``xt = a_t xT + b_t x0 + c_t noise`` and ``xs = a_s xT + b_s x0 + c_s noise`` (eq:bridge): averaged over what xt
    leaves open about x0, the second is one DBIM step from the first with a perfect teacher.  h' is h without
    gradient, and the state itself at s = 0.  Clean images enter; a teacher only as the start of the weights.

    ``updates`` takes pairs (x0, xT).  Raises ValueError for a student that is unconditional or has noise channels,
    for a grid of one step, and for an averaged target without an average.

    Parameters
    ----------
    student : without noise channels, trained in place: ``Student.of(teacher, noise_channels=0)``
    settings, weight, device : as in ``TeacherTraining``; the weight is 1 by default
    grid : falls from T to 0; h is compared at its neighbouring times, for instance ``bridge.grid(20)``
    averaged_target : h' with the running average of the weights in place of the weights themselves
    """

    def __init__(
        self,
        student: Student,
        settings: Settings | None = None,
        *,
        grid: Float[Tensor, " times"],
        averaged_target: bool = False,
        weight: Weight | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if not student.model.conditional:
            raise ValueError(
                "consistency needs a conditional teacher: the deterministic path of a bridge depends on xT, "
                "which an unconditional model does not see"
            )
        if student.noise_channels:
            raise ValueError(
                f"a consistency student has no noise channels, got {student.noise_channels}: its randomness is the "
                "first step's; use Student.of(teacher, noise_channels=0)"
            )
        self.grid = torch.as_tensor(grid, dtype=torch.float64, device="cpu")
        if self.grid.ndim != 1 or len(self.grid) < 3:
            raise ValueError(f"the grid needs two steps or more from T to 0, got {grid}; use bridge.grid(20)")
        self._channels = Student(student.model, student.channels, 0, self.grid).channels  # refuses an unusable grid
        super().__init__(
            student.model.requires_grad_(True),
            settings,
            weight=weight or torch.ones_like,
            draw_times=self._draw_times,
            device=device,
        )
        if averaged_target and self.learner.average is None:
            raise ValueError("averaged_target needs a running average: give settings with `average`, such as 0.99")
        self.averaged_target = averaged_target

    @property
    def student(self) -> Student:
        """The averaged student of two calls: at T, and at the next time of the grid."""
        return Student(self.teacher, self._channels, 0, self.grid[[0, 1, -1]]).eval()

    def loss(self, x0: Batch, source: Source, t: Times, noise: Batch) -> Float[Tensor, ""]:
        """The mean over elements of lambda(t) |h(xt, t, xT) - h'(xs, s, xT)|^2."""
        s = self._next(t)
        xt = self.model.bridge.sample(x0, source.xT, t, noise)
        given = self.model.given(source)
        with torch.no_grad():
            xs = self.state_below(x0, xt, source, t, s, noise)
            target = (self.teacher if self.averaged_target else self.model)(xs, s, **given)
            target = torch.where(like(s, xs) == 0, xs, target)  # h is the identity at 0
        return weighted_mean((self.model(xt, t, **given) - target).square(), t, self.weight, source)

    def state_below(self, x0: Batch, xt: Batch, source: Source, t: Times, s: Times, noise: Batch) -> Batch:
        """xs at the next time below t, on the path through xt: here that of the pair itself."""
        return self.model.bridge.sample(x0, source.xT, s, noise)

    def _draw_times(self, n: int, generator: torch.Generator) -> Times:
        index = torch.randint(len(self.grid) - 1, (n,), generator=generator, device=generator.device)
        return self.grid.float().to(generator.device)[index]

    def _next(self, t: Times) -> Times:
        grid = self.grid.to(t)
        return grid[(t[:, None] - grid).abs().argmin(1) + 1]


class ConsistencyDistillation(ConsistencyTraining):
    """CBD: as ``ConsistencyTraining``, but xs is one noise-free step of the *teacher* from xt (eq:eta-step, eta = 0).

    ``xs = a_s xT + b_s x* + (c_s/c_t) (xt - a_t xT - b_t x*)`` with x* = x*(xt, t, xT); out of a pinned T, where no
    noise is known, with c_s noise.  The step is of first order, so a coarse grid leaves an error.  Clean images
    enter through xt alone.

    Parameters
    ----------
    teacher : conditional and of the student's bridge; frozen, never changed

    Raises ValueError for a teacher of another bridge, or one that shares its network with the student.
    """

    def __init__(self, teacher: BridgeModel, student: Student, settings: Settings | None = None, **rest: Any) -> None:
        super().__init__(student, settings, **rest)
        if teacher.about != student.model.about:
            raise ValueError(f"the student is {student.model.about}, the teacher {teacher.about}: give them one bridge")
        if teacher.network is student.model.network:
            raise ValueError("teacher and student must not share a network: make the student with Student.of(teacher)")
        self.original = teacher.requires_grad_(False).eval().to(self.learner.device)

    def state_below(self, x0: Batch, xt: Batch, source: Source, t: Times, s: Times, noise: Batch) -> Batch:
        """xs by one DBIM step of the teacher, deterministic below T."""
        from_xt, from_xT, from_x0, std = (like(w, xt) for w in self.original.bridge.step_weights(t, s, 0.0))
        x0_hat = self.original(xt, t, **self.original.given(source))
        return from_xt * xt + from_xT * source.xT + from_x0 * x0_hat + std * noise
