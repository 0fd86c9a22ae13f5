"""A network on a bridge: any prediction type in, x0_hat out.

``BridgeModel`` is what teachers, fakes and generators all are; ``predictions`` says what their networks' output means,
and its names can be imported from here too.
``Source`` is all that a sampler or a generator may know of an image; there is no place in it for x0.

Imports torch, jaxtyping, ``bridges``, ``predictions`` and the training files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ibmd_lite.bridges import Bridge, like
from ibmd_lite.predictions import (
    BBDM,
    DDBM,
    OUTPUTS,
    TIMES,
    X0,
    Form,
    I2SBNoise,
    Output,
    Prediction,
    Retimed,
    Scalings,
    form_of,
    told,
)
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
        """Take a tensor or a Source, and refuse what must not reach a network.

        Raises TypeError for what is no tensor, and ValueError for an xT that is empty, not floating-point or not
        finite, and for a mask of another shape or of other values than 0 to 1.
        """
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
        """The same source on a device."""
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

    Raises TypeError for a bridge or a prediction type that is none.
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
        """x0_hat (eq:prediction).  z is a generator's noise; it joins xt on the channels.

        Raises ValueError for a network whose output has another shape than xt.
        """
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
        """Refuse (TypeError) images of a dtype that neither the weights have nor autocast serves."""
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
            "bridge": told(self.bridge),
            "prediction": told(self.prediction),
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
