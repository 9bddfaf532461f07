import pytest
import torch

from reconstruct.analysis.spectrum.amplitude import amplitude_spectrum
from reconstruct.analysis.spectrum.layer_spectra_1d import layer_spectra_1d
from reconstruct.analysis.spectrum.pulse import SelfAttention, heart_rate, pulse_network, pulse_waves, train_pulse
from reconstruct.errors import CallError


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
    assert trained.error < 0.75 * trained.constant_error
    assert trained.constant_error == pytest.approx(115 / 4, rel=0.2)
    waves = pulse_waves(64, 2)
    assert float((heart_rate(trained.module, waves.waves) - waves.heart_rates).abs().mean()) == trained.error
    layers = layer_spectra_1d(pulse_network(3), waves.waves[:2], rate=32.0)
    assert [layer.name for layer in layers] == [f"block{b}_relu{c}" for b in (1, 2, 3) for c in (1, 2, 3)]
    assert [layer.rate for layer in layers] == [32.0] * 3 + [8.0] * 3 + [4.0] * 3
    for layer, filters in zip(layers, [32] * 3 + [48] * 3 + [64] * 3, strict=True):
        assert layer.after.amplitudes.shape == (2, filters, 4 * layer.rate + 1)


def test_the_authors_own_layers(generator: torch.Generator) -> None:
    """Parameters as Keras counts them in the authors' model; attention against torch's own; 64 x 16 samples go on."""
    network = pulse_network(0)
    blocks = [(1, 32), (32, 32), (32, 32), (32, 48), (48, 48), (48, 48), (48, 64), (64, 64), (64, 64)]
    expected = sum(5 * one * other + other for one, other in blocks)
    expected += 4 * (64 * 64 + 64) + 2 * 64 + (1024 * 32 + 32) + 33
    assert sum(each.numel() for each in network.parameters()) == expected
    own = SelfAttention(64, 4)
    other = torch.nn.MultiheadAttention(64, 4, batch_first=True)
    x = torch.randn(2, 64, 16, generator=generator)
    with torch.no_grad():
        parts = (own.query, own.key, own.value)
        other.in_proj_weight.copy_(torch.cat([each.weight for each in parts]))
        other.in_proj_bias.copy_(torch.cat([each.bias for each in parts]))
        other.out_proj.load_state_dict(own.output.state_dict())
        torch.testing.assert_close(own(x), other(x.mT, x.mT, x.mT)[0])


def test_a_training_of_no_steps_is_refused() -> None:
    with pytest.raises(CallError, match="at least 1"):
        train_pulse(steps=0)
