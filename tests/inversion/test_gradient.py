import math
from functools import partial

import numpy
import pytest
import torch

from reconstruct.errors import CallError
from reconstruct.images.quality import quality
from reconstruct.inversion import gradient
from reconstruct.inversion.gradient import alpha_norm, invert_gradient, total_variation, tv_weight
from reconstruct.inversion.residual import relative
from reconstruct.network.activations import linear_responses
from reconstruct.network.architecture import Architecture, Layer
from reconstruct.network.network import Network
from reconstruct.network.surgery import randomise
from reconstruct.zoo.load import load_model
from tests.builders.networks import random_net

SIZE = (17, 15)


def chain(activation: str, *filters: int) -> Network:
    """Layers of 3 x 3 filters, stride 1 and 2 in turn."""
    layers = tuple(
        Layer(f"conv{i + 1}", count, 3, stride=1 + i % 2, padding=1, activation=activation)
        for i, count in enumerate(filters)
    )
    net = Network(Architecture("chain", layers, 17, (0.5,) * 3, (0.25,) * 3))
    return randomise(net, 0).eval().requires_grad_(False)


def smooth(count: int, size: tuple[int, int]) -> torch.Tensor:
    """Images with large smooth shapes, different ones, in [0, 1]."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 5, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=True).clamp(0, 1)


def test_total_variation_of_a_ramp() -> None:
    """2 grey levels a column and 3 a row, in every channel: 2^2 and 3^2 at every pair of neighbours."""
    height, width = 5, 7
    ramp = 3.0 * torch.arange(height)[:, None] + 2.0 * torch.arange(width)[None]
    x = torch.stack((ramp.expand(3, -1, -1), torch.full((3, height, width), 9.0)))
    pairs = 3 * (4 * height * (width - 1) + 9 * (height - 1) * width)
    expected = torch.tensor([pairs / (height * width * 0.8**2), 0.0])
    torch.testing.assert_close(total_variation(x), expected)


def test_alpha_norm_of_a_constant() -> None:
    """Grey levels of twice B are 2^6 a channel, whatever the size and sign."""
    x = torch.tensor([160.0, -160.0, 0.0]).view(3, 1, 1, 1).expand(3, 3, 4, 6)
    torch.testing.assert_close(alpha_norm(x), torch.tensor([192.0, 192.0, 0.0]))


@pytest.mark.parametrize("regulariser", [alpha_norm, total_variation])
def test_gradient_of_the_regularisers(regulariser, generator: torch.Generator) -> None:
    """Against finite differences, and images do not touch each other."""
    x = (60 * torch.randn(2, 3, 4, 5, generator=generator)).double().requires_grad_(True)
    torch.autograd.gradcheck(regulariser, x)
    joint = torch.autograd.functional.jacobian(regulariser, x)
    assert joint[0, 1].abs().max() == joint[1, 0].abs().max() == 0


def test_gradient_of_total_variation_is_the_laplacian() -> None:
    """Independent of autograd: 2 / (H W (a B)^2) times the graph Laplacian of the grid."""
    x = torch.randn(1, 1, 6, 4, generator=torch.Generator().manual_seed(0)).double().requires_grad_(True)
    (found,) = torch.autograd.grad(total_variation(x).sum(), x)
    padded = numpy.pad(x.detach().numpy()[0, 0], 1, mode="edge")
    inner = padded[1:-1, 1:-1]
    laplacian = 4 * inner - padded[:-2, 1:-1] - padded[2:, 1:-1] - padded[1:-1, :-2] - padded[1:-1, 2:]
    numpy.testing.assert_allclose(found[0, 0].numpy(), 2 * laplacian / (24 * 0.64), rtol=1e-12)


def test_tv_weight_grows_with_the_receptive_field(net: Network) -> None:
    assert tv_weight(net, "conv1") == tv_weight(net, "conv2") == gradient.TV_WEIGHT
    assert tv_weight(net, "conv5") == pytest.approx(gradient.TV_WEIGHT * (51 / 11) ** gradient.TV_GROWTH)


def test_relative_is_finite_where_nothing_is_wanted() -> None:
    reached = torch.tensor([[3.0, 4.0], [6.0, 8.0]])
    torch.testing.assert_close(relative(reached, torch.tensor([[0.0, 0.0], [3.0, 4.0]])), torch.tensor([5.0, 1.0]))


@pytest.mark.parametrize(("activation", "most"), [("crelu", 0.1), ("relu", 0.2), ("avr", 0.5), ("none", 0.1)])
def test_the_misfit_falls(activation: str, most: float) -> None:
    """From noise, least where the sign is lost (AVR); every step is seen, and the last is the result."""
    net = chain(activation, 20, 30)
    images = smooth(2, SIZE)
    features = net.features(images, "conv2")
    seen: list[tuple[float, torch.Tensor]] = []
    result = invert_gradient(net, features, "conv2", SIZE, budget=240, watch=lambda *each: seen.append(each))
    misfit = torch.stack([relative(net.features(each, "conv2"), features) for _, each in seen])
    assert (misfit[-1] < most * misfit[0]).all(), misfit
    assert (misfit[-1] < misfit[len(seen) // 2]).all(), misfit
    assert [passes for passes, _ in seen] == [3.0 * (i + 1) for i in range(80)]
    torch.testing.assert_close(seen[-1][1], result.images, rtol=0, atol=0)


def test_the_objective_is_that_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """One first step of Adam has the sign of the objective's gradient, computed here by finite differences."""
    monkeypatch.setattr(gradient, "TV_WEIGHT", 1.0)
    monkeypatch.setattr(gradient, "ALPHA_WEIGHT", 1.0)
    monkeypatch.setattr(gradient, "NOISE", 30.0)
    net = chain("relu", 6)
    size = (5, 4)
    features = net.features(smooth(1, size), "conv1")
    start = invert_gradient(net, features, "conv1", size, budget=1).images
    (moved,) = invert_gradient(net, features, "conv1", size, budget=3).images - start
    net = net.double()
    wanted, weight = features.double().numpy(), 10**0.5 * (3 / 11) ** 2.5

    def objective(x: numpy.ndarray) -> float:
        reached = net.features(torch.from_numpy(x / 255 + 0.5)[None], "conv1").numpy()
        misfit = ((reached - wanted) ** 2).sum() / (wanted**2).sum()
        variation = (numpy.diff(x, axis=1) ** 2).sum() + (numpy.diff(x, axis=2) ** 2).sum()
        return misfit + ((x / 80) ** 6).sum() / 20 + weight * variation / (20 * 0.8**2)

    x = 255 * (start[0].double().numpy() - 0.5)
    slope = numpy.zeros_like(x)
    for index in numpy.ndindex(x.shape):
        shift = numpy.zeros_like(x)
        shift[index] = 1e-3
        slope[index] = (objective(x + shift) - objective(x - shift)) / 2e-3
    clear = abs(slope) > 1e-3 * abs(slope).max()
    assert clear.mean() > 0.9
    numpy.testing.assert_array_equal(numpy.sign(moved.numpy())[clear], -numpy.sign(slope)[clear])
    numpy.testing.assert_allclose(abs(moved.numpy())[clear], gradient.STEP / 255, rtol=1e-3)


