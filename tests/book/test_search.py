"""Search finds what readers type: the page that answers is among the first three."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from search_weights import weights

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ASKED = [
    ("conditional bridge", "book/distillation/conditional"),
    ("how many fake updates", "book/distillation/what-settings-do"),
    ("checkpoint", "book/teachers/public-teachers"),
    ("JPEG", "book/images/one-step"),
    ("out of memory", "book/teachers/larger-images"),
    ("VP schedule", "book/bridges/three-curves"),
    ("posterior", "book/back/summary"),
    ("guidance", "book/teachers/guidance"),
    ("ONNX", "book/teachers/student-to-tool"),
    ("inverse problem", "book/distillation/inverse-problem"),
    ("inpainting", "book/images/inpainting"),
    ("diversity noise channels", "book/distillation/why-noise"),
    ("Schrodinger bridge", "book/bridges/bridge-matching"),
    ("Schrödinger bridge", "book/bridges/bridge-matching"),
    ("install", "book/start/preface"),
    ("Google Drive", "book/start/preface"),
    ("colab", "book/start/preface"),
    ("multi gpu", "book/scale/several-gpus"),
    ("resume training", "book/scale/several-gpus"),
    ("torchrun", "book/scale/several-gpus"),
    ("FSDP", "book/scale/several-gpus"),
    ("sweep", "book/scale/experiments"),
    ("grid of parameters", "book/scale/experiments"),
    ("SLURM", "book/scale/experiments"),
    ("Pareto front", "book/scale/experiments"),
    ("multiple gpus", "book/scale/several-gpus"),
    ("tables of results", "book/scale/results"),
]


def found(page: Page, address: str, asked: str) -> list[str]:
    """The pages of the first three results, as a reader gets them who types into the dialog of a page."""
    page.goto(f"{address}/book/back/bibliography.html")
    page.keyboard.press("Control+k")
    page.locator("#pst-search-dialog input[name=q]").fill(asked)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/search.html?q={quote(asked).replace('%20', '+')}*")
    page.wait_for_function(
        "/(finished|did not match|found)/.test(document.querySelector('.search-summary')?.textContent)"
    )
    page.wait_for_function("!document.querySelector('#search-progress:not(:empty)')")
    links = page.locator("ul.search > li > a").evaluate_all(
        "links => links.slice(0, 3).map(a => a.getAttribute('href'))"
    )
    return [link.split(".html")[0] for link in links]


@pytest.mark.browser
@pytest.mark.filterwarnings("default")
def test_readers_find_what_they_ask_for(browser: Browser, pages: Path) -> None:
    """From a disk, where a page may not read others; what works there works from a server."""
    page = browser.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    missed = {}
    for asked, expected in ASKED:
        got = found(page, pages.as_uri(), asked)
        if expected not in got:
            missed[asked] = got
        if asked == "install" and got[0] == "book/back/api":
            missed["install, first"] = got
    page.close()
    assert missed == {}
    assert faults == []


@pytest.mark.browser
@pytest.mark.filterwarnings("default")
def test_a_server_shows_the_words_around(browser: Browser, site: str) -> None:
    page = browser.new_page()
    assert "book/images/one-step" in found(page, site, "JPEG")
    page.locator("ul.search p.context").first.wait_for()
    page.close()


def test_weights_rank_the_page_that_says_more_about_rarer_words() -> None:
    pages = {
        "much": Counter(bridge=9, jpeg=6),
        "little": Counter(bridge=14, jpeg=1),
        "none": Counter(bridge=15),
    }
    found = weights(pages)
    assert found["jpeg"]["much"] > found["jpeg"]["little"] > 0
    assert "none" not in found["jpeg"]
    assert found["jpeg"]["much"] > found.get("bridge", {}).get("much", 0)
