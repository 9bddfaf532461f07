import math

import pytest
import torch
from torch import nn

from reconstruct import load_model
from reconstruct.analysis.spectrum.dc_features import dc_features
from reconstruct.analysis.spectrum.dc_training import train_dc_models
from reconstruct.analysis.spectrum.example_networks import network_spectra
from reconstruct.analysis.spectrum.pulse import RATE, pulse_network, pulse_waves
from reconstruct.analysis.spectrum.series import Spectrum, amplitude_spectrum, example, series_errors
from reconstruct.analysis.spectrum.spectra import (
    SIGNALS,
    ImageSpectra,
    activation_names,
    layer_spectra_1d,
    layer_spectra_2d,
)
from reconstruct.errors import CallError
from reconstruct.network.architecture import Architecture, Layer
from reconstruct.network.network import Network
from reconstruct.network.surgery import randomise
from reconstruct.report import spectrum_figures as figures


class Shared(nn.Module):
    """One activation, called twice, and another that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.idle = nn.ReLU(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.act(x) - 0.5)


def identity(layers: tuple[Layer, ...] = (Layer("a", 1, 1),)) -> Network:
    """A network whose first layer's responses are the first channel of its images."""
    net = Network(Architecture("test", layers, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))).double().eval()
    with torch.no_grad():
        net.a.weight.zero_()
        net.a.weight[:, 0] = 1
        net.a.bias.zero_()
    return net


def shown(values: torch.Tensor) -> ImageSpectra:
    """Spectra of responses H x W."""
    return layer_spectra_2d(identity(), values.double().expand(1, 3, -1, -1), "a")


def test_spectra_of_a_module_are_those_of_its_values(generator: torch.Generator) -> None:
    """Computed step by step; every activation in place, and an addition in place after one."""
    first, second = nn.Conv1d(2, 3, 3, padding=1), nn.Conv1d(3, 4, 5)
    module = nn.Sequential(first, nn.ReLU(inplace=True), nn.AvgPool1d(4), second, nn.LeakyReLU(0.2, inplace=True))
    module.register_forward_hook(lambda _module, _inputs, output: output.add_(100))
    x = torch.randn(2, 2, 200, generator=generator)
    found = layer_spectra_1d(module, x, rate=100.0)
    assert [each.name for each in found] == activation_names(module) == ["1", "4"]
    # 200 samples, then 50, then 46 without padding at the same rate.
    assert [each.rate for each in found] == [100.0, 25.0]
    with torch.no_grad():
        a = first(x)
        b = second(nn.functional.avg_pool1d(a.relu(), 4))
        values = ((a, a.relu()), (b, torch.where(b > 0, b, 0.2 * b)))
    for each, (before, after), rate in zip(found, values, (100.0, 25.0), strict=True):
        for spectrum, expected in ((each.before, before), (each.after, after)):
            wanted = amplitude_spectrum(expected, rate)
            torch.testing.assert_close(spectrum.amplitudes, wanted.amplitudes, rtol=1e-5, atol=1e-6)
            assert torch.equal(spectrum.frequencies, wanted.frequencies)
        torch.testing.assert_close(each.after.dc, after.double().mean(2).abs(), rtol=1e-5, atol=1e-6)


def test_a_module_is_left_as_it_was(generator: torch.Generator) -> None:
    norm = nn.BatchNorm1d(3)
    module = nn.Sequential(nn.Conv1d(1, 3, 3), norm, nn.Dropout(0.5), nn.ConvTranspose1d(3, 2, 2, 2), nn.GELU())
    module[2].eval()
    x = torch.randn(4, 1, 33, generator=generator)
    one, other = (layer_spectra_1d(module, x)[0] for _ in range(2))
    # 31 behind the first convolution and 62 behind the second, to 33: twice the rate.
    assert one.rate == 2
    assert torch.equal(one.after.amplitudes, other.after.amplitudes)
    assert int(norm.num_batches_tracked) == 0
    assert [each.training for each in module] == [True, True, False, True, True]
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())


