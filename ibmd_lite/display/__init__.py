"""Figures of the book: one style, one palette, and a description with every picture.

Imports matplotlib and IPython when used; nothing in the package imports this.
"""

from ibmd_lite.display.figures import COLOURS, WIDTH, canvas, figure, figure_html, pictures, style

__all__ = ["COLOURS", "WIDTH", "canvas", "figure", "figure_html", "pictures", "style"]
