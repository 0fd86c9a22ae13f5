"""Weights of published bridge teachers: read safely, told apart by what is in the file, checked name by name.

Four layouts are known: I2SB's (``net`` and ``ema``), BBDM's (``model`` and ``ema``), the plain state dicts of DDBM and
DBIM, and plain safetensors; what training on several devices and compiling put before the names is taken off.  A
pickle is read with ``weights_only``: one that wants to run code is refused.

Facts read in NVlabs/I2SB (i2sb/runner.py), fadel/pytorch_ema, alexzhou907/DDBM, thu-ml/DiffusionBridge
(preprocess_ckpt.py) and xuekt98/BBDM (runners/BaseRunner.py, base/EMA.py).  Imports torch and the training files.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ibmd_lite.training.files import read_weights

__all__ = ["Doubtful", "State", "check_name", "fill", "read_teacher"]

State = dict[str, Tensor]
SHOWN = 4  # names of each kind of fault


class Doubtful(UserWarning):
    """A network that may not be what it is said to be; the evidence is too weak to refuse it."""


def check_name(name: str, path: str | os.PathLike, files: Mapping[str, str | None]) -> None:
    """Warn where a file has the published name of another entry's and not that of its own.

    files: of each entry, with the folder where that tells it from others ("results/sr4x-pool/latest.pt").
    """
    parts = Path(path).absolute().parts
    ends = {entry: Path(file).parts[-2:] for entry, file in files.items() if file}
    owners = [entry for entry, end in ends.items() if parts[-len(end) :] == end]
    if owners and name not in owners:
        warnings.warn(
            f"{path} has the name of the file of {' and '.join(owners)}, and is read as {name}: networks of one shape "
            f"fit each other's files. Write {owners[0]!r}, or rename the file if you know better",
            Doubtful,
            stacklevel=3,
        )


def read_teacher(path: str | os.PathLike, *, weights: Literal["ema", "raw"] = "ema") -> State:
    """The network's tensors in a published checkpoint, by the names of ``ADM``, on the CPU.

    weights: the running average, which teachers are meant to be used with, or what the optimiser last held.  A plain
    file holds one of the two, and its name says which: DDBM calls raw ones model_ and a number.

    Raises ValueError for a pickle that wants to run code, a broken file, another layout, or weights that the file
    does not have; FileNotFoundError where there is none.
    """
    if weights not in ("ema", "raw"):
        raise ValueError(f"weights must be 'ema' or 'raw', got {weights!r}")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    found = read_weights(path)[1] if path.suffix == ".safetensors" else _unpickled(path)
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} holds a {type(found).__name__}, expected a mapping of names; give a state dict")
    found = _bared(found)
    keys = {key for key in found if isinstance(found[key], Mapping)}
    if "net" in keys:
        state = _i2sb(path, found, weights)
    elif "model" in keys:
        state = _bbdm(path, found, weights)
    else:
        state = _plain(path, found, weights)
    foreign = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if foreign or not state:
        raise ValueError(
            f"{path} is of no known layout: expected tensors, or 'net' and 'ema' (I2SB), or 'model' and 'ema' (BBDM); "
            f"got {_few(foreign or found)}"
        )
    return {name: value.detach() for name, value in state.items()}


def _unpickled(path: Path) -> Any:
    """A file of torch.save; of a zipped one only what is used is ever read, so an optimiser in it costs nothing."""
    zipped = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        pickled = file.read(1) == b"\x80"
    try:
        if not zipped and not pickled:
            raise EOFError("neither a zip archive nor a pickle")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise ValueError(
            f"{path} was refused: it is a pickle of more than tensors and plain values"
            f"{f', which wants to run {wanted.group(1)}' if wanted else ''}; nothing in a checkpoint is ever run here. "
            "If you trust whoever made it, save its tensors alone, with safetensors"
        ) from error
    except Exception as error:  # what a broken file raises depends on where it breaks off
        raise ValueError(
            f"{path} is no readable checkpoint (truncated, a page of a web site, or of another kind); fetch it again"
        ) from error


def _bared(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without what training on several devices and compiling put before every name."""
    return {
        name.removeprefix("module.").removeprefix("_orig_mod.") if isinstance(name, str) else name: value
        for name, value in found.items()
    }


