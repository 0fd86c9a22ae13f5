"""A small classifier whose features the Frechet distance compares. **Not Inception**: figures made
with it compare rows of one table, never papers.

Lives here: `Classifier`, `train_classifier`, `load_classifier`, and the command
``python -m ibmd_lite.evaluation.classifier``, which makes the weights that the package carries.
Imports torch, the photographs and the training files.

It learns which photograph a crop is from while colours are shifted and scaled at random and often
removed, so that texture has to tell, which is what a blurred restoration lacks.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ibmd_lite.data.photographs import NAMES, Photographs
from ibmd_lite.training.files import load_weights, save_weights

__all__ = ["WEIGHTS", "Classifier", "load_classifier", "train_classifier"]

WEIGHTS = Path(__file__).with_name("classifier.safetensors")
"""The weights that the package carries, made by this module's command at its defaults."""

Images = Float[Tensor, "batch 3 height width"]


class Classifier(nn.Module):
    """Three convolutions, the mean over the image, one linear layer.

    Args:
        dimension: number of features.
        classes: number of labels.
    """

    def __init__(self, dimension: int = 64, classes: int = len(NAMES)) -> None:
        super().__init__()
        self.dimension = dimension
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 48, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(48, dimension, 3, stride=2, padding=1),
            nn.SiLU(),
        )
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


def train_classifier(updates: int = 1000, batch: int = 64, learning_rate: float = 4e-3, seed: int = 0) -> Classifier:
    """A classifier of training crops by photograph; half a minute on a CPU.

    The learning rate rises to ``learning_rate`` and falls to 0. Same seed, machine and number of
    threads: same weights.

    Raises:
        ValueError: fewer than one update.
    """
    if updates < 1:
        raise ValueError(f"updates is {updates}; expected at least 1")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = Classifier()
    source = Photographs(size=32, split="train")
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, updates)
    for _ in range(updates):
        crops, labels = source.draw(batch, generator)
        loss = functional.cross_entropy(classifier(_recolour(crops, generator)), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return classifier.eval().requires_grad_(False)


def load_classifier(path: Path = WEIGHTS) -> Classifier:
    """The classifier of a safetensors file; by default the one that the package carries."""
    classifier = Classifier()
    load_weights(path, classifier)
    return classifier.eval().requires_grad_(False)


def _recolour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Colours that say nothing: three in ten images grey, then a contrast and a shift per channel."""
    n = len(images)
    grey = torch.rand(n, 1, 1, 1, generator=generator) < 0.3
    images = torch.where(grey, images.mean(dim=1, keepdim=True), images)
    contrast = torch.exp(0.4 * torch.randn(n, 3, 1, 1, generator=generator))
    shift = 0.4 * torch.randn(n, 3, 1, 1, generator=generator)
    mean = images.mean(dim=(2, 3), keepdim=True)
    return (images - mean) * contrast + mean + shift


def main() -> None:
    """Train, print the accuracy on test crops, write the weights."""
    parser = argparse.ArgumentParser(prog="python -m ibmd_lite.evaluation.classifier")
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    classifier = train_classifier(updates=arguments.updates, seed=arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    crops, labels = Photographs(size=32, split="test").draw(2000, generator)
    accuracy = classifier.accuracy(crops, labels)
    about = {"updates": arguments.updates, "seed": arguments.seed, "test accuracy": accuracy}
    save_weights(arguments.output, classifier, about)
    print(f"{accuracy:.3f} of 2,000 test crops told right; weights in {arguments.output}")


if __name__ == "__main__":
    main()
