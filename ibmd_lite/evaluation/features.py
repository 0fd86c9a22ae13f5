"""What images are compared in: the package's small classifiers, any network of yours, Inception, LPIPS.

Lives here: the protocol ``Features``, ``NetworkFeatures`` for any network, and the two figures that papers report,
``inception`` for FID and ``lpips``. Those need ``pip install "ibmd_lite[inception]"`` and weights that are fetched
once from the network; torchmetrics loads when one of them is asked for, and nothing else here needs it. Imports
torch.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import ModuleType
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Features", "NetworkFeatures", "inception", "lpips"]

Images = Float[Tensor, "batch 3 height width"]


class Features(Protocol):
    """Images in [-1, 1] become vectors, for ``frechet_distance`` and ``frechet_estimate``.

    ``Classifier`` is one, ``NetworkFeatures`` makes one of any network. A distance needs ten images per feature:
    640 for the classifiers' 64, 20,480 for Inception's 2,048.
    """

    dimension: int

    def features(self, images: Images, batch: int = 256) -> Float[Tensor, "batch dimension"]: ...


class NetworkFeatures:
    """Any network that makes vectors of images, as ``Features``.

    Args:
        network: images to (batch, dimension); it is put in evaluation mode.
        dimension: number of features.
        prepare: images in [-1, 1] to what the network takes; by default as they are.
    """

    def __init__(
        self, network: nn.Module, dimension: int, prepare: Callable[[Images], Tensor] = lambda images: images
    ) -> None:
        self.network, self.dimension, self.prepare = network.eval(), dimension, prepare

    @torch.no_grad()
    def features(self, images: Images, batch: int = 64) -> Float[Tensor, "batch dimension"]:
        """Features of the images, in chunks of ``batch``, on the network's device.

        Raises:
            ValueError: images of another shape or not finite, or a network whose output is not (batch, dimension).
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images has shape {tuple(images.shape)}; expected (batch, 3, height, width)")
        if not bool(images.isfinite().all()):
            raise ValueError("the images hold NaN or infinite values; a distance of them would mean nothing")
        device = next((p.device for p in self.network.parameters()), images.device)
        found = torch.cat([self.network(self.prepare(chunk.to(device))) for chunk in images.split(batch)])
        if found.shape != (len(images), self.dimension):
            raise ValueError(
                f"the network made {tuple(found.shape)} of {len(images)} images; expected one vector of "
                f"{self.dimension} numbers each: pool and flatten its output"
            )
        return found.float()


def inception(weights: str | os.PathLike | None = None, device: torch.device | str = "cpu") -> NetworkFeatures:
    """Inception-v3's 2,048 pooled features, of which ``frechet_distance`` makes the usual FID.

    weights: a file of them; by default torch-fidelity's, fetched once and kept. Images become bytes first and are
    enlarged to 299 x 299 by the network, so images of 32 x 32 are far from what it learned on.

    Raises:
        ImportError: torchmetrics or torch-fidelity is not installed.
        RuntimeError: the weights cannot be fetched or read.
    """
    from ibmd_lite.data.decoding import as_bytes

    fid = _extra("torchmetrics.image.fid", needs=("torch_fidelity",))
    path = None if weights is None else os.fspath(weights)
    network = _with_weights("Inception-v3", lambda: fid.NoTrainInceptionV3("inception-v3-compat", ["2048"], path))
    return NetworkFeatures(network.to(device), 2048, as_bytes)


def lpips(restored: Images, clean: Images, network: str = "vgg", batch: int = 64) -> float:
    """Learned perceptual distance of each image to its original, the mean over images; 0 for equal images.

    network: ``"vgg"``, ``"alex"`` or ``"squeeze"``, whose weights are fetched once and kept. Restored values outside
    [-1, 1] are brought back first.

    Raises:
        ImportError: torchmetrics or torchvision is not installed.
        RuntimeError: the weights cannot be fetched.
        ValueError: the shapes differ.

    Source: Zhang et al. 2018.
    """
    if restored.shape != clean.shape or restored.ndim != 4:
        raise ValueError(
            f"the images have shapes {tuple(restored.shape)} and {tuple(clean.shape)}; expected one shape "
            "(batch, 3, height, width)"
        )
    metric = _lpips_network(network).to(clean.device)
    metric.reset()
    for pair in zip(restored.clamp(-1, 1).split(batch), clean.clamp(-1, 1).split(batch), strict=True):
        metric.update(*pair)
    return float(metric.compute())


@lru_cache(maxsize=3)
def _lpips_network(name: str) -> Any:
    module = _extra("torchmetrics.image.lpip", needs=("torchvision",))
    return _with_weights(f"LPIPS ({name})", lambda: module.LearnedPerceptualImagePatchSimilarity(net_type=name))


def _extra(name: str, needs: Iterable[str]) -> ModuleType:
    """The module of an optional package, or an ImportError that says what to install."""
    try:
        for needed in needs:
            importlib.import_module(needed)
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # torchvision made for another torch is the second
        raise ImportError(
            f"{name} cannot be imported ({error}); it belongs to an optional extra: "
            'pip install "ibmd_lite[inception]". The package\'s own classifiers need nothing'
        ) from error


def _with_weights(what: str, make: Callable[[], nn.Module]) -> nn.Module:
    try:
        return make()
    except OSError as error:  # no network, no file, a server that refuses
        raise RuntimeError(
            f"the weights of {what} could not be fetched or read ({error}); connect to the network once, or give the "
            "file where that is offered"
        ) from error
