"""Reading order, prerequisites and time: the line under a chapter's title, and the page Reading order.

What a chapter needs stands in `book/reading.yaml`. Nothing else is typed by hand: what there is to read is
counted in the source, and the time that its stored run took is the one that the run itself noted or printed.
Imports Sphinx, nbformat, yaml and its neighbours `links` and `reading_graph`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from links import ROOT, keeps_trainings
from reading_graph import drawn

WORDS_A_MINUTE = 200
SECONDS_A_FORMULA = 20
SECONDS_A_LINE = 3
FOLDED = {"remove-cell", "remove-input", "hide-input", "hide-cell"}

BLOCK = re.compile(r"^(`{3,})[^\n]*\n.*?^\1", re.DOTALL | re.MULTILINE)
FORMULA = re.compile(r"^\$\$$.*?^\$\$(?: \([^)]*\))?$", re.DOTALL | re.MULTILINE)
NO_WORDS = re.compile(r"^:.*$|\{[\w:]+\}|\]\([^)]*\)|</?[a-zA-Z][^<>\n]*>|^\([\w-]+\)=$", re.MULTILINE)
TOOK = re.compile(
    r"\b(?:page|run)(?: took|:)? ([\d.]+) (s|min)"
    r"|^([\d.]+) (s|min)\w* (?:on \d|of processor)",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True)
class Size:
    """What there is to read of a page, and the seconds that its stored run took, where that is known."""

    words: int
    formulas: int
    lines: int
    run: float | None = None
    kept: bool = False
    """Whether the page looks for trainings that it finished earlier, which its run then did not repeat."""

    @property
    def minutes(self) -> int:
        """Of reading, in steps of five, as nobody reads to the minute."""
        seconds = SECONDS_A_FORMULA * self.formulas + SECONDS_A_LINE * self.lines
        return max(5, 5 * round((self.words / WORDS_A_MINUTE + seconds / 60) / 5))


@cache
def measured(path: Path) -> Size:
    """The size of a page, from its source."""
    if path.suffix == ".md":
        return _of_prose(path.read_text("utf8"))
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    prose = _of_prose("\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown"))
    lines = sum(len(cell.source.splitlines()) for cell in code if not FOLDED & set(cell.metadata.get("tags", [])))
    return Size(
        prose.words,
        prose.formulas,
        prose.lines + lines,
        _run(notebook, code),
        keeps_trainings(notebook),
    )


def _of_prose(text: str) -> Size:
    shown = [block[0] for block in BLOCK.finditer(text) if re.match(r"`+(python|bash)", block[0])]
    lines = sum(len(block.splitlines()) - 2 for block in shown)
    formulas = len(FORMULA.findall(text))
    for block in shown:
        text = text.replace(block, "")
    words = NO_WORDS.sub(" ", FORMULA.sub(" ", text)).split()
    return Size(sum(any(map(str.isalnum, word)) for word in words), formulas, lines)


def _run(notebook: nbformat.NotebookNode, code: list[nbformat.NotebookNode]) -> float | None:
    if "seconds" in notebook.metadata.get("ibmd", {}):
        return float(notebook.metadata["ibmd"]["seconds"])
    printed = [found for cell in code for output in cell.outputs for found in TOOK.finditer(output.get("text", ""))]
    if not printed:
        return None
    number, unit = (part for part in printed[-1].groups() if part)
    return float(number) * (60 if unit == "min" else 1)


def told(seconds: float) -> str:
    """A time in words: whole minutes, or whole seconds below one and a half."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{round(seconds / 60)} minutes"


@cache
def order(root: Path = ROOT) -> dict[str, Any]:
    """`reading.yaml`, with the names of files as in the contents."""
    text = yaml.safe_load((root / "book" / "reading.yaml").read_text("utf8"))
    return {
        "needs": {f"book/{name}": [f"book/{need}" for need in needs] for name, needs in text["needs"].items()},
        "impatient": [f"book/{name}" for name in text["impatient"]],
    }


def source(name: str, root: Path = ROOT) -> Path:
    """The file of a page of the contents."""
    notebook = root / f"{name}.ipynb"
    return notebook if notebook.exists() else root / f"{name}.md"


@cache
def title(name: str, root: Path = ROOT) -> str:
    """The first heading of a page."""
    path = source(name, root)
    text = path.read_text("utf8")
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    return found[1] if found else path.stem.capitalize()


def say_under_the_title(app: Sphinx, doctree: nodes.document) -> None:
    """Put the line under the title of a chapter."""
    name = app.env.docname
    needs = order()["needs"].get(name)
    heading = next(doctree.findall(nodes.title), None)
    if needs is None or heading is None:
        return
    size = measured(source(name))
    line = nodes.paragraph(classes=["reading-line"])
    line += nodes.Text(f"About {size.minutes} minutes to read")
    if size.run is not None:
        beside = ", beside trainings that were kept" if size.kept else ""
        line += nodes.Text(f" · its stored run took {told(size.run)}{beside}")
    if needs:
        line += nodes.Text(" · needs ")
        for number, need in enumerate(needs):
            if number:
                line += nodes.Text(", ")
            line += addnodes.pending_xref(
                "",
                nodes.inline("", title(need)),
                refdomain="std",
                reftype="doc",
                reftarget=f"/{need}",
                refdoc=name,
                refexplicit=False,
                refwarn=True,
            )
    heading.parent.insert(heading.parent.index(heading) + 1, line)


class ReadingOrder(SphinxDirective):
    """`{reading-order}`: the drawing, the table, or the way for the impatient."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The part of the page that the argument names."""
        needs, impatient = order()["needs"], order()["impatient"]
        toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
        parts = {
            part["caption"]: [chapter["file"] for chapter in part["chapters"] if chapter["file"] in needs]
            for part in toc["parts"]
        }
        parts = {caption: names for caption, names in parts.items() if names}
        if self.arguments[0] == "drawing":
            titles = {name: title(name) for name in needs}
            picture = drawn(parts, needs, titles, set(impatient), self.env.docname)
            return [nodes.raw("", picture, format="html")]
        if self.arguments[0] == "impatient":
            return self._written(
                [f"1. {self._entry(name)}" for name in impatient] + ["", f"Together {self._sum(impatient)} of reading."]
            )
        lines = ["| Chapter | To read | Stored run | Needs |", "| --- | --- | --- | --- |"]
        for caption, names in parts.items():
            lines.append(f"| **{caption}** | {self._sum(names)} | | |")
            for name in names:
                size = measured(source(name))
                took = "" if size.run is None else told(size.run)
                took += " [^kept]" if size.kept and took else ""
                links = ", ".join(f"[](/{need})" for need in needs[name])
                lines.append(f"| [](/{name}) | {size.minutes} min | {took} | {links} |")
        kept = "[^kept]: Beside trainings that the page had finished before, and found again."
        return self._written([*lines, "", kept])

    @staticmethod
    def _entry(name: str) -> str:
        return f"[](/{name}), {measured(source(name)).minutes} minutes"

    @staticmethod
    def _sum(names: list[str]) -> str:
        minutes = sum(measured(source(name)).minutes for name in names)
        hours = minutes / 60
        return f"{minutes} min" if minutes < 90 else f"{hours:.1f} hours"

    def _written(self, lines: list[str]) -> list[nodes.Node]:
        holder = nodes.container()
        self.state.nested_parse(StringList(lines, source="reading.yaml"), self.content_offset, holder)
        return holder.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the line and the directive."""
    app.add_directive("reading-order", ReadingOrder)
    app.connect("doctree-read", say_under_the_title)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
