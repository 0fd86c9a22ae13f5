"""What a folder or a zip holds in images, found without unpacking or decoding anything.

Lives here: the listing of image files, the layouts it may have, and the reading of their bytes, which for a
zip happens inside the zip: nothing is extracted.  Imports the standard library alone.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

__all__ = [
    "LARGEST_FILE",
    "SPLITS",
    "SUFFIXES",
    "Entry",
    "arranged",
    "few",
    "listed",
    "opened",
    "passed_over",
    "told",
]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""How the names of image files end, in capitals or not; other files are passed over."""

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing"})
"""Folder names that say what images are for, not what they show."""

LARGEST_FILE = 2**28
"""Bytes: an image file that claims more than 256 MiB is refused before any of it is read."""


@dataclass(frozen=True)
class Entry:
    """One image file.

    Args:
        name: what the image is called: relative, with forward slashes.
        place: its path inside the folder or the zip.
        size: of the file, in bytes; 0 where nobody can tell, as of a link to nothing, which reading then finds out.
        stamp: time of the last change in nanoseconds; in a zip the checksum of the content.
        kind: the class it shows; see `arranged`.
    """

    name: str
    place: str
    size: int
    stamp: int
    kind: str = ""


def listed(path: str | os.PathLike) -> list[Entry]:
    """Every image file of a folder or a zip, by name; hidden files are passed over.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: neither a folder nor a zip, no image in it, a file larger than `LARGEST_FILE`, one name twice.
    """
    path = Path(path)
    if path.is_dir():
        entries = list(_of_folder(path))
    elif zipfile.is_zipfile(path):
        entries = list(_of_zip(path))
    elif path.exists():
        raise ValueError(f"{path} is neither a folder nor a whole zip; give a folder or a zip of images")
    else:
        raise FileNotFoundError(f"there is no folder or zip of images at {path}")
    if not entries:
        raise ValueError(f"{path} holds no image; expected files that end in {', '.join(SUFFIXES)}")
    for entry in entries:
        if entry.size > LARGEST_FILE:
            raise ValueError(
                f"{entry.place} in {path} claims {entry.size:,} bytes; an image file has at most {LARGEST_FILE:,}: "
                "remove it"
            )
    entries.sort(key=lambda entry: entry.name)
    for one, other in pairwise(entries):
        if one.name == other.name:
            raise ValueError(f"{path} holds {one.name} twice; remove one of the two")
    return entries


def arranged(path: str | os.PathLike, split: str | None = None) -> tuple[list[Entry], tuple[str, ...]]:
    """The images of one split with their classes, and the classes of all splits together, sorted.

    Layouts: ``split/class/file``, ``split/file`` (all folders are named as in `SPLITS`, or one of them is
    ``split``), ``class/file``, and files alone; a top folder that all files share does not count unless it names a
    split.  Where no folder names a class, the one class is ``"all"``.

    Raises:
        ValueError: several depths mixed or more than two folders deep, a split that there is not, several
            splits of which none was chosen.
    """
    entries = _without_top(listed(path), split)
    folders = {entry.name: entry.name.split("/")[:-1] for entry in entries}
    depths = {len(parts): name for name, parts in folders.items()}
    if len(depths) > 1:
        raise ValueError(
            f"the images of {path} lie at several depths ({' and '.join(sorted(depths.values()))}); "
            "expected all in split/class/file, or all in class/file, or all in split/file, or no folders at all"
        )
    depth, example = depths.popitem()
    if depth > 2:
        raise ValueError(f"{example} in {path} lies {depth} folders deep; expected split/class/file at most")
    tops = {parts[0] for parts in folders.values() if parts}
    has_splits = depth == 2 or (depth == 1 and (tops <= SPLITS or split in tops))
    has_classes = depth == 2 or (depth == 1 and not has_splits)
    entries = [replace(entry, kind=folders[entry.name][-1] if has_classes else "all") for entry in entries]
    classes = tuple(sorted({entry.kind for entry in entries}))
    if not has_splits:
        if split is not None:
            raise ValueError(f"{path} has no splits, so there is no {split!r}: leave split out")
        return entries, classes
    if split is None and len(tops) > 1:
        raise ValueError(f"{path} has the splits {', '.join(sorted(tops))}: choose one, such as split={min(tops)!r}")
    if split is not None and split not in tops:
        raise ValueError(f"{path} has no split {split!r}; expected one of {', '.join(sorted(tops))}")
    return [entry for entry in entries if split in (None, folders[entry.name][0])], classes


@contextmanager
def opened(path: str | os.PathLike) -> Iterator[Callable[[Entry], bytes]]:
    """A function that reads an entry's bytes; for a zip it holds the zip open, so each thread needs its own."""
    path = Path(path)
    if path.is_dir():
        yield lambda entry: (path / entry.place).read_bytes()
    else:
        with zipfile.ZipFile(path) as archive:
            yield lambda entry: archive.read(entry.place)


def few(names: Sequence[str]) -> str:
    """The first five names, as an error tells them."""
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"


def passed_over(folder: str | os.PathLike) -> list[str]:
    """Names of the files that ``listed`` leaves out for their endings, hidden ones not counted."""
    return sorted(file.relative_to(folder).as_posix() for file in _files(Path(folder)) if not _is_image(file.name))


def told(error: Exception) -> str:
    """What is wrong with a file, without its path and without a number of the system's."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _of_folder(root: Path) -> Iterator[Entry]:
    for file in filter(lambda file: _is_image(file.name), _files(root)):
        name = file.relative_to(root).as_posix()
        try:
            status = file.stat()
        except OSError:  # a link to nothing, or gone meanwhile: reading it is a fault of this one file
            yield Entry(name, name, 0, 0)
        else:
            yield Entry(name, name, status.st_size, status.st_mtime_ns)


def _files(root: Path) -> Iterator[Path]:
    """All files of a folder and its folders that are not hidden."""
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        if len(Path(folder).relative_to(root).parts) > 8:  # a link that leads back up has no end
            raise ValueError(f"{folder} lies more than eight folders deep; expected split/class/file at most")
        yield from (Path(folder, file) for file in files if not file.startswith("."))


def _of_zip(path: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            parts = info.filename.split("/")
            hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
            if not hidden and _is_image(parts[-1]):
                if info.flag_bits & 1:
                    raise ValueError(f"{info.filename} in {path} is encrypted; give a zip without a password")
                yield Entry(info.filename, info.filename, info.file_size, info.CRC)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _without_top(entries: Sequence[Entry], split: str | None) -> list[Entry]:
    """The entries, their names without the one folder that all of them share."""
    tops = {entry.name.partition("/")[0] if "/" in entry.name else "" for entry in entries}
    if len(tops) > 1 or tops & (SPLITS | {split, ""}):
        return list(entries)
    return [replace(entry, name=entry.name.partition("/")[2]) for entry in entries]
