"""Is a network read as it was trained?  Its denoising error over t, as given and with every usual mistake undone.

Least squares leave a trace: the best denoiser cannot be improved by an affine function of what it saw and said.
``slack`` is what such a refit gains.  It is near 0 for a trained network that is read rightly, and large for most
that are not.  The error itself misleads: with less noise than in training it falls.

Imports torch, jaxtyping, ``bridges``, ``model``, ``sampling`` and its neighbour ``readings``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ibmd_lite.bridges import Bridge, like
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.sampling import sample
from ibmd_lite.teachers.readings import RANGES, Reading, alternatives

__all__ = ["Check", "Curve", "examine"]

Batch = Float[Tensor, "batch *dims"]
Pairs = tuple[Batch, Source]
FAINT, CLEAR = 0.06, 0.15
"""Slack from which another reading is looked for on pairs, and from which one that explains it is believed."""
FROM_XT, FROM_BOTH = 0.5, 0.2
"""The same on own samples, of an unconditional and of a conditional model; see ``examine``."""
SOUND, FRACTION, LESS = 0.2, 0.2, 0.75
"""Another reading explains what is seen if its own slack is below both SOUND and FRACTION of the given one's.

On the same bridge half of it is enough if the error falls below LESS of what it was.
"""
LEARNT = 0.8
"""And it must err less than this share of an affine denoiser: what a network hardly uses fits many readings."""


@dataclass(frozen=True)
class Curve:
    """One reading over t: its error, that of the best affine denoiser, and its own after an affine refit.

    Each is a mean square per pixel, at the times ``times``.
    """

    reading: Reading
    times: tuple[float, ...]
    error: tuple[float, ...]
    affine: tuple[float, ...]
    refitted: tuple[float, ...]

    @property
    def relative(self) -> float:
        """The error in units of the affine denoiser's: a mean over times, each at most 4."""
        return self.beside(self)

    def beside(self, other: Curve) -> float:
        """The error in units of the affine denoiser of another curve at the same times."""
        return sum(min(e / a, 4) for e, a in zip(self.error, other.affine, strict=True)) / len(self.error)

    @property
    def slack(self) -> float:
        """Mean over times of log(error/refitted error)."""
        return sum(math.log(e / r) for e, r in zip(self.error, self.refitted, strict=True)) / len(self.error)


@dataclass(frozen=True)
class Check:
    """What ``examine`` found; ``print`` shows the table and the verdict in words.

    on: what was looked at.  verdict: "agrees"; "mistake", where ``best`` is the reading that explains it; or
    "doubtful", where none does, and ``best`` is the one that comes nearest.  averaged: the curve of the averaged
    weights, if they were given.
    """

    on: Literal["pairs", "own samples"]
    verdict: Literal["agrees", "mistake", "doubtful"]
    given: Curve
    best: Curve | None
    tried: int
    averaged: Curve | None = None

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
        told = {"pairs": "On pairs: ", "own samples": "On its own samples: "}[self.on]
        told += {
            "agrees": f"the network agrees with how it is wrapped: {excess}.",
            "mistake": f"the network is not what it is wrapped as: {excess}{nearest}.",
            "doubtful": (
                f"the network does not fit how it is wrapped: {excess}. None of {self.tried} other readings explains "
                f"it{nearest}. It may be weak, of another bridge, or not made for these images."
            ),
        }[self.verdict]
        if self.mistake and self.best:
            told += f" Likely mistake: {self.mistake}. Write {self.best.reading.write}."
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
    return f"{1 - math.exp(-curve.slack):.0%}"


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
                walked = _walked(model.network, first, source, steps, seed) if pairs is None else None
                images = walked or _as_read(x0, source, first)
                curves |= _curves(model.network, group, *images, times, seed)
            except (TypeError, ValueError, RuntimeError, AssertionError):
                if given in group:
                    raise
        best = _explanation(curves[given], [c for r, c in curves.items() if r != given], least)
        if best is not None or curves[given].slack < least:
            break
    own = curves.pop(given)
    nearest = min(curves.values(), key=lambda curve: curve.slack, default=None)
    better = None
    if averaged is not None:
        images = _walked(model.network, given, source, steps, seed) if pairs is None else (x0, source)
        better = _curves(averaged.to(device).eval(), [given], *images, times, seed)[given]
    on: Literal["pairs", "own samples"] = "own samples" if pairs is None else "pairs"
    if best is not None:
        return Check(on, "mistake", own, best, len(curves), better)
    agrees = own.slack < max(CLEAR, least)
    return Check(on, "agrees" if agrees else "doubtful", own, nearest, len(curves), better)


def _explanation(given: Curve, others: Iterable[Curve], least: float) -> Curve | None:
    """The reading of small slack, where the given one's is not small.

    Of several on one bridge the one of least error, and the first of those alike; of these the one of least slack.
    """
    others = list(others)
    sound = [c for c in others if given.slack >= least and c.relative < LEARNT and _explains(c, given)]
    groups: dict[object, list[Curve]] = {}
    for c in sound:
        groups.setdefault((c.reading.bridge, c.reading.images, c.reading.swapped), []).append(c)
    first = [next(c for c in group if c.beside(group[0]) <= 1.02 * _lowest(group)) for group in groups.values()]
    deaf = (c for c in others if c.reading.write == "conditional=False" and c.error == given.error)  # to xT
    return min(first, key=lambda c: c.slack, default=None) or next(deaf, None)


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
    whole = isinstance(batches, tuple | list) if pairs else isinstance(batches, Tensor | Source)
    stream: Iterator = iter([batches]) if whole else iter(batches)  # type: ignore[call-overload]
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


