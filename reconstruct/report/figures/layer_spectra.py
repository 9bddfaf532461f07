"""Figures of spectra inside networks: of a 1-D module's activations, and of a layer's responses to pictures."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from reconstruct.analysis.spectrum.amplitude import Spectrum
from reconstruct.analysis.spectrum.layer_spectra_1d import LayerSpectra
from reconstruct.analysis.spectrum.layer_spectra_2d import SIGNALS, ImageSpectra
from reconstruct.report.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VIOLET,
    drawn,
    empty_figure,
    label,
)


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
    figure = empty_figure(12, 1.9 * lines + 0.7)
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
    figure = empty_figure(4.1 * max(columns, 2), 2.5 * lines + 0.5)
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
        axes.set_title(f"{label(layer.name) or 'the module'} (rate {layer.rate:g})", fontsize=9)
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
    figure = empty_figure(11.5, 2.6 * len(layers) + 0.8)
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
        curves.set_title(f"{label(layer.layer)}: mean power of a frequency, without the DC", fontsize=9)
        shares = [100 * layer.dc_share(name) for name in SIGNALS]
        places = range(len(SIGNALS))
        bars.barh(places, shares, color=[colours[name] for name in SIGNALS], height=0.7)
        for place, share in zip(places, shares, strict=True):
            bars.text(share + 1, place, f"{share:.1f} %", va="center", fontsize=8)
        bars.set_yticks(places, ["z", "ReLU", "negative", "sum", "difference"])
        bars.invert_yaxis()
        bars.set(xlim=(0, 112))
        bars.set_title(f"{label(layer.layer)}: DC share of each one's own power", fontsize=9)
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
        title=label(model) or None,
        handlelength=3.2,
    )
    return drawn(figure)
