"""Long trainings in legs: measured after each one, and found again, whole or in part, the next time.

Lives here: ``in_legs``, ``claim``, which keeps the work of different settings apart, and ``write_json``.  Imports the
training files.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ibmd_lite.training import checkpointed
from ibmd_lite.training.files import writing
from ibmd_lite.training.loop import Run

__all__ = ["claim", "in_legs", "write_json"]


def in_legs(
    run: Run, stream: Any, ends: Sequence[int], path: Path, measure: Callable[[], Mapping[str, Any]], *, every: int
) -> list[dict[str, Any]]:
    """Train until each of ``ends`` and measure there; every point is written before the next leg begins.

    ends: numbers of updates that grow; 0 for a measurement before the first.  path: of checkpoints and points, without
    suffix.  every: updates between two checkpoints.  A point is what ``measure`` returned, the update, and the median
    seconds of an update in its leg (None where it was killed between the leg and its point).
    """
    kept = Path(f"{path}.json")
    points: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    for look, end in enumerate(ends, start=1):
        if look < len(points):
            continue  # the checkpoint is of a later one
        leg = checkpointed(run, stream, end, f"{path}.pt", every=every) if end else ()
        seconds = [record.seconds for record in leg]
        if len(points) >= look:
            continue
        found = measure()
        spent = statistics.median(seconds) if seconds else None
        points.append({"update": run.update, **found, "seconds an update": spent})
        write_json(kept, points)
        told = ", ".join(f"{name} {value:.4g}" for name, value in found.items() if isinstance(value, float))
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


def write_json(path: Path, content: object) -> None:
    """Whole or not at all."""
    with writing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
