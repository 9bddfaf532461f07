import pytest
import torch

from reconstruct import CallError, load_model
from reconstruct.analysis.crelu.rectify import rectify, three_shades
from reconstruct.network.network import Network


@pytest.mark.parametrize("layer", ["conv1", "conv3"])
def test_what_each_rectification_keeps(net: Network, photograph: torch.Tensor, layer: str) -> None:
    """p - q = z, p + q = |z|, p q = 0; both phases have the response's energy; filters are the layer's by number."""
    numbers = [7, 3]
    responses = net.responses(photograph, layer).detach()[0]
    found = rectify(net, photograph, layer, numbers)
    assert [each.number for each in found] == numbers
    for each in found:
        z = responses[each.number]
        assert torch.allclose(each.response, z, atol=1e-5 * float(z.abs().max()))
        assert torch.equal(each.relu - each.negative, each.response)
        assert torch.equal(each.relu + each.negative, each.avr)
        assert not (each.relu * each.negative).any()
        assert torch.equal(each.filter, net.convolution(layer).weight[each.number])
        record = each.record()
        other = float(each.negative.double().square().sum() / each.response.double().square().sum())
        assert record["energy_kept"]["relu"] == pytest.approx(1 - other, abs=1e-12)
        assert record["positive_share"] == pytest.approx(float((z > 0).double().mean()), abs=1e-3)
        assert record["avr_mean"] == pytest.approx(2 * record["relu_mean"] - record["response_mean"], abs=1e-9)


def test_telling_filters_say_different_things(photograph: torch.Tensor) -> None:
    """Opposites and copies of filters say nothing new: of 24 planted filters the 12 different ones are chosen first."""
    net = load_model("convpool_cnn_c")
    weight = net.convolution("conv1").weight
    with torch.no_grad():
        # 27 numbers: any 12 filters are independent. What is left of a copy is rounding.
        weight[12:24] = -2 * weight[:12]
        weight[24:] = 0
    net.convolution("conv1").bias.data.zero_()
    chosen = [each.number for each in rectify(net, photograph[..., :32, :32], "conv1", count=12)]
    assert sorted(number % 12 for number in chosen) == list(range(12))


def test_wrong_calls(net: Network, photograph: torch.Tensor) -> None:
    with pytest.raises(CallError, match="has filters 0 to 95, and no 96"):
        rectify(net, photograph, "conv1", [96])
    with pytest.raises(CallError, match="one image"):
        rectify(net, photograph.repeat(2, 1, 1, 1), "conv1")
    with pytest.raises(CallError, match="max-pooling pool1 has no weights"):
        rectify(load_model("convpool_cnn_c"), photograph, "pool1")


def test_three_shades(net: Network, photograph: torch.Tensor) -> None:
    """Black below 0, white above the bound; rectified there is no black, and what was white is white."""
    values = torch.tensor([-2.0, -1e-9, 0.0, 1.0, 1.5, 3.0])
    assert three_shades(values, 1.0).tolist() == [0, 0, 1, 1, 2, 2]
    assert three_shades(torch.zeros(2), 0.0).tolist() == [1, 1]
    (one,) = rectify(net, photograph, "conv1", [7])
    shades = one.shades()
    assert set(shades["response"].unique().tolist()) == {0, 1, 2}
    assert torch.equal(shades["relu"], shades["response"].clamp(min=1))
    assert torch.equal(shades["avr"], torch.maximum(shades["relu"], shades["negative"]))
    record = one.record()["shades"]
    assert record["response"][0] == pytest.approx(float((one.response < 0).double().mean()))
    assert record["relu"][0] == 0
    assert sum(record["negative"]) == pytest.approx(1)
