"""What a reader would try instead of inverse bridge matching, on the same models, students and settings.

``scores``: other losses for ``Distillation`` (SiD, VSD/DMD), given to ``DistillationSettings(loss=...)``.
``regression``: one step regressed on pairs, the teacher's or clean ones.  ``consistency``: a student that jumps
to the end of the teacher's deterministic path (CBD, CBT).  The few-step sampler DBIM is in ``sampling``.

Small and correct rather than tuned.  Imports the method's files; nothing of the method imports this.
"""

from ibmd_lite.baselines.consistency import ConsistencyDistillation, ConsistencyTraining
from ibmd_lite.baselines.regression import Regression, teacher_pairs
from ibmd_lite.baselines.scores import SiD, vsd_loss

__all__ = [
    "ConsistencyDistillation",
    "ConsistencyTraining",
    "Regression",
    "SiD",
    "teacher_pairs",
    "vsd_loss",
]
