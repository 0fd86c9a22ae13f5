"""A hosted notebook is told what its machine has, in a kernel as Colab starts one."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from ibmd_lite.display.hosted import keep_trainings, prepare

pytestmark = pytest.mark.filterwarnings("default")


def run(folder: Path, *sources: str) -> list[str]:
    """What each cell printed."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    resources = {"metadata": {"path": str(folder)}}
    environment = {name: value for name, value in os.environ.items() if name != "IBMD_RUNS"}
    NotebookClient(notebook, kernel_name="python3", resources=resources).execute(
        env=environment | {"CUDA_VISIBLE_DEVICES": ""}
    )
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells]


def test_without_a_gpu_the_parameters_become_those_of_quick_size_and_no_others(tmp_path: Path) -> None:
    kept, said, changed, seen, later = run(
        tmp_path,
        "from ibmd_lite.display.hosted import keep_trainings, prepare\nkeep_trainings()",
        "prepare(quick={'size': 'quick', 'updates': 2})",
        "size = 'full'\nupdates = 1000\nseed = 0",
        "print(size, updates, seed)",
        "size, updates = 'full', 7\nprint(size, updates)\nsize = 'full'\nupdates = 8\nprint(updates)",
    )
    assert f"Trainings are kept in {tmp_path / 'ibmd-runs'}; mount Google Drive" in kept
    assert "No GPU is selected, so this chapter goes on at quick size" in said
    assert changed == "Quick size: size = 'quick', updates = 2\n"
    assert seen == "quick 2 0\n"
    assert later == "full 7\n8\n", "a reader's own change counts"


def test_a_mounted_drive_keeps_the_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(os.environ, "IBMD_RUNS", "")
    monkeypatch.delenv("IBMD_RUNS")
    keep_trainings(drive=tmp_path)
    assert os.environ["IBMD_RUNS"] == str(tmp_path / "ibmd-runs")
    assert capsys.readouterr().out.splitlines()[0] == f"Trainings are kept in {tmp_path / 'ibmd-runs'}."
    keep_trainings(drive=tmp_path / "another")
    assert os.environ["IBMD_RUNS"] == str(tmp_path / "ibmd-runs"), "what is named already stays"


def test_a_gpu_is_named_and_nothing_is_promised_of_trainings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("IBMD_RUNS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A card")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=16 * 2**30))
    prepare(quick={"size": "quick"})
    assert capsys.readouterr().out == "GPU: A card, 16 GiB.\n"
    assert "IBMD_RUNS" not in os.environ
