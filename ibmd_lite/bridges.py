"""Bridges: three curves and one variance.

A bridge joins a clean image x0 (time 0) to a corrupted one xT (time T).  Its state at time t is
``xt = a_t xT + b_t x0 + c_t noise`` (eq:bridge); stepping back from t to s, with x0 known, needs one
variance more, that of the Markov posterior q(xs | xt, x0) (eq:posterior).  Every family of the
literature is one small class here; models, samplers and distillation use nothing but this interface.

Imports torch and jaxtyping, nothing else of the package.
"""

from __future__ import annotations

import abc
import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "I2SB",
    "VE",
    "VP",
    "Bridge",
    "Brownian",
    "ContinuousI2SB",
    "DBIMI2SB",
    "Flow",
    "LinearBridge",
    "Posterior",
    "ResShift",
    "StepWeights",
    "TableBridge",
    "like",
]

Times = Float[Tensor, "*shape"]


class Posterior(NamedTuple):
    """Weights of q(xs | xt, x0) = N(from_xt xt + from_x0 x0, std^2), all of the shape of t."""

    from_xt: Tensor
    from_x0: Tensor
    std: Tensor


class StepWeights(NamedTuple):
    """Weights of one step xs = from_xt xt + from_xT xT + from_x0 x0_hat + std noise (eq:eta-step)."""

    from_xt: Tensor
    from_xT: Tensor
    from_x0: Tensor
    std: Tensor


def like(t: Float[Tensor, " batch"], x: Float[Tensor, "batch *dims"]) -> Float[Tensor, "batch *ones"]:
    """View one number per sample so that it multiplies a batch, with its dtype and device: (B,) -> (B, 1, ..., 1)."""
    return t.to(x.dtype).to(x.device).reshape(-1, *[1] * (x.ndim - 1))


