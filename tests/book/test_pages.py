"""The built pages in a real Chromium: complete without a network, legible, and nothing broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from chapters import CHAPTERS
from links import ROOT, is_reserved

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))
NOTEBOOKS = [name for name in CHAPTERS if (ROOT / f"{name}.ipynb").exists()]
SCREENSHOTS = ROOT / "_build" / "screenshots"
WIDE, PHONE = (1280, 900), (390, 844)


@contextmanager
def opened(
    browser: Browser, address: str, size: tuple[int, int], scheme: str = "light"
) -> Iterator[tuple[Page, list[str]]]:
    """A page, loaded and typeset, and the faults seen on the way."""
    faults: list[str] = []
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    origin = "/".join(address.split("/")[:3]) + "/"

    def look(request: Any) -> None:
        if not request.url.startswith((origin, "data:", "blob:")):
            faults.append(f"external request: {request.url}")

    context.route(lambda url: not url.startswith(origin), lambda route: route.abort())
    page.on("request", look)
    page.on("console", lambda message: faults.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(f"error on the page: {error}"))
    page.on("response", lambda reply: faults.append(f"{reply.status}: {reply.url}") if reply.status >= 400 else None)
    page.goto(address, wait_until="networkidle")
    page.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise : null")
    yield page, faults
    context.close()


@dataclass(frozen=True)
class Seen:
    """What a page shows in a wide window, where it is loaded in one scheme and then changes to the other."""

    faults: list[str]
    grounds: dict[str, list[float]]
    formulas: int
    typeset: int
    misread: int
    captions: list[str]
    pictures: list[dict[str, Any]]
    bare: int
    links: list[str]
    source: str


@pytest.fixture(scope="module")
def look(browser: Browser, site: str) -> Callable[[str], Seen]:
    """Each page is loaded once for all that is asked of it."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)

    @cache
    def seen(chapter: str) -> Seen:
        with opened(browser, f"{site}/{chapter}.html", WIDE) as (page, faults):
            grounds = {}
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                page.wait_for_function("scheme => document.documentElement.dataset.theme === scheme", arg=scheme)
                page.screenshot(path=SCREENSHOTS / f"{Path(chapter).name}-{scheme}.png", full_page=True)
                grounds[scheme] = page.evaluate(
                    "getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).slice(0, 3).map(Number)"
                )
            return Seen(
                faults=faults,
                grounds=grounds,
                formulas=page.locator("article .math").count(),
                typeset=page.locator("article .math:has(mjx-container)").count(),
                misread=page.locator("mjx-merror").count(),
                captions=page.locator("figcaption").all_inner_texts(),
                pictures=page.evaluate(
                    "[...document.querySelectorAll('article img')]"
                    ".map(i => ({alt: i.alt.trim(), loaded: i.complete && i.naturalWidth > 0,"
                    " src: i.src.slice(0, 60)}))"
                ),
                bare=page.locator("article figure.ibmd-figure:not(:has(figcaption))").count(),
                links=page.evaluate("[...document.links].map(link => link.href)"),
                source=page.content(),
            )

    return seen


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_page_is_whole_without_a_network_light_and_dark(look: Callable[[str], Seen], chapter: str) -> None:
    seen = look(chapter)
    assert seen.faults == []
    assert sum(seen.grounds["light"]) / 3 > 200
    assert sum(seen.grounds["dark"]) / 3 < 60


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_mathematics_is_typeset(look: Callable[[str], Seen], chapter: str) -> None:
    seen = look(chapter)
    assert (seen.typeset, seen.misread) == (seen.formulas, 0)
    assert not [text for text in seen.captions if "\\(" in text or "$" in text]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_picture_loads_and_is_described(look: Callable[[str], Seen], chapter: str) -> None:
    seen = look(chapter)
    assert [picture for picture in seen.pictures if not (picture["alt"] and picture["loaded"])] == []
    assert seen.bare == 0


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_phone_needs_no_sideways_scroll(browser: Browser, site: str, chapter: str) -> None:
    with opened(browser, f"{site}/{chapter}.html", PHONE) as (page, _):
        page.screenshot(path=SCREENSHOTS / f"{Path(chapter).name}-phone.png", full_page=True)
        widths = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert widths[0] <= widths[1]


@pytest.mark.parametrize("chapter", NOTEBOOKS)
def test_a_launch_button_leads_to_the_address_or_is_not_there(look: Callable[[str], Seen], chapter: str) -> None:
    links = [link for link in look(chapter).links if "colab" in link]
    url = CONFIG["repository"]["url"]
    if is_reserved(url):
        assert links == []
        assert "example.org" not in look(chapter).source
    else:
        path = url.split("github.com/")[-1].rstrip("/")
        branch = CONFIG["repository"]["branch"]
        assert f"https://colab.research.google.com/github/{path}/blob/{branch}/{chapter}.ipynb" in links


def test_the_first_page_leads_to_every_chapter(browser: Browser, site: str) -> None:
    with opened(browser, f"{site}/index.html", WIDE) as (page, faults):
        page.wait_for_url("**/preface.html")
        links = page.evaluate("[...document.querySelectorAll('.bd-sidebar a')].map(link => link.href.split('#')[0])")
        missing = [name for name in CHAPTERS[1:] if f"{site}/{name}.html" not in links]
        assert missing == []
        assert faults == []


@pytest.mark.parametrize(
    "chapter", [name for name in NOTEBOOKS if "ibmd-animation" in (ROOT / f"{name}.ipynb").read_text("utf8")]
)
def test_animations_play_pause_and_hold_still(browser: Browser, site: str, chapter: str) -> None:
    """Each film moves by itself, stops at its box, and does not move for who asked for less motion."""
    where = "film => getComputedStyle(film).backgroundPositionY"
    with opened(browser, f"{site}/{chapter}.html", WIDE) as (page, _):
        films = page.locator(".ibmd-animation .film")
        assert films.count() > 0
        for number in range(films.count()):
            film = films.nth(number)
            film.scroll_into_view_if_needed()
            first = film.evaluate(where)
            page.wait_for_function(f"([film, first]) => ({where})(film) !== first", arg=[film.element_handle(), first])
            page.locator(".ibmd-animation .pause").nth(number).check()
            assert film.evaluate("film => getComputedStyle(film).animationPlayState") == "paused"
        page.emulate_media(reduced_motion="reduce")
        for film in films.all():
            assert film.evaluate("film => getComputedStyle(film).animationName") == "none"
            assert film.evaluate(where) == "100%", "the last frame is shown"


def test_faults_are_seen(browser: Browser, site: str, pages: Path) -> None:
    """The listener of these tests notices a console error, a missing file and a foreign request."""
    broken = pages / "broken-on-purpose.html"
    broken.write_text(
        "<script>console.error('no'); undefined.x</script><img src='missing.png'><img src='http://192.0.2.1/x.png'>",
        "utf8",
    )
    try:
        with opened(browser, f"{site}/{broken.name}", WIDE) as (_, faults):
            text = "\n".join(faults)
    finally:
        broken.unlink()
    for sign in ("console: no", "error on the page", "404", "external request: http://192.0.2.1/x.png"):
        assert sign in text
