"""ReLU's series and the spectrum it predicts, from frequencies and amplitudes alone (Kechris et al. 2024, section 2).

Kechris, Dan, Miranda, Atienza, "DC is all you need: describing ReLU from a signal processing standpoint", 2024,
arXiv:2407.16556. For a sum of tones x, A = (sum of the amplitudes)^2 / 2 and m = x^2 / A - 1, which lies in [-1, 1],

    |x| = sqrt(A) sqrt(1 + m) = sqrt(A) sum_n a_n m^n,  a_n = binom(1/2, n),  and  ReLU(x) = x / 2 + |x| / 2.

The a_n fall as n^(-3/2), so the series converges absolutely wherever |m| <= 1. Powers of x^2 hold the sums and
differences of the input frequencies: ReLU keeps the input's spectrum, halved, and adds even-order harmonics and a DC,
mean(|x|) / 2. Of CReLU the difference of the phases is x, so that the DC and every even-order term cancel, and the sum
is |x|, which is also AVR.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch

from reconstruct.errors import CallError

HIGHEST_ORDER = 4096
"""Most times that the lowest common frequency of tones may go into the highest: the predicted spectrum has twice that
many lines a term."""


@dataclass(frozen=True)
class Spectrum:
    """One-sided amplitude spectra: a tone of amplitude a on one of the frequencies shows as a.

    ``frequencies`` : F, in Hz (or cycles per sample where the rate is 1), the first 0.
    ``amplitudes`` : ... x F, of the signal's unit, at least 0; the first is the modulus of the mean, not doubled.
    """

    frequencies: torch.Tensor
    amplitudes: torch.Tensor

    @property
    def dc(self) -> torch.Tensor:
        """The modulus of the mean, of each signal."""
        return self.amplitudes[..., 0]


@dataclass(frozen=True)
class Tones:
    """A sum of cosines, sampled over a whole number of periods of each.

    ``frequencies`` : Hz, above 0 and below half of the rate. ``amplitudes`` : above 0, one a frequency.
    ``rate`` : samples a second. ``seconds`` : of the stretch; a whole number of periods of every tone, so that the
    sampled stretch is one period of a periodic signal and has lines in its spectrum, and no leakage.
    ``phases`` : radians, one a frequency; 0 where none are given.
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
    """The paper's signal (section 3.1): 5, 10, 20 and 40 Hz, amplitude 1 each, 8 s at 1,024 Hz.

    The paper's own code samples both ends (8,192 points from 0 to 8 s inclusive); this is one whole period.
    """
    return Tones((5.0, 10.0, 20.0, 40.0), (1.0, 1.0, 1.0, 1.0), 1024.0, 8.0)


def coefficients(terms: int) -> torch.Tensor:
    """a_n = binom(1/2, n) for n below ``terms``: 1, 1/2, -1/8, 1/16, -5/128 and so on; float64.

    By a_{n+1} = a_n (1/2 - n) / (n + 1): each step rounds once or twice, and nothing cancels.

    Raises
    ------
    CallError : fewer than 1 term.
    """
    if terms < 1:
        raise CallError(f"a series has at least 1 term, not {terms}")
    found = [1.0]
    for n in range(terms - 1):
        found.append(found[-1] * (0.5 - n) / (n + 1))
    return torch.tensor(found, dtype=torch.float64)


def largest_error(centre: float, terms: int) -> float:
    """The largest error over |m| <= 1 of |x|'s first ``terms`` terms, n = 0 ... N - 1; ReLU's is half of it.

    It is at x = 0, where every term left out has the same sign: sqrt(A) binom(2 (N - 1), N - 1) / 4^(N - 1), which
    approaches sqrt(A) / sqrt(pi N). ``centre`` is A.
    """
    coefficients(terms)
    return math.sqrt(centre) * (math.comb(2 * (terms - 1), terms - 1) / 4 ** (terms - 1))


def approximate_relu(x: torch.Tensor, centre: float, terms: int) -> torch.Tensor:
    """x / 2 + sqrt(A) / 2 times the first ``terms`` terms, by Horner's scheme in m; of x's shape and type.

    ``centre`` is A; where x^2 is above 2 A the series diverges.
    """
    m = x.square() / centre - 1
    total = torch.zeros_like(x)
    for coefficient in reversed(coefficients(terms).tolist()):
        total = total * m + coefficient
    return x / 2 + math.sqrt(centre) / 2 * total


