"""Results become tables: pandas's, the package's own, and the lines of the command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from links import ROOT
from trials import logged, notebook
from trials import sweep as write

from ibmd_lite.experiments.__main__ import main
from ibmd_lite.experiments.tables import collect

pytestmark = [pytest.mark.notebook, pytest.mark.filterwarnings("default")]

NO_PANDAS = "pandas is not installed (extra: many)"


def test_a_sweep_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    file = write(tmp_path, cases={"as it is": {}, "no scale": {"scale": None, "steps": 2}}, seeds=[0])
    chapter = tmp_path / "book" / "chapter.ipynb"
    chapter.write_text(chapter.read_text("utf8").replace("scale * steps", "(scale or 10) * steps"), "utf8")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    main(["run", str(file), "--tables", "tables"])
    said = capsys.readouterr().out
    assert "trial: 2 runs of chapter.ipynb" in said
    assert "2/2  done" in said
    assert "0:00:00  case=no scale, seed=0" in said
    table = json.loads(Path("tables/trial.json").read_text("utf8"))
    assert table["notebook"] == "chapter.ipynb"
    assert [list(row) for row in table["rows"]] == [["case", "seed", "value", "run_seconds"]] * 2
    assert [row["value"] for row in table["rows"]] == [1.0, 20]
    pandas = pytest.importorskip("pandas", reason=NO_PANDAS)
    collected = collect("runs").set_index("case")
    assert collected.loc["as it is", "value"] == 1.0
    assert collected.loc["no scale", ["steps", "seed", "run_notebook"]].to_list() == [2, 0, "chapter.ipynb"]
    assert pandas.isna(collected.loc["no scale", "scale"])
    main(["collect", "runs", "--csv", "all.csv"])
    assert "run_commit" in Path("all.csv").read_text().splitlines()[0]
    first = capsys.readouterr().out.splitlines()[0].split()
    assert first == ["case", "steps", "scale", "value", "run_seconds", "run_peak_bytes"]


def test_a_chapter_is_run_with_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    notebook(tmp_path / "book" / "chapter.ipynb")
    Path("quick.yaml").write_text("{scale: 3.0, steps: 2}")
    main(["run", "book/chapter.ipynb", "-f", "quick.yaml", "-p", "steps", "5", "-p", "seed", "1"])
    (path,) = Path("runs/chapter").glob("*/result.json")
    assert json.loads(path.read_text("utf8"))["metrics"] == {"value": 16}
    pytest.importorskip("pandas", reason=NO_PANDAS)
    capsys.readouterr()
    main(["collect", "runs"])
    assert capsys.readouterr().out.split()[:3] == ["value", "run_seconds", "run_peak_bytes"], "of one run, too"


def test_a_sweep_that_fails_does_not_keep_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    good = write(tmp_path, "assert steps < 5, 'too many steps'")
    bad = good.with_name("bad.yaml")
    bad.write_text("notebook: book/chapter.ipynb\nparameters: {steps: 5}\n")
    with pytest.raises(SystemExit, match=r"(?s)^error: bad: 1 of 1 runs failed.*AssertionError: too many steps$"):
        main(["run", str(bad), str(good), "--tables", "tables"])
    assert [path.name for path in Path("tables").iterdir()] == ["trial.json"]
    assert capsys.readouterr().out.count(": AssertionError: too many steps\n") == 2


def left(folder: Path, code: str, started: str, **entries: object) -> None:
    """The result of a run as if it had been made at that time."""
    result = {"notebook": "chapter.ipynb", "notebook_path": "../chapter.ipynb", "case": {}, "parameters": {"seed": 0}}
    result |= {"metrics": {"value": 1}, "started": started, "fingerprint": code, "commit": None, "device": "cpu"}
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result | {"wall_seconds": 1.0, "peak_memory_bytes": 1} | entries))


def test_rows_of_older_code_are_left_out_and_counted(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason=NO_PANDAS)
    left(tmp_path / "1", "old", "2026-01-01", parameters={"seed": 0}, metrics={"value": 1})
    left(tmp_path / "2", "old", "2026-01-02", parameters={"seed": 1}, metrics={"value": 2})
    left(tmp_path / "3", "new", "2026-01-03", parameters={"seed": 0}, metrics={"value": 3})
    left(tmp_path / "4", "old", "2026-01-01", notebook_path="../other/chapter.ipynb")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "chapter.ipynb").write_text("no notebook any more")
    said: list[str] = []
    table = collect(tmp_path, tmp_path / "1", tell=said.append)
    assert table["value"].to_list() == [1, 3]
    assert table["run_notebook"].to_list() == ["other/chapter.ipynb", "chapter.ipynb"]
    assert said == ["left out: 2 of 3 results of chapter.ipynb, which are not of the code new"]
    with pytest.warns(UserWarning, match="left out: 2 of 3"):
        collect(tmp_path)


CHANGED = "chapter.ipynb, or what it imports, has changed since its newest results were made; run it again"


def test_a_notebook_that_changes_does_not_mix_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("pandas", reason=NO_PANDAS)
    monkeypatch.chdir(tmp_path)

    def told() -> tuple[list[str], list[str]]:
        capsys.readouterr()
        main(["collect", "runs"])
        said = capsys.readouterr()
        head, *rows = (line.split() for line in said.out.splitlines())
        return [row[head.index("value")] for row in rows], [line.partition(" of ")[0] for line in said.err.splitlines()]

    main(["run", str(write(tmp_path, grid={"steps": [1, 2]}))])
    assert told() == (["1.0", "2.0"], [])
    file = write(tmp_path, "scale = 10.0", grid={"steps": [1]})
    assert told() == (["1.0", "2.0"], [CHANGED])
    main(["run", str(file)])
    assert told() == (["10.0"], ["left out: 2"])
    write(tmp_path)  # back to the first
    assert told() == (["1.0", "2.0"], ["left out: 1"])


def test_notebooks_of_one_name_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("pandas", reason=NO_PANDAS)
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        notebook(tmp_path / name / "walk.ipynb")
    main(["run", "one/walk.ipynb", "two/walk.ipynb"])
    assert [(tmp_path / name / "log").read_text() for name in ("one", "two")] == ["0\n"] * 2
    capsys.readouterr()
    main(["collect", "runs"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["value", "run_notebook", "run_seconds", "run_peak_bytes"]
    assert [line.split()[1] for line in lines[1:]] == ["one/walk.ipynb", "two/walk.ipynb"]


@pytest.mark.parametrize(
    ("damaged", "told"),
    [
        (b"", "line 1 column 1"),
        (b'{"metrics": {"val', "Unterminated"),
        (b"[]", "expected an object, found a list"),
        (b"\xff", "utf-8"),
        (b'{"metrics": 3}', "metrics, fingerprint, started, wall_seconds missing, or not of the right type"),
    ],
)
def test_a_damaged_result_is_named_and_the_others_are_kept(tmp_path: Path, damaged: bytes, told: str) -> None:
    pytest.importorskip("pandas", reason=NO_PANDAS)
    left(tmp_path / "good", "new", "2026-01-03")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "result.json").write_bytes(damaged)
    said: list[str] = []
    assert len(collect(tmp_path, tell=said.append)) == 1
    (line,) = said
    assert str(tmp_path / "bad" / "result.json") in line
    assert told in line
    with pytest.raises(FileNotFoundError, match="there is no result in"):
        collect(tmp_path / "bad", tell=said.append)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "trial.yaml", "nothing.yaml"], "there is no sweep nothing.yaml"),
        (["run", "trial.yaml", "-p", "seed", "1"], "-p and -f are for notebooks"),
        (["run", "../book/chapter.ipynb", "-p", "sede", "1"], "does not know ['sede']"),
        (["run", "../book/chapter.ipynb", "-p", "seed", "one"], "which 'one' (str) cannot stand for"),
        (["run", "../book/chapter.ipynb", "-f", "list.yaml"], "must hold names with values, holds [1]"),
        (["run", "../book/chapter.ipynb", "-f", "twice.yaml"], "twice.yaml cannot be read as YAML: `seed` stands"),
        (["run", "../book/chapter.ipynb", "-p", "seed", "1", "-p", "seed", "2"], "-p gives ['seed'] more than once"),
        (["run", "../book/chapter.ipynb", "-p", "seed", "[1"], "-p seed cannot be read as YAML"),
        (["run", "broken.yaml"], "broken.yaml cannot be read as YAML: "),
        (["run", "trial.yaml", "--jobs", "0"], "at least 1"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    write(tmp_path, seeds=[0])
    monkeypatch.chdir(tmp_path / "sweeps")
    Path("list.yaml").write_text("[1]")
    Path("twice.yaml").write_text("{seed: 1, seed: 2}")
    Path("broken.yaml").write_text("{notebook")
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert str(stopped.value).startswith("error: ")
    assert told in str(stopped.value)
    assert logged(tmp_path) == {}


def test_make_calls_the_same_command() -> None:
    said = subprocess.run(["make", "-n", "sweep", "NAME=few-steps settings"], cwd=ROOT, capture_output=True, text=True)
    assert "-m ibmd_lite.experiments run book/_sweeps/few-steps.yaml book/_sweeps/settings.yaml --jobs 2" in said.stdout
