"""A compact U-Net for images, readable in one sitting and quick on a CPU.

Lives here: `UNet`. Imports torch and the time embedding alone.
It is fully convolutional and normalises each pixel over its channels, so nothing in it depends on
the size of the image: what was trained on crops restores a whole picture. Attention, where it is asked
for, takes any size too, but lets every pixel see the whole image.
Its first layer is called `input_layer`: a student widens it with channels for its noise.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ibmd_lite.networks.embedding import Conditions, time_embedding

__all__ = ["UNet"]

Layer = TypeVar("Layer", bound=nn.Module)


class UNet(nn.Module):
    """Convolutional network ``(xt, time[, xT][, label, task]) -> output``, ``output`` shaped like ``xt``'s image.

    Args:
        channels: channels of one image, and of the output.
        width: features at the finest level; even.
        multipliers: features of every level in units of ``width``, finest first; each further
            level halves height and width.
        blocks: residual blocks per level on the way down, and as many on the way up.
        patch: pixels that the first layer merges and the last one parts again, per axis; 2 makes
            everything between them work at half the height and width, about four times cheaper.
        conditional: whether the network sees xT beside xt; ``"optional"``: where it is given, and zeros where it is
            not, for tasks of both kinds.
        attention: whether the pixels of the coarsest level also look at each other, wherever they are;
            its features must then be divisible by 32. Worth it where far parts of an image must agree
            (large holes, drawings), not for whole pictures from a network of crops; the cost grows with the
            square of the number of those pixels.
        labels: how many class labels there are, 0 if the network is not told them.
        tasks: how many tasks there are, 0 if the network is not told them.

    Height and width must be divisible by ``downsampling``, ``patch * 2 ** (levels - 1)``.

    No dropout. The last layer starts at zero, so a fresh network returns 0. So does that of the attention: a
    trained network that is given one (``load_state_dict(..., strict=False)``) answers as before.
    Raises ValueError for an odd width, and for sizes below 1 or no multipliers.
    Source: Ho et al. 2020 (layout), Perez et al. 2018 (time as scale and shift), Vaswani et al. 2017 (attention).
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 1,
        patch: int = 1,
        conditional: bool | Literal["optional"] = False,
        *,
        attention: bool = False,
        labels: int = 0,
        tasks: int = 0,
    ) -> None:
        super().__init__()
        if not multipliers or min(multipliers) < 1:
            raise ValueError(f"multipliers is {tuple(multipliers)}; expected at least one positive integer")
        sizes = {"channels": channels, "width": width, "blocks": blocks, "patch": patch}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; expected an integer of at least 1")
        if width % 2:
            raise ValueError(f"width is {width}; expected an even number (half cosines, half sines)")
        self.channels, self.width, self.conditional = channels, width, conditional
        self.patch, self.downsampling = patch, patch * 2 ** (len(multipliers) - 1)
        widths = [width * multiplier for multiplier in multipliers]
        embedded = 4 * width
        self.time_layer = nn.Sequential(nn.Linear(width, embedded), nn.SiLU())
        self.conditions = Conditions(embedded, labels, tasks)
        inputs = channels * (2 if conditional else 1)
        self.input_layer = nn.Conv2d(inputs, width, patch + 2, stride=patch, padding=1)
        self.down = nn.ModuleList(_blocks(w, embedded, blocks) for w in widths)
        self.up = nn.ModuleList(_blocks(w, embedded, blocks) for w in widths)
        pairs = list(pairwise(widths))
        self.shrink = nn.ModuleList(nn.Conv2d(f, c, 3, stride=2, padding=1) for f, c in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(c, f, 1) for f, c in pairs)
        self.output_norm = _PixelNorm(width)
        self.output_layer = _zeroed(nn.Conv2d(width, channels * patch**2, 3, padding=1))
        self.attention = _Attention(widths[-1]) if attention else nn.Identity()  # last: it moves no other's draws

    def forward(
        self,
        xt: Float[Tensor, "batch inputs height width"],
        time: Float[Tensor, "batch"],
        xT: Float[Tensor, "batch channels height width"] | None = None,
        *,
        label: Int[Tensor, "batch"] | None = None,
        task: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        """Evaluate at states ``xt`` and scaled times ``time`` (about 0..1000), knowing ``xT``.

        Raises:
            ValueError: xT, label or task missing from a network made to see it, or given to one that is not;
                height or width not divisible by ``downsampling``.
        """
        if self.conditional == "optional":
            xT = xt.new_zeros(len(xt), self.channels, *xt.shape[2:]) if xT is None else xT
        elif (xT is not None) != self.conditional:
            raise ValueError(
                f"xT is {'given' if xT is not None else 'missing'}, "
                f"but the network was made with conditional={self.conditional}"
            )
        if xt.shape[-2] % self.downsampling or xt.shape[-1] % self.downsampling:
            raise ValueError(
                f"the image is {xt.shape[-2]} x {xt.shape[-1]}; expected height and width divisible "
                f"by {self.downsampling}: crop or pad the image"
            )
        image = xt if xT is None else torch.cat([xt, xT], dim=1)
        h = self.input_layer(image.contiguous(memory_format=torch.channels_last))
        features = self.time_layer(time_embedding(time, self.width).to(xt.dtype))
        embedding = self.conditions(features, label, task)
        kept: list[Tensor] = []
        for level, stage in enumerate(self.down):
            if level:
                kept.append(h)
                h = self.shrink[level - 1](h)
            h = stage(h, embedding)
        h = self.attention(h)
        for level in reversed(range(len(self.up))):
            h = self.up[level](h, embedding)
            if level:
                h = kept.pop() + functional.interpolate(self.grow[level - 1](h), scale_factor=2.0)
        h = self.output_layer(functional.silu(self.output_norm(h)))
        return functional.pixel_shuffle(h, self.patch)


class _PixelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel: no statistic crosses pixels."""

    def __init__(self, features: int) -> None:
        super().__init__(features)

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """``h + conv(silu(scale * norm(conv(silu(norm(h)))) + shift))``, scale and shift from the time."""

    def __init__(self, features: int, embedded: int) -> None:
        super().__init__()
        self.first_norm, self.second_norm = _PixelNorm(features), _PixelNorm(features)
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = _zeroed(nn.Conv2d(features, features, 3, padding=1))
        self.modulation = nn.Linear(embedded, 2 * features)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        inner = self.first(functional.silu(self.first_norm(h)))
        inner = self.second_norm(inner) * (1 + scale) + shift
        return h + self.second(functional.silu(inner))


class _Blocks(nn.ModuleList):
    """Residual blocks one after the other, all told the same time."""

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        for block in self:
            h = block(h, embedding)
        return h


class _Attention(nn.Module):
    """``h + linear(softmax(q k^T / sqrt(32)) v)`` over all pixels of an image, in heads of 32 features each."""

    def __init__(self, features: int, head: int = 32) -> None:
        super().__init__()
        if features % head:
            raise ValueError(
                f"the coarsest level has {features} features; attention expects a multiple of {head}: change width or "
                "the last of multipliers"
            )
        self.head, self.norm = head, _PixelNorm(features)
        self.inputs = nn.Linear(features, 3 * features)
        self.outputs = _zeroed(nn.Linear(features, features))

    def forward(self, h: Tensor) -> Tensor:
        pixels = self.norm(h).flatten(2).mT  # batch, pixels, features
        q, k, v = self.inputs(pixels).unflatten(-1, (3, -1, self.head)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v)  # batch, heads, pixels, features of a head
        return h + self.outputs(seen.transpose(1, 2).flatten(2)).mT.unflatten(2, h.shape[2:])


def _zeroed(layer: Layer) -> Layer:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _blocks(features: int, embedded: int, blocks: int) -> _Blocks:
    return _Blocks(_Block(features, embedded) for _ in range(blocks))
