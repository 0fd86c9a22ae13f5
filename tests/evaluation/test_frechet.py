"""The Frechet estimate: what its interval covers, what its floor shows, how two are compared."""

import pytest
import torch
from torch import Tensor

from ibmd_lite.evaluation import frechet_distance, frechet_estimate


def _draw(n: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))


def test_distance_lies_inside_its_interval_and_the_same_seed_repeats_it() -> None:
    features, reference = _draw(400, 0, 1.5), _draw(600, 1)
    estimate = frechet_estimate(features, reference, draws=60)
    assert estimate.distance == frechet_distance(features, reference)
    assert estimate.low < estimate.distance < estimate.high
    assert estimate == frechet_estimate(features, reference, draws=60)
    assert estimate.low != frechet_estimate(features, reference, draws=60, seed=1).low
    wide, narrow = (frechet_estimate(features, reference, draws=60, level=level) for level in (0.95, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_interval_is_as_wide_as_fresh_samples_differ() -> None:
    fresh = torch.tensor([frechet_distance(_draw(400, 2 * k, 1.5), _draw(400, 2 * k + 1)) for k in range(60)])
    truth = float(fresh.quantile(0.95) - fresh.quantile(0.05))
    widths = [frechet_estimate(_draw(400, 200 + k, 1.5), _draw(400, 300 + k), level=0.9) for k in range(4)]
    mean = sum(estimate.high - estimate.low for estimate in widths) / len(widths)
    assert mean == pytest.approx(truth, rel=0.35)


def test_resampling_does_not_move_the_estimate() -> None:
    """Two samples of one law: drawing again with repetition doubles their distance, which must not show."""
    estimate = frechet_estimate(_draw(200, 0), _draw(200, 1), draws=100)
    assert float(estimate.resampled.mean()) == pytest.approx(estimate.distance)
    assert estimate.low < estimate.distance < estimate.high


def test_finite_samples_of_one_law_have_a_floor_that_falls_with_their_number() -> None:
    few, many = (
        sum(frechet_distance(_draw(n, 2 * k), _draw(n, 2 * k + 1)) for k in range(10)) / 10 for n in (100, 400)
    )
    assert few / many == pytest.approx(4, rel=0.4)


def test_a_ratio_of_estimates_on_the_same_images_is_surer_than_its_parts() -> None:
    base, reference = _draw(400, 0), _draw(400, 1)
    first, second = (frechet_estimate(scale * base, reference) for scale in (1.5, 1.6))
    ratio = first.over(second)
    assert ratio.value == pytest.approx(first.distance / second.distance)
    assert ratio.low < ratio.value < ratio.high < 1
    assert ratio.high - ratio.low < 0.5 * (first.high / second.low - first.low / second.high)
    assert first.over(first).low == first.over(first).high == 1


def test_refusals() -> None:
    features = _draw(100, 0)
    with pytest.raises(ValueError, match="expected at least 10 d = 40"):
        frechet_estimate(features[:30], features)
    with pytest.raises(ValueError, match="draws is 1"):
        frechet_estimate(features, features, draws=1)
    with pytest.raises(ValueError, match="level 95"):
        frechet_estimate(features, features, level=95)
    with pytest.raises(ValueError, match=r"5 draws at level 0\.95 and 6"):
        frechet_estimate(features, features, draws=5).over(frechet_estimate(features, features, draws=6))