class Bridge(abc.ABC):
    """What every family offers.  ``T`` is the end time, ``times`` the only times allowed (None: all).

    Times may have any shape; results have the shape and dtype of t (float32 or float64).  A time
    outside [0, T], or off the table of a tabulated family, is a ``ValueError``; values are checked
    on the CPU only, because looking at them on an accelerator would stall its queue.
    """

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise ValueError(f"{type(self).__name__}: {name} must be a positive number, got {value}")

    @property
    def T(self) -> float:
        return 1.0

    @property
    def times(self) -> Float[Tensor, " allowed"] | None:
        return None

    @property
    def end_std(self) -> float:
        """Noise at the start of sampling: 0 where the bridge is pinned at xT."""
        return 0.0

    @abc.abstractmethod
    def coefficients(self, t: Times) -> tuple[Times, Times, Times]:
        """a_t, b_t, c_t of xt = a_t xT + b_t x0 + c_t noise (eq:coefficients)."""

    @abc.abstractmethod
    def posterior(self, t: Times, s: Times) -> Posterior:
        """Weights of the Markov posterior q(xs | xt, x0) for s < t (eq:posterior)."""

    def prior(self, t: Times) -> tuple[Times, Times] | None:
        """alpha_t, sigma_t of q(xt | x0) = N(alpha_t x0, sigma_t^2); None where there is no prior SDE."""
        return None

    def velocity(self, xt: Tensor, x0: Tensor, xT: Tensor, t: Times) -> Tensor:
        """dxt/dt along the probability-flow ODE, with x0 predicted (eq:velocity)."""
        raise ValueError(
            f"{self} has no continuous time, so no probability-flow ODE; sample it with Markov or DBIM steps"
        )

    def reverse_sde(self, xt: Tensor, x0: Tensor, t: Times) -> tuple[Tensor, Times]:
        """Drift and g of the SDE from T to 0, dx = drift dt + g dw, with x0 predicted (eq:reverse-sde)."""
        raise ValueError(f"{self} has no SDE in continuous time; sample it with Markov or DBIM steps")

    def step_weights(self, t: Times, s: Times, eta: float) -> StepWeights:
        """The non-Markov family between eta=0 (deterministic) and eta=1 (Markov) (eq:eta-step; DBIM, 2405.15885)."""
        (at, bt, ct), (a, b, c) = self.coefficients(t), self.coefficients(s)
        booting = (t == self.T) & (self.end_std == 0)  # at the exact xT no noise is known: all of c_s is drawn
        std = torch.where(booting, c, eta * self.posterior(t, s).std)
        kept = (c.square() - std.square()).clamp_min(0).sqrt() / torch.where(ct > 0, ct, 1)
        kept = torch.where(booting, a, kept)
        from_xT = torch.where(booting, 0, a - kept * at)
        return StepWeights(kept, from_xT, torch.where(booting, b, b - kept * bt), std)

    def sample(
        self,
        x0: Float[Tensor, "batch *dims"],
        xT: Float[Tensor, "batch *dims"],
        t: Float[Tensor, " batch"],
        noise: Float[Tensor, "batch *dims"] | None = None,
    ) -> Float[Tensor, "batch *dims"]:
        """Draw xt ~ q(xt | x0, xT) (eq:bridge).  Differentiable in x0, xT and noise."""
        if x0.shape != xT.shape:
            raise ValueError(f"x0 and xT must have one shape, got {tuple(x0.shape)} and {tuple(xT.shape)}")
        if t.shape != x0.shape[:1]:
            raise ValueError(
                f"t must have shape {tuple(x0.shape[:1])}, one time per sample, got {tuple(t.shape)}; use t.reshape(-1)"
            )
        noise = torch.randn_like(x0) if noise is None else noise
        a, b, c = self.coefficients(t)
        return like(a, x0) * xT + like(b, x0) * x0 + like(c, x0) * noise

    def start(
        self, xT: Float[Tensor, "batch *dims"], noise: Float[Tensor, "batch *dims"] | None = None
    ) -> Float[Tensor, "batch *dims"]:
        """The state at T: xT itself where the bridge is pinned, else xT with the end's noise."""
        if self.end_std == 0:
            return xT
        return xT + self.end_std * (torch.randn_like(xT) if noise is None else noise)

    def grid(self, steps: int) -> Float[Tensor, " times"]:
        """``steps`` intervals from T down to 0, evenly spaced (on the nearest allowed times)."""
        if steps < 1:
            raise ValueError(f"a grid needs at least one step, got {steps}")
        if self.times is None:
            return torch.linspace(self.T, 0, steps + 1, dtype=torch.float64)
        if steps >= len(self.times):
            raise ValueError(f"{self} has {len(self.times)} times, so at most {len(self.times) - 1} steps; got {steps}")
        index = torch.linspace(len(self.times) - 1, 0, steps + 1, dtype=torch.float64).round().long()
        return self.times[index]

    def draw_times(
        self, n: int, generator: torch.Generator | None = None, *, device: torch.device | str | None = None
    ) -> Float[Tensor, " n"]:
        """Times for training: uniform on [1e-4 T, T], or on the allowed times where the state is noisy."""
        device = generator.device if generator is not None else device
        if self.times is None:
            uniform = torch.rand(n, generator=generator, device=device)
            return self.T * (1e-4 + (1 - 1e-4) * uniform)
        noisy = self.times[self.coefficients(self.times)[2] > 0].float().to(device)
        return noisy[torch.randint(len(noisy), (n,), generator=generator, device=device)]

    def check_times(self, t: Tensor) -> None:
        """Raise for times of another dtype or outside [0, T]; what every method does first."""
        if t.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"times must be float32 or float64, got {t.dtype}; use t.float()")
        if t.device.type != "cpu" or t.numel() == 0:
            return
        if not bool(((t >= 0) & (t <= self.T)).all()):
            raise ValueError(f"t must lie in [0, T] = [0, {self.T:g}], got values from {t.min():g} to {t.max():g}")

    def _check_order(self, t: Tensor, s: Tensor) -> None:
        self.check_times(t)
        self.check_times(s)
        if t.device.type == "cpu" and bool((s > t).any()):
            raise ValueError("a step goes down in time, s <= t; got a later s. Sampling runs from T to 0")


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
    def clock(self, s: Times, t: Times) -> Times: ...

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


class TableBridge(Bridge):
    """A family known at the whole-number times 0..T only; its tables are float64."""

    @property
    def times(self) -> Float[Tensor, " allowed"]:
        return torch.arange(self.T + 1, dtype=torch.float64)

    @property
    @abc.abstractmethod
    def curves(self) -> Float[Tensor, "3 allowed"]:
        """a, b, c at every allowed time."""

    @property
    @abc.abstractmethod
    def variance(self) -> Float[Tensor, " allowed"]:
        """What the Markov posterior is made of: xt = x0 (+ ...) + noise of this variance, growing with t."""

    def coefficients(self, t: Times) -> tuple[Times, Times, Times]:
        self.check_times(t)
        a, b, c = _on_device(self, t.device, t.dtype)[:, t.long()]
        return a, b, c

    def posterior(self, t: Times, s: Times) -> Posterior:
        """from_xt = v_s/v_t, from_x0 = 1 - v_s/v_t, std^2 = v_s (v_t - v_s)/v_t, differences taken in float64."""
        self._check_order(t, s)
        now, past = self.variance[t.long().cpu()], self.variance[s.long().cpu()]
        now = torch.where(now > 0, now, 1)
        gone = (now - past) / now
        return Posterior(*(weight.to(t) for weight in (past / now, gone, (past * gone).sqrt())))

    def check_times(self, t: Tensor) -> None:
        super().check_times(t)
        if t.device.type == "cpu" and not bool((t == t.round()).all()):
            raise ValueError(f"{self} knows the times 0, 1, ..., {self.T:g} only, got {t.flatten()[:4].tolist()}")


