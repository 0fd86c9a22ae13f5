"""Evaluation: distances between samples, figures for restored images, a classifier, timing.

Imports torch alone at first; the classifier (which needs the photographs) and POT load when used.
"""

from ibmd_lite.evaluation.distances import (
    Excess,
    frechet_distance,
    wasserstein2,
    wasserstein2_excess,
)
from ibmd_lite.evaluation.gap import RefittedGap, refitted_gap
from ibmd_lite.evaluation.images import diversity, psnr
from ibmd_lite.evaluation.timing import median_seconds

__all__ = [
    "Excess",
    "RefittedGap",
    "diversity",
    "frechet_distance",
    "median_seconds",
    "psnr",
    "refitted_gap",
    "wasserstein2",
    "wasserstein2_excess",
]
