"""ResShift's U-Net: ADM's residual blocks with Swin attention between them, under the names of its checkpoints.

A state dict of ``UNetModelSwin`` (zsyOAOA/ResShift, 2307.12348 and 2403.07319) fits ``SwinUNet(architecture)`` key by
key, in the same order.  Only what its published models share is here: attention at every level, scale-and-shift by
the time, convolutions that halve and double the image.  The prediction type and the settings of the published models
are in ``resshift``.

Facts read in models/unet.py and models/swin_transformer.py of that project; written anew.  Imports torch, jaxtyping,
the time embedding and the residual block of ``adm``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from ibmd_lite.networks.embedding import time_embedding
from ibmd_lite.teachers.adm import GROUPS, ResidualBlock

__all__ = ["SwinArchitecture", "SwinUNet", "shift_mask"]


@dataclass(frozen=True)
class SwinArchitecture:
    """What distinguishes one ResShift network from another.  The defaults are the x4 super-resolution networks.

    Parameters
    ----------
    width : features at the finest level; a multiple of 32
    multipliers : features of every level in units of ``width``, finest first; each level halves height and width
    blocks : residual blocks per level on the way down; one more on the way up
    size : height and width of the states in training; a level that is no larger than a window is not shifted
    channels : of a state, hence of the output; in a latent space those of a code
    swin_width, swin_depth : features and blocks of every attention layer; every second block is shifted
    window : height and width of the squares within which pixels look at each other
    head : features of one attention head
    expansion : hidden features of the attention's perceptrons in units of ``swin_width``
    condition_channels, condition_size : of the low-quality image, 3 or (with a mask) 4 channels, and as large as a
        state or larger by a power of 2; convolutions bring a larger one to the size of a state

    Raises ValueError for sizes that are not positive, or do not part into groups, heads and windows.
    """

    width: int = 160
    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    blocks: int = 2
    size: int = 64
    channels: int = 3
    swin_width: int = 192
    swin_depth: int = 2
    window: int = 8
    head: int = 32
    expansion: int = 4
    condition_channels: int = 3
    condition_size: int = 64

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if min(value if isinstance(value, tuple) else (value,), default=0) < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        for name in ("width", "swin_width"):
            if getattr(self, name) % GROUPS:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; normalisation is over {GROUPS} groups, give a multiple of them"
                )
        if self.swin_width % self.head:
            raise ValueError(f"swin_width {self.swin_width} does not part into heads of {self.head}")
        if self.window % 2 or self.size % self.divisor:
            raise ValueError(
                f"a size of {self.size}, halved {len(self.multipliers) - 1} times, does not part into even windows of "
                f"{self.window}: give a size divisible by {self.divisor} and an even window"
            )
        if self.condition_size != self.size * 2**self.halvings:
            raise ValueError(
                f"condition_size is {self.condition_size}; expected size = {self.size}, or that times a power of 2"
            )

    def window_at(self, level: int) -> int:
        """The window of a level: the whole level where it is smaller."""
        return min(self.window, self.size >> level)

    @property
    def divisor(self) -> int:
        """Height and width of a state must be divisible by this, so that every level parts into its windows."""
        return math.lcm(*(2**level * max(self.window_at(level), 1) for level in range(len(self.multipliers))))

    @property
    def halvings(self) -> int:
        """How often the low-quality image is halved on its way to the size of a state."""
        return max(self.condition_size // self.size, 1).bit_length() - 1

    @property
    def condition_features(self) -> int:
        """Channels that join the state at the input layer."""
        return 16 * 2**self.halvings if self.halvings else self.condition_channels


class SwinUNet(nn.Module):
    """The network ``(xt, time, xT) -> output``, the output shaped like one state.

    xT is the low-quality image in [-1, 1]: always an image, even where states are codes of a latent space, and then not
    the end of the bridge (``resshift.CodesBesideImages`` takes care of that).  For inpainting, its mask is the fourth
    channel, 1 where the image is unknown and -1 elsewhere.  A network without such an image was not published.

    A student of images widens its first layer, ``Student.of(teacher, input_layer=SwinUNet.input_layer)``.
    """

    input_layer = "input_blocks.0.0"

    def __init__(self, architecture: SwinArchitecture) -> None:
        super().__init__()
        own = self.architecture = architecture
        self.conditional = True
        embedded, last = 4 * own.width, len(own.multipliers) - 1
        levels = [own.width * multiplier for multiplier in own.multipliers]
        self.time_embed = nn.Sequential(nn.Linear(own.width, embedded), nn.SiLU(), nn.Linear(embedded, embedded))
        self.feature_extractor = nn.Sequential(*_halving(own))
        first = nn.Conv2d(own.channels + own.condition_features, levels[0], 3, padding=1)
        down = [nn.Sequential(first)]
        kept, features = [levels[0]], levels[0]
        for level, wide in enumerate(levels):
            for block in range(own.blocks):
                down.append(nn.Sequential(ResidualBlock(features, wide, embedded, 0.0)))
                if block == 0:
                    down[-1].append(_SwinLayer(wide, level, own))
                kept.append(features := wide)
            if level < last:
                down.append(nn.Sequential(_down(features, features)))
                kept.append(features)
        self.input_blocks = nn.ModuleList(down)
        first_block, last_block = (ResidualBlock(features, features, embedded, 0.0) for _ in range(2))
        self.middle_block = nn.Sequential(first_block, _SwinLayer(features, last, own), last_block)
        up = []
        for level, wide in reversed(list(enumerate(levels))):
            for block in range(own.blocks + 1):
                up.append(nn.Sequential(ResidualBlock(features + kept.pop(), wide, embedded, 0.0)))
                features = wide
                if block == 0:
                    up[-1].append(_SwinLayer(wide, level, own))
                if level and block == own.blocks:
                    up[-1].append(_up(wide))
        self.output_blocks = nn.ModuleList(up)
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, features), nn.SiLU(), nn.Conv2d(levels[0], own.channels, 3, padding=1)
        )

    def forward(
        self,
        xt: Float[Tensor, "batch inputs height width"],
        time: Float[Tensor, "batch"],
        xT: Float[Tensor, "batch condition_channels condition_height condition_width"] | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        """Evaluate at states ``xt``, scaled as the prediction type says, and times 0, 1, ..., knowing the image ``xT``.

        Raises:
            ValueError: no xT, or one whose channels or size are not those of ``architecture``; a state that does not
                part into windows.
        """
        self._check(xt, xT)
        embedding = self.time_embed(time_embedding(time, self.architecture.width).to(xt.dtype))
        h, kept = torch.cat([xt, self.feature_extractor(xT)], 1), []
        for stage in self.input_blocks:
            h = _run(stage, h, embedding)
            kept.append(h)
        h = _run(self.middle_block, h, embedding)
        for stage in self.output_blocks:
            h = _run(stage, torch.cat([h, kept.pop()], 1), embedding)
        return self.out(h)

    def _check(self, xt: Tensor, xT: Tensor | None) -> None:
        own = self.architecture
        if xt.shape[-2] % own.divisor or xt.shape[-1] % own.divisor:
            raise ValueError(
                f"the state is {xt.shape[-2]} x {xt.shape[-1]}; expected height and width divisible by {own.divisor}: "
                "crop or pad the image"
            )
        larger = 2**own.halvings
        expected = (len(xt), own.condition_channels, larger * xt.shape[-2], larger * xt.shape[-1])
        if xT is None or xT.shape != expected:
            raise ValueError(
                f"xT is {'missing' if xT is None else tuple(xT.shape)}; this network sees the low-quality image, "
                f"{expected}: call network(xt, time, xT), or build the model with conditional=True"
            )


def _run(stage: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
    for layer in stage.children():
        h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
    return h


def _down(features: int, wide: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(op=nn.Conv2d(features, wide, 3, stride=2, padding=1)))


def _up(features: int) -> nn.Sequential:
    conv = nn.Conv2d(features, features, 3, padding=1)
    return nn.Sequential(OrderedDict(larger=nn.Upsample(scale_factor=2), conv=conv))


def _halving(own: SwinArchitecture) -> list[nn.Module]:
    """The layers that bring a larger low-quality image to the size of a state, with 32, 64, ... features."""
    layers: list[nn.Module] = []
    features = own.condition_channels
    for halving in range(own.halvings):
        wide = 16 * 2**halving
        layers += [nn.Conv2d(features, wide, 3, padding=1), nn.SiLU(), _down(wide, 2 * wide)]
        features = 2 * wide
    return layers


class _SwinLayer(nn.Module):
    """``unembed(blocks(embed(h)))``: from a level's features to those of attention, and back.  No residual around."""

    def __init__(self, features: int, level: int, own: SwinArchitecture) -> None:
        super().__init__()
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(features, own.swin_width, 1)))
        self.patch_unembed = nn.Sequential(OrderedDict(proj=nn.Conv2d(own.swin_width, features, 1)))
        self.blocks = nn.Sequential(*(_SwinBlock(level, bool(depth % 2), own) for depth in range(own.swin_depth)))

    def forward(self, h: Tensor) -> Tensor:
        return self.patch_unembed(self.blocks(self.patch_embed(h)))


