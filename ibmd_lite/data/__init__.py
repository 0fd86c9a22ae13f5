"""Data: couplings in the plane, photographs, images and pairs of one's own, public data sets, corruptions.

Imports torch, numpy, ``model`` and the training files; what reads image files loads when an image is first asked for,
the photographs when they are first named: who distils from files of corrupted images never has a clean one.
"""

from typing import TYPE_CHECKING

from ibmd_lite.data.cache import cache_folder
from ibmd_lite.data.corrupted import Corrupted, Own
from ibmd_lite.data.corruptions import JPEG, Blur, Corruption, Sketch, SuperResolution
from ibmd_lite.data.images import Images
from ibmd_lite.data.inpainting import BrushStrokes, CentreHole, Inpainting
from ibmd_lite.data.official import cifar10, fashion_mnist, tiny_imagenet
from ibmd_lite.data.pairs import Pairs
from ibmd_lite.data.plane import GaussianToEight, RotatedNoisy, eight_gaussians, gaussian, two_moons

__all__ = [
    "JPEG",
    "Blur",
    "BrushStrokes",
    "CentreHole",
    "Corrupted",
    "Corruption",
    "GaussianToEight",
    "Images",
    "Inpainting",
    "Own",
    "Pairs",
    "Photographs",
    "RotatedNoisy",
    "Sketch",
    "SuperResolution",
    "cache_folder",
    "cifar10",
    "eight_gaussians",
    "fashion_mnist",
    "gaussian",
    "held_out_region",
    "photograph",
    "tiny_imagenet",
    "two_moons",
]

if TYPE_CHECKING:
    from ibmd_lite.data.photographs import Photographs, held_out_region, photograph
else:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from ibmd_lite.data import photographs

        return getattr(photographs, name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
