"""Sphinx handlers of this book, each a mend for one thing that the tools do not do by themselves.

Loaded by `_config.yml` (`sphinx.local_extensions`). Imports Sphinx, pybtex and its neighbours
`assets` and `links`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style as PlainStyle
from pybtex.style.labels import BaseLabelStyle
from sphinx.application import Sphinx
from sphinx.config import Config

from assets import as_script
from links import is_reserved

STUDENTS = Path(__file__).parents[1] / "_assets" / "students"
"""What `benchmarks/page_students.py` writes: the networks of the page to try them on, and what it shows."""


def drop_dead_buttons(app: Sphinx, config: Config) -> None:
    """No launch or repository buttons as long as the address of the repository is not known."""
    options = config.html_theme_options
    if is_reserved(options.get("repository_url", "")):
        for name in ("repository_url", "repository_branch", "launch_buttons"):
            options.pop(name, None)
        for name in ("use_repository_button", "use_issues_button"):
            options[name] = False


def drop_repeated_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """The theme's notebook support adds one inline `const` twice, which is an error in the console."""
    seen: set[str] = set()
    kept = []
    for script in context.get("script_files", []):
        body = (getattr(script, "attributes", None) or {}).get("body")
        if body is not None and body in seen:
            continue
        seen.add(body)
        kept.append(script)
    context["script_files"] = kept


def read_as_plain_text(app: Sphinx, what: str, name: str, subject: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with ``literals``: `|x* - x0|^2` is mathematics, not markup.

    What reStructuredText would take for markup is escaped, and "(eq:...)" becomes a link to the notation page.
    """
    in_literal_block = False
    for i, line in enumerate(lines):
        if line and not line.startswith((" ", ">>>")):
            in_literal_block = False
        if not (in_literal_block or line.lstrip().startswith(">>>")):
            parts = re.split(r"(``.+?``|:\w+:`[^`]+`)", line)
            lines[i] = "".join(part if k % 2 else _escape(part) for k, part in enumerate(parts))
        if line.rstrip().endswith("::"):
            in_literal_block = True
    if what in ("attribute", "data", "property"):
        _attributes[name] = list(lines)


_attributes: dict[str, list[str]] = {}


def keep_attributes(app: Sphinx, what: str, name: str, subject: Any, options: Any, lines: list[str]) -> None:
    """Undo what napoleon does to attributes: it takes what stands before a colon for a type."""
    if name in _attributes:
        lines[:] = _attributes.pop(name)


def skip_generated(app: Sphinx, what: str, name: str, subject: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the docstrings that Python writes for the fields of named tuples."""
    return True if str(getattr(subject, "__doc__", "")).startswith("Alias for field number") else None


def readable_signature(
    app: Sphinx, what: str, name: str, subject: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Put quotes around shapes, which are no Python, and dots for defaults such as `<factory>`.

    Otherwise Sphinx reads "batch *dims" as a product, or shows the whole signature raw.
    """

    def mend(text: str | None) -> str | None:
        if text is None:
            return None
        text = re.sub(r"= <[^<>]*>", "= ...", text)
        return re.sub(
            r"\b(Float|Int|Bool|Shaped)\[([\w.~]+), ([^]'\"]+)\]",
            lambda found: f"{found[1]}[{found[2]}, '{found[3].replace('* ', '*')}']",
            text,
        )

    return mend(signature), mend(returned)


def _escape(text: str) -> str:
    text = re.sub(r"([*|])", r"\\\1", text)
    text = re.sub(r"(?<=\w)_(?!\w)", r"\\_", text)
    text = re.sub(r"\(eq:([a-z0-9][a-z0-9-]*)\)", r":eq:`eq:\1`", text)
    return re.sub(r"(?<!`)\beq:([a-z0-9][a-z0-9-]*)", r":eq:`eq:\1`", text)


def hold_students(app: Sphinx, error: Exception | None) -> None:
    """Networks and pictures of the page to try them on, as scripts: see `as_script`."""
    if error is None and app.builder.format == "html":
        folder = Path(app.outdir) / "_static" / STUDENTS.name
        for path in STUDENTS.glob("*.*"):
            script = as_script(path.name, path.read_bytes())
            (folder / f"{path.name}.js").write_text(script)


class AuthorYearLabels(BaseLabelStyle):
    """Labels such as "Song et al., 2021a", in the text and in the bibliography."""

    def format_labels(self, sorted_entries: Any) -> Iterator[str]:
        """One label per entry of the bibliography, each different."""
        plain = [self._label(entry) for entry in sorted_entries]
        used: Counter[str] = Counter()
        for label in plain:
            suffix = chr(ord("a") + used[label]) if plain.count(label) > 1 else ""
            used[label] += 1
            yield label + suffix

    @staticmethod
    def _label(entry: Any) -> str:
        people = [" ".join(person.prelast_names + person.last_names) for person in entry.persons.get("author", [])]
        if len(people) > 2:
            people = [f"{people[0]} et al."]
        return f"{' and '.join(people)}, {entry.fields.get('year', '')}"


class AuthorYearStyle(PlainStyle):
    """pybtex's plain style with author-year labels."""

    default_label_style = "author_year"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the handlers."""
    register_plugin("pybtex.style.labels", "author_year", AuthorYearLabels)
    register_plugin("pybtex.style.formatting", "author_year", AuthorYearStyle)
    app.connect("config-inited", drop_dead_buttons)
    app.connect("html-page-context", drop_repeated_scripts, priority=900)
    app.connect("build-finished", hold_students)
    app.connect("autodoc-process-docstring", read_as_plain_text, priority=400)
    app.connect("autodoc-process-docstring", keep_attributes, priority=600)
    app.connect("autodoc-skip-member", skip_generated)
    app.connect("autodoc-process-signature", readable_signature)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