@pytest.mark.parametrize(("activation", "least"), [("crelu", 30), ("relu", 22), ("none", 30)])
def test_the_first_layer_comes_back(activation: str, least: float) -> None:
    net = chain(activation, 40)
    images = smooth(2, SIZE)
    flat = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    result = invert_gradient(net, net.features(images, "conv1"), "conv1", SIZE)
    reached = quality(images, result.images).psnr
    assert min(reached) > least > max(quality(images, flat).psnr), reached


def test_conv1_of_the_model(net: Network, photograph: torch.Tensor) -> None:
    """A quarter of the photograph, 20 evaluations."""
    image = photograph[:, :, 50:113, 60:123]
    flat = image.mean(dim=(2, 3), keepdim=True).expand_as(image)
    result = invert_gradient(net, net.features(image, "conv1"), "conv1", (63, 63), budget=150)
    assert quality(image, result.images).psnr[0] > quality(image, flat).psnr[0] + 8


@pytest.mark.parametrize("model", ["all_cnn_b", "avr_conv1_4"])
def test_other_activations_with_random_weights(model: str) -> None:
    net = load_model(model, random_weights=0)
    image = smooth(1, (43, 47))
    features = net.features(image, "conv3")
    start = invert_gradient(net, features, "conv3", (43, 47), budget=1).images
    result = invert_gradient(net, features, "conv3", (43, 47), budget=120)
    assert result.status == ["budget"]
    misfit = [relative(net.features(each, "conv3"), features) for each in (start, result.images)]
    assert misfit[1] < 0.4 * misfit[0]


def test_images_of_a_batch_are_independent_and_seeded() -> None:
    net = chain("crelu", 20, 30)
    images = smooth(3, SIZE)
    features = net.features(images, "conv2")
    together = invert_gradient(net, features, "conv2", SIZE, budget=90)
    for i in range(3):
        alone = invert_gradient(net, features[i : i + 1], "conv2", SIZE, budget=90)
        torch.testing.assert_close(together.images[i : i + 1], alone.images, atol=1e-3, rtol=0)
    again = invert_gradient(net, features, "conv2", SIZE, budget=90)
    torch.testing.assert_close(again.images, together.images, atol=0, rtol=0)
    start = invert_gradient(net, features, "conv2", SIZE, budget=1).images
    other = invert_gradient(net, features, "conv2", SIZE, budget=1, seed=1).images
    assert (start[0] == start[2]).all()
    assert (start != other).any()
    assert start.sub(0.5).std() == pytest.approx(gradient.NOISE / 255, rel=0.1)


