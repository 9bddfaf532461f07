"""The figure of what CReLU costs: parameters, neurons, and complexity beside its bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator
from PIL import Image

from reconstruct.analysis.crelu.complexity import Estimate, LayerComplexity
from reconstruct.report.figures.style import BLUE, DPI, GREEN, ORANGE, drawn, label


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
            axes.bar(at, values, width, color=f"C{number}", label=f"{label(model)}: {sum(values):,} {what}")
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.set_ylabel(f"{what} of the layer", fontsize=8)
            axes.tick_params(axis="y", labelsize=7)
            axes.set_xticks(range(len(names)), map(label, names), rotation=90, fontsize=7)
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
