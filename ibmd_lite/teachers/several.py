"""Several teachers of one task: their average as one teacher, and the loss of their barycentre.

Lives here: `Average`, a network that asks several; `average_teacher`, the bridge model of it; `barycentre_loss`, which
holds a student against each of them.  For teachers of different tasks give ``Distillation`` a mapping {task: teacher}.
Imports torch, ``distillation``, ``matching``, ``model`` and its neighbour ``pulled``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ibmd_lite.distillation import Losses, ibmd_loss
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.teachers.pulled import Pulled

__all__ = ["Average", "average_teacher", "barycentre_loss"]

Batch = Float[Tensor, "batch *dims"]


class Average(nn.Module):
    """``network(xt, time, ...) = sum_k w_k F_k(xt, time, ...)``: one call asks every part.

    parts: networks that are called alike.  weights: one for each, not negative, with sum 1; equal by default.

    Raises ValueError for fewer than two parts, and for weights that are negative or do not add up to 1.
    """

    def __init__(self, parts: Sequence[nn.Module], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        weights = [1 / len(parts)] * len(parts) if weights is None else list(weights)
        if len(parts) < 2:
            raise ValueError(f"an average needs two networks or more, got {len(parts)}")
        if len(weights) != len(parts) or min(weights) < 0 or not math.isclose(sum(weights), 1):
            raise ValueError(f"expected {len(parts)} weights that are not negative and add up to 1, got {weights}")
        self.parts, self.weights = nn.ModuleList(parts), tuple(weights)

    def forward(self, xt: Batch, time: Float[Tensor, " batch"], *seen: Batch, **conditions: Any) -> Batch:
        """The weighted mean of what the parts answer."""
        answers = [part(xt, time, *seen, **conditions) for part in self.parts]
        return torch.stack([w * answer for w, answer in zip(self.weights, answers, strict=True)]).sum(0)


def average_teacher(teachers: Sequence[BridgeModel], weights: Sequence[float] | None = None) -> BridgeModel:
    """The teacher sum_k w_k x*_k of teachers of one task, one bridge and one prediction type.

    x0_hat is linear in the network's output, so the networks are averaged.  Distil it with a student, and a fake, made
    of *one* of the teachers: a student of the average itself would be as large as all of them together.
    With ``barycentre_loss`` the same object gives the barycentre.

    Raises ValueError for teachers of different forms: their answers to one xt belong to different bridges.
    """
    if any(isinstance(teacher, Pulled) for teacher in teachers):
        raise ValueError("the pull is no part of a network: average first, Pulled(average_teacher([...]), weight)")
    forms = {repr(teacher.form) for teacher in teachers}
    if len(forms) != 1:
        raise ValueError(f"teachers that are averaged have one form, got {', '.join(sorted(forms))}")
    network = Average([teacher.network for teacher in teachers], weights)
    return BridgeModel(network, **teachers[0].form._asdict()).eval()


def barycentre_loss(
    teacher: BridgeModel,
    fake: BridgeModel,
    x0: Batch,
    source: Source | Tensor,
    t: Float[Tensor, " batch"],
    *,
    noise: Batch | None = None,
    **options: Any,
) -> Losses:
    """sum_k w_k of ``ibmd_loss`` for each part of an `average_teacher`, on the same states (eq:barycentre).

    Its best student keeps to what all teachers know (the normalised geometric mean of their laws, eq:geometric); the
    student of their average spreads more, also to where their answers cancel.  ``DistillationSettings(loss=...)``
    takes it.  options: as of ``ibmd_loss``.

    Raises TypeError for a teacher that is no average.
    """
    network = teacher.network
    if not isinstance(network, Average):
        raise TypeError(
            f"barycentre_loss takes an average_teacher([...]), got a teacher of one {type(network).__name__}"
        )
    noise = torch.randn_like(x0) if noise is None else noise
    parts = [
        ibmd_loss(BridgeModel(part, **teacher.form._asdict()), fake, x0, source, t, noise=noise, **options)
        for part in network.parts
    ]
    weighted = ([w * term for term in one] for w, one in zip(network.weights, parts, strict=True))
    return Losses(*(torch.stack(terms).sum(0) for terms in zip(*weighted, strict=True)))
