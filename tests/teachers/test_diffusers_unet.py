"""A UNet2DModel as a network of this package: what it is told, its folder, its student, what is refused."""

from __future__ import annotations

import importlib.util
import json
import math
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ibmd_lite.bridges import Brownian
from ibmd_lite.distillation import Distillation, DistillationSettings
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.student import Student, add_noise_input
from ibmd_lite.teachers.diffusers_unet import CONFIG, WEIGHTS, DiffusersUNet
from ibmd_lite.training.learner import Settings

diffusers = pytest.importorskip("diffusers")
LAYER = DiffusersUNet.input_layer
MODULE = sys.modules[DiffusersUNet.__module__]


def unet(**changes: object) -> torch.nn.Module:
    """A small one, its weights drawn with seed 0."""
    torch.manual_seed(0)
    settings = {
        "in_channels": 6,
        "out_channels": 3,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    return diffusers.UNet2DModel(**settings | changes).requires_grad_(False).eval()


def images(channels: int = 3, seed: int = 1, size: int = 8) -> torch.Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(seed))


TIME = torch.tensor([10.0, 700.0])


# What the U-Net is told


def test_xT_joins_on_the_channels_and_times_pass_as_they_are() -> None:
    own, xt, xT = unet(), images(), images(seed=2)
    expected = own(torch.cat([xt, xT], 1), TIME).sample
    assert torch.equal(DiffusersUNet(own)(xt, TIME, xT), expected)
    assert not torch.equal(own(torch.cat([xT, xt], 1), TIME).sample, expected)
    assert not torch.equal(own(torch.cat([xt, xT], 1), TIME + 1).sample, expected)


def test_labels() -> None:
    own, xt, label = unet(in_channels=3, num_class_embeds=5), images(), torch.tensor([0, 4])
    network = DiffusersUNet(own)
    assert not network.conditional
    assert network.labels == 5
    assert torch.equal(network(xt, TIME, label=label), own(xt, TIME, class_labels=label).sample)
    assert not torch.equal(network(xt, TIME, label=label.flip(0)), network(xt, TIME, label=label))
    model = BridgeModel(network, Brownian())
    source = Source(xt, label=label)
    assert model(xt, torch.ones(2), **model.given(source)).shape == xt.shape


def test_the_kinds_of_time_embedding() -> None:
    xt = images()
    for kind in ("positional", "fourier"):
        own = unet(in_channels=3, time_embedding_type=kind)
        assert torch.equal(DiffusersUNet(own)(xt, TIME), own(xt, TIME).sample)


# The student


@pytest.mark.parametrize("conditional", [False, True])
def test_widened_by_noise_it_computes_what_it_did(conditional: bool) -> None:
    network = DiffusersUNet(unet(in_channels=6 if conditional else 3))
    seen = (images(seed=2),) if conditional else ()
    wide = add_noise_input(network, 3, 2, LAYER)
    z = images(2, seed=3)
    torch.testing.assert_close(wide(torch.cat([images(), z], 1), TIME, *seen), network(images(), TIME, *seen))
    with torch.no_grad():
        wide.get_submodule(LAYER).weight[:, 3:5] = 1.0
    first, second = (wide(torch.cat([images(), images(2, seed=seed)], 1), TIME, *seen) for seed in (3, 4))
    assert not torch.allclose(first, second), "the noise reaches the output"


def test_one_update_of_distillation_and_the_student_in_a_file(tmp_path: Path) -> None:
    teacher = BridgeModel(DiffusersUNet(unet()), Brownian(), conditional=True)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = Student.of(teacher, input_layer=LAYER)
    torch.testing.assert_close(student(images()), teacher(images(), torch.ones(2), images()))
    settings = DistillationSettings(
        generator=Settings(1e-3, average=None), fake=Settings(1e-3, average=None), fake_updates=1
    )
    run = Distillation(teacher, student, settings=settings, device="cpu")
    (record,) = run.updates([images()] * 2, 1)
    assert all(math.isfinite(value) for value in (record.loss, record.gap, record.fake_loss))
    assert run.student.model.network.get_submodule(LAYER).weight[:, 3:6].any(), "the noise inputs have learned"
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())

    run.student.save(tmp_path / "student.safetensors")
    loaded = Student.load(tmp_path / "student.safetensors", DiffusersUNet(unet()), input_layer=LAYER)
    outputs = [own(images(), generator=torch.Generator().manual_seed(2)) for own in (run.student, loaded)]
    assert torch.equal(*outputs)


# The folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    unet().save_pretrained(tmp_path / "unet", safe_serialization=True)
    return tmp_path / "unet"


def test_a_folder_holds_the_same_network(folder: Path) -> None:
    network = DiffusersUNet.from_folder(folder)
    xt, xT = images(), images(seed=2)
    assert network.conditional
    assert not network.training
    assert torch.equal(network(xt, TIME, xT), DiffusersUNet(unet())(xt, TIME, xT))


