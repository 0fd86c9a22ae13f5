"""Features of any network, and the optional ones: what they get, and what they say when something is missing."""

import importlib.util

import pytest
import torch
from torch import Tensor, nn

from ibmd_lite.data import Photographs
from ibmd_lite.data.decoding import as_bytes
from ibmd_lite.evaluation import Features, NetworkFeatures, frechet_distance, inception, lpips
from ibmd_lite.evaluation.classifier import Classifier

complete = all(importlib.util.find_spec(name) for name in ("torchmetrics", "torch_fidelity", "torchvision"))


def _images(n: int = 90, seed: int = 0) -> Tensor:
    return Photographs(16, "test").crops(n, torch.Generator().manual_seed(seed))


class Pooled(nn.Module):
    """A small real network with layers that behave otherwise in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean(dim=(2, 3))


def test_any_network_and_the_classifiers_are_features() -> None:
    images, other = _images(), _images(seed=1)
    either: list[Features] = [NetworkFeatures(Pooled(), 8), Classifier(dimension=8)]
    for features in either:
        found = features.features(images)
        assert found.shape == (len(images), features.dimension)
        assert not found.requires_grad
        torch.testing.assert_close(features.features(images, batch=7), found)
        clear, inverted = (frechet_distance(found, features.features(x)) for x in (other, -other))
        assert inverted > clear


def test_a_network_gets_what_prepare_makes() -> None:
    images = torch.tensor([-1.2, 0.0, 1.0])[None, :, None, None].expand(2, 3, 2, 2)
    pixels = NetworkFeatures(nn.Flatten(), 12, as_bytes).features(images)
    assert pixels.unique().tolist() == [0, 128, 255]


@pytest.mark.skipif(complete, reason="the extra `inception` is installed")
def test_missing_extra_is_named() -> None:
    with pytest.raises(ImportError, match=r'pip install "ibmd_lite\[inception\]"'):
        inception()
    with pytest.raises(ImportError, match=r'pip install "ibmd_lite\[inception\]"'):
        lpips(_images(2), _images(2))


def test_refusals() -> None:
    features = NetworkFeatures(nn.Flatten(), 5)
    with pytest.raises(ValueError, match=r"\(2, 12\) of 2 images; expected one vector of 5"):
        features.features(torch.zeros(2, 3, 2, 2))
    with pytest.raises(ValueError, match=r"\(2, 1, 2, 2\)"):
        features.features(torch.zeros(2, 1, 2, 2))
    with pytest.raises(ValueError, match="NaN"):
        features.features(torch.full((2, 3, 2, 2), torch.nan))
    with pytest.raises(ValueError, match=r"\(2, 3, 8, 8\) and \(2, 3, 8, 9\)"):
        lpips(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 9))
