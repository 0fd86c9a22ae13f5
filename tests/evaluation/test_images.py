"""PSNR and diversity against formulas written out; timing."""

import time

import pytest
import torch

from ibmd_lite.evaluation import diversity, median_seconds, psnr


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
    with pytest.raises(ValueError, match=r"\(1, 2, 3\)"):
        diversity(torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="0 candidates"):
        median_seconds({})
