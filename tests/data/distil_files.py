"""Distil a teacher from files: its weights, and a folder of corrupted images.  No clean image is needed, or read.

    python distil_files.py FOLDER

FOLDER holds ``teacher.safetensors`` and ``corrupted/``; ``student.safetensors`` is written beside them.  For a teacher
of your own, change the network, its bridge, the size of the images, the batch and the number of updates.
"""

import sys
from pathlib import Path

from ibmd_lite.bridges import Brownian
from ibmd_lite.data import Images
from ibmd_lite.distillation import Distillation, DistillationSettings, Student
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import UNet
from ibmd_lite.training import Draws, load_weights, progress

folder = Path(sys.argv[1])
images = Images.read(folder / "corrupted", size=16, fit="exact")
network = UNet(width=16, multipliers=(1, 2), patch=2)
load_weights(folder / "teacher.safetensors", network)
teacher = BridgeModel(network, Brownian(0.02))
settings = DistillationSettings(weight=teacher.output_weight)
run = Distillation(teacher, Student.of(teacher), settings=settings, device="cpu")
updates = run.updates(Draws(images.sources, batch=8), 6)
for _ in progress(updates, 6, "student", show=("gap", "lag")):
    pass
run.student.save(folder / "student.safetensors")
