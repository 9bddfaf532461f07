import numpy
import pytest
import torch

from reconstruct import invert
from reconstruct.errors import CallError
from reconstruct.images.quality import quality
from reconstruct.inversion import wiener
from reconstruct.inversion.wiener import FLOOR, ROUNDING, invert_wiener
from reconstruct.network.activations import linear_responses
from reconstruct.network.architecture import Layer
from reconstruct.network.network import Network
from reconstruct.operators.layer_stack import LayerStack
from reconstruct.prior.estimates import mean_field
from reconstruct.prior.gaussian import Prior
from reconstruct.zoo.load import load_model
from tests.builders.networks import random_net

SIZE = (9, 8)


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECONSTRUCT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def shallow(layers: int) -> Network:
    chosen = (Layer("conv1", 6, 3, 1, 1, "crelu"), Layer("conv2", 5, 3, 2, 1, "crelu"))
    return random_net(*chosen[:layers])


def images(count: int) -> torch.Tensor:
    prior = Prior(SIZE)
    return prior.image(prior.draw(count, torch.Generator().manual_seed(7)))


def dense(net: Network, layer: str, noise: float) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """A, P, N as matrices and A mean + c, from the definitions: one image, or one pair of positions, at a time."""
    chain, prior = LayerStack(net, layer, SIZE), Prior(SIZE)
    field, _ = mean_field(net, layer)
    numbers = 3 * SIZE[0] * SIZE[1]
    units = torch.eye(numbers).view(numbers, 3, *SIZE)
    zero = torch.zeros(1, 3, *SIZE)
    base = chain.affine(zero, field.slopes, field.offsets)
    columns = torch.cat([chain.affine(zero + unit, field.slopes, field.offsets) - base for unit in units])
    matrix = columns.flatten(1).T.double().numpy()
    covariance = prior.crop(prior.field(prior.field_adjoint(prior.extend(units)))).flatten(1).double().numpy()
    filters, (height, width), reach = chain.layer.filters, chain.grid, len(field.error) // 2
    lags = field.error.double().numpy()
    missed = numpy.zeros((filters, height, width, filters, height, width))
    for i, j in numpy.ndindex(height, width):
        for k, l in numpy.ndindex(height, width):  # noqa: E741
            if max(abs(i - k), abs(j - l)) <= reach:
                missed[:, i, j, :, k, l] = lags[reach + i - k, reach + j - l]
    missed = missed.reshape(len(matrix), len(matrix))
    centre = field.total[reach, reach].diagonal().mean().item()
    floor = FLOOR * lags[reach, reach].diagonal().mean() + (ROUNDING + noise**2) * centre
    missed += floor * numpy.eye(len(matrix))
    middle = chain.affine(prior.mean.expand(1, -1, *SIZE), field.slopes, field.offsets).flatten().double().numpy()
    return matrix, covariance, missed, middle


def averaged() -> Network:
    pool = Layer("pool1", kernel=3, stride=2, padding=1, kind="avg_pool")
    return random_net(Layer("conv1", 6, 3, 1, 1, "crelu"), pool, Layer("conv2", 5, 1, activation="crelu"))


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize(
    ("net", "layer"),
    [(shallow(1), "conv1"), (shallow(2), "conv2"), (averaged(), "pool1"), (averaged(), "conv2")],
    ids=["conv1", "conv2", "averages", "above averages"],
)
def test_it_is_the_dense_linear_estimate(net: Network, layer: str, noise: float) -> None:
    """x = mean + P A^T (A P A^T + N)^-1 (z - A mean - c). N of a layer with rectifications below is a sum of them
    that bounds the condition number; a first layer has only ROUNDING, so float32 leaves more."""
    features = net.features(images(2), layer)
    found = invert_wiener(net, features, layer, SIZE, budget=1000, noise=noise)
    matrix, covariance, missed, middle = dense(net, layer, noise)
    z = linear_responses(features, net.layer(layer).activation).flatten(1).double().numpy() - middle
    system = matrix @ covariance @ matrix.T + missed
    expected = z @ numpy.linalg.solve(system, matrix @ covariance)
    got = (found.images - Prior(SIZE).mean).flatten(1).double().numpy()
    # Conjugate gradients reach the energy norm's accuracy, eps times the square root of the condition number;
    # eps as of sums of some hundred products.
    bound = 100 * numpy.finfo(numpy.float32).eps * numpy.sqrt(numpy.linalg.cond(system))
    assert numpy.linalg.norm(got - expected) <= bound * numpy.linalg.norm(expected)
    assert bound < 0.1
    assert found.status == ["converged"] * 2


