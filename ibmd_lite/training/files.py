"""Files that survive a crash and run no code: atomic writes, checkpoints, weights.

A file is written beside its place, flushed to the disk and then moved there, so that whatever is found
under a name is whole.  Checkpoints are read with ``weights_only``, weights are safetensors.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ibmd_lite.training.sharding import in_shares

__all__ = [
    "check_state",
    "load_checkpoint",
    "load_weights",
    "loaded",
    "read_weights",
    "save_checkpoint",
    "save_weights",
    "writing",
]

Module = TypeVar("Module", bound=nn.Module)


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path to write to; moved to ``path`` when the block ends well, removed when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def save_checkpoint(path: str | os.PathLike, state: dict) -> None:
    """Write nested dicts and lists of tensors, numbers and strings."""
    with writing(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: str | os.PathLike) -> dict:
    """Read what ``save_checkpoint`` wrote, onto the CPU; a truncated or foreign file is a ValueError."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:  # what a broken file raises depends on where it breaks off
        raise ValueError(
            f"{path} is no readable checkpoint (truncated, or of another kind); delete it to start anew"
        ) from error


def save_weights(path: str | os.PathLike, module: nn.Module, about: Mapping[str, object] | None = None) -> None:
    """Write a module's weights as safetensors, with a JSON-able description of what they are.

    Raises ValueError for weights in shares of several processes.
    """
    from safetensors.torch import save_model

    if in_shares(module):
        raise ValueError("the weights are in shares of several processes: in all of them, save training.whole(module)")

    with writing(path) as temporary:
        save_model(module, str(temporary), metadata={"about": json.dumps(dict(about or {}))})


def load_weights(path: str | os.PathLike, module: nn.Module) -> dict:
    """Load safetensors into a module of the same architecture and return the description.

    Raises ValueError for a file that is no safetensors file or whose keys and shapes are another module's.
    """
    about, state = read_weights(path)
    check_state(module, state)
    module.load_state_dict(state)
    return about


def loaded(path: str | os.PathLike, kind: str, build: Callable[[dict], Module]) -> Module:
    """What ``build`` makes of the description in a file, with the file's weights, in evaluation mode.

    kind: what the file should hold, for the error.  Raises ValueError where ``build`` finds the description lacking
    (KeyError, TypeError) and where the weights are of another architecture.
    """
    about, state = read_weights(path)
    try:
        module = build(about)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds no {kind} that this package knows: {error}; write it with {kind}.save(path), and give "
            "load() a bridge or prediction of your own"
        ) from error
    check_state(module, state)
    module.load_state_dict(state)
    return module.eval()


def read_weights(path: str | os.PathLike) -> tuple[dict, dict[str, Tensor]]:
    """The description and the tensors of a safetensors file, without a module to put them in.

    Raises FileNotFoundError where there is no file, and ValueError for one that is not whole or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}); fetch or write it again") from error
    return json.loads(metadata.get("about", "{}")), state


def check_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Refuse (ValueError) weights of another architecture, naming the keys."""
    own = module.state_dict()
    faults = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": [
            f"{name} {tuple(state[name].shape)}, here {tuple(own[name].shape)}"
            for name in sorted(own.keys() & state.keys())
            if own[name].shape != state[name].shape
        ],
    }
    if any(faults.values()):
        told = "; ".join(
            f"{what}: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
            for what, names in faults.items()
            if names
        )
        raise ValueError(f"the weights are of another architecture: {told}. Build the module they were saved from.")
