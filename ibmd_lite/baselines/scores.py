"""Generator losses that compare a teacher with a fake, as ``ibmd_loss`` does, and descend something else.

Both are settings of ``Distillation``: ``DistillationSettings(loss=SiD(1.0))`` or ``(loss=vsd_loss)``; the fake, its
updates and the student stay as they are.  Both are called as ``ibmd_loss`` is.  Imports torch, jaxtyping and
``distillation``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ibmd_lite.distillation import Losses, ibmd_loss

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

    def __call__(self, *given: Any, **options: Any) -> Losses:
        return ibmd_loss(*given, **options, integrand=self.integrand)

    def integrand(self, target: Batch, fake_x0: Batch, x0: Batch) -> Batch:
        """(x* - x) (x* - x0 - alpha (x* - x)), with the teacher's x* and the fake's x, for each number of the batch."""
        difference = target - fake_x0
        return difference * ((target - x0) - self.alpha * difference)


def vsd_loss(*given: Any, **options: Any) -> Losses:
    """A loss whose gradient in x0 is lambda (x_F - x*) / elements, and whose value is half the gap (VSD, DMD).

    Nothing flows through xt, teacher or fake: the student moves x0 from where the fake expects it to where the
    teacher does.  For a *conditional* teacher on a bridge with c > 0 and lambda = b^2/c^2 this is the gradient of
    KL(p_t(xt | xT) || p_t*(xt | xT)) at the perfect fake, averaged over t and divided by the elements: the scores
    differ by b (x_F - x*)/c^2, and xt moves by b as x0 moves by one.  For an unconditional teacher it is not
    the gradient of a divergence between marginals, whose scores also need E[xT | xt]; the rule still rests where
    x_F = x*.  DMD divides by the mean of |x* - x0|, which ``DistillationSettings.normalise`` does.

    Source: 2305.16213 (VSD); 2311.18828 (DMD), without its regression term.
    """
    return ibmd_loss(*given, **options, integrand=_towards_teacher)


def _towards_teacher(target: Batch, fake_x0: Batch, x0: Batch) -> Batch:
    goal = x0 - (fake_x0 - target)
    return (x0 - goal.detach()).square() / 2
