"""How a network sees the time, and which label or task it works on.

Lives here: the sinusoidal embedding and the table of conditions that both networks share. Imports torch alone.
Times arrive already scaled to about 0..1000 (the model does that, by the bridge's own rule).
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["Conditions", "time_embedding"]


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


class Conditions(nn.Module):
    """Adds to the time's features a learned vector per class label and one per task.

    Args:
        features: length of the vectors.
        labels: number of class labels; 0 for a network that sees none.
        tasks: number of tasks; 0 for a network that sees none.

    The tables start at zero: a trained network that is given one (``load_state_dict(..., strict=False)``)
    answers as before, for every label and task, until it is trained again. For numbers that are not names,
    such as an angle, a table is the wrong thing.

    Raises:
        ValueError: a number of labels or tasks below 0.
    """

    def __init__(self, features: int, labels: int = 0, tasks: int = 0) -> None:
        super().__init__()
        for name, count in {"labels": labels, "tasks": tasks}.items():
            if count < 0:
                raise ValueError(f"{name} is {count}; expected how many there are, or 0 for none")
        self.tables = nn.ModuleDict()
        for name, count in {"label": labels, "task": tasks}.items():
            if count:
                self.tables[name] = nn.Embedding(count, features)
                nn.init.zeros_(self.tables[name].weight)  # type: ignore[arg-type]

    def forward(
        self,
        h: Float[Tensor, "batch features"],
        label: Int[Tensor, "batch"] | None,
        task: Int[Tensor, "batch"] | None,
    ) -> Float[Tensor, "batch features"]:
        """``h`` plus what the tables say.

        Raises:
            ValueError: a label or task that is missing, given to a network that sees none, not one whole
                number per element, or off the table (looked at on the CPU only).
        """
        for name, given in {"label": label, "task": task}.items():
            if (given is not None) != (name in self.tables):
                raise ValueError(
                    f"{name} is {'missing' if given is None else 'given'}, but the network was made with "
                    f"{name}s={len(self.tables[name].weight) if name in self.tables else 0}"  # type: ignore[arg-type]
                )
            if given is not None:
                self._check(name, given, len(h))
                h = h + self.tables[name](given).to(h.dtype)
        return h

    def _check(self, name: str, given: Tensor, batch: int) -> None:
        if given.shape != (batch,) or given.dtype not in (torch.int32, torch.int64):
            raise ValueError(
                f"{name} is {given.dtype} of shape {tuple(given.shape)}; expected ({batch},), one whole number each"
            )
        count = len(self.tables[name].weight)  # type: ignore[arg-type]
        if given.device.type == "cpu" and not bool(((given >= 0) & (given < count)).all()):
            raise ValueError(f"{name} is {given.unique().tolist()}; the network knows 0 to {count - 1}")