def test_the_first_names_of_attention(folder: Path) -> None:
    """google/ddpm-* are stored with them; diffusers' own reader of such a folder agrees."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(folder / WEIGHTS)
    for new, first in old.items():
        state = {name.replace(f".{new}.", f".{first}."): value for name, value in state.items()}
    assert any(".attentions.0.proj_attn." in name for name in state)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    xt, xT = images(), images(seed=2)
    expected = DiffusersUNet(unet())(xt, TIME, xT)
    assert torch.equal(DiffusersUNet.from_folder(folder)(xt, TIME, xT), expected)
    theirs = diffusers.UNet2DModel.from_pretrained(folder, low_cpu_mem_usage=False)
    assert torch.equal(theirs(torch.cat([xt, xT], 1), TIME).sample, expected)


def test_nothing_is_unpickled(folder: Path) -> None:
    class Harmful:
        def __reduce__(self):
            return (Path.touch, (folder / "ran",))

    (folder / WEIGHTS).unlink()
    (folder / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps({"conv_in.weight": Harmful()}))
    with pytest.raises(ValueError, match=r"\.bin is a pickle"):
        DiffusersUNet.from_folder(folder)
    assert not (folder / "ran").exists()


def settings_in(folder: Path, **changes: object) -> None:
    config = json.loads((folder / CONFIG).read_text()) | changes
    (folder / CONFIG).write_text(json.dumps(config))


def test_broken_folders(folder: Path) -> None:
    read = DiffusersUNet.from_folder
    with pytest.raises(FileNotFoundError, match="no folder"):
        read(folder / "nowhere")
    settings_in(folder, block_out_channels=[8, 24])
    with pytest.raises(ValueError, match="of another architecture"):
        read(folder)
    settings_in(folder, down_block_types=["DownBlock2D", "NoSuchBlock"])
    with pytest.raises(ValueError, match="makes no U-Net: NoSuchBlock"):
        read(folder)
    settings_in(folder, some_new_setting=1)
    with pytest.raises(ValueError, match="some_new_setting"):
        read(folder)
    settings_in(folder, _class_name="UNet2DConditionModel")
    with pytest.raises(ValueError, match="describes a UNet2DConditionModel"):
        read(folder)
    (folder / CONFIG).write_text("{")
    with pytest.raises(ValueError, match="no JSON"):
        read(folder)
    (folder / CONFIG).unlink()
    with pytest.raises(ValueError, match=r"has no config\.json$"):
        read(folder)
    (folder / "model_index.json").write_text("{}")
    with pytest.raises(ValueError, match="whole pipeline"):
        read(folder)


def test_broken_weights(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        DiffusersUNet.from_folder(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(ValueError, match="holds no weights"):
        DiffusersUNet.from_folder(folder)


# What it refuses


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"in_channels": 4}, "takes 4 channels and returns 3"),
        ({"in_channels": 3, "out_channels": 6}, "takes 3 channels and returns 6"),
        ({"time_embedding_type": "learned", "num_train_timesteps": 10}, "time_embedding_type is 'learned'"),
        ({"class_embed_type": "timestep"}, "class_embed_type is 'timestep'"),
    ],
)
def test_unets_that_do_not_fit(changes: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DiffusersUNet(unet(**changes))


def test_a_second_entrance_for_the_image_is_refused() -> None:
    own = unet(
        in_channels=3,
        down_block_types=("SkipDownBlock2D", "SkipDownBlock2D"),
        up_block_types=("SkipUpBlock2D", "SkipUpBlock2D"),
        block_out_channels=(32, 64),
    )
    with pytest.raises(ValueError, match="SkipDownBlock2D reads the image"):
        DiffusersUNet(own)
    with pytest.raises(ValueError, match="must be a UNet2DModel"):
        DiffusersUNet(torch.nn.Conv2d(3, 3, 1))


def test_impossible_inputs() -> None:
    network, labelled = DiffusersUNet(unet()), DiffusersUNet(unet(in_channels=3, num_class_embeds=5))
    with pytest.raises(ValueError, match="xT is missing"):
        network(images(), TIME)
    with pytest.raises(ValueError, match="xT is given"):
        labelled(images(), TIME, images())
    with pytest.raises(ValueError, match="label is missing"):
        labelled(images(), TIME)
    with pytest.raises(ValueError, match=r"label is \[0, 5\]"):
        labelled(images(), TIME, label=torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="label is given"):
        network(images(), TIME, images(), label=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="divisible by 2"):
        network(images(size=9), TIME, images(size=9))


def test_diffusers_is_needed_to_read_a_folder_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    fresh = importlib.util.module_from_spec(MODULE.__spec__)
    MODULE.__spec__.loader.exec_module(fresh)
    with pytest.raises(ImportError, match="pip install diffusers"):
        fresh.DiffusersUNet.from_folder(folder)
