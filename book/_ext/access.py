"""Mends of the theme for those who do not look at the page: names and landmarks, in the pages as they were written.

The templates of the theme offer no place for them. Each mend names what it replaces, and does nothing where that is
not there; the tests run axe-core on every page. Imports Sphinx and the standard library.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

MENDS: tuple[tuple[str, str, str], ...] = (
    (
        "a folded cell says what it does; another name would hide that from who listens",
        r'<summary aria-label="Toggle hidden content">',
        "<summary>",
    ),
    (
        "the text of the search button, 'Search' and its keys, is its name",
        r'(<button class="btn search-button-field [^>]*?) aria-label="Search"',
        r"\1",
    ),
    (
        "the icons of the colour mode are pictures of its state, not other names",
        r'(<i class="theme-switch [^>]*?) title="[^"]*"',
        r'\1 aria-hidden="true"',
    ),
    (
        "the name of the book at the top of the sidebar stands in a landmark, with the contents",
        r'<div id="pst-primary-sidebar" class="',
        '<div id="pst-primary-sidebar" role="region" aria-label="Book" class="',
    ),
    (
        "an entry of the bibliography is one of a list; the role that docutils gives it is no longer known",
        r' role="doc-biblioentry"',
        ' role="listitem"',
    ),
)


def mended(page: str) -> str:
    """The HTML of a page with the mends."""
    for _, old, new in MENDS:
        page = re.sub(old, new, page)
    return page


def mend_all(app: Sphinx, error: Exception | None) -> None:
    """Mend every page that was written."""
    if error is None and app.builder.format == "html":
        for path in Path(app.outdir).rglob("*.html"):
            if "_static" not in path.parts:
                before = path.read_text("utf8")
                after = mended(before)
                if after != before:
                    path.write_text(after, "utf8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the handler."""
    app.connect("build-finished", mend_all)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
