"""What the network of a part of a picture gives: the whole picture's responses there, and no others."""

import itertools

import pytest
import torch

from reconstruct.errors import CallError
from reconstruct.network.architecture import Layer
from reconstruct.network.parts import Area, Span, for_part
from reconstruct.operators.layer_stack import LayerStack
from tests.builders.networks import exact_net, randn

PADDED = (
    Layer("a", 4, kernel=5, stride=2, padding=1, activation="crelu"),
    Layer("pool", kernel=3, stride=2, padding=1, kind="max_pool"),
    Layer("b", 4, kernel=3, padding=1, activation="crelu"),
    Layer("c", 3, kernel=4, stride=2, padding=2),
)
SPREAD = (
    Layer("a", 4, kernel=7, stride=3, activation="crelu"),
    Layer("mean", kernel=3, stride=2, padding=1, kind="avg_pool"),
    Layer("b", 6, kernel=3, padding=2, dilation=2, groups=2),
)
SPANS = [((0, 97), (0, 103)), ((0, 61), (23, 90)), ((17, 75), (0, 103)), ((31, 97), (40, 103)), ((8, 90), (13, 85))]


@pytest.mark.parametrize("layers", [PADDED, SPREAD])
def test_a_part_gives_what_the_whole_gives_there(layers: tuple[Layer, ...]) -> None:
    """At whichever borders it is cut, for every layer: what its windows see, and all of it."""
    net, size = exact_net(*layers), (97, 103)
    image = torch.rand(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for layer, (rows, columns) in itertools.product(net.layer_names, SPANS):
        part = Area(Span(*rows), Span(*columns))
        own, where = for_part(net, layer, size, part)
        found = own.responses(image[(..., *part.slices)], layer)
        assert found.shape[2:] == where.size
        torch.testing.assert_close(found, net.responses(image, layer)[(..., *where.slices)], rtol=0, atol=1e-12)
        if part.size == size:
            assert where.size == net.shapes(size)[layer]


@pytest.mark.parametrize("layers", [PADDED, SPREAD])
def test_its_operator_is_its_jacobian(layers: tuple[Layer, ...]) -> None:
    net, part = exact_net(*layers), Area(Span(17, 75), Span(13, 85))
    layer = layers[-1].name
    own, _ = for_part(net, layer, (97, 103), part)
    image = torch.rand(1, 3, *part.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stack = LayerStack(own, layer, part.size, dtype=torch.float64)
    at = stack.linearise(image)
    torch.testing.assert_close(at.responses, own.responses(image, layer), rtol=0, atol=1e-12)
    change, pulled = randn(*image.shape, dtype=torch.float64), randn(*at.responses.shape, dtype=torch.float64, seed=1)
    forward = (stack.product(at, change) * pulled).sum()
    backward = (change * stack.transposed(at, pulled)).sum()
    assert float(forward) == pytest.approx(float(backward), rel=1e-10)


def test_what_no_part_has() -> None:
    rounded = exact_net(Layer("a", 4, 3), Layer("pool", kernel=2, stride=2, kind="max_pool", ceil_mode=True))
    with pytest.raises(CallError, match="pool rounds its grid up"):
        for_part(rounded, "pool", (40, 40), Area(Span(0, 20), Span(0, 40)))
    for_part(rounded, "a", (40, 40), Area(Span(0, 20), Span(0, 40)))
    with pytest.raises(CallError, match="too small for b"):
        for_part(exact_net(*PADDED), "c", (97, 103), Area(Span(20, 34), Span(0, 103)))
