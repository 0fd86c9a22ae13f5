"""Endless streams of batches that can be put back where they were: the data order is part of a checkpoint.

Each of several processes gets draws of its own.  Ground floor.  Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ibmd_lite.training.processes import apart, process

__all__ = ["Draws", "Shuffled", "take"]

Item = TypeVar("Item")


def take(stream: Iterator[Item], update: int) -> Item:
    """The next batch, for update ``update``; ValueError where the stream has ended."""
    for item in stream:
        return item
    raise ValueError(
        f"the stream of batches ended before update {update} was made; give an endless one, such as "
        "training.Draws, training.Shuffled or itertools.cycle"
    )


class Draws(Generic[Item]):
    """Fresh draws without end: each batch is ``draw(batch, generator)``.  Raises ValueError for a batch below 1."""

    def __init__(self, draw: Callable[[int, torch.Generator], Item], batch: int, seed: int = 0) -> None:
        if batch < 1:
            raise ValueError(f"a batch holds at least one sample, got {batch}")
        self.draw, self.batch = draw, batch
        number, count = process()
        self.generator = torch.Generator().manual_seed(seed * count + number)

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        return self.draw(self.batch, self.generator)

    def state_dict(self) -> dict:
        return {"generator": self.generator.get_state(), "process": process()}

    def load_state_dict(self, state: dict) -> None:
        self.generator.set_state(state["generator"])
        apart(self.generator, state.get("process", process()))


class Shuffled:
    """Batches of rows of ``tensors``, each epoch in a new order; a lone tensor yields tensors, several tuples.

    Several processes share the order: of every ``count`` batches each takes one.

    Raises ValueError for tensors of several lengths, and for a batch that is larger than they are.
    """

    def __init__(self, *tensors: Tensor, batch: int, seed: int = 0) -> None:
        if not tensors or len({len(x) for x in tensors}) != 1:
            raise ValueError(f"tensors of one length are needed, got lengths {[len(x) for x in tensors]}")
        self.number, self.count = process()
        if not 1 <= batch * self.count <= len(tensors[0]):
            raise ValueError(
                f"batch must lie between 1 and the {len(tensors[0])} samples there are"
                f"{f' over {self.count} processes' if self.count > 1 else ''}, got {batch}"
            )
        self.tensors, self.batch = tensors, batch
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.long)

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Tensor | tuple[Tensor, ...]:
        together = self.batch * self.count
        if len(self.order) < together:
            self.order = torch.randperm(len(self.tensors[0]), generator=self.generator)
        index, self.order = self.order[:together], self.order[together:]
        index = index[self.number * self.batch : (self.number + 1) * self.batch]
        rows = tuple(x[index] for x in self.tensors)
        return rows[0] if len(rows) == 1 else rows

    def state_dict(self) -> dict:
        return {"generator": self.generator.get_state(), "order": self.order.clone()}

    def load_state_dict(self, state: dict) -> None:
        self.generator.set_state(state["generator"])
        self.order = state["order"].clone()
