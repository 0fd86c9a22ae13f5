"""What a chapter does on a hosted machine such as Colab's, before its first cell of its own.

Each notebook's set-up cell, which `make links` writes, calls ``prepare`` there and nowhere else.  It says what the
machine has, and where a chapter wants a GPU and there is none, lets it go on at quick size.  A chapter that keeps its
trainings calls ``keep_trainings`` before: a lost session finds them again.  Imports torch; IPython when used.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionResult, InteractiveShell

__all__ = ["keep_trainings", "prepare"]

DRIVE = Path("/content/drive/MyDrive")
RUNS = "IBMD_RUNS"


def keep_trainings(*, drive: Path = DRIVE) -> None:
    """Let ``IBMD_RUNS`` name a folder for trainings, and say which: for a chapter that keeps them, and no other.

    Args:
        drive: where Google Drive is found once it is mounted; trainings are kept in it.  Without it they are kept on
            the machine, and are lost with it.  A folder that ``IBMD_RUNS`` names already is left as it is.
    """
    if RUNS not in os.environ:
        os.environ[RUNS] = str(drive / "ibmd-runs" if drive.is_dir() else Path("ibmd-runs").resolve())
        lost = "" if drive.is_dir() else "; mount Google Drive and start anew to keep them longer than this session"
        print(f"Trainings are kept in {os.environ[RUNS]}{lost}.")


def prepare(*, quick: Mapping[str, Any] | None = None) -> None:
    """Say what the machine has, and make the chapter fit it.

    Args:
        quick: parameters of a chapter that wants a GPU, at quick size; where there is no GPU they take the place of
            those in its cell tagged `parameters`.  None: the chapter is for any processor.
    """
    from IPython import get_ipython

    if torch.cuda.is_available():
        gibibytes = torch.cuda.get_device_properties(0).total_memory / 2**30
        print(f"GPU: {torch.cuda.get_device_name()}, {gibibytes:.0f} GiB.")
    elif quick is None:
        print("No GPU is selected; this chapter needs none.")
    else:
        print(
            "No GPU is selected, so this chapter goes on at quick size: everything runs and little is learned, and its "
            "text speaks of other figures. For full size: Runtime, Change runtime type, a GPU, and run all again."
        )
        _once_given(get_ipython(), dict(quick))


def _once_given(shell: InteractiveShell, values: dict[str, Any]) -> None:
    """Replace the values of names as soon as a cell has given all of them: the one tagged `parameters`."""

    def replace(result: ExecutionResult) -> None:
        if result.success and result.info and values.keys() <= _assigned(str(result.info.raw_cell)):
            shell.user_ns.update(values)
            shell.events.unregister("post_run_cell", replace)
            print("Quick size: " + ", ".join(f"{name} = {value!r}" for name, value in values.items()))

    shell.events.register("post_run_cell", replace)


def _assigned(source: str) -> set[str]:
    """The names that a cell assigns at its top level; none of a cell that is not plain Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set()
    targets = (target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets)
    return {target.id for target in targets if isinstance(target, ast.Name)}
