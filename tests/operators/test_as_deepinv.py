"""Layers as forward operators of deepinv: its laws, and its solvers beside ours. Needs the extra ``deepinv``."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.sparse.linalg import lsqr

import reconstruct
from reconstruct.network.architecture import Layer
from reconstruct.network.network import Network
from tests.builders.networks import random_net
from tests.conftest import ROOT

pytestmark = pytest.mark.extras


@pytest.fixture(scope="module", autouse=True)
def torchvision() -> Iterator[None]:
    """pip's torchvision is built for a torch with CUDA: beside another its operators, which nothing here uses, do not
    load, and it cannot be imported without two of them."""
    package = find_spec("torchvision")
    assert package is not None
    assert package.origin is not None
    try:
        torch.ops.load_library(Path(package.origin).with_name("_C.so"))
        yield
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        yield


def test_the_adjoint_and_the_norm(net: Network, photograph: torch.Tensor) -> None:
    """deepinv's own test of A and A^T, at a first layer and at a linearisation; its norm is the frame's bound."""
    from reconstruct.operators.as_deepinv import TangentPhysics

    with torch.random.fork_rng():  # deepinv draws from the global generator
        torch.manual_seed(0)
        for layer, at in (("conv1", None), ("conv2", photograph[0, :, :61, :67])):
            for dtype, eps in ((torch.float32, 1.2e-7), (torch.float64, 2.3e-16)):
                physics = TangentPhysics(net, layer, (61, 67), at=at, dtype=dtype)
                # |<v, A u> - <u, A^T v>| by the size of <v, A u>, which is |A|_F: rounding by some sqrt(2400) eps.
                assert physics.adjointness_test(num_samples=3, dtype=dtype) <= 50 * eps
                assert physics.A(torch.zeros(2, 3, 61, 67, dtype=dtype)).shape[0] == 2


def test_its_least_squares_are_method_linear(generator: torch.Generator) -> None:
    """A first layer of full column rank, a batch: one solution for both, the image, by CG and by LSQR."""
    from reconstruct.operators.as_deepinv import TangentPhysics

    net = random_net(Layer("conv1", 12, 3, 1, 1, "crelu"))
    images = torch.rand(2, 3, 24, 25, generator=generator)
    features = net.features(images, "conv1")
    ours = reconstruct.invert(net, features, "conv1", "linear", size=(24, 25), tolerance=1e-6)
    physics = TangentPhysics(net, "conv1", (24, 25), max_iter=200, tol=1e-7)
    for solver in ("CG", "lsqr"):
        found = physics.A_dagger(physics.target(features), solver=solver)
        assert found.shape == images.shape
        # The condition number, 3, times float32's rounding of sums of 27 and of 108 products.
        torch.testing.assert_close(found, images, rtol=0, atol=1e-4)
        torch.testing.assert_close(found, ours.image, rtol=0, atol=1e-4)


def test_gradients_through_the_network(generator: torch.Generator) -> None:
    """A_vjp is automatic differentiation's, for linear responses and for ReLU's features, and for any size."""
    from reconstruct.operators.as_deepinv import LayerPhysics

    for activation in ("crelu", "relu", "avr"):
        net = random_net(Layer("conv1", 4, 3, 2, 1, "crelu"), Layer("conv2", 5, 3, 1, 1, activation))
        physics = LayerPhysics(net, "conv2")
        for size in ((11, 9), (8, 14)):
            images = torch.rand(2, 3, *size, generator=generator)
            reached = physics(images)
            torch.testing.assert_close(reached, physics.target(net.features(images, "conv2")), rtol=0, atol=1e-6)
            pulled = torch.randn(reached.shape, generator=generator)
            x = images.clone().requires_grad_(True)
            (expected,) = torch.autograd.grad(physics.A(x), x, pulled)
            atol = 1e-5 * float(expected.abs().max())
            torch.testing.assert_close(physics.A_vjp(images, pulled), expected, rtol=0, atol=atol)
            change = 1e-3 * torch.randn(images.shape, generator=generator)
            product = physics.A_jvp(images, change)
            inner = float((product * pulled).sum() - (change * expected).sum())
            assert abs(inner) <= 1e-5 * float(product.norm() * pulled.norm())


def test_features_without_responses_are_refused() -> None:
    from reconstruct.operators.as_deepinv import TangentPhysics

    net = random_net(Layer("conv1", 4, 3, 2, 1, "relu"))
    with pytest.raises(reconstruct.CallError, match="relu does not keep the linear responses: take LayerPhysics"):
        TangentPhysics(net, "conv1", (11, 9)).target(torch.zeros(1, 4, 6, 5))


def test_the_example_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its least squares are SciPy's of as many iterations; its total variation beats layerwise least squares."""
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "deepinv.md").read_text(), flags=re.DOTALL)
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    with torch.random.fork_rng():
        exec(example, names)
    net, image = names["net"], names["image"]
    operator = reconstruct.linear_operator(net, "conv1", 131)
    responses = net.responses(image, "conv1").double().flatten().numpy() - operator.offset
    found = lsqr(operator, responses, atol=0, btol=0, iter_lim=150)[0]
    expected = torch.from_numpy(found).reshape(image.shape).float()
    # The same iterates but for rounding: float32, and the normal equations, which square the condition number. A
    # twentieth of what is still missing is 0.4 dB.
    assert (names["solved"] - expected).norm() <= 0.05 * (expected - image).norm()
    linear = reconstruct.invert(net, net.features(image, "conv2"), "conv2", "linear", size=131).image
    assert reconstruct.quality(image, names["smooth"]).ssim[0] > reconstruct.quality(image, linear).ssim[0] + 0.1