def _i2sb(path: Path, found: Mapping[str, Any], weights: str) -> State:
    """``net`` is Image256Net's state dict; ``ema`` is torch_ema's, a list ``shadow_params`` in the parameters' order.

    The network has no buffers, so the order of ``net`` is the parameters' own.
    """
    prefix = "diffusion_model."
    raw = {name.removeprefix(prefix): value for name, value in _bared(found["net"]).items()}
    if weights == "raw":
        return raw
    ema = found.get("ema")
    shadow = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(shadow, list):
        raise ValueError(f"{path} has no running average ('ema' with 'shadow_params'); ask for weights='raw'")
    if len(shadow) != len(raw):
        raise ValueError(
            f"{path} averages {len(shadow)} parameters of a network of {len(raw)}: the file is not whole; fetch it "
            "again, or ask for weights='raw'"
        )
    return dict(zip(raw, shadow, strict=True))


def _bbdm(path: Path, found: Mapping[str, Any], weights: str) -> State:
    """``model`` is the whole model's state dict, tables and all, ``ema`` maps the names of parameters to averages."""
    prefix = "denoise_fn."
    part = found["model"] if weights == "raw" else found.get("ema")
    if not isinstance(part, Mapping) or not part:
        raise ValueError(f"{path} has no running average ('ema'); ask for weights='raw'")
    return {name.removeprefix(prefix): value for name, value in _bared(part).items() if name.startswith(prefix)}


def _plain(path: Path, found: Mapping[str, Any], weights: str) -> State:
    raw = re.fullmatch(r"(freq_)?model_\d{6,}", path.stem)
    average = re.search(r"ema_[\d.]+_\d{6,}", path.stem)
    if raw if weights == "ema" else average:
        raise ValueError(
            f"{path.name} holds one set of weights, {'raw ones' if raw else 'a running average'} by its name, and you "
            f"asked for weights={weights!r}: give the other file, or ask for the other"
        )
    return dict(found)


def fill(network: nn.Module, state: Mapping[str, Tensor], *, of: object = "the checkpoint") -> None:
    """Put the weights into the network, or raise one ValueError that says everything that does not fit.

    of: where the weights are from, for that message.
    A network on the meta device gets memory with them, so the published sizes are held once.  Convolutions of one
    pixel may be stored over one axis or two (DBIM's copies of DDBM's files): trailing axes of length 1 do not count.
    """
    own = network.state_dict()
    state = {
        name: value.reshape(own[name].shape) if name in own and _core(value) == _core(own[name]) else value
        for name, value in state.items()
    }
    faults = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {tuple(state[name].shape)}, here {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
    }
    if any(faults.values()):
        told = "; ".join(f"{len(names)} {what} ({_few(names)})" for what, names in faults.items() if names)
        raise ValueError(f"of {len(own)} weights {of} fits only some: {told}. Build the network it is of.")
    for name, value in own.items():
        given = state[name]
        if value.is_floating_point() and not given.is_floating_point():
            raise ValueError(f"{of}: {name} is {given.dtype}, expected floats; what lay between whole numbers is lost")
        if value.is_floating_point() and not bool(given.isfinite().all()):
            raise ValueError(f"{of}: {name} holds NaN or infinite values; fetch it again, or take an earlier one")
    new = any(value.is_meta for value in own.values())
    network.load_state_dict({name: state[name].to(own[name].dtype, copy=new) for name in own}, assign=new)


def _core(value: Tensor) -> tuple[int, ...]:
    """The shape without trailing axes of length 1."""
    shape = list(value.shape)
    while shape and shape[-1] == 1:
        shape.pop()
    return tuple(shape)


def _few(names: Iterable[object]) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")
