"""Sweeps with real papermill runs of a small notebook: complete, resumable, and refused before the first run."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
import yaml
from links import ROOT

from ibmd_lite.experiments import stored
from ibmd_lite.experiments import sweep as module
from ibmd_lite.experiments.sweep import Sweep, run_sweep, store

pytestmark = [pytest.mark.notebook, pytest.mark.filterwarnings("default")]


def write(root: Path, code: str, **entries: object) -> None:
    (root / "book" / "_sweeps").mkdir(parents=True, exist_ok=True)
    cells = [
        nbformat.v4.new_code_cell("seed = 0\nsteps = 1\nscale = 1.0", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(code, metadata={"tags": ["result"]}),
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), root / "book" / "chapter.ipynb")
    text = {"notebook": "book/chapter.ipynb", "parameters": {"scale": 2.0}, "grid": {"steps": [1, 4]}, "seeds": [0, 1]}
    (root / "book" / "_sweeps" / "trial.yaml").write_text(yaml.safe_dump(text | entries))


GOOD = 'import json\nprint(json.dumps({"value": scale * steps + seed}))'


def test_every_case_is_run_once_and_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD)
    sweep = Sweep.read(tmp_path, "trial")
    rows = run_sweep(sweep, tmp_path)
    assert [(row["steps"], row["seed"], row["value"]) for row in rows] == [(1, 0, 2), (1, 1, 3), (4, 0, 8), (4, 1, 9)]
    monkeypatch.setattr(module.subprocess, "run", None)  # a second call must run nothing
    assert run_sweep(sweep, tmp_path) == rows
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    assert '"value": 9' in store(sweep, rows).read_text().splitlines()[4]


def test_cases_may_have_names(tmp_path: Path) -> None:
    cases = {"as it is": {}, "larger": {"scale": 5.0}}
    write(tmp_path, GOOD, grid={}, cases=cases, seeds=[0, 1])
    rows = run_sweep(Sweep.read(tmp_path, "trial"), tmp_path)
    values = [("as it is", 0, 2), ("as it is", 1, 3), ("larger", 0, 5), ("larger", 1, 6)]
    assert [(row["case"], row["seed"], row["value"]) for row in rows] == values


def test_a_failing_case_is_reported_and_the_others_are_kept(tmp_path: Path) -> None:
    write(tmp_path, "assert steps < 4, 'too many'\n" + GOOD, seeds=[0])
    with pytest.raises(RuntimeError, match=r"(?s)1 of 2 runs failed.*'steps': 4.*too many"):
        run_sweep(Sweep.read(tmp_path, "trial"), tmp_path)
    assert len(list((tmp_path / "runs" / "trial").glob("*/result.json"))) == 1


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"grid": {"stepz": [1]}}, r"does not know \['stepz'\]; it has scale, seed, steps"),
        ({"seeds": []}, "at least one value"),
        ({"grid": {"steps": 3}}, "at least one value"),
        ({"cases": {"larger": {"scales": 5.0}}}, r"does not know \['scales'\]"),
        ({"gird": {}}, r"unknown keys \['gird'\]"),
    ],
)
def test_a_wrong_file_is_refused_before_the_first_run(tmp_path: Path, entries: dict, message: str) -> None:
    write(tmp_path, GOOD, **entries)
    with pytest.raises(ValueError, match=message):
        Sweep.read(tmp_path, "trial")


def test_an_unknown_sweep_names_the_known_ones(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    with pytest.raises(ValueError, match=r"no sweep 'tiral'.*known: trial"):
        Sweep.read(tmp_path, "tiral")


SWEEPS = sorted(path.stem for path in (ROOT / "book" / "_sweeps").glob("*.yaml"))


@pytest.mark.parametrize("name", SWEEPS)
def test_a_stored_table_has_every_case_of_its_sweep(name: str) -> None:
    sweep = Sweep.read(ROOT, name)
    rows = stored(name)
    if not rows:
        pytest.skip("a sweep whose table is not stored yet: `make sweep NAME=...` makes it")
    assert [{key: row[key] for key in case} for case, row in zip(sweep.cases, rows, strict=True)] == sweep.cases
