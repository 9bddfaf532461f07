"""What torch is asked for under ``--device cuda``, traced without a GPU: nothing mixes a GPU's numbers with the CPU's.

The meta device stands for the GPU: its tensors have shapes and types and no numbers, and an operation on them and on
the CPU's is an error, as it is with a GPU's. What goes to CuPy is held against its signatures by
``test_cupy_contract``; here arrays stay tensors. What asks for a number, as searches and smoothed activations do,
cannot be traced.
"""

from collections.abc import Callable, Iterator

import pytest
import torch

from reconstruct.inversion.most_probable.ensemble import roughness
from reconstruct.network.architecture import Architecture, Layer
from reconstruct.network.network import Network
from reconstruct.operators import arrays, torus
from reconstruct.operators.autodiff import Differentiation
from reconstruct.operators.layer_stack import LayerStack
from reconstruct.prior import lags
from reconstruct.prior.gaussian import Prior

LAYERS = (
    Layer("a", 4, kernel=5, stride=2, padding=1, activation="crelu"),
    Layer("top", kernel=3, stride=2, kind="max_pool"),
    Layer("mean", kernel=3, padding=1, kind="avg_pool"),
    Layer("b", 6, kernel=3, padding=1, sides=(1, 0, 0, 1), activation="crelu"),
)
SIZE = (63, 61)


GPU = "meta"


def on_gpu(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device=GPU)


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """A network on a GPU that is not there; arrays stay tensors."""
    monkeypatch.setattr(arrays, "array_of", lambda tensor: tensor.detach())
    monkeypatch.setattr(arrays, "to_torch", lambda tensor: tensor)
    with torch.no_grad():
        yield Network(Architecture("fake", LAYERS, 48, (0.5,) * 3, (0.2,) * 3)).to(GPU)


def stack_of(net: Network) -> list[torch.Tensor]:
    stack, images = LayerStack(net, "b", SIZE), on_gpu(2, 3, *SIZE)
    at = stack.linearise(images)
    spreads = [each for each in stack.spreads(images) if each is not None]
    linear = [stack.product(at, images), stack.transposed(at, at.responses)]
    return [at.responses, *spreads, *linear, net.features(images, "b")]


def torus_of(net: Network) -> list[torch.Tensor]:
    stack, images = LayerStack(net, "mean", (64, 64), periodic=True), on_gpu(2, 3, 64, 64)
    at = stack.linearise(images)
    return [stack.product(at, images), stack.transposed(at, at.responses)]


def differentiation_of(net: Network) -> list[torch.Tensor]:
    operator, images = Differentiation(net, "b", SIZE), on_gpu(2, 3, *SIZE)
    at = operator.linearise(images)
    return [at.responses, operator.product(at, images), operator.transposed(at, at.responses)]


def prior_of(net: Network) -> list[torch.Tensor]:
    prior = Prior(SIZE, step=2, device=GPU)
    white = on_gpu(2, *prior.shape)
    return [
        prior.image(white), prior.field_adjoint(white), prior.white(on_gpu(2, 3, *SIZE)), prior.precision(2),
        prior.draw(2, torch.Generator()),
    ]  # fmt: skip


def covariances_of(net: Network) -> list[torch.Tensor]:
    matrices = lags.spectrum(on_gpu(5, 5, 6, 6), (12, 10))
    return [matrices, torus.inverse(matrices, 0.1)(on_gpu(2, 6, 12, 10)), roughness(on_gpu(2, 3, 20, 20))]


@pytest.mark.parametrize("part", [stack_of, torus_of, differentiation_of, prior_of, covariances_of])
def test_every_part_stays_on_the_gpu(part: Callable[[Network], list[torch.Tensor]], net: Network) -> None:
    assert {each.device.type for each in part(net)} == {GPU}


def test_a_tensor_that_stays_behind_is_found(net: Network) -> None:
    """So that the test above cannot pass by looking at nothing."""
    with pytest.raises(RuntimeError, match="device"):
        _ = on_gpu(2) + torch.ones(2)
    stack = LayerStack(net, "a", SIZE)
    stack.mean = torch.zeros(1, 3, 1, 1)
    with pytest.raises(RuntimeError):
        stack.linearise(on_gpu(1, 3, *SIZE))
