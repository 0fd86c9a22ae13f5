"""Pairs of images of one's own: how a paired task of a user comes in.

Lives here: `Pairs`, read from files that hold both halves side by side, or from two folders (or zips) whose files
have the same names.  It is a coupling as the recipes expect one.  Imports torch and its neighbours.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ibmd_lite.data.decoding import Damaged, Fit, read, to_unit
from ibmd_lite.data.images import UnitBatches
from ibmd_lite.data.listing import Entry, arranged, few

__all__ = ["Pairs"]

Batch = Float[Tensor, "n 3 size size"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a target x0 and a source xT in memory, square, of one size, as bytes.

    Args:
        x0: the targets, 0 to 255. Do not write into them.
        xT: the sources, row by row the partners of ``x0``.
        names: of the pairs, relative, with forward slashes, sorted.
        skipped: names of the pairs that were left out because an image of them is damaged.

    Raises:
        TypeError: pixels that are no bytes.
        ValueError: shapes that do not belong together.
    """

    x0: UInt8[Tensor, "n 3 size size"]
    xT: UInt8[Tensor, "n 3 size size"]
    names: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.x0.dtype != torch.uint8 or self.xT.dtype != torch.uint8:
            raise TypeError(f"x0 is {self.x0.dtype} and xT {self.xT.dtype}; expected torch.uint8 for both, 0 to 255")
        if self.x0.shape != self.xT.shape or self.x0.ndim != 4 or not 0 < len(self.x0) == len(self.names):
            raise ValueError(
                f"x0 has shape {tuple(self.x0.shape)}, xT {tuple(self.xT.shape)}, and there are {len(self.names)} "
                "names; expected (n, 3, size, size) twice and n of them, n at least 1"
            )

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def side_by_side(
        cls,
        path: str | os.PathLike,
        *,
        size: int,
        source: Literal["left", "right"] = "left",
        split: str | None = None,
        half: tuple[int, int] | None = None,
        fit: Fit = "crop",
        damaged: Damaged = "refuse",
        cache: bool = True,
    ) -> Pairs:
        """Pairs whose two images stand side by side in one file, as pix2pix and its data sets have them.

        Args:
            path: a folder or a zip; layouts, decoding and cache are those of `Images.read`.
            size: height and width of the images that are wanted, in pixels.
            source: which half is xT; in edges2handbags the drawing is on the left.
            split: which one; may be left out where there is one or none.
            half: height and width that a half has in the file; by default every half must be square.
            fit, damaged, cache: as for `Images.read`; each half is fitted by itself.

        Raises:
            FileNotFoundError: nothing is at ``path``.
            ValueError: files of odd width or whose halves have another shape, by name; and what `Images.read` refuses.
        """
        if source not in ("left", "right"):
            raise ValueError(f"source is {source!r}; expected 'left' or 'right'")
        entries, _ = arranged(path, split)
        result = read(path, entries, size=size, fit=fit, damaged=damaged, cache=cache, panels=2)
        wrong = [
            f"{entries[place].name} ({width} x {height})"
            for place, (height, width) in zip(result.places, result.sizes.tolist(), strict=True)
            if width % 2 or (height, width // 2) != (half or (height, height))
        ]
        if wrong:
            told = "square: give half=(height, width) if they are not" if half is None else f"{half[1]} x {half[0]}"
            raise ValueError(
                f"{len(wrong)} of {len(entries)} files of {path} are no pairs side by side: {few(wrong)} (width x "
                f"height); expected an even width and halves that are {told}"
            )
        left, right = result.pixels[:, :3], result.pixels[:, 3:]
        x0, xT = (right, left) if source == "left" else (left, right)
        names = tuple(entries[place].name for place in result.places)
        return cls(x0, xT, names, tuple(entries[place].name for place in result.faults))

    @classmethod
    def parallel(
        cls,
        x0: str | os.PathLike,
        xT: str | os.PathLike,
        *,
        size: int,
        split: str | None = None,
        fit: Fit = "crop",
        damaged: Damaged = "refuse",
        cache: bool = True,
    ) -> Pairs:
        """Pairs from two folders or zips: partners have the same relative name, suffixes aside.

        Args:
            x0: folder or zip of the targets; layouts, decoding and cache are those of `Images.read`.
            xT: folder or zip of the sources.
            size: height and width of the images that are wanted, in pixels.
            split: of both; may be left out where there is one or none.
            fit, damaged, cache: as for `Images.read`; a pair is left out if either image is damaged.

        Raises:
            FileNotFoundError: nothing is at ``x0`` or ``xT``.
            ValueError: images without a partner, partners of different sizes, two images of one name, all by name;
                and what `Images.read` refuses.
        """
        targets, sources = _by_stem(x0, arranged(x0, split)[0]), _by_stem(xT, arranged(xT, split)[0])
        for path, other, alone in [
            (x0, xT, targets.keys() - sources.keys()),
            (xT, x0, sources.keys() - targets.keys()),
        ]:
            if alone:
                found = targets if path is x0 else sources
                named = sorted(found[stem].name for stem in alone)
                raise ValueError(
                    f"{len(named)} of {len(found)} images of {path} have no partner in {other}: {few(named)}; "
                    "partners have the same relative name, suffixes aside: add them, or remove these"
                )
        stems = sorted(targets)
        target = read(x0, [targets[s] for s in stems], size=size, fit=fit, damaged=damaged, cache=cache)
        source = read(xT, [sources[s] for s in stems], size=size, fit=fit, damaged=damaged, cache=cache)
        places = sorted(set(target.places) & set(source.places))
        if not places:
            raise ValueError(f"every pair of {x0} and {xT} has a damaged image; no pair is left")
        of_target, of_source = _rows(target.places, places), _rows(source.places, places)
        differ = (target.sizes[of_target] != source.sizes[of_source]).any(dim=1)
        wrong = [targets[stems[place]].name for place, differs in zip(places, differ.tolist(), strict=True) if differs]
        if wrong:
            raise ValueError(
                f"{len(wrong)} of {len(places)} pairs of {x0} and {xT} are of different sizes: {few(wrong)}; "
                "scale one to the other first"
            )
        return cls(
            _taken(target.pixels, of_target),
            _taken(source.pixels, of_source),
            tuple(targets[stems[place]].name for place in places),
            tuple(targets[stem].name for place, stem in enumerate(stems) if place not in set(places)),
        )

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Batch, Batch]:
        """``n`` pairs (x0, xT) in [-1, 1], each drawn from all of them: for `training.Draws`."""
        index = self._index(n, generator)
        return to_unit(self.x0[index]), to_unit(self.xT[index])

    def sources(self, n: int, generator: torch.Generator | None = None) -> Batch:
        """``n`` sources xT alone, the same that `draw` gives: distillation sees no target."""
        return to_unit(self.xT[self._index(n, generator)])

    def batches(self, batch: int, seed: int = 0) -> UnitBatches:
        """Endless batches (x0, xT) in [-1, 1], every epoch in a new order, that resume to the bit."""
        return UnitBatches(self.x0, self.xT, batch=batch, seed=seed)

    def _index(self, n: int, generator: torch.Generator | None) -> Tensor:
        if n < 1:
            raise ValueError(f"n is {n}; expected at least one pair")
        return torch.randint(len(self), (n,), generator=generator)


def _by_stem(path: str | os.PathLike, entries: Sequence[Entry]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in entries:
        stem = entry.name.rpartition(".")[0]
        if stem in found:
            raise ValueError(
                f"{found[stem].name} and {entry.name} in {path} differ in their suffix alone; remove one of the two"
            )
        found[stem] = entry
    return found


def _rows(kept: Sequence[int], places: Sequence[int]) -> Tensor:
    row = {place: row for row, place in enumerate(kept)}
    return torch.tensor([row[place] for place in places])


def _taken(pixels: Tensor, rows: Tensor) -> Tensor:
    """Those rows; the tensor itself, not a copy, where they are all."""
    return pixels if len(rows) == len(pixels) else pixels[rows]