def _note(calls: list[float], passes: float, _: torch.Tensor) -> None:
    calls.append(passes)


def test_the_budget_is_kept_and_counted() -> None:
    net = chain("crelu", 8)
    features = net.features(smooth(2, SIZE), "conv1")
    for budget, evaluations in ((1, 0), (3, 1), (10, 3), (30.5, 10)):
        calls: list[float] = []
        result = invert_gradient(
            net, features, "conv1", SIZE, budget=budget, tolerance=1e-12, watch=partial(_note, calls)
        )
        assert result.iterations == [evaluations] * 2
        assert result.forward_passes == [3.0 * evaluations] * 2
        assert calls == [3.0 * (i + 1) for i in range(evaluations)]
        assert result.status == ["budget"] * 2
        assert (result.prepare_seconds, result.prepare_passes) == (0, 0)


@pytest.mark.parametrize("activation", ["crelu", "relu"])
def test_converged_images_stop_at_the_tolerance(activation: str) -> None:
    """Each at its own time, and what has stopped is left alone."""
    net = chain(activation, 40)
    images = smooth(2, SIZE)
    images[1] = images[1].sqrt()
    features = net.features(images, "conv1")
    shapes: list[torch.Tensor] = []
    result = invert_gradient(
        net, features, "conv1", SIZE, tolerance=0.02, budget=600, watch=lambda _, each: shapes.append(each)
    )
    assert result.status == ["converged"] * 2
    first, last = sorted(result.iterations)
    assert first < last < 200
    assert len(shapes) == last
    assert result.forward_passes == [3.0 * each for each in result.iterations]
    stopped = result.iterations.index(first)
    torch.testing.assert_close(shapes[-1][stopped], result.images[stopped], atol=0, rtol=0)
    reached = net.responses(result.images, "conv1") if activation == "crelu" else net.features(result.images, "conv1")
    wanted = linear_responses(features, "crelu") if activation == "crelu" else features
    assert (relative(reached, wanted) <= 0.02 * (1 + 1e-4)).all()


def test_what_is_not_finite_is_not_handed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that overflows: the image before it comes back, in a batch without harm to the other."""
    net = chain("none", 6)
    features = net.features(smooth(2, SIZE), "conv1")
    steps: list[torch.Tensor] = []
    original = gradient._adam

    def explode(x: torch.Tensor, slope: torch.Tensor, *rest):
        moved, first, second = original(x, slope, *rest)
        if len(steps) == 4:
            moved[0] = math.inf
        return moved, first, second

    monkeypatch.setattr(gradient, "_adam", explode)
    result = invert_gradient(net, features, "conv1", SIZE, budget=60, watch=lambda _, each: steps.append(each))
    assert result.status == ["stagnated", "budget"]
    assert result.iterations == [6, 20]
    assert result.images.isfinite().all()
    torch.testing.assert_close(result.images[0], steps[3][0], atol=0, rtol=0)
    monkeypatch.undo()
    alone = invert_gradient(net, features, "conv1", SIZE, budget=60).images[1]
    torch.testing.assert_close(result.images[1], alone, atol=1e-3, rtol=0)


def test_no_images_and_no_features() -> None:
    net = chain("relu", 8)
    features = net.features(smooth(2, SIZE), "conv1")
    empty = invert_gradient(net, features[:0], "conv1", SIZE)
    assert empty.images.shape == (0, 3, *SIZE)
    assert empty.status == empty.iterations == empty.forward_passes == []
    silent = invert_gradient(net, torch.zeros_like(features), "conv1", SIZE, budget=30)
    assert silent.images.isfinite().all()
    with pytest.raises(CallError):
        invert_gradient(net, features, "conv2", SIZE)
    with torch.no_grad():
        found = invert_gradient(net, features.double(), "conv1", SIZE, budget=30)
    assert found.images.dtype == torch.float32
    assert not found.images.requires_grad


@pytest.mark.parametrize("channels", [1, 2])
def test_images_of_any_number_of_channels(channels: int) -> None:
    net = random_net(Layer("conv1", 8, 3, 1, 1, "crelu"), channels=channels)
    image = torch.rand(2, channels, 16, 16, generator=torch.Generator().manual_seed(1))
    features = net.features(image, "conv1")
    result = invert_gradient(net, features, "conv1", (16, 16), budget=300)
    assert result.images.shape == image.shape
    flat = net.mean.expand_as(image)
    assert bool(((result.images - image).flatten(1).norm(dim=1) < 0.5 * (flat - image).flatten(1).norm(dim=1)).all())
