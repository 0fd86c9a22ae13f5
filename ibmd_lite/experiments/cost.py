"""What a training will cost, told before it runs: operations, seconds, GPU-hours, memory.

Lives here: ``Passes``, the operations of a network's passes, counted and not guessed; ``Setup``, which passes a
distillation makes; ``Accelerator`` and ``Cost``; ``Memory`` of an update, and ``peak_bytes`` of any pass.  Count on a
network of the meta device (``with torch.device("meta"): network = UNet(...)``) and the largest one takes no memory and
seconds.
Matrix products and convolutions are counted (a multiplication and an addition are two); norms, activations, optimisers,
data and waiting are not, and stand in the utilisation together with what an accelerator never reaches of its peak.

Imports torch, the method's ``model`` and ``training``, and ``evaluation.flops``.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ibmd_lite.evaluation.timing import flops
from ibmd_lite.student import add_noise_input
from ibmd_lite.training.learner import frozen

__all__ = ["A100", "Accelerator", "Cost", "Memory", "Passes", "Setup", "peak_bytes"]


@dataclass(frozen=True)
class Passes:
    """Operations of one image's way through a network.

    forward: without gradient.  training: forward, and backward to the weights.  through: forward, and backward to the
    input alone, the weights frozen.
    """

    forward: int
    training: int
    through: int

    @classmethod
    def counted(
        cls, network: nn.Module, shape: tuple[int, ...], *, noise_channels: int = 0, conditional: bool = False
    ) -> Passes:
        """Of an image (C, H, W).  noise_channels: channels of z that join it; conditional: whether xT is seen too.

        The passes run where the network is, on one image of zeros; recomputed layers are counted as often as they run.

        Raises ValueError for a frozen network, whose backward passes cannot be counted.
        """
        device = next(network.parameters()).device
        image = torch.zeros(1, *shape, device=device)
        xt = torch.zeros(1, shape[0] + noise_channels, *shape[1:], device=device)
        given = (torch.zeros(1, device=device), *((image,) if conditional else ()))
        weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if not weights:
            raise ValueError("the network is frozen; count with network.requires_grad_(True)")

        def training() -> None:
            torch.autograd.grad(network(xt, *given).sum(), weights, allow_unused=True)

        def through() -> None:
            point = xt.clone().requires_grad_()
            with frozen(network):
                answer = network(point, *given)
            answer.sum().backward()

        with sdpa_kernel(SDPBackend.MATH):  # others are not counted on every device
            return cls(flops(lambda: torch.no_grad()(network)(xt, *given)), flops(training), flops(through))


@dataclass(frozen=True)
class Setup:
    """A distillation, as far as its cost goes.  The fake is a network like the teacher.

    batch: images in an update, over all devices.  updates: of the generator.  fake_updates, reuse: as in
    ``DistillationSettings``.  steps: of the student, trained by ``end_of_chain``.

    Raises ValueError for counts that are no whole numbers of at least 1.
    """

    teacher: Passes
    student: Passes
    batch: int
    updates: int
    fake_updates: int = 5
    steps: int = 1
    reuse: int = 1

    def __post_init__(self) -> None:
        for name in ("batch", "updates", "fake_updates", "steps", "reuse"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a whole number of at least 1")

    @classmethod
    def of(
        cls,
        network: nn.Module,
        shape: tuple[int, ...],
        *,
        conditional: bool = False,
        noise_channels: int | None = None,
        input_layer: str = "input_layer",
        **sizes: int,
    ) -> Setup:
        """For a teacher's network and images (C, H, W).  sizes: ``batch``, ``updates`` and the other fields."""
        noise_channels = shape[0] if noise_channels is None else noise_channels
        generator = add_noise_input(network, shape[0], noise_channels, input_layer)
        teacher = Passes.counted(network, shape, conditional=conditional)
        student = Passes.counted(generator, shape, conditional=conditional, noise_channels=noise_channels)
        return cls(teacher, student, **sizes)

    @property
    def fake_update(self) -> int:
        """Operations of one update of the fake: bridge matching on what the generator makes (eq:matching).

        The generator's part is the mean over the updates that share a batch of it.
        """
        generated = -(-self.fake_updates // self.reuse) * self.steps * self.student.forward
        return self.batch * (generated + self.fake_updates * self.teacher.training) // self.fake_updates

    @property
    def generator_update(self) -> int:
        """Operations of one update of the generator: the chain, then through teacher and fake to it (eq:ibmd)."""
        walked = (self.steps - 1) * self.student.forward + self.student.training
        return self.batch * (walked + 2 * self.teacher.through)

    @property
    def iteration(self) -> int:
        """Operations of one generator update and the fake's updates before it."""
        return self.fake_updates * self.fake_update + self.generator_update

    def on(self, accelerator: Accelerator) -> Cost:
        """What it costs there."""
        operations = self.updates * self.iteration
        return Cost(operations, operations / accelerator.speed, accelerator.count)


@dataclass(frozen=True)
class Accelerator:
    """Devices to train on.  peak: operations a second of one, as its maker says for the precision that is used.

    utilisation: the share of it that a training reaches; measure it (``fitted``) where you can.

    Raises ValueError for a peak or a count that is not positive, and for a share beyond 1.
    """

    name: str
    peak: float
    utilisation: float = 1.0
    count: int = 1

    def __post_init__(self) -> None:
        if not (self.peak > 0 and 0 < self.utilisation <= 1 and self.count >= 1):
            raise ValueError(
                f"peak is {self.peak}, utilisation {self.utilisation}, count {self.count}; expected a positive number, "
                "a share of it, and at least one device"
            )

    @property
    def speed(self) -> float:
        """Operations a second, of all devices together."""
        return self.peak * self.utilisation * self.count

    def fitted(self, operations: float, seconds: float) -> Accelerator:
        """With the utilisation that makes so many operations take so many seconds."""
        return replace(self, utilisation=operations / seconds / (self.peak * self.count))


@dataclass(frozen=True)
class Cost:
    """Operations, the seconds they take, and on how many devices."""

    operations: float
    seconds: float
    devices: int

    @property
    def hours(self) -> float:
        """Of the clock."""
        return self.seconds / 3600

    @property
    def gpu_hours(self) -> float:
        """Hours times devices, which is what is paid."""
        return self.hours * self.devices


A100 = Accelerator("A100", peak=312e12, utilisation=0.3)
"""One A100 in half precision: its maker's peak without sparsity; the utilisation is an assumption."""


@dataclass(frozen=True)
class Memory:
    """Bytes that an update takes when it takes most, on one device and in the weights' precision.

    teacher: of a teacher's update: what its layers keep and its gradients, its weights, Adam's two moments of them and
    their average.  distillation: of the generator's update, which takes more than the fake's, because the gradient goes
    through teacher and fake to the generator; with all that the three networks hold.
    """

    teacher: int
    distillation: int

    @classmethod
    def of(
        cls,
        network: nn.Module,
        shape: tuple[int, ...],
        *,
        batch: int = 1,
        conditional: bool = False,
        noise_channels: int | None = None,
        input_layer: str = "input_layer",
    ) -> Memory:
        """For a teacher's network, recomputed or not, and images (C, H, W), of which ``batch`` are seen at once.

        Raises ValueError for a batch below 1.
        """
        if not isinstance(batch, int) or batch < 1:
            raise ValueError(f"batch is {batch}; expected a whole number of at least 1")
        noise_channels = shape[0] if noise_channels is None else noise_channels
        generator = add_noise_input(network, shape[0], noise_channels, input_layer)
        device = next(network.parameters()).device
        xT = torch.zeros(batch, *shape, device=device)
        z = torch.zeros(batch, noise_channels, *shape[1:], device=device)
        given = (torch.zeros(batch, device=device), *((xT,) if conditional else ()))

        def descend(module: nn.Module, loss_of: Callable[[], Tensor]) -> None:
            weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
            torch.autograd.grad(loss_of(), weights, allow_unused=True)

        def matching() -> Tensor:
            return (network(xT, *given) - xT).square().mean()

        def ibmd() -> Tensor:
            x0 = generator(torch.cat([xT, z], 1), *given)
            xt = x0 + xT
            with frozen(network):  # stands for teacher and fake
                target, fake_x0 = network(xt, *given), network(xt, *given)
            return ((target - x0).square() - (fake_x0 - x0).square()).mean()

        one, student = _weight_bytes(network), _weight_bytes(generator)
        return cls(
            4 * one + peak_bytes(lambda: descend(network, matching)),
            one + 3 * one + 4 * student + peak_bytes(lambda: descend(generator, ibmd)),
        )


def _weight_bytes(network: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in network.parameters())


def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes that tensors made inside the call hold at one time; on the meta device it takes none.

    Weights, and whatever else was there before, do not count.  Nor does what a library takes for its own work, such as
    a convolution's workspace, or an allocator's unused rest.  Attention is torch's fused one, as on real devices.
    """
    with _fused_attention(), _Held() as held:
        call()
    return held.most


@contextlib.contextmanager
def _fused_attention() -> Iterator[None]:
    """Attention on the meta device as on others; by itself it would write down which pixel sees which."""
    registered = torch.library.Library("aten", "IMPL")
    registered.impl("scaled_dot_product_attention", _fused, "AutogradMeta")
    try:
        yield
    finally:
        registered._destroy()


def _fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return attend(q, k, v, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]


class _Held(TorchDispatchMode):
    """Adds the storages that operations make, and takes them away when they go."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most = 0, 0
        self.known: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for tensor in _tensors((args, kwargs)):
            self._know(tensor, 0)
        made = function(*args, **(kwargs or {}))
        for tensor in _tensors(made):
            self._know(tensor, tensor.untyped_storage().nbytes())
        return made

    def _know(self, tensor: Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.known:
            self.known[key] = size
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self.known.pop(key, 0)


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
