"""The looks that figures share: their resolution, their colours, their print, and how one becomes a picture."""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from PIL import Image

from reconstruct.images.names import escaped, shown

DPI = 100
BLUE, ORANGE, GREEN, VIOLET = "#3d6cb9", "#c2542d", "#4b9b5f", "#7a5aa6"
"""Colours of lines and bars, in all figures."""
GREY = "#777777"
"""A quieter colour, of what the others are compared with."""


def label(name: str) -> str:
    """A name of a picture, layer or model as text of a figure: printable, and no formula where it has dollar signs.

    What the font has no sign for is written by its bytes as well: a box would tell nothing.
    """
    font = get_font(findfont(FontProperties()))
    known = (each if font.get_char_index(ord(each)) else escaped(each) for each in shown(name))
    return "".join(known).replace("$", r"\$")


def drawn(figure: Figure) -> Image.Image:
    """The picture of a figure, at its own resolution."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi="figure")
    return Image.open(buffer)


def empty_figure(width: float, height: float) -> Figure:
    """An empty figure of this width and height in inches."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def finish(*panels: Axes) -> None:
    """Give panels one size of print, a grid, and a legend where something is labelled."""
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, frameon=False)


def without_legend(axes: Axes) -> None:
    """Take the legend away, if there is one."""
    if (legend := axes.get_legend()) is not None:
        legend.remove()
