"""What a network's output means: prediction types, and the form in which a network is used.

A ``Prediction`` says how the network's input, time and output relate to x0 (eq:prediction): those of the public
families, and ``Output`` and ``Retimed``, named by their formulas.  A ``Form`` is a bridge, a prediction type and
whether xT is seen; files tell it in names (``told``), and ``form_of`` reads them.

Imports torch, jaxtyping and ``bridges``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ibmd_lite import bridges
from ibmd_lite.bridges import Bridge

__all__ = [
    "BBDM",
    "DDBM",
    "OUTPUTS",
    "TIMES",
    "X0",
    "Form",
    "I2SBNoise",
    "Output",
    "Prediction",
    "Retimed",
    "Scalings",
    "form_of",
    "told",
]


class Scalings(NamedTuple):
    """x0_hat = skip xt + out F(scale xt, time); one number per sample."""

    skip: Tensor
    out: Tensor
    scale: Tensor
    time: Tensor


class Prediction(Protocol):
    """A prediction type: how a network's output becomes x0_hat, for every t of a bridge."""

    def scalings(self, bridge: Bridge, t: Float[Tensor, " batch"]) -> Scalings: ...


@dataclass(frozen=True)
class X0:
    """The network predicts x0 itself; it is told the time as 1000 t/T."""

    def scalings(self, bridge: Bridge, t: Float[Tensor, " batch"]) -> Scalings:
        one = torch.ones_like(t)
        return Scalings(0 * one, one, one, 1000 * t / bridge.T)


@dataclass(frozen=True)
class I2SBNoise:
    """I2SB (2302.05872): the network predicts (xt - x0)/sigma_t with sigma of q(xt|x0).

    It is told the time as 1000 (1e-4 + (1 - 1e-4) t/T).
    """

    def scalings(self, bridge: Bridge, t: Float[Tensor, " batch"]) -> Scalings:
        """As of every prediction type; raises ValueError for a bridge without a prior q(xt|x0)."""
        prior = bridge.prior(t)
        if prior is None:
            raise ValueError(f"{bridge} has no prior q(xt|x0), which I2SBNoise divides by; use X0() or BBDM()")
        one = torch.ones_like(t)
        return Scalings(one, -prior[1], one, 1000 * (1e-4 + (1 - 1e-4) * t / bridge.T))


@dataclass(frozen=True)
class BBDM:
    """BBDM's 'grad' objective (2205.07680): the network predicts xt - x0; it is told the time as 1000 t/T."""

    def scalings(self, bridge: Bridge, t: Float[Tensor, " batch"]) -> Scalings:
        one = torch.ones_like(t)
        return Scalings(one, -one, one, 1000 * t / bridge.T)


@dataclass(frozen=True)
class DDBM:
    """DDBM's preconditioning (2309.16948): unit-variance input and target for data of std sigma_data.

    With A = a^2 sd^2 + b^2 sd^2 + 2 a b cov + c^2: scale = A^-1/2, skip = (b sd^2 + a cov)/A,
    out = sqrt(a^2 (sd^4 - cov^2) + sd^2 c^2) scale, time = 250 log t.  Finite at both ends.
    """

    sigma_data: float = 0.5
    cov: float = 0.0

    def scalings(self, bridge: Bridge, t: Float[Tensor, " batch"]) -> Scalings:
        a, b, c = bridge.coefficients(t)
        variance = self.sigma_data**2
        total = (a.square() + b.square()) * variance + 2 * a * b * self.cov + c.square()
        out = (a.square() * (variance**2 - self.cov**2) + variance * c.square()).sqrt()
        time = 250 * (t + 1e-44).log()
        return Scalings((b * variance + a * self.cov) / total, out * total.rsqrt(), total.rsqrt(), time)


def _prior(bridge: Bridge, t: Tensor) -> tuple[Tensor, Tensor]:
    prior = bridge.prior(t)
    if prior is None:
        raise ValueError(f"{bridge} has no prior q(xt|x0), so no noise and no score of it; name another output")
    return prior


def _noise(bridge: Bridge, t: Tensor) -> tuple[Tensor, Tensor]:
    alpha, sigma = _prior(bridge, t)
    return 1 / alpha, -sigma / alpha


def _score(bridge: Bridge, t: Tensor) -> tuple[Tensor, Tensor]:
    alpha, sigma = _prior(bridge, t)
    return 1 / alpha, sigma.square() / alpha


OUTPUTS: Mapping[str, Callable[[Bridge, Tensor], tuple[Tensor, Tensor]]] = {
    "x0": lambda bridge, t: (0 * t, torch.ones_like(t)),
    "xt - x0": lambda bridge, t: (torch.ones_like(t), -torch.ones_like(t)),
    "x0 - xt": lambda bridge, t: (torch.ones_like(t), torch.ones_like(t)),
    "(xt - x0) T/t": lambda bridge, t: (torch.ones_like(t), -t / bridge.T),
    "(x0 - xt) T/t": lambda bridge, t: (torch.ones_like(t), t / bridge.T),
    "(xt - alpha x0)/sigma": _noise,
    "-(xt - alpha x0)/sigma^2": _score,
}
"""What a network may predict; skip and out of x0_hat = skip xt + out F.  alpha, sigma are those of q(xt|x0).

``(xt - x0) T/t`` is the velocity of flow matching and the drift of a Brownian bridge, ``(x0 - xt) T/t`` the same for
who lets time run from the corrupted image to the clean one.  The last is a score.
"""

