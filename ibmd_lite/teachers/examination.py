"""Is a network read as it was trained?  Its denoising error over t, as given and with every usual mistake undone.

Least squares leave a trace: the best denoiser cannot be improved by any function of what it saw.  ``slack`` is what
an affine refit gains, ``fine`` what is gained beyond it where fine detail is refitted apart, which tells one bridge
from another.  Both are near 0 for a trained network that is read rightly.  The error itself misleads: with less noise
than in training it falls.

Imports torch, jaxtyping, ``model`` and its neighbours ``curves`` and ``readings``.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.teachers.curves import Curve, Pairs, as_read, measure, walk
from ibmd_lite.teachers.readings import Reading, alternatives, other_bridges

__all__ = ["Check", "Curve", "examine"]

Batch = Float[Tensor, "batch *dims"]
FAINT, CLEAR = 0.06, 0.15
"""Slack from which another reading is looked for on pairs, and from which one that explains it is believed."""
FROM_XT, FROM_BOTH = 0.5, 0.2
"""The same on own samples, of an unconditional and of a conditional model; see ``examine``."""
SOUND, FRACTION, LESS = 0.2, 0.2, 0.75
"""Another reading explains what is seen if its own slack is below both SOUND and FRACTION of the given one's.

On the same bridge half of it is enough if the error falls below LESS of what it was.
"""
FINE, FINER = 0.03, 0.3
"""``fine`` of an image network from which it is doubted, if another reading has less than this share of it.

