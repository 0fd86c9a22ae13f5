"""ResShift's network under its published names, its attention by itself, and its models on the bridge."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ibmd_lite.bridges import Brownian, ResShift
from ibmd_lite.distillation import Distillation, DistillationSettings
from ibmd_lite.model import BridgeModel
from ibmd_lite.sampling import Markov, sample
from ibmd_lite.student import Student
from ibmd_lite.teachers.adm import ADM
from ibmd_lite.teachers.resshift import (
    RESSHIFT,
    CodesBesideImages,
    ResShiftX0,
    beside,
    load_resshift,
    load_resshift_student,
    resshift_student,
)
from ibmd_lite.teachers.swin import SwinArchitecture, SwinUNet, _SwinBlock, shift_mask
from ibmd_lite.training import recompute
from ibmd_lite.training.learner import Settings

STORED = json.loads((Path(__file__).parent / "resshift.json").read_text())
REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "resshift.json").read_text())["items"]
SMALL = SwinArchitecture(width=32, multipliers=(1, 2), blocks=1, size=16, swin_width=64, condition_size=16)
CASES = {
    "x4": SMALL,
    "another size": SMALL,
    "smaller than a window": replace(SMALL, multipliers=(1, 1, 2)),
    "inpainting": replace(SMALL, condition_channels=4, condition_size=64),
}


def wave(*shape: int, phase: float) -> torch.Tensor:
    return torch.cos(0.7 * torch.arange(math.prod(shape), dtype=torch.float64) + phase).reshape(shape)


def filled(architecture: SwinArchitecture) -> SwinUNet:
    """Every weight by a formula, so that all of them matter."""
    network = SwinUNet(architecture).double()
    for j, (name, parameter) in enumerate(network.named_parameters()):
        values = torch.sin(1.7 * torch.arange(parameter.numel(), dtype=torch.float64) + 0.9 * j)
        values = values.reshape(parameter.shape)
        if name.endswith("table"):
            parameter.data = values
        elif parameter.ndim > 1:
            parameter.data = 2 * values / math.sqrt(parameter[0].numel())
        else:
            parameter.data = 1 + 0.3 * values if name.endswith("weight") else 0.1 * values
    return network.requires_grad_(False).eval()


def teacher_of(architecture: SwinArchitecture = SMALL, bridge: ResShift | None = None) -> BridgeModel:
    bridge = bridge or ResShift(steps=4, min_noise_level=0.2)
    return BridgeModel(filled(architecture).float(), bridge, conditional=True, prediction=ResShiftX0())


# The network


KINDS = {"resshift-real": "x4", "resshift-inpaint": "inpainting", "resshift-face": "faceir"}


@pytest.mark.parametrize("name", KINDS)
def test_names_shapes_and_order_at_full_width(name: str) -> None:
    with torch.device("meta"):
        network = SwinUNet(RESSHIFT[name].network)
    found = [f"{key} {'x'.join(map(str, value.shape))}" for key, value in network.state_dict().items()]
    base, stored = STORED["x4"]["names"], STORED[KINDS[name]]
    assert [key for key in found if key not in base] == stored.get("others", [])
    assert [key for key in base if key in found] == [key for key in base if key not in stored.get("without", [])]
    if name == "resshift-real":
        assert found == base
    assert sum(parameter.numel() for parameter in network.parameters()) == stored["parameters"]


def test_the_other_models_have_one_of_these_networks() -> None:
    assert {own.network for own in RESSHIFT.values()} == {RESSHIFT[name].network for name in KINDS}
    assert RESSHIFT["resshift-inpaint-face"].network == RESSHIFT["resshift-inpaint"].network


@pytest.mark.parametrize("case", STORED["outputs"], ids=lambda case: case["case"])
def test_outputs_at_a_small_width(case: dict) -> None:
    own = CASES[case["case"]]
    larger = own.condition_size // own.size
    image = wave(2, own.condition_channels, *(larger * side for side in case["size"]), phase=1.1)
    output = filled(own)(wave(2, 3, *case["size"], phase=0.2), torch.tensor([0.0, 3.0]), image)
    assert output.shape == (2, 3, *case["size"])
    expected = torch.tensor(case["output"], dtype=torch.float64)
    torch.testing.assert_close(output.flatten()[::37], expected, rtol=1e-9, atol=1e-11)


# Attention within windows


def slowly(block: _SwinBlock, h: torch.Tensor) -> torch.Tensor:
    """Attention over all pairs of pixels of an image, of which those in one window count, pair by pair."""
    height, width = h.shape[-2:]
    window, shift, attn = block.window, block.shift, block.attn
    place = [((y - shift) % height, (x - shift) % width) for y in range(height) for x in range(width)]
    heads = attn.relative_position_bias_table.shape[1]
    logits = torch.full((heads, len(place), len(place)), -torch.inf, dtype=h.dtype)
    for i, (y, x) in enumerate(place):
        for j, (v, u) in enumerate(place):
            if (y // window, x // window) != (v // window, u // window):
                continue
            down, right = y % window - v % window + window - 1, x % window - u % window + window - 1
            logits[:, i, j] = attn.relative_position_bias_table[down * (2 * window - 1) + right]
            lowest, sides = y // window == height // window - 1, (x % window < window // 2, u % window < window // 2)
            if shift and lowest and sides[0] != sides[1]:
                logits[:, i, j] -= 100
    normed = nn.functional.group_norm(h, 32, block.norm1.weight, block.norm1.bias)
    pixels = normed.flatten(2).mT  # batch, pixels, features
    layers = zip(attn.qkv.weight.chunk(3), attn.qkv.bias.chunk(3), strict=True)
    q, k, v = (nn.functional.linear(pixels, *layer).unflatten(-1, (heads, -1)) for layer in layers)
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(q.shape[-1]) + logits
    seen = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).flatten(2)
    h = h + nn.functional.linear(seen, attn.proj.weight, attn.proj.bias).mT.reshape(h.shape)
    normed = nn.functional.group_norm(h, 32, block.norm2.weight, block.norm2.bias)
    hidden = nn.functional.gelu(nn.functional.conv2d(normed, block.mlp.fc1.weight, block.mlp.fc1.bias))
    return h + nn.functional.conv2d(hidden, block.mlp.fc2.weight, block.mlp.fc2.bias)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (8, 12)])
def test_attention_in_windows_is_attention_over_pairs(shifted: bool, size: tuple[int, int]) -> None:
    own = SwinArchitecture(width=32, multipliers=(1,), size=8, swin_width=32, window=4, head=16, condition_size=8)
    torch.manual_seed(0)
    block = _SwinBlock(0, shifted, own).double().requires_grad_(False)
    assert block.shift == (2 if shifted else 0)
    block.attn.relative_position_bias_table.normal_()
    h = torch.randn(2, 32, *size, dtype=torch.float64)
    torch.testing.assert_close(block(h), slowly(block, h), rtol=1e-10, atol=1e-10)


def test_the_published_mask_parts_the_lowest_windows_only() -> None:
    mask = shift_mask(12, 8, 4).unflatten(0, (3, 2))
    assert not mask[:2].any(), "not even the rightmost ones, which Swin would part"
    left = torch.arange(16) % 4 < 2
    assert torch.equal(mask[2, 0] == -100, left[:, None] != left)
    assert torch.equal(mask[2, 1], mask[2, 0])
    assert set(mask.unique().tolist()) == {-100.0, 0.0}


def test_the_mask_of_the_checkpoint_counts_at_the_size_of_training() -> None:
    network, xt, time = filled(SMALL), wave(1, 3, 16, 16, phase=0.2), torch.zeros(1)
    before = network(xt, time, xt)
    for name, buffer in network.named_buffers():
        if name.endswith("attn_mask"):
            buffer.zero_()
    assert (network(xt, time, xt) - before).abs().max() > 1e-3


def test_a_window_as_large_as_the_level_is_not_shifted() -> None:
    network = SwinUNet(CASES["smaller than a window"])
    blocks = [module for module in network.modules() if isinstance(module, _SwinBlock)]
    assert {(block.window, block.shift) for block in blocks} == {(8, 0), (8, 4), (4, 0)}


# What it refuses


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"width": 40}, "width is 40"),
        ({"swin_width": 48}, "swin_width is 48"),
        ({"head": 48}, "heads of 48"),
        ({"size": 24, "condition_size": 24}, "size of 24"),
        ({"window": 5, "size": 10, "condition_size": 10}, "even windows"),
        ({"size": 2, "multipliers": (1, 1, 1), "condition_size": 2}, "size of 2"),
        ({"condition_size": 48}, "condition_size is 48"),
        ({"condition_size": 8}, "condition_size is 8"),
        ({"multipliers": ()}, "multipliers must be positive"),
        ({"channels": 0}, "channels must be positive"),
    ],
)
def test_impossible_sizes(change: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(SMALL, **change)


def test_impossible_inputs() -> None:
    network, xt, time = SwinUNet(SMALL), torch.zeros(1, 3, 16, 16), torch.zeros(1)
    with pytest.raises(ValueError, match="xT is missing"):
        network(xt, time)
    with pytest.raises(ValueError, match=r"xT is \(1, 4, 16, 16\)"):
        network(xt, time, torch.zeros(1, 4, 16, 16))
    with pytest.raises(ValueError, match="divisible by 16"):
        network(torch.zeros(1, 3, 24, 16), time, torch.zeros(1, 3, 24, 16))


# The prediction type


def params_of(item: dict) -> ResShift:
    p = item["params"]
    return ResShift(p["kappa"], p["steps"], p["power"], p["etas_end"], p["min_noise_level"])


@pytest.mark.parametrize("item", [item for item in REFERENCE if "coef" in item["id"]], ids=lambda item: item["id"])
def test_scalings_against_the_recorded_noise(item: dict) -> None:
    std = torch.tensor(item["outputs"]["std"], dtype=torch.float64)
    bridge, index = params_of(item), torch.tensor(item["inputs"]["index"], dtype=torch.float64)
    divisors = {"codes": (std**2 + 1).sqrt(), "pixels": 3 * std + 1, "raw": torch.ones_like(std)}
    for states, divisor in divisors.items():
        skip, out, scale, time = ResShiftX0(states).scalings(bridge, index + 1)
        torch.testing.assert_close(1 / scale, divisor, rtol=1e-9, atol=1e-12)
        assert torch.equal(time, index), "the network counts from 0"
        assert not skip.any()
        assert torch.equal(out, torch.ones_like(out))


def test_refused_predictions() -> None:
    with pytest.raises(ValueError, match="states must be"):
        ResShiftX0("latent")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ResShift bridge"):
        BridgeModel(nn.Identity(), Brownian(), prediction=ResShiftX0())


class Recorded(nn.Module):
    """The recorded denoiser as a network: it is told index and scaled state, and undoes the scale from the table."""

    def __init__(self, item: dict, std: list[float]) -> None:
        super().__init__()
        self.affine, self.std = item["params"]["affine"], torch.tensor(std, dtype=torch.float64)
        self.times: list[float] = []

    def forward(self, xt: torch.Tensor, time: torch.Tensor, xT: torch.Tensor) -> torch.Tensor:
        index = int(time[0])
        self.times.append(time[0].item())
        p0, p1, p2 = self.affine
        state = xt * (self.std[index] ** 2 + 1).sqrt()
        return p0 * state + p1 * xT + p2 * math.sin(index / len(self.std))


@pytest.mark.parametrize("item", [item for item in REFERENCE if "traj" in item["id"]], ids=lambda item: item["id"])
def test_sampling_with_a_scaled_network(item: dict) -> None:
    std = next(other for other in REFERENCE if other["id"] == item["id"].replace("traj", "coef"))["outputs"]["std"]
    network = Recorded(item, std)
    model = BridgeModel(network, params_of(item), conditional=True, prediction=ResShiftX0())
    y, noise = (torch.tensor(item["inputs"][name], dtype=torch.float64) for name in ("y", "noise"))
    result = sample(model, y, model.bridge.grid(len(std)), Markov(), noise=noise, keep_states=True)
    expected = torch.tensor(item["outputs"]["states"], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(result.states), expected, **item["tol"])
    assert network.times == item["inputs"]["index_descending"]


# As a teacher


def test_a_student_starts_from_noise_around_xT() -> None:
    """The bridge is not pinned: what the network sees first is (xT + kappa 0.99 noise) over its spread."""
    teacher, xT = teacher_of(), wave(2, 3, 16, 16, phase=0.5).float()
    student = Student.of(teacher, input_layer=SwinUNet.input_layer)
    seen = []
    student.model.network.register_forward_pre_hook(lambda _, given: seen.append(given))
    x0 = student(xT, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(xT.shape, generator=torch.Generator().manual_seed(1))
    state, time, image = seen[0]
    assert state.shape == (2, 6, 16, 16)
    torch.testing.assert_close(state[:, :3], (xT + 1.98 * noise) / math.sqrt(1.98**2 + 1))
    assert time.tolist() == [3.0, 3.0]
    assert torch.equal(image, xT)
    torch.testing.assert_close(x0, teacher(xT + 1.98 * noise, torch.full((2,), 4.0), xT))


def test_one_update_of_distillation_and_the_student_in_a_file(tmp_path: Path) -> None:
    teacher = teacher_of()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = Student.of(teacher, steps=2, input_layer=SwinUNet.input_layer)
    settings = DistillationSettings(
        generator=Settings(1e-3, average=None), fake=Settings(1e-3, average=None), fake_updates=1
    )
    run = Distillation(teacher, student, settings=settings, device="cpu")
    xT = wave(2, 3, 16, 16, phase=0.5).float()
    (record,) = run.updates([xT] * 2, 1)
    assert all(math.isfinite(value) for value in (record.loss, record.gap, record.fake_loss))
    assert record.gap > 0, "after one update the fake is not the teacher any more"
    widened = run.student.model.network.get_submodule(SwinUNet.input_layer).weight
    assert widened[:, 3:6].any(), "the noise inputs, zero at first, have learned"
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())

    run.student.save(tmp_path / "student.safetensors")
    loaded = Student.load(
        tmp_path / "student.safetensors",
        SwinUNet(SMALL),
        input_layer=SwinUNet.input_layer,
        prediction=ResShiftX0(),
    )
    outputs = [own(xT, generator=torch.Generator().manual_seed(2)) for own in (run.student, loaded)]
    assert torch.equal(*outputs)


# On codes, with the image beside them


@pytest.mark.parametrize("case", ["x4", "inpainting"])
def test_the_network_finds_code_image_and_noise(case: str) -> None:
    own = CASES[case]
    network, larger, time = filled(own), own.condition_size // own.size, torch.tensor([2.0, 0.0])
    code, state = (wave(2, 3, 16, 16, phase=phase) for phase in (0.2, 0.6))
    image = wave(2, own.condition_channels, 16 * larger, 16 * larger, phase=1.1)
    wrapped, xT = CodesBesideImages(network), beside(code, image)
    assert xT.shape == (2, wrapped.channels, 16, 16)
    xt = torch.cat([state, torch.randn_like(xT[:, 3:])], 1)
    expected = torch.cat([network(state, time, image), xT[:, 3:]], 1)
    torch.testing.assert_close(wrapped(xt, time, xT), expected, rtol=1e-12, atol=1e-12)

    teacher = BridgeModel(wrapped, ResShift(steps=4), conditional=True, prediction=ResShiftX0())
    wide = resshift_student(teacher).model.network.double().requires_grad_(False)
    z = wave(2, 3, 16, 16, phase=0.4)
    torch.testing.assert_close(wide(torch.cat([xt, z], 1), time, xT), expected)  # it starts as the teacher
    layer = wide.get_submodule(CodesBesideImages.input_layer)
    layer.weight[:, 3:6] = torch.randn(layer.weight[:, 3:6].shape, dtype=torch.float64)
    expected = wide.network(torch.cat([state, z], 1), time, image)
    found = wide(torch.cat([xt, z], 1), time, xT)
    torch.testing.assert_close(found[:, :3], expected, rtol=1e-12, atol=1e-12)


def test_a_student_on_codes(tmp_path: Path) -> None:
    """As for faces: codes of 8 channels, the image 8 times larger, in more channels than the first layer sees."""
    own = replace(SMALL, channels=8, condition_size=128)
    bridge = ResShift(steps=4, min_noise_level=0.2)
    network = CodesBesideImages(filled(own).float())
    teacher = BridgeModel(network, bridge, conditional=True, prediction=ResShiftX0())
    xT = beside(wave(2, 8, 16, 16, phase=0.5).float(), wave(2, 3, 128, 128, phase=0.9).float())
    settings = DistillationSettings(
        generator=Settings(1e-3, average=None), fake=Settings(1e-3, average=None), fake_updates=1
    )
    run = Distillation(teacher, resshift_student(teacher, steps=2), settings=settings, device="cpu")
    (record,) = run.updates([xT] * 2, 1)
    assert record.gap > 0
    x0 = run.student(xT, generator=torch.Generator().manual_seed(2))
    assert torch.equal(x0[:, 8:], xT[:, 8:]), "the image is handed on"
    path = tmp_path / "student.safetensors"
    run.student.save(path)
    loaded = load_resshift_student(path, CodesBesideImages(SwinUNet(own)))
    assert torch.equal(loaded(xT, generator=torch.Generator().manual_seed(2)), x0)
    teacher.save(path)
    with pytest.raises(ValueError, match="holds no student that this package knows: 'grid'"):
        load_resshift_student(path, CodesBesideImages(SwinUNet(own)))


def test_codes_and_images_that_do_not_fit() -> None:
    code = torch.zeros(2, 3, 16, 16)
    for shape in ((2, 3, 40, 40), (2, 3, 16, 32), (1, 3, 16, 16), (2, 3, 8, 8)):
        with pytest.raises(ValueError, match="does not lie over the code"):
            beside(code, torch.zeros(shape))
    network = CodesBesideImages(SwinUNet(SMALL))
    with pytest.raises(ValueError, match="expected 6 channels"):
        network(code, torch.zeros(2), code)
    with pytest.raises(ValueError, match="xT is missing"):
        network(code, torch.zeros(2))
    with pytest.raises(TypeError, match=r"use Student\.of"):
        resshift_student(teacher_of())
    with pytest.raises(ValueError, match="0 or more"):
        resshift_student(BridgeModel(network, ResShift(), conditional=True, prediction=ResShiftX0()), noise_channels=-1)


# Files


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_published_files(prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a small width, with what training on several devices and compiling put before the names."""
    network = filled(SMALL).float()
    path = tmp_path / "resshift_realsrx4_s4_v3.pth"
    torch.save({f"{prefix}{name}": value for name, value in network.state_dict().items()}, path)
    small = {"resshift-real": replace(RESSHIFT["resshift-real"], network=SMALL)}
    monkeypatch.setattr("ibmd_lite.teachers.resshift.RESSHIFT", small)
    model = load_resshift("resshift-real", path)
    assert model.bridge == ResShift(2.0, 4, 0.3, 0.99, 0.2)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    code, image = (wave(1, 3, 16, 16, phase=phase).float() for phase in (0.5, 0.9))
    xT = beside(code, image)
    expected = teacher_of()(code, torch.ones(1), image)
    torch.testing.assert_close(model(xT, torch.ones(1), xT), torch.cat([expected, image], 1))
    own = recompute(SwinUNet(SMALL), ADM.blocks)
    assert load_resshift("resshift-real", path, network=own).network.network is own
    torch.testing.assert_close(own.state_dict(), network.state_dict())
    with pytest.raises(ValueError, match="known are resshift-real"):
        load_resshift("resshift-fake", path)


def test_published_schedules() -> None:
    """configs/*.yaml: kappa 2, power 0.3, etas_end 0.99; 4 steps from 0.2 or, in v1 and v2, 15 from 0.04."""
    assert {name for name, own in RESSHIFT.items() if own.bridge.steps == 15} == {
        "resshift-real-v1",
        "resshift-real-v2",
    }
    for own in RESSHIFT.values():
        assert own.bridge == ResShift(2.0, own.bridge.steps, 0.3, 0.99, {4: 0.2, 15: 0.04}[own.bridge.steps])
        assert f"_s{own.bridge.steps}" in own.file
