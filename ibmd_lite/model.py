"""A network on a bridge: any prediction type in, x0_hat out.

``BridgeModel`` is what teachers, fakes and generators all are.  A ``Prediction`` says how the network's
input, time and output relate to x0: ``x0_hat = skip xt + out F(scale xt, time)`` (eq:prediction).  ``Output`` and
``Retimed`` are prediction types named by their formulas.
``Source`` is all that a sampler or a generator may know of an image; there is no place in it for x0.

Imports torch, jaxtyping, ``bridges`` and the training files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ibmd_lite import bridges
from ibmd_lite.bridges import Bridge, like
from ibmd_lite.training.files import loaded, save_weights

__all__ = [
    "BBDM",
    "DDBM",
    "OUTPUTS",
    "TIMES",
    "X0",
    "BridgeModel",
    "Form",
    "I2SBNoise",
    "Output",
    "Prediction",
    "Retimed",
    "Scalings",
    "Source",
    "form_of",
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
    """A prediction type named by its formula, a key of ``OUTPUTS``; the network is told the time 1000 t/T."""

    predicts: str

    def __post_init__(self) -> None:
        if self.predicts not in OUTPUTS:
            raise ValueError(f"unknown output {self.predicts!r}; expected one of {list(OUTPUTS)}")

    def scalings(self, bridge: Bridge, t: Float[Tensor, " batch"]) -> Scalings:
        skip, out = OUTPUTS[self.predicts](bridge, t)
        return Scalings(skip, out, torch.ones_like(t), 1000 * t / bridge.T)


@dataclass(frozen=True)
class Retimed:
    """Another prediction type, whose network is told its time by another rule, a key of ``TIMES``."""

    prediction: Prediction
    time: str

    def __post_init__(self) -> None:
        if self.time not in TIMES:
            raise ValueError(f"unknown time {self.time!r}; expected one of {list(TIMES)}")

    def scalings(self, bridge: Bridge, t: Float[Tensor, " batch"]) -> Scalings:
        return self.prediction.scalings(bridge, t)._replace(time=TIMES[self.time](bridge, t))


@dataclass(frozen=True)
class Source:
    """What a sampler or generator is given: a batch xT, and what comes with it.

    mask: (B, 1, *dims), 1 in the hole of an inpainting task; label: class labels (B,); task: which of
    several tasks the whole batch belongs to.  A bare tensor is ``Source(xT)``.
    """

    xT: Float[Tensor, "batch *dims"]
    mask: Float[Tensor, "batch 1 *dims"] | None = None
    label: Tensor | None = None
    task: int | None = None

    @staticmethod
    def of(source: Source | Tensor) -> Source:
        """Take a tensor or a Source, and refuse what must not reach a network."""
        source = source if isinstance(source, Source) else Source(source)
        if not isinstance(source.xT, Tensor):
            raise TypeError(f"a source must be a tensor xT or a Source, got {type(source.xT).__name__}")
        if source.xT.ndim < 2 or not source.xT.is_floating_point():
            raise ValueError(
                f"xT must be a floating-point batch (B, *dims), got {source.xT.dtype} of shape {tuple(source.xT.shape)}"
            )
        if len(source.xT) == 0:
            raise ValueError("xT is an empty batch; give at least one image")
        if not bool(source.xT.isfinite().all()):
            raise ValueError("xT holds NaN or infinite values; clean the batch before it reaches the network")
        if source.mask is not None and source.mask.shape != (len(source.xT), 1, *source.xT.shape[2:]):
            raise ValueError(
                f"mask must be {(len(source.xT), 1, *source.xT.shape[2:])} for xT {tuple(source.xT.shape)}, "
                f"got {tuple(source.mask.shape)}"
            )
        if source.mask is not None and not (
            source.mask.is_floating_point() and bool(((source.mask == 0) | (source.mask == 1)).all())
        ):
            raise ValueError(
                f"mask must hold floats, 1 in the hole and 0 elsewhere, got {source.mask.dtype}; "
                "use (mask > 0.5).to(xT.dtype)"
            )
        return source

    def to(self, device: torch.device | str) -> Source:
        moved = {name: getattr(self, name) for name in ("xT", "mask", "label")}
        return replace(self, **{name: x.to(device) for name, x in moved.items() if x is not None})

    @property
    def conditions(self) -> dict[str, Tensor]:
        """Keyword arguments for a network that knows labels or tasks; empty otherwise."""
        found = {} if self.label is None else {"label": self.label}
        if self.task is not None:
            found["task"] = torch.full((len(self.xT),), self.task, device=self.xT.device)
        return found

    def compose(self, x0: Float[Tensor, "batch *dims"]) -> Float[Tensor, "batch *dims"]:
        """Keep what is known: m x0 + (1 - m) xT; x0 itself where there is no mask."""
        return x0 if self.mask is None else self.mask * x0 + (1 - self.mask) * self.xT


class Form(NamedTuple):
    """What a network is used as: on which bridge, predicting what, seeing xT or not."""

    bridge: Bridge
    prediction: Prediction
    conditional: bool

    def same(self, other: Form) -> bool:
        """Whether both are one form.  Prediction types of one's own are alike where class and attributes are."""
        return all(_alike(one, another) for one, another in zip(self, other, strict=True))


