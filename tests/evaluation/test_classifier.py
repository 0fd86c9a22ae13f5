"""The classifier: it learns, repeats, travels through a file, and its features see blur."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ibmd_lite.data import Photographs, SuperResolution
from ibmd_lite.evaluation import frechet_distance
from ibmd_lite.evaluation.classifier import NAMES, Classifier, load_classifier, train_classifier


def test_training_learns() -> None:
    crops, labels = Photographs(32, "train").draw(400, torch.Generator().manual_seed(0))
    few, more = (train_classifier(updates, batch=16).accuracy(crops, labels) for updates in (1, 80))
    assert few < 1.5 / len(NAMES) < more


def test_training_repeats_with_its_seed() -> None:
    images = torch.randn(4, 3, 16, 16)
    first, again, other = (train_classifier(3, batch=8, seed=seed).features(images) for seed in (0, 0, 1))
    torch.testing.assert_close(first, again)
    assert not torch.allclose(first, other)


def test_shipped_features_tell_blur_from_fresh_crops() -> None:
    classifier = load_classifier()
    generator = torch.Generator().manual_seed(0)
    source = Photographs(32, "test")
    crops, fresh = source.crops(700, generator), source.crops(700, generator)
    floor = frechet_distance(classifier.features(crops), classifier.features(fresh))
    blurred = frechet_distance(classifier.features(SuperResolution()(crops)), classifier.features(fresh))
    assert blurred > 10 * floor
    assert classifier.features(crops).shape == (700, classifier.dimension)
    crops, labels = source.draw(1000, generator)
    assert classifier.accuracy(crops, labels) > 0.4


def test_chunks_do_not_change_features() -> None:
    classifier = Classifier()
    images = torch.randn(10, 3, 16, 16)
    torch.testing.assert_close(classifier.features(images, batch=3), classifier.features(images))


def test_command_writes_weights_that_load(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    command = [sys.executable, "-m", "ibmd_lite.evaluation.classifier", "--updates", "2", "--output", str(path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "test crops told right" in printed
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(load_classifier(path)(images), train_classifier(updates=2)(images))


def test_light_import() -> None:
    check = (
        "import sys, ibmd_lite, ibmd_lite.data, ibmd_lite.evaluation, ibmd_lite.networks;"
        "heavy = {'skimage', 'sklearn', 'ot', 'matplotlib', 'PIL', 'scipy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"\(2, 1, 8, 8\)"):
        Classifier().features(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"labels has shape \(3,\)"):
        Classifier().accuracy(torch.zeros(2, 3, 8, 8), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="updates is 0"):
        train_classifier(updates=0)