def predicted_spectrum(tones: Tones, terms: int, activation: str = "relu") -> Spectrum:
    """The spectrum of the first ``terms`` terms, from frequencies, amplitudes and phases alone: no signal is sampled.

    A sum of tones is a polynomial in exp(2 pi i f0 t) and its inverse, f0 the ``base_frequency``, so a product is a
    convolution of coefficients, and Horner's scheme gives those of the whole series. Nothing aliases.

    Parameters
    ----------
    activation : ``relu``, or ``avr`` for |x|: AVR, and the sum of CReLU's phases.

    Returns
    -------
    Spectrum at the multiples of f0 up to 2 (terms - 1) times the highest frequency (or that frequency, if higher).
    """
    if activation not in ("relu", "avr"):
        raise CallError(f"spectra are predicted for relu and avr, not {activation}")
    signal = _signal_coefficients(tones)
    m = _convolved(signal, signal) / tones.centre
    m[len(m) // 2] -= 1
    total = torch.zeros(1, dtype=torch.complex128)
    for number, coefficient in enumerate(reversed(coefficients(terms).tolist())):
        total = _convolved(total, m) if number else total
        total[len(total) // 2] += coefficient
    total = total * math.sqrt(tones.centre)
    if activation == "relu":
        order = max(len(total), len(signal)) // 2
        total = (_widened(total, order) + _widened(signal, order)) / 2
    one_sided = total[len(total) // 2 :].abs()
    one_sided[1:] *= 2
    lines = torch.arange(len(one_sided), dtype=torch.float64) * float(tones.base_frequency)
    return Spectrum(lines, one_sided)


def amplitude_spectrum(x: torch.Tensor, rate: float) -> Spectrum:
    """The one-sided amplitude spectrum of real signals, ... x T sampled at ``rate``: F = T // 2 + 1 frequencies.

    In float64, since a spectrum may span more decades than float32 holds. Neither the mean nor, of an even T, half of
    the rate is doubled: each has one coefficient only. Results are on the CPU.
    """
    length = x.shape[-1]
    values = torch.fft.rfft(x.detach().double()).abs() / length
    values[..., 1 : (length + 1) // 2] *= 2
    return Spectrum(torch.fft.rfftfreq(length, 1 / rate, dtype=torch.float64), values.cpu())


def dc_share(spectrum: Spectrum) -> float:
    """The DC's share of the power of all signals of a spectrum together, from 0 to 1; 0 of signals that are 0.

    A tone of amplitude a has power a^2 / 2, a mean of c has c^2 (Parseval; half of the rate, if there, is counted as a
    tone, although its one coefficient would have a^2).
    """
    squares = spectrum.amplitudes.square()
    constant = squares[..., 0].sum()
    whole = float(constant + squares[..., 1:].sum() / 2)
    return float(constant) / whole if whole else 0.0


@dataclass(frozen=True)
class SeriesErrors:
    """How far the series is from ReLU of the sampled signal, for each number of terms.

    ``dc`` : |predicted DC - mean(ReLU(x))| / mean(ReLU(x)), the prediction from the tones alone.
    ``rms`` : the root mean square of the difference over that of ReLU(x). (The paper's percentage divides by the
    root of the *sum* of squares of the *input*, and so comes out far smaller.)
    ``largest`` : the largest difference at a sample, and ``bound`` what no difference can be above: half of
    ``largest_error``, reached where x = 0.
    """

    terms: tuple[int, ...]
    dc: tuple[float, ...]
    rms: tuple[float, ...]
    largest: tuple[float, ...]
    bound: tuple[float, ...]


def series_errors(tones: Tones, terms: Sequence[int]) -> SeriesErrors:
    """Errors of the series of each of these numbers of terms."""
    x = tones.signal()
    exact = x.relu()
    mean, size = float(exact.mean()), float(exact.square().mean().sqrt())
    dc, rms, largest = [], [], []
    for count in terms:
        wrong = approximate_relu(x, tones.centre, count) - exact
        dc.append(abs(float(predicted_spectrum(tones, count).dc) - mean) / mean)
        rms.append(float(wrong.square().mean().sqrt()) / size)
        largest.append(float(wrong.abs().max()))
    bound = tuple(largest_error(tones.centre, count) / 2 for count in terms)
    return SeriesErrors(tuple(terms), tuple(dc), tuple(rms), tuple(largest), bound)


def _signal_coefficients(tones: Tones) -> torch.Tensor:
    """Fourier coefficients of the signal at -K ... K times the base frequency: 2 K + 1, complex128."""
    base = tones.base_frequency
    places = [round(Fraction(frequency).limit_denominator(10**6) / base) for frequency in tones.frequencies]
    order = max(places)
    found = torch.zeros(2 * order + 1, dtype=torch.complex128)
    for place, amplitude, phase in zip(places, tones.amplitudes, tones.phases, strict=True):
        half = amplitude / 2 * complex(math.cos(phase), math.sin(phase))
        found[order + place] += half
        found[order - place] += half.conjugate()
    return found


def _convolved(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Coefficients of a product. Summed term by term where ``other`` is not 0: exact zeros stay zeros."""
    product = torch.zeros(len(one) + len(other) - 1, dtype=torch.complex128)
    for place in other.nonzero().flatten().tolist():
        product[place : place + len(one)] += other[place] * one
    return product


def _widened(values: torch.Tensor, order: int) -> torch.Tensor:
    """The same coefficients at -order ... order."""
    margin = order - len(values) // 2
    return torch.nn.functional.pad(values, (margin, margin))
