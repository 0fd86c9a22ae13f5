"""A sweep's file: its cases, what is refused before the first run, and the tables that came of the book's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from links import ROOT
from trials import notebook
from trials import sweep as write

from ibmd_lite.experiments import fingerprint as fingerprints
from ibmd_lite.experiments import stored
from ibmd_lite.experiments.sweep import Sweep


def test_cases_are_the_grid_times_the_seeds(tmp_path: Path) -> None:
    sweep = Sweep.read(write(tmp_path, parameters={"scale": 2.0}, grid={"steps": [1, 4]}, seeds=[0, 1]))
    assert sweep.cases == [{"steps": steps, "seed": seed} for steps in (1, 4) for seed in (0, 1)]
    assert sweep.parameters_of(sweep.cases[3]) == {"scale": 2.0, "steps": 4, "seed": 1}
    assert sweep.notebook == tmp_path / "book" / "chapter.ipynb"


def test_cases_may_have_names(tmp_path: Path) -> None:
    cases = {"as it is": {}, "larger": {"scale": 5.0}}
    sweep = Sweep.read(write(tmp_path, parameters={"scale": 2.0}, cases=cases, seeds=[0, 1]))
    told = [(case["case"], sweep.parameters_of(case)) for case in sweep.cases]
    assert told[1:3] == [("as it is", {"scale": 2.0, "seed": 1}), ("larger", {"scale": 5.0, "seed": 0})]


def test_without_seeds_the_notebook_keeps_its_own(tmp_path: Path) -> None:
    assert Sweep.read(write(tmp_path, grid={"steps": [1, 4]})).cases == [{"steps": 1}, {"steps": 4}]


@pytest.mark.parametrize(
    ("entries", "error", "told"),
    [
        ({"grid": {"stepz": [1]}}, ValueError, r"does not know \['stepz'\]; it has scale, seed, steps"),
        ({"parameters": {"stepz": 1}}, ValueError, r"does not know \['stepz'\]"),
        ({"cases": {"larger": {"scales": 5.0}}}, ValueError, r"does not know \['scales'\]"),
        ({"grid": {"steps": [1, "4"]}}, TypeError, "steps is 1, which '4'"),
        ({"cases": {"larger": {"scale": "5"}}}, TypeError, "scale is 1.0, which '5'"),
        ({"seeds": [0, "1"]}, TypeError, "seed is 0, which '1'"),
        ({"seeds": []}, ValueError, "at least one value"),
        ({"grid": {"steps": 3}}, ValueError, "at least one value"),
        ({"grid": [1]}, ValueError, "names with values"),
        ({"cases": {}}, ValueError, "names with parameters"),
        ({"minutes": 0}, ValueError, "minutes is 0; expected how long one run may take"),
        ({"minutes": "30"}, ValueError, "minutes is '30'"),
        ({"minutes": True}, ValueError, "minutes is True"),
        ({"gird": {}}, ValueError, r"unknown keys \['gird'\]"),
        ({"notebook": None}, ValueError, "must name its notebook"),
        ({"notebook": "other.ipynb"}, ValueError, "no other.ipynb beside it or in a folder above it"),
        ({"seeds": [0, 0]}, ValueError, "the same parameters"),
        ({"parameters": {"steps": 8}, "grid": {"steps": [1]}}, ValueError, r"\['steps'\] in parameters and in grid"),
        ({"parameters": {"seed": 8}, "seeds": [0]}, ValueError, r"\['seed'\] in parameters and in seeds"),
        ({"grid": {"seed": [8]}, "seeds": [0]}, ValueError, r"\['seed'\] in grid and in seeds; give each in one"),
        ({"cases": {"k": {"seed": 5}}, "seeds": [0]}, ValueError, r"\['seed'\] in cases and in seeds"),
        ({"cases": {"k": {"steps": 5}}, "grid": {"steps": [0]}}, ValueError, r"\['steps'\] in grid and in cases"),
        ({"cases": {False: {}}}, ValueError, "a case's name is False; expected text: put it in quotes"),
        ({"cases": {0: {}}}, ValueError, "a case's name is 0"),
        ({"cases": {"": {}}}, ValueError, "a case's name is ''"),
        ({"grid": {"case": [1]}}, ValueError, "the grid has `case`"),
        ({"cases": {"one": {}, "as the notebook": {"scale": 1.0}}}, ValueError, "the same parameters"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, entries: dict, error: type, told: str) -> None:
    with pytest.raises(error, match=told):
        Sweep.read(write(tmp_path, **entries))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "grid:\n  steps: [1]\n  steps: [2]",
            r'`steps` stands there twice; leave one out\s+in ".*trial.yaml", line 4, column 3',
        ),
        ("seeds: [0]\nseeds: [1]", "`seeds` stands there twice"),
        ("cases: {a: {}, a: {steps: 2}}", "`a` stands there twice"),
        ("seeds:\n\t- 0", "line 3"),
        ("seeds: *other", "undefined alias"),
        ("seeds: [\udcff]", "invalid start byte"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_file(tmp_path: Path, text: str, told: str) -> None:
    file = write(tmp_path)
    file.write_bytes(f"notebook: book/chapter.ipynb\n{text}\n".encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=rf"(?s)trial.yaml cannot be read as YAML: .*{told}"):
        Sweep.read(file)


def test_what_is_merged_is_not_given_twice(tmp_path: Path) -> None:
    file = write(tmp_path)
    text = "cases:\n  small: &small {steps: 2, scale: 2.0}\n  large: {<<: *small, steps: 4}\n"
    file.write_text(f"notebook: book/chapter.ipynb\n{text}", "utf8")
    assert Sweep.read(file).named["large"] == {"steps": 4, "scale": 2.0}


def test_an_unknown_sweep_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no sweep .*tiral.*known there: trial"):
        Sweep.read(write(tmp_path).with_name("tiral.yaml"))


def test_a_run_is_known_by_its_code_and_its_parameters(tmp_path: Path) -> None:
    def folders(*sources: str, **entries: object) -> list[Path]:
        return [run.folder for run in Sweep.read(write(tmp_path, *sources, **entries)).runs(tmp_path)]

    before = folders(grid={"steps": [1, 4]})
    assert len(set(before)) == 2
    assert folders(grid={"steps": [4, 1]}) == before[::-1]
    assert folders(grid={"steps": [4]}, parameters={"seed": 0}) == before[1:], "a default that is given is the same run"
    assert folders(grid={"steps": [4]}, parameters={"seed": 1}) != before[1:]
    assert folders("steps += 1", grid={"steps": [4]}) != before[1:]


def test_the_table_of_a_sweep_does_not_make_its_runs_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "PACKAGE", tmp_path)
    file = write(tmp_path, "from ibmd_lite.experiments import stored\nstored('trial')")
    (before,) = Sweep.read(file).runs(tmp_path)
    (tmp_path / "experiments" / "results").mkdir(parents=True)
    (tmp_path / "experiments" / "results" / "trial.json").write_text("{}")
    (now,) = Sweep.read(file).runs(tmp_path)
    assert now.folder == before.folder


CHAPTER = ROOT / "book" / "distillation" / "few-steps.ipynb"
needs_the_book = pytest.mark.skipif(
    not CHAPTER.exists(), reason="needs the book's notebooks, which the sdist leaves out"
)


@needs_the_book
def test_the_commit_is_told_where_there_is_one(tmp_path: Path) -> None:
    (run,) = Sweep("one", notebook(tmp_path / "chapter.ipynb")).runs(tmp_path)
    assert run.commit is None
    (run,) = Sweep("one", CHAPTER).runs(tmp_path)
    assert run.commit is None or set(run.commit.removesuffix("-dirty")) <= set("0123456789abcdef")
    assert (run.commit is None) == (not (ROOT / ".git").exists())


SWEEPS = sorted(path.stem for path in (ROOT / "book" / "_sweeps").glob("*.yaml"))


@needs_the_book
@pytest.mark.parametrize("name", SWEEPS)
def test_a_stored_table_has_every_case_of_its_sweep(name: str) -> None:
    sweep = Sweep.read(ROOT / "book" / "_sweeps" / f"{name}.yaml")
    rows = stored(name)
    if not rows:
        pytest.skip("a sweep whose table is not stored yet: `make sweep NAME=...` makes it")
    assert [{key: row[key] for key in case} for case, row in zip(sweep.cases, rows, strict=True)] == sweep.cases
