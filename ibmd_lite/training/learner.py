"""One network being trained: its optimiser, running average, precision, clipping and random numbers.

Ground floor: knows optimisers and devices, nothing of bridges.  Imports torch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ibmd_lite.training.files import check_state
from ibmd_lite.training.memory import what_to_lower
from ibmd_lite.training.processes import apart, average_over_processes, process, same_weights
from ibmd_lite.training.sharding import gathered, in_shares, reduces, scattered, scattered_moments, shard

__all__ = ["Diverged", "Learner", "Settings", "best_device", "frozen"]

Precision = Literal["auto", "float32", "bfloat16", "float16"]


class Diverged(ArithmeticError):
    """A loss or gradient became NaN or infinite; nothing was updated with it."""


def best_device() -> torch.device:
    """CUDA where there is one (each of several processes its own), else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        number, count = process()
        return torch.device("cuda", number % torch.cuda.device_count()) if count > 1 else torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@dataclass(frozen=True)
class Settings:
    """How a network is trained.

    average: decay of the running average of the weights (None: no average).  precision: "auto" is
    bfloat16 on a GPU that has it, float16 with loss scaling on one that has not, float32 elsewhere.
    clip: largest norm of the gradient (None: not clipped).  decay: the update by which the learning rate has
    fallen to zero along a cosine (None: constant); in distillation both networks count generator updates.
    compile: with torch.compile; the generator's setting compiles the teacher too.
    accumulate: batches whose gradients are averaged for one update, where one large batch does not fit.
    shard: each of several processes keeps its share alone of weights, average and optimiser (``training.sharding``),
    for networks too large for one GPU; the generator's setting shards the teacher too.  Alone, nothing changes.

    Raises ValueError for numbers out of their range and an unknown precision.
    """

    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = 1.0
    average: float | None = 0.999
    precision: Precision = "auto"
    compile: bool = False
    seed: int = 0
    decay: int | None = None
    accumulate: int = 1
    shard: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate must lie in (0, 1), got {self.learning_rate}")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive or None, got {self.clip}")
        if self.decay is not None and self.decay < 1:
            raise ValueError(f"decay must be at least 1 update or None, got {self.decay}")
        if not isinstance(self.accumulate, int) or self.accumulate < 1:
            raise ValueError(f"accumulate must be a whole number of batches, at least 1, got {self.accumulate}")
        if self.average is not None and not 0 <= self.average < 1:
            raise ValueError(f"average must lie in [0, 1) or be None, got {self.average}")
        if self.precision not in ("auto", "float32", "bfloat16", "float16"):
            raise ValueError(f"precision must be auto, float32, bfloat16 or float16, got {self.precision!r}")

    def rate(self, update: int) -> float:
        """The learning rate of update 1, 2, ..."""
        if self.decay is None:
            return self.learning_rate
        return self.learning_rate * (1 + math.cos(math.pi * min((update - 1) / self.decay, 1))) / 2


