"""Figures of the analyses of correlation, complexity and rectification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator
from PIL import Image

from reconstruct.analysis.crelu.complexity import Estimate, LayerComplexity
from reconstruct.analysis.crelu.correlation import Correlation
from reconstruct.analysis.crelu.rectify import Rectified
from reconstruct.images.files import to_pixels
from reconstruct.report.figures import BLUE, DPI, GREEN, ORANGE, drawn
from reconstruct.report.filter_figures import DIVERGING, filter_picture, strongest_channels

GREY = "#888888"


def correlation_figure(found: Mapping[str, Sequence[Correlation]]) -> Image.Image:
    """Table 6 as bars: absolute cosine of outgoing weights, pairs beside others and chance, one panel a model."""
    widest = max(len(layers) for layers in found.values())
    figure = Figure(figsize=(max(5, 0.9 * widest + 1.2), 2.7 * len(found) + 0.2), dpi=DPI, layout="constrained")
    panels = figure.subplots(len(found), 1, sharey=True, squeeze=False)[:, 0]
    for axes, (model, layers) in zip(panels, found.items(), strict=True):
        at = numpy.arange(len(layers))
        sets = (
            (-0.2, BLUE, "pair", [float(each.pair.abs().mean()) for each in layers],
             [float(each.pair.abs().std(correction=0)) for each in layers]),
            (0.2, ORANGE, "non-pair", [each.non_pair_mean for each in layers], [each.non_pair_std for each in layers]),
        )  # fmt: skip
        for shift, colour, name, means, spread in sets:
            # An absolute cosine is not below 0: nor is the bar of its deviation.
            low = numpy.minimum(means, spread)
            axes.bar(at + shift, means, 0.38, color=colour, yerr=(low, spread), ecolor="#444444", capsize=2, label=name)
        for x, each in zip(at, layers, strict=True):
            label = "chance" if x == 0 else None
            axes.plot((x - 0.42, x + 0.42), (each.chance, each.chance), color="black", linewidth=1, label=label)
        axes.set_xticks(at, [f"{each.layer}\n{each.activation}" for each in layers], fontsize=7)
        axes.set_ylabel(f"{model}\n|cosine| of outgoing weights", fontsize=8)
        axes.tick_params(axis="y", labelsize=7)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7, ncols=3)
    panels[0].set_title(
        "pair: the two phases of a response under CReLU, a filter and its pairing filter else", fontsize=8
    )
    return drawn(figure)


def complexity_figure(
    models: Mapping[str, Sequence[LayerComplexity]], estimates: Sequence[Estimate], example: Sequence[Estimate]
) -> Image.Image:
    """Parameters and neurons of each model's layers, and complexities against Theorem 4.1's bound.

    Parameters
    ----------
    models : at least one.
    estimates : on samples of growing size, each of ReLU, CReLU and AVR.
    example : on the two points where the bound does not hold.
    """
    figure = Figure(figsize=(12, 3.6), dpi=DPI, layout="constrained")
    parameters, neurons, ratios = figure.subplots(1, 3, width_ratios=(1.1, 1.1, 1))
    names = list(dict.fromkeys(each.layer for layers in models.values() for each in layers))
    width = 0.8 / len(models)
    for number, (model, layers) in enumerate(models.items()):
        at = [names.index(each.layer) + (number - (len(models) - 1) / 2) * width for each in layers]
        for axes, values, what in (
            (parameters, [each.parameters for each in layers], "parameters"),
            (neurons, [each.neurons for each in layers], "neurons"),
        ):
            axes.bar(at, values, width, color=f"C{number}", label=f"{model}: {sum(values):,} {what}")
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.set_ylabel(f"{what} of the layer", fontsize=8)
            axes.tick_params(axis="y", labelsize=7)
            axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
            # Above the bars, which are tall on a scale of logarithms.
            axes.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False)
    for activation, colour in (("relu", ORANGE), ("crelu", BLUE), ("avr", GREEN)):
        own = [each for each in estimates if each.activation == activation]
        ratios.errorbar(
            [each.points for each in own], [each.ratio for each in own], [2 * each.ratio_error for each in own],
            color=colour, marker="o", markersize=3, capsize=2, label=activation,
        )  # fmt: skip
        beyond = next(each for each in example if each.activation == activation)
        ratios.plot([beyond.points], [beyond.ratio], "*", color=colour, markersize=9)
    ratios.axhline(1, color="black", linewidth=1)
    ratios.set_xscale("log", base=2)
    ratios.set_xlabel("points of a normal sample in the plane", fontsize=8)
    ratios.set_ylabel("complexity / Theorem 4.1's bound", fontsize=8)
    ratios.tick_params(labelsize=7)
    ratios.set_title("stars: the points 1 and -1; bars: 2 standard errors", fontsize=8)
    ratios.legend(fontsize=7, loc="upper right")
    ratios.set_ylim(0.8, 1.5)
    return drawn(figure)


def rectify_figure(image: torch.Tensor, found: Sequence[Rectified], title: str) -> Image.Image:
    """Input, filter, response, and what ReLU, CReLU and AVR make of it: one row a filter.

    Parameters
    ----------
    image : 3 x H x W in [0, 1].
    found : of one layer. A row's responses share one scale, 0 being white.
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
        maps = (each.response, each.relu, each.relu, each.negative, each.avr)
        scale: dict[str, Any] = {"cmap": DIVERGING, "vmin": -largest, "vmax": largest, "interpolation": "nearest"}
        shown = [axes.imshow(values.cpu().numpy(), **scale) for axes, values in zip(axes_row[2:], maps, strict=False)]
        record = each.record()
        axes_row[2].set_xlabel(f"{record['positive_share']:.0%} positive", fontsize=7)
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
        figure.colorbar(shown[-1], ax=axes_row[6], shrink=0.8).ax.tick_params(labelsize=6.5)
    for axes, name in zip(grid[0], ("input", *columns, "histogram of z"), strict=True):
        axes.set_title(name, fontsize=8.5)
    figure.suptitle(title, fontsize=9, weight="bold")
    return drawn(figure)
