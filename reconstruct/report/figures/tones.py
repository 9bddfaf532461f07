"""Figures of tones behind ReLU: the series, its spectrum, and two example networks (Kechris et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from PIL import Image

from reconstruct.analysis.spectrum.amplitude import Spectrum, amplitude_spectrum
from reconstruct.analysis.spectrum.series import SeriesErrors, approximate_relu, coefficients, predicted_spectrum
from reconstruct.analysis.spectrum.tones import Tones
from reconstruct.report.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    drawn,
    empty_figure,
    finish,
    without_legend,
)


def series_figure(errors: SeriesErrors, terms: int = 200) -> Image.Image:
    """The series' coefficients and their asymptote, and errors against the number of terms with the closed form."""
    figure = empty_figure(11, 4)
    left, right = figure.subplots(1, 2)
    sizes = coefficients(terms).abs()
    order = torch.arange(1, terms)
    left.loglog(order, sizes[1:], "o", color=BLUE, markersize=3, label=r"$|a_n| = |\mathrm{binom}(1/2, n)|$")
    left.loglog(
        order,
        order.double() ** -1.5 / (2 * math.sqrt(math.pi)),
        color=GREY,
        linewidth=1,
        label=r"$n^{-3/2} / (2 \sqrt{\pi})$",
    )
    left.set(xlabel="n", ylabel="modulus of the coefficient")
    left.set_title("Coefficients (n = 0 is 1; signs alternate from n = 1)", fontsize=9)
    right.loglog(errors.terms, errors.dc, "o-", color=BLUE, markersize=3, label="DC: relative error")
    right.loglog(errors.terms, errors.rms, "s-", color=GREEN, markersize=3, label="RMS error / RMS of ReLU(x)")
    right.loglog(errors.terms, errors.largest, "^", color=ORANGE, markersize=5, label="largest error at a sample")
    right.loglog(errors.terms, errors.bound, color=ORANGE, linewidth=1, label="largest error, closed form")
    right.set(xlabel="number of terms N", ylabel="error (largest: in the signal's unit)")
    right.set_title("ReLU by the first N terms", fontsize=9)
    finish(left, right)
    return drawn(figure)


def example_figure(tones: Tones, terms: int = 50, highest: float = 150.0) -> Image.Image:
    """A stretch of the signal, ReLU and the series (Figure 1); below, their spectra up to ``highest`` Hz."""
    figure = empty_figure(12, 7)
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.35), squeeze=False)[:, 0]
    # Drawn from 16 times as many samples, so that lines are smooth in the enlarged part too.
    fine = replace(tones, rate=16 * tones.rate)
    x = fine.signal()
    exact, series = x.relu(), approximate_relu(x, tones.centre, terms)
    time = torch.arange(len(x)) / fine.rate
    whole, detail = above.subplots(1, 2, width_ratios=(2, 1))
    stretch = 1 / float(tones.base_frequency)
    for axes in (whole, detail):
        axes.plot(time, x, color=GREY, linewidth=0.9, label="signal x")
        axes.plot(time, exact, color=BLUE, linewidth=1.4, label="ReLU(x)")
        axes.plot(time, series, color=ORANGE, linewidth=1, linestyle="--", label=f"series, {terms} terms")
        axes.set(xlabel="time, s")
    whole.set(xlim=(0, min(stretch, float(time[-1]))), ylabel="value")
    whole.set_title("One period", fontsize=9)
    # The middle of what the detail shows: the last sample before the signal first changes its sign.
    crossing = float(time[int((x > 0).diff().nonzero()[0, 0])])
    width = 0.1 / max(tones.frequencies)
    tall = 0.06 * sum(tones.amplitudes)
    detail.set(xlim=(crossing - width, crossing + width), ylim=(-tall, 2 * tall))
    detail.set_title("Near 0, enlarged: the error is largest there", fontsize=9)
    detail.xaxis.set_major_locator(MaxNLocator(4))
    spectra = (
        ("signal x", amplitude_spectrum(tones.signal(), tones.rate), GREY),
        ("ReLU(x), from the samples", amplitude_spectrum(tones.signal().relu(), tones.rate), BLUE),
        (f"{terms} terms, predicted from the tones alone", predicted_spectrum(tones, terms), ORANGE),
    )
    rows = below.subplots(3, 1, sharex=True, sharey=True)
    for axes, (name, spectrum, colour) in zip(rows, spectra, strict=True):
        _lines(axes, spectrum, colour, highest, lowest=1e-3)
        axes.set_title(name, fontsize=9, loc="left")
        axes.set(ylabel="amplitude")
    rows[-1].set(xlabel="frequency, Hz (ring: the DC)", xlim=(-0.012 * highest, 1.012 * highest))
    finish(whole, detail, *rows)
    for axes in (detail, *rows):
        without_legend(axes)
    return drawn(figure)


def network_figure(spectra: Mapping[str, Spectrum], highest: float = 256.0) -> Image.Image:
    """Spectra of the input and of what the example networks give (Figure 2), each by its own largest line.

    Lines below a hundredth of that are left out. The weak ones between the multiples of the tones' common frequency are
    aliases: harmonics above half of the rate, folded back, which differences raise as they raise all high frequencies.
    """
    figure = empty_figure(11, 6.4)
    rows = figure.subplots(len(spectra), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (name, spectrum), colour in zip(rows, spectra.items(), (GREY, ORANGE, BLUE), strict=False):
        top = spectrum.amplitudes.max()
        _lines(axes, Spectrum(spectrum.frequencies, spectrum.amplitudes / top), colour, highest, lowest=1e-2)
        dc = f"{float(spectrum.dc):.3g}" if spectrum.dc > 1e-9 * top else "0"
        axes.set_title(f"{name}: largest line {float(top):.3g}, DC {dc}", fontsize=9, loc="left")
        axes.set(ylabel="amplitude / largest")
    rows[-1].set(
        xlabel="frequency, Hz (ring: the DC; weak lines between harmonics: aliases)",
        xlim=(-0.012 * highest, 1.012 * highest),
    )
    finish(*rows)
    return drawn(figure)


def _lines(axes: Axes, spectrum: Spectrum, colour: str, highest: float, lowest: float) -> None:
    """Draw the lines of a spectrum above ``lowest``, on a logarithmic axis, with the DC as a ring."""
    kept = (spectrum.frequencies <= highest) & (spectrum.amplitudes >= lowest)
    frequencies, values = spectrum.frequencies[kept], spectrum.amplitudes[kept]
    axes.vlines(frequencies, lowest, values, color=colour, linewidth=1.6)
    axes.plot(frequencies, values, "o", color=colour, markersize=2.5)
    if float(spectrum.dc) >= lowest:
        axes.plot(0, float(spectrum.dc), "o", color=ORANGE, markersize=8, markerfacecolor="none", markeredgewidth=1.6)
    axes.set(yscale="log", ylim=(lowest, 2))