@contextlib.contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """No gradient for the parameters of these modules inside the block; gradients to inputs flow on."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


Module = TypeVar("Module", bound=nn.Module)


class Learner(Generic[Module]):
    """A module with all that training adds to it.  The module is moved to the device and changed in place.

    Raises ValueError for a module without a parameter to train.
    """

    def __init__(self, module: Module, settings: Settings, device: torch.device | str | None = None) -> None:
        self.settings = settings
        self.device = best_device() if device is None else torch.device(device)
        if in_shares(module):
            raise ValueError("the module is in shares already: in all processes, give training.whole(module)")
        self.module = module if settings.shard else module.to(self.device)
        same_weights(self.module)
        self.average = None
        if settings.average is not None:
            self.average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(settings.average)).requires_grad_(
                False
            )
        if settings.shard:  # after the copy
            shard(self.module, self.device)
            if self.average is not None:
                shard(self.average.module, self.device)
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError("the module has no parameter to train: call module.requires_grad_(True)")
        self.optimiser = torch.optim.Adam(
            self.parameters, settings.learning_rate, settings.betas, fused=self.device.type in ("cpu", "cuda")
        )
        self.dtype = self._dtype(settings.precision)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        number, count = process()
        self.generator = torch.Generator(self.device).manual_seed(settings.seed * count + number)
        if settings.compile:
            module.compile()

    @property
    def averaged(self) -> Module:
        """The module with averaged weights, in evaluation mode (the module itself without averaging)."""
        module = self.module if self.average is None else self.average.module
        return module.eval()  # type: ignore[return-value]

    def _dtype(self, precision: Precision) -> torch.dtype:
        if precision != "auto":
            return getattr(torch, precision)
        if self.device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.get_device_capability(self.device)[0] >= 8 else torch.float16

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def randn(self, shape: torch.Size | tuple[int, ...]) -> Tensor:
        """Standard normal draws of this shape (batch, *dims), from the run's own generator and on its device."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    @what_to_lower()
    def step(self, loss_of: Callable[[], Tensor], update: int) -> float:
        """One update down the gradient of ``loss_of()``, whose value is returned.

        With ``accumulate`` or several processes: down the mean gradient of that many calls, each on its own batch.
        Raises ``Diverged`` before the weights change if the loss or its gradient is not finite, and
        ``torch.OutOfMemoryError``, on every device, with what to lower.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate(update)
        self.optimiser.zero_grad(set_to_none=True)
        value = self._descend(loss_of)
        self.scaler.unscale_(self.optimiser)
        norm = gathered(nn.utils.clip_grad_norm_(self.parameters, self.settings.clip or math.inf))
        if not math.isfinite(value) or not (self.scaler.is_enabled() or bool(norm.isfinite())):
            raise Diverged(
                f"the loss became {value} or its gradient not finite at update {update}; the weights are those of "
                f"update {update - 1}. Lower the learning rate ({self.settings.learning_rate:g}), or go on from the "
                "last checkpoint."
            )
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)  # while another network learns, its memory is free
        if self.average is not None:
            self.average.update_parameters(self.module)
        return value

    def _descend(self, loss_of: Callable[[], Tensor]) -> float:
        """Leave the mean gradient of all batches in the parameters; the mean loss."""
        batches, values = self.settings.accumulate, []
        for number in range(1, batches + 1):
            reduces(self.module, number == batches)
            with self.autocast():
                loss = loss_of()
            values.append(loss.detach())
            self.scaler.scale(loss / batches).backward()
        mean = torch.stack(values).mean()
        gradients = [] if in_shares(self.module) else [p.grad for p in self.parameters if p.grad is not None]
        average_over_processes([mean, *gradients])
        return mean.item()

    def state_dict(self) -> dict:
        return {
            "module": gathered(self.module.state_dict()),
            "average": None if self.average is None else gathered(self.average.state_dict()),
            "optimiser": gathered(self.optimiser.state_dict()),
            "scaler": self.scaler.state_dict(),
            "generator": self.generator.get_state(),
            "process": process(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from ``state``.  Raises ValueError where one of the two has a running average and the other not."""
        check_state(self.module, state["module"])
        if (self.average is None) != (state["average"] is None):
            raise ValueError("the checkpoint and these settings disagree on averaging: give both the same `average`")
        self.module.load_state_dict(scattered(state["module"], self.module))
        if self.average is not None:
            self.average.load_state_dict(scattered(state["average"], self.average))
        self.optimiser.load_state_dict(scattered_moments(state["optimiser"], self.parameters))
        for group in self.optimiser.param_groups:  # a run may go on with a lower learning rate
            group.update(lr=self.settings.learning_rate, betas=self.settings.betas)
        self.scaler.load_state_dict(state["scaler"])
        self.generator.set_state(state["generator"].cpu())
        apart(self.generator, state.get("process", process()))
