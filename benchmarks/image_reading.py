"""Reading images the first time and again: `python benchmarks/image_reading.py`.

By default 23,000 crops of the photographs as 64 x 64 JPEG files, in a folder and in a zip; with --path a folder or zip
of one's own.  The cache is an empty one each time, the files themselves are in the system's memory.
"""

import argparse
import os
import tempfile
import time
import zipfile
from pathlib import Path

from PIL import Image
from report import keep

from ibmd_lite.data import Images, Photographs
from ibmd_lite.data.cache import VARIABLE


def make(folder: Path, images: int, size: int) -> list[Path]:
    """A folder and a zip of the same JPEG files."""
    crops, labels = Photographs(size).draw(images)
    pixels = ((crops + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    with zipfile.ZipFile(folder / "zip", "w") as archive:
        for place, (crop, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
            name = f"{label}/{place}.jpg"
            path = folder / "folder" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(crop).save(path, quality=90)
            archive.write(path, name)
    return [folder / "folder", folder / "zip"]


def measure(path: Path, size: int, split: str | None) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ[VARIABLE] = cache
        for which in ("first", "second"):
            wall, cpu = time.perf_counter(), time.process_time()
            images = Images.read(path, size=size, split=split)
            images.pixels[:, 0, 0].sum()  # a memory-mapped image is read when it is touched
            rows.append(
                {
                    "source": path.name,
                    "read": which,
                    "images": len(images),
                    "seconds": time.perf_counter() - wall,
                    "processor seconds": time.process_time() - cpu,
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=23_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--path", type=Path)
    parser.add_argument("--split")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [arguments.path] if arguments.path else make(Path(folder), arguments.images, arguments.size)
        rows = [row for path in paths for row in measure(path, arguments.size, arguments.split)]
    keep("image_reading", rows, size=arguments.size)


if __name__ == "__main__":
    main()