class _SwinBlock(nn.Module):
    """``h + attention(norm(h))`` within windows, moved by half a window if ``shifted``, then ``h + mlp(norm(h))``."""

    attn_mask: Tensor | None

    def __init__(self, level: int, shifted: bool, own: SwinArchitecture) -> None:
        super().__init__()
        size, width = own.size >> level, own.swin_width
        self.window = own.window_at(level)
        self.shift = own.window // 2 if shifted and size > own.window else 0
        self.norm1 = nn.GroupNorm(GROUPS, width)
        self.attn = _WindowAttention(width, self.window, own.head)
        self.norm2 = nn.GroupNorm(GROUPS, width)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Conv2d(width, own.expansion * width, 1),
                act=nn.GELU(),
                fc2=nn.Conv2d(own.expansion * width, width, 1),
            )
        )
        self.size = (size, size)
        self.register_buffer("attn_mask", shift_mask(size, size, self.window) if self.shift else None)

    def forward(self, h: Tensor) -> Tensor:
        height, width = h.shape[-2:]
        pixels = _windows(self.norm1(h).roll((-self.shift, -self.shift), (2, 3)), self.window)
        pixels = self.attn(pixels, self._mask(height, width, h.device))
        h = h + _image(pixels, height, width, self.window).roll((self.shift, self.shift), (2, 3))
        return h + self.mlp(self.norm2(h))

    def _mask(self, height: int, width: int, device: torch.device) -> Tensor | None:
        """The checkpoint's own mask at the size of training, one by the same rule at another."""
        if not self.shift or (height, width) == self.size:
            return self.attn_mask
        return shift_mask(height, width, self.window).to(device)


