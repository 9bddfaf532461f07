import itertools

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconstruct import invert, load_image
from reconstruct.errors import CallError, FeatureError
from reconstruct.images.quality import quality
from reconstruct.inversion.linear import EXPONENT, FLOOR, ROUGH_SHIFT, UNEVEN, LayerInverse, damping_factors
from reconstruct.network.activations import activate
from reconstruct.network.architecture import Architecture, Layer
from reconstruct.network.network import Network
from reconstruct.network.surgery import randomise
from reconstruct.operators.convolution import Convolution, PeriodicConvolution
from reconstruct.operators.pooling import AvgPool
from reconstruct.prior.gaussian import Prior
from reconstruct.zoo.load import load_model
from tests.builders.networks import dense, operator
from tests.conftest import SAMPLES

# filters and channels make the layer tall, square or wide; strides 1 to 4; odd and unequal sizes; windows that do
# not overlap, that leave gaps (kernel 3, stride 4), rows of padding alone (kernel 2, padding 2).
LAYERS = [
    (filters, channels, kernel, stride, padding, size)
    for (filters, channels), (kernel, padding), stride, size in itertools.product(
        [(12, 1), (9, 2), (4, 1), (3, 4)],
        [((3, 3), 0), ((3, 3), 1), ((5, 4), 2), ((2, 2), 0), ((2, 3), 2)],
        [1, 2, 3, 4],
        [(11, 9)],
    )
]


@pytest.mark.parametrize("damping", [0.0, 0.01])
@pytest.mark.parametrize("layer", LAYERS)
def test_global_is_the_dense_pseudoinverse(layer: tuple, damping: float) -> None:
    """Also of responses that no input gives, and whatever the rank."""
    op = operator(*layer)
    inverse = LayerInverse(op, "global", damping)
    matrix = dense(op)
    z = numpy.random.default_rng(0).standard_normal((2, *op.output_shape))
    found = inverse.solve(z, 1e-11, 4000)
    if damping:
        strength = damping * (inverse.norm**2 if inverse.patches is None else numpy.linalg.norm(matrix, 2) ** 2)
        normal = matrix.T @ matrix + strength * numpy.eye(op.columns)
        expected = numpy.linalg.solve(normal, matrix.T @ z.reshape(2, -1).T).T
    else:
        expected = z.reshape(2, -1) @ numpy.linalg.pinv(matrix, rcond=1e-9).T
    error = numpy.linalg.norm(found.value.reshape(2, -1) - expected) / numpy.linalg.norm(expected)
    assert error < 1e-4, (error, found.status, numpy.linalg.cond(matrix))


def uneven(channels: int, padding: int, size: tuple[int, int], seed: int) -> Convolution:
    """A tall layer of stride 2 and 3 x 3 filters whose singular values span four decades."""
    random = torch.Generator().manual_seed(seed)
    left, _, right = torch.linalg.svd(torch.randn(10 * channels, 9 * channels, generator=random), full_matrices=False)
    values = torch.logspace(0, -4, 9 * channels)
    weight = ((left * values) @ right).reshape(10 * channels, channels, 3, 3)
    return Convolution(weight, 2, padding, size)


@settings(max_examples=5, deadline=None)
@given(
    channels=st.sampled_from([1, 3]),
    padding=st.sampled_from([0, 1, 2]),
    size=st.tuples(st.integers(5, 8), st.integers(5, 8)),
    damping=st.sampled_from([1e-4, 1e-3]),
    seed=st.integers(0, 99),
)
def test_the_images_own_preconditioner_leaves_the_solution_alone(
    channels: int, padding: int, size: tuple[int, int], damping: float, seed: int
) -> None:
    op = uneven(channels, padding, size, seed)
    inverse = LayerInverse(op, "global", damping, image=True)
    assert inverse._evenness() < UNEVEN
    matrix = dense(op)
    z = numpy.random.default_rng(seed).standard_normal((1, *op.output_shape))
    normal = matrix.T @ matrix + damping * inverse.norm**2 * numpy.eye(op.columns)
    expected = numpy.linalg.pinv(normal, rcond=1e-13, hermitian=True) @ (matrix.T @ z.ravel())
    found = inverse.solve(z, 1e-9, 300)
    assert numpy.linalg.norm(found.value.ravel() - expected) < 1e-4 * numpy.linalg.norm(expected)


