import torch

from reconstruct.analysis.spectrum.amplitude import amplitude_spectrum
from reconstruct.analysis.spectrum.pulse import RATE, TrainedPulse, pulse_network, pulse_waves
from reconstruct.analysis.spectrum.pulse_spectra import pulse_spectra


def test_every_layer_over_all_waves_and_the_chosen_ones_over_the_first() -> None:
    found = pulse_spectra(TrainedPulse(pulse_network(0).eval(), 1.0, 2.0, ()), seed=4, shown=["block2_relu1"])
    assert [len(layer.after.amplitudes) for layer in found.layers] == [64] * 9
    (behind,) = found.behind
    assert behind.name == "block2_relu1"
    torch.testing.assert_close(behind.after.amplitudes[0], found.layers[3].after.amplitudes[0], rtol=1e-4, atol=1e-6)
    waves = pulse_waves(64, 7)
    assert found.heart_rate == float(waves.heart_rates[0])
    assert torch.equal(found.wave.amplitudes, amplitude_spectrum(waves.waves[0, 0], RATE).amplitudes)
    record = found.layers[0].record()
    assert (record["activation"], record["rate"]) == ("block1_relu1", 32)
    # The waves have no mean, and rectified values have one.
    assert record["dc_share_before"] < 0.1 < record["dc_share_after"]
