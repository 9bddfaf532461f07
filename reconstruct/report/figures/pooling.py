"""The figure of ``reconstruct bounds``: an image's pooling regions as charts, and what was rebuilt of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure
from PIL import Image

from reconstruct.analysis.pooling_bounds import Regions
from reconstruct.report.figures.panels import Panel, comparison
from reconstruct.report.figures.style import BLUE, DPI, ORANGE, drawn

TITLES = {
    "switches": "maxima and where they were",
    "intervals": "bounds on each response",
    "both": "maxima, places and bounds",
    "centres": "maxima put at the centres",
    "map": "maxima alone, by map",
}
"""What is known where an image is rebuilt, by the names of ``inversion.pooled.KNOWN``."""


def pooling_bounds(trained: Regions, random: Regions, original: Panel, rebuilt: Sequence[Panel]) -> Image.Image:
    """One image's pooling regions as charts, above it and what was rebuilt of it.

    Every region's error against its bounds (none may lie above the diagonal), where in the image the error is, and the
    reconstruction ratios, of the network's filters and of random ones. The titles of ``rebuilt`` are names of
    ``inversion.pooled.KNOWN`` or ``map``, and drawn in words.
    """
    pictures = comparison(original, [[replace(each, title=TITLES.get(each.title, each.title)) for each in rebuilt]])
    figure = Figure(figsize=(max(pictures.width, 1200) / DPI, 4.0), dpi=DPI, layout="constrained")
    scatter, where, ratios = figure.subplots(1, 3, width_ratios=(1.1, 0.9, 1.2))
    sets = (("the model's filters", trained, ORANGE), ("random filters", random, BLUE))
    for name, regions, colour in sets:
        error = regions.relative_error.flatten().tolist()
        kinds = ((regions.bound_measured, ".", "the maxima"), (regions.bound_model, "x", "singular values"))
        for bound, marker, what in kinds:
            scatter.scatter(
                bound.flatten().tolist(), error, s=14, marker=marker, color=colour, alpha=0.35, linewidths=0.8,
                label=f"{name}, bound from {what}",
            )  # fmt: skip
        values = regions.reconstruction_ratio
        ratios.hist(
            values[~values.isnan()].tolist(), bins=[0.02 * k for k in range(52)], color=colour, alpha=0.6,
            label=f"{name}: mean {float(values.nanmean()):.2f}",
        )  # fmt: skip
    scatter.plot([0, 1], [0, 1], color="black", linewidth=1)
    scatter.set(xlabel="proved bound on the error", ylabel="error |x - x'| / |x|", xlim=(0, 1.02), ylim=(0, 1.02))
    above = trained.violations + random.violations
    scatter.set_title(
        f"Error of each pooling region against its bound\n{above} of {2 * trained.relative_error.numel()} lie above",
        fontsize=9,
    )
    scatter.legend(fontsize=7, loc="upper left")
    shown = where.imshow(trained.relative_error[0].cpu().numpy(), vmin=0, vmax=1, cmap="magma")
    figure.colorbar(shown, ax=where, shrink=0.85)
    where.set_title("Where in the picture the error is,\nof the model's filters: 0 nothing is lost, 1 all", fontsize=9)
    where.set_axis_off()
    ratios.set(xlabel="|x'| / |x|", ylabel="regions")
    ratios.set_title("How much of each region is determined:\n1 all of it, 0 nothing", fontsize=9)
    ratios.legend(fontsize=7, loc="upper left")
    for axes in (scatter, ratios):
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)
    charts = drawn(figure).convert("RGB")
    heading = Figure(figsize=(max(charts.width, pictures.width) / DPI, 0.3), dpi=DPI, facecolor="white")
    heading.text(0.01, 0.3, "The picture, rebuilt from what is known of the pooled features:", fontsize=9)
    told = drawn(heading).convert("RGB")
    height = charts.height + told.height
    page = Image.new("RGB", (max(charts.width, pictures.width), height + pictures.height), "white")
    for part, top in ((charts, 0), (told, charts.height), (pictures, height)):
        page.paste(part, (0, top))
    return page