def test_the_images_own_preconditioner_is_the_priors(generator: torch.Generator) -> None:
    """On a torus of the prior's it is (A^T A + shift C^-1)^-1, a dense matrix's inverse; elsewhere it is positive."""
    op = uneven(3, 0, (9, 9), 0)
    inverse = LayerInverse(op, "global", 0.0, image=True)
    assert inverse.precondition is not None
    height, width = op.grid
    prior = Prior((2 * height, 2 * width), 3, step=2, torus=True, exponent=EXPONENT)
    units = torch.eye(12 * height * width).reshape(-1, 3, 2 * height, 2 * width)
    covariance = prior.field(prior.field_adjoint(units)).flatten(1).double().numpy()
    precision = numpy.linalg.inv(covariance)
    mean = prior.precision(2).diagonal(dim1=-2, dim2=-1).real.mean().item()
    rough = precision / mean + FLOOR * numpy.eye(len(precision))
    whole = PeriodicConvolution(op.weight, 2, 0, (2 * height, 2 * width)).convolve(units.double()).flatten(1).numpy()
    inside = numpy.zeros((3, 2 * height, 2 * width), bool)
    inside[:, :9, :9] = True
    torus = numpy.linalg.inv(whole @ whole.T + ROUGH_SHIFT * inverse.norm**2 * rough)
    expected = torus[inside.ravel()][:, inside.ravel()]
    found = inverse.precondition(numpy.eye(op.columns).reshape(-1, 3, 9, 9)).reshape(op.columns, -1)
    numpy.testing.assert_allclose(found, expected, atol=1e-4 * abs(expected).max())


def test_an_ill_conditioned_first_layer_needs_fewer_iterations(net: Network, photograph: torch.Tensor) -> None:
    """Than with the identity in the place of the prior: what a photograph hardly has is left for later."""
    layer = net.layer("conv1")
    op = Convolution(net.convolution("conv1").weight, layer.stride, layer.padding, (99, 99), torch.float32)
    pixels = ((photograph - net.mean) / net.std)[:, :, :99, :99].contiguous()
    z = op.apply(pixels.numpy())
    error = {
        image: numpy.linalg.norm(LayerInverse(op, "global", 0.0, image).solve(z, 1e-6, 10).value - pixels.numpy())
        for image in (True, False)
    }
    assert error[True] < 0.5 * error[False], error


@pytest.mark.parametrize("size", [(11, 9), (8, 7), (12, 6)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(1, 1, 0), (2, 2, 0), (2, 2, 1), (3, 2, 0), (3, 2, 1), (2, 1, 0), (3, 1, 1), (1, 2, 0), (2, 3, 0), (4, 2, 2)],
)
def test_the_pseudoinverse_of_an_average_pooling(kernel: int, stride: int, padding: int, size: tuple) -> None:
    """Whatever the rank: 3 x 3 means of every pixel of 11 rows miss one pattern, as 11 is 2 modulo 3."""
    layer = Layer("pool", kernel=kernel, stride=stride, padding=padding, kind="avg_pool")
    op = AvgPool(layer, size, dtype=torch.float64).operator
    assert isinstance(op, Convolution)
    z = numpy.random.default_rng(0).standard_normal((2, *op.output_shape))
    expected = z.reshape(2, -1) @ numpy.linalg.pinv(dense(op), rcond=1e-9).T
    found = LayerInverse(op, "global", 0.0).solve(z, 1e-11, 4000)
    assert numpy.linalg.norm(found.value.reshape(2, -1) - expected) < 1e-8 * numpy.linalg.norm(expected)


