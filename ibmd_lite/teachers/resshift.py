"""ResShift's published models: their networks, what those predict from which input, their bridges and files.

All of them work on codes of a VQ autoencoder, which have a variance of about 1: the bridge ends at the code of the
enlarged low-quality image, and beside the state the network sees that image itself, not its code.  Here the image rides
along with the code, ``beside(code, image)``, as channels that no step changes.  The autoencoder is no part of this
module.

Facts read in zsyOAOA/ResShift (models/gaussian_diffusion.py, configs/*.yaml, app.py, utils/util_net.py) and in copies
of its sampler.py.  Imports torch, jaxtyping, ``bridges``, ``model``, ``student``, the training files and its
neighbours.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ibmd_lite.bridges import Bridge, ResShift
from ibmd_lite.model import BridgeModel, Scalings, form_of
from ibmd_lite.student import Student, add_noise_input
from ibmd_lite.teachers.checkpoints import check_name, fill, read_teacher
from ibmd_lite.teachers.swin import SwinArchitecture, SwinUNet
from ibmd_lite.training.files import loaded

__all__ = [
    "RESSHIFT",
    "CodesBesideImages",
    "PublishedResShift",
    "ResShiftX0",
    "beside",
    "load_resshift",
    "load_resshift_student",
    "resshift_student",
]


@dataclass(frozen=True)
class ResShiftX0:
    """The network predicts x0 from a scaled state; time k of the bridge is its index k - 1.

    With c^2 = kappa^2 eta the state is divided by sqrt(c^2 + 1) for "codes" (data of variance 1), by 3 c + 1 for
    "pixels" (data in [-1, 1], with three standard deviations of noise), by 1 for "raw" states (ResShift's
    ``normalize_input: False``).  Every published model is for codes.  A saved model does not know this class:
    load(path, network, prediction=ResShiftX0()).

    Raises ValueError for other states than these.
    """

    states: Literal["codes", "pixels", "raw"] = "codes"

    def __post_init__(self) -> None:
        if self.states not in ("codes", "pixels", "raw"):
            raise ValueError(f"states must be 'codes', 'pixels' or 'raw', got {self.states!r}")

    def scalings(self, bridge: Bridge, t: Float[Tensor, " batch"]) -> Scalings:
        """As of every prediction type; raises ValueError for a bridge that is no ResShift."""
        if not isinstance(bridge, ResShift):
            raise ValueError(f"ResShiftX0 counts the steps of a ResShift bridge, got {bridge}; use X0()")
        c, one = bridge.coefficients(t)[2], torch.ones_like(t)
        divisor = {"codes": (c.square() + 1).sqrt(), "pixels": 3 * c + 1, "raw": one}[self.states]
        return Scalings(0 * one, one, divisor.reciprocal(), (t - 1).clamp_min(0))


def beside(
    code: Float[Tensor, "batch features rows columns"], image: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, "batch all rows columns"]:
    """xT of a ResShift model: the code, then the image that it is of, its pixels parted onto the codes' grid.

    Raises ValueError for an image that is not the codes' size times a whole number, the same in both directions.
    """
    (rows, columns), (height, width) = code.shape[2:], image.shape[2:]
    larger = height // rows
    if len(code) != len(image) or larger < 1 or (height, width) != (larger * rows, larger * columns):
        raise ValueError(
            f"the image {tuple(image.shape)} does not lie over the code {tuple(code.shape)}: expected as many of them, "
            "and sides that are the code's times one whole number"
        )
    return torch.cat([code, functional.pixel_unshuffle(image, larger)], 1)


class CodesBesideImages(nn.Module):
    """``SwinUNet`` on what ``beside`` makes: ``(xt, time, xT) -> x0``, all of one shape, or xt with noise after it.

    The network sees the code in xt and the image in xT, and the image is handed on as its own x0.  The bridge's noise
    on the image's channels is never looked at, and both losses are zero there.
    """

    input_layer = f"network.{SwinUNet.input_layer}"
    conditional = True

    def __init__(self, network: SwinUNet) -> None:
        super().__init__()
        self.network = network

    @property
    def channels(self) -> int:
        """Of a code with its image."""
        own = self.network.architecture
        return own.channels + own.condition_channels * 4**own.halvings

    def forward(
        self,
        xt: Float[Tensor, "batch inputs rows columns"],
        time: Float[Tensor, "batch"],
        xT: Float[Tensor, "batch all rows columns"] | None = None,
    ) -> Float[Tensor, "batch all rows columns"]:
        """Raises ValueError for an xT that is missing or has other channels than ``channels``."""
        own = self.network.architecture
        if xT is None or xT.shape[1] != self.channels:
            raise ValueError(
                f"xT is {'missing' if xT is None else tuple(xT.shape)}; expected {self.channels} channels: "
                "beside(code, image)"
            )
        carried = xT[:, own.channels :]
        state = torch.cat([xt[:, : own.channels], xt[:, self.channels :]], 1)
        code = self.network(state, time, functional.pixel_shuffle(carried, 2**own.halvings))
        return torch.cat([code, carried], 1)


def resshift_student(teacher: BridgeModel, *, steps: int = 1, noise_channels: int | None = None) -> Student:
    """As ``Student.of``, which cannot tell code, noise and image apart in the first layer of a ResShift network.

    noise_channels: by default as many as a code has.  ``load_resshift_student`` reads what its ``save`` wrote.

    Raises TypeError for a teacher of another network, and ValueError for noise_channels below 0.
    """
    network = teacher.network
    if not isinstance(network, CodesBesideImages):
        raise TypeError(
            f"the teacher's network must be CodesBesideImages, got {type(network).__name__}; use Student.of"
        )
    codes = network.network.architecture.channels
    noise_channels = codes if noise_channels is None else noise_channels
    if noise_channels < 0:
        raise ValueError(f"noise_channels must be 0 or more, got {noise_channels}")
    widened = add_noise_input(network, codes, noise_channels, network.input_layer).requires_grad_(True)
    model = BridgeModel(widened, **teacher.form._asdict())
    return Student(model, network.channels, noise_channels, teacher.bridge.grid(steps)).eval()


def load_resshift_student(
    path: str | os.PathLike, network: CodesBesideImages, prediction: ResShiftX0 | None = None
) -> Student:
    """The student of a file that ``save`` wrote.  network: one as the teacher's, its weights do not matter.

    prediction: only needed where it was not for codes.  Raises ValueError for a file of anything else.
    """

    def build(about: Mapping[str, Any]) -> Student:
        model = BridgeModel(network, **form_of(about, prediction=prediction or ResShiftX0())._asdict())
        return resshift_student(model, steps=len(about["grid"]) - 1, noise_channels=about["noise_channels"])

    return loaded(path, "student", build)


NETWORK = SwinArchitecture()
FOUR_STEPS = ResShift(kappa=2.0, steps=4, min_noise_level=0.2)
FIFTEEN_STEPS = ResShift(kappa=2.0, steps=15, min_noise_level=0.04)
ON_CODES = ResShiftX0()


@dataclass(frozen=True)
class PublishedResShift:
    """One published model; images in [-1, 1].

    enlarged : how much larger, by bicubic interpolation, the low-quality image is before it is encoded into xT
    autoencoder : the file of the VQ autoencoder that codes are of
    file : under which name the weights are published; both lie in the project's release v2.0
    """

    task: str
    file: str
    autoencoder: str = "autoencoder_vq_f4.pth"
    network: SwinArchitecture = NETWORK
    bridge: ResShift = FOUR_STEPS
    enlarged: int = 4
    prediction: ResShiftX0 = ON_CODES
    licence: str = "S-Lab License 1.0, non-commercial"


REAL = PublishedResShift("4x super-resolution of real photographs", "resshift_realsrx4_s4_v3.pth")
OLDER = replace(REAL, bridge=FIFTEEN_STEPS)
HOLES = PublishedResShift(
    "inpainting; the fourth channel of the image is its mask, 1 in the hole and -1 elsewhere",
    "resshift_inpainting_imagenet_s4.pth",
    network=SwinArchitecture(condition_channels=4, condition_size=256),
    enlarged=1,
)
RESSHIFT: Mapping[str, PublishedResShift] = MappingProxyType(
    {
        "resshift-real": REAL,
        "resshift-real-v2": replace(OLDER, file="resshift_realsrx4_s15_v2.pth"),
        "resshift-real-v1": replace(OLDER, file="resshift_realsrx4_s15_v1.pth"),
        "resshift-bicubic": PublishedResShift("4x super-resolution, bicubic filter", "resshift_bicsrx4_s4.pth"),
        "resshift-inpaint": HOLES,
        "resshift-inpaint-face": replace(
            HOLES, file="resshift_inpainting_face_s4.pth", autoencoder="celeba256_vq_f4_dim3_face.pth"
        ),
        "resshift-face": PublishedResShift(
            "blind restoration of faces",
            "resshift_faceir_s4.pth",
            "ffhq512_vq_f8_dim8_face.pth",
            SwinArchitecture(channels=8, condition_size=512),
            enlarged=1,
        ),
    }
)


def load_resshift(name: str, path: str | os.PathLike, *, network: SwinUNet | None = None) -> BridgeModel:
    """The published model of a checkpoint that you fetched, frozen and in evaluation mode: ``model(xt, t, xT)``.

    xT is ``beside(code, image)``: the image in [-1, 1], and the code of that image ``enlarged``; x0 comes in its first
    channels.  ``resshift_student(model)`` makes the student.

    network: one to fill instead of the published one, e.g. a ``SwinUNet`` of ``RESSHIFT[name].network``, recomputed.
    There is no choice of weights as in ``load_teacher``: every published file holds one set.

    Raises ValueError, before anything is read, for an unknown name; as ``read_teacher`` and ``fill`` for the file.  A
    file that has the published name of another model's is a warning, ``Doubtful``.
    """
    if name not in RESSHIFT:
        raise ValueError(f"no published model is called {name!r}; known are {', '.join(RESSHIFT)}")
    own = RESSHIFT[name]
    if network is None:
        with torch.device("meta"):
            network = SwinUNet(own.network)
    check_name(name, path, {entry: RESSHIFT[entry].file for entry in RESSHIFT})
    fill(network, read_teacher(path), of=path)
    model = BridgeModel(CodesBesideImages(network), own.bridge, conditional=True, prediction=own.prediction)
    return model.requires_grad_(False).eval()
