"""Spectra inside the trained pulse network: of every layer over many waves, and of two layers over a single one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reconstruct.analysis.spectrum.amplitude import Spectrum, amplitude_spectrum
from reconstruct.analysis.spectrum.layer_spectra_1d import LayerSpectra, layer_spectra_1d
from reconstruct.analysis.spectrum.pulse import RATE, TrainedPulse, pulse_waves

WAVES = 64
SHOWN = ("block1_relu3", "block2_relu3")
"""The activations whose spectra over a single wave are taken."""


@dataclass(frozen=True)
class PulseSpectra:
    """Spectra inside a trained pulse network, of waves that it was neither trained nor measured on.

    Attributes
    ----------
    layers : every activation's spectra, over all waves.
    wave : the spectrum of the first wave itself, F amplitudes.
    heart_rate : the first wave's, beats a minute.
    behind : the spectra of a few activations, over the first wave alone.
    """

    layers: list[LayerSpectra]
    wave: Spectrum
    heart_rate: float
    behind: list[LayerSpectra]


def pulse_spectra(trained: TrainedPulse, seed: int = 0, shown: Sequence[str] = SHOWN) -> PulseSpectra:
    """Spectra of fresh waves inside the network.

    Parameters
    ----------
    seed : as given to ``train_pulse``, so that the waves are none of those that the network has seen.
    shown : names of the activations in ``behind``.

    Raises
    ------
    CallError : an unknown name in ``shown``.
    """
    fresh = pulse_waves(WAVES, seed + 3)
    first = fresh.waves[:1]
    return PulseSpectra(
        layers=layer_spectra_1d(trained.module, fresh.waves, rate=RATE),
        wave=amplitude_spectrum(first[0, 0], RATE),
        heart_rate=float(fresh.heart_rates[0]),
        behind=layer_spectra_1d(trained.module, first, shown, rate=RATE),
    )
