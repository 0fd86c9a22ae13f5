"""Figures for restored images, one formula each. Imports torch alone."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["diversity", "psnr", "ssim"]

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
    _check_pair(restored, clean)
    half_range = value_range / 2
    error = (restored.float().clamp(-half_range, half_range) - clean.float()).square()
    smallest = (value_range / 255 / 2) ** 2
    per_image = error.flatten(1).mean(dim=1).clamp(min=smallest)
    return float((10 * torch.log10(value_range**2 / per_image)).mean())


WINDOW, SPREAD = 11, 1.5


def ssim(
    restored: Float[Tensor, "batch channels height width"],
    clean: Float[Tensor, "batch channels height width"],
    value_range: float = 2.0,
) -> float:
    """Structural similarity, 1 for equal images: how well the shape of small neighbourhoods agrees.

    ``(2 m m' + C1)(2 s + C2) / ((m^2 + m'^2 + C1)(v + v' + C2))`` with means m, variances v and the
    covariance s under a Gaussian window of 11 x 11 pixels and standard deviation 1.5, C1 = (0.01
    range)^2 and C2 = (0.03 range)^2; the mean over the windows that lie inside the image, over
    channels and images. Restored values outside the range are brought back to it first.

    Raises:
        ValueError: the shapes differ, or a side is shorter than the window.

    Source: Wang et al. 2004; `structural_similarity` of scikit-image with ``gaussian_weights``.
    """
    _check_pair(restored, clean)
    if restored.ndim != 4 or min(restored.shape[-2:]) < WINDOW:
        raise ValueError(
            f"the images have shape {tuple(restored.shape)}; expected (batch, channels, height, width) with "
            f"sides of at least {WINDOW} pixels, the size of a window"
        )
    half_range = value_range / 2
    # In float32 the difference of two means of squares would keep few digits.
    x, y = (image.double() for image in (restored.clamp(-half_range, half_range), clean))
    down, across = (_windows(side).to(clean.device) for side in clean.shape[-2:])
    moments = torch.stack([x, y, x * x, y * y, x * y])
    mx, my, xx, yy, xy = down @ moments @ across.T
    c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    means = (2 * mx * my + c1) / (mx**2 + my**2 + c1)
    return float((means * (2 * (xy - mx * my) + c2) / (xx - mx**2 + yy - my**2 + c2)).mean())


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


def _windows(side: int) -> Float[Tensor, "windows side"]:
    """One row of weights for every place of the window along a side."""
    steps = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    places = torch.arange(side - WINDOW + 1)[:, None] + torch.arange(WINDOW)
    weights = torch.softmax(-0.5 * (steps / SPREAD).square(), dim=0)
    return torch.zeros(len(places), side, dtype=torch.float64).scatter(1, places, weights.expand_as(places))


def _check_pair(restored: Tensor, clean: Tensor) -> None:
    if restored.shape != clean.shape or restored.ndim < 2:
        raise ValueError(
            f"the images have shapes {tuple(restored.shape)} and {tuple(clean.shape)}; expected the "
            "same shape (batch, ...): a loss of shape would broadcast and measure the wrong thing"
        )
