"""Images from what a max-pooling leaves."""

from dataclasses import replace

import pytest
import torch

from reconstruct import invert, quality
from reconstruct.analysis.pooling_bounds import layer_bounds
from reconstruct.errors import CallError, FeatureError
from reconstruct.inversion.known import intervals
from reconstruct.inversion.pooled import KNOWN, invert_pooled, rebuild
from reconstruct.network.network import Network
from reconstruct.network.surgery import with_pool
from reconstruct.operators.pooling import MaxPool
from reconstruct.zoo.load import load_model

SIDE = 67


@pytest.fixture(scope="module")
def image(photograph: torch.Tensor) -> torch.Tensor:
    return photograph[:, :, 60 : 60 + SIDE, 30 : 30 + SIDE]


def with_relu(net: Network) -> Network:
    """The same filters, with ReLU after the convolution below the pooling."""
    layers = (*net.layers[:-2], replace(net.layers[-2], activation="relu"), net.layers[-1])
    other = Network(replace(net.architecture, layers=layers)).eval().requires_grad_(False)
    other.load_state_dict(net.state_dict())
    return other


def psnr(net: Network, image: torch.Tensor, layer: str, budget: float | None = None) -> dict[str, float]:
    found = rebuild(net, image, layer, budget=budget)
    return {known: quality(image, each.images).psnr[0] for known, each in found}


def test_a_pooling_of_single_positions_leaves_everything(net: Network, image: torch.Tensor) -> None:
    """Windows of one position: switches and centres say the responses themselves. (An interval is then [0, z].)"""
    pooled = with_pool(net, "conv1", 1, 1)
    features = pooled.features(image, "conv1_pool")
    switches = pooled.switches(image, "conv1_pool")
    whole = invert(net, net.features(image, "conv1"), "conv1", size=SIDE)
    best = quality(image, whole.image).psnr[0]
    assert best > 40
    for known in ("switches", "both", "centres"):
        found = invert_pooled(pooled, features, "conv1_pool", (SIDE, SIDE), known, switches=switches)
        # Box and linear solve take other ways to one point.
        assert quality(image, found.images).psnr[0] > best - 6, known


def test_more_knowledge_gives_more_of_the_image(net: Network, image: torch.Tensor) -> None:
    reached = psnr(with_pool(net, "conv1", 3, 2), image, "conv1_pool")
    assert list(reached) == [*KNOWN, "map"]
    assert reached["both"] > reached["switches"] - 0.5
    assert reached["switches"] > reached["map"] > reached["intervals"]
    assert reached["switches"] > reached["centres"] + 10


def test_an_image_from_intervals_lies_in_them(net: Network, image: torch.Tensor) -> None:
    """Convex for a first layer: a point of the box is found; and not the flat picture, which without biases is one."""
    for own in (net, load_model("crelu_conv1_4", random_weights=0)):
        pooled = with_pool(own, "conv1", 3, 2)
        features = pooled.features(image, "conv1_pool")
        found = invert_pooled(pooled, features, "conv1_pool", (SIDE, SIDE), "intervals")
        responses = pooled.responses(found.images, "conv1")
        box = intervals(MaxPool(pooled.layers[1], tuple(responses.shape[2:])), features, "crelu")
        outside, _ = box.residual(responses)
        assert float(outside.norm() / box.norm()) <= 1e-3
        flat = pooled.mean.expand_as(image)
        assert quality(image, found.images).psnr[0] > quality(image, flat).psnr[0] + 3
        assert found.forward_passes[0] <= 450
    inside, _ = intervals(MaxPool(pooled.layers[1], (15, 15)), features, "crelu").residual(
        pooled.responses(flat, "conv1")
    )
    assert not inside.any()


