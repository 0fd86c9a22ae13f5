"""A network in shares: of every weight each process holds its own part (FSDP2, torch's ``fully_shard``).

Right before a block of layers computes, forward or backward, its weights are gathered, and forgotten right after; its
gradient comes back averaged and in shares.  So do Adam's moments and the running average lie, and a frozen teacher.
What is copied, saved or kept in a checkpoint is whole.  Alone, everything here does nothing.
Ground floor.  Imports torch; its FSDP when there are several processes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ibmd_lite.training.processes import process, same_weights

__all__ = ["InShares", "gathered", "in_shares", "reduces", "scattered", "scattered_moments", "shard", "whole"]

Module = TypeVar("Module", bound=nn.Module)


class InShares:
    """What joins the class of a network in shares: a copy of it is whole.  All processes must make it at once."""

    blank: nn.Module  # the network before it was shared out, its weights without storage

    def __deepcopy__(self: Any, memo: dict[int, Any]) -> nn.Module:
        weights: dict[int, Any] = {
            id(blank): nn.Parameter(own.detach().full_tensor().clone(), own.requires_grad)
            for blank, own in zip(self.blank.parameters(), self.parameters(), strict=True)
        }
        network = copy.deepcopy(self.blank, weights)
        for buffer, own in zip(network.buffers(), self.buffers(), strict=True):
            buffer.data = own.detach().clone()
        memo[id(self)] = network.train(self.training)
        return network


def shard(module: nn.Module, device: torch.device) -> None:
    """Leave in this process, on the device, its share of the first one's weights; alone, the whole module.

    In place, block by block: what a ``ModuleList`` or ``Sequential`` holds, then the rest of the network.  A weight is
    cut along its first axis; one with fewer rows than processes lies in some of them alone.  The network's ``forward``
    must be what is called, through ``network(...)``, and in all processes as often, also when nothing is trained.

    Raises ImportError where torch has no ``fully_shard``.
    """
    _, count = process()
    if count == 1 or next(module.parameters(), None) is None:
        module.to(device)
        return
    if in_shares(module):
        return
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
    except ImportError as error:
        raise ImportError(
            f"sharding needs torch.distributed.fsdp.fully_shard, of torch 2.6 or later, and this is {torch.__version__}"
            ": upgrade torch, or train without shard"
        ) from error
    same_weights(module)
    network, mesh = _inmost(module), init_device_mesh(device.type, (count,))
    empty: dict[int, Any] = {
        id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), weight.requires_grad)
        for weight in network.parameters()
    }
    blank = copy.deepcopy(network, empty)
    for part in [*dict.fromkeys(_blocks(network)), network]:
        # A root that stays whole after its forward would be seen so by the optimiser and by the average.
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
    kind: Any = type(network)
    network.__class__ = type(kind.__name__, (InShares, kind), {"blank": blank, "__doc__": kind.__doc__})


def in_shares(module: nn.Module) -> bool:
    """Whether it is, or holds, a network in shares."""
    return any(isinstance(part, InShares) for part in module.modules())


def whole(module: Module) -> Module:
    """The module with whole weights, to be saved or used by one process: a copy where it is in shares, else itself.

    All processes must call it, or those that do wait for the others.
    """
    return copy.deepcopy(module) if in_shares(module) else module


def reduces(module: nn.Module, now: bool) -> None:
    """Whether the next gradient is averaged and shared out, or kept whole and added to, for a later one."""
    shared: list[Any] = [part for part in module.modules() if isinstance(part, InShares)]
    for network in shared:
        network.set_requires_gradient_sync(now)


def gathered(state: Any) -> Any:
    """Nested dicts and lists with every tensor in shares made whole, on the CPU; all processes must call it."""
    if isinstance(state, Mapping):
        return {name: gathered(value) for name, value in state.items()}
    if isinstance(state, list):
        return [gathered(value) for value in state]
    # Copied: of uneven shares the whole is a view of more.
    return state.full_tensor().to("cpu", copy=True) if _is_share(state) else state


def scattered(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """A module's whole state as the module holds it."""
    own = module.state_dict()
    return {name: _as(own[name], value) for name, value in state.items()}


def scattered_moments(state: Mapping[str, Any], parameters: Sequence[Tensor]) -> dict[str, Any]:
    """An optimiser's whole state as the parameters are held."""
    moments = {
        index: {name: _as(parameters[index], value) for name, value in kept.items()}
        for index, kept in state["state"].items()
    }
    return {**state, "state": moments}


def _as(own: Any, value: Tensor) -> Tensor:
    if not _is_share(own) or value.shape != own.shape:  # Adam's count of its steps is one number
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)


def _is_share(value: object) -> bool:
    return hasattr(value, "full_tensor")  # a DTensor, known without an import of what one process does not need


def _inmost(module: nn.Module) -> nn.Module:
    """The network within its wrappers: students of several tasks, and fakes, share it and call it alone."""
    while not [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
        inner = [child for child in module.children() if next(child.parameters(), None) is not None]
        if len(inner) > 1 or isinstance(inner[0], (nn.ModuleList, nn.ModuleDict)):
            break
        (module,) = inner
    return module


def _blocks(module: nn.Module, listed: bool = False) -> Iterator[nn.Module]:
    """What lists and sequences of layers hold, as large as it comes."""
    for child in module.children():
        if next(child.parameters(), None) is None:
            continue
        is_list = isinstance(child, (nn.ModuleList, nn.Sequential))
        if listed and not is_list:
            yield child
        else:
            yield from _blocks(child, is_list)
