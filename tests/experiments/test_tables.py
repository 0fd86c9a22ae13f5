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


def test_a_chapter_is_run_with_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook(tmp_path / "book" / "chapter.ipynb")
    Path("quick.yaml").write_text("{scale: 3.0, steps: 2}")
    main(["run", "book/chapter.ipynb", "-f", "quick.yaml", "-p", "steps", "5", "-p", "seed", "1"])
    (path,) = Path("runs/chapter").glob("*/result.json")
    assert json.loads(path.read_text("utf8"))["metrics"] == {"value": 16}


def test_the_newest_code_counts(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason=NO_PANDAS)
    for code, started, value in [("b", "2026-01-02", 2), ("a", "2026-01-01", 1), ("c", "2026-01-01", 1)]:
        (tmp_path / code).mkdir()
        result = {"notebook": "chapter.ipynb", "case": {}, "parameters": {"seed": 0}, "metrics": {"value": value}}
        result |= {"started": started, "fingerprint": code, "commit": None, "device": "cpu", "wall_seconds": 1.0}
        (tmp_path / code / "result.json").write_text(json.dumps(result | {"peak_memory_bytes": 1}))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "result.json").write_text("[]")  # of something else
    table = collect(tmp_path)
    assert table["value"].to_list() == [2]
    with pytest.raises(FileNotFoundError, match="there is no result in"):
        collect(tmp_path / "other")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "trial.yaml", "nothing.yaml"], "there is no sweep nothing.yaml"),
        (["run", "trial.yaml", "-p", "seed", "1"], "-p and -f are for notebooks"),
        (["run", "../book/chapter.ipynb", "-p", "sede", "1"], "does not know ['sede']"),
        (["run", "../book/chapter.ipynb", "-p", "seed", "one"], "which 'one' (str) cannot stand for"),
        (["run", "../book/chapter.ipynb", "-f", "list.yaml"], "must hold names with values, holds [1]"),
        (["run", "broken.yaml"], "error: "),
        (["run", "trial.yaml", "--jobs", "0"], "at least 1"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    write(tmp_path, seeds=[0])
    monkeypatch.chdir(tmp_path / "sweeps")
    Path("list.yaml").write_text("[1]")
    Path("broken.yaml").write_text("{notebook")
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert str(stopped.value).startswith("error: ")
    assert told in str(stopped.value)
    assert logged(tmp_path) == {}


def test_make_calls_the_same_command() -> None:
    said = subprocess.run(["make", "-n", "sweep", "NAME=few-steps settings"], cwd=ROOT, capture_output=True, text=True)
    assert "-m ibmd_lite.experiments run book/_sweeps/few-steps.yaml book/_sweeps/settings.yaml --jobs 2" in said.stdout
