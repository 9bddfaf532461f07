"""Several layers together, against each of them alone."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from reconstruct import CallError, FeatureError, disturb, from_torch, invert, quality
from reconstruct.inversion.joint import determined
from reconstruct.inversion.known import Exact
from reconstruct.inversion.most_probable import search
from reconstruct.inversion.most_probable.task import Reading, tasks_of
from reconstruct.network.network import Network
from reconstruct.network.read_points import joined, joint, point
from reconstruct.prior.gaussian import Prior
from tests.builders.modules import IMAGENET, drawn

SIZE = (63, 63)
pytestmark = pytest.mark.usefixtures("no_grad")


def noisy(net: Network, image: torch.Tensor, layers: list[str], noise: float) -> list[torch.Tensor]:
    return [disturb(net.features(image, layer), noise=noise, seed=i)[0] for i, layer in enumerate(layers)]


def test_noisy_layers_together_say_no_less(net: Network, image: torch.Tensor) -> None:
    """Independent noise at two layers: the shallower says nearly all, and the other does not take it away."""
    layers, noise = ["conv3", "conv5"], 0.1
    received = noisy(net, image, layers, noise)
    alone = [
        quality(image, invert(net, each, layer, size=SIZE, noise=noise).image).psnr[0]
        for each, layer in zip(received, layers, strict=True)
    ]
    both = invert(net, received, layers, size=SIZE, noise=noise)
    assert quality(image, both.image).psnr[0] > max(alone) - 0.3, alone
    assert both.forward_passes[0] <= 450
    assert 0.05 < both.feature_residual[0] < 0.3


def test_a_shallow_layer_goes_to_gauss_newton(net: Network, image: torch.Tensor) -> None:
    """Beside a deep one it gives back at least what it does alone, but for rounding of the budget's division."""
    noise = 0.05
    received = noisy(net, image, ["conv2", "conv3"], noise)
    alone = invert(net, received[0], "conv2", size=SIZE, noise=noise)
    both = invert(net, received, ["conv2", "conv3"], size=SIZE, noise=noise)
    assert quality(image, both.image).psnr[0] > quality(image, alone.image).psnr[0] - 0.3


def test_what_exact_features_determine_is_left_out(net: Network, image: torch.Tensor) -> None:
    """The picture is then that of the layer below alone, bit by bit."""
    layers = ["conv4", "conv2"]
    features = [net.features(image, layer) for layer in layers]
    both = invert(net, features, layers, size=SIZE, budget=60)
    alone = invert(net, features[1], "conv2", size=SIZE, budget=60)
    assert torch.equal(both.image, alone.image)
    assert both.forward_passes == alone.forward_passes
    # Its residual is still that of both.
    assert both.feature_residual[0] != alone.feature_residual[0]


@pytest.mark.parametrize(
    ("noise", "dropped"), [([0.0, 0.0], {"conv4": "conv2"}), ([0.1, 0.0], {}), ([0.0, 0.1], {"conv4": "conv2"})]
)
def test_which_layers_are_determined(net: Network, noise: list[float], dropped: dict[str, str]) -> None:
    layers = ["conv2", "conv4"]
    assert determined([net, net], layers, noise) == dropped


def test_a_modulus_does_not_determine_what_lies_above(net: Network) -> None:
    """|z| of conv2 says nothing of the signs that conv4 sees; its responses do."""
    for tap, dropped in (("avr", {}), ("responses", {"conv4": "conv2"})):
        below = point(net, "conv2", tap)
        assert determined([below.net, net], ["conv2", "conv4"], [0.0, 0.0]) == dropped


