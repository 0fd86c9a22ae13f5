"""Large images in overlapping tiles, whose answers are blended where they overlap.

Lives here: ``Tiling``, how an image is cut; ``tiled``, which cuts, calls and blends.  Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Tiling", "tiled"]


@dataclass(frozen=True)
class Tiling:
    """How a large image is cut.

    Args:
        tile: height and width of a tile in pixels; an image that fits into one is not cut.
        overlap: pixels that neighbouring tiles share; within them one answer fades into the other.  As many as the
            network sees around a pixel, or more, leave hardly a seam; none shows every border.
        batch: tiles of one image that go through the network at once.

    Raises:
        ValueError: a tile or batch below 1, an overlap that is negative or more than half of a tile.
    """

    tile: int = 512
    overlap: int = 32
    batch: int = 1

    def __post_init__(self) -> None:
        if self.tile < 1 or self.batch < 1:
            raise ValueError(f"tile and batch are {self.tile} and {self.batch}; expected at least 1 of each")
        if not 0 <= 2 * self.overlap <= self.tile:
            raise ValueError(f"overlap is {self.overlap}; expected 0 to half of the tile, {self.tile // 2}")


def tiled(
    call: Callable[..., Tensor], inputs: dict[str, Float[Tensor, "1 channels height width"]], tiling: Tiling
) -> Float[Tensor, "1 channels height width"]:
    """``call(**inputs)`` for inputs of one height and width, tile by tile, the answers blended where tiles overlap.

    All inputs are cut alike, the noise too: it must be drawn for the whole image.  Drawn for each tile, it differs
    where two tiles overlap, and their answers with it.  Within an overlap the weights are sin^2 and cos^2.
    """
    height, width = next(iter(inputs.values())).shape[-2:]
    downs, overs = _spans(height, tiling), _spans(width, tiling)
    windows = list(product(downs, overs))
    answer, total = None, torch.zeros(height, width)
    for first in range(0, len(windows), tiling.batch):
        chosen = windows[first : first + tiling.batch]
        cut = {name: torch.cat([x[..., down, over] for down, over in chosen]) for name, x in inputs.items()}
        for (down, over), part in zip(chosen, call(**cut), strict=True):
            weight = torch.outer(_ramp(down, height, tiling.overlap), _ramp(over, width, tiling.overlap))
            answer = torch.zeros(1, len(part), height, width) if answer is None else answer
            answer[..., down, over] += weight * part
            total[down, over] += weight
    assert answer is not None
    return answer / total


def _spans(length: int, tiling: Tiling) -> list[slice]:
    """Tiles along one axis, the last one flush with the end."""
    if length <= tiling.tile:
        return [slice(0, length)]
    stride = tiling.tile - tiling.overlap
    count = math.ceil((length - tiling.tile) / stride) + 1
    starts = [min(index * stride, length - tiling.tile) for index in range(count)]
    return [slice(start, start + tiling.tile) for start in starts]


def _ramp(span: slice, length: int, overlap: int) -> Tensor:
    """Weights of a tile along one axis: 1, and falling to 0 within the overlap with a neighbour."""
    weight = torch.ones(span.stop - span.start)
    rising = torch.sin(math.pi / 2 * (torch.arange(overlap) + 0.5) / max(overlap, 1)).square()
    if span.start > 0:
        weight[:overlap] = rising
    if span.stop < length and overlap:
        weight[-overlap:] = rising.flip(0)
    return weight
