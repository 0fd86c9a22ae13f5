"""Print the built chapters: `python book/_ext/pdf.py [CHAPTER ...]`, or `make pdf` for all of them.

Each becomes `_build/pdf/NAME.pdf`, as a browser prints it with the rules of `print.css`: light, without bars at the
sides, with solutions unfolded. Its copy beside the pages, and the entry in the page's download menu that leads
there, exist from then until the page is built again. No network. Imports playwright, yaml and its neighbours
`chromium` and `links`.
"""

from __future__ import annotations

import html
import re
import shutil
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import yaml

import chromium
from links import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HTML, PDF = ROOT / "_build" / "html", ROOT / "_build" / "pdf"
FOLDER = "_static/pdf"
MARGINS = {"top": "16mm", "bottom": "16mm", "left": "15mm", "right": "15mm"}
SMALL = "font: 8px sans-serif; color: #444; width: 100%; margin: 0 15mm; display: flex; justify-content: space-between"
NUMBER = '<span><span class="pageNumber"></span> / <span class="totalPages"></span></span>'
BUTTON = re.compile(
    r'<li>\s*<(?:button onclick="window\.print\(\)"|a href="[^"]*\.pdf")\s+class="[^"]*btn-download-pdf-button.*?</li>',
    re.DOTALL,
)
ENTRY = """<li><a href="{address}" class="btn btn-sm btn-download-pdf-button dropdown-item" title="Download as PDF">
<span class="btn__icon-container"><i class="fas fa-file-pdf"></i></span>
<span class="btn__text-container">.pdf</span></a></li>"""
# A link within the chapter leads there in the PDF too; one to another page of a disk would lead nowhere.
LOOSEN = """() => {
    const here = location.href.split("#")[0];
    for (const link of document.querySelectorAll("a[href]")) {
        const leads = new URL(link.getAttribute("href"), location.href).href;  // a drawing's link has no text as href
        if (leads.startsWith("file:") && leads.split("#")[0] !== here) link.removeAttribute("href");
    }
}"""


def chapters(root: Path = ROOT) -> list[str]:
    """Every page of the contents."""
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf8"))
    files = [each["file"] for part in toc["parts"] for each in part["chapters"]]
    return [toc["root"], *files]


def printed(browser: Browser, page: Path, book: str) -> bytes:
    """A built page as a PDF, A4."""
    context = browser.new_context(color_scheme="light", reduced_motion="reduce", offline=True)
    opened = context.new_page()
    opened.goto(page.as_uri(), wait_until="load")
    opened.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise : null")
    opened.evaluate("Promise.all([...document.images].map(i => (i.loading = 'eager', i.decode().catch(() => null))))")
    opened.evaluate(LOOSEN)
    title = opened.title().removesuffix(f" — {book}")
    made = opened.pdf(
        format="A4",
        margin=MARGINS,  # type: ignore[arg-type]
        print_background=True,
        display_header_footer=True,
        header_template=f'<div style="{SMALL}"><span>{html.escape(book)}</span><span>{html.escape(title)}</span></div>',
        footer_template=f'<div style="{SMALL}; justify-content: center">{NUMBER}</div>',
        tagged=True,
        outline=True,
    )
    context.close()
    return made


def link(page: Path, address: str) -> None:
    """Let the download menu of a built page lead to its PDF."""
    text, found = BUTTON.subn(ENTRY.format(address=address), page.read_text("utf8"))
    if found:
        page.write_text(text, "utf8")


def main() -> None:
    """Print the pages that are named, or all."""
    executable = chromium.path()
    if executable is None:
        sys.exit("make pdf needs Chromium: `apt install chromium`, or set IBMD_CHROMIUM to its path")
    names = sys.argv[1:] or chapters()
    missing = [name for name in names if not (HTML / f"{name}.html").exists()]
    if missing:
        sys.exit(f"not built: {', '.join(missing)}; names are like book/start/quickstart, and `make pages` builds them")
    book = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))["title"]
    PDF.mkdir(parents=True, exist_ok=True)
    (HTML / FOLDER).mkdir(parents=True, exist_ok=True)
    with chromium.headless(executable) as browser:
        for name in names:
            page, file = HTML / f"{name}.html", f"{PurePosixPath(name).name}.pdf"
            (PDF / file).write_bytes(printed(browser, page, book))
            shutil.copyfile(PDF / file, HTML / FOLDER / file)
            up = "../" * (len(PurePosixPath(name).parts) - 1)
            link(page, f"{up}{FOLDER}/{file}")
            print(f"  {file}: {(PDF / file).stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
