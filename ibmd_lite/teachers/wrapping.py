"""A bridge model of the reader's own: a network, its bridge, what it predicts; checked where there are images.

A network does not say what it predicts, which time it is told or which noise it knows, and a wrong answer to one of
these raises no error: it ruins a distillation.  ``wrap`` looks for it in the denoising error over t (``examine``).

Imports torch, jaxtyping, ``bridges``, ``model`` and its neighbours ``checkpoints``, ``curves`` and ``examination``.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ibmd_lite.bridges import Bridge
from ibmd_lite.model import BBDM, X0, BridgeModel, Output, Prediction, Retimed, Source
from ibmd_lite.teachers.checkpoints import Doubtful, fill
from ibmd_lite.teachers.curves import CallError
from ibmd_lite.teachers.examination import Check, examine

__all__ = ["Doubtful", "Wrapped", "wrap"]

Batch = Float[Tensor, "batch *dims"]


class Wrapped(BridgeModel):
    """What ``wrap`` makes: a BridgeModel that tells, in ``check`` and when printed, what was looked at.

    check: what ``examine`` found, on which images; None where nothing was checked, for want of pairs and sources.
    """

    check: Check | None = None

    def extra_repr(self) -> str:
        if self.check is None:
            return "not checked: neither pairs nor sources were given"
        return f"checked on {self.check.on}: {self.check.verdict}"


def wrap(
    network: nn.Module,
    bridge: Bridge,
    *,
    prediction: Prediction | str,
    time: str | None = None,
    conditional: bool = False,
    pairs: tuple[Batch, Batch | Source] | Iterable[tuple[Batch, Batch | Source]] | None = None,
    sources: Batch | Source | Iterable[Batch | Source] | None = None,
    averaged: nn.Module | Mapping[str, Tensor] | None = None,
    **settings: Any,
) -> Wrapped:
    """A network as a ``BridgeModel``, in evaluation mode, after a look at its denoising error over t.

    With neither ``pairs`` nor ``sources`` nothing is looked at, whatever is said of the network: the result's ``check``
    is None and it prints as not checked. Refused is only what is sure: on pairs, a misfit that one other reading
    explains. Everything less is a warning, ``Doubtful``, for a weak network is no mistake. Who knows better takes
    ``BridgeModel(...)`` itself.

    Looked for are a wrong prediction, scale or direction of time, ``conditional``, order of xt and xT or of the pairs,
    and range of the images. Of another bridge, or noise of another size, little is seen: an affine refit sees it if it
    is grossly off, and with images, on pairs, so does a refit of fine detail, which doubts and never refuses. Images in
    [0, 1] given to a network of [-1, 1] are at least doubted where the network is good. Points and other vectors have
    no fine detail. Raw weights in place of averaged ones are seen only where both are given, one of them as
    ``averaged=``. Wrong labels and tasks, and noise that is off by a factor of two, are not seen.

    Args:
        network: called as network(xt, time), or network(xt, time, xT) if conditional; time is (B,).
        bridge: the bridge that it was trained on, from ``ibmd_lite.bridges``.
        prediction: a prediction type such as I2SBNoise(), or a formula of ``OUTPUTS`` such as "xt - x0".
        time: what the network is told, a formula of ``TIMES``; by default what the prediction type says.
        conditional: whether the network sees xT beside xt.
        pairs: some hundred (x0, xT), or an iterator of batches. The surest check. In place of xT a Source may stand, as
            ``Labelled.draw`` gives it: its labels and task reach the network, and with a mask the hole alone counts.
        sources: xT or a Source, where there are no pairs. A weaker check: it warns and never refuses.
        averaged: the averaged (EMA) weights, as a module or its state dict: warns if they are better.
        settings: further arguments of ``examine``.

    Returns:
        The model; ``check`` is what was found. Without pairs and sources it is None: not even whether the network can
        be called is known.

    Raises:
        TypeError: what is no network, no bridge or no prediction type.
        ValueError: unknown formulas; a network that cannot be called so; a mistake that is certain. The message says
            what to write.
    """
    if not isinstance(network, nn.Module):
        raise TypeError(f"network must be a torch module, got {type(network).__name__}; put a function into one")
    model = Wrapped(network, bridge, conditional=conditional, prediction=_prediction(prediction, time)).eval()
    if pairs is None and sources is None:
        if averaged is not None or settings:
            raise ValueError("averaged weights and settings are for the check: give pairs=(x0, xT) or sources=xT too")
        return model
    other = None
    if averaged is not None:
        other = averaged if isinstance(averaged, nn.Module) else copy.deepcopy(network)
        if not isinstance(averaged, nn.Module):
            fill(other, averaged, of="averaged=")
    try:
        check = examine(model, pairs=pairs, sources=sources, averaged=other, **settings)
    except CallError as error:
        seen = "network(xt, time, xT)" if conditional else "network(xt, time)"
        raise ValueError(
            f"the network could not be called as {seen}: {error}. Is conditional={conditional} right?"
        ) from error
    if check.certain:
        raise ValueError(f"{check}\nIf you know better, take BridgeModel(network, bridge, ...) itself.")
    if check.verdict != "agrees" or (check.gain is not None and check.gain > 0.01):
        warnings.warn(check.words, Doubtful, stacklevel=2)
    model.check = check
    return model


def _prediction(prediction: Prediction | str, time: str | None) -> Prediction:
    if isinstance(prediction, str):
        plain: dict[str, Prediction] = {"x0": X0(), "xt - x0": BBDM()}
        prediction = plain.get(prediction) or Output(prediction)
    return prediction if time is None else Retimed(prediction, time)
