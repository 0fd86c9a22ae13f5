"""What the world did to an image: corruptions that turn a clean image x0 into a source xT.

Lives here: super-resolution, JPEG, blur and sketches; holes are in ``inpainting``, and ``corrupted`` pairs any of
them with images. A corruption is a small frozen object that is called on a batch of images in [-1, 1], on any
device, and returns images of the same shape. All are called alike, ``corruption(x0, generator)``, also those that
draw nothing. Imports torch and the package's ``Source``; Pillow and numpy load when a JPEG is first written.
"""

import io
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ibmd_lite.data.decoding import as_bytes
from ibmd_lite.model import Source

if TYPE_CHECKING:
    import numpy

__all__ = ["JPEG", "Blur", "Corruption", "Sketch", "SuperResolution", "check_images"]

Batch = Float[Tensor, "batch channels height width"]


class Corruption(Protocol):
    """Clean images in, corrupted images of the same shape out; a ``Source`` where a mask belongs to them.

    generator: where the randomness comes from, of whatever device; a corruption without randomness ignores it.
    """

    def __call__(self, x0: Batch, generator: torch.Generator | None = None) -> Tensor | Source: ...


def check_images(x0: Tensor) -> None:
    """Refuse what is not a batch of images (B, C, H, W): ValueError for another shape, TypeError for bytes."""
    if x0.ndim != 4:
        raise ValueError(
            f"x0 has shape {tuple(x0.shape)}; expected (batch, channels, height, width): "
            "give a single image as image[None]"
        )
    if not x0.is_floating_point():
        raise TypeError(f"x0 is {x0.dtype}; expected floats in [-1, 1]: for bytes, x0.float() / 127.5 - 1")


