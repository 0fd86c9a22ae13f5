"""One style sheet for all figures, and the way they reach a page: PNG, alternative text, caption.

A bare matplotlib output carries no description, so notebooks show figures through ``figure``, which
writes an HTML ``<figure>`` instead. Figures keep their white ground in dark mode, so that colours
mean the same everywhere. Imports torch and jaxtyping; matplotlib, pillow and IPython when used.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = [
    "COLOURS",
    "WIDTH",
    "canvas",
    "caption_html",
    "cloud",
    "clouds",
    "figure",
    "figure_html",
    "pictures",
    "style",
]

# Data are blue, models are warm; neighbours differ in lightness, so that they can be told apart with
# any kind of colour vision and in print.
COLOURS: Mapping[str, str] = {
    "source": "#56B4E9",
    "target": "#0072B2",
    "teacher": "#E69F00",
    "student": "#882255",
    "fake": "#CC79A7",
}

# Inches; one width for all figures, the text column of the page at `figure.dpi`.
WIDTH = 7.2

_STYLE: Mapping[str, Any] = {
    "figure.figsize": (WIDTH, 3.0),
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 10.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.0,
    "image.interpolation": "nearest",
}


def style() -> None:
    """Make the book's style the default of this process."""
    import matplotlib as mpl
    from cycler import cycler

    parameters: Any = mpl.rcParams
    parameters.update({**_STYLE, "axes.prop_cycle": cycler(color=list(COLOURS.values()))})


def canvas(rows: int = 1, columns: int = 1, *, height: float = 3.0, **options: Any) -> tuple[Figure, Any]:
    """A figure of the book's style and width with its axes; height in inches, of the whole figure.

    Options go to ``Figure.subplots`` (``sharex``, ``sharey``, ``squeeze``, ...). pyplot does not know the figure, so
    that no notebook shows it a second time, without its caption.
    """
    from matplotlib.figure import Figure

    style()
    fig = Figure(figsize=(WIDTH, height))
    return fig, fig.subplots(rows, columns, **options)


def cloud(axis: Axes, points: Float[Tensor, "n 2"], role: str, *, limit: float = 3.2, size: float = 1.5) -> None:
    """Points of the plane in the colour of their role, in a square window of [-limit, limit], without ticks."""
    x, y = points[:1500].detach().T
    axis.scatter(x, y, s=size, color=COLOURS[role], rasterized=True)
    axis.set(aspect="equal", xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[])


def clouds(
    shown: Mapping[str, tuple[Float[Tensor, "n 2"], str]], *, limit: float = 3.2, height: float = 1.9, rows: int = 1
) -> Figure:
    """Clouds of points side by side: each title with its points and their role (a key of ``COLOURS``)."""
    fig, axes = canvas(rows, -(-len(shown) // rows), height=height, squeeze=False)
    for axis, (title, (points, role)) in zip(axes.flat, shown.items(), strict=False):
        cloud(axis, points, role, limit=limit)
        axis.set_title(title)
    for axis in list(axes.flat)[len(shown) :]:
        axis.set_axis_off()
    return fig


def pictures(columns: Mapping[str, Float[Tensor, "batch channels height width"]], *, zoom: float = 1.0) -> Figure:
    """A grid of pictures: one column per entry with its name above, one row per picture.

    Values are in [-1, 1] and clipped to it; one channel is shown as grey. ``zoom`` is the share of the
    page's width that is used, at most 1. Raises ``ValueError`` if the columns differ in length.
    """
    counts = {name: len(images) for name, images in columns.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ValueError(f"every column needs the same number of pictures, at least one; got {counts}")
    if not 0 < zoom <= 1:
        raise ValueError(f"zoom is a share of the page's width, above 0 and at most 1; got {zoom}")
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    style()
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    batches = list(columns.values())
    rows, side = len(batches[0]), zoom * WIDTH / len(batches)
    shape = batches[0].shape[-2] / batches[0].shape[-1]
    fig = Figure(figsize=(zoom * WIDTH, rows * side * shape + 0.3), layout=layout)
    axes = fig.subplots(rows, len(batches), squeeze=False)
    for column, (name, images) in enumerate(columns.items()):
        axes[0, column].set_title(name)
        for row, image in enumerate(images):
            pixels = ((image.detach().float().cpu().clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()
            axes[row, column].imshow(
                pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1
            )
            axes[row, column].set_axis_off()
    return fig


def figure_html(fig: Figure, *, alt: str, caption: str) -> str:
    """The HTML of a figure: its PNG inside the page, ``alt`` for who cannot see it, and a caption.

    The caption states the finding and can be read alone; ``$...$`` in it is typeset, the rest is plain
    text. Raises ``ValueError`` if ``alt`` or ``caption`` is empty.
    """
    for name, text in (("alt", alt), ("caption", caption)):
        if not text.strip():
            raise ValueError(f"a figure needs a non-empty {name}; say in a sentence what it shows")
    data = base64.b64encode(_png(fig)).decode()
    width = round(100 * fig.get_figwidth())
    return (
        '<figure class="ibmd-figure">'
        f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" width="{width}" '
        'style="max-width: 100%; height: auto; background: white">'
        f"{caption_html(caption)}</figure>"
    )


def _png(fig: Figure) -> bytes:
    png = io.BytesIO()
    fig.savefig(png, format="png")
    if any(axis.images for axis in fig.axes):
        return png.getvalue()
    from PIL import Image

    with Image.open(png) as picture:
        return few_colours(picture.convert("RGB"))


def few_colours(drawing: Image) -> bytes:
    """A drawing as a PNG of 128 colours, a third of the size; chosen so that a role with few points keeps its own."""
    from PIL import Image

    png = io.BytesIO()
    reduced = drawing.quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    reduced.save(png, "PNG", optimize=True)
    return png.getvalue()


def shades(photographs: Image) -> bytes:
    """Photographs as a PNG of 256 colours, chosen where their own are: small differences of shade survive."""
    from PIL import Image

    png = io.BytesIO()
    reduced = photographs.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    reduced.save(png, "PNG", optimize=True)
    return png.getvalue()


def caption_html(caption: str) -> str:
    """The HTML of a caption; ``$...$`` in it is typeset, the rest is plain text."""
    words = re.sub(r"\$([^$]+)\$", r"\\(\1\\)", html.escape(caption, quote=False))
    return f'<figcaption class="mathjax_process">{words}</figcaption>'


def figure(fig: Figure, *, alt: str, caption: str) -> None:
    """Show a matplotlib figure in a notebook, as ``figure_html`` writes it, and close it."""
    import matplotlib.pyplot as plt
    from IPython.display import HTML, display

    display(HTML(figure_html(fig, alt=alt, caption=caption)))
    plt.close(fig)
