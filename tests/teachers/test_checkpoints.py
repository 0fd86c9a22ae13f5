"""Files in the published layouts, whole, broken, foreign and hostile."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ibmd_lite.teachers import ADM, Doubtful, build, fill, load_teacher, read_teacher

SMALL = {"width": 32, "multipliers": (1, 2), "blocks": 1, "attention": (2,), "head": 32}


def drawn(name: str, seed: int = 0) -> ADM:
    """A small network of that family whose every weight is random."""
    network = build(name, **SMALL)
    generator = torch.Generator().manual_seed(seed)
    for value in network.parameters():
        value.data = torch.randn(value.shape, generator=generator)
    return network


def i2sb_file(path, raw: ADM, average: ADM | None) -> None:
    """As i2sb/runner.py writes it: Image256Net holds the U-Net as ``diffusion_model``; torch_ema's state beside it."""
    optimiser = torch.optim.AdamW(raw.parameters(), lr=5e-5)
    raw(torch.randn(1, 3, 8, 8), torch.ones(1)).sum().backward()
    optimiser.step()
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=1000, gamma=0.99)
    found = {"net": OrderedDict((f"diffusion_model.{k}", v) for k, v in raw.state_dict().items())}
    if average is not None:
        shadow = [value.detach().clone() for value in average.parameters()]
        found["ema"] = {"decay": 0.99, "num_updates": 7, "shadow_params": shadow, "collected_params": None}
    torch.save(found | {"optimizer": optimiser.state_dict(), "sched": schedule.state_dict()}, path)


def bbdm_file(path, raw: ADM, average: ADM | None) -> None:
    """As BaseRunner.get_checkpoint_states does it: the tables of the schedule are buffers of the saved model."""
    model = {f"denoise_fn.{k}": v for k, v in raw.state_dict().items()}
    found = {"step": 9, "epoch": 2, "model": OrderedDict(m_t=torch.linspace(0.001, 0.999, 1000)) | model}
    if average is not None:
        found["ema"] = {f"denoise_fn.{k}": v.detach().clone() for k, v in average.named_parameters()}
    torch.save(found, path)


