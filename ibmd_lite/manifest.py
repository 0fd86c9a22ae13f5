"""A folder of results says what it was made with, and of which files: ``.restore.json``.

Lives here: ``Manifest``, by which a run claims a folder, or finds that it is another's, and knows which files changed
since they were answered.  It is written whole or not at all, before the first answer, so that a kill loses nothing.
Imports the listing's words and the training files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibmd_lite.data.listing import few
from ibmd_lite.training.files import writing

__all__ = ["MANIFEST", "Manifest", "State"]

MANIFEST = ".restore.json"
State = list[int]
"""Size and time of the last change (nanoseconds) of a file, then those of what else its answer was made of."""


@dataclass(frozen=True, eq=False)
class Manifest:
    """What a folder of results was made with.

    Args:
        out: the folder.
        said: the run: its student and its options, as JSON has them.
        states: of the files, by name, as they were when they were answered or are about to be.
    """

    out: Path
    said: Mapping[str, Any]
    states: dict[str, State]

    @classmethod
    def of(cls, out: Path, said: Mapping[str, Any]) -> Manifest:
        """That of a new or an empty folder, or of a run to go on with; nothing is written yet.

        Raises:
            ValueError: a folder that holds other files or another run's results, a manifest that cannot be read.
        """
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out} is a file: name a folder for the results")
        if not (out / MANIFEST).exists():
            found = sorted(path.name for path in out.iterdir()) if out.exists() else []
            if [name for name in found if not name.startswith(f".{MANIFEST}")]:
                raise ValueError(
                    f"{out} holds other files ({few(found)}), and nothing is overwritten: name a new or an empty folder"
                )
            return cls(out, said, {})
        told = _read(out / MANIFEST)
        states = told.pop("files", {})
        other = [name for name in sorted({*said, *told}) if told.get(name) != said.get(name)]
        if other:
            raise ValueError(
                f"{out} holds results of another run (other: {', '.join(other)}): name another folder, give "
                "the options of that run to go on with it, or delete it"
            )
        return cls(out, said, states)

    def changed(self, name: str, state: State, result: Path) -> bool:
        """Whether a file is another one than its result was made of.

        Of a result from before states were kept, what can be said is whether the file is the newer of the two.
        """
        if name in self.states:
            return self.states[name] != state
        return max(state[1::2]) > result.stat().st_mtime_ns

    def keep(self, states: Mapping[str, State]) -> None:
        """Remember states; the manifest is written where that is news."""
        path = self.out / MANIFEST
        if path.exists() and all(self.states.get(name) == state for name, state in states.items()):
            return
        self.states.update(states)
        with writing(path) as temporary:
            temporary.write_text(json.dumps({**self.said, "files": self.states}), "utf8")


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text("utf8"))
        whole = isinstance(told, dict) and _are_states(told.get("files", {}))
    except ValueError:  # no JSON, or no text
        whole = False
    if not whole:
        raise ValueError(
            f"{path} is damaged, so nobody knows what the results beside it were made with: name another folder, or "
            "delete this one"
        )
    return told


def _are_states(states: Any) -> bool:
    return isinstance(states, dict) and all(
        isinstance(state, list) and len(state) >= 2 and all(type(number) is int for number in state)
        for state in states.values()
    )
