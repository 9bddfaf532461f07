import torch

from reconstruct.analysis.spectrum.amplitude import Spectrum, amplitude_spectrum
from reconstruct.analysis.spectrum.dc_features import dc_features
from reconstruct.analysis.spectrum.dc_training import train_dc_models
from reconstruct.analysis.spectrum.example_networks import network_spectra
from reconstruct.analysis.spectrum.layer_spectra_1d import layer_spectra_1d
from reconstruct.analysis.spectrum.layer_spectra_2d import layer_spectra_2d
from reconstruct.analysis.spectrum.pulse import RATE, pulse_network, pulse_waves
from reconstruct.analysis.spectrum.series import series_errors
from reconstruct.analysis.spectrum.tones import example
from reconstruct.report.figures.dc import dc_figure, training_figure
from reconstruct.report.figures.layer_spectra import image_spectra_figure, pulse_figure, spectra_figure
from reconstruct.report.figures.tones import example_figure, network_figure, series_figure
from tests.builders.networks import identity_net


def test_every_figure_is_drawn(generator: torch.Generator) -> None:
    """Ten to thirteen hundred pixels wide, with something on it."""
    waves = pulse_waves(1, 0)
    layers = layer_spectra_1d(pulse_network(0), waves.waves, rate=RATE)
    wave = amplitude_spectrum(waves.waves[0, 0], RATE)
    net = identity_net()
    image = torch.rand(16, 12, generator=generator) - 0.5
    spectra = [layer_spectra_2d(net, each.double().expand(1, 3, -1, -1), "a") for each in (image, -image)]
    drawn = (
        series_figure(series_errors(example(), (1, 4, 10)), 20),
        example_figure(example(), 6),
        network_figure(network_spectra(example())),
        dc_figure(dc_features(3, 10), 1),
        training_figure(train_dc_models(2, 2, 10)),
        pulse_figure(layers[2], Spectrum(wave.frequencies, wave.amplitudes), float(waves.heart_rates[0])),
        spectra_figure(layers),
        image_spectra_figure(spectra, "two layers"),
    )
    for each in drawn:
        assert 1000 <= each.width <= 1300
        assert len(each.convert("L").getcolors(256) or ()) > 20