@pytest.mark.parametrize("layer", [(6, 1, (3, 3), 1, 1, (9, 7)), (4, 3, (3, 3), 2, 1, (9, 8))])
def test_dependent_filters_still_give_the_minimum_norm(layer: tuple) -> None:
    full = operator(*layer)
    weight = full.weight.clone()
    weight[layer[0] // 2 :] = -weight[: layer[0] // 2]
    op = Convolution(weight, full.stride, full.padding, full.input_shape[1:])
    z = numpy.random.default_rng(0).standard_normal((1, *op.output_shape))
    found = LayerInverse(op, "global", 0.0).solve(z, 1e-11, 4000)
    expected = numpy.linalg.pinv(dense(op), rcond=1e-9) @ z.ravel()
    assert numpy.linalg.norm(found.value.ravel() - expected) < 1e-4 * numpy.linalg.norm(expected)


@pytest.mark.parametrize("damping", [0.0, 0.1])
@pytest.mark.parametrize(
    "layer", [(9, 2, (3, 3), 2, 1, (8, 7)), (3, 2, (3, 2), 1, 0, (6, 7)), (4, 1, (2, 2), 3, 0, (8, 8))]
)
def test_patch_averages_the_patches_of_the_small_pseudoinverse(layer: tuple, damping: float) -> None:
    op = operator(*layer)
    z = numpy.random.default_rng(0).standard_normal((1, *op.output_shape))
    filters = op.weight.reshape(len(op.weight), -1).numpy()
    strength = damping * numpy.linalg.norm(filters, 2) ** 2
    small = filters.T @ numpy.linalg.pinv(filters @ filters.T + strength * numpy.eye(len(filters)), rcond=1e-12)
    channels, height, width = op.input_shape
    p, s, (tall, wide) = op.padding, op.stride, op.kernel
    summed = numpy.zeros((channels, height + 2 * p + s, width + 2 * p + s))
    counts = numpy.zeros_like(summed)
    for i, j in itertools.product(range(op.output_shape[1]), range(op.output_shape[2])):
        patch = (small @ z[0, :, i, j]).reshape(channels, tall, wide)
        summed[:, i * s : i * s + tall, j * s : j * s + wide] += patch
        counts[:, i * s : i * s + tall, j * s : j * s + wide] += 1
    expected = (summed / numpy.maximum(counts, 1))[:, p : p + height, p : p + width]
    found = LayerInverse(op, "patch", damping).solve(z, 1e-6, 1)
    numpy.testing.assert_allclose(found.value[0], expected, atol=1e-9 * abs(expected).max())


def crelu_chain(*filters: int) -> Network:
    """Layers of 3 x 3 filters, stride 1 and 2 in turn, all CReLU."""
    layers = tuple(
        Layer(f"conv{i + 1}", count, 3, stride=1 + i % 2, padding=1, activation="crelu")
        for i, count in enumerate(filters)
    )
    return randomise(Network(Architecture("chain", layers, 17, (0.5,) * 3, (0.25,) * 3)), 0).eval()


def test_a_chain_of_full_rank_is_inverted_exactly(generator: torch.Generator) -> None:
    """More filters than inputs in every layer, phases counted: Algorithm 1 undoes the network."""
    net = crelu_chain(12, 120).requires_grad_(False)
    images = torch.rand(3, 3, 17, 15, generator=generator)
    features = net.features(images, "conv2")
    result = invert(net, features, "conv2", "linear", size=(17, 15), damping=0, tolerance=1e-9, budget=4000)
    torch.testing.assert_close(result.image, images, atol=1e-4, rtol=0)
    assert max(result.feature_residual) < 1e-5


def test_rank_says_what_is_lost(generator: torch.Generator) -> None:
    """Fewer filters than inputs: the part in the range of A^T comes back, the rest is 0."""
    net = crelu_chain(2).requires_grad_(False)
    images = torch.rand(1, 3, 17, 15, generator=generator)
    result = invert(net, net.features(images, "conv1"), "conv1", "linear", size=(17, 15), tolerance=1e-9, budget=2000)
    op = Convolution(net.conv1.weight, 1, 1, (17, 15))
    matrix = dense(op)
    normalised = ((images - 0.5) / 0.25).double().numpy().ravel()
    projected = numpy.linalg.pinv(matrix) @ (matrix @ normalised)
    expected = torch.from_numpy(projected * 0.25 + 0.5).reshape(images.shape).float()
    torch.testing.assert_close(result.image, expected, atol=1e-4, rtol=0)
    assert result.feature_residual[0] < 1e-5


def averaged_chain(kernel: int, stride: int, padding: int) -> Network:
    """Three colours to the 24 phases of twelve 3 x 3 filters, and their means."""
    layers = (
        Layer("conv1", 12, 3, padding=1, activation="crelu"),
        Layer("pool1", kernel=kernel, stride=stride, padding=padding, kind="avg_pool"),
    )
    net = randomise(Network(Architecture("averaged", layers, 12, (0.5,) * 3, (0.25,) * 3)), 0).eval()
    return net.requires_grad_(False)


def test_means_of_one_pixel_lose_nothing(generator: torch.Generator) -> None:
    net = averaged_chain(1, 1, 0)
    images = torch.rand(2, 3, 12, 11, generator=generator)
    result = invert(net, net.features(images, "pool1"), "pool1", "linear", size=(12, 11), damping=0, tolerance=1e-9)
    torch.testing.assert_close(result.image, images, atol=1e-4, rtol=0)


@pytest.mark.parametrize("pool", [(2, 2, 0), (3, 2, 1), (3, 1, 1)])
def test_through_an_average_pooling(pool: tuple[int, int, int], generator: torch.Generator) -> None:
    """The pseudoinverses of the two layers, one after the other: of the pooling phase by phase."""
    net = averaged_chain(*pool)
    images = torch.rand(2, 3, 9, 8, generator=generator)
    features = net.features(images, "pool1")
    result = invert(net, features, "pool1", "linear", size=(9, 8), damping=0, tolerance=1e-10, budget=8000)
    averaging = AvgPool(net.layer("pool1"), (9, 8), dtype=torch.float64).operator
    assert isinstance(averaging, Convolution)
    phases = features.double().numpy().reshape(48, -1) @ numpy.linalg.pinv(dense(averaging), rcond=1e-9).T
    positive, negative = numpy.split(phases.reshape(2, 24, 72), 2, axis=1)
    responses = (positive - negative).reshape(2, -1)
    first = dense(Convolution(net.conv1.weight, 1, 1, (9, 8)))
    expected = torch.from_numpy(responses @ numpy.linalg.pinv(first).T * 0.25 + 0.5).view(2, 3, 9, 8).float()
    torch.testing.assert_close(result.image, expected, atol=1e-4, rtol=0)
    empty = invert(net, features[:0], "pool1", "linear", size=(9, 8))
    assert (empty.image.shape, empty.status) == ((0, 3, 9, 8), [])


def test_images_are_independent_through_an_average_pooling(generator: torch.Generator) -> None:
    net = averaged_chain(3, 2, 1)
    features = net.features(torch.rand(3, 3, 9, 8, generator=generator), "pool1")
    together = invert(net, features, "pool1", "linear", size=(9, 8), budget=20)
    assert max(together.forward_passes) <= 20
    for i in range(3):
        alone = invert(net, features[i : i + 1], "pool1", "linear", size=(9, 8), budget=20)
        torch.testing.assert_close(together.image[i : i + 1], alone.image, atol=1e-4, rtol=0)
        assert (together.status[i], together.iterations[i]) == (alone.status[0], alone.iterations[0])
        assert together.forward_passes[i] == pytest.approx(alone.forward_passes[0])


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if path.stem == "chelsea" else pytest.mark.slow, id=path.stem) for path in SAMPLES],
)
def test_conv1_comes_back(path, net: Network) -> None:
    image = load_image(path, 227)[None]
    assert quality(image, invert(net, net.features(image, "conv1"), "conv1", "linear").image).psnr[0] > 40
    result = invert(net, net.features(image, "conv1"), "conv1", "linear", budget=1000)
    assert result.status == ["converged"]
    assert result.feature_residual[0] < 1.1e-4


