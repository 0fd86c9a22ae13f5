"""Pictures of a training as it goes: seen while it runs, and kept as the frames of an animation.

Lives here: ``Watched``, which stands around a run's records as ``training.progress`` does. Imports torch and its
neighbour ``figures``; matplotlib and IPython when used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from ibmd_lite.display.figures import figure_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Watched"]

Record = TypeVar("Record")


class Watched(Generic[Record]):
    """The records of a run, and every so many updates a picture of where it is.

    ::

        watched = Watched(run.updates(sources, 300), lambda: pictures({"student": run.student(xT)}), every=25)
        for record in watched:
            ...
        animation(watched.frames, alt=..., caption=...)

    ``frames`` holds the pictures, titled with their update: one from before the first update, one whenever ``every``
    divides their number, one from after the last (where the loop is left early, there is none). In a notebook the
    newest is also shown, each in the place of the one before; where the environment variable IBMD_STATIC is set, as
    when outputs are stored, and outside a notebook, they are only kept.

    Pictures are drawn without gradient and always with the same of torch's own random numbers, so that frames differ
    by what was learned; the training meets the random state that it would have met without them.

    Args:
        records: what ``run.updates(...)``, ``checkpointed`` or ``progress`` yields: has ``update``, the number so far.
        draw: makes the picture, such as ``pictures`` of images or ``clouds`` of points; always of one size.
        every: updates from one picture to the next.

    Raises:
        ValueError: ``every`` below 1; while it runs: a picture of another size than the first.
        TypeError: ``draw`` that cannot be called, or returns something else than a matplotlib figure.
    """

    def __init__(self, records: Iterable[Record], draw: Callable[[], Figure], *, every: int) -> None:
        if every < 1:
            raise ValueError(f"every is {every}; expected at least 1 update from one picture to the next")
        if not callable(draw):
            raise TypeError(f"draw is {draw!r}; expected a function that makes a figure, such as lambda: pictures(...)")
        self.records, self.draw, self.every = records, draw, every
        self.frames: list[Figure] = []
        self._shown: Any = None

    def __iter__(self) -> Iterator[Record]:
        if not self.frames:
            self._look("before the first update")
        update = drawn = 0
        for record in self.records:
            update = record.update  # type: ignore[attr-defined]
            if update % self.every == 0:
                self._look(f"update {update}")
                drawn = update
            yield record
        if update != drawn:
            self._look(f"update {update}")

    def _look(self, title: str) -> None:
        from matplotlib.figure import Figure

        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices), torch.no_grad():
            torch.manual_seed(0)
            fig = self.draw()
        if not isinstance(fig, Figure):
            raise TypeError(f"draw returned {type(fig).__name__}; expected a figure, such as pictures(...) returns")
        fig.set_figheight(fig.get_figheight() + 0.3)  # inches, for the title
        fig.suptitle(title)
        sizes = [tuple(frame.get_size_inches().tolist()) for frame in (fig, *self.frames[:1])]
        if sizes[0] != sizes[-1]:
            raise ValueError(
                f"draw made a figure of {sizes[0]} inches, the first was {sizes[-1]}; draw all of one size"
            )
        self.frames.append(fig)
        if _can_replace():
            self._show(figure_html(fig, alt=f"Where the training is: {title}", caption=f"The training, {title}."))

    def _show(self, picture: str) -> None:
        from IPython.display import HTML, display

        if self._shown is None:
            self._shown = display(HTML(picture), display_id=True)
        else:
            self._shown.update(HTML(picture))


def _can_replace() -> bool:
    """Whether this is a live notebook, which can put one output in another's place."""
    if os.environ.get("IBMD_STATIC") or "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")
