"""The drawing of what builds on what: one column a part, one box a chapter, one line a need.

Plain SVG in the colours of the page, so that it can be read on white and on dark, with links in the boxes.
Imports the standard library alone.
"""

from __future__ import annotations

import html
import posixpath
import textwrap
from collections.abc import Mapping, Sequence, Set

WIDTH, HEIGHT = 122, 58
COLUMN, ROW, HEAD, MARGIN = 142, 70, 46, 18
CHARACTERS = 17


def drawn(
    parts: Mapping[str, Sequence[str]],
    needs: Mapping[str, Sequence[str]],
    titles: Mapping[str, str],
    marked: Set[str],
    page: str,
) -> str:
    """The `<figure>` on `page`; `parts` gives the columns, `marked` chapters have a broader frame."""
    places = {
        name: (MARGIN + column * COLUMN, HEAD + row * ROW)
        for column, names in enumerate(parts.values())
        for row, name in enumerate(names)
    }
    width = 2 * MARGIN + (len(parts) - 1) * COLUMN + WIDTH
    height = HEAD + max(map(len, parts.values())) * ROW
    heads = "".join(
        f'<text class="part">{_written(caption, 17, MARGIN + column * COLUMN, 16, 16)}</text>'
        for column, caption in enumerate(parts)
    )
    lines = "".join(
        f'<path d="{_line(places[need], places[name])}"/>' for name, wanted in needs.items() for need in wanted
    )
    boxes = "".join(_box(titles[name], places[name], _link(name, page), name in marked) for name in places)
    return (
        '<figure class="ibmd-figure reading-graph">'
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="group" '
        'aria-label="Chapters, one column a part, and lines from each to those that build on it; '
        'the table below says the same.">'
        f"{heads}<g>{lines}</g>{boxes}</svg>"
        "<figcaption>A line leads from a chapter to those that need it. "
        "A broad frame marks the way for the impatient.</figcaption></figure>"
    )


def _link(name: str, page: str) -> str:
    return posixpath.relpath(f"{name}.html", posixpath.dirname(page))


def _line(start: tuple[int, int], end: tuple[int, int]) -> str:
    """From the right side of a box to the left side of a later one; within a column, round the left."""
    (x, y), (to_x, to_y) = start, end
    y, to_y = y + HEIGHT // 2, to_y + HEIGHT // 2
    if x == to_x:
        out = min(6 + 4 * ((to_y - y) // ROW), MARGIN - 2)
        return f"M{x} {y + 8}C{x - out} {y + 12} {x - out} {to_y - 8} {x} {to_y - 4}"
    bend = (to_x - x - WIDTH) // 2
    return f"M{x + WIDTH} {y}C{x + WIDTH + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}"


def _written(text: str, characters: int, x: int, y: float, line: int) -> str:
    return "".join(
        f'<tspan x="{x}" y="{y + line * number:.1f}">{html.escape(words)}</tspan>'
        for number, words in enumerate(textwrap.wrap(text, characters))
    )


def _box(title: str, place: tuple[int, int], link: str, marked: bool) -> str:
    x, y = place
    count = len(textwrap.wrap(title, CHARACTERS))
    first = y + HEIGHT / 2 + 4 - 7.5 * (count - 1)
    text = _written(title, CHARACTERS, x + 7, first, 15)
    kind = ' class="marked"' if marked else ""
    return (
        f'<a href="{html.escape(link)}"{kind}>'
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5"/><text>{text}</text></a>'
    )
