"""Eight colour photographs that installed packages carry: no download, no network.

Lives here: reading them, and drawing training and test crops that share no pixel. Imports torch;
Pillow and numpy load when a photograph is first read. The files come from the wheels of
scikit-image and scikit-learn, whose own notes name their authors and licences.

Every photograph is scaled to a short side of 256 pixels, so that a crop holds something to see. A
box of 128 x 128 pixels of each is held out: test crops lie inside it, training crops stay at least
`MARGIN` pixels away from it. The scaling filter is about two pixels wide, so what a held-out pixel
shows does not reach a training crop either.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ibmd_lite.data.decoding import to_unit

__all__ = ["HELD_OUT", "MARGIN", "NAMES", "Photographs", "held_out_region", "photograph"]

SHORT_SIDE = 256
HELD_OUT_SIDE = 128
MARGIN = 4

_FILES = {
    "astronaut": ("skimage.data", "astronaut.png"),
    "cat": ("skimage.data", "chelsea.png"),
    "coffee": ("skimage.data", "coffee.png"),
    "rocket": ("skimage.data", "rocket.jpg"),
    "motorcycle": ("skimage.data", "motorcycle_left.png"),
    "tissue": ("skimage.data", "ihc.png"),
    "temple": ("sklearn.datasets.images", "china.jpg"),
    "flower": ("sklearn.datasets.images", "flower.jpg"),
}

NAMES: tuple[str, ...] = tuple(_FILES)
"""The photographs' names; a crop's label is its photograph's place in this tuple."""

HELD_OUT: dict[str, tuple[int, int]] = {
    "astronaut": (0, 64),
    "cat": (32, 200),
    "coffee": (48, 192),
    "rocket": (128, 128),
    "motorcycle": (96, 200),
    "tissue": (128, 128),
    "temple": (64, 40),
    "flower": (40, 90),
}
"""Top and left of each photograph's held-out box, in pixels of the scaled photograph."""


@lru_cache(maxsize=len(_FILES))
def photograph(name: str) -> UInt8[Tensor, "3 height width"]:
    """The whole photograph, its shorter side scaled to 256 pixels. Do not write into it.

    Raises:
        ValueError: there is no photograph of that name.
        FileNotFoundError: the installed packages do not carry it.
    """
    import numpy
    from PIL import Image

    if name not in _FILES:
        raise ValueError(f"no photograph is called {name!r}; expected one of {', '.join(NAMES)}")
    package, file_name = _FILES[name]
    resource = files(package) / file_name
    if not resource.is_file():
        raise FileNotFoundError(
            f"the installed {package.split('.')[0]} does not carry {file_name}: install "
            "scikit-image and scikit-learn from their wheels"
        )
    with resource.open("rb") as stream, Image.open(stream) as image:
        scale = SHORT_SIDE / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        pixels = numpy.array(image.convert("RGB").resize(size, Image.Resampling.LANCZOS))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def held_out_region(name: str) -> Float[Tensor, "3 128 128"]:
    """The held-out box of a photograph as one picture, in [-1, 1]."""
    picture = photograph(name)
    top, left = HELD_OUT[name]
    return to_unit(picture[:, top : top + HELD_OUT_SIDE, left : left + HELD_OUT_SIDE])


@dataclass(frozen=True)
class Photographs:
    """Random crops of the photographs; training and test crops share no pixel.

    Args:
        size: height and width of a crop in pixels, 1 to 128.
        split: ``"test"`` draws from inside the held-out boxes, ``"train"`` from everywhere at
            least `MARGIN` pixels away from them.

    Raises:
        ValueError: a size or a split that there is not.
    """

    size: int = 32
    split: Literal["train", "test"] = "train"

    def __post_init__(self) -> None:
        if self.split not in ("train", "test"):
            raise ValueError(f"split is {self.split!r}; expected 'train' or 'test'")
        if not 1 <= self.size <= HELD_OUT_SIDE:
            raise ValueError(f"size is {self.size}; expected 1 to {HELD_OUT_SIDE} pixels")

    def corners(self, name: str) -> Int[Tensor, "positions 2"]:
        """Top and left of every crop that this split may take from a photograph."""
        _, height, width = photograph(name).shape
        top, left = HELD_OUT[name]
        rows = torch.arange(height - self.size + 1)[:, None]
        columns = torch.arange(width - self.size + 1)[None, :]
        if self.split == "test":
            room = HELD_OUT_SIDE - self.size
            allowed = (rows >= top) & (rows <= top + room) & (columns >= left) & (columns <= left + room)
        else:
            reach, end = self.size + MARGIN, HELD_OUT_SIDE + MARGIN
            allowed = (rows <= top - reach) | (rows >= top + end) | (columns <= left - reach) | (columns >= left + end)
        return allowed.nonzero()

    def crops(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n 3 size size"]:
        """``n`` crops in [-1, 1]: see `draw`."""
        return self.draw(n, generator)[0]

    def draw(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n 3 size size"], Int[Tensor, "n"]]:
        """``n`` crops in [-1, 1] and their labels: which photograph, by its place in `NAMES`.

        The photograph is uniform, the place in it uniform among `corners`, and every other crop
        (at random) is mirrored left to right.
        """
        if n < 1:
            raise ValueError(f"n is {n}; expected at least one crop")
        pixels, starts, widths, counts = _index(self)
        labels = torch.randint(len(NAMES), (n,), generator=generator)
        place = (torch.rand(n, generator=generator, dtype=torch.float64) * counts[labels]).long()
        first = starts[labels, place]
        steps = torch.arange(self.size)
        mirrored = torch.rand(n, generator=generator) < 0.5
        columns = torch.where(mirrored[:, None], steps.flip(0), steps)
        rows = steps * widths[labels][:, None]
        crops = pixels[first[:, None, None] + rows[:, :, None] + columns[:, None, :]]
        return to_unit(crops.permute(0, 3, 1, 2)).contiguous(), labels


@lru_cache(maxsize=8)
def _index(source: Photographs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All pixels in one table (pixel, colour); per photograph the crops' first pixels, the width
    of a row and the number of crops."""
    pixels, starts, widths, offset = [], [], [], 0
    for name in NAMES:
        picture = photograph(name)
        corners = source.corners(name)
        pixels.append(picture.flatten(1).T)
        widths.append(picture.shape[2])
        starts.append(offset + corners[:, 0] * picture.shape[2] + corners[:, 1])
        offset += len(pixels[-1])
    counts = torch.tensor([len(start) for start in starts])
    padded = torch.nn.utils.rnn.pad_sequence(starts, batch_first=True)
    return torch.cat(pixels), padded, torch.tensor(widths), counts
