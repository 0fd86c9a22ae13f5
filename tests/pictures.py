"""Real image files with known pixels, for the tests that read them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy
from PIL import Image


def picture(seed: int, height: int = 8, width: int | None = None) -> numpy.ndarray:
    """Random colours (height, width, 3)."""
    shape = (height, height if width is None else width, 3)
    return numpy.random.default_rng(seed).integers(0, 256, shape, dtype=numpy.uint8)


def save(path: Path, pixels: numpy.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def fill(root: Path, *names: str, size: int = 8) -> Path:
    """A folder of random images, each of its own."""
    for seed, name in enumerate(names):
        save(root / name, picture(seed, size))
    return root


def zipped(root: Path, path: Path) -> Path:
    """A zip of everything in a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(root).as_posix())
    return path
