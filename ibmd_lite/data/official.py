"""Public data sets from their publishers: CIFAR-10, Fashion-MNIST, Tiny ImageNet.

Lives here: where each is published and with which checksum, the download (once, through pooch), and the readers of
the three formats, which unpack nothing to the disk and unpickle nothing.  Results on a part of a data set name the
part: ``lists/`` holds the names of its images, and ``subset=True`` selects them from the publisher's archive.
Imports torch, numpy and its neighbours; pooch and Pillow load when used.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import tarfile
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy
import torch

from ibmd_lite.data.cache import VARIABLE, cache_folder, keep, kept
from ibmd_lite.data.decoding import read
from ibmd_lite.data.images import Images
from ibmd_lite.data.listing import few, listed

__all__ = [
    "CIFAR10",
    "FASHION_MNIST",
    "TINY_IMAGENET",
    "Published",
    "cifar10",
    "fashion_mnist",
    "listed_digests",
    "listed_names",
    "tiny_imagenet",
]


@dataclass(frozen=True)
class Published:
    """Files that a publisher offers.

    Args:
        address: of the folder that the files are in; ends with a slash.
        checksums: of the files, by name, as ``"algorithm:hexadecimal digits"``.
    """

    address: str
    checksums: Mapping[str, str]

    def fetch(self, name: str) -> Path:
        """The path of a file of that name, downloaded if it is not there or does not have its checksum.

        Raises:
            ModuleNotFoundError: pooch is not installed.
            OSError: the download failed.
            ValueError: what came has another checksum; it is not kept.
        """
        import pooch

        pooch.get_logger().setLevel("WARNING")  # it would print paths of this machine
        folder = cache_folder() / "downloads"
        url, checksum = self.address + name, self.checksums[name]
        try:
            downloader = pooch.HTTPDownloader(timeout=60, progressbar=True)
            return Path(pooch.retrieve(url, checksum, fname=name, path=folder, downloader=downloader))
        except OSError as error:
            raise OSError(
                f"{url} could not be fetched ({error}); try again later, or put the file into the folder 'downloads' "
                f"of the cache, which the environment variable {VARIABLE} names"
            ) from error
        except ValueError as error:
            raise ValueError(
                f"what {url} sent is not the published file ({checksum} expected), so it was not kept: try again, "
                "and if it stays so, do not use it"
            ) from error


CIFAR10 = Published(
    "https://www.cs.toronto.edu/~kriz/", {"cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530"}
)
"""The binary version: labels and pixels in plain bytes."""

FASHION_MNIST = Published(
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    {
        "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
    },
)

TINY_IMAGENET = Published(
    "http://cs231n.stanford.edu/", {"tiny-imagenet-200.zip": "md5:90528d7ca1a48142e341f4ef8d21d0de"}
)

_CIFAR10_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR10_LARGEST = 10_000 * 3073  # bytes of one of its files
_FASHION_FILES = {"train": "train", "test": "t10k"}
_FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_FASHION_LARGEST = 16 + 60_000 * 28 * 28


def cifar10(
    split: Literal["train", "test"], *, subset: bool | Path = False, cache: bool = True, published: Published = CIFAR10
) -> Images:
    """CIFAR-10 (Krizhevsky, 2009): 32 x 32 photographs of ten classes, 50,000 to train and 10,000 to test.

    Args:
        split: ``"train"`` or ``"test"``.
        subset: only the 1,000 (test: 200) images a class that ``lists/cifar10.txt`` names, or those that a file of
            one's own names in the same form.  The archive has no names, so each listed image is known by its class
            and the first 16 hexadecimal digits of the BLAKE2b digest of its 3072 bytes.
        cache: keep the pixels of a subset in `cache_folder` under a key made of what the list says of the split, and
            take them from there the next time, where every image has the listed digest; the archive is then not needed.
        published: where from.

    Raises:
        ValueError: no such split, an archive of another format, a listed image that is not in it; see also
            `Published.fetch`.
    """
    _check_split(split, _CIFAR10_FILES)
    if subset:
        return _cifar10_subset(split, listed_digests(split, subset), cache, published)
    labels, pixels = _cifar10_records(split, published.fetch("cifar-10-binary.tar.gz"))
    names = [f"{split}/{place:05d}" for place in range(len(labels))]
    return _cifar10_images(torch.from_numpy(pixels.copy()), labels, names)


def _cifar10_subset(split: str, listing: Mapping[str, tuple[str, str]], cache: bool, published: Published) -> Images:
    names = sorted(listing)
    made_from = repr(["cifar10", *((name, *listing[name]) for name in names)])
    key = hashlib.blake2b(made_from.encode(), digest_size=16).hexdigest()
    _, tensors = (kept(key) if cache else None) or ({}, {})
    pixels = tensors.get("pixels")
    if pixels is not None and _digests(pixels.numpy()) == [listing[name][1] for name in names]:
        labels = numpy.array([_CIFAR10_CLASSES.index(listing[name][0]) for name in names])
        return _cifar10_images(pixels, labels, names)
    path = published.fetch("cifar-10-binary.tar.gz")
    labels, records = _cifar10_records(split, path)
    kinds = [_CIFAR10_CLASSES[label] for label in labels]
    places = {known: place for place, known in enumerate(zip(kinds, _digests(records), strict=True))}
    _check_absent([name for name, known in listing.items() if known not in places], len(listing), path)
    order = [places[listing[name]] for name in names]
    images = _cifar10_images(torch.from_numpy(records[order]), labels[order], names)
    if cache:
        keep(key, {}, {"pixels": images.pixels})
    return images


def _cifar10_records(split: str, path: Path) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Labels (n,) and pixels (n, 3072) of a split, in the archive's order."""
    contents = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            if name not in _CIFAR10_FILES[split]:
                continue
            file = archive.extractfile(member) if member.isfile() else None  # a link leads anywhere
            if file is None or not 0 < member.size <= _CIFAR10_LARGEST or member.size % 3073:
                raise ValueError(f"{name} in {path} has {member.size:,} bytes; expected up to 10,000 images of 3,073")
            contents[name] = numpy.frombuffer(file.read(), numpy.uint8).reshape(-1, 3073)
    missing = [name for name in _CIFAR10_FILES[split] if name not in contents]
    if missing:
        raise ValueError(f"{path} does not hold {', '.join(missing)}; expected the binary version of CIFAR-10")
    records = numpy.concatenate([contents[name] for name in _CIFAR10_FILES[split]])
    labels, pixels = records[:, 0], records[:, 1:]
    if labels.max() >= len(_CIFAR10_CLASSES):
        raise ValueError(
            f"{path} has a label {labels.max()}; expected 0 to 9: it is not the binary version of CIFAR-10"
        )
    return labels, pixels


