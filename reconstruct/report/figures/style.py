"""What all figures share: their resolution, their colours, and how one becomes a picture."""

from __future__ import annotations

import io

from matplotlib.figure import Figure
from PIL import Image

DPI = 100


BLUE, ORANGE, GREEN, VIOLET = "#3d6cb9", "#c2542d", "#4b9b5f", "#7a5aa6"
"""Colours of lines and bars, in all figures."""


def drawn(figure: Figure) -> Image.Image:
    """The picture of a figure, at its own resolution."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi="figure")
    return Image.open(buffer)