TIMES: Mapping[str, Callable[[Bridge, Tensor], Tensor]] = {
    "1000 t/T": lambda bridge, t: 1000 * t / bridge.T,
    "t/T": lambda bridge, t: t / bridge.T,
    "t": lambda bridge, t: t,
    "t - 1": lambda bridge, t: t - 1,
    "1000 (t - 1)/T": lambda bridge, t: 1000 * (t - 1) / bridge.T,
    "1000 (1 - t/T)": lambda bridge, t: 1000 * (1 - t / bridge.T),
    "1 - t/T": lambda bridge, t: 1 - t / bridge.T,
    "T - t": lambda bridge, t: bridge.T - t,
    "250 log t": lambda bridge, t: 250 * (t + 1e-44).log(),
    "log(t)/4": lambda bridge, t: (t + 1e-44).log() / 4,
}
"""The number that a network may be told for the time t."""


@dataclass(frozen=True)
class Output:
    """A prediction type named by its formula, a key of ``OUTPUTS``; the network is told the time 1000 t/T.

    Raises ValueError for a formula that is no key.
    """

    predicts: str

    def __post_init__(self) -> None:
        if self.predicts not in OUTPUTS:
            raise ValueError(f"unknown output {self.predicts!r}; expected one of {list(OUTPUTS)}")

    def scalings(self, bridge: Bridge, t: Float[Tensor, " batch"]) -> Scalings:
        skip, out = OUTPUTS[self.predicts](bridge, t)
        return Scalings(skip, out, torch.ones_like(t), 1000 * t / bridge.T)


@dataclass(frozen=True)
class Retimed:
    """Another prediction type, whose network is told its time by another rule, a key of ``TIMES``.

    Raises ValueError for a rule that is no key.
    """

    prediction: Prediction
    time: str

    def __post_init__(self) -> None:
        if self.time not in TIMES:
            raise ValueError(f"unknown time {self.time!r}; expected one of {list(TIMES)}")

    def scalings(self, bridge: Bridge, t: Float[Tensor, " batch"]) -> Scalings:
        return self.prediction.scalings(bridge, t)._replace(time=TIMES[self.time](bridge, t))


class Form(NamedTuple):
    """What a network is used as: on which bridge, predicting what, seeing xT or not."""

    bridge: Bridge
    prediction: Prediction
    conditional: bool

    def same(self, other: Form) -> bool:
        """Whether both are one form.  Prediction types of one's own are alike where class and attributes are."""
        return all(_alike(one, another) for one, another in zip(self, other, strict=True))


def form_of(about: Mapping[str, Any], bridge: Bridge | None = None, prediction: Prediction | None = None) -> Form:
    """The form that ``BridgeModel.about`` tells of, in names of this package; what is given counts in their stead.

    Raises ValueError for a name that is not of this package, with what to give instead.
    """
    given: dict[str, Any] = {"bridge": bridge, "prediction": prediction}
    parts = {name: _named(about[name], name) if own is None else own for name, own in given.items()}
    return Form(parts["bridge"], parts["prediction"], about["conditional"])


def told(x: Any) -> Any:
    """A bridge or prediction type by name and fields, those that it holds alike; plain values as they are."""
    if x is None or isinstance(x, bool | int | float | str | list | tuple | dict):
        return x
    held = fields(x) if is_dataclass(x) else ()
    return {"name": type(x).__name__} | {own.name: told(getattr(x, own.name)) for own in held}


def _named(said: Any, part: str) -> Any:
    """What ``told`` told of.  A file may name a prediction type in another without its class (before 0.1 did)."""
    known = {name: getattr(bridges, name) for name in bridges.__all__}
    known |= {kind.__name__: kind for kind in (X0, I2SBNoise, BBDM, DDBM, Output, Retimed)}
    if not isinstance(said, Mapping):
        return said
    if said.get("name") not in known:
        raise ValueError(
            f"the file names {said.get('name', 'nothing')} as its {part}, which this package does not know; "
            f"give load() a bridge or prediction of your own: {part}=..., the one that the model was saved with"
        )
    return known[said["name"]](**{key: _named(value, part) for key, value in said.items() if key != "name"})


def _alike(one: Any, other: Any) -> bool:
    """Equal; objects without an == of their own, and fields of dataclasses, are alike where what they hold is."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    kind: Any = type(one)
    if is_dataclass(one):
        held = [own.name for own in fields(one)]
    elif kind.__eq__ is object.__eq__ and not callable(one):
        held = sorted({*getattr(one, "__dict__", ()), *getattr(other, "__dict__", ())})
    else:  # plain values; of functions only the same one
        return bool(one == other)
    missing = object()
    values = ((getattr(one, name, missing), getattr(other, name, missing)) for name in held)
    return type(one) is type(other) and all(_alike(mine, theirs) for mine, theirs in values)