def _cifar10_images(pixels: torch.Tensor, labels: numpy.ndarray, names: Sequence[str]) -> Images:
    classes = torch.from_numpy(labels.astype(numpy.int64))
    return Images(pixels.reshape(-1, 3, 32, 32), classes, _CIFAR10_CLASSES, tuple(names))


def _digests(images: numpy.ndarray) -> list[str]:
    """What a list knows each image by."""
    return [hashlib.blake2b(image.tobytes()).hexdigest()[:16] for image in images]


def fashion_mnist(split: Literal["train", "test"], *, published: Published = FASHION_MNIST) -> Images:
    """Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 28 x 28 grey pictures of ten kinds of clothes; one channel.

    60,000 to train, 10,000 to test.

    Raises:
        ValueError: no such split, files of another format; see also `Published.fetch`.
    """
    _check_split(split, _FASHION_FILES)
    prefix = _FASHION_FILES[split]
    pixels = _idx(published.fetch(f"{prefix}-images-idx3-ubyte.gz"), 3)
    labels = _idx(published.fetch(f"{prefix}-labels-idx1-ubyte.gz"), 1)
    if pixels.shape[1:] != (28, 28) or len(pixels) != len(labels) or labels.max(initial=0) >= len(_FASHION_CLASSES):
        raise ValueError(
            f"the files of Fashion-MNIST hold images {pixels.shape} and {len(labels)} labels up to "
            f"{labels.max(initial=0)}; expected (n, 28, 28) and n labels, 0 to 9"
        )
    return Images(
        torch.from_numpy(pixels[:, None].copy()),
        torch.from_numpy(labels.astype(numpy.int64)),
        _FASHION_CLASSES,
        tuple(f"{split}/{place:05d}" for place in range(len(labels))),
    )


