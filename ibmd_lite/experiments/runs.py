"""One run of a notebook: papermill in this process, and a folder with the executed notebook and ``result.json``.

The folder is named by the notebook, the state of the code and the parameters, so that a result is found again as long
as nothing it depends on has changed, and is never that of another run.  Imports papermill, nbclient and its neighbours.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import re
import subprocess
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import papermill
from nbclient.exceptions import CellTimeoutError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from ibmd_lite.experiments.files import locked, one_gpu, write_text
from ibmd_lite.experiments.fingerprint import fingerprint
from ibmd_lite.experiments.reading import result_of

__all__ = ["Run", "RunError", "code_of", "commit_of", "execute", "found"]

ENVIRONMENT = {"IBMD_STATIC": "1", "JUPYTER_PLATFORM_DIRS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


class RunError(RuntimeError):
    """A run failed; the text is the notebook's traceback."""


@dataclass(frozen=True)
class Run:
    """What one run is given, and its folder.

    Attributes:
        parameters: those that are set; ``defaults`` are the notebook's own, of all that are literals.
        case: what varies in its sweep.
        code: the ``code_of`` the notebook that the parameters are for.
        commit: of the notebook's repository, if it is in one.
        folder: for the executed notebook, ``run.ipynb``, and the result, ``result.json``.
        minutes: that its cells may take together; None lets them take for ever.
    """

    notebook: Path
    parameters: dict[str, Any]
    case: dict[str, Any]
    defaults: dict[str, Any]
    code: str
    commit: str | None
    folder: Path
    minutes: float | None = None

    @classmethod
    def within(
        cls,
        out: Path,
        notebook: Path,
        parameters: dict[str, Any],
        *,
        case: dict[str, Any],
        defaults: dict[str, Any],
        code: str,
        commit: str | None,
        minutes: float | None = None,
    ) -> Run:
        """A run whose folder below ``out`` is named by the notebook's place, its code and all parameters."""
        words = json.dumps([_place(notebook, out), code, defaults | parameters], sort_keys=True)
        folder = out / hashlib.sha256(words.encode()).hexdigest()[:12]
        return cls(notebook, parameters, case, defaults, code, commit, folder, minutes)


def found(run: Run) -> dict[str, Any] | None:
    """The run's result, if it is there; under the name that its case has today."""
    try:
        result = result_of(run.folder / "result.json")
    except (FileNotFoundError, ValueError):  # a damaged one is made anew
        return None
    if result["fingerprint"] != run.code:
        return None
    if result["case"] != run.case:
        result["case"] = run.case
        _write(run, result)
    return result


def execute(run: Run, attempt: int = 1) -> dict[str, Any]:
    """Run the notebook where it has no result yet, and return what ``result.json`` holds.

    Another process that has the folder is waited for, and a GPU of its own, where there are any.  The kernel works in
    the notebook's folder, as a reader's would.

    Args:
        attempt: told in the result; a scheduler that knows work by its arguments sees that a second one is new.

    Raises:
        RunError: the notebook failed, took longer than it may, its result is no JSON, or its code was changed
            meanwhile.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with locked(run.folder / "lock"):
        result = found(run)
        if result is None:
            try:
                result = _executed(run) | {"attempt": attempt}
            except RunError:
                raise
            except CellTimeoutError as error:
                told = str(error).strip()
                raise RunError(f"{told}\nended after the {run.minutes:g} minutes that its sweep allows") from None
            except PapermillExecutionError as error:
                raise RunError(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()) from None
            except Exception:  # a kernel that died, a full disk: whatever it is must survive the way back
                raise RunError(traceback.format_exc()) from None
            _write(run, result)
    return result


def code_of(notebook: Path) -> str:
    """The notebook's fingerprint without the tables that it shows: one of them may be made of its own runs."""
    return fingerprint(notebook).rpartition("-")[0]


def commit_of(folder: Path) -> str | None:
    """The commit of the repository around a folder, with `-dirty` where files differ from it; None where is none."""
    asked = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _place(notebook: Path, folder: Path) -> str:
    """The way from a folder to the notebook, which stays when both are moved."""
    return Path(os.path.relpath(notebook, folder)).as_posix()


def _write(run: Run, result: dict[str, Any]) -> None:
    write_text(run.folder / "result.json", json.dumps(result, indent=1, allow_nan=False) + "\n")


