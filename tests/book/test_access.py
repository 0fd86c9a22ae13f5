"""The pages for those who cannot see them, or have no pointer: axe-core finds no fault, and Tab reaches everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from access import MENDS, mended
from chapters import CHAPTERS
from links import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]

AXE = ROOT / "book" / "_assets" / "vendor" / "axe" / "axe.min.js"
EVERYTHING = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
COLOURS = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
WIDE, PHONE = (1280, 900), (390, 844)
SCROLLING = [
    *("book/back/summary", "book/bridges/three-curves", "book/images/one-step"),
    *("book/scale/several-gpus", "book/scale/experiments", "book/scale/results"),
]
REPRESENTATIVE = ["book/start/preface", "book/distillation/ibmd-in-forty-lines", "book/teachers/try-it"]


@contextmanager
def opened(browser: Browser, address: str, size: tuple[int, int] = WIDE) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme="light")
    page = context.new_page()
    page.goto(address, wait_until="networkidle")
    page.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise : null")
    yield page
    context.close()


def violations(page: Page, asked: dict[str, Any] = EVERYTHING) -> list[str]:
    """What axe-core finds wrong, a line for each rule and place."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text("utf8"))
    options = {"runOnly": asked, "resultTypes": ["violations"]}
    found: list[dict[str, Any]] = page.evaluate(
        "options => axe.run(document, options).then(r => r.violations)", options
    )
    return [
        f"{rule['id']} at {node['target']}: {node['html'][:120]}"
        for rule in found
        for node in rule["nodes"]
        if not (rule["id"] == "empty-table-header" and spoken(page, node["target"][0]))
    ]


def spoken(page: Page, place: str) -> bool:
    """Whether there is mathematics, which a screen reader reads and axe-core takes for nothing."""
    return page.locator(place).locator("mjx-assistive-mml math").count() > 0


@pytest.mark.parametrize("chapter", [*CHAPTERS, "search"])
def test_axe_finds_nothing(browser: Browser, site: str, chapter: str) -> None:
    """In light; and in dark, on the same page, what depends on colours."""
    with opened(browser, f"{site}/{chapter}.html") as page:
        assert violations(page) == []
        page.add_style_tag(content="* { transition: none !important }")  # colours on their way are neither
        page.emulate_media(color_scheme="dark")
        page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
        assert violations(page, COLOURS) == []


@pytest.mark.parametrize("chapter", ["book/start/preface", *SCROLLING])
def test_axe_finds_nothing_on_a_phone(browser: Browser, site: str, chapter: str) -> None:
    """There formulas and figures are wider than the column, and scroll: the Tab key has to stop at them."""
    with opened(browser, f"{site}/{chapter}.html", PHONE) as page:
        assert violations(page) == []
        if chapter in SCROLLING:
            assert page.locator("[data-goes-on='true'][tabindex='0']").count() > 0


def test_a_figure_says_that_it_goes_on_until_it_is_scrolled_to_its_end(browser: Browser, site: str) -> None:
    with opened(browser, f"{site}/book/scale/experiments.html", PHONE) as page:
        figure = page.locator(".ibmd-figure[data-goes-on]").first
        said = "figure => getComputedStyle(figure.querySelector('figcaption'), '::before').content"
        mask = "figure => getComputedStyle(figure).maskImage"
        assert "goes on to the right" in figure.evaluate(said)
        assert "gradient" in figure.evaluate(mask)
        figure.focus()
        for _ in range(12):
            page.keyboard.press("ArrowRight")
        page.wait_for_function("figure => figure.dataset.goesOn === 'false'", arg=figure.element_handle())
        assert "on the left" in figure.evaluate(said)
        assert figure.evaluate(mask) == "none"


def test_the_stops_go_where_the_window_is_wide_enough(browser: Browser, site: str) -> None:
    with opened(browser, f"{site}/book/back/summary.html", PHONE) as page:
        assert page.locator("mjx-container[tabindex]").count() > 0
        page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})
        page.wait_for_function("!document.querySelector('[data-goes-on]')")
        assert page.locator("mjx-container[tabindex], mjx-container[aria-label]").count() == 0


def test_a_font_that_comes_late_leaves_no_stops_at_formulas_that_fit(browser: Browser, site: str) -> None:
    """Until it is there, glyphs of another can stick out of the place measured for them; the box keeps its size."""
    sticking = "mjx-container:not([display])::after { content: ''; position: absolute; left: 0; padding: 1px 1em }"
    stops = "document.querySelectorAll('mjx-container[tabindex]').length"
    with opened(browser, f"{site}/book/back/summary.html", PHONE) as page:
        there = page.evaluate(stops)
        style = page.add_style_tag(content=sticking)
        page.evaluate("() => { document.querySelector('article').append(document.createElement('p')) }")
        page.wait_for_function(f"there => {stops} > there", arg=there)
        style.evaluate("style => style.remove()")
        page.evaluate("""() => {
            const face = [...document.fonts].find(face => face.family.includes("MJX") && face.status === "unloaded");
            return face.load().then(() => {});
        }""")
        page.wait_for_function(f"there => {stops} === there", arg=there)


