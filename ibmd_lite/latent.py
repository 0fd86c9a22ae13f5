"""Latent bridges: teacher and student work on the codes of an autoencoder, a few of them for many pixels.

Lives here: ``Latent``, an encoder and a decoder of your own with the checks that streams of images need.  A bridge
between codes is a bridge like any other (LBM, 2503.07535, is ``Brownian`` on codes), so training, sampling and
distillation are the same code on other tensors.  What the decoder cannot say is lost before any of them begins.

Imports torch, jaxtyping and ``model``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ibmd_lite.model import Source

__all__ = ["Latent"]

Images = Float[Tensor, "batch channels height width"]
Codes = Float[Tensor, "batch features rows columns"]
DrawsSources = Callable[[int, torch.Generator], Tensor | Source]
DrawsPairs = Callable[[int, torch.Generator], tuple[Tensor, Tensor | Source]]


class Restores(Protocol):
    """``Student``, or whatever else answers a source in the space of the codes."""

    def __call__(self, source: Source, *, generator: torch.Generator | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Latent:
    """Images as codes, ``codes(x) = scale encode(x)``, and back, ``images(x) = decode(x / scale)``; never a gradient.

    ``Draws(latent.pairs(coupling.draw), batch)`` feeds ``TeacherTraining``, ``Draws(latent.sources(draw), batch)``
    feeds ``Distillation``, ``restore`` puts the student to work.  Make one with ``Latent.fitted``, which finds the
    scale.  Not for an autoencoder whose own restorations you would not accept: they are the best you can get.
    Keep the scale and the autoencoder beside the student's file: neither ``Student.save`` nor the export holds them.

    Args:
        encode: images (B, C, H, W) to codes (B, F, H/f, W/f), the same for the same images.  For an encoder that
            returns a distribution take its mean; put modules in evaluation mode first.
        decode: such codes to images.
        scale: what codes are multiplied by.  A bridge's noise is chosen for data of about unit size.
        reach: by how many codes a hole is wider than the codes that lie over it, because an encoder sees around; the
            encoder's receptive field without the codes' own pixels, one side, in codes, rounded up.

    Raises:
        TypeError: something that cannot be called; an encoder or decoder that returns no tensor.
        ValueError: a scale that is not positive; codes without rows and columns or with other values than finite
            floats; images whose side is no multiple of the codes'; a decoder that returns another shape.
    """

    encode: Callable[[Images], Codes]
    decode: Callable[[Codes], Images]
    scale: float = 1.0
    reach: int = 0

    def __post_init__(self) -> None:
        for name in ("encode", "decode"):
            value = getattr(self, name)
            if isinstance(value, type) or not callable(value):
                raise TypeError(f"{name} is {value!r}; expected a function of a batch, or a module")
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"scale is {self.scale}; expected a positive number: Latent.fitted finds it from images")
        if not isinstance(self.reach, int) or self.reach < 0:
            raise ValueError(f"reach is {self.reach}; expected a whole number of codes, 0 or more")

    @classmethod
    def fitted(
        cls, encode: Callable[[Images], Codes], decode: Callable[[Codes], Images], images: Images, *, reach: int = 0
    ) -> Latent:
        """With the scale that gives the codes of these images unit variance, all channels together.

        The images are encoded twice and decoded once, to see that the codes are the same and that the images come
        back: in their own shape, or ValueError, and nearer than the mean of the images is, or ``UserWarning``.
        """
        plain = cls(encode, decode, reach=reach)
        codes = plain.codes(images)
        if not torch.allclose(codes, plain.codes(images), rtol=1e-3, atol=1e-3 * codes.abs().mean().item()):
            raise ValueError(
                "encode answers the same images with different codes: call eval() on its module, for it may hold "
                "dropout or batch norm, and take the mean of a distribution, not a draw"
            )
        again = plain.images(codes, images.shape)
        error, spread = (again - images).square().mean(), (images - images.mean(0)).square().mean()
        if len(images) > 1 and error > spread:
            warnings.warn(
                f"decoded codes are farther from the images than their mean is (mean square {error:.3g}, of the mean "
                f"{spread:.3g}): give the decoder that belongs to encode, and images in its range",
                stacklevel=2,
            )
        size = codes.std().item() if codes.numel() > 1 else 0.0
        if not size > 0:
            raise ValueError("all codes of these images are one number; no scale gives them unit variance")
        return replace(plain, scale=1 / size)

    @torch.no_grad()
    def codes(self, x: Images) -> Codes:
        """``scale encode(x)``."""
        if not isinstance(x, Tensor) or x.ndim < 3 or not x.is_floating_point():
            given = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"images are a floating-point batch (B, C, H, W), got {given}")
        try:
            codes = self.encode(x)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            size = " x ".join(map(str, x.shape[2:]))
            raise ValueError(
                f"encode cannot take images of {size} pixels, {x.shape[1]} channels, {x.dtype}: {error}. If their size "
                "is the fault, crop or pad them to a multiple of the pixels of one code, often 4, 8 or 16 a side"
            ) from error
        if not isinstance(codes, Tensor):
            raise TypeError(
                f"encode returned {type(codes).__name__}; expected a tensor: for a distribution, its mean, such as "
                "lambda x: autoencoder.encode(x).latent_dist.mean"
            )
        if codes.ndim != x.ndim or len(codes) != len(x) or not codes.is_floating_point():
            raise ValueError(
                f"encode made {codes.dtype} {tuple(codes.shape)} of {tuple(x.shape)}; expected floats (B, F, H/f, W/f)"
            )
        if any(pixels % count for pixels, count in zip(x.shape[2:], codes.shape[2:], strict=True)):
            raise ValueError(
                f"encode made {tuple(codes.shape[2:])} codes of {tuple(x.shape[2:])} pixels; expected sides that "
                "divide the image's: crop or pad the images"
            )
        if not bool(codes.isfinite().all()):
            raise ValueError("encode returned NaN or infinite values; look at the images, or encode in float32")
        return self.scale * codes

    @torch.no_grad()
    def images(self, codes: Codes, shape: torch.Size | None = None) -> Images:
        """``decode(codes / scale)``; ValueError where that has not the shape asked for."""
        images = self.decode(codes / self.scale)
        if not isinstance(images, Tensor):
            raise TypeError(
                f"decode returned {type(images).__name__}; expected a tensor, such as autoencoder(x).sample"
            )
        if shape is not None and images.shape != shape:
            raise ValueError(
                f"the images are {tuple(shape)}, decoded {tuple(images.shape)}; give the decoder that belongs to encode"
            )
        return images

    def source(self, source: Source | Tensor, generator: torch.Generator | None = None) -> Source:
        """A source of images as one of codes, with its label and task.

        A code is in the hole if any of its pixels is, or any pixel it sees (``reach``).  The hole is grey while the
        image is encoded, and its codes are noise of N(0, 1): what a pixel's noise becomes in an encoder is no bridge's.
        """
        source = Source.of(source)
        if source.mask is None:
            return replace(source, xT=self.codes(source.xT))
        known = self.codes((1 - source.mask) * source.xT)
        mask = self._mask(source.mask, known)
        device = known.device if generator is None else generator.device
        noise = torch.randn(known.shape, generator=generator, device=device).to(known)
        return replace(source, xT=torch.where(mask > 0.5, noise, known), mask=mask.to(known.device))

    def pairs(self, draw: DrawsPairs) -> Callable[[int, torch.Generator], tuple[Codes, Source]]:
        """What draws pairs of codes, for ``Draws``, of what draws pairs of images, such as ``coupling.draw``."""
        return partial(self._pair, draw)

    def sources(self, draw: DrawsSources) -> Callable[[int, torch.Generator], Source]:
        """What draws sources of codes, for ``Draws``, of what draws corrupted images, such as ``coupling.sources``."""
        return partial(self._source, draw)

    def restore(self, student: Restores, source: Source | Tensor, generator: torch.Generator | None = None) -> Images:
        """Corrupted images restored: encoded, answered by the student, decoded; known pixels are those given."""
        source = Source.of(source)
        answer = student(self.source(source, generator), generator=generator)
        return source.compose(self.images(answer, source.xT.shape))

    def _pair(self, draw: DrawsPairs, n: int, generator: torch.Generator) -> tuple[Codes, Source]:
        x0, source = draw(n, generator)
        return self.codes(x0), self.source(source, generator)

    def _source(self, draw: DrawsSources, n: int, generator: torch.Generator) -> Source:
        return self.source(draw(n, generator), generator)

    def _mask(self, mask: Tensor, codes: Codes) -> Tensor:
        """The largest value over a code's pixels, then over the codes within reach."""
        touched = functional.adaptive_max_pool2d(mask, codes.shape[2:])
        return functional.max_pool2d(touched, 2 * self.reach + 1, stride=1, padding=self.reach)
