"""Public bridge teachers: their network, their checkpoints, and what each was trained for.

``load_teacher("i2sb-sr4x-bicubic", "latest.pt")`` is a frozen ``BridgeModel``, ready for ``Student.of(teacher,
input_layer=ADM.input_layer)``.  ``adm`` holds the network, ``checkpoints`` the files, ``families`` the presets.
Imports ``bridges``, ``model``, the time embedding and the training files.
"""

from ibmd_lite.teachers.adm import ADM, Architecture
from ibmd_lite.teachers.checkpoints import fill, read_teacher
from ibmd_lite.teachers.families import PUBLISHED, BBDMIndex, Published, build, load_teacher, published

__all__ = [
    "ADM",
    "PUBLISHED",
    "Architecture",
    "BBDMIndex",
    "Published",
    "build",
    "fill",
    "load_teacher",
    "published",
    "read_teacher",
]
