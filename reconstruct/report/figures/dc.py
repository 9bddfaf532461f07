"""Figures of the DC that ReLU makes: as a feature, and in training (Kechris et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image

from reconstruct.analysis.spectrum.dc_features import FREQUENCIES, RATE, DcFeatures, response
from reconstruct.analysis.spectrum.dc_training import DcTraining, mean_and_deviation
from reconstruct.report.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    drawn,
    empty_figure,
    finish,
)

COLOURS = (BLUE, ORANGE, GREEN)


def dc_figure(found: DcFeatures, number: int = 0) -> Image.Image:
    """One filter's DC features by class and its response (Figure 5), and how well every filter separates."""
    figure = empty_figure(12.5, 3.9)
    scatter, filters, every = figure.subplots(1, 3)
    taps = found.taps[number]
    grid = torch.linspace(0, RATE / 2, 321)
    gain = response(taps[None], grid, RATE)[0]
    for label, colour in zip(range(len(FREQUENCIES)), COLOURS, strict=True):
        mine = found.cosines.classes == label
        scatter.plot(
            found.cosines.frequencies[mine], found.features[number, mine], ".", color=colour, markersize=3,
            label=f"about {FREQUENCIES[label]:g} Hz",
        )  # fmt: skip
        filters.axvline(FREQUENCIES[label], color=colour, linestyle="--", linewidth=1)
    scatter.plot(grid, gain / math.pi, color="black", linewidth=0.8, label=r"$|H(f)| / \pi$")
    low, high = float(found.features[number].min()), float(found.features[number].max())
    margin = max(0.15 * (high - low), 0.01)
    scatter.set(
        xlim=(FREQUENCIES[0] - 1, FREQUENCIES[-1] + 1), ylim=(low - margin, high + margin), xlabel="frequency, Hz"
    )
    scatter.set(ylabel="DC feature, mean of ReLU")
    scatter.set_title(f"Filter {number}, taps {float(taps[0]):.2f}, {float(taps[1]):.2f}", fontsize=9)
    filters.plot(grid, 20 * gain.clamp_min(1e-6).log10(), color="black", linewidth=1.2)
    filters.set(xlabel="frequency, Hz", ylabel="response |H(f)|, dB")
    filters.set_title("Its response; dashed: the classes", fontsize=9)
    every.semilogx(found.gap, 100 * found.accuracy, "o", color=GREY, markersize=4, alpha=0.7)
    every.semilogx(found.gap[number], 100 * found.accuracy[number], "o", color=ORANGE, markersize=6)
    every.set(xlabel="smallest gap between class means, pooled deviations", ylabel="balanced accuracy, %")
    every.set(ylim=(30, 103))
    perfect = int((found.accuracy > 0.99).sum())
    every.set_title(f"{perfect} of {len(found.gap)} filters above 99 % (orange: filter {number})", fontsize=9)
    finish(scatter, filters, every)
    return drawn(figure)


def training_figure(runs: Sequence[DcTraining]) -> Image.Image:
    """Loss, accuracy and distances from the start (Figure 4): lines means over seeds, bands one standard deviation."""
    names = {"relu": "ReLU", "linear": "linear", "linear_dc": "linear, DC given by hand"}
    figure = empty_figure(11.5, 7)
    panels = figure.subplots(2, 2)
    loss, accuracy, first, second = panels.flat
    seeds = runs[0].loss.shape[1]
    for run, colour in zip(runs, COLOURS, strict=False):
        values = (run.loss, 100 * run.accuracy, run.distance1, run.distance2)
        for axes, each in zip(panels.flat, values, strict=True):
            mean, deviation = mean_and_deviation(each)
            epochs = torch.arange(1, len(mean) + 1)
            axes.plot(epochs, mean, color=colour, linewidth=1.4, label=names[run.model])
            low = mean - deviation
            # On the logarithmic axis a band that reaches 0 would reach minus infinity.
            low = torch.maximum(low, mean / 10) if axes is loss else low
            high = (mean + deviation).clamp_max(100) if axes is accuracy else mean + deviation
            axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    loss.set(yscale="log", ylabel="cross-entropy of training")
    loss.set_title(f"Loss (mean of {seeds} seeds, band: one standard deviation)", fontsize=9)
    loss.axhline(math.log(3), color=GREY, linewidth=0.8, linestyle=":", label="a guess, ln 3")
    accuracy.set(ylabel="accuracy of training, %", ylim=(20, 104))
    accuracy.axhline(100 / 3, color=GREY, linewidth=0.8, linestyle=":", label="a guess, 1/3")
    accuracy.set_title("Accuracy", fontsize=9)
    for axes, norm, which in ((first, runs[0].start1, "first"), (second, runs[0].start2, "second")):
        axes.set(ylabel="distance from the start, L2")
        axes.set_title(f"Weights of the {which} convolution", fontsize=9)
        axes.axhline(
            float(norm.mean()), color=GREY, linewidth=0.8, linestyle=":", label="norm of the weights at the start"
        )
    for axes in panels.flat:
        axes.set(xlabel="epoch", xlim=(0, len(runs[0].loss)))
    finish(*panels.flat)
    return drawn(figure)