def test_axe_sees_what_is_wrong(browser: Browser, site: str) -> None:
    with opened(browser, f"{site}/book/start/notation.html") as page:
        page.evaluate("""() => {
            const article = document.querySelector("article");
            article.insertAdjacentHTML("beforeend", "<p style='color: #999; background: #fff'>pale</p>");
            article.insertAdjacentHTML("beforeend", "<img src='x.png'><button></button>");
            document.body.insertAdjacentHTML("beforeend", "<p>outside</p>");
        }""")
        found = "\n".join(violations(page))
    for rule in ("color-contrast", "image-alt", "button-name", "region"):
        assert rule in found


FIELD = '<button class="btn search-button-field search-button__button pst-js-only" title="Search"'
UNDONE = [
    ("<summary>", '<summary aria-label="Toggle hidden content">'),
    (FIELD, f'{FIELD} aria-label="Search"'),
    ('data-mode="auto"  aria-hidden="true"', 'data-mode="auto"  title="System Settings"'),
    (' role="region" aria-label="Book"', ""),
    (' role="listitem"', ' role="doc-biblioentry"'),
]


@pytest.mark.parametrize(
    ("mend", "undone"), list(zip(MENDS, UNDONE, strict=True)), ids=["cell", "search", "mode", "landmark", "citation"]
)
def test_each_mend_is_still_needed(
    browser: Browser, pages: Path, site: str, mend: tuple[str, str, str], undone: tuple[str, str]
) -> None:
    """With one thing put back as the theme wrote it, axe-core complains."""
    name = "book/back/bibliography" if "listitem" in undone[0] else "book/distillation/ibmd-in-forty-lines"
    text = (pages / f"{name}.html").read_text("utf8")
    assert undone[0] in text, mend[0]
    broken = pages / "book/distillation/unmended.html"
    broken.write_text(text.replace(*undone), "utf8")
    try:
        with opened(browser, f"{site}/book/distillation/unmended.html") as page:
            assert violations(page) != []
        assert mended(broken.read_text("utf8")) == text
    finally:
        broken.unlink()


@pytest.mark.parametrize("chapter", REPRESENTATIVE)
def test_tab_reaches_everything_and_shows_where_it_is(browser: Browser, site: str, chapter: str) -> None:
    """Search, contents, folded cells and solutions, players, links: each in turn, looking otherwise than at rest."""
    with opened(browser, f"{site}/{chapter}.html") as page:
        page.evaluate("document.querySelectorAll('.admonition.dropdown .toggle-button').forEach(b => b.click())")
        page.evaluate("""() => {
            const kinds = "a[href], button, input, select, textarea, summary, canvas[tabindex]";
            const seen = (e) => e.checkVisibility({ visibilityProperty: true }) && !e.disabled && e.tabIndex >= 0
                && (e.type !== "radio" || e.checked);  // the others of its group are reached by arrows
            window.wanted = new Set([...document.querySelectorAll(kinds)].filter(seen));
            window.bare = [];
            window.visited = 0;
            const look = (element) => {
                const style = getComputedStyle(element);
                const frame = style.outlineStyle !== "none" && style.outlineWidth;
                return [frame, style.boxShadow, style.borderColor, style.backgroundColor].join();
            };
            const resting = new Map([...window.wanted].map((e) => [e, look(e)]));
            document.addEventListener("focusin", ({ target }) => {
                window.visited++;
                if (window.wanted.delete(target) && look(target) === resting.get(target))
                    window.bare.push(target.outerHTML.slice(0, 120));
            });
        }""")
        many = page.evaluate("window.wanted.size")
        assert many > 50
        page.keyboard.press("Tab")
        assert "Skip to main content" in page.evaluate("document.activeElement.textContent")
        for _ in range(many + 40):
            page.keyboard.press("Tab")
        left = page.evaluate("[...window.wanted].map(e => e.outerHTML.slice(0, 120))")
        assert left == []
        assert page.evaluate("window.bare") == []


def test_the_skip_link_leads_past_the_bars(browser: Browser, site: str) -> None:
    with opened(browser, f"{site}/book/images/one-step.html") as page:
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.querySelector('main').contains(document.activeElement)")


def test_a_solution_opens_without_a_pointer(browser: Browser, site: str) -> None:
    with opened(browser, f"{site}/book/bridges/three-curves.html") as page:
        solution = page.locator(".solution.dropdown").first
        assert "toggle-hidden" in (solution.get_attribute("class") or "")
        solution.locator(".toggle-button").focus()
        page.keyboard.press("Enter")
        assert "toggle-hidden" not in (solution.get_attribute("class") or "")
