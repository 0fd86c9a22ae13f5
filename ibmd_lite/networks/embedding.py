"""How a network sees the time.

Lives here: the sinusoidal embedding that both networks share. Imports torch alone.
Times arrive already scaled to about 0..1000 (the model does that, by the bridge's own rule).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["time_embedding"]


def time_embedding(
    time: Float[Tensor, "batch"], features: int, longest: float = 10_000.0
) -> Float[Tensor, "batch features"]:
    """Cosines and sines of the time at ``features / 2`` frequencies from 1 down to 1 / longest.

    Args:
        time: scaled times, one per element of the batch, about 0..1000.
        features: how many numbers describe one time; even.
        longest: the longest period, divided by 2 pi.

    Raises:
        ValueError: ``time`` is not of shape (batch,), or ``features`` is odd.

    Source: Vaswani et al. 2017, section 3.5; Ho et al. 2020, appendix B.
    """
    if time.ndim != 1:
        raise ValueError(
            f"time has shape {tuple(time.shape)}; expected (batch,), one scaled time per element: "
            "drop the other axes, for example with time[:, 0]"
        )
    if features < 2 or features % 2:
        raise ValueError(f"features is {features}; expected an even number of at least 2")
    half = features // 2
    exponent = torch.arange(half, device=time.device, dtype=torch.float32) / half
    angle = time.float()[:, None] * torch.exp(-math.log(longest) * exponent)
    return torch.cat([angle.cos(), angle.sin()], dim=1)
