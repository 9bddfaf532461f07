"""The figure of outgoing weights' correlation, after Table 6 of Shang et al. 2016."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy
from matplotlib.figure import Figure
from PIL import Image

from reconstruct.analysis.crelu.correlation import Correlation
from reconstruct.report.figures.style import BLUE, DPI, ORANGE, drawn, label


def correlation_figure(found: Mapping[str, Sequence[Correlation]]) -> Image.Image:
    """Table 6 as bars: absolute cosines of outgoing weights, of pairs beside others and chance, one panel a model.

    Parameters
    ----------
    found : each model's layers, by its name; at least one.
    """
    widest = max(len(layers) for layers in found.values())
    figure = Figure(figsize=(max(5, 0.9 * widest + 1.2), 2.7 * len(found) + 0.2), dpi=DPI, layout="constrained")
    panels = figure.subplots(len(found), 1, sharey=True, squeeze=False)[:, 0]
    for axes, (model, layers) in zip(panels, found.items(), strict=True):
        at = numpy.arange(len(layers))
        sets = (
            (-0.2, BLUE, "pair", [each.pair_mean for each in layers], [each.pair_std for each in layers]),
            (0.2, ORANGE, "non-pair", [each.non_pair_mean for each in layers], [each.non_pair_std for each in layers]),
        )
        for shift, colour, name, means, spread in sets:
            # An absolute cosine is not below 0: nor is the bar of its deviation.
            low = numpy.minimum(means, spread)
            axes.bar(at + shift, means, 0.38, color=colour, yerr=(low, spread), ecolor="#444444", capsize=2, label=name)
        for x, each in zip(at, layers, strict=True):
            once = "chance" if x == 0 else None
            axes.plot((x - 0.42, x + 0.42), (each.chance, each.chance), color="black", linewidth=1, label=once)
        axes.set_xticks(at, [f"{label(each.layer)}\n{each.activation}" for each in layers], fontsize=7)
        axes.set_ylabel(f"{label(model)}\n|cosine| of outgoing weights", fontsize=8)
        axes.tick_params(axis="y", labelsize=7)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7, ncols=3)
    panels[0].set_title(
        "pair: the two phases of a response under CReLU, a filter and its pairing filter else", fontsize=8
    )
    return drawn(figure)
