"""Say that a change of the package cannot alter what some notebooks have stored.

`make unchanged WHY="..."` looks at every notebook whose imports of the package, or whose tables, have changed since its
outputs were stored, its own code not. It runs each of them at quick size, as the tests do, and where the stored outputs
come out again it stores the new fingerprint, with the reason, in the notebook. Someone who reviews the change reads the
reasons; a run at full size (`make outputs`) takes them away. Imports nbformat and its neighbours.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from ibmd_lite.experiments.fingerprint import fingerprint

from links import ROOT, notebooks

CHECK = "tests/book/test_runs.py::test_stored_outputs_come_out_again"


def accept(path: Path, why: str) -> None:
    """Store the fingerprint of today beside the reason; ValueError where the notebook itself has changed."""
    notebook = nbformat.read(path, as_version=4)
    stored, now = notebook.metadata.get("ibmd", {}), fingerprint(path)
    if stored.get("fingerprint", "").split("-")[0] != now.split("-")[0]:
        raise ValueError(f"{path.name} has other code than the one that was run; run it: make outputs NOTEBOOK={path}")
    reviewed = [*stored.get("reviewed", []), {"package": now.partition("-")[2], "why": why}]
    notebook.metadata["ibmd"] = {**stored, "fingerprint": now, "reviewed": reviewed}
    nbformat.write(notebook, path)


def changed(path: Path) -> bool:
    """Whether the package under the notebook, or a table, is another than when it was stored."""
    return nbformat.read(path, as_version=4).metadata.get("ibmd", {}).get("fingerprint") != fingerprint(path)


def comes_out_again(path: Path) -> bool:
    """Whether the notebook runs at quick size and its stored outputs are made again."""
    command = [sys.executable, "-m", "pytest", "-q", f"{CHECK}[{path.stem}]"]
    return subprocess.run(command, cwd=ROOT, env=os.environ, stdout=subprocess.DEVNULL).returncode == 0


def main() -> int:
    """The reason, then the notebooks (default: all that have changed)."""
    why, *names = sys.argv[1:] or [""]
    if len(why.split()) < 4:
        print('Say in a sentence why no stored output can be another: make unchanged WHY="..."')
        return 2
    failed = []
    for path in filter(changed, [Path(name).resolve() for name in names] or notebooks(ROOT)):
        if comes_out_again(path):
            accept(path, why)
            print(f"{path.name}: accepted", flush=True)
        else:
            failed.append(path.name)
            print(f"{path.name}: its outputs at quick size are others; run it at full size", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
