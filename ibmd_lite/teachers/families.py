"""Published bridge teachers as data: which network on which bridge, predicting what, for which task.

``load_teacher(name, path)`` makes a frozen ``BridgeModel`` of a checkpoint that you fetched; nothing is fetched here.
ResShift's are apart, in ``resshift``: they work on codes.
Every fact is from the repository that the entry names, read at NVlabs/I2SB 0bbea4aa, alexzhou907/DDBM 0b21ee6a,
xuekt98/BBDM 5a5c08e6, and for DBIM (thu-ml/DiffusionBridge) in copies of it: limsanky/dbim_clone (scripts/args.sh,
scripts/sample.sh, ddbm/karras_diffusion.py), zhuhz22/NA_project (corruption/inpaint.py, preprocess_ckpt.py).

Imports torch, jaxtyping, ``bridges``, ``model`` and its neighbours.
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

from ibmd_lite.bridges import DBIMI2SB, I2SB, VE, VP, Bridge, Brownian, I2SBFlow
from ibmd_lite.model import DDBM, BridgeModel, I2SBNoise, Prediction, Scalings
from ibmd_lite.teachers.adm import ADM, Architecture
from ibmd_lite.teachers.checkpoints import check_name, fill, read_teacher
from ibmd_lite.teachers.resshift import RESSHIFT

__all__ = ["PUBLISHED", "BBDMIndex", "Published", "build", "load_teacher", "published"]


@dataclass(frozen=True)
class BBDMIndex:
    """BBDM's 'grad' objective, xt - x0, with the time told as its code does: the index i of m = 0.001 + 0.998 i/999.

    Times before the first index and after the last count as these: BBDM takes xT for the state at index 999.  Between
    two indices the network is told a fraction, which it did not see in training.  A saved model does not know this
    class: load(path, network, prediction=BBDMIndex()).
    """

    def scalings(self, bridge: Bridge, t: Float[Tensor, " batch"]) -> Scalings:
        one = torch.ones_like(t)
        index = (t / bridge.T - 0.001) / 0.998 * 999
        return Scalings(one, -one, one, index.clamp(0, 999))


@dataclass(frozen=True)
class Published:
    """One published teacher, in the units of its code; images in [-1, 1].

    task : what xT and x0 are
    place, file : where its authors publish the weights, and under which name; None where they publish only the settings
    licence : of the weights
    expect : published results, and their source
    hole : what an inpainting teacher finds in the hole of xT; None for other tasks
    source : how its authors made xT, where the task does not say it; another xT is another task
    """

    task: str
    network: Architecture
    bridge: Bridge
    prediction: Prediction
    image_size: int
    place: str
    file: str | None
    licence: str
    expect: str = "no figures in 2502.01362"
    hole: str | None = None
    source: str | None = None

    @property
    def conditional(self) -> bool:
        """Whether the network sees xT."""
        return self.network.conditional


NOISE = "N(0, 1) noise, drawn once per image: give Inpainting()'s Source; the student needs no z (noise_channels=0)"
ZEROS = "zeros: give Source(x0 * (1 - mask), mask=mask, label=label); the variety must come from z"


BICUBIC = "SuperResolution(4, 'repeat'): shrunk by the cubic filter, each pixel repeated; border pixels differ a little"
POOL = "SuperResolution(4, 'pool')"
CODED = (
    "JPEG as I2SB's corruption/jpeg.py computes it, no file: every other colour sample is dropped, without a mean, the "
    "rest is repeated, and nothing is clipped or rounded to bytes. JPEG(quality) of this package writes real files"
)
BLURRED = (
    "I2SB's corruption/blur.py: along each axis {taps}, on images in [0, 1] with zeros around them. "
    "This package has no such blur"
)


def _i2sb(
    task: str, name: str, expect: str = Published.expect, *, noisy: bool = True, source: str | None = None
) -> Published:
    """scripts/train.sh has beta_max and --ot-ode of every task; i2sb/ckpt_util.py the network, ADM's own at 256."""
    return Published(
        task,
        Architecture(),
        I2SB(beta_max=0.3) if noisy else I2SBFlow(beta_max=1.0),
        I2SBNoise(),
        256,
        f"github.com/NVlabs/I2SB, scripts/download_checkpoint.sh {name}",
        f"results/{name}/latest.pt",
        "CC-BY-NC-SA-4.0",
        expect,
        NOISE if "inpaint" in name else None,
        source,
    )


DDBM_64 = Architecture(192, (1, 2, 3, 4), 3, (2, 4, 8), order="new", attention_axes=2, conditional=True, dropout=0.1)
DDBM_256 = Architecture(order="new", attention_axes=2, conditional=True, dropout=0.1)
HANDBAGS = Published(
    "edges (xT) to photographs of handbags (x0)",
    DDBM_64,
    VP(),
    DDBM(),
    64,
    "huggingface.co/alexzhou907/DDBM",
    "e2h_ema_0.9999_420000.pt",
    "none stated",
    "FID 0.89, IS 3.62 in 100 calls of DBIM; IBMD 1.26, 3.66 in 1 and 0.67, 3.69 in 2 (2502.01362)",
)
DIODE = replace(
    HANDBAGS,
    task="surface normals (xT) to photographs of outdoor scenes (x0)",
    network=DDBM_256,
    image_size=256,
    file="diode_ema_0.9999_440000.pt",
    expect="FID 2.57, IS 6.06 in 100 calls of DBIM; IBMD 4.07, 5.89 in 1 and 3.12, 5.92 in 2 (2502.01362)",
)
SETTINGS = "settings only, no weights"

PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "i2sb-sr4x-bicubic": _i2sb(
            "4x super-resolution, bicubic filter",
            "sr4x-bicubic",
            "FID 2.8, accuracy 70.7 in 1000 calls; IBMD 2.6, 72.3 in 1 (2502.01362)",
            source=BICUBIC,
        ),
        "i2sb-sr4x-pool": _i2sb(
            "4x super-resolution, pooling filter",
            "sr4x-pool",
            "FID 2.7, accuracy 71.0 in 1000 calls; IBMD 2.5, 72.5 in 1 (2502.01362)",
            source=POOL,
        ),
        "i2sb-jpeg-5": _i2sb(
            "JPEG restoration, quality 5",
            "jpeg-5",
            "FID 4.6, accuracy 67.9 in 1000 calls; IBMD 5.2, 66.6 in 1 (2502.01362)",
            source=CODED,
        ),
        "i2sb-jpeg-10": _i2sb(
            "JPEG restoration, quality 10",
            "jpeg-10",
            "FID 3.6, accuracy 72.1 in 1000 calls; IBMD 3.7, 72.4 in 1 (2502.01362)",
            source=CODED,
        ),
        "i2sb-blur-uni": _i2sb(
            "deblurring, uniform kernel",
            "blur-uni",
            noisy=False,
            source=BLURRED.format(taps="a sum of 8 neighbours, -4 to 3, over 9"),
        ),
        "i2sb-blur-gauss": _i2sb(
            "deblurring, Gaussian kernel",
            "blur-gauss",
            noisy=False,
            source=BLURRED.format(taps="4 of the 5 taps of a Gaussian of 10 pixels, -2 to 1"),
        ),
        "i2sb-inpaint-center": _i2sb(
            "inpainting of the central 128 x 128",
            "inpaint-center",
            "FID 5.4, accuracy 66.0 in 10 calls; IBMD 5.1, 70.3 in 4 (2502.01362)",
            noisy=False,
        ),
        "i2sb-inpaint-freeform1020": _i2sb(
            "inpainting of strokes over 10 to 20 %", "inpaint-freeform1020", noisy=False
        ),
        "i2sb-inpaint-freeform2030": _i2sb(
            "inpainting of strokes over 20 to 30 %", "inpaint-freeform2030", noisy=False
        ),
        "i2sb-conditional": replace(
            _i2sb("general translation, trained with --cond-x1", ""),
            network=Architecture(conditional=True),
            place="github.com/NVlabs/I2SB, README.md, General image-to-image translation",
            licence="NVIDIA Source Code License, non-commercial",
            file=None,
            expect=SETTINGS,
        ),
        "ddbm-edges2handbags": HANDBAGS,
        "ddbm-edges2handbags-ve": replace(
            HANDBAGS, bridge=VE(T=80.0), place="github.com/alexzhou907/DDBM, args.sh", file=None, expect=SETTINGS
        ),
        "ddbm-diode": DIODE,
        "ddbm-diode-ve": replace(
            DIODE, bridge=VE(T=20.0), place="github.com/alexzhou907/DDBM, args.sh", file=None, expect=SETTINGS
        ),
        "dbim-inpaint-center": Published(
            "inpainting of the central 128 x 128, the class known (0 to 999, ImageNet's synsets sorted)",
            Architecture(conditional=True, labels=1000),
            DBIMI2SB(beta_max=1.0),
            I2SBNoise(),
            256,
            "github.com/thu-ml/DiffusionBridge, README.md",
            "imagenet256_inpaint_ema_0.9999_400000.pt",
            "none stated",
            "FID 3.92, accuracy 72.4 in 50 calls of DBIM; IBMD 5.87, 70.6 in 1, 4.23, 72.3 in 2 and 4.03, 72.2 in 4 "
            "(2502.01362)",
            ZEROS,
        ),
        "bbdm": Published(
            "paired translation in pixels",
            Architecture(128, (1, 4, 8), 2, (), conditional=True),
            Brownian(eps=2.0),
            BBDMIndex(),
            64,
            "github.com/xuekt98/BBDM, configs/Template-BBDM.yaml",
            licence="MIT",
            file=None,
            expect=SETTINGS,
        ),
    }
)


def published(name: str) -> Published:
    """The entry of that name; ValueError with all names where there is none."""
    if name not in PUBLISHED:
        raise ValueError(
            f"no published teacher is called {name!r}; known are {', '.join(PUBLISHED)}. "
            f"ResShift's are read with load_resshift: {', '.join(RESSHIFT)}"
        )
    return PUBLISHED[name]


def build(name: str, **smaller: Any) -> ADM:
    """A fresh network of that teacher's family, at its published size or, for tests and experiments, a smaller one.

    smaller: fields of ``Architecture``, as build("ddbm-diode", width=32, multipliers=(1, 2), attention=(2,), head=32).
    """
    return ADM(replace(published(name).network, **smaller))


def load_teacher(
    name: str,
    path: str | os.PathLike,
    *,
    weights: Literal["ema", "raw"] = "ema",
    network: nn.Module | None = None,
) -> BridgeModel:
    """The teacher of a checkpoint, frozen and in evaluation mode, on the CPU in single precision.

    network: one to fill instead of the published one, e.g. ``recompute(build(name), ADM.blocks)``.

    Raises ValueError, before anything is read, for an unknown name; as ``read_teacher`` and ``fill`` for the file.  A
    file that has the published name of another teacher's is a warning, ``Doubtful``.
    """
    own = published(name)
    if network is None:
        with torch.device("meta"):
            network = build(name)
    check_name(name, path, {entry: PUBLISHED[entry].file for entry in PUBLISHED})
    fill(network, read_teacher(path, weights=weights), of=path)
    model = BridgeModel(network, own.bridge, conditional=own.conditional, prediction=own.prediction)
    return model.requires_grad_(False).eval()