def _as_read(x0: Batch, source: Source, reading: Reading) -> Pairs:
    """Pairs in the range and in the order of a reading."""
    xT = source.xT
    if reading.images is not None:
        x0, xT = (RANGES[reading.images][1](x) for x in (x0, xT))
    return (xT, replace(source, xT=x0)) if reading.swapped else (x0, replace(source, xT=xT))


class _InOrder(nn.Module):
    """The network with what it sees in the order of a reading, called as a BridgeModel calls it."""

    def __init__(self, network: nn.Module, reading: Reading) -> None:
        super().__init__()
        self.network, self.sees = network, reading.sees

    def forward(self, xt: Tensor, time: Tensor, xT: Tensor | None = None, **conditions: Tensor) -> Tensor:
        known = {"xt": xt, "xT": xT}
        first, *others = (known[name] for name in self.sees)
        output: Tensor = self.network(first, time, *others, **conditions)
        return output


def _walked(network: nn.Module, reading: Reading, source: Source, steps: int, seed: int) -> Pairs:
    """What a reading makes of a source, and the source in its range; ValueError where the walk runs away."""
    xT = source.xT if reading.images is None else RANGES[reading.images][1](source.xT)
    source = replace(source, xT=xT)
    bridge, both = reading.bridge, len(reading.sees) == 2
    model = BridgeModel(_InOrder(network, reading), bridge, prediction=reading.prediction, conditional=both)
    grid = bridge.grid(steps if bridge.times is None else min(steps, len(bridge.times) - 1))
    x0 = sample(model, source, grid, generator=torch.Generator(xT.device).manual_seed(seed)).x0
    if reading.kind != "none" and not bool((x0.abs() < 100 * (1 + xT.abs().max())).all()):
        raise ValueError("this reading's walk runs away")
    return x0.nan_to_num(0, 0, 0).clamp(-1e4, 1e4), source


def _times(bridge: Bridge, std: float, count: int) -> Float[Tensor, " times"]:
    """Times up to T between which the share of x0 that is hidden grows evenly: h/(h + b std), h^2 = a^2 std^2 + c^2."""
    fine = bridge.grid(400)[:-1].flip(0) if bridge.times is None else bridge.times[1:]
    a, b, c = bridge.coefficients(fine)
    hidden = (a.square() * std**2 + c.square()).sqrt()
    goals = torch.linspace(0.2, 1.0, count, dtype=torch.float64)
    return fine[(hidden / (hidden + b * std) - goals[:, None]).abs().argmin(1).unique()]


def _refit(target: Tensor, seen: Sequence[Tensor]) -> float:
    """Mean square that is left of target by the best c0 + c1 seen[0] + ..., with numbers c, for all pixels alike."""
    columns = torch.stack([x.double().flatten() for x in seen])
    y = target.double().flatten()
    columns, y = columns - columns.mean(1, keepdim=True), y - y.mean()
    columns = columns / columns.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)
    gram = columns @ columns.T / len(y) + 1e-9 * torch.eye(len(columns)).to(columns)
    weights = torch.linalg.solve(gram, columns @ y / len(y))
    return (y - weights @ columns).square().mean().item()


@torch.no_grad()
def _curves(
    network: nn.Module, readings: Sequence[Reading], x0: Batch, source: Source, times: int, seed: int
) -> dict[Reading, Curve]:
    """The curves of readings that share bridge, images and what is seen; the same noise for all."""
    bridge, sees, xT = readings[0].bridge, readings[0].sees, source.xT
    hole = ... if source.mask is None else source.mask.expand_as(x0) > 0.5  # no loss taught the network the rest
    floor = 1e-4 * x0.double().var().item() + 1e-12  # what no reading is asked to resolve
    grid = _times(bridge, x0.double().std().item() + 1e-9, times)
    random = torch.Generator().manual_seed(seed)
    errors: dict[Reading, list[tuple[float, float]]] = {reading: [] for reading in readings}
    affine: list[float] = []
    for time in grid:
        t = time.expand(len(x0))
        xt = bridge.sample(x0, xT, t, torch.randn(x0.shape, generator=random).to(x0))
        known, said = {"xt": xt, "xT": xT}, {}
        seen = [known[name] for name in sorted(sees)]
        affine.append(_refit(x0[hole], [x[hole] for x in seen]) + floor)
        for reading in readings:
            skip, out, scale, told = (x.to(x0) for x in reading.prediction.scalings(bridge, t))
            key = scale[0].item(), told[0].item()
            if key not in said:
                first, *others = ((known | {"xt": like(scale, xt) * xt})[name] for name in sees)
                said[key] = network(first, told, *others, **source.conditions)
            x0_hat = (like(skip, xt) * xt + like(out, xt) * said[key]).nan_to_num(1e6, 1e6, -1e6)
            error = (x0_hat - x0)[hole].double().square().mean().item() + floor
            left = _refit(x0[hole], [x[hole] for x in (x0_hat, *seen)]) + floor
            errors[reading].append((error, min(left, error)))
    at = tuple(grid.tolist())
    return {
        reading: Curve(reading, at, tuple(e for e, _ in found), tuple(affine), tuple(r for _, r in found))
        for reading, found in errors.items()
    }