def test_activations_are_named_and_chosen(generator: torch.Generator) -> None:
    x = torch.randn(1, 2, 40, generator=generator)
    twice = layer_spectra_1d(Shared(), x, ["act"])
    assert [each.name for each in twice] == ["act", "act:2"]
    torch.testing.assert_close(twice[1].before.dc, (x.relu() - 0.5).double().mean(2).abs())
    torch.testing.assert_close(twice[1].after.dc, (x.relu() - 0.5).relu().double().mean(2))
    classifier = nn.Sequential(nn.ELU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.ReLU())
    assert [each.name for each in layer_spectra_1d(classifier, x)] == ["0"]
    with pytest.raises(CallError, match="at 3 are 1 x 2: no N x C x length"):
        layer_spectra_1d(classifier, x, ["3"])
    with pytest.raises(CallError, match="no activation 'relu'; there are act, idle"):
        layer_spectra_1d(Shared(), x, ["relu"])
    with pytest.raises(CallError, match="idle is not called"):
        layer_spectra_1d(Shared(), x, ["idle"])
    with pytest.raises(CallError, match="has no activation"):
        layer_spectra_1d(nn.Sequential(nn.Conv1d(2, 2, 3)), x)
    with pytest.raises(CallError, match="N x C x T"):
        layer_spectra_1d(Shared(), x[0])


def test_a_constant_is_all_dc() -> None:
    found = shown(torch.full((8, 8), 0.25))
    assert [found.dc_share(name) for name in SIGNALS] == pytest.approx([1, 1, 0, 1, 1])
    assert [found.energy(name) for name in SIGNALS] == pytest.approx([1, 1, 0, 1, 1])
    assert all(float(found.rings[name].abs().max()) < 1e-30 for name in SIGNALS)


def test_a_cosine_gets_the_dc_of_its_rectified_form() -> None:
    """Of period 16 samples, |cos| has the mean 2 cot(pi / 16) / 16, and lines at even multiples only."""
    wave = torch.cos(2 * math.pi * torch.arange(64, dtype=torch.float64) / 16)
    found = shown(wave.expand(32, 64))
    # Rings are 1/32 apart; the wave's 1/16 is the second.
    assert found.frequencies[1] == 1 / 16
    assert float(found.rings["responses"][1]) == pytest.approx(1, abs=1e-14)
    mean = 2 / 16 / math.tan(math.pi / 16)
    for name, dc, line in (("sum", mean**2 * 2, 0.0), ("relu", mean**2 / 2, 0.25), ("negative", mean**2 / 2, 0.25)):
        assert found.dc[name] == pytest.approx(dc, rel=1e-12)
        assert float(found.rings[name][1]) == pytest.approx(line, abs=1e-14)
    # Of a fine sampling (2 / pi)^2 to 1 / 2; 16 samples a period take pi^2 / 384 off the mean.
    assert found.dc_share("sum") == pytest.approx(8 / math.pi**2, rel=2 * math.pi**2 / 384 * 2)
    assert found.dc_share("relu") == pytest.approx(found.dc["relu"] / 0.5)
    fourth = float(found.rings["sum"][3])
    assert fourth == pytest.approx((4 / (3 * math.pi)) ** 2, rel=0.1)


def test_rings_are_summed_as_a_loop_sums_them(generator: torch.Generator) -> None:
    """A grid of odd, unequal sides, and N images of K channels; every frequency is in one place."""
    net = identity((Layer("a", 3, 1),))
    with torch.no_grad():
        net.a.weight.copy_(torch.randn(3, 3, 1, 1, generator=generator))
    images = torch.randn(2, 3, 9, 20, generator=generator, dtype=torch.float64)
    found = layer_spectra_2d(net, images, "a")
    responses = net.responses(images, "a").detach()
    power = torch.fft.fft2(responses.abs()).abs().square().mean((0, 1)) / (9 * 20) ** 2 / responses.square().mean()
    rings, corner, counts = [0.0] * 4, 0.0, [0] * 4
    for i in range(9):
        for j in range(20):
            radius = math.hypot(min(i, 9 - i) / 9, min(j, 20 - j) / 20)
            ring = max(1, round(radius * 9))
            if i == j == 0:
                assert found.dc["sum"] == pytest.approx(float(power[0, 0]))
            elif ring <= 4:
                rings[ring - 1] += float(power[i, j])
                counts[ring - 1] += 1
            else:
                corner += float(power[i, j])
    assert found.rings["sum"].tolist() == pytest.approx(rings)
    assert found.counts.tolist() == counts
    assert found.corners["sum"] == pytest.approx(corner)
    assert found.frequencies.tolist() == pytest.approx([1 / 9, 2 / 9, 3 / 9, 4 / 9])
    torch.testing.assert_close(found.radial("sum"), found.rings["sum"] / found.counts)


