"""The Jacobian of modules by automatic differentiation, of activations as they are and on average."""

import pytest
import torch
from torch import nn

from reconstruct.errors import CallError
from reconstruct.network.module import ModuleNetwork, from_torch
from reconstruct.operators.autodiff import Differentiation
from reconstruct.operators.layer_stack import LayerStack
from tests.builders.modules import IMAGENET, ResNet, drawn
from tests.builders.networks import randn


def inner(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first.double() * second.double()).sum())


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def exact(module: nn.Module) -> ModuleNetwork:
    """In float64."""
    net = from_torch(drawn(module), IMAGENET, input_size=32)
    net.module.double()
    net.mean, net.std = net.mean.double(), net.std.double()
    return net


@pytest.mark.parametrize("layer", ["layer1.0", "layer1.1.conv2", "mix"])
def test_smoothed_products_are_those_of_the_smoothed_responses(layer: str, images: torch.Tensor) -> None:
    """The dot test and a central difference, for some of the images of a batch; then the network is what it was."""
    net, wide = exact(ResNet()), images.double()
    operator = Differentiation(net, layer, (32, 32))
    before = operator.linearise(wide).responses
    spreads = [spread / 2 for spread in operator.spreads(wide)]
    whole = operator.linearise(wide, spreads)
    assert float((whole.responses - before).norm() / before.norm()) > 1e-2
    chosen = torch.tensor([2, 0])
    at = whole[chosen]
    step = randn(2, 3, 32, 32, seed=1, dtype=torch.float64)
    product = operator.product(at, step)
    pulled = randn(*product.shape, seed=2, dtype=torch.float64)
    assert inner(product, pulled) == pytest.approx(inner(step, operator.transposed(at, pulled)), rel=1e-9)
    size = 1e-6
    ahead, behind = (operator.linearise(wide[chosen] + sign * size * step, spreads).responses for sign in (1, -1))
    assert float(((ahead - behind) / (2 * size) - product).norm() / product.norm()) < 1e-6
    assert torch.equal(operator.linearise(wide).responses, before)


def chain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, stride=2),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(8, 8, 3),
        nn.ReLU6(),
        nn.AvgPool2d(2, 1),
        nn.Conv2d(8, 5, 1),
    )


def test_of_a_chain_it_agrees_with_the_stack(images: torch.Tensor) -> None:
    """Spreads, smoothed responses and products. In float32: sums of some hundred products, through four layers."""
    net = from_torch(drawn(chain()), IMAGENET, input_size=32)
    found = net.as_chain("9")
    assert found is not None
    stack, operator = LayerStack(found, "9", (32, 32)), Differentiation(net, "9", (32, 32))
    spreads, same = stack.spreads(images), operator.spreads(images)
    torch.testing.assert_close([spread for spread in spreads if spread is not None], same, rtol=1e-4, atol=0)
    halves = [None if spread is None else spread / 2 for spread in spreads]
    first = stack.linearise(images, halves)
    second = operator.linearise(images, [spread for spread in halves if spread is not None])
    step, pulled = randn(*images.shape, seed=1), randn(*first.responses.shape, seed=2)
    for one, other in (
        (first.responses, second.responses),
        (stack.product(first, step), operator.product(second, step)),
        (stack.transposed(first, pulled), operator.transposed(second, pulled)),
    ):
        assert float((one - other).norm() / one.norm()) < 1e-5


def test_spreads_of_another_layer_are_refused(images: torch.Tensor) -> None:
    net = from_torch(drawn(chain()), IMAGENET, input_size=32)
    below, above = (Differentiation(net, layer, (32, 32)) for layer in ("4", "9"))
    with pytest.raises(CallError, match="has called 1 activations, and 3 spreads are given"):
        below.linearise(images, above.spreads(images))
    with pytest.raises(CallError, match="calls more activations than the 1 whose"):
        above.linearise(images, below.spreads(images))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, when it loads derivatives
def test_parts_without_a_second_derivative_are_differentiated_forward(images: torch.Tensor) -> None:
    """torch has none of ``Hardsigmoid``, which MobileNetV3 has in each block; the dot test and a central difference."""

    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.gate = nn.Conv2d(3, 6, 3), nn.Sequential(nn.Conv2d(6, 6, 1), nn.Hardsigmoid())

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            kept: torch.Tensor = self.first(images)
            return kept * self.gate(kept)

    class Within(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.last = Squeezed(), nn.Conv2d(6, 5, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            given: torch.Tensor = self.last(self.block(images))
            return given

    net, wide = exact(Within()), images.double()
    operator = Differentiation(net, "last", (32, 32))
    at = operator.linearise(wide)[torch.tensor([2, 0])]
    step = randn(2, 3, 32, 32, seed=1, dtype=torch.float64)
    product = operator.product(at, step)
    pulled = randn(*product.shape, seed=2, dtype=torch.float64)
    assert inner(product, pulled) == pytest.approx(inner(step, operator.transposed(at, pulled)), rel=1e-9)
    size = 1e-7
    ahead, behind = (operator.linearise(wide[[2, 0]] + sign * size * step).responses for sign in (1, -1))
    assert float(((ahead - behind) / (2 * size) - product).norm() / product.norm()) < 1e-4
