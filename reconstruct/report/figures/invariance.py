"""The figure of invariance scores, as Figure 4 of Shang et al. 2016: models side by side, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator
from PIL import Image

from reconstruct.analysis.crelu.invariance.scores import LayerInvariance
from reconstruct.errors import CallError
from reconstruct.report.figures.style import BLUE, GREEN, ORANGE, VIOLET, drawn, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (BLUE, ORANGE, GREEN, VIOLET, "#555555")
STYLES: tuple[tuple[Literal["-", "--", ":", "-."], str], ...] = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))
"""Line and marker of each layer whose rates are drawn."""

UNCHANGED = {"translation": 0.0, "rotation": 0.0, "scale": 1.0}
"""The magnitude at which nothing happens, and all that fired fires on."""

WHAT = {
    "translation": "radius of the translation, pixels",
    "rotation": "angle of the rotation, degrees",
    "scale": "factor of the scale",
}


def invariance_figure(
    found: Mapping[str, Sequence[LayerInvariance]], layers: Sequence[str] | None = None
) -> Image.Image:
    """Scores by layer, one panel a kind of transformation and one for their mean; below, L against the magnitude.

    Parameters
    ----------
    found : results by model, each with its layers in order, of the same kinds of transformation; at most five models.
    layers : whose rates are drawn below, at most four; default the first, the middle and the last that all models have.

    Raises
    ------
    CallError : nothing to draw, kinds that differ, more models or layers than can be told apart, an unknown layer.
    """
    names, kinds, shown = _layout(found, layers)
    curves = [kind for kind in kinds if kind in UNCHANGED]
    figure = Figure(figsize=(13, 7.4 if curves else 4.2), layout="constrained")
    above, *below = figure.subfigures(
        2 if curves else 1, 1, squeeze=False, height_ratios=(1.05, 1)[: 1 + bool(curves)]
    )[:, 0]
    panels = above.subplots(1, len(kinds) + 1, sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, (*kinds, None), strict=True):
        _draw_scores(axes, found, names, kind)
    panels[0].set_ylabel("score L / G (1: firing at random)", fontsize=9)
    panels[0].set_ylim(bottom=0)  # of all panels, and only once all of them are drawn
    models = [
        Line2D([], [], color=COLOURS[n], marker="o", markersize=4, label=label(name)) for n, name in enumerate(found)
    ]
    halves = "the best units of half of the images, on the other half"
    chosen = [
        Line2D([], [], color="#777777", label="the best units"),
        Line2D([], [], color="#777777", linestyle="--", linewidth=1, label=halves),
    ]
    above.legend(
        handles=[*models, *chosen], loc="outside upper center", ncols=len(models) + 2, frameon=False, fontsize=9
    )
    if curves:
        panels = below[0].subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, curves, strict=True):
            _draw_rates(axes, found, shown, kind)
        panels[0].set_ylabel("L, share of firing units that fire on", fontsize=9)
        panels[0].set_ylim(0, 1.04)
        # Thick and without markers, lest they look like the lines of one layer.
        models = [Line2D([], [], color=COLOURS[n], linewidth=4, label=label(name)) for n, name in enumerate(found)]
        styles = [
            Line2D([], [], color="#777777", linestyle=line, marker=marker, markersize=4, label=label(layer))
            for (line, marker), layer in zip(STYLES, shown, strict=False)
        ]
        below[0].legend(
            handles=[*models, *styles], loc="outside upper center", ncols=len(models) + len(shown), frameon=False,
            fontsize=9,
        )  # fmt: skip
    return drawn(figure)


def _layout(
    found: Mapping[str, Sequence[LayerInvariance]], layers: Sequence[str] | None
) -> tuple[list[str], list[str], list[str]]:
    """All layers, in the order of the model that has most; the kinds of transformation; the layers drawn below."""
    if not found or not all(found.values()):
        raise CallError("no invariance scores: nothing to draw")
    kinds = {tuple(each.scores) for results in found.values() for each in results}
    if len(kinds) > 1:
        raise CallError("the scores are of different kinds of transformation: measure them with the same ones")
    names = [each.layer for each in max(found.values(), key=len)]
    names += dict.fromkeys(each.layer for results in found.values() for each in results if each.layer not in names)
    common = [name for name in names if all(name in [each.layer for each in results] for results in found.values())]
    if layers is None:
        layers = list(dict.fromkeys(common[k] for k in (0, len(common) // 2, -1))) if common else []
    if missing := [name for name in layers if name not in common]:
        raise CallError(f"not every model has scores of {missing[0]}; all have {', '.join(common)}")
    if len(found) > len(COLOURS) or len(layers) > len(STYLES):
        raise CallError(
            f"at most {len(COLOURS)} models and {len(STYLES)} layers of rates can be told apart in a figure"
        )
    return names, list(kinds.pop()), list(layers)


def _draw_scores(
    axes: Axes, found: Mapping[str, Sequence[LayerInvariance]], names: Sequence[str], kind: str | None
) -> None:
    """One panel: the scores of every model under a kind of transformation, or their means over kinds."""
    for colour, results in zip(COLOURS, found.values(), strict=False):
        scores = [each if kind is None else each.scores[kind] for each in results]
        places = [names.index(each.layer) for each in results]
        axes.plot(places, [score.best for score in scores], "o-", color=colour, markersize=4, linewidth=1.6)
        axes.plot(places, [score.held_out for score in scores], "--", color=colour, linewidth=1)
    axes.set_title(kind or "mean of the kinds", fontsize=9, weight="normal" if kind else "bold")
    axes.set_xticks(range(len(names)), map(label, names), rotation=90, fontsize=8)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(alpha=0.3)


def _draw_rates(axes: Axes, found: Mapping[str, Sequence[LayerInvariance]], layers: Sequence[str], kind: str) -> None:
    """One panel: L of every model and chosen layer against the magnitude, and 1 where nothing is transformed."""
    sizes: set[float] = set()
    for colour, results in zip(COLOURS, found.values(), strict=False):
        for (line, marker), layer in zip(STYLES, layers, strict=False):
            (curve,) = (each.curve[kind] for each in results if each.layer == layer)
            points = sorted(({UNCHANGED[kind]: 1.0} | curve).items())
            known = [(size, rate) for size, rate in points if not math.isnan(rate)]
            sizes |= set(curve)
            axes.plot(
                [size for size, _ in known], [rate for _, rate in known], line, color=colour, marker=marker,
                markersize=4, linewidth=1.2,
            )  # fmt: skip
    if kind == "scale":
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted({UNCHANGED[kind], *sizes})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda size, _: f"{size:.3g}".replace("-", "\N{MINUS SIGN}"))
    axes.set_xlabel(WHAT[kind], fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
