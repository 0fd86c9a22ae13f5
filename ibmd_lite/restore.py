"""A student as a tool: ``python -m ibmd_lite.restore STUDENT FOLDER OUT`` restores a folder of images.

Lives here: ``tiled``, which lets a network answer a large image in overlapping tiles; ``restored``, one image;
``Restoration``, a folder, which goes on where it was after a crash; the command.
Imports torch, ``export``, the reading of images and the training files.  onnxruntime and Pillow load when used.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ibmd_lite.data.decoding import rgb
from ibmd_lite.data.listing import Entry, few, listed
from ibmd_lite.export import OnnxModel
from ibmd_lite.training.files import writing

__all__ = ["Restoration", "Restored", "Tiling", "main", "restored", "tiled"]

MANIFEST = ".restore.json"
Image = UInt8[Tensor, "channels height width"]


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


def restored(
    model: OnnxModel,
    image: Image,
    generator: torch.Generator,
    *,
    mask: UInt8[Tensor, "height width"] | None = None,
    tiling: Tiling | None = None,
) -> Image:
    """One image of any size through an exported student: padded, cut where it is large, and back to bytes.

    The answer has the size of the image.  What was shrunk must be enlarged before, as the student's corruption did.
    The image is reflected at its right and lower border up to what the network's size must be a multiple of, and to
    the size of the network where that is fixed.  mask: above 127 in the hole, which is filled with noise of N(0, 1),
    as ``data.Inpainting`` does.  All noise is drawn from the generator for the whole image.

    Raises:
        ValueError: a student that takes other inputs than xT, z and mask, a mask too much, too little or of another
            size, an image of other channels.
    """
    shapes = {name: told["shape"] for name, told in model.about["inputs"].items()}
    _check_student(model, masks=mask is not None)
    channels, *sizes = shapes["xT"][1:]
    if image.shape[0] != channels:
        raise ValueError(f"the image has {image.shape[0]} channels, the student takes {channels}")
    if mask is not None and mask.shape != image.shape[1:]:
        raise ValueError(f"the mask is {_size(mask)}, its image {_size(image)}")
    tiling = _fitting(tiling or Tiling(), model)
    fixed = [size if isinstance(size, int) else 0 for size in sizes]
    padded = [
        max(math.ceil(have / model.about["multiple"]) * model.about["multiple"], least)
        for have, least in zip(image.shape[1:], fixed, strict=True)
    ]
    low, high = model.about["values"]
    inputs = {"xT": low + (high - low) * _reflected(image, padded).float()[None] / 255}
    if mask is not None:
        inputs["mask"] = (_reflected(mask[None], padded)[None] > 127).float()
        noise = torch.randn(inputs["xT"].shape, generator=generator)
        inputs["xT"] = torch.where(inputs["mask"] > 0.5, noise, inputs["xT"])
    if "z" in shapes:
        inputs["z"] = torch.randn((1, shapes["z"][1], *padded), generator=generator)
    x0 = tiled(model, inputs, tiling)[0, :, : image.shape[1], : image.shape[2]]
    return (255 * ((x0 - low) / (high - low)).clamp(0, 1)).round().byte()


@dataclass(frozen=True)
class Restored:
    """One image: its name in the folder, and what is wrong with it where it could not be read."""

    name: str
    fault: str | None = None


class Restoration:
    """A folder of images on its way through a student; ``for image in restoration.images()`` does the work.

    Every result is a PNG of the image's name and folder, eight bits a channel, whole or not there at all.  What is
    there from the same student, folder and options is passed over, so a run that was killed goes on.  The noise
    of an image is drawn from the seed and its bytes: its answer depends on no other image.

    Args:
        student: an ONNX file of ``export_onnx``.
        folder: JPEG, PNG and WebP images, in folders or not; see ``data.decoding.rgb`` for what becomes of their modes.
        out: the folder of the results: new, empty, or that of the run to go on with.
        masks: for inpainting, a folder of images of the same names, white in the hole.

    Raises:
        FileNotFoundError: no student, no folder.
        ImportError: Pillow or onnxruntime is not installed.
        ValueError: a seed below 0, a student that this cannot drive, no images, two that would get one name, an
            ``out`` that holds other files or lies in the folder (or the folder in it).
    """

    def __init__(
        self,
        student: str | os.PathLike,
        folder: str | os.PathLike,
        out: str | os.PathLike,
        *,
        tiling: Tiling | None = None,
        seed: int = 0,
        masks: str | os.PathLike | None = None,
    ) -> None:
        if importlib.util.find_spec("PIL") is None:
            raise ImportError("Pillow is needed for image files: pip install 'ibmd_lite[images,export]'")
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed is {seed}; expected a whole number from 0 to 2^63 - 1")
        self.folder, self.out, self.seed = Path(folder), Path(out), seed
        if Path(student).suffix == ".safetensors":
            raise ValueError(
                f"{student} holds weights without their network: load them with Student.load and write the student "
                "with ibmd_lite.export.export_onnx"
            )
        self.model = OnnxModel.read(student)
        _check_student(self.model, masks=masks is not None)
        self.tiling = _fitting(tiling or Tiling(), self.model)
        entries = _images(self.folder)
        self.masks = None if masks is None else (Path(masks), {_stem(entry): entry for entry in _images(Path(masks))})
        self._check_names(entries)
        with open(student, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        said = {"student": digest, "folder": str(self.folder.resolve()), "seed": seed, **asdict(self.tiling)}
        self._claim(said | {"masks": None if masks is None else str(Path(masks).resolve())})
        self.left = [entry for entry in entries if not self._target(entry).exists()]
        self.there = len(entries) - len(self.left)

    def images(self) -> Iterator[Restored]:
        """Restore what is left, image by image; one that cannot be read is told of and stops nothing."""
        for entry in self.left:
            try:
                image, profile, mask, generator = self._read(entry)
            except MemoryError:
                raise
            except Exception as error:  # what a damaged file raises depends on where the damage is
                yield Restored(entry.name, str(error) or type(error).__name__)
                continue
            answer = restored(self.model, image, generator, mask=mask, tiling=self.tiling)
            with writing(self._target(entry)) as temporary:
                _picture(answer).save(temporary, format="PNG", icc_profile=profile)
            yield Restored(entry.name)

    def _read(self, entry: Entry) -> tuple[Image, bytes | None, Tensor | None, torch.Generator]:
        data = (self.folder / entry.place).read_bytes()
        channels = self.model.about["inputs"]["xT"]["shape"][1]
        image, profile = _pixels(data, channels), _profile(data)
        drawn = hashlib.blake2b(data, digest_size=8, salt=self.seed.to_bytes(8, "little"))
        generator = torch.Generator().manual_seed(int.from_bytes(drawn.digest(), "little"))
        if self.masks is None:
            return image, profile, None, generator
        folder, known = self.masks
        if _stem(entry) not in known:
            raise ValueError(f"{folder} has no mask of its name")
        mask = _pixels((folder / known[_stem(entry)].place).read_bytes(), 1)[0]
        if mask.shape != image.shape[1:]:
            raise ValueError(f"its mask is {_size(mask)}, the image {_size(image)}")
        return image, profile, mask, generator

    def _target(self, entry: Entry) -> Path:
        return self.out / PurePosixPath(entry.name).with_suffix(".png")

    def _check_names(self, entries: list[Entry]) -> None:
        first: dict[str, str] = {}
        for entry in entries:
            other = first.setdefault(_stem(entry).casefold(), entry.name)
            if other != entry.name:
                raise ValueError(
                    f"{other} and {entry.name} would both be written to {self._target(entry)}: rename one of them"
                )

    def _claim(self, said: dict[str, Any]) -> None:
        """Make the folder of results this run's, or see that it is."""
        inner, outer = self.out.resolve(), self.folder.resolve()
        if inner == outer or inner.is_relative_to(outer) or outer.is_relative_to(inner):
            raise ValueError(f"{self.out} and {self.folder} lie one in the other: name a folder beside it for results")
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"{self.out} is a file: name a folder for the results")
        manifest = self.out / MANIFEST
        if not manifest.exists():
            found = sorted(path.name for path in self.out.iterdir()) if self.out.exists() else []
            if [name for name in found if not name.startswith(f".{MANIFEST}")]:
                raise ValueError(
                    f"{self.out} holds other files ({few(found)}), and nothing is overwritten: name a new or an empty "
                    "folder"
                )
            with writing(manifest) as temporary:
                temporary.write_text(json.dumps(said, indent=1), "utf8")
        told = json.loads(manifest.read_text("utf8"))
        other = [name for name in sorted({*said, *told}) if told.get(name) != said.get(name)]
        if other:
            raise ValueError(
                f"{self.out} holds results of another run (other: {', '.join(other)}): name another folder, give "
                "the options of that run to go on with it, or delete it"
            )
        for unfinished in self.out.rglob(".*.part"):  # left by a run that was killed while writing
            unfinished.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 where all images are restored, 1 where some are not, 2 where nothing was begun."""
    parser = argparse.ArgumentParser(
        prog="python -m ibmd_lite.restore",
        description="Restore a folder of images with an exported student. Each result is a PNG of the same name in the "
        "same place under OUT, upright, eight bits a channel, transparency laid on white. The same command goes on "
        "with a run that was cut off. Nothing is enlarged: a result has the size of its image. A student of "
        "super-resolution takes images of the wanted size, so enlarge small ones first, as its corruption did.",
    )
    default = Tiling()
    parser.add_argument("student", metavar="STUDENT", help="an .onnx file of ibmd_lite.export.export_onnx")
    parser.add_argument("folder", metavar="FOLDER", help="JPEG, PNG and WebP images, in folders or not")
    parser.add_argument("out", metavar="OUT", help="where the results go: a new or an empty folder")
    parser.add_argument("--mask", metavar="FOLDER", help="for inpainting: images of the same names, white in the hole")
    parser.add_argument("--tile", type=int, default=default.tile, help="larger images are cut (default %(default)s)")
    parser.add_argument("--overlap", type=int, default=default.overlap, help="of tiles (default %(default)s pixels)")
    parser.add_argument("--batch", type=int, default=default.batch, help="tiles at once (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default %(default)s)")
    given = parser.parse_args(arguments)
    try:
        tiling = Tiling(given.tile, given.overlap, given.batch)
        run = Restoration(given.student, given.folder, given.out, tiling=tiling, seed=given.seed, masks=given.mask)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        faults = _watched(run)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}; the same command goes on from here", file=sys.stderr)
        return 1
    done = len(run.left) - faults
    print(f"{done} restored, {run.there} were there already, {faults} could not be read; results in {run.out}")
    return 1 if faults else 0


def _watched(run: Restoration) -> int:
    """Restore with a progress bar; how many images could not be read."""
    from tqdm import tqdm

    faults = 0
    for image in tqdm(run.images(), total=len(run.left), unit=" images"):
        if image.fault:
            faults += 1
            tqdm.write(f"{image.name}: {image.fault}", file=sys.stderr)
    return faults


def _check_student(model: OnnxModel, *, masks: bool) -> None:
    inputs = model.about["inputs"]
    if model.about["kind"] != "student" or len(inputs["xT"]["shape"]) != 4:
        raise ValueError(f"a student of images is wanted; this file is {model.about['words']}")
    if "label" in inputs:
        raise ValueError("this student wants a class label for each image, which a folder does not tell")
    if masks != ("mask" in inputs):
        told = "fills holes: name their --mask folder" if "mask" in inputs else "takes no mask: leave --mask out"
        raise ValueError(f"this student {told}")


def _fitting(tiling: Tiling, model: OnnxModel) -> Tiling:
    """The tiling in multiples of what the network takes, or of its one size."""
    multiple, (height, width) = model.about["multiple"], model.about["inputs"]["xT"]["shape"][2:]
    if isinstance(height, int):
        if height != width:
            raise ValueError(f"this student's one size is {height} x {width}; a square, or any size, can be tiled")
        tiling = Tiling(height, min(tiling.overlap, height // 2), tiling.batch)
    tile = max(tiling.tile // multiple, 1) * multiple
    overlap = min(math.ceil(tiling.overlap / multiple), tile // multiple // 2) * multiple
    return Tiling(tile, overlap, tiling.batch)


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


def _reflected(image: Image, size: list[int]) -> Image:
    """The image, continued by its reflection to that height and width, however small it is."""
    import numpy

    below, right = (want - have for want, have in zip(size, image.shape[1:], strict=True))
    return torch.from_numpy(numpy.pad(image.numpy(), ((0, 0), (0, below), (0, right)), mode="reflect"))


def _images(folder: Path) -> list[Entry]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    return listed(folder)


def _stem(entry: Entry) -> str:
    return str(PurePosixPath(entry.name).with_suffix(""))


def _pixels(data: bytes, channels: int) -> Image:
    import numpy

    image = rgb(data) if channels == 3 else rgb(data).convert("L")
    return torch.from_numpy(numpy.array(image)).reshape(image.height, image.width, channels).permute(2, 0, 1)


def _profile(data: bytes) -> bytes | None:
    """The colour profile, where it still holds for the RGB of the answer."""
    from PIL import Image as Pillow

    opened = Pillow.open(BytesIO(data))
    return opened.info.get("icc_profile") if opened.mode in ("RGB", "RGBA") else None


def _picture(image: Image) -> Any:
    from PIL import Image as Pillow

    pixels = image.permute(1, 2, 0).contiguous().numpy()
    return Pillow.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])


def _size(image: Tensor) -> str:
    return f"{image.shape[-1]} x {image.shape[-2]}"


if __name__ == "__main__":
    sys.exit(main())
