"""The student: a generator G(xT, z) that answers in one network call, or in a few on a short grid.

It starts as its teacher, with noise inputs whose weights are zero; ``distillation`` trains it.

Imports torch, jaxtyping, ``bridges``, ``model`` and ``training``.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ibmd_lite.bridges import Bridge
from ibmd_lite.model import BridgeModel, Form, Prediction, Source, form_of
from ibmd_lite.training.files import loaded, save_weights

__all__ = ["Student", "add_noise_input", "find_input"]

Batch = Float[Tensor, "batch *dims"]


class Student(nn.Module):
    """A generator G(xt, z, t[, xT]) walked down a short grid: ``student(source) -> x0``, one call per step.

    Between two steps the Markov posterior is drawn (eq:few-step); after the last there is no noise.
    Make one with ``Student.of(teacher)``: the teacher's weights, and noise inputs that start at zero.
    ``model_of(task)`` is its model in the form of one of several tasks.

    Raises ValueError for a grid that does not fall from T to 0.
    """

    def __init__(
        self,
        model: BridgeModel,
        channels: int,
        noise_channels: int,
        grid: Float[Tensor, " times"],
        tasks: Mapping[int, Form] | None = None,
    ) -> None:
        super().__init__()
        grid = torch.as_tensor(grid, dtype=torch.float64, device="cpu")
        if (
            grid.ndim != 1
            or len(grid) < 2
            or grid[0] != model.bridge.T
            or grid[-1] != 0
            or not bool((grid.diff() < 0).all())
        ):
            raise ValueError(
                f"a student's grid falls from T = {model.bridge.T:g} to 0, got {grid.tolist()}; use bridge.grid(steps)"
            )
        model.bridge.check_times(grid)
        self.model, self.channels, self.noise_channels, self.grid = model, channels, noise_channels, grid
        self.tasks = dict(tasks or {})
        for task, form in self.tasks.items():
            form.bridge.check_times(self.grid_of(task))

    @classmethod
    def of(
        cls,
        teacher: BridgeModel,
        *,
        steps: int = 1,
        noise_channels: int | None = None,
        channels: int | None = None,
        input_layer: str = "input_layer",
        tasks: Mapping[int, BridgeModel] | None = None,
    ) -> Student:
        """A student that starts as the teacher.

        steps: network calls per image.  noise_channels: channels of z, by default as many as the image has;
        0 makes a deterministic student.  channels: of the image, read off the input layer by default.
        tasks: the teacher of each of several tasks, from which it takes bridge, prediction type and whether xT is
        seen; by default all tasks have those of ``teacher``.

        Raises ValueError for fewer than one step, noise_channels below 0, and an input layer that does not take the
        image.
        """
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"a student needs a whole number of steps, at least one step, got {steps}")
        if noise_channels is not None and noise_channels < 0:
            raise ValueError(f"noise_channels must be 0 or more, got {noise_channels}")
        width = find_input(teacher.network, input_layer).weight.shape[1]
        if channels is None:
            channels = width // 2 if teacher.conditional else width
        noise_channels = channels if noise_channels is None else noise_channels
        expected = 2 * channels if teacher.conditional else channels
        if width != expected:
            raise ValueError(
                f"the input layer takes {width} channels, expected {expected} for images of {channels}: name another "
                "input_layer, or channels"
            )
        network = add_noise_input(teacher.network, channels, noise_channels, input_layer).requires_grad_(True)
        model = BridgeModel(network, teacher.bridge, conditional=teacher.conditional, prediction=teacher.prediction)
        forms = {task: model.form for task, model in (tasks or {}).items()}
        return cls(model, channels, noise_channels, teacher.bridge.grid(steps), forms).eval()

    def save(self, path: str | os.PathLike) -> None:
        """Write the weights as safetensors, with the bridge, prediction type and grid they belong to."""
        own: dict[str, Any] = {
            "channels": self.channels,
            "noise_channels": self.noise_channels,
            "grid": self.grid.tolist(),
        }
        own["tasks"] = {task: self.model_of(task).about for task in self.tasks}
        save_weights(path, self, self.model.about | own)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        network: nn.Module,
        *,
        input_layer: str = "input_layer",
        bridge: Bridge | None = None,
        prediction: Prediction | None = None,
    ) -> Student:
        """The student of a file that ``save`` wrote.  network: one as the teacher's, its weights do not matter.

        bridge, prediction: only needed where they are not of this package; the file names them, no more.
        """

        def build(about: Mapping[str, Any]) -> Student:
            own = form_of(about, bridge, prediction)
            channels, noise_channels = about["channels"], about["noise_channels"]
            model = BridgeModel(add_noise_input(network, channels, noise_channels, input_layer), **own._asdict())
            tasks = {int(task): form_of(told) for task, told in about.get("tasks", {}).items()}
            return cls(model, channels, noise_channels, torch.tensor(about["grid"], dtype=torch.float64), tasks)

        return loaded(path, "student", build)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As ``BridgeModel.compile``."""
        self.model.compile(*args, **kwargs)

    def model_of(self, task: int | None) -> BridgeModel:
        """The model, sharing its weights, in the form of that task; in its own where the task has none."""
        form = self.tasks.get(task) if task is not None else None
        return self.model if form is None else BridgeModel(self.model.network, **form._asdict())

    def grid_of(self, task: int | None) -> Float[Tensor, " times"]:
        """The times of its calls in that task: ``grid``, or its bridge's own as many where that ends at another T."""
        bridge = self.model_of(task).bridge
        return self.grid if bridge.T == self.model.bridge.T else bridge.grid(self.nfe)

    @property
    def nfe(self) -> int:
        """Network calls for an image."""
        return len(self.grid) - 1

    @torch.no_grad()
    def forward(self, source: Source | Tensor, *, generator: torch.Generator | None = None) -> Batch:
        """x0 for every source, without gradient (``walk`` has one); noise from ``generator`` or torch's own."""
        return self.walk(Source.of(source), self.nfe, generator)

    def walk(
        self, source: Source, calls: int, generator: torch.Generator | None = None, *, through: bool = False
    ) -> Batch:
        """x0 after ``calls`` network calls on the way down; the gradient is of the last call, or ``through`` all.

        Raises ValueError for an xT of another number of channels.
        """
        xT, bridge, grid = source.xT, self.model_of(source.task).bridge, self.grid_of(source.task)
        if xT.shape[1] != self.channels:
            raise ValueError(f"the student takes xT of {self.channels} channels, got shape {tuple(xT.shape)}")
        self.model.check_dtype(xT)
        xt = bridge.start(xT) if bridge.end_std == 0 else bridge.start(xT, _normal(xT, xT.shape, generator))
        with torch.set_grad_enabled(through and torch.is_grad_enabled()):
            for t, s in pairwise(grid[:calls]):
                from_xt, from_x0, std = (weight.item() for weight in bridge.posterior(t, s))
                x0 = self.step(xt, t, source, generator)
                xt = from_xt * xt + from_x0 * x0 + std * _normal(xt, xt.shape, generator)
        return self.step(xt, grid[calls - 1], source, generator)

    def step(self, xt: Batch, t: Tensor, source: Source, generator: torch.Generator | None = None) -> Batch:
        """G(xt, z, t[, xT]) with fresh z, the known pixels kept."""
        z = _normal(xt, (len(xt), self.noise_channels, *xt.shape[2:]), generator) if self.noise_channels else None
        time = torch.full((len(xt),), t.item(), device=xt.device, dtype=torch.promote_types(xt.dtype, torch.float32))
        model = self.model_of(source.task)
        return source.compose(model(xt, time, z=z, **model.given(source)))