def test_work_is_counted_in_forward_passes(net: Network, photograph: torch.Tensor) -> None:
    one = invert(net, net.features(photograph, "conv1"), "conv1", "linear", budget=10)
    assert one.forward_passes == [10]  # 5 iterations of an operator and its adjoint
    assert one.status == ["budget"]
    deep = invert(net, net.features(photograph, "conv3"), "conv3", "linear", budget=10)
    assert 0 < deep.forward_passes[0] <= 10
    again = invert(net, net.features(photograph, "conv3"), "conv3", "linear", budget=10)
    assert again.prepare_passes == 0
    torch.testing.assert_close(again.image, deep.image, rtol=0, atol=0)


def test_images_of_a_batch_are_independent(net: Network, photograph: torch.Tensor) -> None:
    other = load_image(SAMPLES[0], 227)[None]
    batch = torch.cat((photograph, other))
    together = invert(net, net.features(batch, "conv2"), "conv2", "linear")
    for i, image in enumerate((photograph, other)):
        alone = invert(net, net.features(image, "conv2"), "conv2", "linear")
        assert together.iterations[i] == alone.iterations[0]
        torch.testing.assert_close(together.image[i : i + 1], alone.image, atol=1e-3, rtol=0)
    assert len(invert(net, net.features(batch, "conv2")[:0], "conv2", "linear").image) == 0


