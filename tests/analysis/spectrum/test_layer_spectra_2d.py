import math

import pytest
import torch

from reconstruct import load_model
from reconstruct.analysis.spectrum.layer_spectra_2d import SIGNALS, ImageSpectra, layer_spectra_2d
from reconstruct.errors import CallError
from reconstruct.network.architecture import Layer
from reconstruct.network.surgery import randomise
from tests.builders.networks import identity_net


def shown(values: torch.Tensor) -> ImageSpectra:
    """Spectra of responses H x W."""
    return layer_spectra_2d(identity_net(), values.double().expand(1, 3, -1, -1), "a")


def test_a_constant_is_all_dc() -> None:
    found = shown(torch.full((8, 8), 0.25))
    assert [found.dc_share(name) for name in SIGNALS] == pytest.approx([1, 1, 0, 1, 1])
    assert [found.energy(name) for name in SIGNALS] == pytest.approx([1, 1, 0, 1, 1])
    assert all(float(found.rings[name].abs().max()) < 1e-30 for name in SIGNALS)


def test_a_cosine_gets_the_dc_of_its_rectified_form() -> None:
    """|cos| with a period of 16 samples has the mean 2 cot(pi / 16) / 16, and lines at even multiples only."""
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
    net = identity_net((Layer("a", 3, 1),))
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
    net = randomise(identity_net((Layer("a", 2, 1), Layer("p", kernel=2, stride=2, kind="max_pool"))), 0)
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    with pytest.raises(CallError, match="max-pooling p has no activation; a have one"):
        layer_spectra_2d(net, images, "p")
    with pytest.raises(CallError, match="responses of a are 0"):
        layer_spectra_2d(net, torch.zeros_like(images), "a")
    with pytest.raises(CallError, match="no layer 'b'"):
        layer_spectra_2d(net, images, "b")
