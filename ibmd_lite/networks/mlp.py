"""A small perceptron for points in the plane (or in any few dimensions).

Lives here: `MLP`. Imports torch and the time embedding alone.
Its first layer is called `input_layer`: a student widens it with columns for its noise.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ibmd_lite.networks.embedding import Conditions, time_embedding

__all__ = ["MLP"]


class MLP(nn.Module):
    """Residual perceptron ``(xt, time[, xT][, label, task]) -> output`` with ``output`` of shape (batch, dimension).

    Use it for vectors of at most some tens of numbers; images want `UNet`.

    Args:
        dimension: length of one point, and of one output.
        width: features of every hidden layer; even.
        depth: residual layers between the first and the last.
        conditional: whether the network sees xT beside xt.
        labels: how many class labels there are, 0 if the network is not told them.
        tasks: how many tasks there are, 0 if the network is not told them.

    The last layer starts at zero, so a fresh network returns 0.

    Raises:
        ValueError: an odd width, or a size below 1.
    """

    def __init__(
        self,
        dimension: int = 2,
        width: int = 128,
        depth: int = 3,
        conditional: bool = False,
        *,
        labels: int = 0,
        tasks: int = 0,
    ) -> None:
        super().__init__()
        for name, value in {"dimension": dimension, "width": width, "depth": depth}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; expected an integer of at least 1")
        if width % 2:
            raise ValueError(f"width is {width}; expected an even number (half cosines, half sines)")
        self.dimension, self.width, self.conditional = dimension, width, conditional
        self.input_layer = nn.Linear(dimension * (2 if conditional else 1), width)
        self.time_layer = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.conditions = Conditions(width, labels, tasks)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.output_layer = nn.Linear(width, dimension)
        nn.init.zeros_(self.output_layer.weight)
        nn.init.zeros_(self.output_layer.bias)

    def forward(
        self,
        xt: Float[Tensor, "batch points"],
        time: Float[Tensor, "batch"],
        xT: Float[Tensor, "batch dimension"] | None = None,
        *,
        label: Int[Tensor, "batch"] | None = None,
        task: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch dimension"]:
        """Evaluate at states ``xt`` and scaled times ``time`` (about 0..1000), knowing ``xT``.

        Raises:
            ValueError: xT, label or task missing from a network made to see it, or given to one that is not.
        """
        if (xT is not None) != self.conditional:
            raise ValueError(
                f"xT is {'given' if xT is not None else 'missing'}, "
                f"but the network was made with conditional={self.conditional}"
            )
        points = xt if xT is None else torch.cat([xt, xT], dim=1)
        h = self.input_layer(points)
        features = self.time_layer(time_embedding(time, self.width).to(h.dtype))
        h = h + self.conditions(features, label, task)
        for layer in self.hidden:
            h = h + layer(nn.functional.silu(h))
        output: Tensor = self.output_layer(nn.functional.silu(h))
        return output
