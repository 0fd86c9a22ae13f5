"""Data: couplings in the plane, photographs that installed packages carry, corruptions.

Imports torch alone; what reads image files loads when a photograph is first asked for.
"""

from ibmd_lite.data.corruptions import SuperResolution
from ibmd_lite.data.photographs import Photographs, held_out_region, photograph
from ibmd_lite.data.plane import (
    GaussianToEight,
    RotatedNoisy,
    eight_gaussians,
    gaussian,
    two_moons,
)

__all__ = [
    "GaussianToEight",
    "Photographs",
    "RotatedNoisy",
    "SuperResolution",
    "eight_gaussians",
    "gaussian",
    "held_out_region",
    "photograph",
    "two_moons",
]
