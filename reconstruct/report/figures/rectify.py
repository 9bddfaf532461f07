"""The figure of rectification step by step: an image, filters, their responses, and what is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image

from reconstruct.analysis.crelu.rectify import Rectified
from reconstruct.images.files import to_pixels
from reconstruct.report.figures.filters import DIVERGING, filter_picture, strongest_channels
from reconstruct.report.figures.style import DPI, drawn, label

GREY = "#888888"
SHADES = ("#000000", "#888888", "#ffffff")


def rectify_figure(image: torch.Tensor, found: Sequence[Rectified], title: str, shades: bool = False) -> Image.Image:
    """Input, filter, response, and what ReLU, CReLU and AVR make of it: one row a filter.

    Parameters
    ----------
    image : C x H x W in [0, 1].
    found : of one layer. A row's responses share one scale, 0 being white.
    shades : responses in three shades instead, black where they are below 0, grey and white (``Rectified.shades``).
    """
    columns = ("filter", "response z", "ReLU: [z]+", "CReLU: [z]+", "and [-z]+", "AVR: |z|")
    figure = Figure(figsize=(12.6, 1.85 * len(found) + 0.6), dpi=DPI, layout="constrained")
    grid = figure.subplots(len(found), 2 + len(columns), squeeze=False, width_ratios=(1,) * 7 + (0.9,))
    for row, (axes_row, each) in enumerate(zip(grid, found, strict=True)):
        axes_row[0].imshow(to_pixels(image) if row == 0 else numpy.ones((1, 1, 3)))
        weights, share = strongest_channels(each.filter[None])
        rgb = each.filter.shape[0] == 3 and each.of_image
        axes_row[1].imshow(to_pixels(filter_picture(weights[0], rgb)), interpolation="nearest")
        size = " x ".join(map(str, (*each.filter.shape[1:], each.filter.shape[0])))
        part = f"\n{weights.shape[1]} channels, {share:.0%}" if share < 1 else ""
        axes_row[1].set_xlabel(f"{each.number}: {size}{part}", fontsize=7)
        largest = float(each.response.abs().max()) or 1.0
        maps: tuple[torch.Tensor, ...] = (each.response, each.relu, each.relu, each.negative, each.avr)
        scale: dict[str, Any] = {"cmap": DIVERGING, "vmin": -largest, "vmax": largest, "interpolation": "nearest"}
        if shades:
            shown_as = each.shades()
            maps = tuple(shown_as[name] for name in ("response", "relu", "relu", "negative", "avr"))
            scale |= {"cmap": ListedColormap(SHADES), "vmin": -0.5, "vmax": 2.5}
        shown = [axes.imshow(values.cpu().numpy(), **scale) for axes, values in zip(axes_row[2:], maps, strict=False)]
        record = each.record()
        black = f", {record['shades']['response'][0]:.0%} black" if shades else ""
        axes_row[2].set_xlabel(f"{record['positive_share']:.0%} positive{black}", fontsize=7)
        axes_row[3].set_xlabel(f"keeps {record['energy_kept']['relu']:.0%} of the energy", fontsize=7)
        axes_row[5].set_xlabel("z = [z]+ - [-z]+", fontsize=7)
        axes_row[6].set_xlabel("the sign is lost", fontsize=7)
        axes_row[7].hist(each.response.flatten().tolist(), bins=40, color=GREY)
        axes_row[7].axvline(0, color="black", linewidth=1)
        axes_row[7].set_yticks([])
        axes_row[7].tick_params(labelsize=6.5)
        for axes in axes_row[:7]:
            axes.set_xticks([])
            axes.set_yticks([])
        if row:
            axes_row[0].set_axis_off()
        bar = figure.colorbar(shown[-1], ax=axes_row[6], shrink=0.8)
        if shades:
            bound = float(each.response.double().square().mean().sqrt())
            bar.set_ticks([0, 1, 2], labels=["below 0", f"to {bound:.2g}", "above"])
        bar.ax.tick_params(labelsize=6.5)
    for axes, name in zip(grid[0], ("input", *columns, "histogram of z"), strict=True):
        axes.set_title(name, fontsize=8.5)
    figure.suptitle(label(title), fontsize=9, weight="bold")
    return drawn(figure)