@pytest.mark.parametrize(
    ("model", "seed", "layers"),
    [
        ("crelu_conv1_4", None, ("conv1", "conv4", "conv5", "conv12")),
        ("avr_conv1_4", 0, ("conv1", "conv5")),
        ("cifar_vgg", 0, None),
        ("convpool_cnn_c_crelu", 0, None),
    ],
)
def test_crelus_identity_and_parseval_hold_in_the_zoo(
    model: str, seed: int | None, layers: tuple[str, ...] | None, generator: torch.Generator
) -> None:
    """Rounding of float64: sums of up to 55 x 55 values of order 1."""
    net = load_model(model, random_weights=seed)
    images = torch.rand(2, 3, net.input_size, net.input_size, generator=generator)
    for name in layers or [each.name for each in net.layers_with_weights]:
        found = layer_spectra_2d(net, images, name)
        whole = [found.energy(signal) for signal in ("responses", "sum", "difference")]
        assert whole == pytest.approx([1, 1, 1], abs=1e-12)
        assert found.energy("relu") + found.energy("negative") == pytest.approx(1, abs=1e-12)
        responses = net.responses(images, name).double()
        assert found.identity_error < 1e-13 * max(1.0, float(responses.abs().max()))
        assert found.spectrum_error < 1e-13
        torch.testing.assert_close(found.rings["difference"], found.rings["responses"], rtol=1e-12, atol=1e-15)
        # And the layer's own features have the DC that is said of its activation.
        features, total = net.features(images, name).double(), float(responses.square().mean())
        phases = features.chunk(2, 1) if net.layer(name).activation == "crelu" else (features,)
        kind = {"crelu": ("relu", "negative"), "relu": ("relu",), "avr": ("sum",), "none": ("responses",)}
        for phase, signal in zip(phases, kind[net.layer(name).activation], strict=True):
            expected = float(phase.mean((2, 3)).square().mean()) / total
            assert found.dc[signal] == pytest.approx(expected, rel=1e-9)


def test_layers_without_an_activation_or_a_response_are_refused() -> None:
    net = randomise(identity((Layer("a", 2, 1), Layer("p", kernel=2, stride=2, kind="max_pool"))), 0)
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    with pytest.raises(CallError, match="max-pooling p has no activation; a have one"):
        layer_spectra_2d(net, images, "p")
    with pytest.raises(CallError, match="responses of a are 0"):
        layer_spectra_2d(net, torch.zeros_like(images), "a")
    with pytest.raises(CallError, match="no layer 'b'"):
        layer_spectra_2d(net, images, "b")


def test_every_figure_is_drawn(generator: torch.Generator) -> None:
    """Ten to thirteen hundred pixels wide, with something on it."""
    waves = pulse_waves(1, 0)
    layers = layer_spectra_1d(pulse_network(0), waves.waves, rate=RATE)
    wave = amplitude_spectrum(waves.waves[0, 0], RATE)
    image = torch.rand(16, 12, generator=generator) - 0.5
    drawn = (
        figures.series_figure(series_errors(example(), (1, 4, 10)), 20),
        figures.example_figure(example(), 6),
        figures.network_figure(network_spectra(example())),
        figures.dc_figure(dc_features(3, 10), 1),
        figures.training_figure(train_dc_models(2, 2, 10)),
        figures.pulse_figure(layers[2], Spectrum(wave.frequencies, wave.amplitudes), float(waves.heart_rates[0])),
        figures.spectra_figure(layers),
        figures.image_spectra_figure([shown(image), shown(-image)], "two layers"),
    )
    for each in drawn:
        assert 1000 <= each.width <= 1300
        assert len(each.convert("L").getcolors(256) or ()) > 20
