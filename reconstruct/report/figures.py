"""Figures of reconstructions, drawn by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from PIL import Image

from reconstruct.analysis.pooling_bounds import Regions
from reconstruct.images.files import to_pixels

DPI = 100
BLUE, ORANGE, GREEN, VIOLET = "#3d6cb9", "#c2542d", "#4b9b5f", "#7a5aa6"
"""Of lines and bars, in all figures."""
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


def comparison(original: Panel | None, rows: Sequence[Sequence[Panel]]) -> Image.Image:
    """The original, if there is one, beside its reconstructions, a row a method: Figure 5 of Shang et al. 2016."""
    if original is None:
        return panels(rows)
    return panels([[None if down else original, *row] for down, row in enumerate(rows)])


def panels(rows: Sequence[Sequence[Panel | None]]) -> Image.Image:
    """Rows of pictures of one size with their captions; None leaves a place free.

    Without an original, where nobody has it, the reconstructions alone, in one column fewer. Every picture is drawn
    pixel for pixel, or magnified by a whole factor where it is small.
    """
    height, width = next(panel.image.shape[1:] for row in rows for panel in row if panel is not None)
    scale = max(1, -(-NARROWEST_PIXELS // width))
    cell_width, cell_height = width * scale + GAP_PIXELS, height * scale + CAPTION_PIXELS + GAP_PIXELS
    columns = max(len(row) for row in rows)
    full_width, full_height = columns * cell_width + GAP_PIXELS, len(rows) * cell_height + GAP_PIXELS
    figure = Figure(figsize=(full_width / DPI, full_height / DPI), dpi=DPI, facecolor="white")
    for down, row in enumerate(rows):
        for right, panel in enumerate(row):
            if panel is None:
                continue
            left, top = right * cell_width + GAP_PIXELS, down * cell_height + GAP_PIXELS
            pixels = to_pixels(panel.image).repeat(scale, axis=0).repeat(scale, axis=1)
            figure.figimage(pixels, left, full_height - top - height * scale, origin="upper")
            centre = (left + width * scale / 2) / full_width
            caption_top = 1 - (top + height * scale + 4) / full_height
            caption_low = caption_top - 18 / full_height
            figure.text(centre, caption_top, panel.title, ha="center", va="top", fontsize=9, weight="bold")
            detail = _fitting(panel.detail, width * scale)
            figure.text(centre, caption_low, detail, ha="center", va="top", fontsize=8.5, color="#333333")
    return drawn(figure)


def _fitting(text: str, pixels: int) -> str:
    """A caption as it fits below a picture: the middle of a longer one is left out."""
    most = max(8, pixels // 6)
    return text if len(text) <= most else f"{text[: most // 2 - 1]}...{text[2 - most + most // 2 :]}"


def training_curves(logs: Mapping[str, Sequence[Mapping[str, str]]], agreement: bool) -> Image.Image:
    """Loss and held-out error of training runs, by name, from the rows of their ``log.csv``.

    ``agreement``: the runs learned from a teacher, so the error is disagreement and its complement is drawn.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    losses, errors = figure.subplots(1, 2)
    for number, (name, rows) in enumerate(logs.items()):
        colour = f"C{number}"
        held = [row for row in rows if row["validation_loss"]]
        losses.plot([int(row["step"]) for row in rows], [float(row["loss"]) for row in rows], color=colour, alpha=0.45)
        steps = [int(row["step"]) for row in held]
        losses.plot(
            steps, [float(row["validation_loss"]) for row in held], "o-", color=colour, markersize=3, label=name
        )
        found = [float(row["validation_error"]) for row in held]
        errors.plot(
            steps, [100 * (1 - error if agreement else error) for error in found], "o-", color=colour, markersize=3
        )
    losses.set(xlabel="step", ylabel="KL divergence from the teacher" if agreement else "loss")
    losses.set_title("line: training, dots: held out", fontsize=9)
    errors.set(xlabel="step", ylabel="held-out agreement with the teacher, %" if agreement else "held-out error, %")
    for axes in (losses, errors):
        axes.grid(alpha=0.3)
    losses.legend(frameon=False, fontsize=8)
    return drawn(figure)


def pooling_bounds(trained: Regions, random: Regions, original: Panel, rebuilt: Sequence[Panel]) -> Image.Image:
    """One image's pooling regions as charts, above it and what was rebuilt of it.

    Every region's error against its bounds (none may lie above the diagonal), where in the image the error is, and the
    reconstruction ratios, of the network's filters and of random ones.
    """
    pictures = comparison(original, [rebuilt])
    figure = Figure(figsize=(max(pictures.width, 1100) / DPI, 3.6), dpi=DPI, layout="constrained")
    scatter, where, ratios = figure.subplots(1, 3, width_ratios=(1.1, 0.9, 1.2))
    sets = (("the model's filters", trained, ORANGE), ("random filters", random, BLUE))
    for name, regions, colour in sets:
        error = regions.relative_error.flatten().tolist()
        for bound, marker, what in ((regions.bound_measured, ".", "measured"), (regions.bound_model, "x", "model")):
            scatter.scatter(
                bound.flatten().tolist(), error, s=14, marker=marker, color=colour, alpha=0.35, linewidths=0.8,
                label=f"{name}, bound_{what}",
            )  # fmt: skip
        values = regions.reconstruction_ratio
        ratios.hist(
            values[~values.isnan()].tolist(), bins=[0.02 * k for k in range(52)], color=colour, alpha=0.6,
            label=f"{name}: mean {float(values.nanmean()):.2f}",
        )  # fmt: skip
    scatter.plot([0, 1], [0, 1], color="black", linewidth=1)
    scatter.set(xlabel="bound", ylabel="relative error", xlim=(0, 1.02), ylim=(0, 1.02))
    scatter.set_title(f"a point a region: {trained.violations + random.violations} above a bound", fontsize=9)
    scatter.legend(fontsize=6, loc="upper left")
    shown = where.imshow(trained.relative_error[0].cpu().numpy(), vmin=0, vmax=1, cmap="magma")
    figure.colorbar(shown, ax=where, shrink=0.85)
    where.set_title("relative error of each region", fontsize=9)
    where.set_axis_off()
    ratios.set(xlabel="reconstruction ratio |x'| / |x|", ylabel="regions")
    ratios.legend(fontsize=7)
    charts = drawn(figure).convert("RGB")
    page = Image.new("RGB", (max(charts.width, pictures.width), charts.height + pictures.height), "white")
    page.paste(charts, (0, 0))
    page.paste(pictures, (0, charts.height))
    return page


def drawn(figure: Figure) -> Image.Image:
    """The picture of a figure, at its own resolution."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi="figure")
    return Image.open(buffer)
