"""Pictures of a training as it goes: when they are drawn, what they leave alone, and a real notebook."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import nbformat
import pytest
import torch

matplotlib.use("agg")

from nbclient import NotebookClient
from PIL import Image

from ibmd_lite.bridges import Brownian
from ibmd_lite.display import Watched, animation_html, pictures
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import UNet
from ibmd_lite.training import Settings, Shuffled, progress


@dataclass(frozen=True)
class Counted:
    update: int


def counted(*updates: int) -> Iterator[Counted]:
    return map(Counted, updates)


def grid(value: float = 0.0, rows: int = 2) -> Any:
    return pictures({"a": torch.full((rows, 3, 8, 8), value)}, zoom=0.2)


def titles(watched: Watched) -> list[str]:
    return [frame.get_suptitle() for frame in watched.frames]


@pytest.mark.parametrize(
    ("updates", "expected"),
    [
        ((1, 2, 3, 4, 5), [2, 4, 5]),
        ((1, 2, 3, 4), [2, 4]),
        ((7, 8, 9), [8, 9]),
        ((), []),
    ],
)
def test_pictures_before_the_first_update_every_so_many_and_after_the_last(updates: tuple, expected: list) -> None:
    watched = Watched(counted(*updates), grid, every=2)
    assert [record.update for record in watched] == list(updates)
    assert titles(watched) == ["before the first update", *(f"update {number}" for number in expected)]


def test_a_loop_that_was_left_goes_on() -> None:
    watched = Watched(counted(1, 2, 3), grid, every=2)
    for _ in watched:
        break
    assert [record.update for record in watched] == [2, 3]
    assert titles(watched) == ["before the first update", "update 2", "update 3"]


def test_frames_make_an_animation() -> None:
    values = iter([-1.0, 0.0, 1.0])
    watched = Watched(counted(1, 2), lambda: grid(next(values)), every=1)
    assert len(list(watched)) == 2
    written = animation_html(watched.frames, alt="A grid that grows lighter", caption="It grows lighter.")
    data = re.search(r"data:image/png;base64,([^)]+)\)", written)
    assert data is not None
    with Image.open(io.BytesIO(base64.b64decode(data[1]))) as film:
        height = film.height // 3
        middles = [film.convert("L").getpixel((film.width // 2, int((k + 0.8) * height))) for k in range(3)]
    assert middles[0] < 10 < 100 < middles[1] < 150 < 245 < middles[2]


def test_a_training_does_not_notice_and_frames_share_their_noise() -> None:
    def updates() -> Iterator[Counted]:
        for number in (1, 2, 3):
            met.append(torch.rand(2))
            yield Counted(number)

    def draw() -> Any:
        seen.append(weight * torch.rand(2))
        return grid()

    weight, seen, met = torch.ones(2, requires_grad=True), [], []  # type: ignore[var-annotated]
    torch.manual_seed(5)
    assert len(list(updates())) == 3
    torch.manual_seed(5)
    assert len(list(Watched(updates(), draw, every=1))) == 3
    assert torch.equal(torch.stack(met[:3]), torch.stack(met[3:]))
    assert len(seen) == 4
    assert all(torch.equal(numbers, seen[0]) for numbers in seen)
    assert not seen[0].requires_grad


def test_a_training_is_watched_through_its_progress() -> None:
    torch.manual_seed(0)
    model = BridgeModel(UNet(width=8, multipliers=(1,), patch=2), Brownian())
    run = TeacherTraining(model, Settings(1e-2, average=None), device="cpu")
    pairs = Shuffled(torch.ones(8, 3, 8, 8), torch.rand(8, 3, 8, 8), batch=4)
    xT, end = torch.rand(2, 3, 8, 8), torch.ones(2)
    records = progress(run.updates(pairs, 3), 3, "teacher")
    watched = Watched(records, lambda: pictures({"xT": xT, "teacher": run.teacher(xT, end)}, zoom=0.2), every=2)
    assert [record.update for record in watched] == [1, 2, 3]
    assert titles(watched) == ["before the first update", "update 2", "update 3"]
    shown = [frame.axes[1].images[0].get_array().mean() for frame in watched.frames]
    assert 0.5 == shown[0] < shown[1] < shown[2], "from 0, which a fresh network says, towards white"


def test_refusals() -> None:
    with pytest.raises(ValueError, match="every is 0; expected at least 1 update"):
        Watched(counted(1), grid, every=0)
    with pytest.raises(TypeError, match=r"such as lambda: pictures\(\.\.\.\)"):
        Watched(counted(1), grid(), every=1)
    with pytest.raises(TypeError, match="draw returned dict; expected a figure"):
        list(Watched(counted(1), dict, every=1))  # type: ignore[arg-type]
    rows = iter([2, 3])
    with pytest.raises(ValueError, match="draw all of one size"):
        list(Watched(counted(1), lambda: grid(rows=next(rows)), every=1))


CELL = """
import os
from types import SimpleNamespace
import torch
from ibmd_lite.display import Watched, pictures

def watch():
    values = iter([-1.0, 0.0, 1.0])
    records = map(lambda number: SimpleNamespace(update=number), (1, 2))
    watched = Watched(records, lambda: pictures({"a": torch.full((1, 3, 8, 8), next(values))}), every=1)
    assert len(list(watched)) == 2 and len(watched.frames) == 3

watch()
"""


def test_a_notebook_shows_the_newest_in_one_place_and_a_stored_one_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IBMD_STATIC", raising=False)
    cells = [nbformat.v4.new_code_cell(CELL), nbformat.v4.new_code_cell("os.environ['IBMD_STATIC'] = '1'; watch()")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    seen: list[str] = []

    class Client(NotebookClient):
        def process_message(self, msg: dict, cell: Any, cell_index: int) -> Any:
            if "display_data" in msg["msg_type"]:
                seen.append(msg["msg_type"])
            return super().process_message(msg, cell, cell_index)

    Client(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert seen == ["display_data", "update_display_data", "update_display_data"]
    (shown,) = notebook.cells[0].outputs
    assert 'alt="Where the training is: update 2"' in shown["data"]["text/html"]
    assert notebook.cells[1].outputs == []
