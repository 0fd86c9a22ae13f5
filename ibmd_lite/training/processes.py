"""Several processes that train one network, as `accelerate launch` or `torchrun` start them.

Each works on its own share of the data; gradients are averaged before every update, so that all of them hold the
same weights. Alone, everything here does nothing. Ground floor. Imports torch; accelerate when there are several.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["apart", "average_over_processes", "least_over_processes", "process", "same_weights", "share"]


def process() -> tuple[int, int]:
    """This process's number and how many there are; the first call joins the group.

    Raises ImportError where several processes were started and accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ImportError("several processes need accelerate: pip install 'ibmd_lite[processes]'") from error
    state = PartialState(cpu=not torch.cuda.is_available())
    return state.process_index, state.num_processes


def average_over_processes(tensors: Sequence[Tensor]) -> None:
    """Put the mean over all processes in the place of each tensor, in one message per dtype."""
    _, count = process()
    if count == 1:
        return
    for dtype in {tensor.dtype for tensor in tensors}:
        group = [tensor for tensor in tensors if tensor.dtype == dtype]
        message = torch.cat([tensor.flatten() for tensor in group])
        torch.distributed.all_reduce(message)
        for tensor, mean in zip(group, message.div_(count).split([t.numel() for t in group]), strict=True):
            tensor.copy_(mean.view_as(tensor))


def apart(generator: torch.Generator, saved: tuple[int, int]) -> None:
    """Give each process draws of its own, where a generator's state came from another one.

    saved: number and count of the processes that the state is of.  Where they are this process's, nothing is changed.
    """
    number, count = process()
    if saved != (number, count):
        common = torch.randint(2**48, (), generator=generator, device=generator.device)
        generator.manual_seed(int(common) * count + number)


def least_over_processes(number: int) -> int:
    """The smallest that any process gives."""
    if process()[1] == 1:
        return number
    device = "cuda" if torch.cuda.is_available() else "cpu"
    message = torch.tensor(number, device=device)
    torch.distributed.all_reduce(message, torch.distributed.ReduceOp.MIN)
    return int(message)


def same_weights(module: nn.Module) -> None:
    """Give every process the weights of the first, wherever they lie."""
    if process()[1] > 1:
        device = "cuda" if torch.cuda.is_available() else "cpu"  # where processes talk
        with torch.no_grad():
            for tensor in [*module.parameters(), *module.buffers()]:
                message = tensor.to(device)
                torch.distributed.broadcast(message, 0)
                tensor.copy_(message)


def share(batch: int) -> int:
    """This process's part of a batch that all of them share.

    Raises ValueError for a batch that the processes do not divide.
    """
    count = process()[1]
    if batch % count:
        raise ValueError(f"{count} processes cannot share a batch of {batch}: start a number of them that divides it")
    return batch // count
