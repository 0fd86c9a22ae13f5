"""Small classifiers whose features the Frechet distance compares. **Not Inception**: figures made
with them compare rows of one table, never papers.

Lives here: `Classifier`, the three `Recipe` objects by which the package's weights were made, `train_classifier`,
`load_classifier`, and the command ``python -m ibmd_lite.evaluation.classifier``, which makes them again.
Imports torch, the images and the training files.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ibmd_lite.data import Images as ImageSet
from ibmd_lite.data import Photographs, cifar10, tiny_imagenet
from ibmd_lite.data.decoding import to_unit
from ibmd_lite.data.photographs import NAMES
from ibmd_lite.training.files import check_state, read_weights, save_weights

__all__ = [
    "CIFAR10",
    "PHOTOGRAPHS",
    "RECIPES",
    "TINY_IMAGENET",
    "WEIGHTS",
    "Classifier",
    "Recipe",
    "load_classifier",
    "train_classifier",
]

Images = Float[Tensor, "batch 3 height width"]


class Classifier(nn.Module):
    """A few convolutions, the mean over the image, one linear layer.

    Args:
        dimension: number of features.
        classes: number of labels.
        widths: features of the convolutions before the last one; the first keeps the image's size, every
            further one halves it.
        blocks: residual blocks after every convolution that halves. They are normalised over the batch, so
            such a classifier must be in evaluation mode to be asked, as `load_classifier` returns it.

    Raises:
        ValueError: sizes that are not positive, or no width.
    """

    def __init__(
        self,
        dimension: int = 64,
        classes: int = len(NAMES),
        widths: tuple[int, ...] = (32, 48),
        blocks: int = 0,
    ) -> None:
        super().__init__()
        if not widths or min(*widths, dimension, classes) < 1 or blocks < 0:
            raise ValueError(
                f"dimension={dimension}, classes={classes}, widths={tuple(widths)}, blocks={blocks}; expected "
                "positive sizes, at least one width, and no or some blocks"
            )
        self.dimension = dimension
        self.names: tuple[str, ...] = ()  # of the classes, where a file says them
        self.about = {"dimension": dimension, "classes": classes, "widths": list(widths), "blocks": blocks}
        layers: list[nn.Module] = []
        for level, (before, after) in enumerate(pairwise((3, *widths, dimension))):
            layers += [nn.Conv2d(before, after, 3, stride=2 if level else 1, padding=1), nn.SiLU()]
            layers += [_Residual(after) for _ in range(blocks if level else 0)]
        self.convolutions = nn.Sequential(*layers)
        self.output_layer = nn.Linear(dimension, classes)

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        """Unnormalised log-probabilities of the labels."""
        logits: Tensor = self.output_layer(self._pooled(images))
        return logits

    @torch.no_grad()
    def features(self, images: Images, batch: int = 256) -> Float[Tensor, "batch dimension"]:
        """Features of images in [-1, 1], in chunks of ``batch``; for `frechet_distance`."""
        return self._chunked(self._pooled, images, batch)

    @torch.no_grad()
    def accuracy(self, images: Images, labels: Int[Tensor, "batch"], batch: int = 256) -> float:
        """Share of the images whose most probable label is the true one, between 0 and 1.

        Raises:
            ValueError: not one label per image.
        """
        if labels.shape != (len(images),):
            raise ValueError(f"labels has shape {tuple(labels.shape)}; expected one label per image, ({len(images)},)")
        guesses = self._chunked(self, images, batch).argmax(dim=1)
        return float((guesses == labels.to(guesses.device)).float().mean())

    def _pooled(self, images: Images) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images has shape {tuple(images.shape)}; expected (batch, 3, height, width)")
        images = images.contiguous(memory_format=torch.channels_last)
        pooled: Tensor = self.convolutions(images).mean(dim=(2, 3))
        return pooled

    def _chunked(self, function: Callable[[Tensor], Tensor], images: Tensor, batch: int) -> Tensor:
        device = self.output_layer.weight.device
        return torch.cat([function(chunk.to(device)) for chunk in images.split(batch)])


class _Residual(nn.Module):
    """``h + conv(silu(norm(conv(silu(norm(h))))))``, normalised over the batch."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.BatchNorm2d(features), nn.BatchNorm2d(features)
        self.first = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        inner = self.first(functional.silu(self.first_norm(h)))
        return h + self.second(functional.silu(self.second_norm(inner)))


class Labelled(Protocol):
    """Images in [-1, 1] and their labels, drawn at random: `Photographs`, or images read from a folder or a zip."""

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]: ...


def recoloured(images: Tensor, generator: torch.Generator) -> Tensor:
    """Colours that say nothing: three in ten images grey, then a contrast and a shift per channel."""
    n = len(images)
    grey = torch.rand(n, 1, 1, 1, generator=generator) < 0.3
    images = torch.where(grey, images.mean(dim=1, keepdim=True), images)
    contrast = torch.exp(0.4 * torch.randn(n, 3, 1, 1, generator=generator))
    shift = 0.4 * torch.randn(n, 3, 1, 1, generator=generator)
    mean = images.mean(dim=(2, 3), keepdim=True)
    return (images - mean) * contrast + mean + shift


