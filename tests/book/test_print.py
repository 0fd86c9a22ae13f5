"""Chapters on paper: whole, light, with their solutions and figures, and the method on one side of A4."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from links import ROOT
from pdf import BUTTON, FOLDER, link, printed

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]

BOOK = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))["title"]
CHAPTER = "book/bridges/three-curves"


def sheets(made: bytes) -> int:
    """The pages of a PDF that Chromium wrote."""
    return len(re.findall(rb"/Type /Page\b(?!s)", made))


def pictures(made: bytes) -> list[tuple[int, int]]:
    """Width and height of the pictures in a PDF, without the masks of transparent ones."""
    heads = re.findall(rb"/Subtype /Image\s.*?stream", made, re.DOTALL)
    sizes = [tuple(int(re.search(rb"/%s (\d+)" % side, head)[1]) for side in (b"Width", b"Height")) for head in heads]  # type: ignore[index]
    return [(width, height) for width, height in sizes if min(width, height) > 100]


def letters(made: bytes) -> int:
    """How many glyphs a PDF shows: in Chromium's strings each takes two bytes, four digits."""
    total = 0
    for packed in re.findall(rb"/FlateDecode[^>]*>>\s*stream\r?\n(.*?)endstream", made, re.DOTALL):
        try:
            text = zlib.decompressobj().decompress(packed)
        except zlib.error:
            continue
        total += sum(len(run) // 4 for run in re.findall(rb"<([0-9A-F]+)>", text) if b" Tf" in text)
    return total


@pytest.fixture(scope="module")
def chapter(browser: Browser, pages: Path) -> bytes:
    return printed(browser, pages / f"{CHAPTER}.html", BOOK)


def test_a_chapter_is_printed_with_its_text_and_figures(browser: Browser, pages: Path, chapter: bytes) -> None:
    assert 10 <= sheets(chapter) <= 40
    page = (pages / f"{CHAPTER}.html").read_text("utf8")
    figures = page.count('<figure class="ibmd-figure"')
    assert figures > 3
    assert len(pictures(chapter)) >= figures
    assert letters(chapter) > 12_000


def test_no_path_of_a_disk_is_in_it(chapter: bytes) -> None:
    assert b"file:" not in chapter


def test_a_drawing_with_links_is_printed_and_leads_to_no_disk(browser: Browser, pages: Path) -> None:
    made = printed(browser, pages / "book/start/reading-order.html", BOOK)
    assert sheets(made) >= 2
    assert b"file:" not in made


def test_the_method_fits_one_side_of_a4(browser: Browser, pages: Path) -> None:
    made = printed(browser, pages / "book/back/summary.html", BOOK)
    assert sheets(made) == 1
    box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", made)
    assert box
    assert [float(box[1]), float(box[2])] == pytest.approx([595.3, 841.9], abs=1)


def on_paper(browser: Browser, pages: Path) -> Page:
    page = browser.new_context(color_scheme="dark").new_page()
    page.goto((pages / f"{CHAPTER}.html").as_uri())
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    return page


def test_paper_is_light_and_unfolded_and_the_screen_is_as_before_afterwards(browser: Browser, pages: Path) -> None:
    page = on_paper(browser, pages)
    ground, ink = page.evaluate(
        "[document.body, document.querySelector('article p:not(.reading-line)')].map((e, i) => "
        "getComputedStyle(e)[['backgroundColor', 'color'][i]].match(/[0-9.]+/g).slice(0, 3).map(Number))"
    )
    assert min(ground) > 250
    assert max(ink) < 100
    assert page.locator(".solution.toggle-hidden").count() == 0
    for gone in (
        ".bd-sidebar-primary",
        ".bd-sidebar-secondary",
        ".bd-header-article",
        ".prev-next-footer",
        "a.headerlink",
    ):
        assert not any(each.is_visible() for each in page.locator(gone).all()), gone
    assert page.locator("article h1").is_visible()
    kept = page.locator("article .ibmd-figure").evaluate_all("all => all.map(f => getComputedStyle(f).breakInside)")
    assert set(kept) == {"avoid"}
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.locator(".solution.toggle-hidden").count() > 3
    page.context.close()


def test_a_page_leads_to_its_pdf_where_that_is(pages: Path, tmp_path: Path) -> None:
    built = (pages / f"{CHAPTER}.html").read_text("utf8")
    assert len(BUTTON.findall(built)) == 1
    page = tmp_path / "page.html"
    page.write_text(built, "utf8")
    for _ in range(2):
        link(page, f"../../{FOLDER}/three-curves.pdf")
        assert page.read_text("utf8").count(f'href="../../{FOLDER}/three-curves.pdf"') == 1
    assert "window.print()" not in page.read_text("utf8")
    for path in pages.glob("book/*/*.html"):
        found = re.search(rf'href="../../({FOLDER}/[^"]*)"', path.read_text("utf8"))
        assert found is None or (pages / found[1]).exists(), path.name
