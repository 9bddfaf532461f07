import math

import numpy
import pytest
import torch
from scipy.signal import freqz

from reconstruct.analysis.spectrum.dc_features import RATE, cosines, dc_features, glorot_uniform, measured_dc, response
from reconstruct.errors import CallError


def test_the_response_is_scipys(generator: torch.Generator) -> None:
    taps = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    frequencies = torch.linspace(0, 16, 33, dtype=torch.float64)
    for each, found in zip(taps, response(taps, frequencies, 32.0), strict=True):
        expected = abs(freqz(each.numpy(), worN=frequencies.numpy(), fs=32.0)[1])
        torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-14)


def test_the_mean_of_a_rectified_tone_is_its_amplitude_over_pi() -> None:
    """Over 55 of 1,009 samples' cycles, a prime: every phase comes once, an error of about pi / (3 T^2)."""
    wave = torch.cos(2 * math.pi * 55 * torch.arange(1009, dtype=torch.float64) / 1009 + 0.7)
    assert float(measured_dc(wave.view(1, 1, -1), torch.tensor([[3.0]]))) == pytest.approx(3 / math.pi, rel=1e-5)


def test_a_filter_is_causal() -> None:
    """Zeros before the first sample, and the second tap is of the sample before."""
    found = measured_dc(torch.tensor([[[1.0, 10.0, 100.0]]]), torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, -1.0]]))
    assert found.flatten().tolist() == pytest.approx([(2 + 21 + 210) / 3, 11 / 3, 100 / 3])


def test_dc_features_are_predicted_and_scored_as_described() -> None:
    """The part of a period that 8 s hold too much adds at most 0.175 a / (f T) to a mean of a / pi: 2.6 % at 2.6 Hz.

    Accuracies against two thresholds, half-way between class means, written out.
    """
    found = dc_features(12, 40)
    assert float(found.error.max()) < 0.03
    for features, accuracy, gap in zip(found.features.numpy(), found.accuracy, found.gap, strict=True):
        each = features.reshape(3, 40)
        fitted = each[:, ::2].mean(1)
        order = numpy.argsort(fitted)
        thresholds = (fitted[order][:-1] + fitted[order][1:]) / 2
        recalls = [(order[numpy.searchsorted(thresholds, each[c, 1::2])] == c).mean() for c in range(3)]
        assert float(accuracy) == pytest.approx(numpy.mean(recalls))
        apart = numpy.diff(numpy.sort(each.mean(1))).min()
        assert float(gap) == pytest.approx(apart / math.sqrt(each.var(1, ddof=1).mean()))


def test_a_slope_separates_what_a_flat_response_does_not() -> None:
    """A filter with two taps sets the classes' features apart; with a single tap |H| is flat: one feature for all."""
    found = dc_features(12, 40)
    slope = (found.taps[:, 0] * found.taps[:, 1]).abs() / found.taps.square().sum(1)
    assert found.accuracy[slope > 0.2].tolist() == [1.0] * int((slope > 0.2).sum())
    assert int((slope > 0.2).sum()) >= 6
    waves = cosines(40, 0)
    flat = measured_dc(waves.waves, torch.tensor([[1.0, 0.0]]))
    assert float((flat * math.pi - 1).abs().max()) < 0.03
    # The mean itself, without ReLU: a sum of cosines is at most 1 / 2 + 1 / (2 sin(pi f / rate)).
    most = 0.5 + 0.5 / torch.sin(math.pi * waves.frequencies / RATE)
    assert bool((waves.waves.mean((1, 2)).abs() <= most / 256 + 1e-6).all())


def test_glorots_weights_fill_their_range(generator: torch.Generator) -> None:
    drawn = glorot_uniform((32, 16, 3), generator)
    limit = math.sqrt(6 / (48 * 3))
    assert limit * 0.99 < float(drawn.abs().max()) <= limit
    assert float(drawn.std()) == pytest.approx(limit / math.sqrt(3), rel=0.05)


def test_a_class_of_one_cosine_is_refused() -> None:
    with pytest.raises(CallError, match="at least 2"):
        cosines(1, 0)


def test_the_usual_filter_and_the_records_are_those_of_the_fields() -> None:
    found = dc_features(5, 10)
    assert float(found.gap[found.usual]) == float(found.gap.median())
    records = found.records()
    assert [each["filter"] for each in records] == [0, 1, 2, 3, 4]
    assert [each["gap"] for each in records] == found.gap.tolist()
    assert [each["taps"] for each in records] == found.taps.tolist()
