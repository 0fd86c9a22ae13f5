"""The first page: one picture of what comes out, the times as they were measured, three doors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from links import ROOT
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FOLDER = ROOT / "book" / "_assets" / "landing"
SIZES = {"wide": (1280, 900), "phone": (390, 844)}


def test_the_sentence_says_what_was_measured() -> None:
    teacher, student = json.loads((ROOT / "benchmarks/results/landing.json").read_text("utf8"))["rows"]
    told = (FOLDER / "times.md").read_text("utf8")
    assert (teacher["calls"], student["calls"]) == (100, 1)
    assert f"the teacher took {teacher['ms'] / 1000:.1f} s and the student {student['ms']:.0f} ms" in told
    assert f"about {round(teacher['ms'] / student['ms'], -1):.0f} times less" in told


@pytest.mark.browser
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("form", SIZES)
def test_the_first_screen_shows_the_picture_and_what_it_means(browser: Browser, pages: Path, form: str) -> None:
    width, height = SIZES[form]
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto((pages / "book/start/preface.html").as_uri())
    shown = page.locator(".landing-picture img")
    shown.evaluate("image => image.decode()")
    assert shown.evaluate("image => image.currentSrc").endswith(f"landing/{form}.png")
    box = shown.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert box["y"] + box["height"] < height
    with Image.open(FOLDER / f"{form}.png") as drawn:
        padding = 24
        assert (box["width"] - padding) / (box["height"] - padding) == pytest.approx(
            drawn.width / drawn.height, rel=0.05
        )
    words = page.locator(".landing > p").inner_text()
    assert words.count(". ") + words.endswith(".") == 3 + words.count("et al. ")
    doors = page.locator(".landing-doors a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert doors == ["quickstart.html", "../teachers/try-it.html", "reading-order.html"]
    if form == "wide":
        assert page.locator(".landing-doors").bounding_box()["y"] < height  # type: ignore[index]
    page.close()
