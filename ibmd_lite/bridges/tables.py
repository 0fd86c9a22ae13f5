"""Bridges that were published as tables over whole-number times.

Imports torch, jaxtyping and its neighbour ``bridge``.
"""

from __future__ import annotations

import abc
import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ibmd_lite.bridges.bridge import Bridge, Posterior, StepWeights, Times

__all__ = ["I2SB", "DBIMI2SB", "I2SBFlow", "ResShift", "TableBridge"]


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
        """As ``Bridge.check_times``; raises ValueError also for times that are no whole numbers; (batch,)."""
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

    Raises ValueError for an odd ``n``, or one below 4.
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
class I2SBFlow(I2SB):
    """I2SB's 'ot_ode', its published deblurring and inpainting: the tables of ``I2SB`` for a and b, no noise.

    c = 0, and the step to s keeps the posterior's mean and drops its noise; sigma_t, by which ``I2SBNoise`` divides,
    stays that of ``I2SB``.  As with ``Flow``, all randomness must come from xT or z.  Published with beta_max = 1.0.
    """

    beta_max: float = 1.0

    @functools.cached_property
    def curves(self) -> Float[Tensor, "3 allowed"]:
        a, b, c = super().curves
        return torch.stack([a, b, torch.zeros_like(c)])

    def posterior(self, t: Times, s: Times) -> Posterior:
        return super().posterior(t, s)._replace(std=torch.zeros_like(t))

    def step_weights(self, t: Times, s: Times, eta: float) -> StepWeights:
        return I2SB(self.beta_max, self.n).step_weights(t, s, eta)._replace(std=torch.zeros_like(t))

    def draw_times(
        self, n: int, generator: torch.Generator | None = None, *, device: torch.device | str | None = None
    ) -> Float[Tensor, " n"]:
        """Uniform on all indices, as published; no state is noisy."""
        device = generator.device if generator is not None else device
        return torch.randint(self.n, (n,), generator=generator, device=device).float()


@dataclass(frozen=True)
class ResShift(TableBridge):
    """ResShift (2307.12348): a = eta_t, b = 1 - eta_t, c^2 = kappa^2 eta_t, not pinned at xT.

    ``steps`` noisy times 1..steps (index 0..steps-1 of the paper) and the clean time 0;
    sqrt(eta) grows from ``low`` to ``high`` as low (high/low)^{u^power}, u in [0, 1].

    Raises ValueError for fewer than 2 steps, and for a ``high`` that is not between ``low`` and 1.
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
        """sqrt(eta) at the first noisy step."""
        return min(self.min_noise_level / self.kappa, self.min_noise_level)

    @functools.cached_property
    def eta(self) -> Float[Tensor, " allowed"]:
        """eta at every time, from 0 at the clean one; (steps + 1,)."""
        u = torch.linspace(0, 1, self.steps, dtype=torch.float64) ** self.power
        return torch.cat([torch.zeros(1, dtype=torch.float64), (self.low * (self.high / self.low) ** u).square()])

    @property
    def variance(self) -> Float[Tensor, " allowed"]:
        return self.kappa**2 * self.eta

    @functools.cached_property
    def curves(self) -> Float[Tensor, "3 allowed"]:
        return torch.stack([self.eta, 1 - self.eta, self.variance.sqrt()])