def test_changed_weights_are_noticed(generator: torch.Generator) -> None:
    net = crelu_chain(30).requires_grad_(False)
    images = torch.rand(1, 3, 17, 17, generator=generator)
    for _ in range(2):
        result = invert(net, net.features(images, "conv1"), "conv1", "linear", tolerance=1e-6, budget=1000)
        torch.testing.assert_close(result.image, images, atol=1e-3, rtol=0)
        net.conv1.weight.copy_(torch.randn(net.conv1.weight.shape, generator=generator))


def test_leaky_activations_are_inverted_too(generator: torch.Generator) -> None:
    for activation in ("leaky_crelu", "leaky_relu", "none"):
        layer = Layer("conv1", 40, 3, padding=1, activation=activation, slope=0.2)
        net = randomise(Network(Architecture("leaky", (layer,), 17, (0.5,) * 3, (0.25,) * 3)), 0).requires_grad_(False)
        images = torch.rand(1, 3, 17, 17, generator=generator)
        result = invert(net, net.features(images, "conv1"), "conv1", "linear", tolerance=1e-6, budget=1000)
        torch.testing.assert_close(result.image, images, atol=1e-3, rtol=0)


def test_features_from_numpy_and_in_half_precision(net: Network, photograph: torch.Tensor) -> None:
    features = net.features(photograph, "conv1")
    expected = invert(net, features, "conv1", "linear", budget=40).image
    torch.testing.assert_close(invert(net, features.numpy(), "conv1", "linear", budget=40).image, expected)
    halved = invert(net, features.half(), "conv1", "linear", budget=40).image
    assert quality(photograph, halved).psnr[0] > 35


def test_damping_is_what_was_asked_for(net: Network) -> None:
    assert damping_factors(net, "conv2", 0.5) == {"conv1": 0.5, "conv2": 0.5}
    assert damping_factors(net, "conv2", {"conv1": 0.5}) == {"conv1": 0.5, "conv2": 0.0}
    assert damping_factors(net, "conv3", "auto") == net.architecture.damping["conv3"]
    with pytest.raises(CallError, match="damping of conv1 is -1"):
        damping_factors(net, "conv1", -1)
    with pytest.raises(CallError, match="damping of conv1 is nan"):
        damping_factors(net, "conv1", float("nan"))


def test_what_cannot_be_inverted_is_refused(net: Network, photograph: torch.Tensor) -> None:
    features = net.features(photograph, "conv3")
    with pytest.raises(CallError, match="relu does not keep them: it needs CReLU at and below conv5"):
        invert(net, net.features(photograph, "conv5"), "conv5", "linear")
    avr = load_model("avr_conv1_4", random_weights=0)
    with pytest.raises(CallError, match="its avr does not keep"):
        invert(avr, avr.features(photograph, "conv1"), "conv1", "linear")
    with pytest.raises(FeatureError, match="N x 192 x h x w features, not 1 x 96 x 28 x 28"):
        invert(net, features[:, :96], "conv3", "linear")
    with pytest.raises(FeatureError, match=r"not CReLU features"):
        invert(net, activate(torch.randn(1, 96, 28, 28), "crelu") + 1, "conv3", "linear")
    with pytest.raises(FeatureError, match="not finite"):
        invert(net, features * float("nan"), "conv3", "linear")
    with pytest.raises(FeatureError, match=r"27 x 28 do not come from the model's own 227 x 227 .*size="):
        invert(net, features[:, :, :27], "conv3", "linear")
    with pytest.raises(FeatureError, match="300 x 300 images give conv3 features of 37 x 37, not 28 x 28"):
        invert(net, features, "conv3", "linear", size=300)
    with pytest.raises(FeatureError, match=r"floating point, not torch\.int"):
        invert(net, features.int(), "conv3", "linear")
    with pytest.raises(CallError, match="unknown method 'liner', did you mean linear"):
        invert(net, features, "conv3", "liner")
    with pytest.raises(CallError, match="'global', 'patch' or 'direct', not 'whole'"):
        invert(net, features, "conv3", "linear", linear_form="whole")
    with pytest.raises(CallError, match="tolerance"):
        invert(net, features, "conv3", "linear", tolerance=0)
    with pytest.raises(CallError, match="budget"):
        invert(net, features, "conv3", "linear", budget=0)
    with pytest.raises(CallError, match="not list"):
        invert(net, [1.0], "conv3", "linear")


