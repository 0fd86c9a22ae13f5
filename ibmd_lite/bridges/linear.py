"""Linear SDEs pinned at xT, and their limit without noise.

Imports torch, jaxtyping and its neighbour ``bridge``.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ibmd_lite.bridges.bridge import Bridge, Posterior, StepWeights, Times, like

__all__ = ["VE", "VP", "Brownian", "ContinuousI2SB", "Flow", "LinearBridge"]


class LinearBridge(Bridge):
    """A linear SDE pinned at xT (Doob's h-transform): dx = f x dt + g dw, q(xt|x0) = N(alpha_t x0, sigma_t^2).

    A family says only how the signal shrinks, ``log_alpha(t)``, and how the variance in units of the
    signal grows, ``clock(s, t) = sigma_t^2/alpha_t^2 - sigma_s^2/alpha_s^2`` (an increment, so that nothing
    cancels near T), with both rates for the SDE.
    """

    def log_alpha(self, t: Times) -> Times:
        """0 unless the signal shrinks."""
        return torch.zeros_like(t)

    @abc.abstractmethod
    def clock(self, s: Times, t: Times) -> Times:
        """sigma_t^2/alpha_t^2 - sigma_s^2/alpha_s^2, for s <= t."""
        ...

    @abc.abstractmethod
    def rates(self, t: Times) -> tuple[Times, Times]:
        """f(t) and g(t)^2 of the prior SDE."""

    def prior(self, t: Times) -> tuple[Times, Times]:
        self.check_times(t)
        alpha = self.log_alpha(t).exp()
        return alpha, alpha * self.clock(torch.zeros_like(t), t).sqrt()

    def coefficients(self, t: Times) -> tuple[Times, Times, Times]:
        """With r = SNR_T/SNR_t: a = r alpha_t/alpha_T, b = alpha_t (1-r), c^2 = sigma_t^2 (1-r)."""
        self.check_times(t)
        end, zero = torch.full_like(t, self.T), torch.zeros_like(t)
        total = self.clock(zero, end)
        past, left = self.clock(zero, t) / total, self.clock(t, end) / total
        alpha, alpha_T = self.log_alpha(t).exp(), self.log_alpha(end).exp()
        return past * alpha / alpha_T, left * alpha, alpha * (past * left * total).sqrt()

    def posterior(self, t: Times, s: Times) -> Posterior:
        self._check_order(t, s)
        zero = torch.zeros_like(t)
        past = torch.where(t > 0, self.clock(zero, t), 1)
        kept, gone = self.clock(zero, s) / past, self.clock(s, t) / past
        alpha_t, alpha_s = self.log_alpha(t).exp(), self.log_alpha(s).exp()
        return Posterior(kept * alpha_s / alpha_t, alpha_s * gone, alpha_s * (kept * gone * past).sqrt())

    def velocity(self, xt: Tensor, x0: Tensor, xT: Tensor, t: Times) -> Tensor:
        """f xt - g^2 (score/2 - h), score of q(xt|x0,xT) and h = grad log q(xT|xt) (DDBM, 2309.16948)."""
        a, b, c = self.coefficients(t)
        f, g2 = self.rates(t)
        end = torch.full_like(t, self.T)
        alpha, alpha_T = self.log_alpha(t).exp(), self.log_alpha(end).exp()
        score = -(xt - like(a, xt) * xT - like(b, xt) * x0) / like(c.square(), xt)
        h = -(xt - like(alpha / alpha_T, xt) * xT) / like(alpha.square() * self.clock(t, end), xt)
        return like(f, xt) * xt - like(g2, xt) * (score / 2 - h)

    def reverse_sde(self, xt: Tensor, x0: Tensor, t: Times) -> tuple[Tensor, Times]:
        """f xt - g^2 v with v = grad log q(xt|x0), and g: neither knows xT, nothing is singular at T."""
        alpha, sigma = self.prior(t)
        f, g2 = self.rates(t)
        v = -(xt - like(alpha, xt) * x0) / like(sigma.square(), xt)
        return like(f, xt) * xt - like(g2, xt) * v, g2.sqrt()

    def kl_weight(self, t: Times) -> Times:
        """lambda = g^2 alpha^2 / (2 sigma^4): with it the gap is KL / (T d), of the two processes in d dimensions."""
        alpha, sigma = self.prior(t)
        return self.rates(t)[1] * alpha.square() / (2 * sigma.square().square())


@dataclass(frozen=True)
class Brownian(LinearBridge):
    """Brownian motion of variance eps t: a = t/T, b = 1 - t/T, c^2 = eps t(1 - t/T).

    BBDM with maximal variance s is eps = 2s, LBM is eps = sigma^2.
    """

    eps: float = 1.0
    T: float = 1.0

    def clock(self, s: Times, t: Times) -> Times:
        return self.eps * (t - s)

    def rates(self, t: Times) -> tuple[Times, Times]:
        return torch.zeros_like(t), torch.full_like(t, self.eps)


@dataclass(frozen=True)
class VP(LinearBridge):
    """Variance preserving: alpha = exp(-beta_d t^2/4 - beta_min t/2), sigma^2 = 1 - alpha^2 (DDBM-VP)."""

    beta_d: float = 2.0
    beta_min: float = 0.1
    T: float = 1.0

    def _beta(self, s: Times, t: Times) -> Times:
        return (t - s) * (self.beta_d * (t + s) / 2 + self.beta_min)

    def log_alpha(self, t: Times) -> Times:
        return -self._beta(torch.zeros_like(t), t) / 2

    def clock(self, s: Times, t: Times) -> Times:
        return torch.exp(self._beta(torch.zeros_like(s), s)) * torch.expm1(self._beta(s, t))

    def rates(self, t: Times) -> tuple[Times, Times]:
        beta = self.beta_min + self.beta_d * t
        return -beta / 2, beta


@dataclass(frozen=True)
class VE(LinearBridge):
    """Variance exploding: alpha = 1, sigma = t, so a = t^2/T^2 and c^2 = t^2 (1 - t^2/T^2) (DDBM-VE)."""

    T: float = 80.0

    def clock(self, s: Times, t: Times) -> Times:
        return (t - s) * (t + s)

    def rates(self, t: Times) -> tuple[Times, Times]:
        return torch.zeros_like(t), 2 * t


@dataclass(frozen=True)
class ContinuousI2SB(LinearBridge):
    """I2SB in continuous time: alpha = 1, sigma_t^2 = 1000 int_0^t beta, sqrt(beta) = 0.01 + slope min(t, 1-t)."""

    beta_max: float = 0.3

    @property
    def _slope(self) -> float:
        return math.sqrt(self.beta_max / 1000) - 0.01

    def _beta(self, s: Times, t: Times) -> Times:
        """1000 int_s^t beta on the rising half, both ends at most 1/2: exact, as a product with t - s."""
        middle, half = 0.01 + self._slope * (t + s) / 2, self._slope * (t - s) / 2
        return 1000 * (t - s) * (middle.square() + half.square() / 3)

    def clock(self, s: Times, t: Times) -> Times:
        rising = self._beta(s.clamp_max(0.5), t.clamp_max(0.5))
        falling = self._beta(1 - t.clamp_min(0.5), 1 - s.clamp_min(0.5))
        return rising + falling

    def rates(self, t: Times) -> tuple[Times, Times]:
        root = 0.01 + self._slope * torch.minimum(t, 1 - t)
        return torch.zeros_like(t), 1000 * root.square()


@dataclass(frozen=True)
class Flow(Bridge):
    """Straight lines without noise, a = t/T, b = 1 - t/T, c = 0: flow matching, I2SB's 'ot_ode'.

    The limit eps -> 0 of Brownian.  Path measures are singular here, so no KL: the matching and distillation
    losses stay valid as limits, and all randomness must come from xT or z.
    """

    T: float = 1.0

    def coefficients(self, t: Times) -> tuple[Times, Times, Times]:
        self.check_times(t)
        return t / self.T, 1 - t / self.T, torch.zeros_like(t)

    def posterior(self, t: Times, s: Times) -> Posterior:
        limit = Brownian(T=self.T).posterior(t, s)
        return limit._replace(std=torch.zeros_like(t))

    def step_weights(self, t: Times, s: Times, eta: float) -> StepWeights:
        limit = Brownian(T=self.T).step_weights(t, s, eta)
        return limit._replace(std=torch.zeros_like(t))

    def velocity(self, xt: Tensor, x0: Tensor, xT: Tensor, t: Times) -> Tensor:
        return (xt - x0) / like(t, xt)
