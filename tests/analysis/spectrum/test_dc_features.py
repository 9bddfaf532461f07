import math
from dataclasses import fields

import numpy
import pytest
import torch
from scipy.signal import freqz

from reconstruct.analysis.spectrum.dc_features import RATE, cosines, dc_features, glorot_uniform, measured_dc, response
from reconstruct.analysis.spectrum.dc_training import lagged_means, pooled_linear, pooled_relu, train_dc_models
from reconstruct.analysis.spectrum.pulse import heart_rate, pulse_network, pulse_waves, train_pulse
from reconstruct.analysis.spectrum.series import amplitude_spectrum
from reconstruct.analysis.spectrum.spectra import layer_spectra_1d
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
    """Of filters with both taps, the classes' features lie apart; with a single tap |H| is flat: one for all."""
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


def test_the_linear_model_needs_no_more_than_lagged_means(generator: torch.Generator) -> None:
    """Against torch's convolutions, borders and all; and of values from 0 up ReLU does nothing."""
    waves = torch.rand(2, 5, 1, 17, generator=generator, dtype=torch.float64)
    first = torch.rand(2, 4, 1, 3, generator=generator, dtype=torch.float64) - 0.5
    second = torch.rand(2, 6, 4, 3, generator=generator, dtype=torch.float64) - 0.5
    means = lagged_means(waves, 5)
    assert float(means[1, 2, 3]) == pytest.approx(float(waves[1, 2, 0, :-3].sum()) / 17)
    for s in range(2):
        h = torch.nn.functional.conv1d(torch.nn.functional.pad(waves[s], (2, 0)), first[s])
        expected = torch.nn.functional.conv1d(torch.nn.functional.pad(h, (2, 0)), second[s]).mean(2)
        torch.testing.assert_close(pooled_linear(means, first, second)[s], expected, rtol=0, atol=1e-14)
        rectified = torch.nn.functional.conv1d(torch.nn.functional.pad(h.relu(), (2, 0)), second[s]).relu().mean(2)
        torch.testing.assert_close(pooled_relu(waves, first, second)[s], rectified, rtol=0, atol=1e-14)
    torch.testing.assert_close(
        pooled_relu(waves, first.abs(), second.abs()), pooled_linear(means, first.abs(), second.abs())
    )


def test_seeds_train_side_by_side_as_they_do_alone() -> None:
    together = train_dc_models(2, 2, 40, seed=5)
    alone = train_dc_models(1, 2, 40, seed=6)
    for both, one in zip(together, alone, strict=True):
        for field in fields(both)[1:]:
            torch.testing.assert_close(
                getattr(both, field.name)[..., 1:], getattr(one, field.name), rtol=1e-4, atol=1e-5
            )


def test_relu_learns_what_a_linear_model_does_not_see() -> None:
    """And the DC given by hand is learned with the least change of the weights."""
    relu, linear, given = train_dc_models(1, 25, 256)
    assert float(relu.accuracy[-1]) > 0.99
    assert float(relu.loss[-1]) < 0.05
    assert float(linear.loss[-1]) > 0.5
    assert float(given.loss[-1]) < float(linear.loss[-1])
    for distance in ("distance1", "distance2"):
        values = [float(getattr(run, distance)[-1, 0]) for run in (given, relu, linear)]
        assert 0 < values[0] < values[1] < values[2]


def test_faulty_trainings_are_refused() -> None:
    with pytest.raises(CallError, match="there are relu, linear, linear_dc"):
        train_dc_models(models=("tanh",))
    with pytest.raises(CallError, match="at least 1"):
        train_dc_models(seeds=0)
    with pytest.raises(CallError, match="at least 2"):
        cosines(1, 0)
    with pytest.raises(CallError, match="at least 1"):
        train_pulse(steps=0)


def test_pulse_waves_have_their_heart_rate() -> None:
    """The highest peak, of a spectrum drawn out 16 times, is the heart rate's, within the width of a line, 7.5."""
    data = pulse_waves(50, 1)
    assert float(data.waves.mean(2).abs().max()) < 1e-5
    assert float((data.waves.std(2) - 1).abs().max()) < 1e-4
    spectrum = amplitude_spectrum(torch.nn.functional.pad(data.waves, (0, 15 * 256)), 32.0)
    found = 60 * spectrum.frequencies[spectrum.amplitudes[:, 0].argmax(1)]
    assert float((found - data.heart_rates).abs().max()) < 7.5 / 2
    assert 45 <= float(data.heart_rates.min()) < 60
    assert 145 < float(data.heart_rates.max()) <= 160


def test_the_pulse_network_learns_and_shows_its_layers() -> None:
    trained = train_pulse(0, 60, 32, 64)
    assert trained.error < 0.25 * trained.constant_error
    assert trained.constant_error == pytest.approx(115 / 4, rel=0.2)
    waves = pulse_waves(64, 2)
    assert float((heart_rate(trained.module, waves.waves) - waves.heart_rates).abs().mean()) == trained.error
    layers = layer_spectra_1d(pulse_network(3), waves.waves[:2], rate=32.0)
    assert [layer.name for layer in layers] == [f"block{b}_relu{c}" for b in (1, 2, 3) for c in (1, 2, 3)]
    assert [layer.rate for layer in layers] == [32.0] * 3 + [8.0] * 3 + [2.0] * 3
    assert all(layer.after.amplitudes.shape == (2, 32, 4 * layer.rate + 1) for layer in layers)
