import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reconstruct.errors import CallError
from reconstruct.network.activations import ACTIVATIONS, activate, derivative, deviations, phases
from reconstruct.network.architecture import Layer
from reconstruct.network.network import Network
from reconstruct.operators.convolution import Convolution, PeriodicConvolution
from reconstruct.operators.layer_stack import LayerStack, Linearised
from reconstruct.operators.pooling import AvgPool, MaxPool
from reconstruct.zoo.load import load_model
from tests.builders.networks import randn, random_net

EPS = torch.finfo(torch.float32).eps


@st.composite
def pools(draw: st.DrawFn, name: str = "pool1", kind: str = "max_pool") -> Layer:
    """Windows that overlap, touch, or leave gaps."""
    kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    return Layer(name, kernel=kernel, stride=stride, padding=draw(st.integers(0, kernel // 2)), kind=kind)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """One to three layers of every activation, stride and padding; kernels smaller than the stride too. A pooling after
    any of them."""
    layers = []
    for i in range(draw(st.integers(1, 3))):
        kernel = draw(st.integers(1, 4))
        stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, kernel - 1))
        activation = draw(st.sampled_from(ACTIVATIONS))
        layers.append(Layer(f"conv{i + 1}", draw(st.integers(1, 5)), kernel, stride, padding, activation, 0.2))
        if draw(st.booleans()):
            layers.append(draw(pools(f"pool{i + 1}", draw(st.sampled_from(["max_pool", "avg_pool"])))))
    return random_net(*layers, channels=draw(st.integers(1, 3)))


def inner(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first.double() * second.double()).sum())


def check_jacobian(net: Network, layer: str, images: torch.Tensor) -> None:
    chain = LayerStack(net, layer, (images.shape[2], images.shape[3]))
    at = chain.linearise(images)
    reached = net.responses(images, layer)
    assert at.responses.shape == reached.shape == (len(images), chain.layer.filters, *chain.grid)
    # Sums of n products differ by n eps of their moduli in the order of their terms; the moduli of a random sum
    # are about sqrt(n) times its size.
    terms = sum(net.architecture.in_channels(each.name) * each.kernel**2 for each in chain.layers)
    relative = 4 * math.sqrt(terms) * EPS
    torch.testing.assert_close(at.responses, reached, rtol=0, atol=relative * 4 * float(reached.abs().max()))

    change, pulled = randn(*images.shape, seed=1), randn(*reached.shape, seed=2)
    product, transposed = chain.product(at, change), chain.transposed(at, pulled)
    bound = len(chain.layers) * relative * float(product.norm() * pulled.norm() + change.norm() * transposed.norm())
    assert abs(inner(product, pulled) - inner(change, transposed)) <= bound

    # In double precision by automatic differentiation, at the same signs.
    double = Network(net.architecture, len(net.layers)).double().eval().requires_grad_(False)
    double.load_state_dict(net.state_dict())
    _, expected = torch.autograd.functional.jvp(
        lambda x: double.responses(x, layer), images.double(), change.double(), strict=False
    )
    # A response within rounding of 0 may have either sign; the seeds leave none that matters.
    error = float((product - expected).norm() / expected.norm().clamp_min(1e-30))
    assert error <= 4 * len(chain.layers) * relative, error


@given(networks(), st.integers(0, 99))
def test_of_small_networks(net: Network, seed: int) -> None:
    images = torch.rand(2, len(net.architecture.mean), 29, 26, generator=torch.Generator().manual_seed(seed))
    layer = net.layer_names[-1]
    if net.architecture.receptive_field(layer) <= 26 and all(
        min(size) > 0 for size in net.architecture.response_sizes((29, 26)).values()
    ):
        check_jacobian(net, layer, images)


@pytest.mark.parametrize("layer", ["pool1", "conv4"])
@pytest.mark.parametrize("model", ["convpool_cnn_c", "convpool_cnn_c_crelu_half", "convpool_cnn_c_avr"])
def test_through_a_max_pooling(model: str, layer: str) -> None:
    images = torch.rand(2, 3, 32, 33, generator=torch.Generator().manual_seed(0))
    check_jacobian(load_model(model, random_weights=0), layer, images)


@pytest.mark.parametrize("model", ["crelu_conv1_4", "all_cnn_b", "avr_conv1_4"])
@pytest.mark.parametrize("layer", ["conv1", "conv3", "conv4"])
def test_of_the_models(model: str, layer: str) -> None:
    images = torch.rand(1, 3, 52, 59, generator=torch.Generator().manual_seed(0))
    check_jacobian(load_model(model, random_weights=0), layer, images)


def test_of_the_trained_model(net: Network, photograph: torch.Tensor) -> None:
    check_jacobian(net, "conv4", photograph[:, :, 60:124, 70:134])


@pytest.mark.parametrize("activation", ["relu", "crelu", "avr", "leaky_crelu"])
@pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
def test_the_network_is_linear_as_long_as_no_sign_changes(activation: str, kind: str) -> None:
    """A step so small that all responses below keep their signs, and all windows their maxima, moves the last ones by
    exactly J times it."""
    net = random_net(
        Layer("conv1", 4, 3, 1, 1, activation, 0.1),
        Layer("pool1", kernel=3, stride=2, padding=1, kind=kind),
        Layer("conv2", 5, 3, 1, 1, activation, 0.1),
        Layer("conv3", 6, 1),
    )
    chain = LayerStack(net, "conv3", (12, 11))
    images = torch.rand(2, 3, 12, 11, generator=torch.Generator().manual_seed(0))
    at = chain.linearise(images)
    for step in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5):
        change = step * randn(*images.shape)
        moved = chain.linearise(images + change)
        if all((before == after).all() for before, after in zip(at.slopes, moved.slopes, strict=True)):
            break
    else:
        pytest.fail("every step changes a sign")
    # A difference of responses is rounded like the responses.
    atol = 64 * EPS * float(at.responses.abs().max())
    torch.testing.assert_close(moved.responses - at.responses, chain.product(at, change), rtol=0, atol=atol)


@st.composite
def periodic(draw: st.DrawFn) -> tuple[PeriodicConvolution, int]:
    stride, kernel = draw(st.integers(1, 4)), (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    size = tuple(stride * draw(st.integers(math.ceil(k / stride), 6)) for k in kernel)
    weight = randn(draw(st.integers(1, 4)), draw(st.integers(1, 3)), *kernel).double()
    return PeriodicConvolution(weight, stride, draw(st.integers(0, 5)), (size[0], size[1])), weight.shape[1]


@given(periodic(), st.integers(-7, 7), st.integers(-7, 7))
def test_a_periodic_layer(given: tuple[PeriodicConvolution, int], down: int, right: int) -> None:
    """By its definition, shifted, and transposed."""
    operator, channels = given
    x = randn(2, channels, *operator.size).double()
    found = operator.convolve(x)
    assert found.shape == (2, len(operator.weight), *operator.grid)
    expected = torch.zeros_like(found)
    step, padding = operator.stride, operator.padding
    for i in range(operator.kernel[0]):
        for j in range(operator.kernel[1]):
            seen = torch.roll(x, (padding - i, padding - j), (2, 3))[:, :, ::step, ::step]
            expected += torch.einsum("kc,nchw->nkhw", operator.weight[:, :, i, j], seen)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)  # at most 108 products of order 1, eps 2e-16
    shifted = operator.convolve(torch.roll(x, (step * down, step * right), (2, 3)))
    torch.testing.assert_close(shifted, torch.roll(found, (down, right), (2, 3)), rtol=0, atol=1e-12)
    z = randn(*found.shape, seed=1).double()
    assert inner(found, z) == pytest.approx(inner(x, operator.transpose(z)), abs=1e-10)


def test_a_torus_that_does_not_fit_is_refused() -> None:
    with pytest.raises(CallError, match="torus of 9 x 8"):
        PeriodicConvolution(torch.zeros(1, 1, 3, 3), 2, 0, (9, 8))
    with pytest.raises(CallError, match="torus of 8 x 2"):
        PeriodicConvolution(torch.zeros(1, 1, 3, 3), 2, 0, (8, 2))


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        ("crelu_conv1_4", "conv4"),
        ("all_cnn_b", "conv3"),
        ("avr_conv1_4", "conv4"),
        ("convpool_cnn_c_crelu_half", "pool2"),
        ("convpool_cnn_c_avr", "conv4"),
    ],
)
def test_a_periodic_chain_commutes_with_shifts_by_all_strides(model: str, layer: str) -> None:
    net = load_model(model, random_weights=0)
    chain = LayerStack(net, layer, (40, 48), periodic=True)
    total = math.prod(each.stride for each in chain.layers)
    assert chain.grid == (40 // total, 48 // total)
    images = torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    at, moved = chain.linearise(images), chain.linearise(torch.roll(images, (2 * total, -total), (2, 3)))
    atol = 1e3 * EPS * float(at.responses.abs().max())  # sums of up to 4,800 products, in another order
    torch.testing.assert_close(moved.responses, torch.roll(at.responses, (2, -1), (2, 3)), rtol=0, atol=atol)
    change, pulled = randn(*images.shape), randn(*at.responses.shape, seed=1)
    product, transposed = chain.product(at, change), chain.transposed(at, pulled)
    bound = 1e2 * EPS * float(product.norm() * pulled.norm() + change.norm() * transposed.norm())
    assert abs(inner(product, pulled) - inner(change, transposed)) <= bound


@given(pools(), st.integers(1, 5), st.integers(1, 5), st.integers(0, 9))
def test_a_max_pooling_on_a_torus(layer: Layer, down: int, right: int, seed: int) -> None:
    """As torch's on an input repeated far enough; transposed; and shifted by its stride. Equal values are frequent."""
    step = layer.stride
    size = (step * max(down, layer.kernel), step * max(right, layer.kernel))
    operator = MaxPool(layer, size, periodic=True)
    x = torch.randint(-3, 3, (2, 3, *size), generator=torch.Generator().manual_seed(seed)).double()
    tiled = torch.roll(x, (layer.padding, layer.padding), (2, 3)).repeat(1, 1, 3, 3)
    expected = torch.nn.functional.max_pool2d(tiled, layer.kernel, step)[:, :, : operator.grid[0], : operator.grid[1]]
    switches = operator.switches(x)
    found = operator.gather(x, switches)
    assert torch.equal(found, expected)
    moved = operator.gather(rolled := torch.roll(x, (step, -2 * step), (2, 3)), operator.switches(rolled))
    assert torch.equal(moved, torch.roll(found, (1, -2), (2, 3)))
    v, u = randn(*x.shape, seed=seed).double(), randn(*found.shape, seed=seed + 1).double()
    product, transposed = operator.gather(v, switches), operator.scatter(u, switches)
    scale = float(product.norm() * u.norm() + v.norm() * transposed.norm())
    assert abs(inner(product, u) - inner(v, transposed)) <= 1e-14 * scale


@given(pools(kind="avg_pool"), st.integers(1, 9), st.integers(1, 9), st.integers(0, 9))
def test_an_average_pooling(layer: Layer, height: int, width: int, seed: int) -> None:
    """As torch's, its padding counted; and transposed."""
    size = (max(height, layer.kernel), max(width, layer.kernel))
    operator = AvgPool(layer, size, dtype=torch.float64)
    x = randn(2, 3, *size, seed=seed).double()
    found = operator.convolve(x)
    assert found.shape[2:] == operator.grid == layer.output_size(size)
    expected = torch.nn.functional.avg_pool2d(x, layer.kernel, layer.stride, layer.padding)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    check_adjoint(operator, x, found, seed)


@given(pools(kind="avg_pool"), st.integers(1, 5), st.integers(1, 5), st.integers(0, 9))
def test_an_average_pooling_on_a_torus(layer: Layer, down: int, right: int, seed: int) -> None:
    """As torch's on an input repeated far enough; transposed; and shifted by its stride."""
    step = layer.stride
    size = (step * max(down, layer.kernel), step * max(right, layer.kernel))
    operator = AvgPool(layer, size, periodic=True, dtype=torch.float64)
    x = randn(2, 3, *size, seed=seed).double()
    tiled = torch.roll(x, (layer.padding, layer.padding), (2, 3)).repeat(1, 1, 3, 3)
    expected = torch.nn.functional.avg_pool2d(tiled, layer.kernel, step)[:, :, : operator.grid[0], : operator.grid[1]]
    found = operator.convolve(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    moved = operator.convolve(torch.roll(x, (step, -2 * step), (2, 3)))
    torch.testing.assert_close(moved, torch.roll(found, (1, -2), (2, 3)), rtol=0, atol=1e-14)
    check_adjoint(operator, x, found, seed)


def check_adjoint(operator: AvgPool, x: torch.Tensor, pooled: torch.Tensor, seed: int) -> None:
    u = randn(*pooled.shape, seed=seed + 1).double()
    transposed = operator.transpose(u)
    assert transposed.shape == x.shape
    scale = float(pooled.norm() * u.norm() + x.norm() * transposed.norm())
    assert abs(inner(pooled, u) - inner(x, transposed)) <= 1e-14 * scale


def test_a_max_pooling_on_a_torus_is_torchs_circular_padding() -> None:
    layer = Layer("pool1", kernel=3, stride=2, padding=1, kind="max_pool")
    x = randn(2, 3, 8, 12)
    expected = torch.nn.functional.max_pool2d(torch.nn.functional.pad(x, (1, 1, 1, 1), mode="circular"), 3, 2)
    operator = MaxPool(layer, (8, 12), periodic=True)
    assert torch.equal(operator.gather(x, operator.switches(x)), expected)


def test_windows_that_share_a_maximum_add_up() -> None:
    """One large value in the middle of four overlapping windows takes from all of them."""
    operator = MaxPool(Layer("pool1", kernel=3, stride=2, padding=1, kind="max_pool"), (4, 4))
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 1, 1] = 1
    switches = operator.switches(x)
    assert switches.flatten().tolist() == [5, 5, 5, 5]
    transposed = operator.scatter(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), switches)
    assert torch.equal(transposed, 10 * x)


def test_a_torus_that_does_not_fit_a_max_pooling_is_refused() -> None:
    layer = Layer("pool1", kernel=3, stride=2, padding=1, kind="max_pool")
    for size in ((9, 8), (8, 2)):
        with pytest.raises(CallError, match=f"torus of {size[0]} x {size[1]} does not hold a max-pooling"):
            MaxPool(layer, size, periodic=True)
        with pytest.raises(CallError, match=f"torus of {size[0]} x {size[1]} does not hold"):
            AvgPool(layer, size, periodic=True)


def test_no_affine_map_stands_for_a_max_pooling() -> None:
    net = load_model("convpool_cnn_c_crelu_half", random_weights=0)
    for layer in ("pool1", "conv4"):
        chain = LayerStack(net, layer, (32, 32))
        with pytest.raises(CallError, match="pool1 is a max-pooling, and no affine map stands for it"):
            chain.affine(torch.zeros(1, 3, 32, 32), [], [])


@pytest.mark.parametrize(
    "pool",
    [(), *((Layer("pool1", kernel=3, stride=1, padding=1, kind=kind),) for kind in ("max_pool", "avg_pool"))],
)
def test_away_from_the_borders_torus_and_layer_agree(pool: tuple[Layer, ...]) -> None:
    net = random_net(Layer("conv1", 4, 3, 2, 1, "crelu"), *pool, Layer("conv2", 5, 3, 1, 1))
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain, torus = (
        LayerStack(net, "conv2", (16, 16), periodic=each).linearise(images).responses for each in (False, True)
    )
    edge = slice(2 + len(pool), -2 - len(pool))
    torch.testing.assert_close(plain[:, :, edge, edge], torus[:, :, edge, edge], rtol=0, atol=1e-5)


def test_affine_without_activations_is_the_network() -> None:
    net = random_net(Layer("conv1", 4, 3, 2, 1, "none"), Layer("conv2", 5, 3, 1, 1, "none"))
    chain = LayerStack(net, "conv2", (12, 11))
    images = torch.rand(2, 3, 12, 11, generator=torch.Generator().manual_seed(0))
    found = chain.affine(images, [torch.ones(1, 4, 1, 1)], [torch.zeros(1, 4, 1, 1)])
    torch.testing.assert_close(found, net.responses(images, "conv2"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", ["crelu", "relu", "none"])
def test_affine_maps_each_feature_by_its_slope_and_offset(activation: str) -> None:
    """Its differences are the Jacobian's product at these slopes, its value that of a network written out."""
    net = random_net(Layer("conv1", 4, 3, 2, 1, activation), Layer("conv2", 5, 3, 1, 1))
    chain = LayerStack(net, "conv2", (12, 11))
    channels = 4 * phases(activation)
    slope, offset = randn(1, channels, 1, 1, seed=3), randn(1, channels, 1, 1, seed=4)
    images = torch.rand(2, 3, 12, 11, generator=torch.Generator().manual_seed(0))
    z = net.responses(images, "conv1")
    expected = net.conv2(torch.cat([z] * phases(activation), 1) * slope + offset)
    found = chain.affine(images, [slope], [offset])
    atol = 64 * EPS * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    product = chain.product(Linearised(found, [slope]), images[:1] - images[1:])
    torch.testing.assert_close(found[:1] - found[1:], product, rtol=0, atol=2 * atol)


def test_affine_takes_the_means_of_an_average_pooling() -> None:
    pool = Layer("pool1", kernel=3, stride=2, padding=1, kind="avg_pool")
    net = random_net(Layer("conv1", 4, 3, 1, 1, "crelu"), pool, Layer("conv2", 5, 3, 1, 1))
    slope, offset = randn(1, 8, 1, 1, seed=3), randn(1, 8, 1, 1, seed=4)
    images = torch.rand(2, 3, 12, 11, generator=torch.Generator().manual_seed(0))
    z = net.responses(images, "conv1")
    pooled = torch.nn.functional.avg_pool2d(torch.cat((z, z), 1) * slope + offset, 3, 2, 1)
    for layer, expected in (("pool1", pooled), ("conv2", net.conv2(pooled))):
        slopes, offsets = [slope, torch.ones(1, 8, 1, 1)], [offset, torch.zeros(1, 8, 1, 1)]
        depth = {"pool1": 1, "conv2": 2}[layer]
        found = LayerStack(net, layer, (12, 11)).affine(images, slopes[:depth], offsets[:depth])
        torch.testing.assert_close(found, expected, rtol=0, atol=64 * EPS * float(expected.abs().max()))


def test_choosing_images_of_a_linearisation() -> None:
    net = random_net(Layer("conv1", 4, 3, 2, 1, "crelu"), Layer("conv2", 5, 3, 1, 1))
    chain = LayerStack(net, "conv2", (12, 11))
    at = chain.linearise(torch.rand(3, 3, 12, 11, generator=torch.Generator().manual_seed(0)))
    change = randn(3, 3, 12, 11)
    keep = torch.tensor([True, False, True])
    torch.testing.assert_close(chain.product(at[keep], change[keep]), chain.product(at, change)[keep])


@pytest.mark.parametrize("size", [(227, 227), (64, 75)])
def test_multiplications_are_those_of_the_operators(net: Network, size: tuple[int, int]) -> None:
    found = net.multiplications("conv4", size)
    chain = LayerStack(net, "conv4", size)
    assert list(found) == ["conv1", "conv2", "conv3", "conv4"]
    for count, operator in zip(found.values(), chain.operators, strict=True):
        assert isinstance(operator, Convolution)
        assert count == operator.multiplications


def test_a_max_pooling_multiplies_nothing() -> None:
    found = load_model("convpool_cnn_c", random_weights=0).multiplications("conv4", (32, 32))
    assert list(found) == ["conv1", "conv2", "conv3", "pool1", "conv4"]
    assert found["pool1"] == 0
    assert found["conv4"] == 192 * 16 * 16 * 96 * 9


def test_an_average_pooling_counts_as_the_convolution_that_it_is() -> None:
    pool = Layer("pool1", kernel=3, stride=2, padding=1, kind="avg_pool")
    net = random_net(Layer("conv1", 4, 3, 1, 1, "crelu"), pool)
    found = net.multiplications("pool1", (12, 11))
    operator = AvgPool(pool, (12, 11)).operator
    assert isinstance(operator, Convolution)
    assert found == {"conv1": 4 * 27 * 12 * 11, "pool1": 8 * operator.multiplications}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_derivatives_are_those_of_the_activations(activation: str) -> None:
    z = randn(2, 3, 5, 4).requires_grad_(True)
    features = activate(z, activation, 0.2)
    found = derivative(z.detach(), activation, 0.2)
    assert found.shape == features.shape
    for phase in range(phases(activation)):
        part = features[:, 3 * phase : 3 * phase + 3]
        (expected,) = torch.autograd.grad(part.sum(), z, retain_graph=True)
        torch.testing.assert_close(found[:, 3 * phase : 3 * phase + 3], expected, rtol=0, atol=0)
    # Piecewise linear through 0; and at 0 the derivative on the right.
    torch.testing.assert_close(found * torch.cat([z] * phases(activation), 1), features)
    zero, right = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    assert (derivative(zero, activation, 0.2) == derivative(right, activation, 0.2)).all()


def smoothed_chain() -> Network:
    """Every activation, both poolings."""
    below = [Layer(f"conv{i}", 4, 3, 1, 1, activation, 0.2) for i, activation in enumerate(ACTIVATIONS)]
    below[2:2] = [Layer("pool1", kernel=2, stride=2, kind="max_pool")]
    below[5:5] = [Layer("pool2", kernel=2, stride=1, kind="avg_pool")]
    return random_net(*below, Layer("last", 5, 3, activation="relu"))


def test_spreads_are_deviations_of_responses() -> None:
    net = smoothed_chain()
    images = torch.rand(3, 3, 32, 31, generator=torch.Generator().manual_seed(0))
    spreads = LayerStack(net, "last", (32, 31)).spreads(images)
    assert len(spreads) == len(net.layers) - 1
    for layer, spread in zip(net.layers[:-1], spreads, strict=True):
        if layer.has_weights:
            expected = deviations(net.responses(images, layer.name))
            torch.testing.assert_close(spread, expected, rtol=1e-5, atol=0)
        else:
            assert spread is None


def test_smoothed_products_are_those_of_the_smoothed_responses() -> None:
    """The dot test, and J v against a central difference of the smoothed responses, in float64; the pooling's windows
    keep their maxima at so small a step."""
    chain = LayerStack(smoothed_chain(), "last", (32, 31), dtype=torch.float64)
    images = torch.rand(2, 3, 32, 31, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spreads = [None if spread is None else spread / 2 for spread in chain.spreads(images)]
    at = chain.linearise(images, spreads)
    step = randn(*images.shape, seed=1, dtype=torch.float64)
    product = chain.product(at, step)
    pulled = randn(*product.shape, seed=2, dtype=torch.float64)
    assert inner(product, pulled) == pytest.approx(inner(step, chain.transposed(at, pulled)), rel=1e-10)
    size = 1e-6
    ahead, behind = (chain.linearise(images + sign * size * step, spreads).responses for sign in (1, -1))
    difference = (ahead - behind) / (2 * size)
    assert float((difference - product).norm() / product.norm()) < 1e-7
    assert float((at.responses - chain.linearise(images).responses).norm() / at.responses.norm()) > 1e-2


def test_without_spreads_responses_are_the_same_bits() -> None:
    net = smoothed_chain()
    chain = LayerStack(net, "last", (32, 31))
    images = torch.rand(2, 3, 32, 31, generator=torch.Generator().manual_seed(0))
    plain, none = chain.linearise(images), chain.linearise(images, [None] * (len(net.layers) - 1))
    assert torch.equal(plain.responses, none.responses)
    assert all(torch.equal(*pair) for pair in zip(plain.slopes, none.slopes, strict=True))
    # And of a spread that is next to none, up to rounding.
    zeros = [None if each is None else 0 * each for each in chain.spreads(images)]
    near = chain.linearise(images, zeros).responses
    assert float((near - plain.responses).norm() / near.norm()) < 1e-5
    for wrong in ([], zeros[:-1], [*zeros, None]):
        with pytest.raises(CallError, match=f"{len(net.layers) - 1} layers are below last, and {len(wrong)} spreads"):
            chain.linearise(images, wrong)
