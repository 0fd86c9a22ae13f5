"""One notebook, many parameters: `python -m ibmd_lite.experiments.sweep NAME`, from the project's root.

book/_sweeps/NAME.yaml names the notebook, its fixed parameters, a grid or named cases, and the seeds. Each run
is a papermill process of its own; its executed notebook and result lie under runs/NAME and are used again as
long as nothing they depend on has changed. The table goes to ibmd_lite/experiments/results/NAME.json when all
runs are done.
Imports papermill, yaml, tqdm and its neighbour ``fingerprint``.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from tqdm import tqdm

from ibmd_lite.experiments.fingerprint import fingerprint

__all__ = ["Sweep", "run_sweep"]

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Sweep:
    """What NAME.yaml says. Raises ``ValueError`` for unknown keys, parameters the notebook has not, empty lists."""

    name: str
    notebook: Path
    parameters: dict[str, Any]
    grid: dict[str, list[Any]]
    named: dict[str, dict[str, Any]]
    seeds: list[int]

    @classmethod
    def read(cls, root: Path, name: str) -> Sweep:
        file = root / "book" / "_sweeps" / f"{name}.yaml"
        if not file.is_file():
            known = sorted(path.stem for path in file.parent.glob("*.yaml"))
            raise ValueError(f"there is no sweep {name!r} in {file.parent}; known: {', '.join(known) or 'none'}")
        text = yaml.safe_load(file.read_text("utf8"))
        if extra := set(text) - {"notebook", "parameters", "grid", "cases", "seeds"}:
            raise ValueError(
                f"{file.name} has unknown keys {sorted(extra)}; expected notebook, parameters, grid, cases, seeds"
            )
        sweep = cls(
            name,
            root / text["notebook"],
            text.get("parameters", {}),
            text.get("grid", {}),
            text.get("cases", {"": {}}),
            text["seeds"],
        )
        known_parameters = papermill.inspect_notebook(str(sweep.notebook))
        if unknown := {*sweep.parameters, *sweep.grid, "seed"}.union(*sweep.named.values()) - set(known_parameters):
            raise ValueError(
                f"{sweep.notebook.name} does not know {sorted(unknown)}; it has {', '.join(sorted(known_parameters))}"
            )
        if not sweep.seeds or not all(isinstance(values, list) and values for values in sweep.grid.values()):
            raise ValueError(f"{file.name}: seeds and every entry of grid must be lists with at least one value")
        return sweep

    @property
    def cases(self) -> list[dict[str, Any]]:
        """What varies from run to run: the grid's points, or the cases by name, times the seeds."""
        points = [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]
        names = [{"case": name} if name else {} for name in self.named]
        return [name | point | {"seed": seed} for name in names for point in points for seed in self.seeds]

    def parameters_of(self, case: dict[str, Any]) -> dict[str, Any]:
        """What papermill is given for one of ``cases``."""
        varied = {key: value for key, value in case.items() if key != "case"}
        return self.parameters | self.named[case.get("case", "")] | varied


def run_sweep(sweep: Sweep, root: Path, *, jobs: int = 1) -> list[dict[str, Any]]:
    """Run what has no result yet, each at most twice; raise ``RuntimeError`` with the tracebacks of what failed."""
    code = fingerprint(sweep.notebook)
    rows: dict[int, dict[str, Any]] = {}
    failed: list[str] = []
    with ThreadPoolExecutor(jobs) as pool:
        pending = {pool.submit(_run, sweep, case, code, root): k for k, case in enumerate(sweep.cases)}
        for done in tqdm(as_completed(pending), total=len(pending), desc=sweep.name):
            outcome = done.result()
            if isinstance(outcome, str):
                failed.append(outcome)
            else:
                rows[pending[done]] = outcome
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(pending)} runs failed:\n" + "\n\n".join(failed))
    return [rows[k] for k in sorted(rows)]


def _run(sweep: Sweep, case: dict[str, Any], code: str, root: Path) -> dict[str, Any] | str:
    """One case: its row, or the text of what went wrong."""
    parameters = sweep.parameters_of(case)
    key = hashlib.sha256(json.dumps([code, parameters], sort_keys=True).encode()).hexdigest()[:12]
    folder = root / "runs" / sweep.name / key
    result = folder / "result.json"
    if not result.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "papermill", str(sweep.notebook), str(folder / "run.ipynb")]
        command += ["--cwd", str(sweep.notebook.parent), "--no-progress-bar", "-y", json.dumps(parameters)]
        environment = os.environ | {"IBMD_STATIC": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        began = time.perf_counter()
        for _ in range(2):
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode == 0:
                break
        if done.returncode:
            return f"{case}:\n{done.stderr[-2000:]}"
        row = case | _result_of(folder / "run.ipynb") | {"run_seconds": round(time.perf_counter() - began, 1)}
        part = result.with_suffix(".part")
        part.write_text(json.dumps(row), "utf8")
        part.replace(result)
    found: dict[str, Any] = json.loads(result.read_text("utf8"))
    return found


def _result_of(path: Path) -> dict[str, Any]:
    """What the notebook's cell tagged `result` printed: one line of JSON."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if "result" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"{path.name} needs one cell tagged `result` that prints a line of JSON, has {len(cells)}")
    found: dict[str, Any] = json.loads("".join(output.get("text", "") for output in cells[0].outputs))
    return found


def store(sweep: Sweep, rows: list[dict[str, Any]]) -> Path:
    """Write the table that ``stored`` reads, one row a line."""
    path = RESULTS / f"{sweep.name}.json"
    RESULTS.mkdir(exist_ok=True)
    head = {"notebook": sweep.notebook.name, "parameters": sweep.parameters}
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    text = json.dumps(head)[:-1] + ', "rows": [\n' + lines + "\n]}\n"
    part = path.with_suffix(".part")
    part.write_text(text, "utf8")
    part.replace(path)
    return path


def main() -> None:
    """Run the sweeps named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help="files of book/_sweeps, without .yaml")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    arguments = parser.parse_args()
    try:
        for sweep in [Sweep.read(Path.cwd(), name) for name in arguments.names]:
            path = store(sweep, run_sweep(sweep, Path.cwd(), jobs=arguments.jobs))
            print(f"{sweep.name}: {len(sweep.cases)} runs, table in {path.relative_to(Path.cwd())}")
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
