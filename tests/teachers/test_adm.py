"""The network under its published names: shapes at full width, numbers at a small one, and each part by itself."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adm_layout import expected, fill_by_formula, forward, sinusoids
from torch.nn import functional

from ibmd_lite.networks.embedding import time_embedding
from ibmd_lite.teachers import ADM, PUBLISHED, Architecture, build
from ibmd_lite.teachers.adm import _Attention
from ibmd_lite.training import recompute

STORED = json.loads((Path(__file__).parent / "outputs.json").read_text())
SMALL = {"width": 32, "multipliers": (1, 2), "blocks": 1, "attention": (2,), "head": 32}
FULL = {  # width, multipliers, blocks, attention, and what else is published, written out again
    "i2sb": ((256, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32)), {}, 552_807_171),
    "i2sb-conditional": ((256, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32)), {"inputs": 6}, 552_814_083),
    "ddbm-edges2handbags": ((192, (1, 2, 3, 4), 3, (2, 4, 8)), {"inputs": 6, "axes": 2}, 295_136_451),
    "ddbm-diode": ((256, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32)), {"inputs": 6, "axes": 2}, 552_814_083),
    "dbim": ((256, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32)), {"inputs": 6, "labels": 1000}, 553_838_083),
    "bbdm": ((128, (1, 4, 8), 2, ()), {"inputs": 6}, 237_094_787),
}


def full_of(name):
    return FULL[max((known for known in FULL if name.startswith(known)), key=len)]


ALIKE = {own.network: name for name, own in PUBLISHED.items()}  # one preset of every architecture


@pytest.mark.parametrize("name", ALIKE.values())
def test_published_names_shapes_and_order(name):
    with torch.device("meta"):
        network = build(name)
    sizes, rest, count = full_of(name)
    names = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert names == expected(*sizes, **rest)
    assert [key for key, _ in network.named_parameters()] == list(expected(*sizes, **rest))
    assert sum(value.numel() for value in network.parameters()) == count


def test_every_preset_is_of_a_family_checked_above():
    for name, own in PUBLISHED.items():
        assert full_of(name) == full_of(ALIKE[own.network])


def test_known_counts():
    """guided-diffusion's 256 x 256 network has 552,814,086 parameters; I2SB keeps 3 of its 6 outputs."""
    sizes, _, count = FULL["i2sb"]
    assert sum(torch.Size(s).numel() for s in expected(*sizes, outputs=6).values()) == 552_814_086
    assert count == 552_814_086 - 3 * (256 * 9 + 1)


@pytest.mark.parametrize(
    ("name", "down", "up"),
    [
        ("ddbm-edges2handbags", [5, 6, 7, 9, 10, 11, 13, 14, 15], range(12)),
        ("ddbm-diode", [10, 11, 13, 14, 16, 17], range(9)),
    ],
)
def test_attention_stands_where_the_conversion_of_dbim_finds_it(name, down, up):
    """thu-ml/DiffusionBridge's preprocess_ckpt.py lists these tensors of DDBM's two files."""
    with torch.device("meta"):
        found = [key for key in build(name).state_dict() if key.endswith("qkv.weight")]
    places = [f"input_blocks.{i}.1" for i in down] + ["middle_block.1"] + [f"output_blocks.{i}.1" for i in up]
    assert found == [f"{place}.qkv.weight" for place in places]


CASES = {
    "legacy": {},
    "new": {"order": "new", "attention_axes": 2, "conditional": True, "dropout": 0.1},
    "labels": {"conditional": True, "labels": 5, "multipliers": (1, 1, 2), "attention": (2, 4)},
    "blocks": {"blocks": 2, "attention": (), "multipliers": (1, 2)},
}


def case(name):
    network = ADM(Architecture(**(SMALL | CASES[name]))).double().eval()
    fill_by_formula(network)
    grid = torch.arange(2 * 3 * 8 * 12, dtype=torch.float64).view(2, 3, 8, 12)
    given = {"xt": torch.sin(0.3 * grid), "time": torch.tensor([1.5, 870.25], dtype=torch.float64)}
    if network.conditional:
        given["xT"] = torch.cos(0.11 * grid)
    if network.architecture.labels:
        given["label"] = torch.tensor([4, 1])
    return network, given


@pytest.mark.parametrize("name", CASES)
def test_output_is_that_of_the_published_formulas(name):
    network, given = case(name)
    own = network.architecture
    x = torch.cat([given["xt"], given["xT"]], 1) if own.conditional else given["xt"]
    sizes = {"levels": len(own.multipliers), "blocks": own.blocks, "head": own.head, "order": own.order}
    with torch.no_grad():
        found = network(**given)
        state = network.state_dict()
        wanted = forward(state, x, given["time"], label=given.get("label"), **sizes)
    assert found.std() > 0.05
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)  # the sinusoids are of single precision


