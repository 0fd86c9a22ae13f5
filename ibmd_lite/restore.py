"""A student as a tool: ``python -m ibmd_lite.restore STUDENT FOLDER OUT`` restores a folder of images.

Lives here: ``restored``, one image; ``Restoration``, a folder, which goes on where it was after a crash; the command.
Imports torch, ``export``, ``manifest``, ``tiling``, the reading of images and the training files.  onnxruntime and
Pillow load when used.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from ibmd_lite.data.decoding import rgb
from ibmd_lite.data.listing import Entry, few, listed, passed_over, told
from ibmd_lite.export import OnnxModel
from ibmd_lite.manifest import Manifest, State
from ibmd_lite.tiling import Tiling, tiled
from ibmd_lite.training.files import writing

__all__ = ["Restoration", "Restored", "Tiling", "main", "restored", "tiled"]

Image = UInt8[Tensor, "channels height width"]


def restored(
    model: OnnxModel,
    image: Image,
    generator: torch.Generator,
    *,
    mask: UInt8[Tensor, "height width"] | None = None,
    label: int | None = None,
    tiling: Tiling | None = None,
) -> Image:
    """One image of any size through an exported student: padded, cut where it is large, and back to bytes.

    The answer has the size of the image.  What was shrunk must be enlarged before, as the student's corruption did.
    The image is reflected at its right and lower border up to what the network's size must be a multiple of, and to
    the size of the network where that is fixed.  mask: above 127 in the hole, which is filled as the file says: with
    noise of N(0, 1), as ``data.Inpainting`` does, or with zeros.  All noise is drawn from the generator for the whole
    image.  label: the class, where the student wants one.

    Raises:
        ValueError: no student of images, a mask or label too much or too little, a mask of another size, a label that
            the student does not know, an image of other channels.
    """
    shapes = {name: about["shape"] for name, about in model.about["inputs"].items()}
    _check_student(model, masks=mask is not None, label=label)
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
        xT = inputs["xT"]
        zeros = model.about.get("hole") == "zeros"  # files from before it was told have noise
        filling = torch.zeros_like(xT) if zeros else torch.randn(xT.shape, generator=generator)
        inputs["xT"] = torch.where(inputs["mask"] > 0.5, filling, xT)
    if "z" in shapes:
        inputs["z"] = torch.randn((1, shapes["z"][1], *padded), generator=generator)
    call: Callable[..., Tensor] = model if label is None else partial(_labelled, model, label)
    x0 = tiled(call, inputs, tiling)[0, :, : image.shape[1], : image.shape[2]]
    return (255 * ((x0 - low) / (high - low)).clamp(0, 1)).round().byte()


@dataclass(frozen=True)
class Restored:
    """One image: its name in the folder, and what is wrong where it could not be restored."""

    name: str
    fault: str | None = None


class Restoration:
    """A folder of images on its way through a student; ``for image in restoration.images()`` does the work.

    Every result is a PNG of the image's name and folder, eight bits a channel, whole or not there at all.  What is
    there from the same student, folder and options is left alone, so a run that was killed goes on.  The noise
    of an image is drawn from the seed and its bytes: its answer depends on no other image.

    ``left`` are the images to restore, ``there`` counts the results that are there already, ``changed`` names the
    images (or masks) that are others than their results were made of, which stay as they are, and ``passed_over``
    names the files in the folder that are no images by their endings.

    Args:
        student: an ONNX file of ``export_onnx``.
        folder: JPEG, PNG and WebP images, in folders or not; see ``data.decoding.rgb`` for what becomes of their modes.
        out: the folder of the results: new, empty, or that of the run to go on with.
        masks: for inpainting, a folder of images of the same names, white in the hole.
        label: the class of all images, for a student that wants one.

    Raises:
        FileNotFoundError: no student, no folder.
        ImportError: Pillow or onnxruntime is not installed.
        ValueError: a seed below 0, a student that this cannot drive, such as one of codes, a mask or label too much or
            too little, no images, two that would get one name, an ``out`` that holds other files or lies in the folder
            (or the folder in it), a manifest in it that cannot be read.
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
        label: int | None = None,
    ) -> None:
        if importlib.util.find_spec("PIL") is None:
            raise ImportError("Pillow is needed for image files: pip install 'ibmd_lite[images,export]'")
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed is {seed}; expected a whole number from 0 to 2^63 - 1")
        self.folder, self.out, self.seed, self.label = Path(folder), Path(out), seed, label
        if Path(student).suffix == ".safetensors":
            raise ValueError(
                f"{student} holds weights without their network: load them with Student.load and write the student "
                "with ibmd_lite.export.export_onnx"
            )
        self.model = OnnxModel.read(student)
        _check_student(self.model, masks=masks is not None, label=label)
        _check_channels(self.model)
        self.tiling = _fitting(tiling or Tiling(), self.model)
        entries = _images(self.folder)
        self.masks = None if masks is None else (Path(masks), {_stem(entry): entry for entry in _images(Path(masks))})
        self._check_names(entries)
        with open(student, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        said = {"student": digest, "folder": str(self.folder.resolve()), "seed": seed, **asdict(self.tiling)}
        said |= {"masks": None if masks is None else str(Path(masks).resolve()), "label": label}
        self._check_place()
        self.manifest = Manifest.of(self.out, said)
        results = {entry.name: self._target(entry) for entry in entries}
        states = {entry.name: self._state(entry) for entry in entries}
        there = {name for name, result in results.items() if result.is_file()}
        changed = {name for name in there if self.manifest.changed(name, states[name], results[name])}
        self.left = [entry for entry in entries if entry.name not in there]
        self.there, self.changed = len(there) - len(changed), sorted(changed)
        self.passed_over = passed_over(self.folder)
        self.manifest.keep({name: state for name, state in states.items() if name not in changed})
        for unfinished in self.out.rglob(".*.part"):  # left by a run that was killed while writing
            unfinished.unlink(missing_ok=True)

    def images(self) -> Iterator[Restored]:
        """Restore what is left, image by image; one that cannot be restored is told of and stops nothing."""
        for entry in self.left:
            target = self._target(entry)
            if target.is_dir():
                yield Restored(entry.name, f"{target} is a folder, where the result belongs: move it away")
                continue
            try:
                data, found = self._opened(entry)
                image, profile, mask, generator = self._read(entry, data)
            except MemoryError:
                raise
            except Exception as error:  # what a damaged file raises depends on where the damage is
                yield Restored(entry.name, told(error))
                continue
            answer = restored(self.model, image, generator, mask=mask, label=self.label, tiling=self.tiling)
            self.manifest.keep({entry.name: self._state(found)})  # news where it changed since the listing
            with writing(target) as temporary:
                _picture(answer).save(temporary, format="PNG", icc_profile=profile)
            yield Restored(entry.name)

    def _opened(self, entry: Entry) -> tuple[bytes, Entry]:
        """The bytes of a file, and the entry as it is now."""
        with open(self.folder / entry.place, "rb") as file:
            data, status = file.read(), os.fstat(file.fileno())
        return data, replace(entry, size=status.st_size, stamp=status.st_mtime_ns)

    def _read(self, entry: Entry, data: bytes) -> tuple[Image, bytes | None, Tensor | None, torch.Generator]:
        channels = self.model.about["inputs"]["xT"]["shape"][1]
        image, profile = _pixels(data, channels), _profile(data)
        drawn = hashlib.blake2b(data, digest_size=8, salt=self.seed.to_bytes(8, "little"))
        generator = torch.Generator().manual_seed(int.from_bytes(drawn.digest(), "little"))
        if self.masks is None:
            return image, profile, None, generator
        folder, known = self.masks
        if _stem(entry) not in known:
            raise ValueError(f"{folder} has no mask of its name")
        try:
            mask = _pixels((folder / known[_stem(entry)].place).read_bytes(), 1)[0]
        except (OSError, ValueError, SyntaxError) as error:
            raise ValueError(f"its mask: {told(error)}") from error
        if mask.shape != image.shape[1:]:
            raise ValueError(f"its mask is {_size(mask)}, the image {_size(image)}")
        return image, profile, mask, generator

    def _state(self, entry: Entry) -> State:
        """Of an image and its mask."""
        mask = None if self.masks is None else self.masks[1].get(_stem(entry))
        return [number for file in (entry, mask) if file is not None for number in (file.size, file.stamp)]

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
        results = {f"{stem}.png": name for stem, name in first.items()}
        for entry in entries:
            for folder in PurePosixPath(entry.name.casefold()).parents:
                if str(folder) in results:
                    raise ValueError(
                        f"{results[str(folder)]} would be written to {self.out / folder}, a folder of the result of "
                        f"{entry.name}: rename one of them"
                    )

    def _check_place(self) -> None:
        inner, outer = self.out.resolve(), self.folder.resolve()
        if inner == outer or inner.is_relative_to(outer) or outer.is_relative_to(inner):
            raise ValueError(f"{self.out} and {self.folder} lie one in the other: name a folder beside it for results")


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 where all images are restored as they are now, 1 where some are not, 2 if nothing was begun."""
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
    parser.add_argument("--label", type=int, metavar="N", help="for a student of classes: that of all images, from 0")
    parser.add_argument("--tile", type=int, default=default.tile, help="larger images are cut (default %(default)s)")
    parser.add_argument("--overlap", type=int, default=default.overlap, help="of tiles (default %(default)s pixels)")
    parser.add_argument("--batch", type=int, default=default.batch, help="tiles at once (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default %(default)s)")
    given = parser.parse_args(arguments)
    try:
        tiling = Tiling(given.tile, given.overlap, given.batch)
        options: dict[str, Any] = {"seed": given.seed, "masks": given.mask, "label": given.label}
        run = Restoration(given.student, given.folder, given.out, tiling=tiling, **options)
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
    print(f"{done} restored, {run.there} were there already, {faults} could not be restored; results in {run.out}")
    if run.changed:
        print(
            f"{len(run.changed)} changed since they were restored: delete their results to restore them again "
            f"({few(run.changed)})"
        )
    if run.passed_over:
        kinds = sorted({Path(name).suffix.lower() or Path(name).name for name in run.passed_over})
        count = len(run.passed_over)
        print(f"{count} file{'s' * (count > 1)} passed over: only JPEG, PNG and WebP are read, not {few(kinds)}")
    return 1 if faults or run.changed else 0


def _watched(run: Restoration) -> int:
    """Restore with a progress bar; how many images could not be restored."""
    from tqdm import tqdm

    faults = 0
    for image in tqdm(run.images(), total=len(run.left), unit=" images"):
        if image.fault:
            faults += 1
            tqdm.write(f"{image.name}: {image.fault}", file=sys.stderr)
    return faults


def _check_student(model: OnnxModel, *, masks: bool, label: int | None) -> None:
    inputs = model.about["inputs"]
    if model.about["kind"] != "student" or len(inputs["xT"]["shape"]) != 4:
        raise ValueError(f"a student of images is wanted; this file is {model.about['words']}")
    if masks != ("mask" in inputs):
        wish = "fills holes: name their --mask folder" if "mask" in inputs else "takes no mask: leave --mask out"
        raise ValueError(f"this student {wish}")
    hole = model.about.get("hole", "noise")
    if masks and hole not in ("noise", "zeros"):
        raise ValueError(f"this student wants {hole!r} in a hole, which this version of ibmd_lite does not know")
    if "label" not in inputs:
        if label is not None:
            raise ValueError("this student takes no class label: leave --label out")
        return
    classes = inputs["label"].get("classes")  # files from before it was told, and networks that do not say
    known = "0 or more" if classes is None else f"0 to {classes - 1}"
    if label is None:
        raise ValueError(f"this student wants a class label: name that of all these images with --label ({known})")
    if label < 0 or (classes is not None and label >= classes):
        raise ValueError(f"the label is {label}; this student knows {known}")


def _check_channels(model: OnnxModel) -> None:
    channels = model.about["inputs"]["xT"]["shape"][1]
    if channels not in (1, 3):
        raise ValueError(
            f"this student takes {channels} channels, and photographs have 3, or 1 in grey: it is one of an "
            "autoencoder's codes, or of other data. For codes, encode and decode around it in Python: "
            "latent.images(model(xT=latent.codes(x), ...)) with its ibmd_lite.latent.Latent and "
            "ibmd_lite.export.OnnxModel; see 'A bridge between codes' in the page 'Larger images, and what they cost'"
        )


def _labelled(model: OnnxModel, label: int, **inputs: Tensor) -> Tensor:
    kind = getattr(torch, model.about["inputs"]["label"]["type"])
    return model(**inputs, label=torch.full((len(inputs["xT"]),), label, dtype=kind))


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
