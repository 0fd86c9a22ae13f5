"""A script in several processes, as a user starts them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["started"]


def started(script: str, folder: Path, count: int, *words: object) -> None:
    """Run it in so many processes; its first word is the folder."""
    (folder / "train.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(count), "--standalone"]
    given = [str(folder / "train.py"), str(folder), *map(str, words)]
    done = subprocess.run([*command, *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:6000]
