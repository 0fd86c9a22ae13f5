"""Holes: images of which a part is missing, and the shapes that the missing part can have.

Lives here: ``Inpainting``, a corruption like those of ``corruptions``, and two holes, a centred square and
brush strokes. A hole is any callable that draws masks for a batch of images, 1 where pixels are missing. Imports
torch and the package's ``Source``.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ibmd_lite.data.corruptions import Batch, check_images
from ibmd_lite.model import Source

__all__ = ["BrushStrokes", "CentreHole", "Inpainting"]

Mask = Float[Tensor, "batch 1 height width"]
Hole = Callable[[Batch, torch.Generator | None], Mask]


@dataclass(frozen=True)
class CentreHole:
    """A rectangle in the middle of the image, the same for all images.

    Args:
        side: height and width of the hole as shares of the image's; 1/2 is 128 of 256 pixels. The margin is
            rounded to whole pixels, so the hole is centred in images of odd size too.

    Raises:
        ValueError: a share that is not in (0, 1], an image in which no pixel is left for the hole.
    """

    side: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.side <= 1:
            raise ValueError(f"side is {self.side}; expected a share of the image's side, above 0 and at most 1")

    def __call__(self, x0: Batch, generator: torch.Generator | None = None) -> Mask:
        """One mask per image."""
        height, width = x0.shape[-2:]
        top, left = (round(side * (1 - self.side) / 2) for side in (height, width))
        if 2 * top >= height or 2 * left >= width:
            raise ValueError(f"a hole of {self.side} of the side has no pixel in an image of {height} x {width}")
        mask = x0.new_zeros(len(x0), 1, height, width)
        mask[..., top : height - top, left : width - left] = 1
        return mask


@dataclass(frozen=True)
class BrushStrokes:
    """Strokes of a brush, drawn anew for every image, that cover a share of it drawn from a range.

    Every stroke is a line of four pieces with random turns, which runs back from the image's border. The brush is
    made just as broad as the share demands, so the range is kept to the pixel. All images are drawn at once, on
    the device of x0.

    Args:
        least, most: the share of the image that is missing is uniform between them.
        strokes: how many strokes an image gets; their brushes differ up to three times in breadth.

    Raises:
        ValueError: no range within (0, 1), no stroke, an image with too few pixels to hit the range.
    """

    least: float = 0.1
    most: float = 0.3
    strokes: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.most < 1:
            raise ValueError(f"least and most are {self.least} and {self.most}; expected 0 < least <= most < 1")
        if self.strokes < 1:
            raise ValueError(f"strokes is {self.strokes}; expected at least one")

    def __call__(self, x0: Batch, generator: torch.Generator | None = None) -> Mask:
        """One mask per image."""
        height, width = x0.shape[-2:]
        fewest, most = math.ceil(self.least * height * width), math.floor(self.most * height * width)
        if fewest > most:
            raise ValueError(
                f"no number of pixels of a {height} x {width} image is between {self.least} and {self.most} of it; "
                "widen the range or enlarge the image"
            )
        share = _draw(torch.rand, (len(x0),), x0, generator)
        count = (fewest + share * (most - fewest)).round().long()
        distance = self._distance(x0, generator)
        # The brush that covers `count` pixels reaches as far as the count-th nearest of them.
        reach = distance.flatten(1).sort(dim=1).values.gather(1, count[:, None] - 1)
        return (distance <= reach[..., None]).to(x0.dtype)[:, None]

    def _distance(self, x0: Tensor, generator: torch.Generator | None) -> Float[Tensor, "batch height width"]:
        """Of every pixel to the nearest stroke, in breadths of its brush."""
        height, width = x0.shape[-2:]
        breadth = 0.5 + _draw(torch.rand, (len(x0), self.strokes), x0, generator)
        corners = self._corners(x0, generator)[:, :, :, None, None]
        rows = torch.arange(height, device=x0.device) + 0.5
        columns = torch.arange(width, device=x0.device) + 0.5
        pixels = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)
        nearest = x0.new_full((len(x0), height, width), math.inf)
        for stroke in range(self.strokes):  # one at a time: all at once would need much memory
            for start, end in itertools.pairwise(corners[:, stroke].unbind(1)):
                piece, offset = end - start, pixels - start
                length = piece.square().sum(-1).clamp_min(1e-12)
                part = ((offset * piece).sum(-1) / length).clamp(0, 1)
                away = (offset - part[..., None] * piece).norm(dim=-1)
                nearest = torch.minimum(nearest, away / breadth[:, stroke, None, None])
        return nearest

    def _corners(self, x0: Tensor, generator: torch.Generator | None) -> Float[Tensor, "batch strokes 5 2"]:
        """Where the strokes begin, turn and end, in pixels."""
        size = torch.tensor(x0.shape[-2:], device=x0.device)
        start = size * _draw(torch.rand, (len(x0), self.strokes, 1, 2), x0, generator)
        turn = 0.8 * _draw(torch.randn, (len(x0), self.strokes, 4), x0, generator)
        turn[..., 0] = 2 * math.pi * _draw(torch.rand, (len(x0), self.strokes), x0, generator)
        heading = turn.cumsum(-1)
        length = size.min() * (0.1 + 0.2 * _draw(torch.rand, (len(x0), self.strokes, 4), x0, generator))
        steps = length[..., None] * torch.stack([heading.sin(), heading.cos()], -1)
        path = torch.cat([start, start + steps.cumsum(2)], 2)
        return size - (path.remainder(2 * size) - size).abs()  # folded back at the borders


@dataclass(frozen=True)
class Inpainting:
    """Cut a hole into an image and fill it with noise of N(0, 1).

    The result is a ``Source`` with the mask, 1 in the hole. Its noise is drawn once, here: network, bridge and
    the composition of the answer with the known pixels all take it from ``source.xT``. A second call draws
    other noise and, with brush strokes, another hole. (Distillation draws a second time for the same hole, see
    ``refilled_chain``.)

    Args:
        hole: ``CentreHole()``, ``BrushStrokes()``, or a callable (x0, generator) -> mask of your own.

    Raises:
        TypeError: the hole is not callable.
        ValueError: the hole's mask is not (batch, 1, height, width), or holds other values than 0 and 1.
    """

    hole: Hole = CentreHole()

    def __post_init__(self) -> None:
        if isinstance(self.hole, type) or not callable(self.hole):
            raise TypeError(f"hole is {self.hole!r}; expected CentreHole(), BrushStrokes() or a callable like them")

    def __call__(self, x0: Batch, generator: torch.Generator | None = None) -> Source:
        """The images with their holes, and the masks."""
        check_images(x0)
        mask = Source.of(Source(x0, mask=self.hole(x0, generator))).mask
        assert mask is not None
        noise = _draw(torch.randn, x0.shape, x0, generator)
        return Source(torch.where(mask > 0.5, noise, x0), mask=mask)


def _draw(
    law: Callable[..., Tensor], shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Numbers for `like`, drawn where the generator lives, so that one of the CPU serves images on a GPU."""
    device = like.device if generator is None else generator.device
    return law(shape, generator=generator, device=device).to(like)
