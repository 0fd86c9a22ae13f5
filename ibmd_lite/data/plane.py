"""Couplings in the plane: small enough to see, with a truth to compare to.

Lives here: points to draw and two couplings of sources xT with targets x0. Imports torch alone.
Every draw takes a `torch.Generator`; points are float32 of shape (n, 2) on the CPU.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["GaussianToEight", "RotatedNoisy", "eight_gaussians", "gaussian", "two_moons"]

Points = Float[Tensor, "n 2"]


def gaussian(n: int, generator: torch.Generator | None = None) -> Points:
    """``n`` points of N(0, I)."""
    return torch.randn(_count(n), 2, generator=generator)


def eight_gaussians(n: int, generator: torch.Generator | None = None, radius: float = 2.0, std: float = 0.2) -> Points:
    """``n`` points of eight equally likely Gaussians N(centre, std^2 I), centres on a circle."""
    angle = torch.randint(8, (_count(n),), generator=generator) * (math.pi / 4)
    centres = radius * torch.stack([angle.cos(), angle.sin()], dim=1)
    return centres + std * torch.randn(n, 2, generator=generator)


def two_moons(n: int, generator: torch.Generator | None = None, std: float = 0.05) -> Points:
    """``n`` points of two interleaved half circles of radius 1.5 about the origin, blurred by ``std``."""
    angle = torch.rand(_count(n), generator=generator) * math.pi
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)
    sign = 1 - 2 * torch.randint(2, (n, 1), generator=generator)
    return 1.5 * sign * upper + std * torch.randn(n, 2, generator=generator)


@dataclass(frozen=True)
class GaussianToEight:
    """Independent coupling: xT of N(0, I), x0 of eight Gaussians.

    Nothing ties a source to its target, so a student is judged by its marginal alone.

    Args:
        radius: of the circle that the eight centres lie on.
        std: of each of the eight, per coordinate.
    """

    radius: float = 2.0
    std: float = 0.2

    def __post_init__(self) -> None:
        _check_positive("radius", self.radius)
        _check_positive("std", self.std)

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Points, Points]:
        """``n`` independent pairs (x0, xT)."""
        return self.targets(n, generator), self.sources(n, generator)

    def sources(self, n: int, generator: torch.Generator | None = None) -> Points:
        """``n`` sources xT."""
        return gaussian(n, generator)

    def targets(self, n: int, generator: torch.Generator | None = None) -> Points:
        """``n`` targets x0."""
        return eight_gaussians(n, generator, self.radius, self.std)


@dataclass(frozen=True)
class RotatedNoisy:
    """A true pairing: xT of two moons, ``x0 = R xT + noise z`` with R a rotation and z of N(0, I).

    The conditional law is known exactly, N(R xT, noise^2 I), so that the pairing of a student can
    be tested: see `pairing_error`.

    Args:
        angle: of the rotation, in radians, counter-clockwise.
        noise: standard deviation of x0 given xT, per coordinate.
    """

    angle: float = math.pi / 2
    noise: float = 0.3

    def __post_init__(self) -> None:
        _check_positive("noise", self.noise)

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Points, Points]:
        """``n`` pairs (x0, xT)."""
        xT = self.sources(n, generator)
        return self.targets_given(xT, generator), xT

    def sources(self, n: int, generator: torch.Generator | None = None) -> Points:
        """``n`` sources xT."""
        return two_moons(n, generator)

    def targets(self, n: int, generator: torch.Generator | None = None) -> Points:
        """``n`` targets x0, their sources forgotten."""
        return self.draw(n, generator)[0]

    def targets_given(self, xT: Points, generator: torch.Generator | None = None) -> Points:
        """One target for every source, of the exact conditional law."""
        return self.conditional_mean(xT) + self.noise * torch.randn(xT.shape, generator=generator)

    def conditional_mean(self, xT: Points) -> Points:
        """``E[x0 | xT] = R xT``."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x, y = xT.unbind(dim=1)
        return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=1)

    def pairing_error(self, x0: Points, xT: Points) -> float:
        """Root mean square of ``x0 - R xT`` per coordinate; the true coupling has ``noise``.

        More than ``noise`` means partners forgotten or too much spread, less means too little.

        Raises:
            ValueError: the two do not have the same shape (n, 2).
        """
        if x0.shape != xT.shape or x0.ndim != 2 or x0.shape[1] != 2:
            raise ValueError(f"x0 has shape {tuple(x0.shape)} and xT {tuple(xT.shape)}; expected (n, 2) for both")
        return float((x0 - self.conditional_mean(xT)).square().mean().sqrt())


def _count(n: int) -> int:
    if n < 1:
        raise ValueError(f"n is {n}; expected at least one point")
    return n


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; expected a positive number")
