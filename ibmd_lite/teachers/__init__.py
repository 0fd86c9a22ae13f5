"""Public bridge teachers: their network, their checkpoints, and what each was trained for.

``load_teacher("i2sb-sr4x-bicubic", "latest.pt")`` is a frozen ``BridgeModel``, ready for ``Student.of(teacher,
input_layer=ADM.input_layer)``.  ``adm`` holds the network, ``checkpoints`` the files, ``families`` the presets,
``swin`` and ``resshift`` ResShift's, ``diffusers_unet`` the U-Net of that library,
``guidance``, ``steps`` and ``pulled`` turn the knob of a class or of xT, ``several`` combines teachers of one task;
``wrap`` takes a network of your own and looks whether it is what you say.
Imports the method, the time embedding and the training files.
"""

from ibmd_lite.teachers.adm import ADM, Architecture
from ibmd_lite.teachers.checkpoints import fill, read_teacher
from ibmd_lite.teachers.diffusers_unet import DiffusersUNet
from ibmd_lite.teachers.examination import Check, examine
from ibmd_lite.teachers.families import PUBLISHED, BBDMIndex, Published, build, load_teacher, published
from ibmd_lite.teachers.guidance import GuidedNetwork, LabelDropout, Labelled, guided, passes
from ibmd_lite.teachers.pulled import Pulled
from ibmd_lite.teachers.resshift import (
    RESSHIFT,
    CodesBesideImages,
    PublishedResShift,
    ResShiftX0,
    beside,
    load_resshift,
    load_resshift_student,
    resshift_student,
)
from ibmd_lite.teachers.several import Average, average_teacher, barycentre_loss
from ibmd_lite.teachers.steps import GuidedHeun, GuidedHybrid, ddbm_weights
from ibmd_lite.teachers.swin import SwinArchitecture, SwinUNet
from ibmd_lite.teachers.wrapping import Doubtful, Wrapped, wrap

__all__ = [
    "ADM",
    "PUBLISHED",
    "RESSHIFT",
    "Architecture",
    "Average",
    "BBDMIndex",
    "Check",
    "CodesBesideImages",
    "DiffusersUNet",
    "Doubtful",
    "GuidedHeun",
    "GuidedHybrid",
    "GuidedNetwork",
    "LabelDropout",
    "Labelled",
    "Published",
    "PublishedResShift",
    "Pulled",
    "ResShiftX0",
    "SwinArchitecture",
    "SwinUNet",
    "Wrapped",
    "average_teacher",
    "barycentre_loss",
    "beside",
    "build",
    "ddbm_weights",
    "examine",
    "fill",
    "guided",
    "load_resshift",
    "load_resshift_student",
    "load_teacher",
    "passes",
    "published",
    "read_teacher",
    "resshift_student",
    "wrap",
]
