"""ADM, the U-Net that published bridge teachers are made of, under the names of their checkpoints.

The layout is that of guided-diffusion (2105.05233), which I2SB, DDBM, DBIM and BBDM took over: a state dict of theirs
fits ``ADM(architecture)`` key by key, and their parameters are registered in the same order.  Only what those four
use is here: residual blocks that halve and double the image, scale-and-shift by the time, heads of a given width.

Facts read in NVlabs/I2SB (guided_diffusion/script_util.py), alexzhou907/DDBM (ddbm/unet.py) and xuekt98/BBDM
(diffusionmodules/openaimodel.py, util.py); written anew.  Imports torch, jaxtyping and the time embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ibmd_lite.networks.embedding import time_embedding

__all__ = ["ADM", "Architecture", "ResidualBlock"]

Layer = TypeVar("Layer", bound=nn.Module)
GROUPS = 32  # of every GroupNorm, whose statistics torch takes in single precision whatever the network's own


@dataclass(frozen=True)
class Architecture:
    """What distinguishes one ADM from another.

    Parameters
    ----------
    width : features at the finest level; a multiple of 32, as all levels must be
    multipliers : features of every level in units of ``width``, finest first; each level halves height and width
    blocks : residual blocks per level on the way down; one more on the way up
    attention : downsampling factors at which pixels look at each other; the middle always does
    head : features of one attention head
    order : how ``qkv`` lists its outputs: "legacy", head by head (q, k, v of the first head, then of the second);
        "new", first q of all heads, then k, then v (DDBM's flash attention)
    attention_axes : ``qkv`` and ``proj_out`` are stored as convolutions over so many axes, 1 or (DDBM) 2
    conditional : whether xT is seen: it joins xt on the channels, unscaled
    labels : number of class labels, 0 if the network is not told them
    channels : of one image
    dropout : as in training; a network in evaluation mode has none

    Raises ValueError for sizes that are not positive, or do not part into groups and heads, and for an unknown order.
    """

    width: int = 256
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    blocks: int = 2
    attention: tuple[int, ...] = (8, 16, 32)
    head: int = 64
    order: Literal["legacy", "new"] = "legacy"
    attention_axes: Literal[1, 2] = 1
    conditional: bool = False
    labels: int = 0
    channels: int = 3
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.multipliers or min(self.multipliers) < 1 or self.blocks < 1 or self.channels < 1:
            raise ValueError(
                f"multipliers, blocks and channels must be positive, got {self.multipliers}, {self.blocks} and "
                f"{self.channels}"
            )
        if self.width < GROUPS or self.width % GROUPS:
            raise ValueError(f"width is {self.width}; normalisation is over {GROUPS} groups, give a multiple of them")
        for factor in {*self.attention, self.downsampling}:
            level = factor.bit_length() - 1
            if factor == 2**level and level < len(self.multipliers) and self.features[level] % self.head:
                raise ValueError(
                    f"{self.features[level]} features, those at 1/{factor} of the size, do not part into heads of "
                    f"{self.head}: choose another width or head"
                )
        if self.order not in ("legacy", "new") or self.attention_axes not in (1, 2):
            raise ValueError(
                f"order must be 'legacy' or 'new' and attention_axes 1 or 2, got {self.order!r} and "
                f"{self.attention_axes}"
            )

    @property
    def features(self) -> list[int]:
        """Of every level, finest first."""
        return [self.width * multiplier for multiplier in self.multipliers]

    @property
    def downsampling(self) -> int:
        """Height and width must be divisible by this."""
        return 2 ** (len(self.multipliers) - 1)


class ADM(nn.Module):
    """The network ``(xt, time[, xT][, label]) -> output``, the output shaped like one image.

    Not for a small machine at its published size (550 M parameters at 256 x 256); for little networks of your own,
    ``networks.UNet`` is quicker and free of the size of the image.

    Where memory is short, ``training.recompute(network, ADM.blocks)`` computes the inside of every block a second time
    instead of keeping it.  A student widens the first layer, ``Student.of(teacher, input_layer=ADM.input_layer)``.  The
    last convolution of every block and of the network starts at zero, so a fresh network returns 0.

    Parameters
    ----------
    architecture : its sizes
    """

    input_layer = "input_blocks.0.0"
    blocks = r"(input_blocks|output_blocks)\.\d+\.\d+|middle_block\.\d+"

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        own = architecture
        self.architecture, self.conditional = own, own.conditional
        finest, embedded, last = own.width * own.multipliers[0], 4 * own.width, len(own.multipliers) - 1
        self.time_embed = nn.Sequential(nn.Linear(own.width, embedded), nn.SiLU(), nn.Linear(embedded, embedded))
        if own.labels:
            self.label_emb = nn.Embedding(own.labels, embedded)
        inputs = own.channels * (2 if own.conditional else 1)
        down: list[nn.Sequential] = [nn.Sequential(nn.Conv2d(inputs, finest, 3, padding=1))]
        kept, features = [finest], finest
        for level, wide in enumerate(own.features):
            for _ in range(own.blocks):
                down.append(nn.Sequential(*self._stage(features, wide, 2**level)))
                features = wide
                kept.append(features)
            if level < last:
                down.append(nn.Sequential(ResidualBlock(features, features, embedded, own.dropout, "down")))
                kept.append(features)
        self.input_blocks = nn.ModuleList(down)
        middle = (ResidualBlock(features, features, embedded, own.dropout) for _ in range(2))
        self.middle_block = nn.Sequential(next(middle), _Attention(features, own), next(middle))
        up: list[nn.Sequential] = []
        for level, wide in reversed(list(enumerate(own.features))):
            for block in range(own.blocks + 1):
                stage = self._stage(features + kept.pop(), wide, 2**level)
                if level and block == own.blocks:
                    stage.append(ResidualBlock(wide, wide, embedded, own.dropout, "up"))
                up.append(nn.Sequential(*stage))
                features = wide
        self.output_blocks = nn.ModuleList(up)
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, features), nn.SiLU(), _zeroed(nn.Conv2d(finest, own.channels, 3, padding=1))
        )

    def _stage(self, features: int, wide: int, factor: int) -> list[nn.Module]:
        own = self.architecture
        block = ResidualBlock(features, wide, 4 * own.width, own.dropout)
        return [block, _Attention(wide, own)] if factor in own.attention else [block]

    def forward(
        self,
        xt: Float[Tensor, "batch inputs height width"],
        time: Float[Tensor, "batch"],
        xT: Float[Tensor, "batch channels height width"] | None = None,
        *,
        label: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        """Evaluate at states ``xt`` and times in the teacher's own units, knowing ``xT`` and ``label``.

        Raises:
            ValueError: xT or label missing from a network made to see it, or given to one that is not; a label that
                is no whole number per image, or off the table; an image that cannot be halved so often.
        """
        self._check(xt, xT, label)
        waves = time_embedding(time, self.architecture.width)
        embedding = self.time_embed(waves.to(next(self.parameters()).dtype))
        if label is not None:
            embedding = embedding + self.label_emb(label)
        h = xt if xT is None else torch.cat([xt, xT], 1)
        kept = []
        for stage in self.input_blocks:
            h = _through(stage, h, embedding)
            kept.append(h)
        h = _through(self.middle_block, h, embedding)
        for stage in self.output_blocks:
            h = _through(stage, torch.cat([h, kept.pop()], 1), embedding)
        return self.out(h)

    def _check(self, xt: Tensor, xT: Tensor | None, label: Tensor | None) -> None:
        own = self.architecture
        if (xT is not None) != own.conditional:
            raise ValueError(
                f"xT is {'given' if xT is not None else 'missing'}, but the network was made with "
                f"conditional={own.conditional}"
            )
        if (label is not None) != bool(own.labels):
            raise ValueError(
                f"label is {'given' if label is not None else 'missing'}, but the network was made with "
                f"labels={own.labels}; labels come with Source(xT, label=...)"
            )
        if label is not None:
            if label.shape != xt.shape[:1] or label.dtype not in (torch.int32, torch.int64):
                raise ValueError(
                    f"label is {label.dtype} of shape {tuple(label.shape)}; expected one whole number per image, "
                    f"shape {tuple(xt.shape[:1])}"
                )
            if label.device.type == "cpu" and not bool(((label >= 0) & (label < own.labels)).all()):
                raise ValueError(f"label is {label.unique().tolist()}; the network knows 0 to {own.labels - 1}")
        if xt.shape[-2] % own.downsampling or xt.shape[-1] % own.downsampling:
            raise ValueError(
                f"the image is {xt.shape[-2]} x {xt.shape[-1]}; expected height and width divisible by "
                f"{own.downsampling}: crop or pad the image"
            )


class ResidualBlock(nn.Module):
    """``skip(h) + conv(silu(norm(conv(silu(norm(h)))) (1 + scale) + shift))``, scale and shift from the time.

    A block that goes "down" averages 2 x 2 pixels, one that goes "up" repeats them, in both branches, before the
    first convolution.
    """

    def __init__(self, features: int, wide: int, embedded: int, dropout: float, to: Literal["down", "up", ""] = ""):
        super().__init__()
        self.to_size = to
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, features), nn.SiLU(), nn.Conv2d(features, wide, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedded, 2 * wide))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, wide), nn.SiLU(), nn.Dropout(dropout), _zeroed(nn.Conv2d(wide, wide, 3, padding=1))
        )
        self.skip_connection = nn.Identity() if wide == features else nn.Conv2d(features, wide, 1)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        norm, activation, first = self.in_layers
        inner = first(self._resize(activation(norm(h))))
        scale, shift = self.emb_layers(embedding).to(inner.dtype)[:, :, None, None].chunk(2, 1)
        norm, *rest = self.out_layers
        inner = norm(inner) * (1 + scale) + shift
        for layer in rest:
            inner = layer(inner)
        return self.skip_connection(self._resize(h)) + inner

    def _resize(self, h: Tensor) -> Tensor:
        if self.to_size == "down":
            return functional.avg_pool2d(h, 2)
        return functional.interpolate(h, scale_factor=2.0) if self.to_size == "up" else h


class _Attention(nn.Module):
    """``h + proj_out(softmax(q^T k / sqrt(head)) v)`` over all pixels of an image."""

    def __init__(self, features: int, architecture: Architecture) -> None:
        super().__init__()
        conv = nn.Conv1d if architecture.attention_axes == 1 else nn.Conv2d
        self.head, self.order = architecture.head, architecture.order
        self.norm = nn.GroupNorm(GROUPS, features)
        self.qkv = conv(features, 3 * features, 1)
        self.proj_out = _zeroed(conv(features, features, 1))

    def forward(self, h: Tensor) -> Tensor:
        joint = _per_pixel(self.qkv, self.norm(h).flatten(2).mT)  # batch, pixels, 3 * features
        q, k, v = self.parts(joint)
        seen = functional.scaled_dot_product_attention(q, k, v)  # batch, heads, pixels, features of a head
        return h + _per_pixel(self.proj_out, seen.transpose(1, 2).flatten(2)).mT.unflatten(2, h.shape[2:])

    def parts(self, joint: Tensor) -> tuple[Tensor, ...]:
        """q, k and v, each (batch, heads, pixels, head), in the order that ``qkv`` lists them."""
        if self.order == "legacy":
            return joint.unflatten(-1, (-1, 3, self.head)).permute(3, 0, 2, 1, 4).unbind()
        return joint.unflatten(-1, (3, -1, self.head)).permute(2, 0, 3, 1, 4).unbind()


def _through(stage: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
    for layer in stage.children():
        h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
    return h


def _per_pixel(conv: nn.Conv1d | nn.Conv2d, pixels: Tensor) -> Tensor:
    """A convolution of one pixel, however many axes it is stored with, as the linear map that it is."""
    return functional.linear(pixels, conv.weight.flatten(1), conv.bias)


def _zeroed(layer: Layer) -> Layer:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
