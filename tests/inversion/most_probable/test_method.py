from itertools import pairwise

import pytest
import torch

from reconstruct import invert, load_image
from reconstruct.errors import CallError, FeatureError
from reconstruct.images.quality import quality
from reconstruct.inversion.disturb import disturb
from reconstruct.inversion.known import Exact
from reconstruct.inversion.methods import applicable
from reconstruct.inversion.most_probable.gauss_newton import NOISE_WEIGHT
from reconstruct.inversion.most_probable.method import invert_map
from reconstruct.inversion.most_probable.task import task_of
from reconstruct.inversion.residual import relative
from reconstruct.network.architecture import Layer
from reconstruct.network.network import Network
from reconstruct.prior.estimates import TAUS
from reconstruct.prior.gaussian import Prior
from reconstruct.zoo.load import load_model
from tests.builders.networks import random_net
from tests.conftest import ROOT

SIDE = 63
"""Windows of 11 with stride 4 see all of it; conv5's receptive field is 51."""
SIZE = (SIDE, SIDE)


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setenv("RECONSTRUCT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def images(photograph: torch.Tensor) -> torch.Tensor:
    """Parts of two photographs."""
    other = load_image(ROOT / "samples" / "astronaut.jpg", 227)[None]
    return torch.cat((photograph[:, :, 60 : 60 + SIDE, 70 : 70 + SIDE], other[:, :, 20 : 20 + SIDE, 70 : 70 + SIDE]))


def test_conv1_comes_back(net: Network, images: torch.Tensor) -> None:
    result = invert(net, net.features(images, "conv1"), "conv1", size=SIZE)
    assert min(quality(images, result.image).psnr) > 40
    assert max(result.feature_residual) < 1e-4


@pytest.mark.parametrize("layer", ["conv2", "conv3"])
def test_better_than_the_linear_methods(layer: str, net: Network, images: torch.Tensor) -> None:
    """2 dB: less than two thirds of the squared error of the better of them, on either photograph."""
    features = net.features(images, layer)
    reached = quality(images, invert(net, features, layer, size=SIZE).image).psnr
    for method in ("wiener", "linear"):
        other = quality(images, invert(net, features, layer, method, size=SIZE).image).psnr
        assert all(own > theirs + 2 for own, theirs in zip(reached, other, strict=True)), (method, reached, other)


def test_a_layer_that_is_stepped_over(net: Network, images: torch.Tensor) -> None:
    """conv4 has conv3's information: better than wiener, and its own residual is small."""
    features = net.features(images[:1], "conv4")
    result = invert(net, features, "conv4", size=SIZE)
    other = invert(net, features, "conv4", "wiener", size=SIZE)
    assert quality(images[:1], result.image).psnr[0] > quality(images[:1], other.image).psnr[0] + 6
    assert result.feature_residual[0] < 0.05


def test_iterations_of_all_solves_are_counted(net: Network, images: torch.Tensor) -> None:
    """Stepping over as well: an iteration there is at most two passes, an evaluation three."""
    result = invert(net, net.features(images[:1], "conv4"), "conv4", size=SIZE, tolerance=0.1)
    assert result.forward_passes[0] <= 3 * result.iterations[0]


def test_pixels_that_no_window_sees_are_the_priors(net: Network, photograph: torch.Tensor) -> None:
    """conv1 sees 63 of 64 rows and columns: the others are worth what the best linear estimate makes of them."""
    image = photograph[:, :, 60:124, 70:134]
    features = net.features(image, "conv1")
    found = invert(net, features, "conv1", size=64).image
    linear = invert(net, features, "conv1", "wiener", size=64).image
    unseen = torch.ones(64, 64, dtype=torch.bool)
    unseen[:63, :63] = False
    assert quality(image[:, :, :63, :63], found[:, :, :63, :63]).psnr[0] > 40
    errors = [float((each - image)[:, :, unseen].square().mean()) for each in (found, linear)]
    assert errors[0] <= 2 * errors[1]


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3", "conv4", "conv5"])
def test_the_residual_falls_with_the_budget(layer: str, net: Network, images: torch.Tensor) -> None:
    if layer == "conv5":
        net = load_model("crelu_conv1_4", random_weights=0)
    features = net.features(images[:1], layer)
    results = [invert(net, features, layer, size=SIZE, budget=budget) for budget in (6, 40, 120)]
    residuals = [result.feature_residual[0] for result in results]
    assert residuals[0] > residuals[1] > residuals[2], residuals
    assert residuals[0] > 5 * residuals[2], residuals
    work = [result.forward_passes[0] for result in results]
    assert work == sorted(work)
    assert work[2] > 75


@pytest.mark.parametrize("budget", [1, 2.5, 20.9, 150])
@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3", "conv4"])
def test_the_budget_is_kept(layer: str, budget: float, net: Network, images: torch.Tensor) -> None:
    result = invert(net, net.features(images, layer), layer, size=SIZE, budget=budget)
    assert max(result.forward_passes) <= budget * (1 + 1e-12)
    assert set(result.status) == {"budget"}
    assert result.image.isfinite().all()


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3", "conv4"])
def test_images_stop_when_they_have_converged(layer: str, net: Network, images: torch.Tensor) -> None:
    """The mean image at once, photographs the later the less residual they may have."""
    batch = torch.cat((images, net.mean.expand(1, 3, *SIZE)))
    features = net.features(batch, layer)
    work = []
    for tolerance in (0.3, 0.1):
        result = invert(net, features, layer, size=SIZE, tolerance=tolerance)
        assert result.status == ["converged"] * 3
        # Stepping over takes responses back and forth through one more layer: up to twice the residual.
        assert max(result.feature_residual) <= (2 if layer == "conv4" else 1.01) * tolerance
        assert result.forward_passes[2] < min(result.forward_passes[:2])
        assert max(result.forward_passes) < 400
        work.append(result.forward_passes)
    assert all(rough < fine for rough, fine in zip(work[0][:2], work[1][:2], strict=True))


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3"])
def test_images_of_a_batch_are_independent(layer: str, net: Network, images: torch.Tensor) -> None:
    """The same work, and the same image up to float32's rounding, which grows by the condition number of the
    preconditioned problem, some 10^4, and with every sign that it turns: so in a short run."""
    features = net.features(images, layer)
    together = invert(net, features, layer, size=SIZE, budget=60)
    for i in range(2):
        alone = invert(net, features[i : i + 1], layer, size=SIZE, budget=60)
        assert alone.forward_passes == together.forward_passes[i : i + 1]
        assert alone.iterations == together.iterations[i : i + 1]
        error = (alone.image[0] - images[i]).norm()
        assert float((alone.image[0] - together.image[i]).norm()) < 0.02 * float(error)  # 0.2 dB of PSNR


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_it_is_deterministic(layer: str, net: Network, images: torch.Tensor) -> None:
    features = net.features(images, layer)
    found = [invert(net, features, layer, size=SIZE, budget=60) for _ in range(2)]
    assert torch.equal(found[0].image, found[1].image)
    assert found[1].prepare_passes <= found[0].prepare_passes


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv4", "conv5"])
def test_no_images(layer: str, net: Network, images: torch.Tensor) -> None:
    if layer == "conv5":
        net = load_model("crelu_conv1_4", random_weights=0)
    result = invert(net, net.features(images[:1], layer)[:0], layer, size=SIZE)
    assert result.image.shape == (0, 3, *SIZE)
    assert (result.status, result.iterations, result.forward_passes, result.feature_residual) == ([], [], [], [])


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_relu_says_nothing_below_0(layer: str, images: torch.Tensor) -> None:
    """Yet half of the responses, and the signs of the others, determine the image well where filters are many."""
    net = load_model("all_cnn_b", random_weights=0)
    result = invert(net, net.features(images[:1], layer), layer, size=SIZE, budget=150)
    assert result.feature_residual[0] < 0.02
    flat = images[:1].mean(dim=(2, 3), keepdim=True).expand_as(images[:1])
    assert quality(images[:1], result.image).psnr[0] > quality(images[:1], flat).psnr[0] + 8


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_avr_lowers_the_residual(layer: str, images: torch.Tensor) -> None:
    """Signs are a hard problem, and the mean image's residual is 1: of |z|, where all responses are 0."""
    net = load_model("avr_conv1_4", random_weights=0)
    features = net.features(images[:1], layer)
    residuals = [invert(net, features, layer, size=SIZE, budget=b).feature_residual[0] for b in (1, 30, 150)]
    assert residuals[0] == pytest.approx(1, abs=1e-4)
    assert residuals[0] > 3 * residuals[1]
    assert residuals[1] > residuals[2]


POOL = Layer("pool1", kernel=3, stride=2, padding=1, dropout=0.5, kind="max_pool")
SMALL = (24, 26)


def with_pooling(activation: str, pool: Layer = POOL) -> Network:
    conv1, conv2 = Layer("conv1", 12, 3, 1, 1, activation), Layer("conv2", 24, 3, 1, 1, activation)
    return random_net(conv1, pool, conv2, Layer("conv3", 24, 1, activation=activation), biases=False)


@pytest.mark.parametrize("layer", ["pool1", "conv2", "conv3"])
@pytest.mark.parametrize("activation", ["crelu", "relu"])
def test_through_a_max_pooling(activation: str, layer: str, images: torch.Tensor) -> None:
    """12 (ReLU) or 24 features at a quarter of the positions say more than the three colours of a pixel: better than
    the mean colour by 6 dB, a quarter of its squared error, and the better the more work."""
    net = with_pooling(activation)
    wanted = images[:, :, : SMALL[0], : SMALL[1]]
    features = net.features(wanted, layer)
    few, many = (invert(net, features, layer, size=SMALL, budget=budget) for budget in (30, 240))
    mean = net.features(net.mean.expand_as(wanted), layer)
    at_mean = relative(mean, features)
    flat = quality(wanted, wanted.mean(dim=(2, 3), keepdim=True).expand_as(wanted)).psnr
    for i in range(2):
        assert many.feature_residual[i] < few.feature_residual[i]
        assert many.feature_residual[i] < 0.1 * float(at_mean[i])
        assert quality(wanted, many.image).psnr[i] > flat[i] + 6
        assert many.forward_passes[i] <= 240


@pytest.mark.parametrize("layer", ["pool1", "conv3"])
def test_gradient_through_a_max_pooling(layer: str, images: torch.Tensor) -> None:
    net = with_pooling("crelu")
    wanted = images[:, :, : SMALL[0], : SMALL[1]]
    features = net.features(wanted, layer)
    few, many = (invert(net, features, layer, "gradient", size=SMALL, budget=budget) for budget in (30, 240))
    at_mean = relative(net.features(net.mean.expand_as(wanted), layer), features)
    for i in range(2):
        assert many.feature_residual[i] < min(few.feature_residual[i], 0.1 * float(at_mean[i]))


AVERAGE = Layer("pool1", kernel=3, stride=2, padding=1, kind="avg_pool")


@pytest.mark.parametrize("layer", ["pool1", "conv2"])
def test_through_an_average_pooling(layer: str, images: torch.Tensor) -> None:
    """Better than both linear methods by 6 dB, a quarter of the squared error of the better of them."""
    net = with_pooling("crelu", AVERAGE)
    wanted = images[:1, :, : SMALL[0], : SMALL[1]]
    features = net.features(wanted, layer)
    reached = {
        method: quality(wanted, invert(net, features, layer, method, size=SMALL, budget=budget).image).psnr[0]
        for method, budget in (("map", 150), ("wiener", None), ("linear", None))
    }
    assert reached["map"] > max(reached["wiener"], reached["linear"]) + 6, reached


def test_an_average_pooling_bends_nothing() -> None:
    """conv3 lies above two rectifications, and with a max-pooling above three bends."""
    bends = {}
    for pool in (POOL, AVERAGE):
        net = with_pooling("crelu", pool)
        for layer in ("pool1", "conv2", "conv3"):
            known = Exact(torch.zeros(0, net.layer(layer).filters, 1, 1))
            bends[pool.kind, layer] = task_of(net, layer, SMALL, known, 0.0).operator.bends
    assert [bends["max_pool", layer] for layer in ("pool1", "conv2", "conv3")] == [2, 2, 3]
    assert [bends["avg_pool", layer] for layer in ("pool1", "conv2", "conv3")] == [1, 1, 2]


@pytest.mark.parametrize("pool", [POOL, AVERAGE], ids=lambda pool: pool.kind)
def test_pooled_features_are_checked(pool: Layer, images: torch.Tensor) -> None:
    net = with_pooling("crelu", pool)
    features = net.features(images[:, :, : SMALL[0], : SMALL[1]], "pool1")
    positive, negative = features.chunk(2, dim=1)
    assert (torch.minimum(positive, negative) > 0).any()  # no CReLU features
    assert invert(net, features, "pool1", size=SMALL, budget=3).image.isfinite().all()
    features[1, 3, 0, 2] = -1
    with pytest.raises(FeatureError, match=r"features\[1, 3, 0, 2\] = -1 is negative, which pooled crelu features"):
        invert(net, features, "pool1", size=SMALL)
    with pytest.raises(FeatureError, match=r"pool1 of random gives N x 24 x h x w features"):
        invert(net, features[:, :12], "pool1", size=SMALL)


@pytest.mark.parametrize("method", ["linear", "wiener"])
def test_linear_methods_are_refused_above_a_max_pooling(method: str, images: torch.Tensor) -> None:
    net = with_pooling("crelu")
    assert applicable(net, "conv1", method) is None
    for layer in ("pool1", "conv2", "conv3"):
        features = net.features(images[:, :, : SMALL[0], : SMALL[1]], layer)
        with pytest.raises(CallError, match=f"method {method} solves linear systems, and .* the max-pooling pool1"):
            invert(net, features, layer, method, size=SMALL)
        for other in ("map", "gradient"):
            assert applicable(net, layer, other) is None
        assert applicable(with_pooling("crelu", AVERAGE), layer, method) is None
        relu = applicable(with_pooling("relu", AVERAGE), layer, method)
        assert relu is not None
        assert "the linear responses of conv1" in relu


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3"])
def test_noise_is_reckoned_with(layer: str, net: Network, images: torch.Tensor) -> None:
    """Told of it or not, what is left unexplained weighs the prior: the residual does not fall far below the noise."""
    features, share = disturb(net.features(images, layer), noise=0.1)
    assert share == pytest.approx(0.1, rel=0.05)
    known = invert(net, features, layer, size=SIZE, budget=200, noise=0.1)
    ignored = invert_map(net, features, layer, SIZE, budget=200)
    reached, other = quality(images, known.image).psnr, quality(images, ignored.images).psnr
    assert all(own > theirs - 0.1 for own, theirs in zip(reached, other, strict=True)), (reached, other)
    assert min(known.feature_residual) > 0.05


def test_one_linear_layer_gives_the_most_probable_image() -> None:
    """With noise the problem of a first layer is quadratic: |f(x) - z|^2 + ridge |w|^2, the ridge NOISE_WEIGHT times
    the noise's variance. Where its gradient vanishes, x = mean + P J^T (z - f(x)) / ridge."""
    net = random_net(Layer("conv1", 20, 3, 1, 1, "crelu"), biases=False)
    size, noise = (14, 13), 0.1
    prior = Prior(size)
    features = net.features(prior.image(prior.draw(2, torch.Generator().manual_seed(3))), "conv1")
    found = invert_map(net, features, "conv1", size, noise=noise, tolerance=1e-6, budget=2000).images
    target = features[:, :20] - features[:, 20:]
    ridge = NOISE_WEIGHT * noise**2 * target.square().mean(dim=(1, 2, 3), keepdim=True)
    left = target - net.responses(found, "conv1")
    pulled = torch.nn.functional.conv_transpose2d(left, net.conv1.weight, padding=1) / net.std
    expected = prior.mean + prior.crop(prior.field(prior.field_adjoint(prior.extend(pulled)))) / ridge
    # Rounding of the images, through J and back through P J^T / ridge: of order eps |P J^T J| / ridge.
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv4"])
def test_the_way_can_be_watched(layer: str, net: Network, images: torch.Tensor) -> None:
    seen: list[tuple[float, torch.Tensor]] = []
    features = net.features(images, layer)
    result = invert(
        net, features, layer, size=SIZE, budget=50, watch=lambda passes, shown: seen.append((passes, shown.clone()))
    )
    passes = [each for each, _ in seen]
    assert all(before < after for before, after in pairwise(passes)), passes
    assert passes[0] > 0
    assert passes[-1] == pytest.approx(max(result.forward_passes))
    assert all(shown.shape == images.shape for _, shown in seen)
    assert torch.equal(seen[-1][1], result.image)
    plain = invert(net, features, layer, size=SIZE, budget=50)
    assert torch.equal(plain.image, result.image)


def test_preparation_is_counted_once(images: torch.Tensor) -> None:
    """Statistics are kept; the inversion of their matrices is not."""
    net = load_model("crelu_conv1_4", random_weights=3)
    features = net.features(images[:1], "conv2")
    first, second = (invert(net, features, "conv2", size=SIZE, budget=3).prepare_passes for _ in range(2))
    assert second > 0
    # Three estimates on a torus of 96, of 32 images each: two of 2 passes, and one that measures deviations, runs the
    # network itself, and a smoothed one at every tau.
    assert first - second == pytest.approx((2 * 2 + 2 + len(TAUS)) * 32 * (96 / 227) ** 2, rel=1e-6)


def test_wrong_calls_are_refused(net: Network, images: torch.Tensor) -> None:
    features = net.features(images[:1], "conv2")
    for tolerance in (0, -1, 1, float("nan")):
        with pytest.raises(CallError, match="tolerance"):
            invert(net, features, "conv2", size=SIZE, tolerance=tolerance)
    for noise in (-0.1, 1, float("nan")):
        with pytest.raises(CallError, match="noise"):
            invert(net, features, "conv2", size=SIZE, noise=noise)
    for budget in (0, -3, float("nan"), float("inf")):
        with pytest.raises(CallError, match="budget"):
            invert(net, features, "conv2", size=SIZE, budget=budget)
    with pytest.raises(CallError, match="no weights for conv9"):
        invert(load_model("convpool_cnn_c"), features, "conv9", size=32)


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_the_scale_of_the_responses_does_not_matter(layer: str, photograph: torch.Tensor) -> None:
    """Weights, and so features, times a power of two: the same iteration, exact but for thresholds near rounding."""
    image = photograph[:, :, 80:143, 80:143].contiguous()
    images = []
    for factor in (1.0, 64.0):
        net = load_model("crelu_conv1_4")
        convolution = net.convolution(layer)
        convolution.weight.mul_(factor)
        convolution.bias.mul_(factor)
        images.append(invert(net, net.features(image, layer), layer, size=(63, 63), budget=60).image)
    torch.testing.assert_close(images[1], images[0], rtol=0, atol=1e-3)
