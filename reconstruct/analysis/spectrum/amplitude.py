"""One-sided amplitude spectra of signals, and what is read from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

STRONGEST = 20
"""The number of lines of a spectrum that a record tells."""


@dataclass(frozen=True)
class Spectrum:
    """One-sided amplitude spectra: a tone of amplitude a on one of the frequencies shows as a.

    Attributes
    ----------
    frequencies : F, in Hz (or cycles per sample where the rate is 1), the first 0.
    amplitudes : ... x F, of the signal's unit, at least 0; the first is the modulus of the mean, not doubled.
    """

    frequencies: torch.Tensor
    amplitudes: torch.Tensor

    @property
    def dc(self) -> torch.Tensor:
        """The modulus of the mean, of each signal."""
        return self.amplitudes[..., 0]

    def strongest(self, count: int = STRONGEST) -> list[tuple[float, float]]:
        """The DC and the strongest other lines of one signal's spectrum, without those that are rounding.

        Parameters
        ----------
        count : the number of lines beside the DC, at most.

        Returns
        -------
        Frequency and amplitude of each line, in the order of frequency.
        """
        largest = self.amplitudes[1:].topk(min(count, len(self.amplitudes) - 1))
        places = {0, *(1 + largest.indices[largest.values > 1e-9 * self.amplitudes.max()]).tolist()}
        return [(float(self.frequencies[place]), float(self.amplitudes[place])) for place in sorted(places)]

    def amplitude_at(self, frequency: float) -> float:
        """The amplitude of one signal at a frequency; 0 where its spectrum has no such line."""
        place = int((self.frequencies - frequency).abs().argmin())
        step = float(self.frequencies[1]) if len(self.frequencies) > 1 else 1.0
        near = abs(float(self.frequencies[place]) - frequency) < step / 100
        return float(self.amplitudes[place]) if near else 0.0

    def record(self) -> dict[str, Any]:
        """The DC and the strongest lines of one signal's spectrum in plain numbers, for JSON."""
        return {"dc": float(self.dc), "lines": [list(line) for line in self.strongest()]}


def amplitude_spectrum(x: torch.Tensor, rate: float) -> Spectrum:
    """The one-sided amplitude spectrum of real signals, at F = T // 2 + 1 frequencies.

    It is taken in float64, since a spectrum may span more decades than float32 holds. Neither the mean nor, for an even
    T, half of the rate is doubled: each has one coefficient only. Results are on the CPU.

    Parameters
    ----------
    x : ... x T.
    rate : samples a second.
    """
    length = x.shape[-1]
    values = torch.fft.rfft(x.detach().double()).abs() / length
    values[..., 1 : (length + 1) // 2] *= 2
    return Spectrum(torch.fft.rfftfreq(length, 1 / rate, dtype=torch.float64), values.cpu())


def dc_share(spectrum: Spectrum) -> float:
    """The DC's share of the power of all signals of a spectrum together, from 0 to 1; 0 for signals that are 0.

    A tone of amplitude a has power a^2 / 2, a mean of c has c^2 (Parseval; half of the rate, if there, is counted as a
    tone, although its one coefficient would have a^2).
    """
    squares = spectrum.amplitudes.square()
    constant = squares[..., 0].sum()
    whole = float(constant + squares[..., 1:].sum() / 2)
    return float(constant) / whole if whole else 0.0