def test_the_way_can_be_watched(net: Network, image: torch.Tensor) -> None:
    """Passes grow, through both stages of intervals, to what the result says."""
    pooled = with_pool(net, "conv1", 3, 2)
    seen: list[float] = []

    def watch(passes: float, images: torch.Tensor) -> None:
        assert images.shape == image.shape
        seen.append(passes)

    features = pooled.features(image, "conv1_pool")
    found = invert_pooled(pooled, features, "conv1_pool", (SIDE, SIDE), "intervals", budget=60, watch=watch)
    assert seen == sorted(seen)
    assert seen[-1] == found.forward_passes[0] <= 60


def test_a_budget_of_one_pass_gives_an_image(net: Network, image: torch.Tensor) -> None:
    pooled = with_pool(net, "conv1", 3, 2)
    for known, found in rebuild(pooled, image, "conv1_pool", budget=1):
        assert found.images.isfinite().all(), known


def test_crelu_bounds_from_both_sides(net: Network, image: torch.Tensor) -> None:
    """The same filters: ReLU's pooled features bound from above only, and know half as many responses."""
    pooled = with_pool(net, "conv1", 3, 2)
    two, one = (psnr(each, image, "conv1_pool", budget=150) for each in (pooled, with_relu(pooled)))
    assert two["intervals"] > one["intervals"], (two, one)
    # Twice as many known: half as much noise at least.
    for known in ("switches", "both"):
        assert two[known] > one[known] + 3, (two, one)


@pytest.mark.slow
def test_several_convolutions_below_the_pooling(photograph: torch.Tensor) -> None:
    net = load_model("convpool_cnn_c_crelu")
    image = photograph[:, :, 70:102, 50:82]
    reached = psnr(net, image, "pool1", budget=60)
    flat = quality(image, image.mean(dim=(2, 3), keepdim=True).expand_as(image)).psnr[0]
    assert min(reached["both"], reached["switches"]) > max(flat, reached["intervals"]) + 3
    window = with_pool(net, "conv2", 3, 3)
    for random in (None, 0):
        regions = layer_bounds(window, image[:, :, :8, :8], "conv2_pool", random=random)
        assert (regions.violations, tuple(regions.relative_error.shape)) == (0, (1, 2, 2))


def test_avr_keeps_intervals_only(image: torch.Tensor) -> None:
    net = with_pool(load_model("avr_conv1_4", random_weights=0), "conv1", 3, 2)
    assert list(dict(rebuild(net, image, "conv1_pool", budget=20))) == ["intervals", "map"]


def test_wrong_calls_are_refused(net: Network, image: torch.Tensor) -> None:
    pooled = with_pool(net, "conv1", 3, 2)
    features = pooled.features(image, "conv1_pool")
    size = (SIDE, SIDE)
    with pytest.raises(CallError, match="known is one of switches, intervals, both, centres, not 'all'"):
        invert_pooled(pooled, features, "conv1_pool", size, "all")
    with pytest.raises(CallError, match="'both' needs the switches of conv1_pool"):
        invert_pooled(pooled, features, "conv1_pool", size, "both")
    with pytest.raises(CallError, match="int64, one a feature"):
        invert_pooled(pooled, features, "conv1_pool", size, "both", switches=torch.zeros(1, 1, 1, 1))
    with pytest.raises(CallError, match=r"conv1 of crelu_conv1_4 is not a max-pooling .* it has conv1_pool"):
        invert_pooled(pooled, features, "conv1", size, "intervals")
    with pytest.raises(CallError, match="images of 67 x 68 give conv1_pool features of 192 x 7 x 7"):
        invert_pooled(pooled, features[..., :6], "conv1_pool", (67, 68), "intervals")
    with pytest.raises(FeatureError, match="is negative"):
        invert_pooled(pooled, -features, "conv1_pool", size, "intervals")
    for layer, kernel, message in (
        ("conv1_pool", 2, "conv1_pool is a pooling itself"),
        ("conv1", 0, "at least 1, not 0 and 2"),
        ("conv1", 56, "windows of 56 do not fit the 55 x 55 positions of conv1"),
    ):
        with pytest.raises(CallError, match=message):
            with_pool(pooled, layer, kernel, 2)
