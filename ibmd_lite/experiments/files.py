"""Files that several processes share: text that is whole or not there, locks, and GPUs as locks.

The locks are the operating system's (``flock``): they end with the process that holds them, however it ends.  Folders
on several machines need a file system that passes them on, as NFS does.  Imports the standard library.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["locked", "one_gpu", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Write beside the file, flush to the disk, and move it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; wait for it as long as another process holds it."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def one_gpu(wait: float = 0.2) -> Iterator[dict[str, str]]:
    """Hold one GPU of this machine, waiting for a free one; the environment in which a process sees that one alone.

    Empty where there is none, and where ``CUDA_VISIBLE_DEVICES`` is empty: then nothing is waited for.
    """
    names = _gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))
    if not names:
        yield {}
        return
    with contextlib.ExitStack() as stack:
        while True:
            for name in names:
                file = stack.enter_context(_gpu_file(name).open("a"))
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield {"CUDA_VISIBLE_DEVICES": name}
                    return
                file.close()
            time.sleep(wait)


def _gpu_file(name: str) -> Path:
    """The lock of a GPU, the same for every process of this user on this machine."""
    return Path(tempfile.gettempdir(), f"ibmd-gpu-{os.getuid()}-{re.sub('[^A-Za-z0-9-]', '-', name)}.lock")


@functools.cache
def _gpus(visible: str | None) -> tuple[str, ...]:
    """The GPUs that a process may use: by their own names where the driver tells them, by number otherwise."""
    asked = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        told = ""
    known = dict(re.findall(r"^(\d+), *(\S+)$", told, flags=re.MULTILINE))
    if visible is None:
        return tuple(known.values())
    names = [word.strip() for word in visible.split(",")]
    return tuple(known.get(name, name) for name in names if name not in ("", "-1", "NoDevFiles"))
