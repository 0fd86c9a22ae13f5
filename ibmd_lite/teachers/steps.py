"""DDBM's guidance (2309.16948): steps of ``sample`` in which the pull toward xT has a weight.

The pull is g^2 h with h = grad log q(xT | xt), the part of the drift that Doob's transform adds. ``GuidedHeun`` and
``GuidedHybrid`` are ``Heun`` and ``Hybrid`` on a bridge whose drift has it w times.
Not classifier-free guidance, which is about labels: see ``guidance``; the two can be used together.
Imports torch, ``bridges``, ``model`` and ``sampling``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ibmd_lite.bridges import VE, Bridge, LinearBridge, Posterior, like
from ibmd_lite.bridges.bridge import Times
from ibmd_lite.model import BridgeModel
from ibmd_lite.sampling import Heun, Hybrid, Interval, Step

__all__ = ["DDBMWeights", "GuidedHeun", "GuidedHybrid", "ddbm_weights", "pull"]

Batch = Float[Tensor, "batch *dims"]


def pull(bridge: LinearBridge, xt: Batch, xT: Batch, t: Float[Tensor, " batch"]) -> Batch:
    """g^2 h with h = grad log q(xT | xt) = (alpha_t xT/alpha_T - xt) / (sigma_t^2 (SNR_t/SNR_T - 1)).

    Infinite at T, where t must not be.
    """
    end = torch.full_like(t, bridge.T)
    alpha, alpha_T = bridge.log_alpha(t).exp(), bridge.log_alpha(end).exp()
    h = (like(alpha / alpha_T, xt) * xT - xt) / like(alpha.square() * bridge.clock(t, end), xt)
    return like(bridge.rates(t)[1], xt) * h


@dataclass(frozen=True)
class GuidedHeun(Step):
    """``Heun`` on dx = (f x - g^2 (s/2 - w h)) dt, s the score of q(xt | xT).

    That is (eq:velocity) + (w - 1) g^2 h. weight: w; 1 is ``Heun()``. Below 1 the answer stays nearer to xT, above 1 it
    is driven away from it; for no w but 1 is it a draw of x0 given xT, however good the model. The first step out of
    T, which is a draw of the bridge, has no weight. For what the public code does on VE see ``ddbm_weights``.
    """

    weight: float

    def __post_init__(self) -> None:
        _check_weight("weight", self.weight)

    def check(self, model: BridgeModel) -> None:
        _check_bridge(model)
        Heun().check(model)

    def __call__(self, xt: Batch, at: Interval) -> Batch:
        return Heun()(xt, at._replace(bridge=_Pulled(at, self.weight)))


@dataclass(frozen=True)
class GuidedHybrid(Step):
    """``Hybrid`` with one weight in its ODE and one in its SDE, dx = (f x - g^2 (s - w h)) dt + g dw.

    weight: of ``GuidedHeun``, over the larger part of an interval. churn_weight: of the SDE, over the first ``churn``
    of it; for one that is not 1 the grid must start below T, where h is finite: ``karras_grid(bridge, steps,
    first=0.9999 * bridge.T)``.
    """

    weight: float
    churn_weight: float
    churn: float = 0.33

    def __post_init__(self) -> None:
        _check_weight("weight", self.weight)
        _check_weight("churn_weight", self.churn_weight)
        Hybrid(self.churn)

    def check(self, model: BridgeModel) -> None:
        _check_bridge(model)
        Hybrid(self.churn).check(model)

    def __call__(self, xt: Batch, at: Interval) -> Batch:
        if at.t == at.bridge.T and self.churn_weight != 1:
            raise ValueError(
                f"with churn_weight={self.churn_weight:g} the drift is infinite at T = {at.bridge.T:g}; start below: "
                "karras_grid(bridge, steps, first=0.9999 * bridge.T)"
            )
        return Hybrid(self.churn)(xt, at._replace(bridge=_Pulled(at, self.weight, self.churn_weight)))


class DDBMWeights(NamedTuple):
    """The weights of ``GuidedHeun`` (the first) and ``GuidedHybrid`` (both)."""

    weight: float
    churn_weight: float


def ddbm_weights(bridge: Bridge, weight: float) -> DDBMWeights:
    """What DDBM's public code does at its guidance ``weight``: ``GuidedHybrid(*ddbm_weights(bridge, 0.5))``.

    On VP the weight stands before h in ODE and SDE. On VE the ODE is written with v = s - h in place of s, as
    f x - g^2 (v - w h)/2: the same for w = 1, and (1 + w)/2 of h otherwise; its SDE has no weight. We take the rule of
    VP for every bridge but VE.
    """
    _check_weight("weight", weight)
    return DDBMWeights((1 + weight) / 2, 1.0) if isinstance(bridge, VE) else DDBMWeights(weight, weight)


class _Pulled(Bridge):
    """The bridge of an interval, with the pull toward xT weighted in both drifts, and all else as it was."""

    def __init__(self, at: Interval, weight: float, churn_weight: float = 1.0) -> None:
        assert isinstance(at.bridge, LinearBridge)  # ``check`` saw to it
        self.bridge, self.xT = at.bridge, at.xT
        self.weight, self.churn_weight = weight, churn_weight

    @property
    def T(self) -> float:
        return self.bridge.T

    def coefficients(self, t: Times) -> tuple[Times, Times, Times]:
        return self.bridge.coefficients(t)

    def posterior(self, t: Times, s: Times) -> Posterior:
        return self.bridge.posterior(t, s)

    def prior(self, t: Times) -> tuple[Times, Times]:
        return self.bridge.prior(t)

    def velocity(self, xt: Tensor, x0: Tensor, xT: Tensor, t: Times) -> Tensor:
        drift = self.bridge.velocity(xt, x0, xT, t)
        return drift if self.weight == 1 else drift + (self.weight - 1) * pull(self.bridge, xt, xT, t)

    def reverse_sde(self, xt: Tensor, x0: Tensor, t: Times) -> tuple[Tensor, Times]:
        drift, g = self.bridge.reverse_sde(xt, x0, t)
        if self.churn_weight == 1:  # at T, h is infinite and 0 h is not 0
            return drift, g
        return drift + (self.churn_weight - 1) * pull(self.bridge, xt, self.xT, t), g


def _check_weight(name: str, weight: float) -> None:
    if not math.isfinite(weight) or weight < 0:
        raise ValueError(f"{name} is {weight}; expected a number of at least 0, 1 for no guidance")


def _check_bridge(model: BridgeModel) -> None:
    if not isinstance(model.bridge, LinearBridge):
        raise ValueError(
            f"{model.bridge} has no h = grad log q(xT | xt) in continuous time; use Brownian, VP, VE or ContinuousI2SB"
        )