def tiny_imagenet(
    split: Literal["train", "val"],
    *,
    subset: bool | Path = False,
    size: int = 64,
    cache: bool = True,
    published: Published = TINY_IMAGENET,
) -> Images:
    """Tiny ImageNet (Stanford CS231n): 64 x 64 photographs of 200 classes, 100,000 to train and 10,000 to validate.

    The classes are WordNet ids.  The publisher's own test images have no labels and are not offered.

    Args:
        split: ``"train"`` or ``"val"``.
        subset: only the 105 (val: 10) images a class that ``lists/tiny_imagenet.txt`` names, or those that a file
            of one's own names in the same form.
        size: height and width in pixels; other than 64 they are scaled.
        cache: keep the decoded pixels; see `Images.read`.
        published: where from.

    Raises:
        ValueError: no such split, an archive of another format, a listed image that is not in it; see also
            `Published.fetch`.
    """
    _check_split(split, ("train", "val"))
    path = published.fetch("tiny-imagenet-200.zip")
    with zipfile.ZipFile(path) as archive:
        try:
            classes = tuple(sorted(archive.read("tiny-imagenet-200/wnids.txt").decode("ascii").split()))
            notes = archive.read("tiny-imagenet-200/val/val_annotations.txt").decode("ascii")
        except KeyError as error:
            raise ValueError(f"{path} is not the published archive of Tiny ImageNet: {error}") from error
    kinds = dict(line.split("\t")[:2] for line in notes.splitlines())
    entries = []
    for entry in listed(path):
        _, part, *_, file = entry.place.split("/")
        if part == split:
            kind = file.partition("_")[0] if split == "train" else kinds.get(file, "")
            if kind not in classes:
                raise ValueError(f"{entry.place} in {path} is of no class of Tiny ImageNet; the archive is incomplete")
            entries.append(replace(entry, name=f"{split}/{kind}/{file}", kind=kind))
    if subset:
        listing = listed_names(split, subset)
        found = {entry.name for entry in entries}
        _check_absent([name for name in listing if name not in found], len(listing), path)
        entries = [entry for entry in entries if entry.name in listing]
    entries.sort(key=lambda entry: entry.name)
    result = read(path, entries, size=size, fit="crop", damaged="refuse", cache=cache)
    return Images.of(entries, classes, result)


def _idx(path: Path, dimensions: int) -> numpy.ndarray:
    """The array of bytes in a gzipped idx file: two zeros, 8 for bytes, the number of axes, their lengths, the data."""
    with gzip.open(path) as file:
        data = file.read(_FASHION_LARGEST + 1)
    start = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) != start + math.prod(shape):
        raise ValueError(f"{path} is no idx file of bytes with {dimensions} axes and {len(data):,} bytes")
    return numpy.frombuffer(data, numpy.uint8, offset=start).reshape(shape)


def listed_digests(split: str, subset: bool | Path = True) -> dict[str, tuple[str, str]]:
    """CIFAR-10's listed images: name to class and digest.  The list: ``split/class``, then an image a line."""
    found, kind = {}, ""
    for line in _list("cifar10", subset):
        if "/" in line:
            part, _, kind = line.partition("/")
        elif part == split:
            name, digest = line.split()
            found[f"{split}/{kind}/{name}.png"] = (kind, digest)
    return found


def listed_names(split: str, subset: bool | Path = True) -> set[str]:
    """Names of Tiny ImageNet's listed images.  The list: ``split/class`` and the images' numbers, a class a line."""
    return {
        f"{folder}/{folder.partition('/')[2] if split == 'train' else 'val'}_{number}.JPEG"
        for folder, *numbers in map(str.split, _list("tiny_imagenet", subset))
        if folder.partition("/")[0] == split
        for number in numbers
    }


def _list(name: str, subset: bool | Path) -> list[str]:
    source = files("ibmd_lite.data") / "lists" / f"{name}.txt" if subset is True else Path(str(subset))
    return source.read_text("ascii").splitlines()


def _check_split(split: str, known: Collection[str]) -> None:
    if split not in known:
        raise ValueError(f"split is {split!r}; expected {' or '.join(map(repr, known))}")


def _check_absent(absent: Sequence[str], listed_images: int, path: Path) -> None:
    if absent:
        raise ValueError(
            f"{len(absent)} of the {listed_images} listed images are not in {path}: {few(absent)}; "
            "expected the published archive"
        )