def _executed(run: Run) -> dict[str, Any]:
    with one_gpu() as visible:
        began, clock = datetime.now(UTC), time.perf_counter()
        notebook = papermill.execute_notebook(
            run.notebook,
            run.folder / "run.ipynb",
            run.parameters,
            engine_name="ibmd_lite",
            progress_bar=False,
            environment={**os.environ, **ENVIRONMENT, **visible},
            folder=str(run.notebook.parent),
            minutes=run.minutes,
        )
        seconds = time.perf_counter() - clock
    if code_of(run.notebook) != run.code:
        raise RunError(f"{run.notebook.name}, or what it imports, was changed during the run: start the sweep again")
    parameters = run.defaults | run.parameters
    return {
        "notebook": run.notebook.name,
        "notebook_path": _place(run.notebook, run.folder),
        "case": run.case,
        "parameters": parameters,
        "seed": parameters.get("seed"),
        "metrics": _metrics(notebook.cells),
        "fingerprint": run.code,
        "commit": run.commit,
        "started": began.isoformat(timespec="milliseconds"),
        "wall_seconds": round(seconds, 3),
        **notebook.metadata["kernel_told"],
    }


def _metrics(cells: list) -> dict[str, Any]:
    """What the cell tagged `result` printed, one JSON object; {} where no cell has the tag.

    Python prints NaN and Infinity where JSON has no such numbers; they become None.
    """
    tagged = [cell for cell in cells if "result" in cell.metadata.get("tags", [])]
    if not tagged:
        return {}
    printed = "".join(each.text for each in tagged[0].outputs if each.get("name") == "stdout")
    try:
        metrics = json.loads(printed, parse_constant=lambda _: None)
    except json.JSONDecodeError:
        metrics = None
    if len(tagged) > 1 or not isinstance(metrics, dict):
        raise RunError(
            f"{len(tagged)} cells are tagged `result`, the first printed {printed[:200]!r}; there may be one, and it "
            "must print one JSON object"
        )
    return metrics


def _kernel_tells() -> str:
    """Runs in the kernel after the last cell: versions, device and peak memory, as JSON."""
    import json
    import platform
    import resource
    import sys

    torch: Any = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    try:
        with open("/proc/self/status") as file:  # what getrusage says includes the process that started this one
            peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    names = ["ibmd_lite", "torch", "numpy", "scipy", "sklearn", "ot", "diffusers", "onnxruntime"]
    versions = {name: str(sys.modules[name].__version__) for name in names if name in sys.modules}
    return json.dumps(
        {
            "device": f"cuda: {torch.cuda.get_device_name()}" if on_gpu else f"cpu: {platform.machine()}",
            "versions": {"python": platform.python_version(), "system": platform.system(), **versions},
            "peak_memory_bytes": peak,
            "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        }
    )


class _Client(PapermillNotebookClient):
    """Ends what takes too long, and asks the kernel about itself before it ends, without leaving a cell."""

    def __init__(self, nb_man: Any, minutes: float | None, **options: Any) -> None:
        super().__init__(nb_man, timeout_func=self._left, **options)
        self._minutes, self._began = minutes, 0.0

    def _left(self, cell: Any) -> float | None:
        """Seconds for a cell."""
        if self._minutes is None:
            return None
        return max(self._began + 60 * self._minutes - time.monotonic(), 0.001)  # nbclient takes 0 for no limit

    def papermill_execute_cells(self) -> None:
        self._began = time.monotonic()
        try:
            super().papermill_execute_cells()
        except CellTimeoutError:
            self.shutdown_kernel = "immediate"  # it would not hear a request
            raise
        asked = {"told": f"{_kernel_tells.__name__}()"}
        message = self.kc.execute(inspect.getsource(_kernel_tells), silent=True, user_expressions=asked)
        content = self.wait_for_reply(message)["content"]
        told = content.get("user_expressions", {}).get("told", {}).get("data", {}).get("text/plain", "'{}'")
        self.nb.metadata["kernel_told"] = json.loads(ast.literal_eval(told))


class _Engine(NBClientEngine):
    """Papermill's own, with a folder and an environment for the kernel alone: this process keeps its own."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        environment: dict[str, str],
        folder: str,
        minutes: float | None = None,
        **_: object,
    ) -> Any:
        quiet = ["--log-level=CRITICAL"]  # what counts is in the notebook
        client = _Client(nb_man, minutes, kernel_name=kernel_name, extra_arguments=quiet)
        return client.execute(env=environment, cwd=folder)


papermill_engines.register("ibmd_lite", _Engine)
