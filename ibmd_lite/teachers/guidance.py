"""Teachers that are told a class, and classifier-free guidance: say the label louder than the data do.

Lives here: ``Labelled`` and ``LabelDropout``, the pairs on which such a teacher is trained; ``guided``, which makes a
guided ``BridgeModel`` of it; and ``passes``, what one call of it costs.  A student of a guided teacher has the
guidance in its weights: see ``guided``.
Imports torch, jaxtyping, ``model``, ``data.corrupted``, the networks' table of labels and the networks of other hands,
which know how many labels they were made with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ibmd_lite.data.corrupted import Corrupted
from ibmd_lite.data.corruptions import Corruption
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.networks.embedding import Conditions
from ibmd_lite.teachers.adm import ADM
from ibmd_lite.teachers.diffusers_unet import DiffusersUNet
from ibmd_lite.teachers.pulled import Pulled

__all__ = ["GuidedNetwork", "LabelDropout", "Labelled", "LabelledImages", "guided", "passes"]

Batch = Float[Tensor, "batch *dims"]
LabelledDraw = Callable[[int, torch.Generator | None], tuple[Tensor, Source]]


class LabelledImages(Protocol):
    """``Photographs``, ``Images``, or whatever else draws clean images and the class of each."""

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Labelled:
    """``Corrupted``, with the label of every image in its source: pairs for a teacher, sources for its student.

    Raises TypeError and ValueError as ``Corrupted`` does.
    """

    images: LabelledImages
    corruption: Corruption

    def __post_init__(self) -> None:
        Corrupted(self.images, self.corruption)  # refuses what cannot draw or corrupt

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Batch, Source]:
        """``n`` pairs: clean images x0, and their sources with labels."""
        x0, label = self.images.draw(n, generator)
        x0, source = Corrupted(_Drawn(x0), self.corruption).draw(n, generator)
        return x0, replace(Source.of(source), label=label)

    def sources(self, n: int, generator: torch.Generator | None = None) -> Source:
        """``n`` corrupted images with their labels: what a distillation may see."""
        return self.draw(n, generator)[1]


@dataclass(frozen=True)
class _Drawn:
    """Images that were drawn already."""

    x0: Tensor

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, None]:
        return self.x0, None


@dataclass(frozen=True)
class LabelDropout:
    """Pairs of which a share, at random, has the null label: a network of them knows both means, E[x0 | ..., label]
    and E[x0 | ...] (Ho and Salimans, 2207.12598).

    ``Draws(LabelDropout(pairs.draw, null=8), batch)`` feeds ``TeacherTraining``.  A student is trained on sources with
    all their labels: give ``Distillation`` the pairs' own ``sources``.

    Args:
        draw: (n, generator) -> (x0, Source), such as ``Labelled(...).draw``.
        null: the label that says nothing; by custom one more than the last class, so that a network of 8 classes is
            made with ``labels=9``.
        share: of the pairs that lose their label, between 0 and 1; 0.1 to 0.2 is usual.

    Raises:
        TypeError: a draw that cannot be called.
        ValueError: a share that is not between 0 and 1.
    """

    draw: LabelledDraw
    null: int
    share: float = 0.15

    def __post_init__(self) -> None:
        if isinstance(self.draw, type) or not callable(self.draw):
            raise TypeError(f"draw is {self.draw!r}; expected a function (n, generator), such as Labelled(...).draw")
        _check_null(self.null)
        if not 0 < self.share < 1:
            raise ValueError(f"share is {self.share}; expected a number between 0 and 1, such as 0.15")

    def __call__(self, n: int, generator: torch.Generator | None = None) -> tuple[Batch, Source]:
        """``n`` pairs.  ValueError for a source without labels, or with the null label among them already."""
        x0, source = self.draw(n, generator)
        label = source.label if isinstance(source, Source) else None
        if label is None:
            raise ValueError("the source has no labels to drop: give Source(xT, label=...), or draw from Labelled(...)")
        if bool((label == self.null).any()):
            raise ValueError(f"null={self.null} is the label of a class: take one more than the last class")
        dropped = torch.rand(len(label), generator=generator) < self.share
        return x0, replace(source, label=torch.where(dropped.to(label.device), self.null, label))


class GuidedNetwork(nn.Module):
    """F(null) + w (F(label) - F(null)): both answers of a network in one call, of a batch twice as long.

    For the network of a ``BridgeModel`` this is guidance of x0_hat itself, since x0_hat = skip xt + out F with the
    same skip and out for both (eq:prediction).

    Args:
        network: one that takes ``label=`` and was trained with ``LabelDropout``.
        weight: w. 1 is the network as it is, 0 the network without labels, above 1 the label counts for more. Ho and
            Salimans count from the former: their w is this one less 1.
        null: the label that was put in place of those dropped.

    Raises:
        ValueError: a weight that is not finite or below 0; a null label that the network's table does not hold, or
            whose row in it is still the zeros that it began with, because no label was ever dropped.  The rows of
            ``ADM`` and ``DiffusersUNet`` do not begin at zero: of theirs only the number is known, and of a network of
            another kind nothing.
    """

    passes = 2
    weight: float

    def __init__(self, network: nn.Module, weight: float, null: int) -> None:
        super().__init__()
        if isinstance(network, GuidedNetwork):
            raise ValueError(f"the network is guided already, with weight {network.weight:g}; guide the one inside it")
        if not math.isfinite(weight) or weight < 0:
            raise ValueError(f"weight is {weight}; expected a number of at least 0, such as 2.0")
        _check_null(null)
        for part in network.modules():
            if isinstance(part, Conditions):
                _check_row(part, null)
            elif isinstance(part, ADM):
                _check_rows(part.architecture.labels, null)
            elif isinstance(part, DiffusersUNet):
                _check_rows(part.labels, null)
        self.network, self.weight, self.null = network, float(weight), null

    def forward(
        self,
        xt: Batch,
        time: Float[Tensor, " batch"],
        *seen: Batch,
        label: Int[Tensor, " batch"] | None = None,
        **others: Tensor,
    ) -> Batch:
        """The guided output, of the shape of the network's own.  ValueError without labels."""
        if label is None:
            raise ValueError("a guided model needs labels: give Source(xT, label=...)")
        twice = [torch.cat([x, x]) for x in (xt, time, *seen)]
        both = {name: torch.cat([x, x]) for name, x in others.items()}
        labels = torch.cat([torch.full_like(label, self.null), label])
        without, told = self.network(*twice, label=labels, **both).chunk(2)
        return without + self.weight * (told - without)

    def get_submodule(self, target: str) -> nn.Module:
        """As ``nn.Module``; where a student looks for its input layer and there is none, it is told what to do."""
        try:
            return super().get_submodule(target)
        except AttributeError as error:
            raise ValueError(
                f"a guided network has no layer {target!r}. For a student, take the unguided teacher: "
                "Distillation(guided(teacher, w, null=...), Student.of(teacher), fake=copy.deepcopy(teacher))"
            ) from error

    def extra_repr(self) -> str:
        return f"weight={self.weight:g}, null={self.null}"