class _WindowAttention(nn.Module):
    """``proj(softmax(q k^T / sqrt(head) + bias + mask) v)`` over the pixels of each window.

    The bias is a number per head for each of the (2 window - 1)^2 relative positions of two pixels.
    """

    relative_position_index: Tensor

    def __init__(self, features: int, window: int, head: int) -> None:
        super().__init__()
        self.head = head
        table = torch.empty((2 * window - 1) ** 2, features // head)
        self.relative_position_bias_table = nn.Parameter(nn.init.normal_(table, std=0.02))
        pixel = torch.arange(window**2)
        row, column = pixel // window, pixel % window
        rows, columns = row[:, None] - row + window - 1, column[:, None] - column + window - 1
        self.register_buffer("relative_position_index", rows * (2 * window - 1) + columns)
        self.qkv = nn.Linear(features, 3 * features)
        self.proj = nn.Linear(features, features)

    def forward(self, pixels: Float[Tensor, "batch windows pixels features"], mask: Tensor | None) -> Tensor:
        q, k, v = self.qkv(pixels).unflatten(-1, (3, -1, self.head)).permute(3, 0, 1, 4, 2, 5)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if mask is not None:
            bias = bias + mask[:, None]  # windows, heads, pixels, pixels
        seen = functional.scaled_dot_product_attention(q, k, v, bias.to(q.dtype))
        return self.proj(seen.transpose(2, 3).flatten(3))


def _windows(h: Float[Tensor, "batch features height width"], size: int) -> Tensor:
    """Squares of size x size pixels, row by row, as (batch, windows, pixels, features)."""
    squares = h.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # batch, features, down, row, right, column
    return squares.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)


def _image(pixels: Float[Tensor, "batch windows pixels features"], height: int, width: int, size: int) -> Tensor:
    """The inverse of ``_windows``."""
    squares = pixels.unflatten(2, (size, size)).unflatten(1, (height // size, width // size))
    return squares.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def shift_mask(height: int, width: int, window: int) -> Float[Tensor, "windows pixels pixels"]:
    """What ResShift adds to the attention of shifted windows: -100 between the halves of the lowest windows, else 0.

    A shift by half a window rolls the upper rows and the left columns to the other side, where they share windows with
    pixels that they are not next to.  Swin (2103.14030) keeps those apart: in the lowest windows the upper from the
    lower half, in the rightmost ones the left from the right.  The published code marks rows only and reads the marks
    transposed, so it parts the lowest windows into a left and a right half and leaves the rightmost ones whole (issue
    81 of the project).  The published weights were trained so, and are right only so.
    """
    right = torch.arange(window**2) % window >= window // 2
    apart: Bool[Tensor, "pixels pixels"] = right[:, None] != right
    mask = torch.zeros(height // window, width // window, *apart.shape)
    mask[-1] = -100.0 * apart
    return mask.flatten(0, 1)
