"""What a bridge is: three curves, one variance, and what follows from them for every family.

Imports torch and jaxtyping.
"""

from __future__ import annotations

import abc
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Bridge", "Posterior", "StepWeights", "Times", "like"]

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
        """The last time, that of xT."""
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
        """dxt/dt along the probability-flow ODE, with x0 predicted (eq:velocity); all (batch, *dims)."""
        raise ValueError(
            f"{self} has no continuous time, so no probability-flow ODE; sample it with Markov or DBIM steps"
        )

    def reverse_sde(self, xt: Tensor, x0: Tensor, t: Times) -> tuple[Tensor, Times]:
        """Drift (batch, *dims) and g of the SDE from T to 0, dx = drift dt + g dw, x0 predicted (eq:reverse-sde)."""
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
        """Refuse times (batch,) of another dtype (TypeError) or outside [0, T] (ValueError), before anything else."""
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
