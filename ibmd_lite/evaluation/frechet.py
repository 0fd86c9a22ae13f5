"""The Frechet distance of images as an estimate: how far, and how sure.

Two finite samples of one law lie some distance apart, the more the fewer they are. So an estimate is read beside
that of clean images, which is the floor. Imports torch and its neighbour ``distances``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ibmd_lite.evaluation.distances import frechet_distance

__all__ = ["FrechetEstimate", "Ratio", "frechet_estimate"]


@dataclass(frozen=True)
class Ratio:
    """One distance over another, with the bounds of its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class FrechetEstimate:
    """A Frechet distance and its bootstrap interval: how much other samples of as many images would change it."""

    distance: float
    low: float
    high: float
    level: float = 0.95
    resampled: Float[Tensor, " draws"] = field(repr=False, compare=False, default_factory=lambda: torch.empty(0))

    def over(self, other: FrechetEstimate) -> Ratio:
        """This distance over another, both resampled alike: surer than their two intervals.

        Raises:
            ValueError: the two were resampled another number of times, or at another level.
        """
        if len(self.resampled) != len(other.resampled) or self.level != other.level:
            raise ValueError(
                f"the estimates have {len(self.resampled)} draws at level {self.level:g} and {len(other.resampled)} "
                f"at level {other.level:g}; make both with the same images, draws, level and seed"
            )
        smallest = torch.finfo(torch.float64).tiny
        low, high = _bounds(self.resampled / other.resampled.clamp_min(smallest), self.level)
        return Ratio(self.distance / max(other.distance, smallest), low, high)


def frechet_estimate(
    features: Float[Tensor, "n dimension"],
    reference: Float[Tensor, "m dimension"],
    *,
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> FrechetEstimate:
    """`frechet_distance` of two samples, with the interval that drawing both again with repetition gives.

    Repetition adds a bias of its own, so the ``draws`` are moved to have the distance itself as their mean: the
    interval is about the spread. The bias of finite samples stays in the distance, and the same for all who have
    as many images; what it is, clean images show: ``frechet_estimate(features_of_clean, reference)`` is the floor.
    Rows of ``reference`` must be of other images than those restored: an image compared with its own original
    favours who changes little.

    Args:
        features: of the images judged. Same n and m and seed: the same rows are drawn, for `FrechetEstimate.over`.
        reference: features of other clean images.
        draws: of the bootstrap, at least 2.
        level: share of the draws inside the interval.

    Raises:
        ValueError: what `frechet_distance` refuses; too few draws, a level outside (0, 1).

    Source: Efron 1979 for the bootstrap; Chong and Forsyth 2020 for the bias.
    """
    if draws < 2 or not 0 < level < 1:
        raise ValueError(f"draws is {draws} and level {level}; expected at least 2 draws and a level between 0 and 1")
    distance = frechet_distance(features, reference)
    generator = torch.Generator().manual_seed(seed)
    samples = [sample.detach().cpu().double() for sample in (features, reference)]
    resampled = []
    for _ in range(draws):
        drawn = [sample[torch.randint(len(sample), (len(sample),), generator=generator)] for sample in samples]
        resampled.append(frechet_distance(*drawn))
    moved = torch.tensor(resampled, dtype=torch.float64)
    moved += distance - moved.mean()
    return FrechetEstimate(distance, *_bounds(moved, level), level, moved)


def _bounds(draws: Tensor, level: float) -> tuple[float, float]:
    low, high = draws.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=draws.dtype))
    return float(low), float(high)
