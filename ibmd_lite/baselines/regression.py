"""Regression: one call of a network, fitted by least squares to pairs (x0, xT).

The pairs are clean ones, or what the teacher makes of xT in many steps (``teacher_pairs``).  Either way the
optimum is E[x0 | xT], one answer per source, however many there are.  Imports torch and the method's files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from ibmd_lite.matching import TeacherTraining, weighted_mean
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.sampling import Step, sample
from ibmd_lite.student import Student
from ibmd_lite.training import Settings

__all__ = ["Regression", "teacher_pairs"]


class Regression(TeacherTraining):
    """Minimise E |G(xT[, z]) - x0|^2 over pairs; ``student`` is a one-step student.

    Without z this is bridge matching with the time held at T (eq:matching), where a pinned bridge's state is xT.
    With z the optimum is the same: z is noise to a squared error, and the network learns to ignore it.

    ``updates`` takes pairs (x0, xT): clean ones, or ``teacher_pairs``.  Raises ValueError for several steps.

    Parameters
    ----------
    student : trained in place, of one step; ``run.student`` is its running average
    settings : as for any training
    """

    def __init__(
        self, student: Student, settings: Settings | None = None, *, device: torch.device | str | None = None
    ) -> None:
        if student.nfe != 1:
            raise ValueError(f"regression is for a student of one step, got {student.nfe}; use Student.of(teacher)")
        super().__init__(student.model.requires_grad_(True), settings, device=device)
        self._shape = student.channels, student.noise_channels, student.grid

    @property
    def student(self) -> Student:
        """The averaged student, in evaluation mode."""
        return Student(self.teacher, *self._shape).eval()

    def loss(self, x0: Tensor, source: Source, t: Tensor, noise: Tensor) -> Float[Tensor, ""]:
        """E |G(xT[, z]) - x0|^2, a mean over elements, over the hole where the source has a mask."""
        error = Student(self.model, *self._shape).walk(source, 1, self.learner.generator) - x0
        return weighted_mean(error.square(), t, None, source)


def teacher_pairs(
    teacher: BridgeModel,
    sources: Iterable[Source | Tensor],
    grid: Float[Tensor, " times"],
    step: Step | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[Tensor, Source]]:
    """Pairs (x0, source) with x0 sampled by the teacher on ``grid``, as many calls each as the grid has steps.

    A stream: made on the fly, one batch of sources after the other.  To make them once, take some batches and
    give them to ``training.Shuffled``.  ``step`` as in ``sampling.sample``, Markov by default.
    """
    for source in sources:
        source = Source.of(source)
        yield sample(teacher, source, grid, step, generator=generator).x0, source
