"""The published layout of guided-diffusion's U-Net, written a second time: names and shapes, and what they compute.

Closed formulas over the indices of blocks instead of the network's loops, and one plain function over a state dict
instead of its modules.  Source: openai/guided-diffusion, as in the repositories that ``families`` names.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional


def expected(width, mult, blocks, attention, *, inputs=3, outputs=3, labels=0, axes=1) -> dict[str, tuple[int, ...]]:
    """Every name and shape, in the published order of parameters."""
    names: dict[str, tuple[int, ...]] = {}

    def pair(name, *shape):
        names[f"{name}.weight"], names[f"{name}.bias"] = shape, shape[:1]

    def residual(name, i, o):
        pair(f"{name}.in_layers.0", i)
        pair(f"{name}.in_layers.2", o, i, 3, 3)
        pair(f"{name}.emb_layers.1", 2 * o, 4 * width)
        pair(f"{name}.out_layers.0", o)
        pair(f"{name}.out_layers.3", o, o, 3, 3)
        if i != o:
            pair(f"{name}.skip_connection", o, i, 1, 1)

    def look(name, c):
        pair(f"{name}.norm", c)
        pair(f"{name}.qkv", 3 * c, c, *[1] * axes)
        pair(f"{name}.proj_out", c, c, *[1] * axes)

    wide = [width * m for m in mult]
    levels, stride = len(mult), blocks + 1
    last = levels * stride - 1  # index of the last input block

    def out_of(j):  # features that input block j gives
        return wide[0] if j == 0 else wide[(j - 1) // stride]

    pair("time_embed.0", 4 * width, width)
    pair("time_embed.2", 4 * width, 4 * width)
    if labels:
        names["label_emb.weight"] = (labels, 4 * width)
    pair("input_blocks.0.0", wide[0], inputs, 3, 3)
    for j in range(1, last + 1):
        level, halves = (j - 1) // stride, (j - 1) % stride == blocks
        residual(f"input_blocks.{j}.0", out_of(j - 1), wide[level])
        if 2**level in attention and not halves:
            look(f"input_blocks.{j}.1", wide[level])
    residual("middle_block.0", wide[-1], wide[-1])
    look("middle_block.1", wide[-1])
    residual("middle_block.2", wide[-1], wide[-1])
    for j in range(last + 1):
        level = levels - 1 - j // stride
        before = wide[-1] if j == 0 else wide[levels - 1 - (j - 1) // stride]
        residual(f"output_blocks.{j}.0", before + out_of(last - j), wide[level])
        if 2**level in attention:
            look(f"output_blocks.{j}.1", wide[level])
        if level and j % stride == blocks:
            residual(f"output_blocks.{j}.{2 if 2**level in attention else 1}", wide[level], wide[level])
    pair("out.0", wide[0])
    pair("out.2", outputs, wide[0], 3, 3)
    return names


def forward(state, x, time, *, levels, blocks, head, order, label=None):
    """The published forward pass, read off the names of a state dict."""

    def part(name):
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def norm(name, h):
        return functional.group_norm(h, 32, *part(name))

    def residual(name, h, e, resize=lambda h: h):
        inner = resize(functional.silu(norm(f"{name}.in_layers.0", h)))
        inner = functional.conv2d(inner, *part(f"{name}.in_layers.2"), padding=1)
        scale, shift = functional.linear(functional.silu(e), *part(f"{name}.emb_layers.1"))[..., None, None].chunk(2, 1)
        inner = norm(f"{name}.out_layers.0", inner) * (1 + scale) + shift
        inner = functional.conv2d(functional.silu(inner), *part(f"{name}.out_layers.3"), padding=1)
        skip = f"{name}.skip_connection"
        h = resize(h)
        return inner + (functional.conv2d(h, *part(skip)) if f"{skip}.weight" in state else h)

    def look(name, h):
        weight, bias = part(f"{name}.qkv")
        qkv = torch.einsum("oi,bip->bop", weight.flatten(1), norm(f"{name}.norm", h).flatten(2)) + bias[:, None]
        heads = h.shape[1] // head
        if order == "legacy":  # heads, then q, k, v
            q, k, v = qkv.reshape(len(h) * heads, 3 * head, -1).split(head, 1)
        else:  # q, k, v, then heads
            q, k, v = (one.reshape(len(h) * heads, head, -1) for one in qkv.chunk(3, 1))
        attention = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / math.sqrt(head), -1)
        seen = torch.einsum("bts,bcs->bct", attention, v).reshape(len(h), h.shape[1], -1)
        weight, bias = part(f"{name}.proj_out")
        return h + (torch.einsum("oi,bip->bop", weight.flatten(1), seen) + bias[:, None]).view_as(h)

    def stage(name, h, e, resize):
        """Block, attention where there is one, and the block that changes the size, if it is not alone."""
        alone = resize is not None and f"{name}.1.norm.weight" not in state and name.startswith("input")
        h = residual(f"{name}.0", h, e, resize if alone else lambda h: h)
        rest = [i for i in (1, 2) if any(key.startswith(f"{name}.{i}.") for key in state)]
        for i in rest:
            is_attention = f"{name}.{i}.qkv.weight" in state
            h = look(f"{name}.{i}", h) if is_attention else residual(f"{name}.{i}", h, e, resize)
        return h

    def down(h):
        return (h[..., ::2, ::2] + h[..., 1::2, ::2] + h[..., ::2, 1::2] + h[..., 1::2, 1::2]) / 4

    def up(h):
        return h.repeat_interleave(2, -1).repeat_interleave(2, -2)

    width = state["time_embed.0.weight"].shape[1]
    e = functional.linear(sinusoids(time, width).to(x), *part("time_embed.0"))
    e = functional.linear(functional.silu(e), *part("time_embed.2"))
    if label is not None:
        e = e + state["label_emb.weight"][label]
    stride = blocks + 1
    h = functional.conv2d(x, *part("input_blocks.0.0"), padding=1)
    kept = [h]
    for j in range(1, levels * stride):
        h = stage(f"input_blocks.{j}", h, e, down if j % stride == 0 else None)
        kept.append(h)
    h = residual("middle_block.0", h, e)
    h = residual("middle_block.2", look("middle_block.1", h), e)
    for j in range(levels * stride):
        h = stage(f"output_blocks.{j}", torch.cat([h, kept.pop()], 1), e, up)
    return functional.conv2d(functional.silu(norm("out.0", h)), *part("out.2"), padding=1)


def sinusoids(time, features):
    """cos(time f_k) and then sin(time f_k), f_k = 10000^(-k / half), in single precision."""
    rows = []
    for one in time.tolist():
        waves = [one * 10_000 ** (-k / (features // 2)) for k in range(features // 2)]
        rows.append([math.cos(w) for w in waves] + [math.sin(w) for w in waves])
    return torch.tensor(rows)


def fill_by_formula(network) -> None:
    """Weights that anybody can write down: the k-th number of the i-th tensor is sin(0.7 + 1.3 i + 2.1 k), scaled."""
    with torch.no_grad():
        for i, (name, value) in enumerate(network.named_parameters()):
            wave = torch.sin(0.7 + 1.3 * i + 2.1 * torch.arange(value.numel(), dtype=torch.float64)).view_as(value)
            fan = value[0].numel() if value.ndim > 1 else 25
            start = 1.0 if value.ndim == 1 and name.endswith("weight") else 0.0
            value.copy_(start + wave / fan**0.5)
