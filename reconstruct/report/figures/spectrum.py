"""Figures of what ReLU does to spectra, after Kechris et al. 2024."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from reconstruct.analysis.spectrum.amplitude import Spectrum, amplitude_spectrum
from reconstruct.analysis.spectrum.dc_features import FREQUENCIES, RATE, DcFeatures, response
from reconstruct.analysis.spectrum.dc_training import DcTraining, mean_and_deviation
from reconstruct.analysis.spectrum.layer_spectra_1d import LayerSpectra
from reconstruct.analysis.spectrum.layer_spectra_2d import SIGNALS, ImageSpectra
from reconstruct.analysis.spectrum.series import SeriesErrors, approximate_relu, coefficients, predicted_spectrum
from reconstruct.analysis.spectrum.tones import Tones
from reconstruct.report.figures.style import BLUE, DPI, GREEN, ORANGE, VIOLET, drawn

GREY = "#777777"
COLOURS = (BLUE, ORANGE, GREEN)


def series_figure(errors: SeriesErrors, terms: int = 200) -> Image.Image:
    """The series' coefficients and their asymptote, and errors against the number of terms with the closed form."""
    figure = _figure(11, 4)
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
    _finish(left, right)
    return drawn(figure)


def example_figure(tones: Tones, terms: int = 50, highest: float = 150.0) -> Image.Image:
    """A stretch of the signal, ReLU and the series (Figure 1); below, their spectra up to ``highest`` Hz."""
    figure = _figure(12, 7)
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
    _finish(whole, detail, *rows)
    for axes in (detail, *rows):
        _without_legend(axes)
    return drawn(figure)


def network_figure(spectra: Mapping[str, Spectrum], highest: float = 256.0) -> Image.Image:
    """Spectra of the input and of what the example networks give (Figure 2), each by its own largest line.

    Lines below a hundredth of that are left out. The weak ones between the multiples of the tones' common frequency are
    aliases: harmonics above half of the rate, folded back, which differences raise as they raise all high frequencies.
    """
    figure = _figure(11, 6.4)
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
    _finish(*rows)
    return drawn(figure)


def dc_figure(found: DcFeatures, number: int = 0) -> Image.Image:
    """One filter's DC features by class and its response (Figure 5), and how well every filter separates."""
    figure = _figure(12.5, 3.9)
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
    _finish(scatter, filters, every)
    return drawn(figure)


def training_figure(runs: Sequence[DcTraining]) -> Image.Image:
    """Loss, accuracy and distances from the start (Figure 4): lines means over seeds, bands one standard deviation."""
    names = {"relu": "ReLU", "linear": "linear", "linear_dc": "linear, DC given by hand"}
    figure = _figure(11.5, 7)
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
    _finish(*panels.flat)
    return drawn(figure)


def pulse_figure(layer: LayerSpectra, wave: Spectrum, heart_rate: float, channels: int = 16) -> Image.Image:
    """One wave's spectra behind a ReLU, a panel a channel (Figure 3), over the wave's own and its heart rate.

    Each curve is scaled by its own largest value.

    Parameters
    ----------
    layer : of a run of that one wave (its first is drawn).
    wave : the wave's spectrum, F amplitudes.
    heart_rate : beats a minute.
    channels : how many are drawn, at most.
    """
    count = min(channels, layer.after.amplitudes.shape[1])
    columns = min(4, count)
    lines = -(-count // columns)
    figure = _figure(12, 1.9 * lines + 0.7)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    highest = min(60 * float(layer.after.frequencies[-1]), 4.5 * heart_rate)
    shown = wave.amplitudes / wave.amplitudes.max()
    handles = []
    for number, axes in enumerate(panels.flat):
        if number >= count:
            axes.set_axis_off()
            continue
        after = layer.after.amplitudes[0, number]
        top = float(after.max())
        axes.axvline(heart_rate, color=GREEN, linewidth=1.2, label="true heart rate")
        axes.plot(60 * wave.frequencies, shown, "--", color=GREY, linewidth=1, label="input wave")
        axes.plot(60 * layer.after.frequencies, after / (top or 1), color=BLUE, linewidth=1.3, label="after ReLU")
        axes.plot(0, float(after[0]) / (top or 1), "o", color=ORANGE, markersize=5, clip_on=False, label="its DC")
        axes.set_title(f"channel {number}" + ("" if top else ": silent"), fontsize=8)
        axes.set(xlim=(0, highest), ylim=(0, 1.05))
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8)
        handles = axes.get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    figure.supxlabel("frequency, beats a minute", fontsize=9)
    figure.supylabel("amplitude / largest", fontsize=9)
    return drawn(figure)


