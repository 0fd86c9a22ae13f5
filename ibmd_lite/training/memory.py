"""Memory: the most that was held, and what to lower where it is full.

Ground floor.  Imports torch.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator

import torch

__all__ = ["peak_memory", "what_to_lower"]

FULL = re.compile("out of memory|allocate memory")  # in the words of MPS and of a CPU


def peak_memory() -> int:
    """Most bytes held so far: by tensors on CUDA where it was used, else by the whole process; 0 on Windows."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@contextlib.contextmanager
def what_to_lower() -> Iterator[None]:
    """A full memory of any device as ``torch.OutOfMemoryError`` that says what to lower.

    Only CUDA raises that class by itself; elsewhere it is a RuntimeError, known by its words.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not FULL.search(str(error)):
            raise
        raise torch.OutOfMemoryError(
            "the memory is full: halve the batch and double Settings.accumulate (as many images in an update as "
            f"before), or make the network narrower; peak so far {peak_memory() / 2**30:.1f} GiB"
        ) from error
