"""Clean images and what corrupts them become a coupling: pairs for a teacher, sources alone for its student.

Lives here: ``Corrupted``, and ``Own``, which makes a corruption of any function. Imports torch, the package's
``Source`` and its neighbour ``corruptions``.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ibmd_lite.data.corruptions import Batch, Corruption, check_images
from ibmd_lite.model import Source

__all__ = ["Corrupted", "Own"]


class DrawsImages(Protocol):
    """``Photographs``, or whatever else draws clean images in [-1, 1] and something about them."""

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Any]: ...


@dataclass(frozen=True)
class Own:
    """A corruption made of a function x0 -> xT of your own that draws nothing.

    A function that does draw takes ``(x0, generator)``, uses that generator for all its randomness, and is a
    corruption as it stands.
    """

    function: Callable[[Batch], Batch]

    def __call__(self, x0: Batch, generator: torch.Generator | None = None) -> Batch:
        """What the function returns."""
        check_images(x0)
        return self.function(x0)


@dataclass(frozen=True)
class Corrupted:
    """Images and a corruption as a coupling (``recipes.Coupling``).

    ``Draws(coupling.draw, batch)`` feeds ``TeacherTraining``, ``Draws(coupling.sources, batch)`` feeds
    ``Distillation``. One generator serves the choice of images and the corruption, so a seed repeats both.

    Args:
        images: anything with ``draw(n, generator) -> (x0, labels)``, such as ``Photographs(32)``.
        corruption: one of ``ibmd_lite.data``, ``Own(function)``, or any callable ``(x0, generator)`` that returns
            images of x0's shape or a ``Source`` of them.
        device: where to corrupt; by default where the images are.

    Raises:
        TypeError: no ``draw``, or a corruption that cannot be called with (x0, generator).
        ValueError: when drawing, a corruption that changes the shape.
    """

    images: DrawsImages
    corruption: Corruption
    device: torch.device | str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.images, type) or not callable(getattr(self.images, "draw", None)):
            raise TypeError(f"images is {self.images!r}; expected an object with draw(n, generator) -> (x0, labels)")
        if isinstance(self.corruption, type) or not callable(self.corruption):
            raise TypeError(f"corruption is {self.corruption!r}; expected an object such as JPEG(10)")
        try:
            inspect.signature(self.corruption).bind(None, None)
        except TypeError:
            raise TypeError(
                f"{self.corruption!r} cannot be called with (x0, generator); if it takes x0 alone, give Own(function)"
            ) from None

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor | Source]:
        """``n`` pairs: clean images x0, and what the corruption made of them."""
        x0 = self.images.draw(n, generator)[0]
        if self.device is not None:
            x0 = x0.to(self.device)
        source = self.corruption(x0, generator)
        xT = source.xT if isinstance(source, Source) else source
        if not isinstance(xT, Tensor) or xT.shape != x0.shape:
            given = tuple(xT.shape) if isinstance(xT, Tensor) else type(xT).__name__
            raise ValueError(
                f"{self.corruption!r} made {given} of {tuple(x0.shape)}; a corrupted image has the clean one's shape: "
                "enlarge it again, or repeat its channels with expand_as(x0)"
            )
        return x0, source

    def sources(self, n: int, generator: torch.Generator | None = None) -> Tensor | Source:
        """``n`` corrupted images alone: what a distillation may see."""
        return self.draw(n, generator)[1]