def test_it_is_affine_in_the_responses() -> None:
    """Whatever features have the same linear responses, and for every affine combination of them."""
    net = shallow(2)
    features = net.features(images(2), "conv2")
    options = {"size": SIZE, "budget": 400}
    mixed = invert_wiener(net, 0.3 * features[:1] + 0.7 * features[1:], "conv2", **options).images
    both = invert_wiener(net, features, "conv2", **options).images
    torch.testing.assert_close(mixed, 0.3 * both[:1] + 0.7 * both[1:], rtol=0, atol=1e-3)
    raised = invert_wiener(net, features + 1, "conv2", **options).images  # both phases: the difference is the same
    torch.testing.assert_close(raised, both, rtol=0, atol=1e-3)


def test_the_estimate_is_best_on_average() -> None:
    """Over draws of the prior its error is less than that of the mean image, and than with N ten times as large or
    small: it is the linear estimate of least expected error, up to how well 32 images know N."""
    net = shallow(2)
    prior = Prior(SIZE)
    x = prior.image(prior.draw(200, torch.Generator().manual_seed(8)))
    features = net.features(x, "conv2")
    matrix, covariance, missed, middle = dense(net, "conv2", 0.0)
    z = linear_responses(features, "crelu").flatten(1).double().numpy() - middle
    truth = (x - prior.mean).flatten(1).double().numpy()
    errors = {}
    for scale in (0.1, 1.0, 10.0):
        estimate = z @ numpy.linalg.solve(matrix @ covariance @ matrix.T + scale * missed, matrix @ covariance)
        errors[scale] = ((estimate - truth) ** 2).mean()
    found = invert_wiener(net, features, "conv2", SIZE).images
    reached = float((found - x).square().mean())
    assert reached == pytest.approx(errors[1.0], rel=0.01)
    assert reached < 0.5 * (truth**2).mean()
    assert reached < min(errors[0.1], errors[10.0])


def test_a_photograph(net: Network, photograph: torch.Tensor) -> None:
    """Better than the mean image by far, and less good with every layer and with noise."""
    x = photograph[:, :, 60:123, 70:133]
    flat = quality(x, net.mean.expand_as(x)).psnr[0]
    reached = []
    for layer in ("conv1", "conv2", "conv3"):
        result = invert(net, net.features(x, layer), layer, "wiener", size=(63, 63))
        reached.append(quality(x, result.image).psnr[0])
    assert reached[0] > reached[1] > reached[2] > flat + 6
    noisy = invert(net, net.features(x, "conv2"), "conv2", "wiener", size=(63, 63), noise=0.3)
    assert quality(x, noisy.image).psnr[0] < reached[1]


def test_images_of_a_batch_are_independent() -> None:
    net = shallow(2)
    features = net.features(images(3), "conv2")
    together = invert_wiener(net, features, "conv2", SIZE)
    for i in range(3):
        alone = invert_wiener(net, features[i : i + 1], "conv2", SIZE)
        torch.testing.assert_close(together.images[i : i + 1], alone.images, rtol=0, atol=1e-3)
    again = invert_wiener(net, features, "conv2", SIZE)
    torch.testing.assert_close(again.images, together.images, rtol=0, atol=0)


def test_no_images() -> None:
    net = shallow(2)
    result = invert(net, net.features(images(1), "conv2")[:0], "conv2", "wiener", size=SIZE)
    assert (result.image.shape, result.status, result.forward_passes) == ((0, 3, *SIZE), [], [])


@pytest.mark.parametrize("budget", [10, 33, 100])
def test_the_budget_is_kept(budget: int) -> None:
    net = shallow(2)
    result = invert(net, net.features(images(1), "conv2"), "conv2", "wiener", size=SIZE, budget=budget)
    assert 0 < result.forward_passes[0] <= budget


def test_the_status_says_whether_the_system_is_solved() -> None:
    net = shallow(1)
    features = net.features(images(1), "conv1")
    assert invert_wiener(net, features, "conv1", SIZE, budget=10).status == ["budget"]
    assert invert_wiener(net, features, "conv1", SIZE, budget=10, tolerance=0.9).status == ["converged"]
    assert wiener.ITERATIONS == 80


def test_preparation_is_counted_once() -> None:
    net = random_net(Layer("conv1", 7, 3, 1, 1, "crelu"), Layer("conv2", 5, 3, 2, 1, "crelu"))
    features = net.features(images(1), "conv2")
    costs = [invert(net, features, "conv2", "wiener", size=SIZE).prepare_passes for _ in range(2)]
    assert costs[0] > 0
    assert costs[1] == 0


@pytest.mark.parametrize(
    ("model", "layer"), [("all_cnn_b", "conv1"), ("avr_conv1_4", "conv2"), ("crelu_conv1_4", "conv5")]
)
def test_what_keeps_no_responses_is_refused(model: str, layer: str) -> None:
    net = load_model(model, random_weights=0)
    x = torch.rand(1, 3, 63, 63, generator=torch.Generator().manual_seed(0))
    with pytest.raises(CallError, match="needs CReLU at and below"):
        invert(net, net.features(x, layer), layer, "wiener", size=(63, 63))
