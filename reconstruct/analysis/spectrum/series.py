"""ReLU's series and the spectrum it predicts, from frequencies and amplitudes alone (Kechris et al. 2024, III and IV).

Kechris, Dan, Miranda, Atienza, "DC is all you need: describing ReLU from a signal processing standpoint", 2024,
arXiv:2407.16556. For a sum of tones x, A = (sum of the amplitudes)^2 / 2 and m = x^2 / A - 1, which lies in [-1, 1],

    |x| = sqrt(A) sqrt(1 + m) = sqrt(A) sum_n a_n m^n,  a_n = binom(1/2, n),  and  ReLU(x) = x / 2 + |x| / 2.

The a_n fall as n^(-3/2), so the series converges absolutely wherever |m| <= 1, and slowly where x is near 0. (The paper
has it, in section III, that "in practice terms decrease fast", and prints the first eight: from 1 to 0.016.) Powers of
x^2 hold the sums and differences of the input frequencies: ReLU keeps the input's spectrum, halved, and adds even-order
harmonics and a DC, mean(|x|) / 2. Of CReLU the difference of the phases is x, so that the DC and every even-order term
cancel, and the sum is |x|, which is also AVR.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from reconstruct.analysis.spectrum.amplitude import Spectrum, amplitude_spectrum
from reconstruct.analysis.spectrum.tones import Tones
from reconstruct.errors import CallError


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
    """The largest error of |x|'s first ``terms`` terms, n = 0 ... N - 1, over |m| <= 1; ReLU's is half of it.

    It is at x = 0, where every term left out has the same sign: sqrt(A) binom(2 (N - 1), N - 1) / 4^(N - 1), which
    approaches sqrt(A) / sqrt(pi N).

    Parameters
    ----------
    centre : A.
    terms : N.

    Raises
    ------
    CallError : fewer than 1 term.
    """
    coefficients(terms)
    return math.sqrt(centre) * (math.comb(2 * (terms - 1), terms - 1) / 4 ** (terms - 1))


def approximate_relu(x: torch.Tensor, centre: float, terms: int) -> torch.Tensor:
    """ReLU by the series: x / 2 + sqrt(A) / 2 times the first terms, by Horner's scheme in m; of x's shape and type.

    Parameters
    ----------
    x : of any shape; where x^2 is above 2 A the series diverges.
    centre : A.
    terms : how many.

    Raises
    ------
    CallError : fewer than 1 term.
    """
    m = x.square() / centre - 1
    total = torch.zeros_like(x)
    for coefficient in reversed(coefficients(terms).tolist()):
        total = total * m + coefficient
    return x / 2 + math.sqrt(centre) / 2 * total


def predicted_spectrum(tones: Tones, terms: int, activation: str = "relu") -> Spectrum:
    """The spectrum of the first terms, from frequencies, amplitudes and phases alone: no signal is sampled.

    A sum of tones is a polynomial in exp(2 pi i f0 t) and its inverse, f0 the ``base_frequency``, so a product is a
    convolution of coefficients, and Horner's scheme gives those of the whole series. Nothing aliases.

    Parameters
    ----------
    terms : how many.
    activation : ``relu``, or ``avr`` for |x|: AVR, and the sum of CReLU's phases.

    Returns
    -------
    Spectrum at the multiples of f0 up to 2 (terms - 1) times the highest frequency (or that frequency, if higher).

    Raises
    ------
    CallError : another activation, fewer than 1 term, or frequencies with too little in common.
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


@dataclass(frozen=True)
class SeriesErrors:
    """Errors of the series against ReLU of the sampled signal, one entry a number of terms.

    Attributes
    ----------
    terms : the numbers of terms.
    dc : |predicted DC - mean(ReLU(x))| / mean(ReLU(x)), the prediction from the tones alone.
    rms : the root mean square of the difference over that of ReLU(x). (The paper's percentage divides by the root of
        the *sum* of squares of the *input*, and so comes out far smaller.)
    largest : the largest difference at a sample, in the signal's unit.
    bound : what no difference can be above: half of ``largest_error``, reached where x = 0.
    """

    terms: tuple[int, ...]
    dc: tuple[float, ...]
    rms: tuple[float, ...]
    largest: tuple[float, ...]
    bound: tuple[float, ...]

    def records(self) -> list[dict[str, Any]]:
        """Plain numbers for JSON, one record a number of terms, each with the last coefficient of the series."""
        return [
            {
                "terms": terms, "coefficient": float(coefficients(terms)[-1]), "dc_error": dc, "rms_error": rms,
                "largest_error": largest, "largest_error_bound": bound,
            }
            for terms, dc, rms, largest, bound in zip(
                self.terms, self.dc, self.rms, self.largest, self.bound, strict=True
            )
        ]  # fmt: skip


def series_errors(tones: Tones, terms: Sequence[int]) -> SeriesErrors:
    """The errors of the series with each of these numbers of terms."""
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


@dataclass(frozen=True)
class Line:
    """A line of ReLU's spectrum as it is measured on samples, and as the series predicts it.

    Attributes
    ----------
    frequency : Hz.
    measured, predicted : amplitudes, in the signal's unit.
    """

    frequency: float
    measured: float
    predicted: float

    def record(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return dict(vars(self))


def strongest_lines(tones: Tones, terms: int) -> list[Line]:
    """The strongest lines of the sampled signal behind ReLU beside what ``terms`` terms predict, and the DC."""
    measured = amplitude_spectrum(tones.signal().relu(), tones.rate)
    predicted = predicted_spectrum(tones, terms)
    return [Line(frequency, found, predicted.amplitude_at(frequency)) for frequency, found in measured.strongest()]


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
