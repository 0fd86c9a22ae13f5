"""The classifier: it learns, repeats, travels through a file, and its features see blur."""

import io
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from ibmd_lite.data import Photographs, SuperResolution
from ibmd_lite.evaluation import frechet_distance
from ibmd_lite.evaluation.classifier import (
    CIFAR10,
    NAMES,
    PHOTOGRAPHS,
    TINY_IMAGENET,
    Classifier,
    Recipe,
    load_classifier,
    moved_and_mirrored,
    train_classifier,
)
from ibmd_lite.training import save_weights


def test_training_learns() -> None:
    crops, labels = Photographs(32, "train").draw(400, torch.Generator().manual_seed(0))
    few, more = (
        train_classifier(recipe=replace(PHOTOGRAPHS, updates=updates, batch=16)).accuracy(crops, labels)
        for updates in (1, 80)
    )
    assert few < 1.5 / len(NAMES) < more


def test_training_repeats_with_its_seed() -> None:
    images = torch.randn(4, 3, 16, 16)
    recipe = replace(PHOTOGRAPHS, updates=3, batch=8)
    first, again, other = (train_classifier(recipe=recipe, seed=seed).features(images) for seed in (0, 0, 1))
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


def test_residual_blocks_are_asked_in_evaluation_mode_and_travel(tmp_path: Path) -> None:
    """Normalised over the batch: an image's features must not depend on its neighbours."""
    recipe = replace(PHOTOGRAPHS, updates=3, batch=8, classifier={"dimension": 6, "widths": (4, 4, 4), "blocks": 2})
    classifier = train_classifier(recipe=recipe)
    images = torch.randn(5, 3, 16, 16)
    together = classifier.features(images)
    assert together.shape == (5, 6)
    torch.testing.assert_close(classifier.features(images, batch=1), together)
    save_weights(tmp_path / "own.safetensors", classifier, {"classifier": classifier.about, "names": ["cat", "dog"]})
    again = load_classifier(tmp_path / "own.safetensors")
    torch.testing.assert_close(again.features(images), together)
    assert again.names == ("cat", "dog")


def test_moves_and_mirrors_show_the_same_picture() -> None:
    """Of a ramp from left to right, rows stay ramps: shifted by at most four pixels, or falling where mirrored."""
    ramp = torch.arange(16.0).expand(400, 1, 16, 16)
    moved = moved_and_mirrored(ramp, torch.Generator().manual_seed(0))
    inner = moved[:, 0, 8, 4:12]
    rising, falling = (inner.diff(dim=1) == 1).all(1), (inner.diff(dim=1) == -1).all(1)
    assert bool((rising | falling).all())
    assert 150 < int(rising.sum()) < 250
    assert set((inner[rising, 0] - 4).tolist()) == set(range(-4, 5))
    assert torch.equal(moved, moved[:, :, :1].expand_as(moved)), "rows of one image move together"


@pytest.mark.parametrize(("recipe", "classes", "most"), [(CIFAR10, 10, 1e6), (TINY_IMAGENET, 200, 1.2e6)])
def test_shipped_weights_are_small_and_know_their_classes(recipe: Recipe, classes: int, most: float) -> None:
    classifier = load_classifier(recipe.weights)
    assert recipe.weights.stat().st_size < most
    assert len(classifier.names) == classes
    assert classifier.dimension == 64
    assert classifier.about == Classifier(**recipe.classifier).about
    assert not classifier.training


def test_chunks_do_not_change_features() -> None:
    classifier = Classifier()
    images = torch.randn(10, 3, 16, 16)
    torch.testing.assert_close(classifier.features(images, batch=3), classifier.features(images))


def test_command_writes_weights_that_load(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    command = [sys.executable, "-m", "ibmd_lite.evaluation.classifier", "--updates", "2", "--output", str(path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "of 2,000 test images told right" in printed
    images = torch.randn(2, 3, 16, 16)
    recipe = replace(PHOTOGRAPHS, updates=2)
    torch.testing.assert_close(load_classifier(path)(images), train_classifier(recipe=recipe)(images))


@pytest.mark.parametrize(("data", "judged", "side"), [("cifar10", "test", 32), ("tiny-imagenet", "val", 64)])
def test_command_learns_the_classes_of_a_zip(
    data: str, judged: str, side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = 10 if data == "cifar10" else 200
    monkeypatch.setenv("IBMD_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "weights.safetensors"
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for split in ("train", judged):
            for label in range(classes):
                file = io.BytesIO()
                Image.new("RGB", (side, side), (label, 0, 0)).save(file, "PNG")
                archive.writestr(f"{split}/class{label:03d}/one.png", file.getvalue())
    command = [sys.executable, "-m", "ibmd_lite.evaluation.classifier", "--data", data, "--updates", "2"]
    command += ["--path", str(tmp_path / "images.zip"), "--output", str(weights)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert f"of {classes} test images told right" in printed
    assert load_classifier(weights).names == tuple(f"class{label:03d}" for label in range(classes))


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
        train_classifier(recipe=replace(PHOTOGRAPHS, updates=0))
    with pytest.raises(ValueError, match="blocks=-1"):
        Classifier(blocks=-1)