def spectra_figure(layers: Sequence[LayerSpectra], unit: str = "Hz") -> Image.Image:
    """Spectra before and after each activation of a 1-D module, root mean square over its channels and signals.

    Parameters
    ----------
    layers : at least one.
    unit : of the frequencies; Hz, or cycles per sample of the input where the rate was 1.
    """
    columns = min(3, len(layers))
    lines = -(-len(layers) // columns)
    figure = _figure(4.1 * max(columns, 2), 2.5 * lines + 0.5)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes in list(panels.flat)[len(layers) :]:
        axes.set_axis_off()
    handles = []
    for axes, layer in zip(panels.flat, layers, strict=False):
        curves = [
            (what, spectrum.frequencies, spectrum.amplitudes.square().mean((0, 1)).sqrt(), colour)
            for what, spectrum, colour in (("before", layer.before, GREY), ("after", layer.after, BLUE))
        ]
        top = max(float(values.max()) for *_, values, _ in curves)
        for what, frequencies, values, colour in curves:
            axes.semilogy(frequencies, values, color=colour, linewidth=1.2, label=what)
            axes.semilogy(
                0, float(values[0]), "o", color=colour, markersize=5, markerfacecolor="none", label=f"DC {what}"
            )
        # The mean of signals without a DC is rounding: no axis reaches down to it.
        low = min(float(values[values > 1e-4 * top].min()) if top else 0.1 for *_, values, _ in curves)
        axes.set(ylim=(0.5 * low, 2 * (top or 1)))
        axes.set_xlabel(f"frequency, {unit}", fontsize=9)
        axes.set_title(f"{layer.name or 'the module'} (rate {layer.rate:g})", fontsize=9)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8)
        handles = axes.get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    figure.supylabel("amplitude, RMS over channels", fontsize=9)
    return drawn(figure)


def image_spectra_figure(layers: Sequence[ImageSpectra], model: str = "") -> Image.Image:
    """A layer a row: radially averaged power spectra of z and of what activations make of it, and their DC shares."""
    names = {
        "responses": "responses z",
        "relu": "ReLU = CReLU's positive phase",
        "negative": "CReLU's negative phase",
        "sum": "sum of the phases = |z| (AVR)",
        "difference": "difference of the phases = z",
    }
    colours = dict(zip(SIGNALS, ("black", BLUE, VIOLET, ORANGE, GREEN), strict=True))
    figure = _figure(11.5, 2.6 * len(layers) + 0.8)
    panels = figure.subplots(len(layers), 2, width_ratios=(1.6, 1), squeeze=False)
    for (curves, bars), layer in zip(panels, layers, strict=True):
        for name in SIGNALS:
            style = {"linestyle": (0, (4, 3)), "linewidth": 2.4} if name == "difference" else {"linewidth": 1.3}
            marker = "o" if len(layer.frequencies) < 10 else ""
            curves.semilogy(
                layer.frequencies, layer.radial(name), color=colours[name], label=names[name], marker=marker,
                markersize=3, **style,
            )  # fmt: skip
        curves.set(xlim=(0, 0.51), ylabel="power / z's whole power")
        curves.set_title(f"{layer.layer}: mean power of a frequency, without the DC", fontsize=9)
        shares = [100 * layer.dc_share(name) for name in SIGNALS]
        places = range(len(SIGNALS))
        bars.barh(places, shares, color=[colours[name] for name in SIGNALS], height=0.7)
        for place, share in zip(places, shares, strict=True):
            bars.text(share + 1, place, f"{share:.1f} %", va="center", fontsize=8)
        bars.set_yticks(places, ["z", "ReLU", "negative", "sum", "difference"])
        bars.invert_yaxis()
        bars.set(xlim=(0, 112))
        bars.set_title(f"{layer.layer}: DC share of each one's own power", fontsize=9)
        for axes in (curves, bars):
            axes.grid(alpha=0.3)
            axes.tick_params(labelsize=8)
            axes.set_axisbelow(True)
            axes.yaxis.label.set_fontsize(9)
    panels[-1][0].set_xlabel("spatial frequency, cycles per sample of the layer's grid", fontsize=9)
    panels[-1][1].set_xlabel("DC share, %", fontsize=9)
    handles = panels[0][0].get_legend_handles_labels()[0]
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=3,
        fontsize=9,
        frameon=False,
        title=model or None,
        handlelength=3.2,
    )
    return drawn(figure)


def _figure(width: float, height: float) -> Figure:
    """An empty figure of this width and height in inches."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def _lines(axes: Axes, spectrum: Spectrum, colour: str, highest: float, lowest: float) -> None:
    """Draw the lines of a spectrum above ``lowest``, on a logarithmic axis, with the DC as a ring."""
    kept = (spectrum.frequencies <= highest) & (spectrum.amplitudes >= lowest)
    frequencies, values = spectrum.frequencies[kept], spectrum.amplitudes[kept]
    axes.vlines(frequencies, lowest, values, color=colour, linewidth=1.6)
    axes.plot(frequencies, values, "o", color=colour, markersize=2.5)
    if float(spectrum.dc) >= lowest:
        axes.plot(0, float(spectrum.dc), "o", color=ORANGE, markersize=8, markerfacecolor="none", markeredgewidth=1.6)
    axes.set(yscale="log", ylim=(lowest, 2))


def _finish(*panels: Axes) -> None:
    """Give panels one size of print, a grid, and a legend where something is labelled."""
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, frameon=False)


def _without_legend(axes: Axes) -> None:
    if (legend := axes.get_legend()) is not None:
        legend.remove()
