"""Long trainings in legs: measured after each one, and found again, whole or in part, the next time.

Lives here: ``in_legs``, ``claim``, which keeps the work of different settings apart, and what writes pictures and JSON.
Imports the training files and the decoding of images.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ibmd_lite.data.decoding import as_bytes
from ibmd_lite.training import checkpointed, process, progress
from ibmd_lite.training.files import writing
from ibmd_lite.training.loop import Run

__all__ = ["claim", "in_legs", "save_picture", "write_json"]


def in_legs(
    run: Run, stream: Any, ends: Sequence[int], path: Path, measure: Callable[[], Mapping[str, Any]], *, every: int
) -> list[dict[str, Any]]:
    """Train until each of ``ends`` and measure there; every point is written before the next leg begins.

    ends: numbers of updates that grow; 0 for a measurement before the first.  path: of checkpoints and points, without
    suffix.  every: updates between two checkpoints.  A point is what ``measure`` returned, the update, and the median
    seconds of an update in its leg (None where it was killed between the leg and its point).  A bar tells how fast it
    goes and how long it will.
    """
    kept = Path(f"{path}.json")
    points: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    for look, end in enumerate(ends, start=1):
        if look < len(points):
            continue  # the checkpoint is of a later one
        leg = checkpointed(run, stream, end, f"{path}.pt", every=every) if end else ()
        if run.update < end:
            leg = progress(leg, end, path.name)
        seconds = [record.seconds for record in leg]
        if len(points) >= look:
            continue
        found = measure()
        spent = statistics.median(seconds) if seconds else None
        points.append({"update": run.update, **found, "seconds an update": spent})
        write_json(kept, points)
        told = ", ".join(f"{name} {value:.4g}" for name, value in found.items() if isinstance(value, float))
        if process()[0] == 0:
            print(f"{path.name} {run.update}/{ends[-1]}: {told or 'measured'}", flush=True)
    return points


def claim(folder: Path, about: Mapping[str, Any]) -> None:
    """Say in the folder whose work it holds; ValueError, with what differs, where that is another's."""
    path = folder / "about.json"
    kept = json.loads(path.read_text()) if path.exists() else about
    if differing := [name for name in {**kept, **about} if kept.get(name) != about.get(name)]:
        told = ", ".join(f"{name} {kept.get(name)!r} there and {about.get(name)!r} here" for name in differing)
        raise ValueError(f"{folder} holds another run ({told}); delete it, or name another folder")
    write_json(path, about)


def save_picture(path: Path, image: Float[Tensor, "3 height width"]) -> None:
    """An image in [-1, 1] as a PNG."""
    from PIL import Image

    with writing(path) as temporary:
        Image.fromarray(as_bytes(image).permute(1, 2, 0).numpy()).save(temporary, "PNG")


def write_json(path: Path, content: object) -> None:
    """Whole or not at all."""
    with writing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
