"""Images of one's own: a folder or a zip of them, decoded once and kept as bytes.

Lives here: `Images`, and `UnitBatches`, which shuffles bytes and hands out numbers.  Imports torch, the training
streams and its neighbours; Pillow loads when a file is first decoded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ibmd_lite.data.decoding import Damaged, Decoded, Fit, read, to_unit
from ibmd_lite.data.listing import Entry, arranged
from ibmd_lite.training.streams import Shuffled

__all__ = ["Images", "UnitBatches"]


class UnitBatches(Shuffled):
    """`training.Shuffled` rows, of which bytes become numbers in [-1, 1] batch by batch; the rest stays as it is."""

    def __next__(self) -> Tensor | tuple[Tensor, ...]:
        rows = super().__next__()
        if isinstance(rows, Tensor):
            return to_unit(rows)
        return tuple(to_unit(x) if x.dtype == torch.uint8 else x for x in rows)


@dataclass(frozen=True, eq=False)
class Images:
    """Square images of one size in memory, as bytes.

    Args:
        pixels: 0 to 255; three channels, or one (`fashion_mnist`). Do not write into them.
        labels: each image's class, by its place in ``classes``.
        classes: names of the classes, sorted for `read`.
        names: of the images, relative, with forward slashes, sorted.
        skipped: names of the images that were left out because they are damaged.

    Raises:
        TypeError: pixels that are no bytes.
        ValueError: shapes that do not belong together.
    """

    pixels: UInt8[Tensor, "n channels size size"]
    labels: Int[Tensor, "n"]
    classes: tuple[str, ...]
    names: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8:
            raise TypeError(f"pixels are {self.pixels.dtype}; expected torch.uint8, 0 to 255")
        n, shape = len(self.names), tuple(self.pixels.shape)
        if len(shape) != 4 or shape[0] != n or shape[2] != shape[3] or self.labels.shape != (n,) or n == 0:
            raise ValueError(
                f"pixels have shape {shape}, labels {tuple(self.labels.shape)}, and there are {n} names; "
                "expected (n, channels, size, size), (n,) and n of them, n at least 1"
            )

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def read(
        cls,
        path: str | os.PathLike,
        *,
        size: int,
        split: str | None = None,
        fit: Fit = "crop",
        damaged: Damaged = "refuse",
        cache: bool = True,
    ) -> Images:
        """The JPEG, PNG and WebP images of a folder or a zip (which is not extracted).

        Layouts: ``split/class/file``, ``class/file``, ``split/file`` (folders named train, val, test and the like, or
        as ``split`` says), or files alone; a top folder that all files share does not count, hidden files and files
        of other kinds are passed over.  Classes are those of all splits, so that labels mean the same in each.

        Every image becomes RGB: transparency on white, upright as its EXIF says, sixteen bits scaled to eight.  One
        of ``size`` x ``size`` is then left as it is.

        Args:
            path: the folder or the zip.
            size: height and width in pixels.
            split: which one; may be left out where there is one or none.
            fit: ``"crop"`` scales the short side to ``size`` and takes the centre, ``"resize"`` scales height and
                width each to ``size``; both with Pillow's LANCZOS filter. ``"exact"`` scales nothing and counts images
                of another size as damaged: for corrupted images, to which scaling would be a second corruption.
            damaged: images that cannot be decoded are an error that names and counts them (``"refuse"``), or are
                left out with a warning and named in ``skipped`` (``"skip"``).
            cache: keep the pixels in `cache_folder` under a key made of the path, of the files' names, sizes and times
                (in a zip: checksums), of ``size`` and of ``fit``, and take them from there the next time.

        Raises:
            FileNotFoundError: nothing is at ``path``.
            ValueError: no image, an unclear layout, no such split, damaged images, a size or fit that there is not.
        """
        entries, classes = arranged(path, split)
        return cls.of(entries, classes, read(path, entries, size=size, fit=fit, damaged=damaged, cache=cache))

    @classmethod
    def of(cls, entries: Sequence[Entry], classes: tuple[str, ...], result: Decoded) -> Images:
        """What was decoded of a listing, with the listing's names and classes."""
        number = {kind: label for label, kind in enumerate(classes)}
        return cls(
            result.pixels,
            torch.tensor([number[entries[place].kind] for place in result.places]),
            classes,
            tuple(entries[place].name for place in result.places),
            tuple(entries[place].name for place in result.faults),
        )

    def draw(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n channels size size"], Int[Tensor, "n"]]:
        """``n`` images in [-1, 1] and their labels, each drawn from all of them: for `training.Draws`.

        Raises:
            ValueError: fewer than one image asked for.
        """
        index = self._index(n, generator)
        return to_unit(self.pixels[index]), self.labels[index]

    def sources(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n channels size size"]:
        """The images that `draw` gives, alone: where they are corrupted ones, what `Distillation` wants of them."""
        return to_unit(self.pixels[self._index(n, generator)])

    def batches(self, batch: int, seed: int = 0) -> UnitBatches:
        """Endless batches (x0 in [-1, 1], labels), every epoch in a new order, that resume to the bit."""
        return UnitBatches(self.pixels, self.labels, batch=batch, seed=seed)

    def _index(self, n: int, generator: torch.Generator | None) -> Tensor:
        if n < 1:
            raise ValueError(f"n is {n}; expected at least one image")
        return torch.randint(len(self), (n,), generator=generator)
