"""A U-Net of diffusers as a teacher's network: ``UNet2DModel`` behind this package's call.

``DiffusersUNet(unet)`` wraps one that you made or trained, ``DiffusersUNet.from_folder(path)`` reads what its
``save_pretrained`` wrote: a config.json and safetensors, nothing that is unpickled, nothing from the network.
Diffusers is imported when a folder is read, not before.

Facts read in diffusers 0.42 (models/unets/unet_2d.py, models/modeling_utils.py).  Imports torch, jaxtyping and the
training files.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ibmd_lite.training.files import check_state, read_weights

__all__ = ["DiffusersUNet"]

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
# layers of attention as diffusers first named them (google/ddpm-*), and as it does now
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class DiffusersUNet(nn.Module):
    """The network ``(xt, time[, xT][, label]) -> output`` of a ``UNet2DModel``, the output shaped like one image.

    It is conditional, with xT joined to xt on the channels, if ``unet`` takes twice as many channels as it returns, and
    unconditional if it takes as many.  What the times mean, and what is predicted, is for the model's ``prediction`` to
    say.  A student widens its first layer, ``Student.of(teacher, input_layer=DiffusersUNet.input_layer)``.

    Not for U-Nets that return a variance beside the image, that read the image in more than one place (the
    "Skip" blocks of NCSN++) or whose times or labels are no plain numbers and names: all ``ValueError``.
    """

    input_layer = "unet.conv_in"

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        config: Any = getattr(unet, "config", None)
        if config is None or not isinstance(getattr(unet, "conv_in", None), nn.Conv2d):
            raise ValueError(f"unet must be a UNet2DModel of diffusers, got {type(unet).__name__}")
        inputs, self.channels = config["in_channels"], config["out_channels"]
        if inputs not in (self.channels, 2 * self.channels):
            raise ValueError(
                f"the U-Net takes {inputs} channels and returns {self.channels}; expected as many (unconditional) or "
                "half as many (xt and xT come in): make it with other in_channels or out_channels"
            )
        for name, known in {"time_embedding_type": ("positional", "fourier"), "class_embed_type": (None,)}.items():
            if config[name] not in known:
                raise ValueError(f"{name} is {config[name]!r}; expected one of {known}")
        blocks = [*config["down_block_types"], *config["up_block_types"]]
        if skips := [kind for kind in blocks if "Skip" in kind]:
            raise ValueError(f"{skips[0]} reads the image beside the input layer, where neither xT nor noise can join")
        self.unet = unet
        self.conditional = inputs == 2 * self.channels
        self.labels: int = config["num_class_embeds"] or 0
        self.downsampling = 2 ** (len(config["down_block_types"]) - 1)

    @classmethod
    def from_folder(cls, path: str | os.PathLike) -> DiffusersUNet:
        """The network of a folder that ``UNet2DModel.save_pretrained`` wrote, in evaluation mode.

        Raises:
            FileNotFoundError: no such folder.
            ValueError: a file is missing or broken, the weights are pickled, or they are of another model.
            ImportError: diffusers is not installed.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder at {folder}")
        config = _config(folder)
        _, state = read_weights(_weights(folder))
        try:
            from diffusers import UNet2DModel
        except ImportError as error:
            raise ImportError("reading this folder needs diffusers: pip install diffusers") from error
        unknown = config.keys() - inspect.signature(UNet2DModel.__init__).parameters.keys()
        if unknown:
            raise ValueError(f"{folder / CONFIG} holds {sorted(unknown)}, which this version of diffusers ignores")
        try:
            unet: Any = UNet2DModel(**config)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{folder / CONFIG} makes no U-Net: {error}") from error
        state = {_renamed(name): weight for name, weight in state.items()}
        check_state(unet, state)
        unet.load_state_dict(state)
        return cls(unet).eval()

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
            ValueError: xT or label missing from a network made to see it, or given to one that is not; a label off the
                table; an image that cannot be halved so often.
        """
        self._check(xt, xT, label)
        image = xt if xT is None else torch.cat([xt, xT], 1)
        return self.unet(image, time, class_labels=label, return_dict=False)[0]

    def _check(self, xt: Tensor, xT: Tensor | None, label: Tensor | None) -> None:
        for name, given, wanted in (("xT", xT, self.conditional), ("label", label, bool(self.labels))):
            if (given is not None) != wanted:
                raise ValueError(
                    f"{name} is {'missing' if given is None else 'given'}, but this U-Net is made "
                    f"{'with' if wanted else 'without'} it"
                )
        if label is not None and label.device.type == "cpu" and not bool(((label >= 0) & (label < self.labels)).all()):
            raise ValueError(f"label is {label.unique().tolist()}; the network knows 0 to {self.labels - 1}")
        if xt.shape[-2] % self.downsampling or xt.shape[-1] % self.downsampling:
            raise ValueError(
                f"the image is {xt.shape[-2]} x {xt.shape[-1]}; expected height and width divisible by "
                f"{self.downsampling}: crop or pad the image"
            )


def _config(folder: Path) -> dict[str, Any]:
    """The settings of the U-Net, without the notes that diffusers keeps beside them (those begin with _)."""
    if not (folder / CONFIG).is_file():
        hint = "; this is a whole pipeline, name its folder 'unet'" if (folder / "model_index.json").is_file() else ""
        raise ValueError(f"{folder} has no {CONFIG}{hint}")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG} is no JSON ({error}); fetch or write it again") from error
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if kind != "UNet2DModel":
        raise ValueError(f"{folder / CONFIG} describes a {kind}; expected a UNet2DModel, the one kind read here")
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _weights(folder: Path) -> Path:
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    pickled = sorted(file.name for file in folder.glob("*.bin"))
    told = f"{pickled[0]} is a pickle, which could run anything and is not read" if pickled else "it holds no weights"
    raise ValueError(f"{folder} has no {WEIGHTS}: {told}; write it with unet.save_pretrained(folder)")


def _renamed(name: str) -> str:
    """The present name of a layer of attention, other names as they are."""
    return re.sub(rf"(\.attentions\.\d+)\.({'|'.join(OLD_NAMES)})\.", lambda m: f"{m[1]}.{OLD_NAMES[m[2]]}.", name)
