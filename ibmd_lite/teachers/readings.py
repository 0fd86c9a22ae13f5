"""How a network's numbers may be read: what it predicts, which time it is told, what it sees, on which bridge.

A ``Reading`` is one answer to all four; ``alternatives`` are the usual other answers, each told in the words that
``wrap`` takes.

Imports torch, ``bridges`` and ``model``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from ibmd_lite.bridges import I2SB, VP, Bridge, Brownian, ContinuousI2SB, Flow, ResShift
from ibmd_lite.model import BBDM, DDBM, OUTPUTS, TIMES, X0, I2SBNoise, Output, Prediction, Retimed

__all__ = ["RANGES", "Reading", "alternatives", "other_bridges"]


OF_TABLES = ("t - 1", "1000 (t - 1)/T", "T - t")
REVERSED = ("1000 (1 - t/T)", "1 - t/T", "T - t")

RANGES: Mapping[str, tuple[tuple[float, float], Callable[[Tensor], Tensor]]] = {
    "(x + 1)/2": ((-1, 1), lambda x: (x + 1) / 2),
    "127.5 (x + 1)": ((-1, 1), lambda x: 127.5 * (x + 1)),
    "2 x - 1": ((0, 1), lambda x: 2 * x - 1),
    "255 x": ((0, 1), lambda x: 255 * x),
    "x/127.5 - 1": ((0, 255), lambda x: x / 127.5 - 1),
    "x/255": ((0, 255), lambda x: x / 255),
}
"""Ranges that images come in, and ways out of each."""


@dataclass(frozen=True)
class Reading:
    """One way to read a network.

    kind: the mistake that it would undo.  write: what to write then.  sees: the arguments beside the time, in order.
    double: whether two things are changed.
    images: how to bring images to the network's range, a key of ``RANGES``.  swapped: pairs hold (xT, x0).
    """

    bridge: Bridge
    prediction: Prediction
    sees: tuple[str, ...] = ("xt",)
    images: str | None = None
    swapped: bool = False
    double: bool = False
    kind: str = "none"
    write: str = "as it is"


def alternatives(given: Reading, *, pairs: bool, std: float, values: tuple[float, float]) -> Iterator[Reading]:
    """The usual other readings of a network that is read as ``given``.

    pairs: whether clean images are known.  std: of the images.  values: the least and the largest of them.
    """
    timed = given.prediction if isinstance(given.prediction, Retimed) else None
    base = timed.prediction if timed else given.prediction
    without = ", without time=" if timed else ""
    if timed:
        kind = "direction of time" if timed.time in REVERSED else "scale of time"
        yield replace(given, prediction=base, kind=kind, write="no time=")
    times = [time for time in TIMES if given.bridge.times is not None or time not in OF_TABLES]
    for time in times:
        kind = "direction of time" if time in REVERSED or (timed and timed.time in REVERSED) else "scale of time"
        yield replace(given, prediction=Retimed(base, time), kind=kind, write=f"time={time!r}")
    known = [(p, w) for p, w in _predictions(std) if p != base and _serves(p, given.bridge)]
    for prediction, words in known:
        yield replace(given, prediction=prediction, kind="prediction", write=f"prediction={words}{without}")
        if timed:
            kept = Retimed(prediction, timed.time)
            yield replace(given, prediction=kept, kind="prediction", write=f"prediction={words}")
    for prediction, words in known:
        for time in times:
            told = f"prediction={words}, time={time!r}"
            kind = "prediction and time"
            yield replace(given, prediction=Retimed(prediction, time), kind=kind, write=told, double=True)
    for bridge in _louder_and_quieter(given.bridge):
        yield replace(given, bridge=bridge, kind="noise of the bridge", write=f"{bridge}")
    if len(given.sees) == 2:
        yield replace(given, sees=("xt",), kind="conditional", write="conditional=False")
        told = "a module that calls network(xT, time, xt)"
        yield replace(given, sees=given.sees[::-1], kind="order of xt and xT", write=told)
    else:
        yield replace(given, sees=("xt", "xT"), kind="conditional", write="conditional=True")
    low, high = values
    for name, ((least, most), _) in RANGES.items():
        slack = 0.25 * (most - least)  # interpolation overshoots
        if least - slack <= low <= high <= most + slack and high - low > 0.6 * (most - least):
            yield replace(given, images=name, kind="range of the images", write=f"images as {name}")
    if pairs:
        yield replace(given, swapped=True, kind="order of the pairs", write="pairs=(x0, xT), clean images first")


def other_bridges(given: Reading) -> Iterator[Reading]:
    """The same network on bridges of other families between the same ends, each at a few sizes of noise."""
    T = given.bridge.T
    families: list[Bridge] = [*(Brownian(eps=eps, T=T) for eps in (0.01, 0.03, 0.1, 0.3, 1.0))]
    families += [ContinuousI2SB(beta_max=beta_max) for beta_max in (0.03, 0.1, 0.3, 1.0)]
    for bridge in (*families, VP(), Flow(T=T)):
        if bridge != given.bridge and _serves(given.prediction, bridge):
            yield replace(given, bridge=bridge, kind="bridge", write=f"{bridge}")


def _predictions(std: float) -> Iterator[tuple[Prediction, str]]:
    measured = float(f"{std:.2g}")
    known: list[Prediction] = [
        X0(),
        BBDM(),
        I2SBNoise(),
        DDBM(),
        DDBM(0.5, 0.125),
        DDBM(measured),
        DDBM(measured, measured**2 / 2),
    ]
    yield from ((prediction, repr(prediction)) for prediction in dict.fromkeys(known))
    yield from ((Output(name), repr(name)) for name in OUTPUTS if name not in ("x0", "xt - x0"))


def _serves(prediction: Prediction, bridge: Bridge) -> bool:
    try:
        prediction.scalings(bridge, bridge.grid(1)[:1])
    except ValueError:
        return False
    return True


def _louder_and_quieter(bridge: Bridge, factors: tuple[float, ...] = (1 / 16, 1 / 4, 4, 16)) -> Iterator[Bridge]:
    """The same family with other noise: its variance times each factor, as far as one parameter sets it."""
    for factor in factors:
        match bridge:
            case Brownian():
                yield replace(bridge, eps=bridge.eps * factor)
            case ContinuousI2SB() | I2SB():
                yield replace(bridge, beta_max=bridge.beta_max * factor)
            case VP():
                yield replace(bridge, beta_d=bridge.beta_d * factor)
            case ResShift():
                yield replace(bridge, kappa=bridge.kappa * math.sqrt(factor))
            case Flow():
                yield Brownian(eps=factor, T=bridge.T)
    if isinstance(bridge, Brownian):
        yield Flow(T=bridge.T)
