import math

import pytest
import torch

from reconstruct.analysis.spectrum.amplitude import Spectrum, amplitude_spectrum, dc_share


@pytest.mark.parametrize("length", [64, 63])
def test_amplitudes_are_those_of_the_tones(length: int) -> None:
    """A mean, a tone, and one at the last frequency: of an even length half of the rate, which has one side only."""
    k = torch.arange(length, dtype=torch.float64)
    x = -0.25 + 3 * torch.cos(2 * math.pi * 5 * k / length + 0.4)
    expected = torch.zeros(length // 2 + 1, dtype=torch.float64)
    expected[0], expected[5] = 0.25, 3
    x, expected[-1] = x + 0.5 * torch.cos(2 * math.pi * (length // 2) * k / length), 0.5
    found = amplitude_spectrum(x.view(1, 1, -1), 2 * length)
    torch.testing.assert_close(found.amplitudes[0, 0], expected, rtol=0, atol=1e-14)
    assert float(found.frequencies[5]) == 10


def spectrum(*amplitudes: float) -> Spectrum:
    """A spectrum with lines 2 Hz apart."""
    return Spectrum(2.0 * torch.arange(len(amplitudes), dtype=torch.float64), torch.tensor(amplitudes).double())


def test_the_strongest_lines_come_in_the_order_of_frequency_and_rounding_is_none() -> None:
    found = spectrum(0.5, 3, 1e-10, 4, 1)
    assert found.strongest(2) == [(0, 0.5), (2, 3), (6, 4)]
    assert found.strongest() == [(0, 0.5), (2, 3), (6, 4), (8, 1)]
    assert spectrum(0, 3).strongest() == [(0, 0), (2, 3)]
    assert found.record() == {"dc": 0.5, "lines": [[0, 0.5], [2, 3], [6, 4], [8, 1]]}


def test_the_amplitude_at_a_frequency_without_a_line_is_zero() -> None:
    found = spectrum(0.5, 3, 1)
    assert [found.amplitude_at(frequency) for frequency in (0, 2, 4, 3, 5, 100)] == [0.5, 3, 1, 0, 0, 0]
    assert spectrum(0.5).amplitude_at(0) == 0.5


def test_the_dcs_share_of_the_power_counts_a_tone_half() -> None:
    assert dc_share(spectrum(1, 2)) == 1 / 3
    assert dc_share(spectrum(0, 0)) == 0
