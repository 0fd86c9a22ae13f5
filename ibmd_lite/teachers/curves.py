"""The denoising error of a network over t, as it is read, and what refits of its answers leave of it.

Lives here: ``Curve``, how one is measured, and the walk by which a network without clean images makes its own.

Imports torch, jaxtyping, ``bridges``, ``model``, ``sampling`` and its neighbour ``readings``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ibmd_lite.bridges import Bridge, like
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.sampling import sample
from ibmd_lite.teachers.readings import RANGES, Reading

__all__ = ["CallError", "Curve", "Pairs", "as_read", "measure", "walk"]

Batch = Float[Tensor, "batch *dims"]
Pairs = tuple[Batch, Source]


@dataclass(frozen=True)
class Curve:
    """One reading over t: its error, that of the best affine denoiser, and its own after an affine refit.

    Each is a mean square per pixel, at the times ``times``.  ``finer`` is what is left by a refit that may also treat
    fine detail apart; as ``refitted`` where there is none: only images of at least 4 x 4 have it.
    """

    reading: Reading
    times: tuple[float, ...]
    error: tuple[float, ...]
    affine: tuple[float, ...]
    refitted: tuple[float, ...]
    finer: tuple[float, ...]

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

    @property
    def fine(self) -> float:
        """Mean over times, T left out, of log(refitted error/finer error): fine detail kept or lost at the wrong size.

        At T the images are xT, whatever the bridge.
        """
        below = list(zip(self.refitted, self.finer, strict=True))[:-1]
        return sum(math.log(r / f) for r, f in below) / max(len(below), 1)


def as_read(x0: Batch, source: Source, reading: Reading) -> Pairs:
    """Pairs in the range and in the order of a reading."""
    xT = source.xT
    if reading.images is not None:
        x0, xT = (RANGES[reading.images][1](x) for x in (x0, xT))
    return (xT, replace(source, xT=x0)) if reading.swapped else (x0, replace(source, xT=xT))


class CallError(TypeError):
    """The network cannot be called with what it is said to see."""


class _InOrder(nn.Module):
    """The network with what it sees in the order of a reading, called as a BridgeModel calls it."""

    def __init__(self, network: nn.Module, reading: Reading) -> None:
        super().__init__()
        self.network, self.sees = network, reading.sees

    def forward(self, xt: Tensor, time: Tensor, xT: Tensor | None = None, **conditions: Tensor) -> Tensor:
        known = {"xt": xt, "xT": xT}
        first, *others = (known[name] for name in self.sees)
        try:
            output: Tensor = self.network(first, time, *others, **conditions)
        except TypeError as error:
            raise CallError(str(error)) from error
        return output


def walk(network: nn.Module, reading: Reading, source: Source, steps: int, seed: int) -> Pairs:
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
def measure(
    network: nn.Module, readings: Sequence[Reading], x0: Batch, source: Source, times: int, seed: int
) -> dict[Reading, Curve]:
    """The curves of readings that share bridge, images and what is seen; the same noise for all."""
    bridge, sees, xT = readings[0].bridge, readings[0].sees, source.xT
    called = _InOrder(network, readings[0])
    detailed = x0.ndim == 4 and min(x0.shape[2:]) >= 4
    hole = ... if source.mask is None else source.mask.expand_as(x0) > 0.5  # no loss taught the network the rest
    floor = 1e-4 * x0.double().var().item() + 1e-12  # what no reading is asked to resolve
    grid = _times(bridge, x0.double().std().item() + 1e-9, times)
    random = torch.Generator().manual_seed(seed)
    errors: dict[Reading, list[tuple[float, float, float]]] = {reading: [] for reading in readings}
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
                said[key] = called(like(scale, xt) * xt, told, xT, **source.conditions)
            x0_hat = (like(skip, xt) * xt + like(out, xt) * said[key]).nan_to_num(1e6, 1e6, -1e6)
            error = (x0_hat - x0)[hole].double().square().mean().item() + floor
            columns = [x0_hat, *seen]
            left = min(_refit(x0[hole], [x[hole] for x in columns]) + floor, error)
            columns += [x - _blurred(x) for x in columns if detailed]
            finer = min(_refit(x0[hole], [x[hole] for x in columns]) + floor, left) if detailed else left
            errors[reading].append((error, left, finer))
    at = tuple(grid.tolist())
    told_by = {reading: zip(*found, strict=True) for reading, found in errors.items()}
    return {reading: Curve(reading, at, e, tuple(affine), r, f) for reading, (e, r, f) in told_by.items()}


def _blurred(x: Batch) -> Batch:
    """The mean of each pixel's three by three neighbours."""
    return functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
