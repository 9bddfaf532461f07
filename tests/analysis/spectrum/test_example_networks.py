import math

import numpy
import pytest
import torch

from reconstruct.analysis.spectrum.amplitude import amplitude_spectrum
from reconstruct.analysis.spectrum.example_networks import averaging, differentiating, network_spectra
from reconstruct.analysis.spectrum.tones import example


def test_the_example_networks_are_differences_and_averages() -> None:
    """Against NumPy; and averages of what is not negative are a filter, whose response to a line is known."""
    x = example().signal()
    expected = x.numpy().clip(0)
    for _ in range(2):
        expected = (numpy.diff(expected) * 1024).clip(0)
    found = differentiating(1024.0)(x[None, None])[0, 0]
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-12, atol=1e-6)
    assert averaging()(x[None, None]).shape[2] == len(x) - 40
    spectra = network_spectra(example())
    rectified = amplitude_spectrum(x.relu(), 1024)
    frequencies = rectified.frequencies.numpy()
    window = abs(numpy.exp(-2j * math.pi * numpy.outer(frequencies / 1024, numpy.arange(9))).mean(1)) ** 5
    torch.testing.assert_close(
        spectra["averaging"].amplitudes, rectified.amplitudes * torch.from_numpy(window), rtol=0, atol=1e-13
    )
    assert float(spectra["averaging"].dc) == pytest.approx(float(rectified.dc), rel=1e-12)
