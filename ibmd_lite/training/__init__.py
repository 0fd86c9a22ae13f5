"""Training, without knowing what is trained: optimiser, average, precision, files, streams, loops."""

from ibmd_lite.training.files import load_checkpoint, load_weights, read_weights, save_checkpoint, save_weights
from ibmd_lite.training.learner import Diverged, Learner, Settings, best_device, frozen
from ibmd_lite.training.loop import checkpointed, progress
from ibmd_lite.training.memory import peak_memory
from ibmd_lite.training.processes import process, share
from ibmd_lite.training.recomputing import recompute
from ibmd_lite.training.sharding import whole
from ibmd_lite.training.streams import Draws, Shuffled

__all__ = [
    "Diverged",
    "Draws",
    "Learner",
    "Settings",
    "Shuffled",
    "best_device",
    "checkpointed",
    "frozen",
    "load_checkpoint",
    "load_weights",
    "peak_memory",
    "process",
    "progress",
    "read_weights",
    "recompute",
    "save_checkpoint",
    "save_weights",
    "share",
    "whole",
]
