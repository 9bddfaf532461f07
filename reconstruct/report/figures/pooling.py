"""The figure of ``reconstruct bounds``: an image's pooling regions as charts, and what was rebuilt of it."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from PIL import Image

from reconstruct.analysis.pooling_bounds import Regions
from reconstruct.report.figures.panels import Panel, comparison
from reconstruct.report.figures.style import BLUE, DPI, ORANGE, drawn


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
