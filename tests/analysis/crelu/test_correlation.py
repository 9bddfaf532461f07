import itertools
import math

import pytest
import torch

from reconstruct import CallError
from reconstruct.analysis.crelu.correlation import lacking, mean_absolute_cosine, outgoing_correlation
from reconstruct.network.architecture import Architecture, Layer
from reconstruct.network.network import Network
from reconstruct.network.surgery import randomise


def chain(*layers: Layer, seed: int = 0) -> Network:
    return randomise(Network(Architecture("net", layers, 16, (0.5,) * 3, (0.25,) * 3)), seed).eval()


@pytest.mark.parametrize("pool", [(), (Layer("pool1", kernel=2, stride=2, kind="max_pool"),)])
def test_against_every_two_features(pool: tuple[Layer, ...]) -> None:
    """Means and deviations of all pairs and of all other two features, by loops; a pooling between changes nothing."""
    net = chain(Layer("conv1", 5, 3, activation="crelu"), *pool, Layer("conv2", 7, 3))
    weight = net.convolution("conv2").weight.detach().double()
    unit = [weight[:, i].flatten() / weight[:, i].norm() for i in range(10)]
    others = [(i, j) for i, j in itertools.combinations(range(10), 2) if j != i + 5]
    pair = [float(unit[i] @ unit[i + 5]) for i in range(5)]
    other = [float(unit[i] @ unit[j]) for i, j in others]
    found = outgoing_correlation(net, "conv1")
    assert (found.above, found.paired) == ("conv2", "phases")
    assert found.pair.tolist() == pytest.approx(pair, abs=1e-14)
    absolute = torch.tensor(other, dtype=torch.float64).abs()
    assert found.non_pair_mean == pytest.approx(float(absolute.mean()), abs=1e-14)
    assert found.non_pair_std == pytest.approx(float(absolute.std(correction=0)), abs=1e-12)
    assert found.non_pairs == len(other)
    without = torch.tensor([[i in both for both in others] for i in range(10)]).logical_not()
    left_out = torch.stack([absolute[kept].mean() for kept in without])
    assert found.non_pair_standard_error == pytest.approx(float((9 * left_out.var(correction=0)).sqrt()), abs=1e-12)
    assert found.pair_standard_error == pytest.approx(float(torch.tensor(pair).abs().std() / 5**0.5), abs=1e-7)
    record = found.record()
    assert record["pair_mean"] == pytest.approx(sum(map(abs, pair)) / 5)
    assert record["pair_signed_mean"] == pytest.approx(sum(pair) / 5)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_layer_that_uses_responses_or_their_moduli(sign: float) -> None:
    """Weights w and -w on the two phases are w on the response, w and w are w on its modulus."""
    net = chain(Layer("conv1", 6, 3, activation="crelu"), Layer("conv2", 4, 3))
    weight = net.convolution("conv2").weight
    with torch.no_grad():
        weight[:, 6:] = sign * weight[:, :6]
    found = outgoing_correlation(net, "conv1")
    # Unit vectors of 36 numbers in float64.
    assert found.pair.tolist() == pytest.approx([sign] * 6, abs=36 * torch.finfo(torch.float64).eps)


def test_pairing_filters_stand_in_for_phases() -> None:
    """A ReLU layer with planted opposites: their outgoing weights are compared, each pair once."""
    net = chain(Layer("conv1", 8, 5), Layer("conv2", 4, 3))
    first, second = net.convolution("conv1").weight, net.convolution("conv2").weight
    with torch.no_grad():
        first[4:] = -first[:4]
        second[:, 4:] = -0.5 * second[:, :4]
    found = outgoing_correlation(net, "conv1")
    assert found.paired == "pairing filters"
    assert found.pair.tolist() == pytest.approx([-1.0] * 4, abs=1e-14)


def test_chance_is_the_mean_absolute_cosine() -> None:
    """On a line 1, in the plane 2 / pi, in space (uniform in [-1, 1], Archimedes) 1/2; many dimensions: a normal's."""
    assert mean_absolute_cosine(1) == pytest.approx(1)
    assert mean_absolute_cosine(2) == pytest.approx(2 / math.pi)
    assert mean_absolute_cosine(3) == pytest.approx(0.5)
    assert mean_absolute_cosine(10_000) == pytest.approx(math.sqrt(2 / (math.pi * 10_000)), rel=1e-4)


def test_what_a_model_lacks() -> None:
    net = chain(Layer("conv1", 4, 3), Layer("pool1", kernel=2, stride=2, kind="max_pool"), Layer("conv2", 4, 3))
    assert lacking(net, "conv1") is None
    with pytest.raises(CallError, match="no convolution with weights above conv2"):
        outgoing_correlation(net, "conv2")
    with pytest.raises(CallError, match="max-pooling pool1 has no responses of its own"):
        outgoing_correlation(net, "pool1")
