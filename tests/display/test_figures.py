"""Figures reach the page with a description, a caption and their pixels."""

from __future__ import annotations

import base64
import io
import re

import matplotlib
import pytest
import torch

matplotlib.use("agg")

import matplotlib.pyplot as plt
from PIL import Image

from ibmd_lite.display import COLOURS, WIDTH, canvas, clouds, figure, figure_html, pictures


@pytest.fixture(autouse=True)
def _close() -> object:
    yield
    plt.close("all")


def test_html_carries_picture_description_and_caption() -> None:
    fig, ax = canvas(height=2.0)
    ax.plot([0, 1], color=COLOURS["teacher"])
    written = figure_html(fig, alt='A "straight" line', caption="The error falls with $t < T$ & stays.")
    data = re.search(r'base64,([^"]+)"', written)
    assert data is not None
    with Image.open(io.BytesIO(base64.b64decode(data[1]))) as image:
        assert image.width == round(160 * WIDTH)
    assert 'alt="A &quot;straight&quot; line"' in written
    assert r"with \(t &lt; T\) &amp; stays.</figcaption>" in written


@pytest.mark.parametrize(("alt", "caption", "missing"), [("", "c", "alt"), ("a", "  ", "caption")])
def test_a_figure_without_words_is_refused(alt: str, caption: str, missing: str) -> None:
    fig, _ = canvas()
    with pytest.raises(ValueError, match=f"non-empty {missing}"):
        figure_html(fig, alt=alt, caption=caption)


def test_pyplot_does_not_know_a_canvas_and_forgets_a_figure_of_its_own_that_was_shown() -> None:
    canvas()
    pictures({"dark": -torch.ones(1, 3, 8, 8)})
    assert plt.get_fignums() == []
    figure(plt.figure(), alt="Nothing", caption="An empty figure.")
    assert plt.get_fignums() == []


def test_a_role_with_few_points_keeps_its_colour_among_many_lines() -> None:
    torch.manual_seed(0)
    fig, axis = canvas(height=2.0)
    for walk in torch.randn(60, 200).cumsum(1):
        axis.plot(walk, color=COLOURS["teacher"], alpha=0.3)
    axis.scatter([100.0], [0.0], s=60, color=COLOURS["student"], zorder=3)
    written = re.search(r'base64,([^"]+)"', figure_html(fig, alt="a", caption="c"))
    assert written is not None
    with Image.open(io.BytesIO(base64.b64decode(written[1]))) as image:
        pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8).view(-1, 3).int()
    student = torch.tensor([int(COLOURS["student"][k : k + 2], 16) for k in (1, 3, 5)])
    assert (pixels - student).abs().sum(1).le(6).sum() > 50


def test_pictures_show_minus_one_as_black_and_one_as_white() -> None:
    dark, light = -torch.ones(2, 3, 8, 16), 2 * torch.ones(2, 3, 8, 16)
    fig = pictures({"dark": dark, "light": light, "grey": torch.zeros(2, 1, 8, 16)})
    assert len(fig.axes) == 6
    shown = [ax.images[0].get_array() for ax in fig.axes[:3]]
    assert shown[0].shape == (8, 16, 3)
    assert [float(image.min()) for image in shown] == [0.0, 1.0, 0.5]
    assert [ax.get_title() for ax in fig.axes[:3]] == ["dark", "light", "grey"]


def test_pictures_refuse_columns_of_different_length() -> None:
    with pytest.raises(ValueError, match="same number of pictures"):
        pictures({"a": torch.zeros(1, 3, 4, 4), "b": torch.zeros(2, 3, 4, 4)})


def test_importing_the_package_loads_no_matplotlib() -> None:
    import subprocess
    import sys

    code = "import ibmd_lite.display, sys; assert not {'matplotlib', 'IPython'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def lightness(colour: str) -> float:
    """Relative luminance (WCAG) of a colour written as #rrggbb."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("pair", [("source", "target"), ("teacher", "student"), ("student", "fake")])
def test_pairs_that_are_compared_differ_in_lightness(pair: tuple[str, str]) -> None:
    first, second = (lightness(COLOURS[name]) for name in pair)
    assert max(first, second) / min(first, second) > 1.8


def test_clouds_stand_side_by_side_in_the_colour_of_their_role() -> None:
    fig = clouds({"a": (torch.randn(50, 2), "source"), "b": (torch.randn(50, 2), "student")}, limit=2.0)
    assert [axis.get_title() for axis in fig.axes] == ["a", "b"]
    colours = [matplotlib.colors.to_hex(axis.collections[0].get_facecolor()[0]).upper() for axis in fig.axes]
    assert colours == [COLOURS["source"], COLOURS["student"]]
    assert fig.axes[0].get_xlim() == (-2.0, 2.0)
