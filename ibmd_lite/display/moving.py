"""Pictures that move: animations that play in plain HTML, and widgets with a still beside them.

An animation is one tall picture of all its frames, moved behind a window by CSS: no script, no kernel, no
network; it can be paused, and stands still on paper and for readers who asked for less motion. A widget is
live in a notebook with a kernel; a strip of stills is always there, so that the rendered page loses nothing.
Imports matplotlib, pillow, ipywidgets and IPython when used, and its neighbour ``figures``.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ibmd_lite.display.figures import canvas, caption_html, few_colours, figure, shades, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["animation", "animation_html", "explore"]

# One frame per step, then a rest on the last one before the film starts again.
_RULES = """
#{name} .film {{ width: 100%; aspect-ratio: {width} / {height}; border-radius: 4px;
  background: white url({picture}) 0 100% / 100% {percent}%; animation: {name} {seconds}s infinite; }}
#{name}:has(.pause:checked) .film {{ animation-play-state: paused; }}
@keyframes {name} {{
  0% {{ background-position-y: 0%; animation-timing-function: steps({frames}, jump-none); }}
  80%, 100% {{ background-position-y: 100%; }} }}
@media (prefers-reduced-motion: reduce), print {{
  #{name} .film {{ animation: none; }}
  #{name} .pause, #{name} label {{ display: none; }} }}
"""


def animation_html(frames: Sequence[Figure], *, alt: str, caption: str, seconds: float = 6.0) -> str:
    """The HTML of an animation: its frames in one picture, played by CSS, with a pause box and a caption.

    frames: at least two figures of one size. alt: what is seen happening. seconds: length of one showing.
    Raises ``ValueError`` for an empty alt or caption, fewer than two frames, or frames of several sizes.
    """
    for what, text in (("alt", alt), ("caption", caption)):
        if not text.strip():
            raise ValueError(f"an animation needs a non-empty {what}; say in a sentence what it shows")
    pictures = [_pixels(fig) for fig in frames]
    sizes = {picture.size for picture in pictures}
    if len(pictures) < 2 or len(sizes) > 1:
        raise ValueError(f"an animation needs at least two frames of one size, got {len(pictures)} of sizes {sizes}")
    from PIL import Image

    width, height = pictures[0].size
    film = Image.new("RGB", (width, height * len(pictures)), "white")
    for number, picture in enumerate(pictures):
        film.paste(picture, (0, number * height))
    photographs = any(axis.images for fig in frames for axis in fig.axes)
    png = shades(film) if photographs else few_colours(film)
    data = base64.b64encode(png).decode()
    name = f"film-{hashlib.sha256(png).hexdigest()[:12]}"
    rules = _RULES.format(
        name=name,
        picture=f"data:image/png;base64,{data}",
        width=width,
        height=height,
        percent=100 * len(pictures),
        frames=len(pictures),
        seconds=seconds,
    )
    return (
        f'<figure class="ibmd-figure ibmd-animation" id="{name}"><style>{rules}</style>'
        f'<div class="film" role="img" aria-label="{html.escape(alt)}"></div>'
        f'<input type="checkbox" class="pause" id="{name}-pause"><label for="{name}-pause"> pause</label>'
        f"{caption_html(caption)}</figure>"
    )


def animation(frames: Sequence[Figure], *, alt: str, caption: str, seconds: float = 6.0) -> None:
    """Show an animation in a notebook, as ``animation_html`` writes it, and close its figures."""
    import matplotlib.pyplot as plt
    from IPython.display import HTML, display

    display(HTML(animation_html(frames, alt=alt, caption=caption, seconds=seconds)))
    for fig in frames:
        plt.close(fig)


def explore(
    draw: Callable[[Axes, Any], None],
    name: str,
    values: Sequence[Any],
    *,
    alt: str,
    caption: str,
    stills: Sequence[Any] | None = None,
    height: float = 2.2,
    **options: Any,
) -> None:
    """One picture with a slider, and beside it a strip of stills for readers without a kernel.

    draw(axis, value) paints the picture for one value of ``name``; the slider offers ``values``, the strip shows
    ``stills`` (by default the first, the middle and the last value). Options go to ``Figure.subplots``. Where the
    environment variable IBMD_STATIC is set, as when outputs are stored, the slider is left out.

    Raises ValueError for fewer than two values, and for stills that are not among them.
    """
    values = list(values)
    stills = [values[0], values[len(values) // 2], values[-1]] if stills is None else list(stills)
    missing = [value for value in stills if value not in values]
    if len(values) < 2 or missing:
        raise ValueError(f"a slider needs at least two values, the stills among them; got {values}, stills {stills}")
    if not os.environ.get("IBMD_STATIC"):
        _slider(draw, name, values, alt, height, options)
    fig, axes = canvas(1, len(stills), height=height, squeeze=False, **options)
    for axis, value in zip(axes[0], stills, strict=True):
        draw(axis, value)
        axis.set_title(f"{name} = {value}")
    figure(fig, alt=alt, caption=caption)


def _slider(
    draw: Callable[[Axes, Any], None],
    name: str,
    values: list[Any],
    alt: str,
    height: float,
    options: dict[str, Any],
) -> None:
    import ipywidgets
    from IPython.display import display
    from matplotlib.figure import Figure

    style()
    slider = ipywidgets.SelectionSlider(options=values, value=values[len(values) // 2], description=name)
    picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(width="22rem", max_width="100%"))
    picture.add_class("ibmd-widget")

    def redraw(change: object = None) -> None:
        fig = Figure(figsize=(1.6 * height, 1.4 * height))
        axis = fig.subplots(**options)
        draw(axis, slider.value)
        axis.set_title(f"{name} = {slider.value}")
        png = io.BytesIO()
        fig.savefig(png, format="png", dpi=120)
        picture.value = png.getvalue()

    slider.observe(redraw, names="value")
    redraw()
    display(ipywidgets.VBox([slider, picture]))


def _pixels(fig: Figure) -> Image:
    from PIL import Image

    png = io.BytesIO()
    fig.savefig(png, format="png", dpi=110)
    return Image.open(png).convert("RGB")