Measured on a network that says x0 of images of 16 x 16: 0.01 read rightly, 0.04 to 0.4 on another bridge and in another
range.  A weak one had 0.4 read rightly, but no other reading had less than 0.39 of that.
"""
RANGE = "range of the images"
LEARNT = 0.8
"""And it must err less than this share of an affine denoiser: what a network hardly uses fits many readings."""


@dataclass(frozen=True)
class Check:
    """What ``examine`` found; ``print`` shows the table and the verdict in words.

    on: what was looked at.  verdict: "agrees"; "mistake", where ``best`` is the reading that explains it; or
    "doubtful", where none does, and ``best`` is the one that comes nearest.  averaged: the curve of the averaged
    weights, if they were given.  also: other ranges of the images that explain it too.  detail: whether what is doubted
    is fine detail alone.
    """

    on: Literal["pairs", "own samples"]
    verdict: Literal["agrees", "mistake", "doubtful"]
    given: Curve
    best: Curve | None
    tried: int
    averaged: Curve | None = None
    also: tuple[str, ...] = ()
    detail: bool = False

    @property
    def mistake(self) -> str | None:
        """The likely mistake in a few words, and None where there is none that is known."""
        return self.best.reading.kind if self.verdict == "mistake" and self.best else None

    @property
    def certain(self) -> bool:
        """Whether the evidence is strong: seen on pairs, and either clear or exact (xT makes no difference at all).

        Other noise is never certain: a weak network denoises as if it had been trained with less.
        """
        if self.on != "pairs" or self.best is None or self.mistake in (None, "noise of the bridge"):
            return False
        return self.given.slack >= CLEAR or self.best.error == self.given.error

    @property
    def gain(self) -> float | None:
        """By which share the averaged weights err less than those given, in the mean over t."""
        if self.averaged is None:
            return None
        ratios = [a / e for a, e in zip(self.averaged.error, self.given.error, strict=True)]
        return 1 - math.exp(sum(math.log(r) for r in ratios) / len(ratios))

    @property
    def words(self) -> str:
        """The verdict in words, which begin with what was looked at."""
        excess = f"an affine refit of what it says takes {_share(self.given)} of its error away"
        nearest = "" if self.best is None else f"; nearest comes {self.best.reading.write}, {_share(self.best)}"
        if self.detail and self.best:
            excess = f"a refit of fine detail apart takes another {_percent(self.given.fine)} of its error away"
            nearest = f"; nearest comes {self.best.reading.write}, {_percent(self.best.fine)}"
            doubt = f"{excess}{nearest}. Its bridge, the noise of it, or the range of the images may be another."
        else:
            doubt = (
                f"{excess}. None of {self.tried} other readings explains it{nearest}. It may be weak, of another "
                "bridge, or not made for these images."
            )
        told = {"pairs": "On pairs: ", "own samples": "On its own samples: "}[self.on]
        told += {
            "agrees": f"the network agrees with how it is wrapped: {excess}.",
            "mistake": f"the network is not what it is wrapped as: {excess}{nearest}.",
            "doubtful": f"the network does not fit how it is wrapped: {doubt}",
        }[self.verdict]
        if self.mistake and self.best:
            told += f" Likely mistake: {self.mistake}. Write {self.best.reading.write}."
            told += "".join(f" Or {write}: that fits too." for write in self.also)
        if self.gain is not None:
            told += f" The averaged weights err {abs(self.gain):.1%} {'less' if self.gain > 0 else 'more'}."
        return told

    def __str__(self) -> str:
        columns = {"t": self.given.times, "as given": self.given.error}
        columns |= {"refitted": self.given.refitted, "affine": self.given.affine}
        if self.averaged is not None:
            columns["averaged"] = self.averaged.error
        if self.best is not None and self.best.times == self.given.times:
            columns["best other"] = self.best.error
        rows = [list(columns), *([f"{x:.4g}" for x in row] for row in zip(*columns.values(), strict=True))]
        lines = ["  ".join(cell.rjust(10) for cell in row) for row in rows]
        return "\n".join([f"denoising error on {self.on}, {self.given.reading.bridge}", *lines, self.words])


def _share(curve: Curve) -> str:
    return _percent(curve.slack)


def _percent(gain: float) -> str:
    return f"{1 - math.exp(-gain):.0%}"


def examine(
    model: BridgeModel,
    *,
    pairs: tuple[Batch, Batch | Source] | Iterable[tuple[Batch, Batch | Source]] | None = None,
    sources: Batch | Source | Iterable[Batch | Source] | None = None,
    averaged: nn.Module | None = None,
    samples: int | None = None,
    times: int = 8,
    steps: int = 16,
    seed: int = 0,
) -> Check:
    """Hold a model's denoising error against every usual other reading of its network.

    Args:
        model: the network as it is read; put in evaluation mode, not changed.
        pairs: (x0, xT), or an iterator of such batches; images like those of its training. xT may be a Source: labels
            and task are handed on to the network, and with a mask the pixels in the hole alone count.
        sources: xT alone, where no clean image is at hand. Then every reading walks the bridge in ``steps`` steps and
            denoises what it made itself. A conditional model makes the pairs it was trained on, as far as it is good.
            An unconditional one makes others, as it forgets the partner, so that only gross mistakes are told.  A
            Source is taken as above.
        averaged: the same network with averaged weights, to compare with.
        samples: how many pairs or sources are used; by default 200,000 numbers' worth, 32 at least and 256 at most.
        times: how many times of the bridge.
        seed: of the noise.

    About 40 network calls for each time on pairs; on own samples as many for each of 40 readings as steps and times.

    Raises:
        ValueError: neither or both of pairs and sources; fewer than 16 images; images of two shapes, or not finite.
        TypeError: what is no BridgeModel; images of another dtype than the weights.
    """
    if not isinstance(model, BridgeModel):
        raise TypeError(f"a BridgeModel is examined, got {type(model).__name__}; wrap the network: wrap(network, ...)")
    if (pairs is None) == (sources is None):
        raise ValueError("give either pairs=(x0, xT) or, where no clean image is at hand, sources=xT")
    if times < 2 or steps < 2:
        raise ValueError(f"two times and two steps are the least, got {times} and {steps}")
    model.eval()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    x0, source = _gathered(sources if pairs is None else pairs, pairs is not None, samples)
    x0, source = x0.to(device), source.to(device)
    xT = source.xT
    known = {p.dtype for p in model.parameters()} | {torch.float32}
    if len({x0.dtype, xT.dtype}) > 1 or x0.dtype not in known:
        told = " and ".join(sorted({str(x0.dtype), str(xT.dtype)}))
        raise ValueError(f"the images are {told}, expected {' or '.join(sorted(map(str, known)))}: write x.float()")
    given = Reading(model.bridge, model.prediction, ("xt", "xT") if model.conditional else ("xt",))
    values = min(x0.min().item(), xT.min().item()), max(x0.max().item(), xT.max().item())
    others = list(alternatives(given, pairs=pairs is not None, std=x0.std().item(), values=values))
    curves: dict[Reading, Curve] = {}
    least = FAINT if pairs is not None else FROM_BOTH if model.conditional else FROM_XT
    best = None
    singles = [given, *(reading for reading in others if not reading.double)]
    doubles = [reading for reading in others if reading.double and pairs is not None]
    for readings in (singles, doubles):  # two changes only where one explains nothing
        for group in _groups(readings, alone=pairs is None):
            try:
                first = group[0]
                walked = walk(model.network, first, source, steps, seed) if pairs is None else None
                images = walked or as_read(x0, source, first)
                curves |= measure(model.network, group, *images, times, seed)
            except (TypeError, ValueError, RuntimeError, AssertionError):
                if given in group:
                    raise
        found = _explanations(curves[given], [c for r, c in curves.items() if r != given], least)
        best = found[0] if found else None
        if best is not None or curves[given].slack < least:
            break
    own = curves.pop(given)
    nearest = min(curves.values(), key=lambda curve: curve.slack, default=None)
    fine = None
    if best is None and pairs is not None and own.fine >= FINE:
        for reading in other_bridges(given):
            with contextlib.suppress(ValueError, RuntimeError):  # a bridge that cannot serve this prediction
                curves |= measure(model.network, [reading], x0, source, times, seed)
        fine = _finer(own, curves.values())
    better = None
    if averaged is not None:
        images = walk(model.network, given, source, steps, seed) if pairs is None else (x0, source)
        better = measure(averaged.to(device).eval(), [given], *images, times, seed)[given]
    on: Literal["pairs", "own samples"] = "own samples" if pairs is None else "pairs"
    if best is not None:
        ranges = [c.reading.write for c in found[1:] if best.reading.kind == c.reading.kind == RANGE]
        return Check(on, "mistake", own, best, len(curves), better, also=tuple(ranges))
    if own.slack >= max(CLEAR, least):
        return Check(on, "doubtful", own, nearest if fine is None else fine, len(curves), better)
    if fine is not None:
        return Check(on, "doubtful", own, fine, len(curves), better, detail=True)
    return Check(on, "agrees", own, nearest, len(curves), better)


def _finer(given: Curve, others: Iterable[Curve]) -> Curve | None:
    """The nearest reading on another bridge or in another range to which fine detail is hardly wrong."""
    kinds = ("noise of the bridge", "bridge", RANGE)
    found = [c for c in others if c.reading.kind in kinds and c.fine < FINER * given.fine]
    nearest = min(found, key=_excess, default=None)
    return nearest if nearest is not None and _excess(nearest) < _excess(given) else None


def _excess(curve: Curve) -> float:
    return curve.slack + curve.fine


def _explanations(given: Curve, others: Iterable[Curve], least: float) -> list[Curve]:
    """The readings of small slack, where the given one's is not small, the likely one first.

    Of several on one bridge the one of least error, and the first of those alike; of these the one of least excess.
    The slack alone does not tell one range of the images from another.
    """
    others = list(others)
    sound = [c for c in others if given.slack >= least and c.relative < LEARNT and _explains(c, given)]
    groups: dict[object, list[Curve]] = {}
    for c in sound:
        groups.setdefault((c.reading.bridge, c.reading.images, c.reading.swapped), []).append(c)
    first = [next(c for c in group if c.beside(group[0]) <= 1.02 * _lowest(group)) for group in groups.values()]
    deaf = (c for c in others if c.reading.write == "conditional=False" and c.error == given.error)  # to xT
    return sorted(first, key=_excess) or list(deaf)[:1]


def _lowest(group: Sequence[Curve]) -> float:
    return min(c.beside(group[0]) for c in group)


def _explains(other: Curve, given: Curve) -> bool:
    """Far less slack; on one bridge, where errors compare, half the slack will do if there is less error too."""
    if other.slack >= SOUND:
        return False
    less = other.reading.bridge == given.reading.bridge and other.relative < LESS * given.relative
    return other.slack < FRACTION * given.slack or (less and other.slack < given.slack / 2)


def _gathered(batches: object, pairs: bool, samples: int | None) -> Pairs:
    """x0 and source of the first ``samples`` rows of one batch or of an iterator of them; without pairs x0 is xT."""
    if pairs:  # a list of batches holds tuples, a pair holds tensors
        whole = isinstance(batches, tuple | list) and not any(isinstance(part, tuple | list) for part in batches)
    else:
        whole = isinstance(batches, Tensor | Source)
    expected = "pairs: (x0, xT) or an iterator of such batches" if pairs else "sources: xT or an iterator of batches"
    if not whole and not isinstance(batches, Iterable):
        raise TypeError(f"expected {expected}, got {type(batches).__name__}")
    stream: Iterator = iter([batches] if whole else batches)  # type: ignore[call-overload]
    kept: list[Pairs] = []
    wanted, have = samples, 0
    while wanted is None or have < wanted:
        batch = next(stream, None)
        if batch is None:
            break
        parts = tuple(batch) if pairs and isinstance(batch, tuple | list) else (batch,)
        shapes = [tuple(getattr(getattr(x, "xT", x), "shape", ())) for x in parts]
        if len(parts) != 1 + pairs or len(set(shapes)) != 1:
            raise ValueError(f"expected {['xT', '(x0, xT) of one shape'][pairs]}, got shapes {shapes}")
        source = Source.of(parts[-1])
        x0 = Source.of(parts[0]).xT
        wanted = wanted or min(256, max(32, 200_000 // x0[0].numel()))
        kept.append((x0, source))
        have += len(x0)
    if have < 16:
        raise ValueError(f"an error over t needs at least 16 images, got {have}; better some hundred")
    sources = [source for _, source in kept]
    together: dict[str, Tensor | None] = {}
    for name in ("xT", "mask", "label"):
        values = [getattr(source, name) for source in sources]
        there = [value for value in values if value is not None]
        if there and len(there) < len(values):
            raise ValueError(f"some batches have a {name} and some have none; give all of one kind")
        together[name] = torch.cat(there)[:wanted] if there else None
    if len({source.task for source in sources}) > 1:
        raise ValueError("the batches are of several tasks; examine one task at a time")
    return torch.cat([x0 for x0, _ in kept])[:wanted], replace(sources[0], **together)  # type: ignore[arg-type]


def _groups(readings: Iterable[Reading], alone: bool) -> list[list[Reading]]:
    """Readings that share bridge, images and what is seen, and so a network call; or each by itself."""
    groups: dict[object, list[Reading]] = {}
    for place, reading in enumerate(dict.fromkeys(readings)):
        key = place if alone else (reading.bridge, reading.images, reading.swapped, reading.sees)
        groups.setdefault(key, []).append(reading)
    return list(groups.values())