def same(model: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(("name", "write"), [("i2sb-jpeg-5", i2sb_file), ("bbdm", bbdm_file)])
def test_the_average_is_preferred_and_the_raw_weights_come_on_request(tmp_path, name, write):
    raw, average = drawn(name, 1), drawn(name, 2)
    path = tmp_path / "latest.pt"
    write(path, raw, average)
    assert same(load_teacher(name, path, network=drawn(name)), average)
    assert same(load_teacher(name, path, weights="raw", network=drawn(name)), raw)
    write(path, raw, None)
    with pytest.raises(ValueError, match=r"no running average.*weights='raw'"):
        load_teacher(name, path, network=drawn(name))
    assert same(load_teacher(name, path, weights="raw", network=drawn(name)), raw)


def test_plain_state_dicts_and_safetensors(tmp_path):
    network = drawn("ddbm-diode")
    state = {name: nn.Parameter(value) for name, value in network.state_dict().items()}  # DDBM saves them so
    torch.save(state, tmp_path / "diode_ema_0.9999_440000.pt")
    save_file(network.state_dict(), tmp_path / "diode.safetensors")
    for file in ("diode_ema_0.9999_440000.pt", "diode.safetensors"):
        assert same(load_teacher("ddbm-diode", tmp_path / file, network=drawn("ddbm-diode", 3)), network)


@pytest.mark.parametrize("before", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_from_several_devices_and_compiling(tmp_path, before):
    """In every layout, what torch put before the names is taken off."""
    network = drawn("ddbm-diode")
    torch.save({f"{before}{name}": value for name, value in network.state_dict().items()}, tmp_path / "diode.pt")
    assert same(load_teacher("ddbm-diode", tmp_path / "diode.pt", network=drawn("ddbm-diode", 3)), network)
    for name, write, part in (("i2sb-jpeg-5", i2sb_file, "net"), ("bbdm", bbdm_file, "model")):
        raw, average = drawn(name, 1), drawn(name, 2)
        write(tmp_path / "own.pt", raw, average)
        found = torch.load(tmp_path / "own.pt", weights_only=True)
        found[part] = {f"{before}{key}": value for key, value in found[part].items()}
        torch.save(found, tmp_path / "own.pt")
        assert same(load_teacher(name, tmp_path / "own.pt", network=drawn(name)), average)
        assert same(load_teacher(name, tmp_path / "own.pt", weights="raw", network=drawn(name)), raw)


def test_the_name_of_a_plain_file_says_which_weights_it_holds(tmp_path):
    state = drawn("ddbm-diode").state_dict()
    holds = {"model_440000.pt": "raw", "freq_model_000100.pt": "raw", "e2h_ema_0.9999_420000_adapted.pt": "ema"}
    for file, kept in holds.items():
        torch.save(state, tmp_path / file)
        assert read_teacher(tmp_path / file, weights=kept).keys() == state.keys()
        with pytest.raises(ValueError, match="holds one set of weights"):
            read_teacher(tmp_path / file, weights="raw" if kept == "ema" else "ema")


def test_convolutions_of_one_pixel_may_have_lost_an_axis(tmp_path):
    """DBIM's preprocess_ckpt.py squeezes the last axis of qkv and proj_out of DDBM's files."""
    network = drawn("ddbm-diode")
    squeezed = {k: v.squeeze(-1) if "qkv.w" in k or "proj_out.w" in k else v for k, v in network.state_dict().items()}
    assert squeezed["middle_block.1.qkv.weight"].shape == (192, 64, 1)
    torch.save(squeezed, tmp_path / "adapted.pt")
    assert same(load_teacher("ddbm-diode", tmp_path / "adapted.pt", network=drawn("ddbm-diode", 3)), network)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_network_without_memory_gets_the_files_weights_and_keeps_them(tmp_path, dtype):
    network = drawn("dbim-inpaint-center")
    path = tmp_path / "weights.pt"
    torch.save({name: value.to(dtype) for name, value in network.state_dict().items()}, path)
    with torch.device("meta"):
        empty = build("dbim-inpaint-center", **SMALL)
    fill(empty, read_teacher(path))
    path.write_bytes(bytes(path.stat().st_size))  # what was read must not change with the file
    for value, wanted in zip(empty.parameters(), network.parameters(), strict=True):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, wanted.to(dtype).float(), rtol=0, atol=0)


def test_all_faults_are_told_at_once(tmp_path):
    state = dict(drawn("ddbm-diode").state_dict())
    for name in [name for name in state if name.startswith("output_blocks.0")]:
        state[f"student.{name}"] = state.pop(name)
    state["out.2.weight"] = torch.zeros(6, 32, 3, 3)
    torch.save(state, tmp_path / "wrong.pt")
    with pytest.raises(ValueError, match=r"of 144 weights .*wrong\.pt fits only some") as raised:
        load_teacher("ddbm-diode", tmp_path / "wrong.pt", network=drawn("ddbm-diode"))
    told = str(raised.value)
    lost = sum(name.startswith("student.") for name in state)
    assert f"{lost} missing (output_blocks.0.0.in_layers.0.weight" in told
    assert f"{lost} unexpected (student.output_blocks.0.0.in_layers.0.weight" in told
    assert f"and {lost - 4} more)" in told
    assert "1 of another shape (out.2.weight (6, 32, 3, 3), here (3, 32, 3, 3))" in told


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda value: torch.full_like(value, torch.nan), "NaN or infinite"),
        (lambda value: value / 0, "NaN or infinite"),
        (lambda value: value.int(), "int32, expected floats"),
    ],
)
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path, spoil, match):
    state = dict(drawn("ddbm-diode").state_dict())
    state["out.2.weight"] = spoil(state["out.2.weight"])
    torch.save(state, tmp_path / "spoilt.pt")
    network = drawn("ddbm-diode", 3)
    with pytest.raises(ValueError, match=rf"spoilt\.pt: out\.2\.weight (is torch\.|holds ){match}"):
        load_teacher("ddbm-diode", tmp_path / "spoilt.pt", network=network)
    assert same(network, drawn("ddbm-diode", 3))


