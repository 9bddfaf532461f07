"""Sums of cosines, from which series and spectra are computed without sampling anything."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch

from reconstruct.errors import CallError

HIGHEST_ORDER = 4096
"""How often the common frequency of tones may go into the highest of them, at most: the predicted spectrum has twice
that many lines a term."""


@dataclass(frozen=True)
class Tones:
    """A sum of cosines, sampled over a whole number of periods of each.

    Attributes
    ----------
    frequencies : Hz, above 0 and below half of the rate.
    amplitudes : above 0, one a frequency.
    rate : samples a second.
    seconds : of the stretch; a whole number of periods of every tone, so that the sampled stretch is one period of a
        periodic signal and has lines in its spectrum, and no leakage.
    phases : radians, one a frequency; 0 where none are given.

    Raises
    ------
    CallError : another number of amplitudes or phases than of frequencies, numbers out of range, or a stretch that is
        no whole number of samples and periods.
    """

    frequencies: tuple[float, ...]
    amplitudes: tuple[float, ...]
    rate: float
    seconds: float
    phases: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "phases", self.phases or (0.0,) * len(self.frequencies))
        counts = {len(self.frequencies), len(self.amplitudes), len(self.phases)}
        if len(counts) > 1 or not self.frequencies:
            raise CallError("tones have one amplitude and one phase a frequency, and at least one frequency")
        if min(self.amplitudes) <= 0:
            raise CallError(f"amplitudes are above 0, not {min(self.amplitudes):g}; turn a tone by its phase")
        if min(self.frequencies) <= 0 or 2 * max(self.frequencies) >= self.rate:
            raise CallError(f"frequencies lie between 0 and half of the rate, {self.rate / 2:g} Hz, both excluded")
        for number in (self.rate, *self.frequencies):
            if abs(number * self.seconds - round(number * self.seconds)) > 1e-6:
                raise CallError(f"{self.seconds:g} s hold no whole number of samples or periods at {number:g} Hz")

    @property
    def centre(self) -> float:
        """A = (sum of the amplitudes)^2 / 2, the value of x^2 that the series is taken about: x^2 is at most 2 A."""
        return sum(self.amplitudes) ** 2 / 2

    @property
    def base_frequency(self) -> Fraction:
        """The greatest common divisor of the frequencies, Hz: every line of the output is a multiple of it.

        Raises
        ------
        CallError : the highest frequency is more than ``HIGHEST_ORDER`` times that.
        """
        parts = [Fraction(frequency).limit_denominator(10**6) for frequency in self.frequencies]
        base = Fraction(math.gcd(*(each.numerator for each in parts)), math.lcm(*(each.denominator for each in parts)))
        if max(parts) / base > HIGHEST_ORDER:
            raise CallError(
                f"the frequencies have only {float(base):g} Hz in common, "
                f"less than 1/{HIGHEST_ORDER} of the highest; round them"
            )
        return base

    def signal(self) -> torch.Tensor:
        """The sampled signal at t = k / rate: T, float64."""
        time = torch.arange(round(self.rate * self.seconds), dtype=torch.float64) / self.rate
        tones = zip(self.frequencies, self.amplitudes, self.phases, strict=True)
        return torch.stack([a * torch.cos(2 * math.pi * f * time + p) for f, a, p in tones]).sum(0)


def example() -> Tones:
    """The paper's signal (Kechris et al. 2024, section V-A): 5, 10, 20 and 40 Hz, amplitude 1 each, 8 s at 1,024 Hz.

    The paper's own code samples both ends (8,192 points from 0 to 8 s inclusive); this is one whole period.
    """
    return Tones((5.0, 10.0, 20.0, 40.0), (1.0, 1.0, 1.0, 1.0), 1024.0, 8.0)
