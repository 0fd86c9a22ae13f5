"""The planar couplings: moments, pairing, repeatability."""

import math

import pytest
import torch

from ibmd_lite.data import GaussianToEight, RotatedNoisy, eight_gaussians


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("coupling", [GaussianToEight(), RotatedNoisy()])
def test_draws_are_pairs_that_a_generator_repeats(coupling: GaussianToEight | RotatedNoisy) -> None:
    x0, xT = coupling.draw(5, _generator())
    again = coupling.draw(5, _generator())
    assert x0.shape == xT.shape == (5, 2)
    assert torch.equal(x0, again[0])
    assert torch.equal(xT, again[1])
    assert not torch.equal(x0, coupling.draw(5, _generator(1))[0])
    assert coupling.sources(5, _generator()).shape == coupling.targets(5, _generator()).shape == (5, 2)


def test_eight_gaussians_are_eight_and_equally_likely() -> None:
    points = eight_gaussians(16_000, _generator(), radius=2.0, std=0.1)
    nearest = (torch.atan2(points[:, 1], points[:, 0]) / (math.pi / 4)).round().long() % 8
    shares = torch.bincount(nearest, minlength=8) / len(points)
    assert (shares - 1 / 8).abs().max() < 5 * math.sqrt(7 / 64 / len(points))
    centres = 2 * torch.stack([(nearest * math.pi / 4).cos(), (nearest * math.pi / 4).sin()], dim=1)
    assert float((points - centres).std()) == pytest.approx(0.1, rel=0.03)


def test_gaussian_to_eight_is_independent() -> None:
    x0, xT = GaussianToEight().draw(20_000, _generator())
    correlation = torch.corrcoef(torch.cat([x0, xT], dim=1).T)[:2, 2:]
    assert correlation.abs().max() < 5 / math.sqrt(20_000)
    assert float(xT.std()) == pytest.approx(1, rel=0.03)


def test_rotated_noisy_has_the_law_it_documents() -> None:
    coupling = RotatedNoisy(angle=math.pi / 2, noise=0.3)
    x0, xT = coupling.draw(20_000, _generator())
    rotated = torch.stack([-xT[:, 1], xT[:, 0]], dim=1)
    torch.testing.assert_close(coupling.conditional_mean(xT), rotated, atol=1e-6, rtol=0)
    rest = x0 - rotated
    assert float(rest.std()) == pytest.approx(0.3, rel=0.03)
    assert coupling.pairing_error(x0, xT) == pytest.approx(float(rest.square().mean().sqrt()), rel=1e-5)
    assert torch.corrcoef(torch.cat([rest, xT], dim=1).T)[:2, 2:].abs().max() < 5 / math.sqrt(20_000)


def test_pairing_error_tells_forgotten_partners() -> None:
    coupling = RotatedNoisy()
    x0, xT = coupling.draw(2000, _generator())
    assert coupling.pairing_error(x0.roll(1, 0), xT) > 3 * coupling.pairing_error(x0, xT)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="n is 0"):
        GaussianToEight().draw(0)
    with pytest.raises(ValueError, match="std is -1"):
        GaussianToEight(std=-1)
    with pytest.raises(ValueError, match="noise is 0"):
        RotatedNoisy(noise=0)
    with pytest.raises(ValueError, match=r"\(3, 2\) and xT \(2, 2\)"):
        RotatedNoisy().pairing_error(torch.zeros(3, 2), torch.zeros(2, 2))
