"""Figures of reconstructions, drawn by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from PIL import Image

from reconstruct.images import to_pixels

DPI = 100
CAPTION_PIXELS = 40
GAP_PIXELS = 10
NARROWEST_PIXELS = 150
"""Images smaller than this are magnified by a whole factor, so that captions fit and pixels stay square."""


@dataclass(frozen=True)
class Panel:
    """One picture of a comparison: 3 x H x W in [0, 1], what it is, and how good it is."""

    image: torch.Tensor
    title: str
    detail: str = ""


def comparison(original: Panel, rows: Sequence[Sequence[Panel]]) -> Image.Image:
    """The original beside its reconstructions, one row a method, as in Figure 5 of Shang et al. 2016.

    Every picture is drawn pixel for pixel, or magnified by a whole factor where it is small.
    """
    height, width = original.image.shape[1:]
    scale = max(1, -(-NARROWEST_PIXELS // width))
    cell_width, cell_height = width * scale + GAP_PIXELS, height * scale + CAPTION_PIXELS + GAP_PIXELS
    columns = 1 + max(len(row) for row in rows)
    full_width, full_height = columns * cell_width + GAP_PIXELS, len(rows) * cell_height + GAP_PIXELS
    figure = Figure(figsize=(full_width / DPI, full_height / DPI), dpi=DPI, facecolor="white")
    for down, row in enumerate(rows):
        shown = [original if down == 0 else None, *row]
        for right, panel in enumerate(shown):
            if panel is None:
                continue
            left, top = right * cell_width + GAP_PIXELS, down * cell_height + GAP_PIXELS
            pixels = to_pixels(panel.image).repeat(scale, axis=0).repeat(scale, axis=1)
            figure.figimage(pixels, left, full_height - top - height * scale, origin="upper")
            centre = (left + width * scale / 2) / full_width
            caption_top = 1 - (top + height * scale + 4) / full_height
            caption_low = caption_top - 18 / full_height
            figure.text(centre, caption_top, panel.title, ha="center", va="top", fontsize=9, weight="bold")
            figure.text(centre, caption_low, panel.detail, ha="center", va="top", fontsize=8.5, color="#333333")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return Image.open(buffer)
