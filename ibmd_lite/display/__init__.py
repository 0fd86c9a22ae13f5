"""Figures, animations and widgets of the book: one style, one palette, and a description with every picture.

Imports matplotlib, pillow, ipywidgets and IPython when used; nothing in the package imports this.
"""

from ibmd_lite.display.figures import COLOURS, WIDTH, canvas, cloud, clouds, figure, figure_html, pictures, style
from ibmd_lite.display.moving import animation, animation_html, explore
from ibmd_lite.display.watching import Watched

__all__ = [
    "COLOURS",
    "WIDTH",
    "Watched",
    "animation",
    "animation_html",
    "canvas",
    "cloud",
    "clouds",
    "explore",
    "figure",
    "figure_html",
    "pictures",
    "style",
]
