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
from ibmd_lite.training.memory import peak_memory
from ibmd_lite.training.processes import apart, least_over_processes, process

__all__ = ["Run", "Stateful", "checkpointed", "progress"]

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
    one to the bit.  Of several processes each keeps a file of its own, the first under the name given, and the one
    before it: they go on from the last update that all of them have.  Where there were more or fewer the last time,
    all go on from the file of the first, and each draws anew; on several machines all must be able to read it.

    Raises ValueError for ``every`` below 1 and for the checkpoint of another run, and TypeError for a stream that
    cannot resume.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1 update, got {every}")
    if not hasattr(stream, "state_dict"):
        raise TypeError(
            "a resumable stream has state_dict and load_state_dict: use training.Draws or training.Shuffled"
        )
    number, count = process()
    first = Path(path)
    own = Path(f"{first}.{number}" if number else first)
    before = Path(f"{own}.before")
    for unfinished in own.parent.glob(f".{own.name}.*.part"):  # left by a run that was killed while saving
        unfinished.unlink(missing_ok=True)
    if state := _common_state(first, own, before):
        try:
            run.load_state_dict(state["run"])
            stream.load_state_dict(state["stream"])
            torch.set_rng_state(state["random"])
        except KeyError as error:
            raise ValueError(
                f"{first} is the checkpoint of another kind of run or stream, it has no {error}; give another path"
            ) from error
        apart(torch.default_generator, state.get("process", process()))

    def records() -> Iterator[Any]:
        for record in run.updates(stream, total):
            if run.update % every == 0 or run.update == total:
                state = {"run": run.state_dict(), "stream": stream.state_dict(), "random": torch.get_rng_state()}
                if count > 1 and own.exists():
                    own.replace(before)
                save_checkpoint(own, state | {"process": (number, count)})
            yield record

    return records()


def _common_state(first: Path, own: Path, before: Path) -> dict[str, Any] | None:
    """What this process goes on from: its own file of the last update that all have, else that of the first process."""
    states = [load_checkpoint(kept) for kept in (own, before) if kept.exists()]
    for state in states:
        if not isinstance(state, dict) or "run" not in state:
            raise ValueError(f"{own} is the checkpoint of another kind of run, or of none; give another path")
    number, count = process()
    as_now = [state.get("process", (number, count)) == (number, count) for state in states]
    mine = {state["run"]["update"]: state for state, same in zip(states, as_now, strict=True) if same}
    common = least_over_processes(max(mine, default=0))
    # Where the first's newest is of more or fewer processes, those of as many are older.
    if least_over_processes(int(common in mine and (number > 0 or as_now[0]))):
        return mine[common]
    there = first.exists()
    if least_over_processes(int(there)):
        return load_checkpoint(first)
    if states or there:
        raise ValueError(f"of {count} processes not all find {first}; copy it to where they look, or delete {own}")
    return None


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
            update: int = record.update  # type: ignore[attr-defined]
            if not bar.n:  # a run that goes on from a checkpoint: what it did before is no part of the rate
                bar.initial = bar.n = bar.last_print_n = update - 1
            bar.set_postfix({name: f"{getattr(record, name):.4g}" for name in show}, refresh=False)
            bar.update(update - bar.n)
            yield record
        if peak := peak_memory():
            bar.set_description(f"{what}, peak of memory {peak / 2**30:.1f} GiB")
