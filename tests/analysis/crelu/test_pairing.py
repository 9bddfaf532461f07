import math

import pytest
import torch

from reconstruct.analysis.crelu.pairing import layer_pairs, matched_pairing, pairing, random_pairing
from reconstruct.network.network import Network


def test_planted_pairs_are_found(generator: torch.Generator) -> None:
    """Opposites among random filters, each scaled by itself: found exactly, with cosine -1."""
    half = torch.randn(20, 3, 5, 5, generator=generator)
    scales = torch.rand(20, generator=generator).view(-1, 1, 1, 1) + 0.5
    order = torch.randperm(40, generator=generator)
    index, cosines = pairing(torch.cat((half, -scales * half))[order])
    place = order.argsort()
    assert torch.equal(index[place[:20]], place[20:])
    assert torch.equal(index[place[20:]], place[:20])
    assert torch.allclose(cosines, -torch.ones(40, dtype=torch.float64), atol=1e-6)


def test_random_filters_of_many_numbers_are_nearly_orthogonal() -> None:
    """The least of K - 1 cosines, each about normal of variance 1 / n."""
    cosines = random_pairing((96, 3, 11, 11), 0)
    expected = -math.sqrt(2 * math.log(95) / 363)
    assert float(cosines.mean()) == pytest.approx(expected, rel=0.25)


def test_the_control_has_the_filters_own_covariance(generator: torch.Generator) -> None:
    """White filters: as random ones. Filters in a plane: nearly every direction has its opposite there."""
    white = torch.randn(400, 1, 3, 3, generator=generator)
    control, chance = matched_pairing(white, 0), random_pairing(white.shape, 1)
    assert float(control.mean()) == pytest.approx(float(chance.mean()), rel=0.05)
    plane = torch.randn(96, 2, generator=generator) @ torch.randn(2, 75, generator=generator)
    control = matched_pairing(plane.view(96, 3, 5, 5), 0)
    # Of 95 directions of a plane one lies within 2 pi / 95, on average half of that, of the opposite.
    assert float(control.mean()) < math.cos(math.pi - 2 * math.pi / 95)
    assert torch.equal(control, matched_pairing(plane.view(96, 3, 5, 5), 0))


def test_a_layers_pairs(net: Network) -> None:
    """JSON gets what the functions find on the layer's weights; mutual pairs are those that choose each other."""
    weight = net.convolution("conv2").weight.detach()
    found = layer_pairs(net, "conv2", seed=3)
    index, cosines = pairing(weight)
    record = found.record()
    assert record["pairing_filter"] == index.tolist()
    assert record["cosine_mean"] == pytest.approx(float(cosines.mean()))
    assert record["random_mean"] == pytest.approx(float(random_pairing(tuple(weight.shape), 3).mean()))
    assert record["filter_shape"] == [192, 1, 1]
    mutual = {frozenset((i, j)) for i, j in enumerate(index.tolist()) if int(index[j]) == i}
    assert record["mutual_pairs"] == len(mutual)
    assert len(found.pairs()) == len(index) - len(mutual)
    assert found.pairs()[0][2] == pytest.approx(float(cosines.min()))
