"""Reading order: every chapter says what it needs and how long it takes, and nothing of that is typed by hand."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nbformat
import pytest
import yaml
from links import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from reading import measured, order, source, title, told
from reading_graph import drawn

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
PARTS = {part["caption"]: [each["file"] for each in part["chapters"]] for part in TOC["parts"]}
ORDER = [name for names in PARTS.values() for name in names]
CHAPTERS = [
    name
    for caption, names in PARTS.items()
    for name in names
    if caption != "Back matter" and name != "book/start/reading-order"
]


def test_every_chapter_has_an_entry_and_nothing_else_has() -> None:
    assert sorted(order()["needs"]) == sorted(CHAPTERS)


def wrong(needs: dict[str, list[str]], names: list[str]) -> list[str]:
    """What a chapter needs and what does not come before it: a cycle cannot hide from that."""
    return [
        f"{name} needs {need}"
        for name, wanted in needs.items()
        for need in wanted
        if need not in names[: names.index(name)]
    ]


def test_what_a_chapter_needs_comes_before_it() -> None:
    assert wrong(order()["needs"], ORDER) == []
    assert wrong({"a": ["b"], "b": ["a"]}, ["a", "b"]) == ["a needs b"]


def test_a_chapter_names_in_its_text_what_it_needs() -> None:
    """The drawing leaves out what follows from other needs, so the text may name more, and these are in the text."""
    loose = []
    for name, needs in order()["needs"].items():
        text = source(name).read_text("utf8")
        label = {need: re.search(r"\(([\w-]+)\)=", source(need).read_text("utf8")) for need in needs}
        loose += [
            f"{name}: {need}"
            for need, found in label.items()
            if Path(need).name not in text and not (found and f"({found[1]})" in text) and title(need) not in text
        ]
    assert loose == ["book/distillation/inverse-problem: book/bridges/remembering-the-partner"]  # "of both kinds"


def test_the_way_for_the_impatient_goes_forward() -> None:
    impatient = order()["impatient"]
    assert set(impatient) <= set(CHAPTERS)
    first, *rest = impatient  # the page to try a student on needs nothing
    assert order()["needs"][first] == []
    assert rest == sorted(rest, key=ORDER.index)


@pytest.mark.parametrize(
    ("printed", "seconds"),
    [
        ("This page took 172 s, CPU threads: 1.", 172),
        ("This page took 2.1 minutes to here, on 1 CPU threads.", 126),
        ("size full, this run 9.0 minutes, exercises not counted", 540),
        ("321 s on 1 thread of a CPU", 321),
        ("77 s for the teacher, 92 s for the student.", None),
    ],
)
def test_a_page_is_measured_from_its_file(tmp_path: Path, printed: str, seconds: float | None) -> None:
    shown = new_code_cell("\n".join(["x = 1"] * 40), outputs=[new_output("stream", text=printed + "\n")])
    folded = new_code_cell("y = 2\n" * 50, metadata={"tags": ["hide-input"]})
    prose = "(a)=\n# Title\n\n" + "word " * 2000 + "\n\n$$\nx < y\n$$ (eq:a)\n\n```python\nz = 3\n```\n"
    path = tmp_path / "page.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell(prose), shown, folded]), path)
    size = measured(path)
    assert (size.words, size.formulas, size.lines, size.run) == (2001, 1, 41, seconds)
    assert size.minutes == 10  # ten of words, two of code, a third of formulas, to the nearest five


def test_a_time_that_the_run_noted_goes_before_one_that_it_printed(tmp_path: Path) -> None:
    cell = new_code_cell("", outputs=[new_output("stream", text="This page took 172 s.")])
    notebook = new_notebook(cells=[cell], metadata={"ibmd": {"fingerprint": "x", "seconds": 200}})
    nbformat.write(notebook, tmp_path / "page.ipynb")
    assert measured(tmp_path / "page.ipynb").run == 200
    assert (told(89), told(200)) == ("89 s", "3 minutes")


def test_the_line_stands_under_each_title_and_links_to_what_is_needed(pages: Path) -> None:
    for name, needs in order()["needs"].items():
        page = (pages / f"{name}.html").read_text("utf8")
        found = re.search(r"</h1>\s*<p class=\"reading-line\">(.*?)</p>", page, re.DOTALL)
        assert found, name
        assert f"About {measured(source(name)).minutes} minutes to read" in found[1]
        links = re.findall(r'href="([^"]*)\.html"', found[1])
        assert [Path(link).name for link in links] == [Path(need).name for need in needs]


def test_the_drawing_has_every_chapter_and_every_need(pages: Path) -> None:
    page = (pages / "book/start/reading-order.html").read_text("utf8")
    (figure,) = re.findall(r'<figure class="ibmd-figure reading-graph">.*?</figure>', page, re.DOTALL)
    tree = ElementTree.fromstring(figure)
    links = [each.get("href", "") for each in tree.iter("a")]
    found = {(pages / "book/start" / link).resolve() for link in links}
    assert found == {pages / f"{name}.html" for name in CHAPTERS}
    assert len(list(tree.iter("path"))) == sum(map(len, order()["needs"].values()))


def test_boxes_of_the_drawing_do_not_overlap_and_hold_their_titles() -> None:
    names = {"p": ["a/b", "a/c"], "q": ["a/d"]}
    titles = {"a/b": "Public teachers and their checkpoints", "a/c": "<One>", "a/d": "Two"}
    tree = ElementTree.fromstring(drawn(names, {"a/d": ["a/b"]}, titles, {"a/c"}, "a/page"))
    boxes = [[float(each.get(side, 0)) for side in ("x", "y", "width", "height")] for each in tree.iter("rect")]
    for x, y, width, height in boxes:
        assert all(
            other == [x, y, width, height] or other[0] >= x + width or other[0] + other[2] <= x
            or other[1] >= y + height or other[1] + other[3] <= y
            for other in boxes
        )  # fmt: skip
    assert [each.get("href") for each in tree.iter("a")] == ["b.html", "c.html", "d.html"]
    for link, (_, y, _, height) in zip(tree.iter("a"), boxes, strict=True):
        assert all(y + 8 < float(span.get("y", 0)) < y + height for span in link.iter("tspan"))