@pytest.mark.parametrize("name", CASES)
def test_output_is_as_stored(name):
    network, given = case(name)
    with torch.no_grad():
        found = network(**given)
    stored = torch.tensor(STORED[name], dtype=torch.float64)
    torch.testing.assert_close(found.flatten()[:: found.numel() // 8][:8], stored, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("order", ["legacy", "new"])
@pytest.mark.parametrize("axes", [1, 2])
def test_attention_in_both_orders(order, axes):
    own = Architecture(**(SMALL | {"order": order, "attention_axes": axes, "head": 16}))
    attention = _Attention(64, own).double()
    fill_by_formula(attention)
    h = torch.sin(torch.arange(2 * 64 * 6, dtype=torch.float64)).view(2, 64, 2, 3)
    joint = attention.qkv(attention.norm(h).flatten(2) if axes == 1 else attention.norm(h)).flatten(2)
    if order == "legacy":
        rows = joint.view(2, 4, 3, 16, 6)  # head, then q k v
        q, k, v = rows[:, :, 0], rows[:, :, 1], rows[:, :, 2]
    else:
        rows = joint.view(2, 3, 4, 16, 6)  # q k v, then head
        q, k, v = rows[:, 0], rows[:, 1], rows[:, 2]
    seen = functional.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT.reshape(2, 64, 6)
    wanted = h + attention.proj_out(seen if axes == 1 else seen.view_as(h)).view_as(h)
    torch.testing.assert_close(attention(h), wanted)
    assert not torch.allclose(_swapped(attention, order)(h), wanted)


def _swapped(attention, order):
    attention.order = "new" if order == "legacy" else "legacy"
    return attention


def test_time_embedding_of_guided_diffusion():
    time = torch.tensor([0.1, 17.0, 999.9])
    torch.testing.assert_close(time_embedding(time, 32), sinusoids(time, 32), rtol=0, atol=1e-4)


def test_a_time_or_label_that_differs_changes_the_answer():
    network, given = case("labels")
    with torch.no_grad():
        first = network(**given)
        later = network(**(given | {"time": given["time"] + 1}))
        other = network(**(given | {"label": torch.tensor([3, 1])}))
    assert (first - later).abs().amax((1, 2, 3)).min() > 1e-4
    changed = (first - other).abs().amax((1, 2, 3))
    assert changed[0] > 1e-4
    assert changed[1] == 0


def test_recomputing_gives_the_same_numbers():
    plain, given = case("new")
    saving = recompute(copy.deepcopy(plain), ADM.blocks)
    grads = []
    for network in (plain, saving):
        xt = given["xt"].clone().requires_grad_()
        network(**(given | {"xt": xt})).square().sum().backward()
        grads.append([xt.grad, *(value.grad for value in network.parameters())])
    for first, second in zip(*grads, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_recomputing_keeps_less():
    kept = []
    for saving in (False, True):
        network = ADM(Architecture(**(SMALL | {"blocks": 3})))
        network = recompute(network, ADM.blocks) if saving else network
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=saved: s.append(x.numel()) or x, lambda x: x):
            network(torch.randn(1, 3, 32, 32), torch.rand(1))
        kept.append(sum(saved))
    assert kept[1] < kept[0] / 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_normalises_in_single(dtype):
    network, given = case("legacy")
    with torch.no_grad():
        wanted = network(**given)
        found = network.to(dtype)(given["xt"].to(dtype), given["time"].float())
    assert found.dtype == dtype
    assert (found.double() - wanted).abs().mean() < 0.02 * wanted.abs().mean() * (8 if dtype == torch.bfloat16 else 1)
    large = torch.full((1, 32, 8, 8), 3e4, dtype=torch.float16)  # its square is beyond half precision
    large[..., ::2] = -3e4
    normalised = network.out[0].half()(large)
    assert bool(normalised.isfinite().all())
    assert normalised.std() > 0.1


def test_a_fresh_network_returns_zero_and_takes_any_size():
    network = ADM(Architecture(**(SMALL | {"multipliers": (1, 1, 2)})))
    assert network(torch.randn(1, 3, 8, 20), torch.zeros(1)).abs().max() == 0
    with pytest.raises(ValueError, match="divisible by 4"):
        network(torch.randn(1, 3, 8, 18), torch.zeros(1))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"width": 48}, "multiple of them"),
        ({"head": 48}, "heads of 48"),
        ({"attention": (1, 2), "head": 64}, "32 features, those at 1/1"),
        ({"multipliers": ()}, "must be positive"),
        ({"blocks": 0}, "must be positive"),
        ({"order": "other"}, "order must be"),
        ({"attention_axes": 3}, "attention_axes 1 or 2"),
    ],
)
def test_wrong_architectures(wrong, told):
    with pytest.raises(ValueError, match=told):
        replace(Architecture(**SMALL), **wrong)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("legacy", {"xT": torch.zeros(2, 3, 8, 12)}, "xT is given"),
        ("new", {"xT": None}, "xT is missing"),
        ("legacy", {"label": torch.tensor([0, 1])}, "label is given"),
        ("labels", {"label": None}, r"Source\(xT, label"),
        ("labels", {"label": torch.tensor([0])}, "one whole number per image"),
        ("labels", {"label": torch.tensor([0.0, 1.0])}, "one whole number per image"),
        ("labels", {"label": torch.tensor([0, 5])}, "knows 0 to 4"),
    ],
)
def test_wrong_calls(name, change, told):
    network, given = case(name)
    with pytest.raises(ValueError, match=told):
        network(**(given | change))