@functools.lru_cache(maxsize=32)
def _on_device(bridge: TableBridge, device: torch.device, dtype: torch.dtype) -> Tensor:
    return bridge.curves.to(device, dtype)


@dataclass(frozen=True)
class I2SB(TableBridge):
    """I2SB as published (2302.05872): ``n`` indices, t = 0..n-1, no noise-free end (std about 0.01 at both).

    With f^2 and g^2 the cumulative sums of beta from either end, beta_n in both: a = f^2/(f^2+g^2),
    b = g^2/(f^2+g^2), c^2 = f^2 g^2/(f^2+g^2).  The prior's sigma_T^2 thus depends on the index, and the
    eta=1 step keeps some xT that the posterior has not: 7e-4 of it on even grids at beta_max=0.3, 2.2e-3 at 1.0,
    far more out of the last indices (0.10 and 0.33 out of n-2).  Use ``Markov`` steps as the authors do, or
    ``ContinuousI2SB``.  Sampling still starts from the exact xT and ends at index 0.
    """

    beta_max: float = 0.3
    n: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n < 4 or self.n % 2:
            raise ValueError(f"n must be an even number of at least 4 indices, got {self.n}")

    @property
    def T(self) -> float:
        return float(self.n - 1)

    @functools.cached_property
    def _sums(self) -> tuple[Tensor, Tensor]:
        half = torch.linspace(0.01, math.sqrt(self.beta_max / self.n), self.n, dtype=torch.float64)[
            : self.n // 2
        ].square()
        beta = torch.cat([half, half.flip(0)])
        return beta.cumsum(0), beta.flip(0).cumsum(0).flip(0)

    @property
    def variance(self) -> Float[Tensor, " allowed"]:
        return self._sums[0]

    @functools.cached_property
    def curves(self) -> Float[Tensor, "3 allowed"]:
        forward, backward = self._sums
        total = forward + backward
        return torch.stack([forward / total, backward / total, (forward * backward / total).sqrt()])

    def prior(self, t: Times) -> tuple[Times, Times]:
        self.check_times(t)
        return torch.ones_like(t), self.variance.to(t)[t.long()].sqrt()


@dataclass(frozen=True)
class DBIMI2SB(I2SB):
    """The I2SB tables as DBIM divides them, by the sum of all beta: a + b = 1 + beta_n/total (up to 1.0018)."""

    beta_max: float = 1.0

    @functools.cached_property
    def curves(self) -> Float[Tensor, "3 allowed"]:
        forward, backward = self._sums
        total = forward[-1]
        return torch.stack([forward / total, backward / total, (forward * backward / total).sqrt()])


@dataclass(frozen=True)
class ResShift(TableBridge):
    """ResShift (2307.12348): a = eta_t, b = 1 - eta_t, c^2 = kappa^2 eta_t, not pinned at xT.

    ``steps`` noisy times 1..steps (index 0..steps-1 of the paper) and the clean time 0;
    sqrt(eta) grows from ``low`` to ``high`` as low (high/low)^{u^power}, u in [0, 1].
    """

    kappa: float = 2.0
    steps: int = 15
    power: float = 0.3
    high: float = 0.99
    min_noise_level: float = 0.04

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 2:
            raise ValueError(f"ResShift needs at least 2 steps, got {self.steps}")
        if not self.low < self.high < 1:
            raise ValueError(f"sqrt(eta) must rise from {self.low:g} to high < 1, got high = {self.high}")

    @property
    def T(self) -> float:
        return float(self.steps)

    @property
    def end_std(self) -> float:
        return self.kappa * self.high

    @property
    def low(self) -> float:
        return min(self.min_noise_level / self.kappa, self.min_noise_level)

    @functools.cached_property
    def eta(self) -> Float[Tensor, " allowed"]:
        u = torch.linspace(0, 1, self.steps, dtype=torch.float64) ** self.power
        return torch.cat([torch.zeros(1, dtype=torch.float64), (self.low * (self.high / self.low) ** u).square()])

    @property
    def variance(self) -> Float[Tensor, " allowed"]:
        return self.kappa**2 * self.eta

    @functools.cached_property
    def curves(self) -> Float[Tensor, "3 allowed"]:
        return torch.stack([self.eta, 1 - self.eta, self.variance.sqrt()])


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
