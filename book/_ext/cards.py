"""What a link to a page shows elsewhere: Open Graph and Twitter lines, and a picture for each chapter.

The lines with an address need one: that of the published pages, `html.baseurl` of `_config.yml`, or the one that
GitHub and GitLab give to a repository's pages. Without it they are left out. Pictures are drawn at the build, with
the fonts that matplotlib brings. Imports Sphinx, docutils, matplotlib, pillow, the package's colours and its
neighbours `links` and `reading`.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
import textwrap
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml
from docutils import nodes
from ibmd_lite.display.figures import COLOURS, style
from matplotlib.figure import Figure
from PIL import Image
from sphinx.application import Sphinx

from links import ROOT, is_reserved
from reading import source, title

FOLDER = "_static/cards"
LANDING = ROOT / "book" / "_assets" / "landing" / "wide.png"
SIZE = (1200, 630)
PNG = re.compile(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"')
FILM = re.compile(r"ibmd-animation")
LONGEST = 200
LARGEST = 100_000
WIDE = 1.2


def site_address(baseurl: str, repository: str) -> str | None:
    """Where the pages are published, with a slash at its end; None where that is not known."""
    if baseurl:
        return baseurl.rstrip("/") + "/"
    hosts = {"github.com": "github.io", "gitlab.com": "gitlab.io"}
    parts = urlsplit(repository)
    owner, _, name = parts.path.strip("/").removesuffix(".git").partition("/")
    if is_reserved(repository) or parts.hostname not in hosts or not name:
        return None
    return f"https://{owner}.{hosts[parts.hostname]}/{name}/"


def description(doctree: nodes.document) -> str:
    """The first sentences of a page, without the words in bold that open a chapter."""
    for paragraph in doctree.findall(nodes.paragraph):
        if "reading-line" in paragraph["classes"]:
            continue
        words = paragraph.deepcopy()
        for opening in list(words.findall(nodes.strong))[:1]:
            opening.parent.remove(opening)
        for formula in list(words.findall(nodes.math)):
            plain = re.sub(r"\\[a-z]+\s*|[{}_^$\\]", "", formula.astext())
            formula.parent.replace(formula, nodes.Text(plain))
        text = " ".join(words.astext().split())
        if len(text) > 40:
            return textwrap.shorten(text, LONGEST, placeholder=" ...")
    return ""


def lines(page: str, heading: str, about: str, book: str, address: str | None) -> str:
    """The `<meta>` elements of a page."""
    named = {"description": about, "twitter:card": "summary"}
    properties = {"og:title": heading, "og:type": "article", "og:site_name": book, "og:description": about}
    if address:
        named["twitter:card"] = "summary_large_image"
        properties["og:url"] = f"{address}{page}.html"
        properties["og:image"] = f"{address}{FOLDER}/{PurePosixPath(page).name}.png"
        properties["og:image:width"], properties["og:image:height"] = map(str, SIZE)
        properties["og:image:alt"] = f"{heading}, a page of: {book}"
    kinds = (("name", named), ("property", properties))
    return "\n".join(
        f'<meta {kind}="{name}" content="{html.escape(value)}" />'
        for kind, values in kinds
        for name, value in values.items()
        if value
    )


def add_lines(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Put the lines into the head of a page of the book."""
    if doctree is None:
        return
    repository = app.config.html_theme_options.get("repository_url", "")
    address = site_address(app.config.html_baseurl or "", repository)
    heading = re.sub(r"<[^>]*>", "", context.get("title") or "")
    context["metatags"] = "\n".join(
        [
            context.get("metatags") or "",
            lines(page, html.unescape(heading), description(doctree), app.config.html_title, address),
        ]
    )


def picture_of(name: str) -> Image.Image:
    """The first still picture of a page that is broad enough, or the one of the first page."""
    path = source(name)
    if path.suffix == ".ipynb":
        for cell in json.loads(path.read_text("utf8"))["cells"]:
            for output in cell.get("outputs", []):
                shown = "".join(output.get("data", {}).get("text/html", ""))
                found = None if FILM.search(shown) else PNG.search(shown)
                if found:
                    picture = Image.open(io.BytesIO(base64.b64decode(found[1])))
                    if picture.width > WIDE * picture.height:
                        return picture
    return Image.open(LANDING)


def card(heading: str, part: str, book: str, picture: Image.Image) -> bytes:
    """A PNG of 1200 x 630: the part, the title, one picture on white, the name of the book."""
    style()
    fig = Figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), dpi=100, layout="none")
    for number, colour in enumerate(COLOURS.values()):
        stripe = fig.add_axes((number / len(COLOURS), 0.975, 1 / len(COLOURS), 0.025))
        stripe.set_facecolor(colour)
        stripe.set(xticks=[], yticks=[])
        stripe.spines[:].set_visible(False)
    fig.text(0.05, 0.91, part, fontsize=17, color="#555555", va="center")
    title_lines = textwrap.wrap(heading, 44)[:2]
    fig.text(0.05, 0.86, "\n".join(title_lines), fontsize=31, weight="bold", va="top")
    top = 0.86 - 0.085 * len(title_lines) - 0.02
    fig.text(0.05, 0.045, book, fontsize=15, color="#555555", va="center")
    axis = fig.add_axes((0.05, 0.09, 0.9, top - 0.09), anchor="C")
    axis.imshow(picture.convert("RGB"), interpolation="antialiased")
    axis.set_axis_off()
    drawn = io.BytesIO()
    fig.savefig(drawn, format="png", dpi=100)
    with Image.open(drawn) as opened:
        plain = opened.convert("RGB")
    for colours in (64, 32, 16, 8):
        small = io.BytesIO()
        reduced = plain.quantize(colours, dither=Image.Dither.NONE)
        reduced.save(small, "PNG", optimize=True)
        if small.tell() < LARGEST:
            break
    return small.getvalue()


def draw(app: Sphinx, error: Exception | None) -> None:
    """One card for each page of the contents, where there is none or an older one."""
    if error is not None or app.builder.format != "html":
        return
    toc = yaml.safe_load((Path(app.srcdir) / "_toc.yml").read_text("utf8"))
    pages = {toc["root"]: ""} | {
        chapter["file"]: part["caption"] for part in toc["parts"] for chapter in part["chapters"]
    }
    folder = Path(app.outdir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in pages.items():
        target = folder / f"{PurePosixPath(name).name}.png"
        made_from = (source(name), LANDING, Path(app.srcdir) / "_toc.yml", Path(__file__))
        newest = max(path.stat().st_mtime for path in made_from)
        if not target.exists() or target.stat().st_mtime < newest:
            made = card(title(name), part, app.config.html_title, picture_of(name))
            target.write_bytes(made)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the handlers."""
    app.connect("html-page-context", add_lines)
    app.connect("build-finished", draw)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