class BridgeModel(nn.Module):
    """``model(xt, t[, xT]) -> x0_hat``: any ``network(xt, time[, xT])`` on any bridge.

    Not for a network that predicts a score of q(xt|x0,xT): convert it to x0 first (see the notation page).

    Parameters
    ----------
    network : module called as network(xt, time) or, if conditional, network(xt, time, xT); time is (B,)
    bridge : the bridge it was, or will be, trained on
    conditional : whether the network sees xT beside xt
    prediction : X0(), I2SBNoise(), BBDM(), DDBM(), Output("x0 - xt"), Retimed(X0(), "t/T"), or any object with
        ``scalings(bridge, t)``
    """

    def __init__(
        self, network: nn.Module, bridge: Bridge, *, conditional: bool = False, prediction: Prediction | None = None
    ) -> None:
        super().__init__()
        prediction = X0() if prediction is None else prediction
        if not isinstance(bridge, Bridge):
            raise TypeError(f"bridge must be a Bridge such as Brownian(eps=1.0), got {bridge!r}")
        if isinstance(prediction, type) or not hasattr(prediction, "scalings"):
            raise TypeError(f"unknown prediction type {prediction!r}: use X0(), I2SBNoise(), BBDM() or DDBM()")
        probe = bridge.grid(1)[:1]
        prediction.scalings(bridge, probe)  # a prediction that this bridge cannot serve fails here
        self.network, self.bridge = network, bridge
        self.conditional, self.prediction = conditional, prediction

    def forward(
        self,
        xt: Float[Tensor, "batch channels *dims"],
        t: Float[Tensor, " batch"],
        xT: Float[Tensor, "batch channels *dims"] | None = None,
        *,
        z: Float[Tensor, "batch noise *dims"] | None = None,
        label: Tensor | None = None,
        task: Tensor | None = None,
    ) -> Float[Tensor, "batch channels *dims"]:
        """x0_hat (eq:prediction).  z is a generator's noise; it joins xt on the channels."""
        self._check(xt, t, xT)
        skip, out, scale, time = self.prediction.scalings(self.bridge, t)
        inputs = like(scale, xt) * xt
        if z is not None:
            inputs = torch.cat([inputs, z], 1)
        conditions = {name: value for name, value in (("label", label), ("task", task)) if value is not None}
        seen = (inputs, time.to(xt.dtype), xT) if self.conditional else (inputs, time.to(xt.dtype))
        output = self.network(*seen, **conditions)
        if output.shape != xt.shape:
            raise ValueError(f"the network must return the shape of xt, {tuple(xt.shape)}; got {tuple(output.shape)}")
        return like(skip, xt) * xt + like(out, xt) * output

    def given(self, source: Source) -> dict[str, Tensor]:
        """Exactly what this model may see of a source: xT if it is conditional, label and task if there are any."""
        return ({"xT": source.xT} if self.conditional else {}) | source.conditions

    def output_weight(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """1/out^2: with this lambda(t) the loss on x0 is the plain loss on the network's own output."""
        return self.prediction.scalings(self.bridge, t).out.square().reciprocal()

    @property
    def form(self) -> Form:
        """What it is beside its network."""
        return Form(self.bridge, self.prediction, self.conditional)

    def on(self, other: BridgeModel) -> BridgeModel:
        """The same network, sharing its weights, in the form of another model."""
        return BridgeModel(self.network, **other.form._asdict())

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the network alone: models that share it are then compiled too, and checks stay outside."""
        self.network.compile(*args, **kwargs)

    def check_dtype(self, x: Tensor) -> None:
        """Refuse images of a dtype that neither the weights have nor autocast serves."""
        own = next((p.dtype for p in self.network.parameters()), x.dtype)
        if x.dtype != own and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(
                f"the network's weights are {own}, the images {x.dtype}: use xT.to({own}) or model.to({x.dtype})"
            )

    @property
    def about(self) -> dict[str, Any]:
        """What the weights alone do not say, as plain data: bridge, prediction type, conditional.

        A prediction type that holds another names it: {"name": "Retimed", "prediction": {"name": "X0"}, "time": "t"}.
        One that is no dataclass has its name alone.
        """
        return {
            "bridge": _told(self.bridge),
            "prediction": _told(self.prediction),
            "conditional": self.conditional,
        }

    def save(self, path: str | os.PathLike) -> None:
        """Write the weights as safetensors, with the bridge and prediction type they belong to."""
        save_weights(path, self, self.about)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        network: nn.Module,
        *,
        bridge: Bridge | None = None,
        prediction: Prediction | None = None,
    ) -> BridgeModel:
        """The model of a file that ``save`` wrote.  network: one of the same architecture, its weights do not matter.

        bridge, prediction: only needed where they are not of this package; the file names them, no more.
        """
        return loaded(path, "model", lambda about: cls(network, **form_of(about, bridge, prediction)._asdict()))

    def _check(self, xt: Tensor, t: Tensor, xT: Tensor | None) -> None:
        if t.shape != xt.shape[:1]:
            raise ValueError(f"t must have shape {tuple(xt.shape[:1])}, one time per sample, got {tuple(t.shape)}")
        self.bridge.check_times(t)
        if xT is not None and not self.conditional:
            raise ValueError(
                "xT was given to an unconditional model: call model(xt, t), or build it with conditional=True"
            )
        if self.conditional and xT is None:
            raise ValueError("a conditional model needs xT: call model(xt, t, xT)")
        if xT is not None and xT.shape != xt.shape:
            raise ValueError(f"xT must have the shape of xt, {tuple(xt.shape)}, got {tuple(xT.shape)}")


def form_of(about: Mapping[str, Any], bridge: Bridge | None = None, prediction: Prediction | None = None) -> Form:
    """The form that ``BridgeModel.about`` tells of, in names of this package; what is given counts in their stead.

    Raises ValueError for a name that is not of this package, with what to give instead.
    """
    given: dict[str, Any] = {"bridge": bridge, "prediction": prediction}
    parts = {name: _named(about[name], name) if own is None else own for name, own in given.items()}
    return Form(parts["bridge"], parts["prediction"], about["conditional"])


def _told(x: Any) -> Any:
    """A bridge or prediction type by name and fields, those that it holds alike; plain values as they are."""
    if x is None or isinstance(x, bool | int | float | str | list | tuple | dict):
        return x
    held = fields(x) if is_dataclass(x) else ()
    return {"name": type(x).__name__} | {own.name: _told(getattr(x, own.name)) for own in held}


def _named(told: Any, part: str) -> Any:
    """What ``_told`` told of.  A file may name a prediction type in another without its class (before 0.1 did)."""
    known = {name: getattr(bridges, name) for name in bridges.__all__}
    known |= {kind.__name__: kind for kind in (X0, I2SBNoise, BBDM, DDBM, Output, Retimed)}
    if not isinstance(told, Mapping):
        return told
    if told.get("name") not in known:
        raise ValueError(
            f"the file names {told.get('name', 'nothing')} as its {part}, which this package does not know; "
            f"give load() a bridge or prediction of your own: {part}=..., the one that the model was saved with"
        )
    return known[told["name"]](**{key: _named(value, part) for key, value in told.items() if key != "name"})


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
