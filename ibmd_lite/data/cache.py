"""Files kept between runs: decoded images and downloads.  The folder may be deleted at any time.

Lives here: where the folder is, and tensors kept in it under a key that says what they were made from.
Imports torch, safetensors and the training files.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ibmd_lite.training.files import read_weights, writing

__all__ = ["VARIABLE", "cache_folder", "kept", "keep"]

VARIABLE = "IBMD_CACHE"
"""The environment variable that names the cache folder."""


def cache_folder() -> Path:
    """Where decoded images and downloads are kept: ``$IBMD_CACHE``, or the platform's place for caches."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "ibmd_lite" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ibmd_lite"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ibmd_lite"


def kept(key: str) -> tuple[dict, dict[str, Tensor]] | None:
    """The description and tensors kept under a key, memory-mapped; None where there are none, or damaged ones.

    Every byte is held against the checksum that was written with it.
    """
    try:
        about, tensors = read_weights(_file(key))
        whole = about["checksum"] == _checksum(about["about"], tensors)
    except (OSError, ValueError, KeyError, TypeError):  # what a damaged file raises depends on where the damage is
        return None
    return (about["about"], tensors) if whole else None


def keep(key: str, about: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
    """Keep tensors under a key; where that cannot be done, warn and go on.

    A file takes its place whole: several processes may keep the same key at once, the last one stays.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    described = {"about": dict(about), "checksum": _checksum(about, tensors)}
    try:
        for unfinished in _file(key).parent.glob(".*.part"):  # left by a process that was killed while writing
            if time.time() - unfinished.stat().st_mtime > 3600:
                unfinished.unlink()
    except OSError:
        pass  # another process was faster
    try:
        with writing(_file(key)) as temporary:
            save_file(dict(tensors), temporary, metadata={"about": json.dumps(described)})
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        warnings.warn(
            f"what was read cannot be kept for the next time ({error}); name a folder that can be written to in the "
            f"environment variable {VARIABLE}, or read with cache=False",
            stacklevel=2,
        )


def _file(key: str) -> Path:
    return cache_folder() / "images" / f"{key}.safetensors"


def _checksum(about: Mapping[str, object], tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 of the description and all tensors: against bad disks and killed writers, 0.1 s for 280 MB."""
    value = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].numpy().data, value)
    return value
