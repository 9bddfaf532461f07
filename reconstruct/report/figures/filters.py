"""Filters as pictures, and with their opposites (Figures 1 to 3 of Shang et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from reconstruct.analysis.crelu.pairing import Pairs
from reconstruct.images.files import to_pixels
from reconstruct.report.figures.style import BLUE, DPI, ORANGE, drawn, label

SIDE_PIXELS, GAP_PIXELS, CAPTION_PIXELS = 55, 5, 20
MOSAIC_PIXELS, MOSAIC_CHANNELS = 110, 16
"""Side of a filter drawn as channels side by side, and how many: its strongest, of a deep layer's hundreds."""
MOST_PAIRS, MOST_MOSAICS = 96, 48
"""How many pairs of a layer are shown, in colours or as mosaics: all of a first layer of the usual size."""
HEAD_PIXELS, PAGE_PIXELS, PANELS_ACROSS = 36, 1070, 8
DIVERGING = "RdBu_r"


def filter_picture(weights: torch.Tensor, rgb: bool) -> torch.Tensor:
    """One filter, C x h x w, as a picture, 3 x H x W in [0, 1], each weight a square.

    Its largest modulus has the strongest colour. ``rgb``: three channels as colours, 0 being grey. Else a mosaic of the
    channels, row by row, in blue (negative), white (0) and red; ``strongest_channels`` picks those to show of many.
    """
    channels, height, width = weights.shape
    shown = weights.detach().cpu().float()
    scaled = shown / shown.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    if rgb and channels == 3:
        return _enlarged(0.5 + 0.5 * scaled, max(1, round(SIDE_PIXELS / max(height, width))))
    columns = math.ceil(math.sqrt(channels))
    rows = -(-channels // columns)
    gap = 0 if channels == 1 or height * width == 1 else 2
    side = SIDE_PIXELS if channels == 1 else MOSAIC_PIXELS
    scale = max(1, round((side / columns - gap) / max(height, width)))
    tall, wide = height * scale + gap, width * scale + gap
    canvas = torch.ones(3, rows * tall - gap, columns * wide - gap)
    for number, each in enumerate(scaled):
        top, left = (number // columns) * tall, (number % columns) * wide
        coloured = torch.from_numpy(colormaps[DIVERGING]((0.5 + 0.5 * each).numpy())[..., :3]).float()
        canvas[:, top : top + height * scale, left : left + width * scale] = _enlarged(coloured.permute(2, 0, 1), scale)
    return canvas


def strongest_channels(filters: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The channels of filters that hold most of their energy, the same ones of all, and their share of it.

    Parameters
    ----------
    filters : K x C x h x w.

    Returns
    -------
    K x c x h x w, c at most ``MOSAIC_CHANNELS``; the share, from 0 to 1.
    """
    energy = filters.detach().double().square().sum(dim=(0, 2, 3))
    if len(energy) <= MOSAIC_CHANNELS:
        return filters, 1.0
    chosen = energy.topk(MOSAIC_CHANNELS)
    return filters[:, chosen.indices], float(chosen.values.sum() / energy.sum().clamp_min(1e-300))


def filter_grid(filters: torch.Tensor, columns: int = 16) -> Image.Image:
    """Filters of a first layer, K x 3 x h x w in RGB, or K x C x h x w, as pictures (``filter_picture``)."""
    pictures = [filter_picture(each, rgb=True) for each in filters]
    height, width = pictures[0].shape[1:]
    columns = min(columns, len(pictures), max(1, columns * SIDE_PIXELS // width))
    gap = GAP_PIXELS
    tall, wide = height + gap, width + gap
    canvas = torch.ones(3, -(-len(pictures) // columns) * tall + gap, columns * wide + gap)
    for number, each in enumerate(pictures):
        top, left = (number // columns) * tall + gap, (number % columns) * wide + gap
        canvas[:, top : top + height, left : left + width] = each
    return Image.fromarray(to_pixels(canvas))


def pair_grid(pairs: Pairs, model: str) -> Image.Image:
    """Filters beside their pairing filters, the most nearly opposite first (Figure 1); a mutual pair stands once.

    Each is on the scale of its own largest modulus: phase shows, size does not. Of deep layers the two filters'
    strongest channels are shown, the same ones of both, so that opposite phases are opposite colours.
    """
    order = pairs.pairs()
    rgb = pairs.of_image and pairs.filters.shape[1] == 3
    shown = order[: MOST_PAIRS if rgb else MOST_MOSAICS]
    cells = [strongest_channels(pairs.filters[[i, j]]) for i, j, _ in shown]
    height, width = filter_picture(cells[0][0][0], rgb).shape[1:]
    between = 2 if rgb else 8
    cell_width, cell_height = 2 * width + between + 4 * GAP_PIXELS, height + CAPTION_PIXELS + GAP_PIXELS
    columns = max(1, min(len(shown), PAGE_PIXELS // cell_width))
    full_width, full_height = max(columns * cell_width + 10, 900), -(-len(shown) // columns) * cell_height + HEAD_PIXELS
    figure = Figure(figsize=(full_width / DPI, full_height / DPI), dpi=DPI, facecolor="white")
    some = f"{len(shown)} of {len(order)} pairs" if len(shown) < len(order) else f"{len(order)} pairs"
    kernel = " x ".join(map(str, (*pairs.filters.shape[2:], pairs.filters.shape[1])))
    title = f"{label(f'{model}, {pairs.layer}')}: {len(pairs.filters)} filters of {kernel}"
    title += f"; {some}, the most nearly opposite first"
    if pairs.filters.shape[1] > MOSAIC_CHANNELS:
        share = sum(share for _, share in cells) / len(cells)
        title += f"\nshown: the {MOSAIC_CHANNELS} strongest channels of each pair, {share:.0%} of their energy"
    figure.text(10 / full_width, 1 - 5 / full_height, title, ha="left", va="top", fontsize=8.5, weight="bold")
    for place, ((i, j, cosine), (weights, _)) in enumerate(zip(shown, cells, strict=True)):
        left, top = (place % columns) * cell_width + 10, (place // columns) * cell_height + HEAD_PIXELS
        for k in (0, 1):
            pixels = to_pixels(filter_picture(weights[k], rgb))
            figure.figimage(pixels, left + k * (width + between), full_height - top - height, origin="upper")
        centre, below = (left + width + between / 2) / full_width, 1 - (top + height + 3) / full_height
        figure.text(centre, below, f"{i}, {j}: {cosine:.2f}", ha="center", va="top", fontsize=7.5, color="#333333")
    return drawn(figure)


def cosine_histograms(rows: Mapping[str, Sequence[tuple[str, torch.Tensor, torch.Tensor]]]) -> Image.Image:
    """Histograms of pairing cosines beside those of random filters (Figures 2 and 3): rows of panels a model.

    Parameters
    ----------
    rows : for each model its panels: a name, the filters' cosines, random filters' cosines.
    """
    most = max(len(panels) for panels in rows.values())
    across = -(-most // -(-most // PANELS_ACROSS))
    chunks = [
        (model, panels[start : start + across])
        for model, panels in rows.items()
        for start in range(0, len(panels), across)
    ]
    figure = Figure(figsize=(max(1.55 * across + 0.4, 5), 2.0 * len(chunks) + 0.3), dpi=DPI, layout="constrained")
    grid = figure.subplots(len(chunks), across, sharex=True, sharey=True, squeeze=False)
    bins = [-1 + 0.05 * k for k in range(21)]
    for axes_row, (model, panels) in zip(grid, chunks, strict=True):
        for axes in axes_row[len(panels) :]:
            axes.set_axis_off()
        for axes, (name, cosines, chance) in zip(axes_row, panels, strict=False):
            for values, colour, what in ((chance, ORANGE, "random"), (cosines, BLUE, "filters")):
                weights = [100 / len(values)] * len(values)
                axes.hist(values.tolist(), bins=bins, weights=weights, color=colour, alpha=0.6, label=what)
                axes.axvline(float(values.mean()), color=colour, linewidth=1)
            axes.set_title(f"{label(name)}\n{float(cosines.mean()):.2f} ± {float(cosines.std()):.2f}", fontsize=8)
            axes.set_xticks([-1, -0.5, 0])
            axes.tick_params(labelsize=7)
        axes_row[0].set_ylabel(f"{label(model)}\n% of filters", fontsize=7.5)
    grid[0][0].legend(fontsize=7, loc="upper left")
    figure.supxlabel("cosine with the pairing filter; above, its mean ± standard deviation", fontsize=8)
    return drawn(figure)


def _enlarged(picture: torch.Tensor, scale: int) -> torch.Tensor:
    """The picture with each pixel as a square of this side."""
    return picture.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
