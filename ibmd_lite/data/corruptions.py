"""What the world did to an image: corruptions that turn a clean image x0 into a source xT.

Lives here: super-resolution. Imports torch alone. A corruption is a small frozen object, called on
a batch of images, that returns images of the same shape.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

__all__ = ["SuperResolution"]


@dataclass(frozen=True)
class SuperResolution:
    """Shrink an image ``factor`` times per axis, then enlarge it to its former size.

    Args:
        factor: how many times smaller; height and width must be divisible by it.
        kind: ``"bicubic"`` shrinks and enlarges with the antialiased cubic filter (a = -0.5, the
            one of Pillow), so xT is itself the bicubic restoration; it can leave the image's range
            by a little, and is not clipped. ``"pool"`` averages squares of ``factor`` x ``factor``
            pixels and repeats the average.

    Raises:
        ValueError: a factor below 2, an unknown kind, an image that the factor does not divide.
    """

    factor: int = 4
    kind: Literal["bicubic", "pool"] = "bicubic"

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise ValueError(f"factor is {self.factor}; expected an integer of at least 2")
        if self.kind not in ("bicubic", "pool"):
            raise ValueError(f"kind is {self.kind!r}; expected 'bicubic' or 'pool'")

    def __call__(
        self, x0: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The corrupted images, of the clean ones' shape."""
        if x0.ndim != 4:
            raise ValueError(
                f"x0 has shape {tuple(x0.shape)}; expected (batch, channels, height, width): "
                "give a single image as image[None]"
            )
        height, width = x0.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"the image is {height} x {width}; expected height and width divisible by the "
                f"factor {self.factor}: crop the image"
            )
        if self.kind == "pool":
            small = functional.avg_pool2d(x0, self.factor)
            return functional.interpolate(small, size=(height, width), mode="nearest")
        small_size = (height // self.factor, width // self.factor)
        small = functional.interpolate(x0, size=small_size, mode="bicubic", antialias=True)
        return functional.interpolate(small, size=(height, width), mode="bicubic", antialias=True)
