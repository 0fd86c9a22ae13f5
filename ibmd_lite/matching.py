"""Bridge matching: regress x0 along the bridge, and a bridge becomes a model (eq:matching).

The same loss trains a teacher on pairs and, in distillation, the fake on its generator's output.

Imports torch, jaxtyping, ``bridges``, ``model`` and ``training``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from ibmd_lite.bridges import like
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.training.learner import Learner, Settings
from ibmd_lite.training.streams import take

__all__ = ["TeacherRecord", "TeacherTraining", "Weight", "matching_loss", "weighted_mean"]

Batch = Float[Tensor, "batch *dims"]
Weight = Callable[[Float[Tensor, " batch"]], Float[Tensor, " batch"]]


def weighted_mean(x: Batch, t: Float[Tensor, " batch"], weight: Weight | None, source: Source) -> Float[Tensor, ""]:
    """Mean over the elements of lambda(t) x; over the hole alone where the source has a mask."""
    x = x if weight is None else like(weight(t), x) * x
    if source.mask is None:
        return x.mean()
    return (source.mask * x).sum() / source.mask.expand_as(x).sum().clamp_min(1)


def matching_loss(
    model: BridgeModel,
    x0: Batch,
    source: Source | Tensor,
    t: Float[Tensor, " batch"],
    *,
    weight: Weight | None = None,
    noise: Batch | None = None,
) -> Float[Tensor, ""]:
    """E lambda |x0_hat(xt, t[, xT]) - x0|^2, a mean over elements (eq:matching).

    weight: lambda(t), 1 by default; ``model.output_weight`` gives the loss in the network's own output.
    """
    source = source if isinstance(source, Source) else Source(source)
    xt = model.bridge.sample(x0, source.xT, t, noise)
    x0_hat = model(xt, t, **model.given(source))
    return weighted_mean((x0_hat - x0).square(), t, weight, source)


@dataclass(frozen=True)
class TeacherRecord:
    """One update of a teacher: its number, its loss, the seconds it took."""

    update: int
    loss: float
    seconds: float


class TeacherTraining:
    """Train a bridge model on pairs.  Everything is checked here; ``updates`` then yields a record each.

    Parameters
    ----------
    model : the model to train, in place; ``teacher`` is its running average
    settings : learning rate, averaging, precision (``training.Settings``)
    weight : lambda(t); by default 1/out^2, which makes it the loss of the network's own output
    draw_times : (n, generator) -> times; by default ``bridge.draw_times``

    Raises TypeError for what is no BridgeModel.
    """

    def __init__(
        self,
        model: BridgeModel,
        settings: Settings | None = None,
        *,
        weight: Weight | None = None,
        draw_times: Callable[[int, torch.Generator], Tensor] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if not isinstance(model, BridgeModel):
            raise TypeError(
                f"a BridgeModel is trained, got {type(model).__name__}; wrap the network: BridgeModel(network, bridge)"
            )
        self.learner = Learner(model, settings or Settings(), device)
        self.model, self.weight = model, weight or model.output_weight
        self.draw_times = draw_times or model.bridge.draw_times
        self.update = 0

    @property
    def teacher(self) -> BridgeModel:
        """The averaged model, in evaluation mode."""
        return self.learner.averaged

    def updates(self, pairs: Iterable[tuple[Tensor, Source | Tensor]], total: int) -> Iterator[TeacherRecord]:
        """Train until ``total`` updates are made in all; ``pairs`` yields (x0, xT) or (x0, Source).

        Raises ValueError for a total below 1.
        """
        if total < 1:
            raise ValueError(f"at least one update is needed, got {total}")
        return self._updates(iter(pairs), total)

    def _updates(self, pairs: Iterator[tuple[Tensor, Source | Tensor]], total: int) -> Iterator[TeacherRecord]:
        while self.update < total:
            began = time.perf_counter()
            value = self.learner.step(partial(self._loss, pairs), self.update + 1)
            self.update += 1
            yield TeacherRecord(self.update, value, time.perf_counter() - began)

    def _loss(self, pairs: Iterator[tuple[Tensor, Source | Tensor]]) -> Float[Tensor, ""]:
        x0, source = self._check(*take(pairs, self.update + 1))
        return self.loss(x0, source, self.times(source), self.learner.randn(x0.shape))

    def times(self, source: Source) -> Float[Tensor, " batch"]:
        """Times for a batch; a training on several bridges overrides this."""
        return self.draw_times(len(source.xT), self.learner.generator)

    def loss(self, x0: Tensor, source: Source, t: Tensor, noise: Tensor) -> Float[Tensor, ""]:
        """What an update descends (eq:matching); a training on pairs with another loss overrides this."""
        return matching_loss(self.model, x0, source, t, weight=self.weight, noise=noise)

    def _check(self, x0: Tensor, source: Source | Tensor) -> tuple[Tensor, Source]:
        source = Source.of(source)
        if x0.shape != source.xT.shape:
            raise ValueError(f"x0 and xT must have one shape, got {tuple(x0.shape)} and {tuple(source.xT.shape)}")
        if not bool(x0.isfinite().all()):
            raise ValueError("x0 holds NaN or infinite values; clean the batch before it reaches the network")
        return x0.to(self.learner.device), source.to(self.learner.device)

    def state_dict(self) -> dict:
        return {"update": self.update, "about": json.dumps(self.model.about), "learner": self.learner.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Go on from ``state``.  Raises ValueError where it is of another bridge or prediction type."""
        if state["about"] != json.dumps(self.model.about):
            raise ValueError(
                f"the checkpoint is of another model: {state['about']}, here {self.model.about}; give another path"
            )
        self.learner.load_state_dict(state["learner"])
        self.update = state["update"]
