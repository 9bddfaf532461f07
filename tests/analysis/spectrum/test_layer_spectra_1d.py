import pytest
import torch
from torch import nn

from reconstruct.analysis.spectrum.amplitude import amplitude_spectrum
from reconstruct.analysis.spectrum.layer_spectra_1d import activation_names, layer_spectra_1d
from reconstruct.errors import CallError


class Shared(nn.Module):
    """One activation, called twice, and another that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.idle = nn.ReLU(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.act(x) - 0.5)


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