class Branches(nn.Module):
    """Two convolutions of one picture, beside each other: neither says what the other sees."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(3, 8, 5, 2, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat((self.left(images), self.right(images)), 1)


def test_branches_say_more_together(image: torch.Tensor) -> None:
    """16 numbers for 12: together they determine the image, where 8 do not."""
    net = from_torch(drawn(Branches()), IMAGENET, input_size=63)
    layers = ["left", "right"]
    features = [net.features(image, layer) for layer in layers]
    assert determined([net, net], layers, [0.0, 0.0]) == {}
    alone = [
        quality(image, invert(net, each, layer).image).psnr[0] for each, layer in zip(features, layers, strict=True)
    ]
    both = invert(net, features, layers)
    assert quality(image, both.image).psnr[0] > max(alone) + 10, alone


def test_a_joint_objective_is_the_sum(net: Network, image: torch.Tensor) -> None:
    """Of the layers' own, each in units of its prior's weight; the gradient too."""
    noise = (0.1, 0.3)
    readings = [
        Reading(net, layer, Exact(net.responses(image, layer)), level)
        for layer, level in zip(("conv2", "conv3"), noise, strict=True)
    ]
    tasks = tasks_of(readings, SIZE)
    weightings = [search.prepare(task) for task in tasks]
    prior: Prior = tasks[0].prior
    white = prior.draw(1, torch.Generator().manual_seed(0))
    live, ones, step = torch.arange(1), torch.ones_like(white[:, :1]), search.Step(0.2, False, 1)

    def at(chosen: slice) -> tuple[torch.Tensor, torch.Tensor]:
        weigh = search._inverses(tasks[chosen], weightings[chosen])
        function = search._objective(tasks[chosen], weightings[chosen], weigh, step, live, ones, 1e-5, None)
        value, gradient, _ = function(white, live)
        return value, gradient

    ridges = [search._ridge(task, weighting) for task, weighting in zip(tasks, weightings, strict=True)]
    least = min(ridges)
    parts = [at(slice(0, 1)), at(slice(1, 2))]
    norm = 0.5 * white.square().sum()
    value = least.flatten() * norm + sum(
        (least / ridge).flatten() * (part[0] - ridge.flatten() * norm)
        for part, ridge in zip(parts, ridges, strict=True)
    )
    gradient = least * white + sum(
        least / ridge * (part[1] - ridge * white) for part, ridge in zip(parts, ridges, strict=True)
    )
    torch.testing.assert_close(at(slice(0, 2))[0], value, rtol=1e-4, atol=0)
    torch.testing.assert_close(at(slice(0, 2))[1], gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max()))


def test_names_that_plus_joins(net: Network, image: torch.Tensor) -> None:
    assert joined(net, "conv3 + conv5+conv3") == ["conv3", "conv5"]
    assert joint(net, "conv3+conv3").layer == "conv3"
    read = joint(net, "conv1+conv2", "responses")
    assert read.name == "conv1+conv2"
    expected = [net.responses(image, layer) for layer in ("conv1", "conv2")]
    torch.testing.assert_close(read.features(image), expected)
    with pytest.raises(CallError, match="no layer 'conv33'; did you mean"):
        joint(net, "conv3+conv33")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda net, f: invert(net, f, ["conv1"], size=63), CallError, "of 1 layers are a list of 1 arrays, not 2"),
        (lambda net, f: invert(net, f[0], ["conv1", "conv2"], size=63), CallError, "not Tensor"),
        (lambda net, f: invert(net, f, ["conv1", "conv1"], size=63), CallError, "named once each"),
        (lambda net, f: invert(net, [], [], size=63), CallError, "at least one, not none"),
        (lambda net, f: invert([net], f, ["conv1", "conv2"], size=63), CallError, "networks in common or 2, not 1"),
        (lambda net, f: invert(net, f, ["conv1", "conv2"], noise=[0.1], size=63), CallError, "in common or 2, not 1"),
        (lambda net, f: invert(net, f, ["conv1", "conv2"], noise=[0.1, 2], size=63), CallError, "below 1, not 2"),
        (lambda net, f: invert(net, f, ["conv1", "conv2"], "linear", size=63), CallError, "one layer at a time; map"),
        (lambda net, f: invert(net, f, ["conv1", "conv4"], size=63), FeatureError, "conv4 of crelu_conv1_4 gives N x"),
        (lambda net, f: invert(net, [f[0], f[1][:0]], ["conv1", "conv2"], size=63), CallError, "of different numbers"),
        (lambda net, f: invert(net, [f[0], f[1][:, :, 1:]], ["conv1", "conv2"], size=63), FeatureError, "not 13 x 14"),
    ],
)
def test_wrong_calls_say_what_is_wrong(
    net: Network, image: torch.Tensor, call: Callable[..., object], error: type[Exception], message: str
) -> None:
    features = [net.features(image, layer) for layer in ("conv1", "conv2")]
    with pytest.raises(error, match=message):
        call(net, features)
