import math
from fractions import Fraction

import numpy
import pytest
import torch
from scipy.special import binom

from reconstruct.analysis.spectrum.amplitude import amplitude_spectrum
from reconstruct.analysis.spectrum.series import (
    approximate_relu,
    coefficients,
    largest_error,
    predicted_spectrum,
    series_errors,
    strongest_lines,
)
from reconstruct.analysis.spectrum.tones import Tones, example
from reconstruct.errors import CallError


def test_the_coefficients_are_binomial() -> None:
    """The closed form in exact fractions, to 300 steps of two roundings each; SciPy's binomials go by way of gammas."""
    exact = [float(Fraction((-1) ** n * math.comb(2 * n, n), (1 - 2 * n) * 4**n)) for n in range(300)]
    torch.testing.assert_close(coefficients(300), torch.tensor(exact, dtype=torch.float64), rtol=600 * 1.2e-16, atol=0)
    torch.testing.assert_close(coefficients(300), torch.from_numpy(binom(0.5, numpy.arange(300))), rtol=1e-11, atol=0)
    assert coefficients(5).tolist() == [1, 1 / 2, -1 / 8, 1 / 16, -5 / 128]


@pytest.mark.parametrize("terms", [1, 2, 7, 40])
def test_the_largest_error_is_at_zero_and_is_the_closed_form(terms: int) -> None:
    """Exactly: the partial sum at m = -1, where |x| is 0, telescopes; elsewhere the terms left out cancel in part."""
    term, total = Fraction(1), Fraction(0)
    for n in range(terms):
        total += term * (-1) ** n
        term *= (Fraction(1, 2) - n) / (n + 1)
    closed = Fraction(math.comb(2 * (terms - 1), terms - 1), 4 ** (terms - 1))
    assert total == closed
    assert largest_error(8.0, terms) == pytest.approx(math.sqrt(8) * float(closed), rel=1e-14)
    # |x| up to sqrt(2 A) = 4, beyond which the series diverges.
    x = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    wrong = (approximate_relu(x, 8.0, terms) - x.relu()).abs()
    assert int(wrong.argmax()) == 2000
    assert float(wrong[2000]) == pytest.approx(largest_error(8.0, terms) / 2, rel=1e-12)
    assert largest_error(8.0, terms) == pytest.approx(math.sqrt(8 / (math.pi * terms)), rel=1 / terms)


def test_the_papers_dc_is_predicted_from_its_tones() -> None:
    """Within 1.2 % by 50 terms and 0.6 % by 100; every error falls with the number of terms."""
    errors = series_errors(example(), (10, 50, 100))
    assert errors.dc[1] < 0.012
    assert errors.dc[2] < 0.006
    for values in (errors.dc, errors.rms, errors.largest, errors.bound):
        assert values[0] > values[1] > values[2]
    assert all(found <= bound for found, bound in zip(errors.largest, errors.bound, strict=True))


@pytest.mark.parametrize("terms", [20, 400])
def test_one_tone_gives_the_fourier_series_of_a_rectified_cosine(terms: int) -> None:
    """|cos|: mean 2 / pi, harmonic 2 k of amplitude (4 / pi) / (4 k^2 - 1).

    |a_n| is at most 1 / (sqrt(pi n) (2 n - 1)) and the mean of |m|^n, m = cos 2 theta, at most sqrt(2 / (pi n)), so
    the terms left out add to at most 1 / (2 pi (N - 1)) in the mean, and twice that in a harmonic.
    """
    found = predicted_spectrum(Tones((3.0,), (2.0,), 64.0, 1.0), terms, "avr")
    expected = torch.zeros(len(found.frequencies), dtype=torch.float64)
    expected[0] = 2 * 2 / math.pi
    k = torch.arange(1, terms)
    expected[2 * k] = 2 * 4 / math.pi / (4 * k.double().square() - 1)
    bound = 2 * 1 / (math.pi * (terms - 1))
    assert float((found.amplitudes - expected).abs().max()) < bound
    assert float((found.dc - expected[0]).abs()) < bound / 2
    assert found.frequencies[:3].tolist() == [0, 3, 6]
    assert not found.amplitudes[1::2].any()


@pytest.mark.parametrize("terms", [1, 2, 12])
def test_the_prediction_is_the_spectrum_of_the_sampled_series(terms: int) -> None:
    """With phases, unequal amplitudes and a frequency that is no whole number; up to 2 x 11 x 10 Hz nothing aliases."""
    tones = Tones((2.5, 7.5, 10.0), (1.0, 0.3, 0.7), 512.0, 4.0, (0.3, -1.0, 2.0))
    predicted = predicted_spectrum(tones, terms)
    found = amplitude_spectrum(approximate_relu(tones.signal(), tones.centre, terms), tones.rate)
    expected = torch.zeros_like(found.amplitudes)
    expected[(predicted.frequencies * tones.seconds).round().long()] = predicted.amplitudes
    torch.testing.assert_close(found.amplitudes, expected, rtol=0, atol=1e-13)


def test_crelus_difference_keeps_the_signal_and_its_sum_the_even_orders() -> None:
    tones = example()
    x = tones.signal()
    positive, negative = (approximate_relu(each, tones.centre, 30) for each in (x, -x))
    torch.testing.assert_close(positive - negative, x, rtol=0, atol=1e-14)
    found = amplitude_spectrum(positive + negative, tones.rate)
    predicted = predicted_spectrum(tones, 30, "avr")
    assert float(found.dc) == pytest.approx(float(predicted.dc), rel=1e-12)
    assert float(predicted.dc) == pytest.approx(2 * float(predicted_spectrum(tones, 30).dc), rel=1e-12)


def test_calls_that_make_no_sense_are_refused() -> None:
    with pytest.raises(CallError, match="at least 1 term"):
        coefficients(0)
    with pytest.raises(CallError, match="not crelu"):
        predicted_spectrum(example(), 3, "crelu")
    with pytest.raises(CallError, match="in common"):
        predicted_spectrum(Tones((5.0, 5.001), (1.0, 1.0), 64.0, 1000.0), 3)


def test_records_tell_errors_by_the_number_of_terms_and_lines_beside_their_prediction() -> None:
    errors = series_errors(example(), (1, 5))
    first, last = errors.records()
    assert (first["terms"], first["coefficient"]) == (1, 1.0)
    assert (last["terms"], last["coefficient"]) == (5, -5 / 128)
    assert (last["dc_error"], last["rms_error"]) == (errors.dc[1], errors.rms[1])
    assert (last["largest_error"], last["largest_error_bound"]) == (errors.largest[1], errors.bound[1])
    # The DC and the tones themselves; the lines of a difference are no larger than the difference anywhere.
    lines = {line.frequency: line for line in strongest_lines(example(), 5)}
    assert {0, 5, 10, 20, 40} <= lines.keys()
    assert all(abs(line.measured - line.predicted) <= 2 * errors.bound[1] for line in lines.values())
