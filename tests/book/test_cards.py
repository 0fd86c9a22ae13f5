"""What a link to a page shows elsewhere: a title, a sentence, and, once the address is known, a picture."""

from __future__ import annotations

import html.parser
import io
from pathlib import Path

import pytest
import yaml
from cards import FOLDER, SIZE, card, lines, site_address
from chapters import CHAPTERS
from links import ROOT, is_reserved
from PIL import Image
from reading import title

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))


class Told(html.parser.HTMLParser):
    """The `<meta>` elements of a page by name or property; a second one of a name is a fault."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        name = given.get("property") or given.get("name", "")
        if tag == "meta" and (name == "description" or name.startswith(("og:", "twitter:"))):
            assert name not in self.found, f"{name} twice"
            self.found[name] = given["content"]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_page_says_what_it_is(pages: Path, chapter: str) -> None:
    found = Told((pages / f"{chapter}.html").read_text("utf8")).found
    assert found["og:title"].endswith(title(chapter)), "with the number of the chapter before it"
    assert found["og:type"] == "article"
    assert found["og:site_name"] == CONFIG["title"]
    about = found.get("og:description", "")
    assert "bibliography" in chapter or 40 < len(about) <= 204
    assert "\\" not in about
    address = site_address(CONFIG["html"].get("baseurl", ""), CONFIG["repository"]["url"])
    assert ("og:image" in found) is ("og:url" in found) is (address is not None)
    if address:
        assert found["og:url"] == f"{address}{chapter}.html"
        assert (pages / found["og:image"].removeprefix(address)).exists()
    else:
        assert is_reserved(CONFIG["repository"]["url"])
        assert "example.org" not in str(found)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_card_is_a_small_picture_of_the_usual_size(pages: Path, chapter: str) -> None:
    path = pages / FOLDER / f"{Path(chapter).name}.png"
    assert path.stat().st_size < 100_000
    with Image.open(path) as picture:
        assert picture.size == SIZE
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) >= 16, "fewer spoil the picture"


def test_the_address_is_given_or_follows_from_the_repository_or_is_not_known() -> None:
    assert site_address("", "https://example.org/ibmd-lite") is None
    assert site_address("", "https://code.somewhere.net/owner/name") is None
    assert site_address("", "https://github.com/owner") is None
    assert site_address("", "https://github.com/owner/name.git") == "https://owner.github.io/name/"
    assert site_address("", "https://gitlab.com/owner/name/") == "https://owner.gitlab.io/name/"
    assert site_address("https://book.net/x", "https://example.org/y") == "https://book.net/x/"


def test_with_an_address_the_lines_lead_there() -> None:
    found = Told(lines("book/a/b", 'A "title" & more', "About it.", "Book", "https://book.net/x/")).found
    assert found["og:title"] == 'A "title" & more'
    assert found["og:url"] == "https://book.net/x/book/a/b.html"
    assert found["og:image"] == f"https://book.net/x/{FOLDER}/b.png"
    assert found["twitter:card"] == "summary_large_image"
    assert Told(lines("book/a/b", "A", "", "Book", None)).found["twitter:card"] == "summary"


def test_a_card_shows_its_picture() -> None:
    def drawn(colour: str) -> Image.Image:
        return Image.open(io.BytesIO(card("Title", "Part", "Book", Image.new("RGB", (300, 100), colour)))).convert(
            "RGB"
        )

    assert drawn("red").getpixel((600, 400)) == (255, 0, 0)
    assert drawn("blue").getpixel((600, 400)) == (0, 0, 255)
