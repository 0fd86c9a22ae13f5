"""Public bridge teachers: their network, their checkpoints, and what each was trained for.

``load_teacher("i2sb-sr4x-bicubic", "latest.pt")`` is a frozen ``BridgeModel``, ready for ``Student.of(teacher,
input_layer=ADM.input_layer)``.  ``adm`` holds the network, ``checkpoints`` the files, ``families`` the presets,
``guidance`` and ``steps`` turn the knob of a class or of xT, ``several`` combines teachers of one task.
Imports the method, the time embedding and the training files.
"""

from ibmd_lite.teachers.adm import ADM, Architecture
from ibmd_lite.teachers.checkpoints import fill, read_teacher
from ibmd_lite.teachers.families import PUBLISHED, BBDMIndex, Published, build, load_teacher, published
from ibmd_lite.teachers.guidance import GuidedNetwork, LabelDropout, Labelled, guided, passes
from ibmd_lite.teachers.several import Average, average_teacher, barycentre_loss
from ibmd_lite.teachers.steps import GuidedHeun, GuidedHybrid

__all__ = [
    "ADM",
    "PUBLISHED",
    "Architecture",
    "Average",
    "BBDMIndex",
    "GuidedHeun",
    "GuidedHybrid",
    "GuidedNetwork",
    "LabelDropout",
    "Labelled",
    "Published",
    "average_teacher",
    "barycentre_loss",
    "build",
    "fill",
    "guided",
    "load_teacher",
    "passes",
    "published",
    "read_teacher",
]
