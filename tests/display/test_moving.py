"""Animations play without a script, and a slider has its stills beside it."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import matplotlib
import pytest

matplotlib.use("agg")

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from IPython import display as shown_by_ipython
from PIL import Image

from ibmd_lite.display import animation_html, canvas, explore


@pytest.fixture(autouse=True)
def _close() -> object:
    yield
    plt.close("all")


def frames(count: int, height: float = 1.0) -> list[Any]:
    figures = []
    for number in range(count):
        fig, axis = canvas(height=height)
        axis.axvspan(number, number + 1, color="black")
        axis.set(xlim=(0, count))
        figures.append(fig)
    return figures


def test_an_animation_holds_its_frames_one_below_the_other_and_no_script() -> None:
    written = animation_html(frames(4), alt='A "bar"', caption="It moves with $t$.")
    data = re.search(r"data:image/png;base64,([^)]+)\)", written)
    assert data is not None
    with Image.open(io.BytesIO(base64.b64decode(data[1]))) as film:
        pixels = film.convert("L")
        height = pixels.height // 4
        parts = [pixels.crop((0, k * height, pixels.width, (k + 1) * height)) for k in range(4)]
    darkest = [sum(x for x in range(part.width) if part.getpixel((x, height // 2)) < 40) for part in parts]
    assert darkest == sorted(darkest), "the bar moves to the right, frame by frame"
    assert len(set(darkest)) == 4
    assert "steps(4, jump-none)" in written
    assert 'role="img" aria-label="A &quot;bar&quot;"' in written
    assert "prefers-reduced-motion" in written
    assert "<script" not in written


def test_photographs_in_an_animation_keep_their_shades() -> None:
    brown = np.linspace([60, 30, 10], [120, 80, 50], 64)
    figures = []
    for shades in (brown, brown[::-1]):
        fig, axis = canvas(height=1.0)
        axis.imshow(np.tile(shades.astype(np.uint8)[None], (16, 1, 1)))
        figures.append(fig)
    written = animation_html(figures, alt="a", caption="c")
    data = re.search(r"data:image/png;base64,([^)]+)\)", written)
    assert data is not None
    with Image.open(io.BytesIO(base64.b64decode(data[1]))) as film:
        found = {colour for _, colour in film.convert("RGB").getcolors()}
    far = [min(abs(np.subtract(colour, shade)).max() for colour in found) for shade in brown]
    assert max(far) < 6


@pytest.mark.parametrize(
    ("pictures", "alt", "caption", "message"),
    [
        (frames(1), "a", "c", "at least two frames"),
        ([*frames(1), *frames(1, height=2.0)], "a", "c", "one size"),
        (frames(2), " ", "c", "non-empty alt"),
        (frames(2), "a", "", "non-empty caption"),
    ],
)
def test_an_animation_that_cannot_be_shown_is_refused(pictures: list, alt: str, caption: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        animation_html(pictures, alt=alt, caption=caption)


def shown(monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Any]:
    seen: list[Any] = []
    monkeypatch.setattr(shown_by_ipython, "display", seen.append)
    explore(lambda axis, value: axis.plot([0, value]), "eps", [1, 2, 3], alt="a", caption="c", **options)
    return seen


def test_a_slider_changes_the_picture_and_stills_stand_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IBMD_STATIC", raising=False)
    box, strip = shown(monkeypatch)
    slider, picture = box.children
    assert isinstance(slider, ipywidgets.SelectionSlider)
    before = picture.value
    slider.value = 3
    assert picture.value != before
    assert strip.data.count("<img") == 1


def test_stored_outputs_have_stills_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBMD_STATIC", "1")
    assert [type(output).__name__ for output in shown(monkeypatch, stills=[1, 3])] == ["HTML"]


def test_stills_must_be_among_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="the stills among them"):
        shown(monkeypatch, stills=[7])
