"""What a caller usually wraps around ``run.updates(...)``: a progress bar, and checkpoints that resume.

Ground floor: a run is anything with ``updates``, ``state_dict`` and ``load_state_dict``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from ibmd_lite.training.files import load_checkpoint, save_checkpoint
from ibmd_lite.training.processes import process

__all__ = ["Run", "Stateful", "checkpointed", "peak_memory", "progress"]

Record = TypeVar("Record")


class Stateful(Protocol):
    """Anything that can be put back where it was."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


class Run(Stateful, Protocol):
    """A training whose updates are counted."""

    update: int

    def updates(self, stream: Any, total: int) -> Iterator[Any]: ...


def checkpointed(run: Run, stream: Any, total: int, path: str | os.PathLike, *, every: int) -> Iterator[Any]:
    """``run.updates(stream, total)`` that saves every ``every`` updates and goes on from ``path`` if it exists.

    Saved: the run (weights, averages, optimisers, random state), the stream's position, and torch's own
    random state.  On one machine's CPU with the same number of threads a resumed run equals an unbroken
    one to the bit.  Of several processes each keeps a file of its own, the first under the name given.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1 update, got {every}")
    if not hasattr(stream, "state_dict"):
        raise TypeError(
            "a resumable stream has state_dict and load_state_dict: use training.Draws or training.Shuffled"
        )
    number, _ = process()
    path = Path(f"{os.fspath(path)}.{number}" if number else path)
    for unfinished in path.parent.glob(f".{path.name}.*.part"):  # left by a run that was killed while saving
        unfinished.unlink(missing_ok=True)
    if path.exists():
        state = load_checkpoint(path)
        if not isinstance(state, dict):
            raise ValueError(f"{path} holds no checkpoint of a run; delete it to start anew, or name another file")
        try:
            run.load_state_dict(state["run"])
            stream.load_state_dict(state["stream"])
            torch.set_rng_state(state["random"])
        except KeyError as error:
            raise ValueError(
                f"{path} is the checkpoint of another kind of run or stream, it has no {error}; give another path"
            ) from error

    def records() -> Iterator[Any]:
        for record in run.updates(stream, total):
            if run.update % every == 0 or run.update == total:
                state = {"run": run.state_dict(), "stream": stream.state_dict(), "random": torch.get_rng_state()}
                save_checkpoint(path, state)
            yield record

    return records()


def progress(
    records: Iterable[Record], total: int, what: str, *, show: tuple[str, ...] = ("loss",)
) -> Iterator[Record]:
    """A tqdm bar around a run: rate, remaining time, the named fields of the records, at the end the peak of memory.

    Of several processes the first shows one.
    """
    from tqdm import tqdm

    quiet = process()[0] > 0
    with tqdm(total=total, desc=what, file=sys.stdout, mininterval=1.0, dynamic_ncols=True, disable=quiet) as bar:
        for record in records:
            bar.n = record.update  # type: ignore[attr-defined]
            bar.set_postfix({name: f"{getattr(record, name):.4g}" for name in show}, refresh=False)
            bar.update(0)
            yield record
        if peak := peak_memory():
            bar.set_description(f"{what}, peak of memory {peak / 2**30:.1f} GiB")


def peak_memory() -> int:
    """Most bytes held so far: by tensors on CUDA where it was used, else by the whole process; 0 on Windows."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
