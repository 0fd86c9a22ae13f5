"""Gradient checkpointing: forget what layers computed, and compute it again when the gradient comes back.

Memory for time: of a recomputed layer only the input is kept, and it runs forward twice (Chen et al. 2016, 1604.06174).
Ground floor.  Imports torch.
"""

from __future__ import annotations

import contextlib
import re
from functools import cache, partial
from typing import Any, TypeVar

from torch import nn
from torch.utils.checkpoint import checkpoint

from ibmd_lite.training.learner import frozen

__all__ = ["recompute"]

Network = TypeVar("Network", bound=nn.Module)


def recompute(network: Network, layers: str) -> Network:
    """Recompute these layers of a network, in place, whenever a gradient is asked for; the same weights and names.

    layers: a regular expression that matches the whole names of the layers (``network.named_modules()``), such as
    ``r"(down|up)\\.\\d+"`` for the stages of ``UNet``.  Copies are recomputed too: call this on the teacher's network
    before ``Student.of`` and ``Distillation``, and teacher, fake and student are.  Layers must draw nothing at random
    (dropout off).  The gradient is the same up to rounding.  Not for a network that fits without: each update costs
    up to a third more.

    Raises ValueError where no layer has such a name, or one would lie within another.
    """
    names = [name for name, _ in network.named_modules() if re.fullmatch(layers, name)]
    if not names or "" in names:
        known = [name for name, _ in network.named_children()]
        raise ValueError(f"no layer is called {layers!r}; the network has {known} and what is inside them")
    inside = [name for name in names if any(name.startswith(f"{other}.") for other in names)]
    if inside:
        raise ValueError(f"{layers!r} names layers and layers inside them ({inside[0]}); recompute one or the other")
    for name in names:
        layer = network.get_submodule(name)
        kind: Any = type(layer)
        layer.__class__ = _recomputed(kind)
    return network


@cache
def _recomputed(kind: type[Any]) -> type[Any]:
    """The same kind of layer, recomputed.  A class, not a wrapper: weights keep their names, and copies their own."""
    if getattr(kind, "recomputed", False):
        return kind

    def forward(self: nn.Module, *given: Any, **named: Any) -> Any:
        again = _as_now(self)
        return checkpoint(
            partial(kind.forward, self),
            *given,
            use_reentrant=False,
            context_fn=lambda: (contextlib.nullcontext(), again),
            preserve_rng_state=False,
            **named,
        )

    return type(kind.__name__, (kind,), {"forward": forward, "recomputed": True, "__doc__": kind.__doc__})


def _as_now(layer: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Freezes the layer if it is frozen now: by the time it is computed again, a generator's update is over."""
    trained = any(parameter.requires_grad for parameter in layer.parameters())
    return contextlib.nullcontext() if trained else frozen(layer)
