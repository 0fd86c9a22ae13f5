"""Evaluation: distances between samples, figures for restored images, classifiers, timing.

Imports torch alone at first; the classifiers (which need images) load when used, and so do POT and torchmetrics.
"""

from ibmd_lite.evaluation.distances import (
    Excess,
    frechet_distance,
    wasserstein2,
    wasserstein2_excess,
)
from ibmd_lite.evaluation.features import Features, NetworkFeatures, inception, lpips
from ibmd_lite.evaluation.frechet import FrechetEstimate, Ratio, frechet_estimate
from ibmd_lite.evaluation.gap import RefittedGap, refitted_gap
from ibmd_lite.evaluation.images import diversity, psnr, ssim
from ibmd_lite.evaluation.timing import flops, median_seconds

__all__ = [
    "Excess",
    "Features",
    "FrechetEstimate",
    "NetworkFeatures",
    "Ratio",
    "RefittedGap",
    "diversity",
    "flops",
    "frechet_distance",
    "frechet_estimate",
    "inception",
    "lpips",
    "median_seconds",
    "psnr",
    "refitted_gap",
    "ssim",
    "wasserstein2",
    "wasserstein2_excess",
]