def moved_and_mirrored(images: Tensor, generator: torch.Generator, reach: int = 4) -> Tensor:
    """Every image moved by up to ``reach`` pixels, its border mirrored to fill the gap; every other one mirrored."""
    n, channels, height, width = images.shape
    wide = functional.pad(images, (reach,) * 4, mode="reflect")
    rows = torch.randint(2 * reach + 1, (n, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(2 * reach + 1, (n, 1), generator=generator) + torch.arange(width)
    columns = torch.where(torch.rand(n, 1, generator=generator) < 0.5, columns.flip(1), columns)
    each, channel = torch.arange(n)[:, None, None, None], torch.arange(channels)[:, None, None]
    return wide[each, channel, rows[:, None, :, None], columns[:, None, None, :]]


@dataclass(frozen=True)
class Recipe:
    """How a classifier is built and trained.

    Args:
        weights: where the package keeps the result.
        classifier: arguments of `Classifier`.
        augment: what is done to the images of every batch, (images, generator) -> images.
        updates, batch, learning_rate: of AdamW; the rate rises to its highest and falls to 0.
        decay: AdamW's weight decay.
    """

    weights: Path
    classifier: dict[str, Any]
    augment: Callable[[Tensor, torch.Generator], Tensor]
    updates: int
    batch: int
    learning_rate: float
    decay: float = 0.01


PHOTOGRAPHS = Recipe(Path(__file__).with_name("classifier.safetensors"), {}, recoloured, 1000, 64, 4e-3)
"""Which photograph is a crop from? Colours are made to say nothing, so that texture has to tell, which is what a
blurred restoration lacks. Half a minute on one core."""

CIFAR10 = Recipe(
    Path(__file__).with_name("cifar10.safetensors"),
    {"classes": 10, "widths": (24, 48), "blocks": 1},
    moved_and_mirrored,
    updates=1500,
    batch=128,
    learning_rate=4e-3,
    decay=0.05,
)
"""The ten classes of CIFAR-10; four minutes on one core."""

TINY_IMAGENET = Recipe(
    Path(__file__).with_name("tiny_imagenet.safetensors"),
    {"classes": 200, "widths": (24, 48, 64), "blocks": 1},
    moved_and_mirrored,
    updates=3000,
    batch=128,
    learning_rate=4e-3,
    decay=0.05,
)
"""The two hundred classes of Tiny ImageNet, at 64 x 64."""  # 31 % of 2,000 told right; twenty minutes on one core

RECIPES = {"photographs": PHOTOGRAPHS, "cifar10": CIFAR10, "tiny-imagenet": TINY_IMAGENET}

WEIGHTS = PHOTOGRAPHS.weights
"""The weights of `PHOTOGRAPHS`, made by this module's command at its defaults."""


def train_classifier(images: Labelled | None = None, recipe: Recipe = PHOTOGRAPHS, *, seed: int = 0) -> Classifier:
    """A classifier of images by label, the photographs' training crops by default.

    Same seed, machine and number of threads: same weights.

    Raises:
        ValueError: fewer than one update.
    """
    if recipe.updates < 1:
        raise ValueError(f"updates is {recipe.updates}; expected at least 1")
    images = images or Photographs(size=32, split="train")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = Classifier(**recipe.classifier)
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=recipe.learning_rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, recipe.updates)
    for _ in range(recipe.updates):
        drawn, labels = images.draw(recipe.batch, generator)
        loss = functional.cross_entropy(classifier(recipe.augment(drawn, generator)), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return classifier.eval().requires_grad_(False)


def load_classifier(path: Path = WEIGHTS) -> Classifier:
    """The classifier of a safetensors file: the photographs' by default, ``CIFAR10.weights`` for another.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file of something else.
    """
    about, state = read_weights(path)
    classifier = Classifier(**about.get("classifier", {}))
    check_state(classifier, state)
    classifier.load_state_dict(state)
    classifier.names = tuple(about.get("names", ()))
    return classifier.eval().requires_grad_(False)


def main() -> None:
    """Train, print the accuracy on test images, write the weights."""
    parser = argparse.ArgumentParser(prog="python -m ibmd_lite.evaluation.classifier")
    parser.add_argument("--data", choices=tuple(RECIPES), default="photographs")
    parser.add_argument(
        "--path", type=Path, help="not for photographs: a folder or zip of split/class/file; else it is fetched"
    )
    parser.add_argument("--updates", type=int, help="another number than the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="another file than the package's own")
    arguments = parser.parse_args()
    if arguments.data == "photographs" and arguments.path is not None:
        parser.error("--path is for the other --data; the photographs come with installed packages")
    recipe = RECIPES[arguments.data]
    recipe = replace(recipe, updates=arguments.updates or recipe.updates, weights=arguments.output or recipe.weights)
    train, (images, labels), names = _data(arguments)
    classifier = train_classifier(train, recipe, seed=arguments.seed)
    accuracy = classifier.accuracy(images, labels)
    about = {"updates": recipe.updates, "seed": arguments.seed, "test accuracy": accuracy}
    save_weights(recipe.weights, classifier, about | {"classifier": classifier.about, "names": names})
    print(f"{accuracy:.3f} of {len(images):,} test images told right; weights in {recipe.weights}")


def _data(arguments: argparse.Namespace) -> tuple[Labelled, tuple[Tensor, Tensor], tuple[str, ...]]:
    """What to learn from, test images with their labels, and the names of the classes."""
    if arguments.data == "photographs":
        generator = torch.Generator().manual_seed(arguments.seed)
        return Photographs(size=32, split="train"), Photographs(size=32, split="test").draw(2000, generator), NAMES
    path = arguments.path
    side, judged = (32, "test") if arguments.data == "cifar10" else (64, "val")
    if path is not None:
        train, test = (ImageSet.read(path, size=side, split=split) for split in ("train", judged))
    elif arguments.data == "cifar10":
        train, test = cifar10("train", subset=True), cifar10("test", subset=True)
    else:
        train, test = tiny_imagenet("train", subset=True), tiny_imagenet("val", subset=True)
    return train, (to_unit(test.pixels), test.labels), test.classes


if __name__ == "__main__":
    main()
