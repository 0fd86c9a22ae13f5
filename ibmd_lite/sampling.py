"""From xT to x0 along a trained bridge: one function, small step objects, every network call counted.

``Markov`` is the SDE (and, without noise, I2SB's OT-ODE), ``DBIM`` the family between it and a
deterministic sampler, ``Heun`` the probability-flow ODE, ``Hybrid`` DDBM's mixture of the two.
A step is frozen settings; what it may use, its own earlier predictions included, comes with the ``Interval``.
Weights are computed in float64 on the CPU.

Imports torch, jaxtyping, ``bridges`` and ``model``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ibmd_lite.bridges import Bridge
from ibmd_lite.model import BridgeModel, Source

__all__ = [
    "DBIM",
    "EulerMaruyama",
    "Heun",
    "Hybrid",
    "Interval",
    "Markov",
    "Sample",
    "Step",
    "karras_grid",
    "multistep_weights",
    "sample",
]

Batch = Float[Tensor, "batch *dims"]


@dataclass(frozen=True)
class Sample:
    """x0, the number of network calls it took, and the visited states where they were asked for."""

    x0: Batch
    nfe: int
    states: list[Tensor] = field(default_factory=list)


class Interval(NamedTuple):
    """One interval of a grid, from t down to s, and what a step may use there."""

    bridge: Bridge
    predict: Callable[[Batch, Tensor], Batch]  # (xt, t) -> x0_hat: one network call
    draw: Callable[[], Batch]  # a standard normal like xt
    xT: Batch
    t: Tensor
    s: Tensor
    last: bool  # the last step of a grid uses no noise
    past: tuple[tuple[Tensor, Batch], ...] = ()  # (t, x0_hat) of earlier calls, the latest first


class Step(Protocol):
    """One step: the state at ``at.s`` from the state at ``at.t``."""

    def __call__(self, xt: Batch, at: Interval) -> Batch: ...

    def check(self, model: BridgeModel) -> None:
        """Raise ValueError for a model this step cannot walk; asked once, before any network call."""
        return


@dataclass(frozen=True)
class Markov(Step):
    """xs ~ q(xs | xt, x0_hat) (eq:posterior), the bridge's own SDE.  noise < 1 scales the noise only.

    noise = 0 is I2SB's OT-ODE and BBDM's eta = 0.  Right for conditional and unconditional models.

    Raises ValueError for noise outside [0, 1].
    """

    noise: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= 1:
            raise ValueError(f"noise must lie in [0, 1], got {self.noise}")

    def __call__(self, xt: Batch, at: Interval) -> Batch:
        from_xt, from_x0, std = (weight.item() for weight in at.bridge.posterior(at.t, at.s))
        xs = from_xt * xt + from_x0 * at.predict(xt, at.t)
        return xs if at.last or std * self.noise == 0 else xs + self.noise * std * at.draw()


@dataclass(frozen=True)
class DBIM(Step):
    """The eta-family (eq:eta-step; 2405.15885): eta = 1 is the SDE, eta = 0 deterministic after the first draw.

    For eta < 1 the step uses xT; with an unconditional model this is an approximation.  order 2 or 3, for eta = 0,
    puts a mean of this and the one or two predictions before in place of x0_hat (eq:multistep), at no further
    network call.  The first step after the draw and the last step are of order 1.

    Raises ValueError for eta outside [0, 1], and for an order that is not 1, 2 or 3 or not of eta = 0.
    """

    eta: float = 0.0
    order: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {self.eta}")
        if self.order not in (1, 2, 3):
            raise ValueError(f"order must be 1, 2 or 3, got {self.order}")
        if self.order > 1 and self.eta > 0:
            raise ValueError(f"order {self.order} is for the deterministic step, eta=0.0; got eta={self.eta}")

    def check(self, model: BridgeModel) -> None:
        """Raise ValueError for a model whose bridge has c = 0, where there is no log(b/c) to integrate over."""
        if self.order > 1 and model.bridge.coefficients(model.bridge.grid(2)[1])[2] == 0:
            raise ValueError(f"order {self.order} integrates over log(b/c), and {model.bridge} has c = 0; use Heun()")

    def __call__(self, xt: Batch, at: Interval) -> Batch:
        from_xt, from_xT, from_x0, std = (w.item() for w in at.bridge.step_weights(at.t, at.s, self.eta))
        seen = [(at.t, at.predict(xt, at.t))]
        if not at.last:  # at a pinned T, log(b/c) is infinite: that prediction served the draw alone
            known = [(t, x0) for t, x0 in at.past if t < at.bridge.T or at.bridge.end_std > 0]
            seen += known[: self.order - 1]
        weights = multistep_weights(at.bridge, [t for t, _ in seen], at.s) if len(seen) > 1 else [1.0]
        x0_hat = sum(weight * x0 for weight, (_, x0) in zip(weights, seen, strict=True))
        xs = from_xt * xt + from_xT * at.xT + from_x0 * x0_hat
        return xs if at.last or std == 0 else xs + std * at.draw()


def multistep_weights(bridge: Bridge, times: list[Tensor], s: Tensor) -> list[float]:
    """Weights of the predictions made at ``times``, the present one first, in the step to s (eq:multistep).

    With l = log(b/c), the flow for a known x0_hat(l) moves (xt - a xT)/c by the integral of e^l x0_hat(l).  Here
    x0_hat is the polynomial through the predictions: the weights match the mean of u^j under e^u on (0, h), where
    u = l - l_t and h = l_s - l_t.  They add up to 1.
    """
    _, b, c = bridge.coefficients(torch.stack([*times, s]))
    *u, h = ((b / c).log() - (b[0] / c[0]).log()).unbind()
    moments = [torch.ones_like(h)]
    for j in range(1, len(times)):  # integration by parts
        moments.append(h**j / -torch.expm1(-h) - j * moments[-1])
    powers = torch.stack(u) ** torch.arange(len(times), dtype=h.dtype)[:, None]
    return torch.linalg.solve(powers, torch.stack(moments)).tolist()


@dataclass(frozen=True)
class Heun(Step):
    """Heun's second-order rule on the probability-flow ODE (eq:velocity), Euler into the last time.

    For conditional models and ``Flow``; others are refused.  Out of a pinned T, where the ODE is singular, it
    takes one DBIM step, with noise.  Next to T the noise grows like sqrt(T - t), which a rule for smooth slopes
    meets with a fixed error: from T the spread of x0 given xT comes out 2.3 % too large however fine an even
    grid is.  A grid that starts just below T starts from xT exactly, as DDBM does, and has no noise at all: its
    x0 is one answer, not a draw.  ``Hybrid`` has neither fault, nor has ``DBIM(order=2)``, whose rule knows c_t.
    """

    def check(self, model: BridgeModel) -> None:
        """Raise ValueError for an unconditional model, whose flow needs a score that it does not tell."""
        bridge, point = model.bridge, torch.zeros(1, 1, dtype=torch.float64)
        half = torch.tensor([bridge.T / 2], dtype=torch.float64)
        bridge.velocity(point, point, point, half)  # refuses families without an ODE
        if not model.conditional and bridge.prior(half) is not None:
            raise ValueError("the probability-flow ODE of an unconditional bridge model needs its score; use Markov()")

    def __call__(self, xt: Batch, at: Interval) -> Batch:
        if at.t == at.bridge.T and at.bridge.prior(at.t) is not None:
            return DBIM()(xt, at)
        length = (at.s - at.t).item()
        slope = at.bridge.velocity(xt, at.predict(xt, at.t), at.xT, at.t.expand(len(xt)))
        xs = xt + length * slope
        if at.last:
            return xs
        ahead = at.bridge.velocity(xs, at.predict(xs, at.s), at.xT, at.s.expand(len(xt)))
        return xt + length * (slope + ahead) / 2


@dataclass(frozen=True)
class EulerMaruyama(Step):
    """Euler's rule on the SDE (eq:reverse-sde), noise included.  ``Markov`` has the same limit and is exact for
    a known x0: prefer it.  This one is a part of ``Hybrid``.
    """

    def check(self, model: BridgeModel) -> None:
        point = torch.zeros(1, 1, dtype=torch.float64)
        model.bridge.reverse_sde(point, point, torch.tensor([model.bridge.T / 2], dtype=torch.float64))

    def __call__(self, xt: Batch, at: Interval) -> Batch:
        length = (at.s - at.t).item()
        drift, g = at.bridge.reverse_sde(xt, at.predict(xt, at.t), at.t.expand(len(xt)))
        xs = xt + length * drift
        return xs if at.last else xs + g[0].item() * abs(length) ** 0.5 * at.draw()


@dataclass(frozen=True)
class Hybrid(Step):
    """DDBM's sampler (2309.16948): ``EulerMaruyama`` over the first ``churn`` of an interval, ``Heun`` over the rest.

    Three calls per interval, two in the last.  For conditional models; meant for ``karras_grid``.  The SDE is not
    singular at T, so a grid may start there.  The spread of x0 given xT is right in the limit, which is slow: with
    40 steps (119 calls) it is 3.4 % too large.

    Raises ValueError for a churn outside [0, 1).
    """

    churn: float = 0.33

    def __post_init__(self) -> None:
        if not 0 < self.churn < 1:
            raise ValueError(f"churn must lie between 0 and 1, got {self.churn}; without churn use Heun()")

    def check(self, model: BridgeModel) -> None:
        EulerMaruyama().check(model)
        Heun().check(model)

    def __call__(self, xt: Batch, at: Interval) -> Batch:
        middle = at.t + self.churn * (at.s - at.t)
        xt = EulerMaruyama()(xt, at._replace(s=middle, last=False))
        return Heun()(xt, at._replace(t=middle))


def karras_grid(
    bridge: Bridge, steps: int, *, rho: float = 7.0, first: float | None = None, last: float | None = None
) -> Float[Tensor, " times"]:
    """DDBM's grid: ``steps`` times from ``first`` to ``last``, even in t^(1/rho), then 0 (eq:karras).

    first: T by default; last, the latest time before 0: 1e-4 T.  rho > 1 puts most times near 0.

    Raises ValueError for a bridge of whole-number times, fewer than two steps, and times that do not fall within (0,
    T].
    """
    first, last = bridge.T if first is None else first, 1e-4 * bridge.T if last is None else last
    if bridge.times is not None:
        raise ValueError(f"{bridge} knows whole-number times only; use bridge.grid(steps)")
    if steps < 2 or rho <= 0 or not 0 < last < first <= bridge.T:
        raise ValueError(
            f"expected two steps or more, rho > 0 and 0 < last < first <= T = {bridge.T:g}; "
            f"got {steps} steps, rho={rho}, last={last:g}, first={first:g}"
        )
    roots = torch.linspace(first ** (1 / rho), last ** (1 / rho), steps, dtype=torch.float64)
    grid = torch.cat([roots**rho, torch.zeros(1, dtype=torch.float64)])
    grid[0] = first  # exactly T, where T is meant
    return grid


@torch.no_grad()
def sample(
    model: BridgeModel,
    source: Source | Tensor,
    grid: Float[Tensor, " times"],
    step: Step | None = None,
    *,
    generator: torch.Generator | None = None,
    noise: Iterable[Tensor] | None = None,
    keep_states: bool = False,
) -> Sample:
    """Walk ``grid`` from T down to its last time, one ``step`` per interval (Markov by default).

    ``noise`` gives the standard normal draws in place of ``generator``, in the order used.  With a mask the
    known pixels of every x0_hat are those of xT, which no loss taught the model: so they walk the bridge between
    xT and itself, as in training, and are xT again at the end.  A grid that starts below T takes xT for the state
    there.  Raises ValueError for a grid that does not fall, leaves [0, T] or has no interval, and for a source that
    is not finite; TypeError for what is no BridgeModel, or a step that is a class.
    """
    if not isinstance(model, BridgeModel):
        raise TypeError(
            f"a BridgeModel is sampled, got {type(model).__name__}; wrap the network: BridgeModel(network, bridge)"
        )
    if isinstance(step, type):
        raise TypeError(f"a step is an object, not a class: use {step.__name__}()")
    step, source, bridge = step or Markov(), Source.of(source), model.bridge
    grid = torch.as_tensor(grid, dtype=torch.float64, device="cpu")
    if grid.ndim != 1 or len(grid) < 2 or not bool((grid.diff() < 0).all()):
        raise ValueError(
            f"a grid holds at least two times that fall from T to 0, got {grid.tolist()}; use bridge.grid(steps)"
        )
    bridge.check_times(grid)
    model.check_dtype(source.xT)
    step.check(model)
    xT, draws = source.xT, None if noise is None else iter(noise)
    calls, past = 0, deque[tuple[Tensor, Tensor]](maxlen=2)  # all that DBIM(order=3) looks back on

    def draw() -> Tensor:
        if draws is not None:
            given = next(draws, None)
            if given is None or given.shape != xT.shape:
                got = "no more draws" if given is None else f"one of shape {tuple(given.shape)}"
                raise ValueError(f"noise must give a draw of shape {tuple(xT.shape)} at every noisy step, got {got}")
            return given
        return torch.randn(xT.shape, generator=generator, device=xT.device, dtype=xT.dtype)

    def predict(xt: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        time = torch.full((len(xt),), t.item(), device=xt.device, dtype=torch.promote_types(xt.dtype, torch.float32))
        past.appendleft((t, source.compose(model(xt, time, **model.given(source)))))
        return past[0][1]

    xt = bridge.start(xT) if bridge.end_std == 0 else bridge.start(xT, draw())
    states = [xt]
    for index, (t, s) in enumerate(pairwise(grid)):
        last = index == len(grid) - 2
        xt = step(xt, Interval(bridge, predict, draw, xT, t, s, last, tuple(past)))
        if keep_states:
            states.append(xt)
    return Sample(source.compose(xt), calls, states if keep_states else [])
