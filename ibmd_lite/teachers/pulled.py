"""DDBM's guidance in a teacher's own answer: for a student, which has no steps in which the pull could be weighted.

``steps`` weights the pull toward xT while it walks; ``Pulled`` says the same as another x0_hat, so that any sampler and
a distillation can take it.
Imports torch, jaxtyping, ``bridges`` and ``model``.
"""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ibmd_lite.bridges import LinearBridge, like
from ibmd_lite.model import BridgeModel

__all__ = ["Pulled"]

Batch = Float[Tensor, "batch channels *dims"]


class Pulled(BridgeModel):
    """x0_hat + (1 - w) (sigma^2/alpha) h, with h = grad log q(xT | xt): a teacher whose pull toward xT counts w times.

    The drift of the SDE is f x - g^2 v with v = s - h, and x0_hat = (sigma^2 v + xt)/alpha. With w h in place of h, v
    grows by (1 - w) h and x0_hat by (1 - w) (sigma^2/alpha) h = (1 - w) r (xT/alpha_T - xt/alpha_t), where
    r = (1/SNR_t)/(1/SNR_T - 1/SNR_t); on a Brownian bridge that is (1 - w) t/(T - t) (xT - xt).

    Its SDE is therefore that of ``GuidedHybrid`` with ``churn_weight=w``. Its probability-flow ODE has the weight
    (1 + w)/2, since there v counts half, as s/2 - h = v/2 - h/2: that of ``GuidedHeun((1 + w)/2)``. The two belong to
    one process; DDBM's weight on VP, which is w in both, does not for w other than 1.

    At T the answer is the teacher's: there xt = xT, the bracket is 0 and r infinite, and on the way to T their product
    grows like the noise of the bridge over T - t. So the square of what is added has no finite mean over t up to T.
    Distil it with a weight that vanishes at T, ``lambda t: teacher.output_weight(t) * (1 - t / T)``; fake and student
    are plain models of the teacher::

        Distillation(Pulled(teacher, 0.5), Student.of(teacher), fake=copy.deepcopy(teacher), settings=...)

    For w other than 1 no data have this answer, and the student is a compromise, as with ``guided``. Not for classes:
    that is ``guided``, of which this takes one too.

    model: shares its weights.  weight: w; 1 is the model itself.
    Raises TypeError for what is no BridgeModel; ValueError for a weight that is not finite or below 0, an unconditional
    model, which is not given xT, and a bridge without h in continuous time.  Source: the guidance of DDBM's samplers
    (2309.16948); its form in x0_hat is ours.
    """

    weight: float

    def __init__(self, model: BridgeModel, weight: float) -> None:
        if not isinstance(model, BridgeModel):
            raise TypeError(
                f"a BridgeModel is pulled, got {type(model).__name__}; wrap the network: BridgeModel(network, bridge)"
            )
        if isinstance(model, Pulled):
            raise ValueError(f"the model is pulled already, with weight {model.weight:g}; pull the one it was made of")
        if not math.isfinite(weight) or weight < 0:
            raise ValueError(f"weight is {weight}; expected a number of at least 0, 1 for no guidance")
        if not model.conditional:
            raise ValueError(
                "an unconditional model is not told xT, so nothing pulls toward it; give a conditional one"
            )
        if not isinstance(model.bridge, LinearBridge):
            raise ValueError(
                f"{model.bridge} has no h = grad log q(xT | xt) in continuous time; use Brownian, VP, VE or "
                "ContinuousI2SB"
            )
        super().__init__(model.network, **model.form._asdict())
        self.weight = float(weight)
        self.train(model.training)

    def forward(self, xt: Batch, t: Float[Tensor, " batch"], xT: Batch | None = None, **given: Tensor | None) -> Batch:
        """x0_hat with the pull weighted; z, label and task as of ``BridgeModel``."""
        x0_hat = super().forward(xt, t, xT, **given)  # refuses a missing xT
        if self.weight == 1 or xT is None:
            return x0_hat
        bridge = self.bridge
        assert isinstance(bridge, LinearBridge)
        end = torch.full_like(t, bridge.T)
        left = bridge.clock(t, end)
        reach = torch.where(left > 0, bridge.clock(torch.zeros_like(t), t) / left, 0)
        at_t, at_T = (like((-bridge.log_alpha(time)).exp(), xt) for time in (t, end))
        return x0_hat + like((1 - self.weight) * reach, xt) * (at_T * xT - at_t * xt)

    def save(self, path: str | os.PathLike) -> None:
        """Refused: a file says bridge and prediction type, and would be read as the plain model."""
        raise ValueError(
            "a pulled model is not saved: save the model that it was made of, and make Pulled(model, weight) again"
        )

    @property
    def about(self) -> dict[str, Any]:
        """With the weight, so that a checkpoint knows it."""
        return super().about | {"pull": self.weight}

    def extra_repr(self) -> str:
        return f"weight={self.weight:g}"
