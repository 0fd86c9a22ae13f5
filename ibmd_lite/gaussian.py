"""The closed-form truth: jointly Gaussian xT and x0, on any bridge, in any dimension.

With ``xT ~ N(mu, S)`` and ``x0 = A xT + m + tau z`` the optimal denoiser of both kinds is affine, and the
distillation loss, its gap and its gradient are formulas.  Tests and the book hold the code against them.

Stands on ``bridges`` alone (and torch, jaxtyping).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ibmd_lite.bridges.bridge import Bridge, Times

__all__ = ["Affine", "CouplingGradient", "GaussianCoupling"]

Matrix = Float[Tensor, "d d"]
Vector = Float[Tensor, " d"]
Weight = Callable[[Times], Times]


class Affine(NamedTuple):
    """x0_hat = from_xt xt + from_xT xT + offset, one row of matrices per time."""

    from_xt: Float[Tensor, "times d d"]
    from_xT: Float[Tensor, "times d d"]
    offset: Float[Tensor, "times d"]


class CouplingGradient(NamedTuple):
    """Derivatives of a gap with respect to the student's A, m and tau."""

    A: Matrix
    m: Vector
    tau: Matrix


@dataclass(frozen=True)
class GaussianCoupling:
    """x0 = A xT + m + tau z with z ~ N(0, I) and xT ~ N(mu, S).

    Floats stand for one dimension, tensors for d: A, tau, S of shape (d, d), m and mu of shape (d,).
    Everything is float64.  S must be symmetric and positive definite; tau may be singular, or zero.

    Raises ValueError for shapes that do not fit together and for an S that is no covariance.
    """

    A: Matrix
    m: Vector
    tau: Matrix
    mu: Vector
    S: Matrix

    def __post_init__(self) -> None:
        d = torch.as_tensor(self.m).numel()
        for name, shape in {"A": (d, d), "m": (d,), "tau": (d, d), "mu": (d,), "S": (d, d)}.items():
            value = torch.as_tensor(getattr(self, name), dtype=torch.float64)
            if value.numel() != torch.Size(shape).numel():
                raise ValueError(f"{name} must have shape {shape} beside m of length {d}, got {tuple(value.shape)}")
            object.__setattr__(self, name, value.reshape(shape))
        if not bool(torch.equal(self.S, self.S.T)) or bool((torch.linalg.eigvalsh(self.S.detach()) <= 0).any()):
            raise ValueError("S must be a symmetric, positive definite covariance of xT")

    @property
    def spread(self) -> Matrix:
        """Covariance of x0 given xT: tau tau^T."""
        return self.tau @ self.tau.T

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n pairs (x0, xT), float64."""
        z, noise = torch.randn(2, n, len(self.m), generator=generator, dtype=torch.float64)
        xT = self.mu + noise @ torch.linalg.cholesky(self.S).T
        return xT @ self.A.T + self.m + z @ self.tau.T, xT

    def denoiser(self, bridge: Bridge, t: Float[Tensor, " times"], *, conditional: bool) -> Affine:
        """E[x0 | xt] or E[x0 | xt, xT] as affine maps, by the rule for conditioning Gaussians."""
        a, b, c = (curve[:, None, None] for curve in bridge.coefficients(t.double()))
        eye = torch.eye(len(self.m), dtype=torch.float64)
        if conditional:
            gain = b * self.spread @ torch.linalg.pinv(b**2 * self.spread + c**2 * eye, hermitian=True)
            return Affine(gain, self.A - gain @ (a * eye + b * self.A), self.m - (b * gain) @ self.m)
        mean = self.A @ self.mu + self.m
        both, own = self.A @ self.S, self.A @ self.S @ self.A.T + self.spread
        seen = a**2 * self.S + b**2 * own + a * b * (both + both.T) + c**2 * eye
        gain = (a * both + b * own) @ torch.linalg.pinv(seen, hermitian=True)
        state_mean = (a * eye) @ self.mu + (b * eye) @ mean
        return Affine(gain, torch.zeros_like(gain), mean - (gain @ state_mean[..., None])[..., 0])

    def posterior_mean(
        self,
        bridge: Bridge,
        xt: Float[Tensor, "batch d"],
        t: Float[Tensor, " batch"],
        xT: Float[Tensor, "batch d"] | None = None,
    ) -> Float[Tensor, "batch d"]:
        """E[x0 | xt], or E[x0 | xt, xT] where xT is given: what a perfect teacher answers."""
        from_xt, from_xT, offset = (w.to(xt) for w in self.denoiser(bridge, t, conditional=xT is not None))
        x0 = (from_xt @ xt[..., None])[..., 0] + offset
        return x0 if xT is None else x0 + (from_xT @ xT[..., None])[..., 0]

    def sampled(self, bridge: Bridge, grid: Times, *, conditional: bool) -> GaussianCoupling:
        """The coupling that Markov steps with the perfect denoiser make of the same xT, exactly.

        The conditional process keeps the training coupling; the unconditional one keeps the marginals only.
        """
        d = len(self.m)
        eye, zero = torch.eye(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
        slope, offset, covariance = eye, zero[0], bridge.end_std**2 * eye  # of xt given xT
        for index, (t, s) in enumerate(pairwise(grid)):
            from_xt, from_x0, std = bridge.posterior(t.double(), s.double())
            P, Q, r = (w[0] for w in self.denoiser(bridge, t[None], conditional=conditional))
            step = from_xt * eye + from_x0 * P
            slope, offset = step @ slope + from_x0 * Q, step @ offset + from_x0 * r
            noise = 0 if index == len(grid) - 2 else std**2
            covariance = step @ covariance @ step.T + noise * eye
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors @ values.clamp_min(0).sqrt().diag() @ vectors.T
        return GaussianCoupling(slope, offset, root, self.mu, self.S)

    def gap(
        self, student: GaussianCoupling, bridge: Bridge, *, conditional: bool, weight: Weight | None = None
    ) -> Float[Tensor, ""]:
        """E lambda |x* - x_F|^2 over the student's bridge, with the perfect fake (eq:gap); a mean over elements.

        ``self`` is the teacher's truth.  With the perfect fake this equals the loss (eq:ibmd).  The expectation
        over xT, z and the bridge's noise is exact, that over t a Gauss-Legendre rule on [0, T].
        Differentiable in the student's A, m and tau.
        """
        t, measure = self._times(bridge, weight)
        a, b, c = (curve[:, None, None] for curve in bridge.coefficients(t))
        target = self.denoiser(bridge, t, conditional=conditional)
        fake = student.denoiser(bridge, t, conditional=conditional)
        P, Q, r = (x - y for x, y in zip(target, fake, strict=True))
        slope = P @ (a * torch.eye(len(self.m), dtype=torch.float64) + b * student.A) + Q
        centre = slope @ student.mu + (b * P) @ student.m + r
        square = _trace(slope, student.S) + centre.square().sum(-1) + _trace(b * P, student.spread)
        return (measure * (square + (c * P).square().sum((-1, -2)))).sum() / len(self.m)

    def gap_gradient(
        self, student: GaussianCoupling, bridge: Bridge, *, conditional: bool, weight: Weight | None = None
    ) -> CouplingGradient:
        """Gradient of ``gap`` with respect to the student, written out.

        At the perfect fake its own change does not matter (it minimises its loss), so the gradient is that of
        E lambda (|x* - x0|^2 - |x_F - x0|^2) with both denoisers held: for a held denoiser P, Q, r the error
        is M x0 + N xT + c P noise + r with M = b P - I and N = a P + Q.
        """
        t, measure = self._times(bridge, weight)
        a, b, _ = (curve[:, None, None] for curve in bridge.coefficients(t))
        total = None
        for sign, denoiser in ((1, self), (-1, student)):
            P, Q, r = denoiser.denoiser(bridge, t, conditional=conditional)
            M, N = b * P - torch.eye(len(self.m), dtype=torch.float64), a * P + Q
            slope = M @ student.A + N
            centre = (slope @ student.mu + M @ student.m + r)[..., None]
            back = (2 * sign * measure / len(self.m))[:, None, None] * M.mT
            parts = (back @ (slope @ student.S + centre * student.mu), (back @ centre)[..., 0], back @ M @ student.tau)
            sums = [part.sum(0) for part in parts]
            total = sums if total is None else [x + y for x, y in zip(total, sums, strict=True)]
        return CouplingGradient(*total)  # type: ignore[misc]

    def _times(self, bridge: Bridge, weight: Weight | None) -> tuple[Tensor, Tensor]:
        """Times and what each counts: a quadrature of t ~ U(0, T), or the noisy times of a table."""
        if bridge.times is None:
            # Golub and Welsch: the Gauss-Legendre rule from the eigenvectors of a tridiagonal matrix
            k = torch.arange(1, 64, dtype=torch.float64)
            nodes, vectors = torch.linalg.eigh(torch.diag(k / (4 * k**2 - 1).sqrt(), 1), UPLO="U")
            t, measure = bridge.T * (nodes + 1) / 2, vectors[0].square()
        else:
            t = bridge.times[bridge.coefficients(bridge.times)[2] > 0]
            measure = torch.full_like(t, 1 / len(t))
        return t, measure if weight is None else measure * weight(t)


def _trace(linear: Tensor, covariance: Matrix) -> Tensor:
    return (linear @ covariance * linear).sum((-1, -2))