def guided(model: BridgeModel, weight: float, *, null: int) -> BridgeModel:
    """x0_hat = x0_hat(null) + w (x0_hat(label) - x0_hat(null)), as a model that shares the weights of ``model``.

    ``sample`` walks it as any other; it counts calls, and each call is two passes of the network: the passes are
    ``passes(model) * result.nfe``.

    A student with the guidance in its weights, at one pass, is one whose *teacher* is guided, with a fake and a
    student that are not::

        Distillation(guided(teacher, 2.0, null=8), Student.of(teacher), fake=copy.deepcopy(teacher))

    Without ``fake=`` the fake is a copy of the guided model, at twice the cost.  For w other than 1 a guided x0_hat is
    in general no conditional mean of any data: a walk and a student then make different compromises, and a gap of zero
    cannot be reached.  Not for w of 3 and more without a look at the pictures: they leave the range of the data.

    Raises:
        TypeError: not a BridgeModel.
        ValueError: as ``GuidedNetwork``, which refuses a source without labels when it is called.

    Source: Ho and Salimans, 2207.12598.
    """
    if not isinstance(model, BridgeModel):
        raise TypeError(
            f"a BridgeModel is guided, got {type(model).__name__}; wrap the network: BridgeModel(network, bridge)"
        )
    if isinstance(model, Pulled):
        raise ValueError("the pull is no part of the network: guide first, Pulled(guided(model, ...), weight)")
    return BridgeModel(GuidedNetwork(model.network, weight, null), **model.form._asdict()).train(model.training)


def passes(model: BridgeModel) -> int:
    """Network passes in one call of a model: 2 where it is guided, else 1.  Times ``nfe``, the cost of a walk."""
    return int(getattr(model.network, "passes", 1))


def _check_null(null: Any) -> None:
    if isinstance(null, bool) or not isinstance(null, int) or null < 0:
        raise ValueError(f"null is {null!r}; expected a label, a whole number of at least 0")


def _check_rows(labels: int, null: int) -> None:
    """A network of so many labels has one of that number."""
    if labels == 0:
        raise ValueError("the network was made with labels=0: make it with labels=classes + 1, the last of them null")
    if null >= labels:
        raise ValueError(
            f"null is {null}, but the network knows 0 to {labels - 1}. If all of these are classes it has no null "
            "label and cannot be guided by one: train it with labels=classes + 1 and LabelDropout"
        )


def _check_row(conditions: Conditions, null: int) -> None:
    """The table of labels holds a row of that number, and it was trained."""
    rows = conditions.tables["label"].weight if "label" in conditions.tables else ()
    _check_rows(len(rows), null)  # type: ignore[arg-type]
    if isinstance(rows, Tensor) and not bool(rows[null].any()):
        raise ValueError(
            f"the null label {null} was never trained: its row is still zero. Train on LabelDropout(draw, null={null})"
        )