def test_a_constant_image_and_zero_features(net: Network) -> None:
    """Responses equal to the bias alone: the mean colour, not a division by zero."""
    flat = net.mean.expand(1, 3, 227, 227)
    result = invert(net, net.features(flat, "conv1"), "conv1", "linear")
    torch.testing.assert_close(result.image, flat, atol=1e-3, rtol=0)
    assert torch.isfinite(result.image).all()


def test_images_beyond_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    op = operator(7, 2, (3, 3), 2, 1, (41, 38))
    monkeypatch.setattr("reconstruct.operators.arrays.memory", lambda device: 10_000)
    with pytest.raises(CallError, match=r"41 x 38 needs about .* GB .*--size"):
        LayerInverse(op, "global", 0.0)
    LayerInverse(op, "patch", 0.0)


@pytest.fixture(scope="module")
def small() -> torch.Tensor:
    """Two photographs and a grey one, 63 x 63."""
    pictures = [load_image(path, 63) for path in SAMPLES if path.stem in ("chelsea", "rocket")]
    return torch.stack([*pictures, torch.full((3, 63, 63), 0.5)])


def test_the_direct_form_gives_what_iterations_go_towards(net: Network, small: torch.Tensor) -> None:
    """At conv1, undamped: within the same tolerance of the responses, and nearer to the image than 150 iterations."""
    features = net.features(small, "conv1")
    found = invert(net, features, "conv1", "linear", size=63, linear_form="direct")
    slow = invert(net, features, "conv1", "linear", size=63)
    assert found.status == ["converged"] * 3
    assert max(found.feature_residual) < 1.1e-4  # 1e-4 when it stopped, and the rounding of features to float32
    nearer = zip(quality(small, found.image).psnr, quality(small, slow.image).psnr, strict=True)
    assert all(direct >= iterated for direct, iterated in nearer)
    again = invert(net, features[1:2], "conv1", "linear", size=63, linear_form="direct")
    assert again.prepare_seconds < found.prepare_seconds / 10  # kept with the network
    torch.testing.assert_close(again.image, found.image[1:2], atol=1e-3, rtol=0)


def test_the_direct_form_of_responses_that_no_image_gives(net: Network, small: torch.Tensor) -> None:
    """Conjugate gradients go on from it, and end no further from the responses than they do from nothing."""
    features = net.features(small[:1], "conv1")
    noisy = features + 0.05 * torch.rand(features.shape, generator=torch.Generator().manual_seed(0)) * (features > 0)
    found = invert(net, noisy, "conv1", "linear", size=63, linear_form="direct")
    slow = invert(net, noisy, "conv1", "linear", size=63)
    assert found.feature_residual[0] <= slow.feature_residual[0]


def test_the_direct_form_of_a_damped_chain_is_the_global_ones(net: Network, small: torch.Tensor) -> None:
    """Damped by a tenth both solve the same well-conditioned equations, to 1e-4 of their gradient."""
    features = net.features(small, "conv2")
    options = {"damping": {"conv1": 0.1, "conv2": 0.1}, "tolerance": 1e-4}
    found = invert(net, features, "conv2", "linear", size=63, linear_form="direct", **options)
    slow = invert(net, features, "conv2", "linear", size=63, **options)
    assert found.status == slow.status == ["converged"] * 3
    # |A^T r - d x| <= 1e-4 |A| |r| with |r| below |z|: x within 1e-4 / 0.1 of what the normal equations make of z.
    torch.testing.assert_close(found.image, slow.image, atol=5e-3, rtol=0)


def test_the_direct_form_says_where_it_cannot(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    padded = load_model("convpool_cnn_c_crelu")
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with pytest.raises(CallError, match=r"no direct solve: .*no padding.*take the form global"):
        invert(padded, padded.features(picture, "conv1"), "conv1", "linear", linear_form="direct")
    monkeypatch.setattr("reconstruct.operators.arrays.memory", lambda device: 2e9)
    wide = torch.rand(1, 3, 227, 227, generator=torch.Generator().manual_seed(0))
    with pytest.raises(CallError, match=r"needs about \d+ GB for its factor, and 2 GB are there: take the form global"):
        invert(net, net.features(wide, "conv1"), "conv1", "linear", linear_form="direct")