def _normal(x: Tensor, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    return torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)


def find_input(network: nn.Module, layer: str) -> nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d:
    """The layer of that name; ValueError where there is none or noise channels cannot join it."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    try:
        found = network.get_submodule(layer)
    except AttributeError:
        names = [name for name, module in network.named_modules() if isinstance(module, kinds)]
        raise ValueError(f"the network has no layer {layer!r}; name its input layer, one of {names[:5]} ...") from None
    if not isinstance(found, kinds) or getattr(found, "groups", 1) != 1:
        raise ValueError(f"layer {layer!r} is {found}; noise can join a Linear or an ungrouped Conv layer only")
    return found


def add_noise_input(network: nn.Module, channels: int, noise_channels: int, layer: str = "input_layer") -> nn.Module:
    """A copy of the network whose input takes ``noise_channels`` more channels after the first ``channels``.

    Their weights are zero, so the copy computes what the network did until it is trained.  ``layer`` names
    the first linear or convolutional layer, e.g. "input_blocks.0.0"; the network must hand its first
    argument to it, alone or followed by xT.  Raises ValueError where it is of another kind.
    """
    network = copy.deepcopy(network)
    if noise_channels == 0:
        return network
    old = find_input(network, layer)
    if old.weight.shape[1] < channels:
        raise ValueError(f"layer {layer!r} takes {old.weight.shape[1]} channels, fewer than the image's {channels}")
    zeros = old.weight.new_zeros(old.weight.shape[0], noise_channels, *old.weight.shape[2:])
    old.weight = nn.Parameter(torch.cat([old.weight[:, :channels], zeros, old.weight[:, channels:]], 1).detach())
    setattr(old, "in_features" if isinstance(old, nn.Linear) else "in_channels", old.weight.shape[1])
    return network