def test_a_file_with_the_name_of_another_teachers_is_doubted(tmp_path):
    path = tmp_path / "e2h_ema_0.9999_420000.pt"
    torch.save(drawn("ddbm-edges2handbags").state_dict(), path)
    load_teacher("ddbm-edges2handbags", path, network=drawn("ddbm-edges2handbags"))  # a warning would be an error
    with pytest.warns(Doubtful, match="file of ddbm-edges2handbags, and is read as ddbm-edges2handbags-ve"):
        load_teacher("ddbm-edges2handbags-ve", path, network=drawn("ddbm-edges2handbags-ve"))


def test_files_of_one_name_are_told_by_their_folder(tmp_path):
    path = tmp_path / "jpeg-5" / "latest.pt"
    path.parent.mkdir()
    i2sb_file(path, drawn("i2sb-jpeg-5"), drawn("i2sb-jpeg-5"))
    load_teacher("i2sb-jpeg-5", path, network=drawn("i2sb-jpeg-5"))
    with pytest.warns(Doubtful, match="file of i2sb-jpeg-5, and is read as i2sb-jpeg-10"):
        load_teacher("i2sb-jpeg-10", path, network=drawn("i2sb-jpeg-10"))


def test_a_checkpoint_of_another_teacher_changes_nothing(tmp_path):
    torch.save(drawn("i2sb-jpeg-5").state_dict(), tmp_path / "other.pt")
    network = drawn("ddbm-diode")
    with pytest.raises(ValueError, match=r"input_blocks.0.0.weight \(32, 3, 3, 3\), here \(32, 6, 3, 3\)"):
        load_teacher("ddbm-diode", tmp_path / "other.pt", network=network)
    assert same(network, drawn("ddbm-diode"))


def test_an_average_of_fewer_parameters(tmp_path):
    network = drawn("i2sb-jpeg-5")
    found = {"net": network.state_dict(), "ema": {"shadow_params": list(network.parameters())[:-1]}}
    torch.save(found, tmp_path / "latest.pt")
    with pytest.raises(ValueError, match="averages 143 parameters of a network of 144"):
        read_teacher(tmp_path / "latest.pt")


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path, zipped):
    trace = tmp_path / "it-ran"
    path = tmp_path / "hostile.pt"
    torch.save({"net": {}, "ema": Hostile(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"was refused.*wants to run \w+\.mkdir"):
        read_teacher(path)
    assert not trace.exists()


def test_other_files(tmp_path):
    path = tmp_path / "file.pt"
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        read_teacher(path)
    for content in (b"", b"<html>quota exceeded</html>"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no readable checkpoint"):
            read_teacher(path)
    torch.save(drawn("bbdm").state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="no readable checkpoint"):
        read_teacher(path)
    path.write_bytes(pickle.dumps({"net": Hostile(tmp_path / "it-ran")}))  # no file of torch.save at all
    with pytest.raises(ValueError, match=r"refused|no readable"):
        read_teacher(path)
    assert not (tmp_path / "it-ran").exists()
    torch.save([torch.zeros(2)], path)
    with pytest.raises(ValueError, match="holds a list"):
        read_teacher(path)
    for found in ({}, {"lr": 0.1, "epoch": 3}, {"state_dict": {"a": torch.zeros(1)}}):
        torch.save(found, path)
        with pytest.raises(ValueError, match="no known layout"):
            read_teacher(path)
    with pytest.raises(ValueError, match="'ema' or 'raw'"):
        read_teacher(path, weights="EMA")