@dataclass(frozen=True)
class SuperResolution:
    """Shrink an image ``factor`` times per axis, then enlarge it to its former size.

    Args:
        factor: how many times smaller; height and width must be divisible by it.
        kind: ``"bicubic"`` shrinks and enlarges with the antialiased cubic filter (a = -0.5, the
            one of Pillow), so xT is itself the bicubic restoration; it can leave the image's range
            by a little, and is not clipped. ``"pool"`` averages squares of ``factor`` x ``factor``
            pixels and repeats the average. ``"repeat"`` shrinks with the cubic filter and repeats each
            pixel, which is what I2SB's published teacher of bicubic super-resolution was given.

    Raises:
        ValueError: a factor below 2, an unknown kind, an image that the factor does not divide.
    """

    factor: int = 4
    kind: Literal["bicubic", "pool", "repeat"] = "bicubic"

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise ValueError(f"factor is {self.factor}; expected an integer of at least 2")
        if self.kind not in ("bicubic", "pool", "repeat"):
            raise ValueError(f"kind is {self.kind!r}; expected 'bicubic', 'pool' or 'repeat'")

    def __call__(self, x0: Batch, generator: torch.Generator | None = None) -> Batch:
        """The corrupted images, of the clean ones' shape."""
        check_images(x0)
        height, width = x0.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"the image is {height} x {width}; expected height and width divisible by the "
                f"factor {self.factor}: crop the image"
            )
        if self.kind == "pool":
            small = functional.avg_pool2d(x0, self.factor)
        else:
            small_size = (height // self.factor, width // self.factor)
            small = functional.interpolate(x0, size=small_size, mode="bicubic", antialias=True)
        if self.kind == "bicubic":
            return functional.interpolate(small, size=(height, width), mode="bicubic", antialias=True)
        return functional.interpolate(small, size=(height, width), mode="nearest")


@dataclass(frozen=True)
class JPEG:
    """Write every image as a JPEG file, in memory, and read it again; the encoder is Pillow's (libjpeg).

    Values are clipped to [-1, 1] and rounded to bytes, as in any file. One channel is written as grey, three as
    colour with the colour planes at half the resolution (4:2:0). This happens on the CPU, about 10,000 images of
    64 x 64 a second, and xT comes back to the device of x0; no gradient passes.

    Args:
        quality: 1 (worst) to 100, in libjpeg's scale; 5 and 10 are the usual hard cases.

    Raises:
        ValueError: a quality that there is not, neither one nor three channels, images far outside [-1, 1].
    """

    quality: int = 10

    def __post_init__(self) -> None:
        if not (isinstance(self.quality, int) and 1 <= self.quality <= 100):
            raise ValueError(f"quality is {self.quality!r}; expected an integer from 1 to 100")

    def __call__(self, x0: Batch, generator: torch.Generator | None = None) -> Batch:
        """The images as they come out of the files, of the clean ones' shape."""
        check_images(x0)
        _check_colours(x0)
        if not bool(x0.abs().amax() <= 2):  # NaN fails this too, and would be a silent black pixel
            raise ValueError(
                f"x0 reaches from {float(x0.min()):g} to {float(x0.max()):g}; expected images in [-1, 1]: "
                "for values 0 to 255, x0 / 127.5 - 1"
            )
        pixels = as_bytes(x0.detach()).cpu()
        shares = pixels.permute(0, 2, 3, 1).contiguous().chunk(torch.get_num_threads())
        # Threads pay from about 256 x 256; below that Python's own work for each file is most of the time.
        with ThreadPoolExecutor(len(shares)) as pool:
            done = torch.cat(list(pool.map(self._through_files, shares)))
        return done.permute(0, 3, 1, 2).to(x0).contiguous() / 127.5 - 1

    def _through_files(self, pixels: Tensor) -> Tensor:
        import numpy

        decoded = [self._through_file(image) for image in pixels.numpy()]
        return torch.from_numpy(numpy.stack(decoded)).reshape(pixels.shape)

    def _through_file(self, image: "numpy.ndarray[Any, Any]") -> "numpy.ndarray[Any, Any]":
        import numpy
        from PIL import Image

        file = io.BytesIO()
        grey = image.shape[-1] == 1
        Image.fromarray(image[..., 0] if grey else image).save(file, "JPEG", quality=self.quality)
        with Image.open(file) as decoded:
            return numpy.array(decoded)


@dataclass(frozen=True)
class Blur:
    """Convolve with a Gaussian; beyond its border the image goes on with the border's pixels.

    Args:
        sigma: standard deviation of the Gaussian in pixels; it is cut off at four of them.

    Raises:
        ValueError: sigma is not a positive number.
    """

    sigma: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma is {self.sigma}; expected a positive number of pixels")

    def __call__(self, x0: Batch, generator: torch.Generator | None = None) -> Batch:
        """The blurred images, of the clean ones' shape."""
        check_images(x0)
        reach = math.floor(4 * self.sigma + 0.5)
        steps = torch.arange(-reach, reach + 1, device=x0.device, dtype=torch.float32)
        weights = torch.softmax(-0.5 * (steps / self.sigma).square(), dim=0).to(x0.dtype)
        planes = functional.pad(x0.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
        planes = functional.conv2d(functional.conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
        return planes.view_as(x0)


@dataclass(frozen=True)
class Sketch:
    """Edges of the image's brightness: dark soft lines on white, the same in every channel; no randomness.

    With Y = 0.299 R + 0.587 G + 0.114 B, blurred, and its gradient by Sobel's filter, in units per pixel,
    ``xT = 1 - 2 tanh(strength |grad Y|)``.  Brightness and colour are lost, and so is which side of an edge is
    the darker one: a picture and its negative have the same sketch.

    Args:
        sigma: of the blur before the gradient, in pixels; larger draws fewer, broader lines.
        strength: how dark a slope is drawn; larger shows fainter edges.

    Raises:
        ValueError: an argument that is not positive, neither one nor three channels.
    """

    sigma: float = 0.7
    strength: float = 4.0

    def __post_init__(self) -> None:
        for name in ("sigma", "strength"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive number")

    def __call__(self, x0: Batch, generator: torch.Generator | None = None) -> Batch:
        """The sketches, of the clean images' shape."""
        check_images(x0)
        _check_colours(x0)
        shares = x0.new_tensor([0.299, 0.587, 0.114] if x0.shape[1] == 3 else [1.0])
        brightness = Blur(self.sigma)(torch.einsum("bchw,c->bhw", x0, shares)[:, None])
        slope = x0.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
        around = functional.pad(brightness, (1, 1, 1, 1), mode="replicate")
        across, down = functional.conv2d(around, torch.stack([slope, slope.T])[:, None]).unbind(1)
        lines = torch.tanh(self.strength * torch.hypot(across, down))
        return (1 - 2 * lines)[:, None].expand_as(x0).contiguous()


def _check_colours(x0: Tensor) -> None:
    if x0.shape[1] not in (1, 3):
        raise ValueError(f"the images have {x0.shape[1]} channels; expected 1 (grey) or 3 (red, green, blue)")
