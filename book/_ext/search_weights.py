"""How much each page says about each word, so that search can rank by it: BM25, written beside the pages.

Sphinx's index knows whether a page has a word, not how often, and then sorts by name. `search-scorer.js` adds these
weights to Sphinx's scores. Words are found without their accents. Imports Sphinx, docutils and the standard library.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

NAME = "search-weights.js"
LISTS = {"book/back/changelog", "book/back/bibliography"}  # they name everything and explain nothing
REFERENCE = "book/back/api"  # has most words of all pages; who wants a name of it is led to that name
# Readers ask whole questions; Sphinx looks for pages that have every word which is not one of these.
ASKING = {
    *("can", "do", "does", "how", "i", "many", "much", "my"),
    *("should", "what", "when", "where", "which", "why", "you"),
}
# Of BM25: when more of a word says no more, and how much a long page pays.
SATURATION, LENGTH = 8, 0.6
SCALE, LEAST = 20, 4


class Accentless(SearchEnglish):
    """Sphinx's English, in which o stands for o with any accent: few keyboards have Schrödinger's."""

    stopwords = SearchEnglish.stopwords | ASKING

    def split(self, input: str) -> list[str]:
        """The words of a text."""
        return super().split(plain(input))


def plain(text: str) -> str:
    """The text without accents; `splitQuery` of `search-scorer.js` does the same to what is asked."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))


def weights(counts: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    """Word -> page -> weight, from page -> word -> number: the rarer the word and the more often, the more."""
    usual = sum(sum(words.values()) for words in counts.values()) / max(len(counts), 1)
    having = Counter(word for words in counts.values() for word in words)
    found: dict[str, dict[str, int]] = {}
    for page, words in counts.items():
        pays = SATURATION * (1 - LENGTH + LENGTH * sum(words.values()) / usual)
        for word, number in words.items():
            rare = math.log(1 + (len(counts) - having[word] + 0.5) / (having[word] + 0.5))
            weight = round(SCALE * rare * number * (SATURATION + 1) / (number + pays))
            if weight >= LEAST:
                found.setdefault(word, {})[page] = weight
    return found


def _words(app: Sphinx, page: str) -> Counter[str]:
    lang = app.builder.indexer.lang  # type: ignore[attr-defined]
    counted: Counter[str] = Counter()
    for text in app.env.get_doctree(page).findall(nodes.Text):
        if not isinstance(text.parent, nodes.raw):
            split = (word.lower() for word in lang.split(text))
            counted.update(lang.stem(word) for word in split if lang.word_filter(word))
    return counted


def write(app: Sphinx, error: Exception | None) -> None:
    """The file of weights, for the built pages."""
    if error is None and app.builder.name == "html":
        pages = sorted(app.env.found_docs - LISTS)
        number = {page: place for place, page in enumerate(pages)}
        found = weights({page: _words(app, page) for page in pages})
        for given in found.values():
            if REFERENCE in given:
                given[REFERENCE] //= 2
        # One list a word, of page's number, weight, and so on: half the size.
        words = {
            word: [part for page in given for part in (number[page], given[page])]
            for word, given in found.items()
            if word.isalpha()
        }
        text = json.dumps({"pages": pages, "words": words}, separators=(",", ":"))
        path = Path(app.outdir) / "_static" / NAME
        path.write_text(f"window.searchWeights = {text};\n", "utf8")


def load(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """The search page, and no other, loads the weights."""
    if page == "search":
        app.add_js_file(NAME)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the handlers."""
    app.add_search_language(Accentless)
    app.connect("html-page-context", load)
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
