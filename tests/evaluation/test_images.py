"""PSNR and diversity against formulas written out, SSIM against scikit-image; timing."""

import time

import pytest
import skimage.metrics
import torch

from ibmd_lite.data import Photographs, SuperResolution
from ibmd_lite.evaluation import diversity, median_seconds, psnr, ssim


def test_psnr_of_a_known_error() -> None:
    clean = torch.zeros(2, 3, 4, 4)
    restored = clean.clone()
    restored[0] += 0.2
    restored[1] += 0.02
    assert psnr(restored, clean) == pytest.approx((20 + 40) / 2, abs=1e-4)


def test_psnr_clips_as_a_file_would_and_stays_finite() -> None:
    clean = torch.ones(1, 3, 4, 4)
    assert psnr(clean + 3, clean) == psnr(clean, clean)
    assert 50 < psnr(clean, clean) < 60


def test_ssim_agrees_with_scikit_image() -> None:
    clean = Photographs(32, "test").crops(6, torch.Generator().manual_seed(0))[..., :20]  # not square
    restored = SuperResolution()(clean)
    theirs = [
        skimage.metrics.structural_similarity(
            x.double().clamp(-1, 1).numpy(),
            y.double().numpy(),
            data_range=2,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for x, y in zip(restored, clean, strict=True)
    ]
    assert ssim(restored, clean) == pytest.approx(sum(theirs) / len(theirs), abs=1e-9)
    assert ssim(clean, clean) == pytest.approx(1)
    assert ssim(clean + 5, clean) == ssim(torch.ones_like(clean), clean)


def test_diversity_is_the_mean_over_pairs() -> None:
    outputs = torch.randn(5, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    pairs = [(outputs[i] - outputs[j]).square().mean() for i in range(5) for j in range(i)]
    assert diversity(outputs) == pytest.approx(float(torch.stack(pairs).mean().sqrt()), rel=1e-5)
    assert diversity(outputs[:1].expand(5, -1, -1, -1, -1)) == 0


def test_median_seconds_orders_calls_and_takes_turns() -> None:
    turns: list[str] = []

    def sleep(name: str, seconds: float) -> None:
        turns.append(name)
        time.sleep(seconds)

    seconds = median_seconds(
        {"slow": lambda: sleep("slow", 0.02), "quick": lambda: sleep("quick", 0.0)}, repeats=3, warmup=1
    )
    assert turns == ["slow", "quick"] * 4
    assert seconds["slow"] >= 0.02
    assert seconds["quick"] < seconds["slow"]


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 1\)"):
        psnr(torch.zeros(2, 3), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(torch.zeros(2, 3, 10, 20), torch.zeros(2, 3, 10, 20))
    with pytest.raises(ValueError, match=r"\(1, 2, 3\)"):
        diversity(torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="0 candidates"):
        median_seconds({})
