"""Wasserstein and Frechet distances against closed forms and independent computations."""

import math

import numpy
import pytest
import scipy.linalg
import scipy.optimize
import torch

from ibmd_lite.data import eight_gaussians
from ibmd_lite.evaluation import frechet_distance, wasserstein2, wasserstein2_excess


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_wasserstein_of_a_shift_is_the_shift() -> None:
    x = torch.randn(50, 2, generator=_generator())
    assert wasserstein2(x, x[torch.randperm(50)] + torch.tensor([3.0, 4.0])) == pytest.approx(5, rel=1e-6)
    assert wasserstein2(x, x) == pytest.approx(0, abs=1e-6)


def test_wasserstein_agrees_with_the_best_assignment() -> None:
    x, y = torch.randn(2, 40, 3, generator=_generator()).double()
    cost = torch.cdist(x, y).square().numpy()
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    assert wasserstein2(x, y) == pytest.approx(math.sqrt(cost[rows, columns].mean()), rel=1e-9)


def test_excess_of_the_truth_is_zero_within_its_error_and_of_a_shift_is_not() -> None:
    generator = _generator()

    def data(n: int) -> torch.Tensor:
        return eight_gaussians(n, generator)

    same = wasserstein2_excess(data, data, points=200, draws=8)
    assert same.excess == pytest.approx(same.distance - same.floor)
    assert abs(same.excess) < 4 * same.standard_error
    shifted = wasserstein2_excess(lambda n: data(n) + 1, data, points=200, draws=4)
    assert shifted.excess > 0.5


def test_frechet_of_shifted_and_scaled_points_has_a_closed_form() -> None:
    points = torch.randn(100, 3, generator=_generator()).double()
    assert frechet_distance(points, points) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(points, points + 2) == pytest.approx(12, rel=1e-9)
    doubled = points.mean(0) + 2 * (points - points.mean(0))
    assert frechet_distance(points, doubled) == pytest.approx(float(points.var(0).sum()), rel=1e-9)


def test_frechet_agrees_with_the_matrix_square_root() -> None:
    mixing = torch.randn(2, 4, 4, generator=_generator())
    a = torch.randn(60, 4, generator=_generator(1)) @ mixing[0]
    b = torch.randn(70, 4, generator=_generator(2)) @ mixing[1] + 0.5
    covariances = [numpy.cov(points.double().numpy().T) for points in (a, b)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    means = float((a.double().mean(0) - b.double().mean(0)).square().sum())
    expected = means + numpy.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)


def test_frechet_of_features_on_a_line_is_finite() -> None:
    line = torch.randn(50, 1, generator=_generator()) * torch.ones(1, 5)
    assert frechet_distance(line, line + 1) == pytest.approx(5, rel=1e-5)


def test_refusals() -> None:
    x = torch.zeros(5, 2)
    with pytest.raises(ValueError, match="expected at least 10 d = 20"):
        frechet_distance(x, x)
    with pytest.raises(ValueError, match=r"\(5, 2\) and \(5, 3\)"):
        wasserstein2(x, torch.zeros(5, 3))
    with pytest.raises(ValueError, match="1 of 5 rows"):
        wasserstein2(x, x.index_fill(0, torch.tensor([3]), math.nan))
    with pytest.raises(ValueError, match="draws is 1"):
        wasserstein2_excess(lambda n: x, lambda n: x, draws=1)
