"""From image files to bytes of colour, and from those to numbers in [-1, 1].

Lives here: the decoding of one file, of many in threads (Pillow lets other threads run while it decodes), and what
is told of files that cannot be decoded.  Imports torch and its neighbours `listing` and `cache`; Pillow and numpy load
when a file is first decoded.
"""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ibmd_lite.data.cache import keep, kept
from ibmd_lite.data.listing import Entry, few, opened, told

if TYPE_CHECKING:
    from numpy import ndarray
    from PIL import Image

__all__ = ["LARGEST_IMAGE", "Damaged", "Decoded", "Fit", "decoded", "read", "rgb", "to_unit"]

Fit = Literal["crop", "resize", "exact"]
Damaged = Literal["refuse", "skip"]

LARGEST_IMAGE = 2**26
"""Pixels: an image that claims more than 67 million counts as damaged before any is decoded."""

_VERSION = 1  # of what is kept in the cache: raise it whenever the same file would decode to other pixels


def to_unit(pixels: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Bytes 0..255 to [-1, 1]."""
    return pixels.float() / 127.5 - 1


def as_bytes(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """What a file would hold of images in [-1, 1]."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte()


@dataclass(frozen=True, eq=False)
class Decoded:
    """What was decoded of a listing.

    Args:
        pixels: of the images that could be decoded.
        sizes: their heights and widths in the files.
        faults: what is wrong with the others, by place in the listing.
        lasting: whether the same files would give the same again; not where one could not be opened.
    """

    pixels: UInt8[Tensor, "n channels size size"]
    sizes: Int[Tensor, "n 2"]
    faults: dict[int, str]
    lasting: bool = True

    @property
    def places(self) -> list[int]:
        """Each decoded image's place in the listing."""
        return [place for place in range(len(self.pixels) + len(self.faults)) if place not in self.faults]


def rgb(data: bytes) -> Image.Image:
    """The image in a JPEG, PNG or WebP file as RGB, eight bits a channel, upright as its EXIF says.

    Transparency is laid on white, sixteen bits are scaled to eight, CMYK and palettes are converted; colour profiles
    are not applied.  JPEG and WebP carry no checksum: damage within them that leaves something to decode is not seen.

    Raises:
        OSError, ValueError, SyntaxError: Pillow's, where the data are damaged, truncated or of another kind.
    """
    import numpy
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        image: Image.Image = Image.open(BytesIO(data), formats=("JPEG", "PNG", "WEBP"))
    except UnidentifiedImageError:
        raise ValueError("no JPEG, PNG or WebP image") from None
    if image.width * image.height > LARGEST_IMAGE:
        raise ValueError(f"claims {image.width} x {image.height} pixels, more than {LARGEST_IMAGE:,}")
    if image.format == "PNG":
        image.verify()  # checksums, which decoding ignores: a half written file would come back half black
        image = Image.open(BytesIO(data), formats=("PNG",))
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # sixteen bits of grey
        grey = numpy.asarray(image).astype(numpy.int64).clip(0, 65535)
        return Image.fromarray(((grey + 128) // 257).astype(numpy.uint8)).convert("RGB")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return image if image.mode == "RGB" else image.convert("RGB")


def read(
    path: str | os.PathLike,
    entries: Sequence[Entry],
    *,
    size: int,
    fit: Fit,
    damaged: Damaged,
    cache: bool,
    panels: int = 1,
) -> Decoded:
    """Decode a listing, or take it from the cache.

    ``"crop"`` scales the short side to ``size`` and takes the central square, ``"resize"`` scales both sides; either
    with Pillow's LANCZOS filter, and not at all where nothing is to be scaled.  ``"exact"`` scales nothing: an image
    of another size counts as damaged.
    With ``panels`` each image is first cut into that many of equal width, whose channels follow one another.

    Raises:
        ValueError: a size below 1, an unknown fit or rule for damage, damaged images that are to be refused, no image
            that could be decoded.
    """
    if size < 1:
        raise ValueError(f"size is {size}; expected at least one pixel")
    if fit not in ("crop", "resize", "exact"):
        raise ValueError(f"fit is {fit!r}; expected 'crop', 'resize' or 'exact'")
    if damaged not in ("refuse", "skip"):
        raise ValueError(f"damaged is {damaged!r}; expected 'refuse' or 'skip'")
    key = _key(Path(path), entries, size, fit, panels)
    found = _from_cache(key, len(entries), (3 * panels, size, size)) if cache else None
    result = found or decoded(path, entries, size, fit, panels)
    if cache and found is None and result.lasting:
        about = {"faults": {str(place): fault for place, fault in result.faults.items()}}
        keep(key, about, {"pixels": result.pixels, "sizes": result.sizes})
    if result.faults:
        _tell_faults(path, entries, result.faults, damaged)
    return result


def decoded(path: str | os.PathLike, entries: Sequence[Entry], size: int, fit: Fit, panels: int = 1) -> Decoded:
    """Decode a listing in as many threads as there are cores; see `read`.

    Raises ValueError for a Pillow that was told to load truncated images.
    """
    import numpy
    from PIL import ImageFile

    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ValueError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set, so truncated images would come back half grey; set it to False"
        )
    pixels = numpy.empty((len(entries), 3 * panels, size, size), numpy.uint8)
    sizes = numpy.zeros((len(entries), 2), numpy.int64)
    faults: dict[int, str] = {}
    closed: list[int] = []
    threads = max(1, min(_cores(), len(entries)))
    stop = threading.Event()

    def work(first: int) -> None:
        with opened(path) as contents:
            for place in range(first, len(entries), threads):
                if stop.is_set():
                    return
                try:
                    data = contents(entries[place])
                except (zipfile.BadZipFile, zlib.error, EOFError) as error:  # of one entry, not of the whole zip
                    faults[place] = str(error)
                    continue
                except OSError as error:
                    if not Path(path).is_dir():
                        raise
                    faults[place] = told(error)
                    closed.append(place)
                    continue
                try:
                    image = rgb(data)
                    sizes[place] = image.height, image.width
                    pixels[place] = _fitted(image, size, fit, panels)
                except MemoryError:
                    raise
                except Exception as error:  # what a damaged file raises depends on where the damage is
                    faults[place] = told(error)

    with ThreadPoolExecutor(threads) as pool:
        try:
            for result in [pool.submit(work, first) for first in range(threads)]:
                result.result()
        finally:
            stop.set()
    if faults:
        whole = [place for place in range(len(entries)) if place not in faults]
        pixels, sizes = pixels[whole], sizes[whole]
    return Decoded(torch.from_numpy(pixels), torch.from_numpy(sizes), dict(sorted(faults.items())), not closed)


def _fitted(image: Image.Image, size: int, fit: Fit, panels: int) -> ndarray:
    """The panels of an image, (3 panels, size, size); ValueError if nothing may be scaled and its size is another."""
    import numpy
    from PIL import Image

    if fit == "exact" and image.size != (panels * size, size):
        raise ValueError(f"is {image.width} x {image.height}, not {panels * size} x {size}")
    arrays = []
    for panel in range(panels):
        width, height = image.width // panels, image.height
        part = image if panels == 1 else image.crop((panel * width, 0, (panel + 1) * width, height))
        side = min(width, height)
        if fit == "crop" and side == size:
            left, top = (width - side) // 2, (height - side) // 2
            part = part.crop((left, top, left + side, top + side))
        elif fit == "crop":
            box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
            part = part.resize((size, size), Image.Resampling.LANCZOS, box)
        elif part.size != (size, size):
            part = part.resize((size, size), Image.Resampling.LANCZOS)
        arrays.append(numpy.asarray(part).transpose(2, 0, 1))
    return numpy.concatenate(arrays)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _key(path: Path, entries: Sequence[Entry], size: int, fit: Fit, panels: int) -> str:
    """What the pixels were made from, as a file name."""
    changed = 0 if path.is_dir() else path.stat().st_mtime_ns  # a folder's files have their own times
    made_from = [
        _VERSION,
        str(path.resolve()),
        changed,
        size,
        fit,
        panels,
        *((entry.place, entry.size, entry.stamp) for entry in entries),
    ]
    return hashlib.blake2b(repr(made_from).encode("utf8", "surrogateescape"), digest_size=16).hexdigest()


def _from_cache(key: str, n: int, shape: tuple[int, ...]) -> Decoded | None:
    found = kept(key)
    if found is None:
        return None
    about, tensors = found
    faults = {int(place): fault for place, fault in about["faults"].items()}
    result = Decoded(tensors["pixels"], tensors["sizes"], faults)
    return result if result.pixels.shape == (n - len(faults), *shape) else None


def _tell_faults(path: str | os.PathLike, entries: Sequence[Entry], faults: dict[int, str], damaged: Damaged) -> None:
    named = [f"{entries[place].name} ({fault})" for place, fault in faults.items()]
    summary = f"{len(faults):,} of {len(entries):,} images of {path} cannot be used: {few(named)}"
    if damaged == "refuse":
        raise ValueError(f"{summary}; repair or remove them, or leave them out with damaged='skip'")
    if len(faults) == len(entries):
        raise ValueError(f"{summary}; no image is left")
    warnings.warn(f"{summary}; they are left out", stacklevel=4)
