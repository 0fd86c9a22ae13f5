"""Generator losses that compare a teacher with a fake, as ``ibmd_loss`` does, and descend something else.

Both are settings of ``Distillation``: ``DistillationSettings(loss=SiD(1.0))`` or ``(loss=vsd_loss)``; the fake, its
updates and the student stay as they are.  Imports torch, jaxtyping, ``distillation``, ``matching``, ``model``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ibmd_lite.distillation import Losses
from ibmd_lite.matching import Weight, weighted_mean
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.training import frozen

__all__ = ["SiD", "vsd_loss"]

Batch = Float[Tensor, "batch *dims"]


@dataclass(frozen=True)
class SiD:
    """E lambda <x* - x_F, (x* - x0) - alpha (x* - x_F)>, a mean over elements (score identity distillation).

    alpha = 1/2 is half of ``ibmd_loss``, sample by sample.  At the perfect fake the value is (1 - alpha) times the
    gap, so that alpha = 1 has value 0 everywhere and alpha > 1 a negative one: only alpha = 1/2 descends the value
    of a divergence, because only there a small change of the fake leaves the loss as it is.  Near the solution the
    gradients of all alpha agree to first order.  SiD's own choices are 1.0 and 1.2.

    The gradient goes through x0 and through xt, as in ``ibmd_loss``.  Not for reporting: its value may be anything.
    Raises ValueError for an alpha that is not finite.  Source: 2404.04057, eq. 23, in x0 form.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.alpha):
            raise ValueError(f"alpha must be a finite number such as 0.5, 1.0 or 1.2, got {self.alpha}")

    def __call__(
        self,
        teacher: BridgeModel,
        fake: BridgeModel,
        x0: Batch,
        source: Source | Tensor,
        t: Float[Tensor, " batch"],
        *,
        weight: Weight | None = None,
        noise: Batch | None = None,
    ) -> Losses:
        source = source if isinstance(source, Source) else Source(source)
        target, fake_x0 = _answers(teacher, fake, x0, source, t, noise)
        difference = target - fake_x0
        loss = weighted_mean(difference * ((target - x0) - self.alpha * difference), t, weight, source)
        return _losses(loss, target, fake_x0, x0, source, t, weight)


def vsd_loss(
    teacher: BridgeModel,
    fake: BridgeModel,
    x0: Batch,
    source: Source | Tensor,
    t: Float[Tensor, " batch"],
    *,
    weight: Weight | None = None,
    noise: Batch | None = None,
) -> Losses:
    """A loss whose gradient in x0 is lambda (x_F - x*) / elements, and whose value is half the gap (VSD, DMD).

    Nothing flows through xt, teacher or fake: the student moves x0 from where the fake expects it to where the
    teacher does.  For a *conditional* teacher on a bridge with c > 0 and lambda = b^2/c^2 this is the gradient of
    KL(p_t(xt | xT) || p_t*(xt | xT)) at the perfect fake, averaged over t and divided by the elements: the scores
    differ by b (x_F - x*)/c^2, and xt moves by b as x0 moves by one.  For an unconditional teacher it is not
    the gradient of a divergence between marginals, whose scores also need E[xT | xt]; the rule still rests where
    x_F = x*.  DMD divides by the mean of |x* - x0|, which ``DistillationSettings.normalise`` does.

    Source: 2305.16213 (VSD); 2311.18828 (DMD), without its regression term.
    """
    source = source if isinstance(source, Source) else Source(source)
    with torch.no_grad():
        target, fake_x0 = _answers(teacher, fake, x0, source, t, noise)
        goal = x0 - (fake_x0 - target)
    loss = weighted_mean((x0 - goal).square(), t, weight, source) / 2
    return _losses(loss, target, fake_x0, x0, source, t, weight)


def _answers(
    teacher: BridgeModel, fake: BridgeModel, x0: Batch, source: Source, t: Tensor, noise: Batch | None
) -> tuple[Batch, Batch]:
    """x* and x_F at one xt of the generator's bridge; their parameters get no gradient."""
    xt = teacher.bridge.sample(x0, source.xT, t, noise)
    with frozen(teacher, fake):
        target = teacher(xt, t, **teacher.given(replace(source, task=None)))  # a teacher has one task only
        return target, fake(xt, t, **fake.given(source))


def _losses(
    loss: Tensor, target: Batch, fake_x0: Batch, x0: Batch, source: Source, t: Tensor, weight: Weight | None
) -> Losses:
    with torch.no_grad():
        gap = weighted_mean((target - fake_x0).square(), t, weight, source)
        distance = weighted_mean((target - x0).abs(), t, None, source)
    return Losses(loss, gap, distance)
