"""Figures for restored images, one formula each. Imports torch alone."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["diversity", "psnr"]

Images = Float[Tensor, "batch *dims"]


def psnr(restored: Images, clean: Images, value_range: float = 2.0) -> float:
    """Peak signal to noise ratio in decibels, ``10 log10(range^2 / mean squared error)``.

    One ratio per image, then the mean over images. ``value_range`` is 2 for images in [-1, 1].
    Restored values outside the range are brought back to it first, as a file would. An image
    restored to better than half a step of a byte counts as that half step (about 54 dB): one
    perfect image must not make the mean infinite.

    Raises:
        ValueError: the shapes differ.
    """
    if restored.shape != clean.shape or restored.ndim < 2:
        raise ValueError(
            f"the images have shapes {tuple(restored.shape)} and {tuple(clean.shape)}; expected the "
            "same shape (batch, ...): a loss of shape would broadcast and measure the wrong thing"
        )
    half_range = value_range / 2
    error = (restored.float().clamp(-half_range, half_range) - clean.float()).square()
    smallest = (value_range / 255 / 2) ** 2
    per_image = error.flatten(1).mean(dim=1).clamp(min=smallest)
    return float((10 * torch.log10(value_range**2 / per_image)).mean())


def diversity(outputs: Float[Tensor, "draws batch *dims"]) -> float:
    """How different several outputs for one input are: root mean square difference per element.

    ``sqrt(E (x - x')^2)`` over pairs of different draws for the same input, all inputs and all
    elements; for independent draws it is sqrt(2) times their standard deviation. A deterministic
    model has 0.

    Args:
        outputs: several draws, each for the same batch of inputs in the same order.

    Raises:
        ValueError: fewer than two draws.
    """
    if outputs.ndim < 3 or len(outputs) < 2:
        raise ValueError(
            f"outputs has shape {tuple(outputs.shape)}; expected (draws, batch, ...) with at least "
            "two draws: torch.stack the outputs of several calls"
        )
    # The mean square difference of all pairs of draws is twice the unbiased variance.
    return float((2 * outputs.float().var(dim=0, unbiased=True).mean()).sqrt())
