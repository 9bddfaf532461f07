import math

import pytest
import torch
from torch import nn

from reconstruct import CallError, from_torch
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


def test_filters_of_other_channels_are_not_paired(generator: torch.Generator) -> None:
    """Two groups are as two layers: opposites in the other group do not count."""
    half = torch.randn(12, 4, 3, 3, generator=generator)
    both = torch.cat((half, -half))
    index, cosines = pairing(both, groups=2)
    alone = pairing(half)
    assert index.tolist() == [*alone[0].tolist(), *(alone[0] + 12).tolist()]
    assert torch.allclose(cosines, torch.cat((alone[1], alone[1])))
    assert float(pairing(both)[1].max()) == pytest.approx(-1)
    # In groups of two there is one other filter: the cosine of two random filters has no sign to choose.
    assert abs(float(random_pairing((400, 1, 5, 5), 0, groups=200).mean())) < 0.05
    assert float(random_pairing((400, 1, 5, 5), 0).mean()) < -0.4


def krizhevsky(generator: torch.Generator) -> nn.Sequential:
    """The first layers of AlexNet as it was in 2012, a twelfth as wide: normalised across channels, and two groups."""
    module = nn.Sequential(
        nn.Conv2d(3, 8, 11, stride=4), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 20, 5, padding=2, groups=2), nn.ReLU(), nn.Conv2d(20, 20, 3, groups=20), nn.ReLU(),
    )  # fmt: skip
    for each in module.parameters():
        each.data = torch.randn(each.shape, generator=generator)
    return module


def test_convolutions_beyond_a_chain(generator: torch.Generator) -> None:
    """What lies below a convolution does not matter to its filters; a fully grouped one has no pairs."""
    module = krizhevsky(generator)
    net = from_torch(module, input_size=67, name="alexnet")
    index, cosines = pairing(module[4].weight.detach(), 2)
    found = layer_pairs(net, "4")
    assert torch.equal(found.index, index)
    assert torch.equal(found.cosines, cosines)
    assert (found.groups, found.of_image, layer_pairs(net, "0").of_image) == (2, False, True)
    assert torch.equal(layer_pairs(net, "1").filters, module[0].weight)
    with pytest.raises(CallError, match="one filter in each of 20 groups"):
        layer_pairs(net, "6")
    with pytest.raises(CallError, match="5 of alexnet is no convolution, and has no filters: it is a ReLU"):
        layer_pairs(net, "5")


def test_a_norm_that_turns_filters_round_is_folded_in(generator: torch.Generator) -> None:
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3)).eval()
    module[0].weight.data = torch.randn(6, 3, 3, 3, generator=generator)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, 1.0])
    module[1].weight.data = 2 * signs
    turned = pairing(module[0].weight.detach() * signs.view(-1, 1, 1, 1))
    found = layer_pairs(from_torch(module, input_size=16), "0")
    assert torch.equal(found.index, turned[0])
    assert not torch.equal(found.index, pairing(module[0].weight.detach())[0])
