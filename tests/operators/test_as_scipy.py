"""A layer's Jacobian as SciPy's LinearOperator."""

import numpy
import pytest
import torch
from scipy.sparse.linalg import lsqr, svds

from reconstruct import CallError, from_torch, linear_operator, load_model
from reconstruct.network.architecture import Layer
from reconstruct.network.network import Network
from tests.builders.modules import chain, resnet
from tests.builders.networks import random_net

SIZE = (9, 7)


def double(net: Network) -> Network:
    twin = Network(net.architecture, len(net.layers)).double().eval().requires_grad_(False)
    twin.load_state_dict(net.state_dict())
    return twin


def nets() -> dict[str, tuple[Network, str]]:
    first = Layer("conv1", 5, 3, 2, 1, "crelu")
    return {
        "first": (random_net(first), "conv1"),
        "relu": (random_net(Layer("conv1", 4, 3, 1, 1, "relu"), Layer("conv2", 5, 2, 2, 0, "avr")), "conv2"),
        "leaky": (random_net(Layer("conv1", 4, 3, 1, 1, "leaky_crelu", 0.2), Layer("conv2", 5, 2)), "conv2"),
        "max_pool": (random_net(first, Layer("pool1", kernel=2, stride=1, kind="max_pool")), "pool1"),
        "avg_pool": (random_net(first, Layer("pool1", kernel=3, stride=2, padding=1, kind="avg_pool")), "pool1"),
    }


@pytest.mark.parametrize("kind", nets())
def test_it_is_the_dense_jacobian(kind: str, generator: torch.Generator) -> None:
    """By automatic differentiation in double precision; and the responses are J x + offset at the image itself."""
    net, layer = nets()[kind]
    at = torch.rand(3, *SIZE, generator=generator)
    operator = linear_operator(net, layer, SIZE, at=at)
    twin = double(net)
    # The statistics are float32 numbers in both; a float64 network holds them exactly.
    function = lambda x: twin.responses(x[None], layer)[0]  # noqa: E731
    jacobian = torch.autograd.functional.jacobian(function, at.double())
    dense = jacobian.reshape(operator.shape).numpy()
    assert operator.shape == (numpy.prod(operator.response_shape), 3 * 9 * 7)
    assert operator.dtype == numpy.float64
    # Sums of at most 72 products of order 1 in another order: 1e-13.
    numpy.testing.assert_allclose(operator.matmat(numpy.eye(operator.shape[1])), dense, rtol=0, atol=1e-13)
    numpy.testing.assert_allclose(operator.rmatmat(numpy.eye(operator.shape[0])), dense.T, rtol=0, atol=1e-13)
    vector, values = (numpy.random.default_rng(0).normal(size=side) for side in operator.shape[::-1])
    numpy.testing.assert_allclose(operator @ vector, dense @ vector, rtol=0, atol=1e-12)
    numpy.testing.assert_allclose(operator.T @ values, dense.T @ values, rtol=0, atol=1e-12)
    found = operator @ at.double().flatten().numpy() + operator.offset
    numpy.testing.assert_allclose(found, function(at.double()).flatten().numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "eps"), [(torch.float64, 2.3e-16), (torch.float32, 1.2e-7)])
def test_the_dot_test_at_the_default_model(
    net: Network, photograph: torch.Tensor, dtype: torch.dtype, eps: float
) -> None:
    """<J v, u> = <v, J^T u>: sums of n = 96 x 25 products a layer are rounded by some sqrt(n) eps."""
    operator = linear_operator(net, "conv2", (61, 67), at=photograph[0, :, :61, :67], dtype=dtype)
    v, u = (numpy.random.default_rng(1).normal(size=side).astype(operator.dtype) for side in operator.shape[::-1])
    forward, back = operator @ v, operator.T @ u
    assert forward.dtype == back.dtype == operator.dtype
    first, second = float(forward.astype(float) @ u), float(v.astype(float) @ back)
    assert abs(first - second) <= 50 * eps * (numpy.linalg.norm(forward) * numpy.linalg.norm(u))


def test_scipys_lsqr_inverts_a_first_layer(generator: torch.Generator) -> None:
    """Full column rank gives back the image, up to the condition times the tolerance. J needs no image."""
    net = random_net(Layer("conv1", 12, 3, 1, 1, "crelu"))
    operator = linear_operator(net, "conv1", SIZE)
    image = torch.rand(3, *SIZE, generator=generator)
    responses = double(net).responses(image[None].double(), "conv1").flatten().numpy()
    found, stop, *_, condition = lsqr(operator, responses - operator.offset, atol=1e-12, btol=1e-12)[:7]
    assert stop in (1, 2)
    assert condition < 1e4
    numpy.testing.assert_allclose(found, image.double().flatten().numpy(), rtol=0, atol=1e4 * 1e-12 * 14)


def test_scipys_svds_are_the_largest_singular_values() -> None:
    net, layer = nets()["relu"]
    operator = linear_operator(net, layer, SIZE, at=torch.full((3, *SIZE), 0.3))
    dense = operator.matmat(numpy.eye(operator.shape[1]))
    expected = numpy.linalg.svd(dense, compute_uv=False)[:4]
    found = svds(operator, k=4, return_singular_vectors=False, v0=numpy.ones(min(operator.shape)))
    numpy.testing.assert_allclose(numpy.sort(found)[::-1], expected, rtol=1e-10)


def test_what_is_refused() -> None:
    net = load_model("convpool_cnn_c_crelu", random_weights=0)
    with pytest.raises(CallError, match="conv2 is not linear because of the crelu of conv1: give the image"):
        linear_operator(net, "conv2", 32)
    with pytest.raises(CallError, match="the image is 3 x 32 x 32, not 3 x 31 x 32"):
        linear_operator(net, "conv2", 32, at=torch.zeros(3, 31, 32))
    with pytest.raises(CallError, match="smaller than"):
        linear_operator(net, "conv2", 3, at=torch.zeros(3, 3, 3))


def test_a_module_s_layer_is_that_of_its_chain(generator: torch.Generator) -> None:
    net = from_torch(chain(), input_size=16)
    layers = net.as_chain("5")
    assert layers is not None
    at = torch.rand(3, 16, 16, generator=generator)
    own, same = (linear_operator(each, "5", 16, at=at) for each in (net, layers))
    v = numpy.random.default_rng(0).standard_normal(own.shape[1])
    numpy.testing.assert_array_equal(own @ v, same @ v)
    numpy.testing.assert_array_equal(own.offset, same.offset)


def test_a_module_that_is_no_chain_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(CallError, match="no chain of convolutions up to layer1"):
        linear_operator(resnet(), "layer1", 32, at=torch.rand(3, 32, 32, generator=generator))
