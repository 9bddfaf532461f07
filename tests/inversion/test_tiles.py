"""Pictures in tiles against the same pictures whole: on small ones, with tiles not much larger than their overlap."""

import itertools

import pytest
import torch

import reconstruct
from reconstruct.errors import CallError, ReconstructWarning
from reconstruct.inversion import tiles
from reconstruct.inversion.joint import Part
from reconstruct.inversion.tiles import layout, layouts
from reconstruct.network.architecture import Layer
from reconstruct.network.network import Network
from reconstruct.network.parts import Area, Span
from tests.builders.networks import random_net

TALL, WIDE = 65, 91
TILE = 56


def determined_net() -> Network:
    """Two padded layers with more responses than their inputs have numbers, and condition numbers of a few."""
    net = random_net(
        Layer("a", 14, kernel=4, stride=2, padding=1, activation="crelu"),
        Layer("b", 30, kernel=3, padding=1, activation="crelu"),
    )
    with torch.no_grad():
        for name, places in (("a", [(1, 1), (1, 2), (2, 1), (2, 2)]), ("b", [(1, 1)])):
            weight = net.convolution(name).weight
            weight.mul_(0.01 / weight.std())
            for place, (channel, (row, column)) in enumerate(itertools.product(range(weight.shape[1]), places)):
                weight[place, channel, row, column] += 1
    return net


DETERMINED = determined_net()
FEWER = random_net(
    Layer("a", 8, kernel=5, stride=2, activation="crelu"), Layer("b", 8, 3, padding=1, activation="crelu")
)


@pytest.fixture(autouse=True)
def less_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer unused pixels, for small pictures: what tiny networks' tiles lack dies out sooner."""
    monkeypatch.setattr(tiles, "BEYOND", 5)
    monkeypatch.setattr(tiles, "BAND", 6)


@pytest.fixture(scope="module")
def picture(photograph: torch.Tensor) -> torch.Tensor:
    return photograph[:, :, 20 : 20 + TALL, 10 : 10 + WIDE].contiguous()


@pytest.mark.parametrize(("side", "tile", "step", "unused"), [(1000, 300, 8, 43), (91, 56, 2, 15), (997, 128, 3, 30)])
def test_every_pixel_counts_once(side: int, tile: int, step: int, unused: int) -> None:
    cut = layout(side, tile, step, unused)
    total = torch.zeros(side)
    for place, span in enumerate(cut.spans):
        weight = cut.weight(place)
        total[span.slice] += weight
        assert span.first % step == 0
        assert span.length <= tile + step
        if place:
            assert (weight[:unused] == 0).all()
            assert cut.spans[place - 1].last - span.first >= 2 * unused + tiles.BAND
        if span.last < side:
            assert (weight[-unused:] == 0).all()
    assert len(cut.spans) > 1
    assert (cut.spans[0].first, cut.spans[-1].last) == (0, side)
    torch.testing.assert_close(total, torch.ones(side), rtol=0, atol=1e-6)


def test_a_small_side_is_not_cut() -> None:
    assert layout(110, 110, 2, 35).spans == [Span(0, 110)]


def test_linear_at_full_tolerance_is_the_whole(picture: torch.Tensor) -> None:
    """Damped, where responses determine the picture: to a hundred times the tolerance of the solves."""
    picture = picture[:, :, :40, :90]
    features = DETERMINED.features(picture, "b")
    options = {"size": (40, 90), "damping": 1e-3, "tolerance": 1e-7, "budget": 120}
    whole = reconstruct.invert(DETERMINED, features, "b", "linear", **options)
    tiled = reconstruct.invert(DETERMINED, features, "b", "linear", tile=TILE, **options)
    assert whole.status == tiled.status == ["converged"]
    assert (whole.tiles, tiled.tiles) == (1, 3)
    assert float((tiled.image - whole.image).abs().max()) < 1e-5
    assert float((tiled.image - picture).abs().max()) < 1e-2


@pytest.mark.parametrize(("method", "layer"), [("map", "a"), ("linear", "b")])
def test_where_the_picture_is_not_determined_it_is_as_good(picture: torch.Tensor, method: str, layer: str) -> None:
    """No worse than the whole, and no seam: near the bands the two differ no more than they differ from the picture."""
    features = FEWER.features(picture, layer)
    whole = reconstruct.invert(FEWER, features, layer, method, size=(TALL, WIDE), budget=40)
    tiled = reconstruct.invert(FEWER, features, layer, method, size=(TALL, WIDE), budget=40, tile=TILE)
    (before,), (after,) = (reconstruct.quality(picture, each.image).psnr for each in (whole, tiled))
    assert after == pytest.approx(before, abs=0.3)
    error, change = (whole.image - picture).square(), (tiled.image - whole.image).square()
    assert float(change.mean()) < 0.1 * float(error.mean())
    assert whole.forward_passes[0] < tiled.forward_passes[0] < 6 * whole.forward_passes[0]


def test_images_of_a_batch_are_cut_alike_and_alone(picture: torch.Tensor) -> None:
    both = torch.cat((picture, 1 - picture))
    features = FEWER.features(both, "a")
    together = reconstruct.invert(FEWER, features, "a", "linear", size=(TALL, WIDE), budget=20, tile=TILE)
    alone = reconstruct.invert(FEWER, features[1:], "a", "linear", size=(TALL, WIDE), budget=20, tile=TILE)
    torch.testing.assert_close(together.image[1:], alone.image, rtol=0, atol=1e-5)
    assert together.forward_passes[1] == pytest.approx(alone.forward_passes[0])
    assert len(together.status) == len(together.feature_residual) == 2


def test_several_layers_together(picture: torch.Tensor) -> None:
    layers = ["a", "b"]
    features = [reconstruct.disturb(FEWER.features(picture, layer), noise=0.05)[0] for layer in layers]
    options = {"size": (TALL, WIDE), "noise": 0.05, "budget": 20}
    whole = reconstruct.invert(FEWER, features, layers, **options)
    tiled = reconstruct.invert(FEWER, features, layers, tile=TILE, **options)
    (before,), (after,) = (reconstruct.quality(picture, each.image).psnr for each in (whole, tiled))
    assert after == pytest.approx(before, abs=0.3)


def test_noise_is_the_pictures_own() -> None:
    """Of features of which one half has a tenth of the other's contrast, noise is nearly ten times its share."""
    features = torch.ones(1, 16, 20, 40)
    features[..., 20:] = 0.1
    part = Part(FEWER, features, "a", 0.02)
    power = features.square().mean().sqrt()
    quiet = tiles._of_tile(part, power, 0, Area(Span(0, 20), Span(20, 40)))
    assert quiet.noise == pytest.approx(0.02 * (0.505**0.5) / 0.1, rel=1e-5)
    assert quiet.features.shape == (1, 16, 20, 20)
    nothing = tiles._of_tile(part._replace(features=0 * features), power, 0, Area(Span(0, 20), Span(20, 40)))
    assert nothing.noise == tiles.MOST_NOISE


def test_whoever_watches_sees_the_picture(picture: torch.Tensor) -> None:
    seen: list[tuple[float, torch.Tensor]] = []
    features = FEWER.features(picture, "a")
    result = reconstruct.invert(
        FEWER, features, "a", size=(TALL, WIDE), budget=8, tile=TILE, watch=lambda *each: seen.append(each)
    )
    assert len(seen) == result.tiles
    assert [each.shape for _, each in seen] == [picture.shape] * len(seen)
    assert all(later >= sooner for (sooner, _), (later, _) in itertools.pairwise(seen))
    torch.testing.assert_close(seen[-1][1], result.image)


def test_where_memory_would_not_suffice(picture: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then, and only then, it is cut without being asked, and says so in one sentence."""
    features = FEWER.features(picture, "a")
    options = {"size": (TALL, WIDE), "budget": 4}
    assert reconstruct.invert(FEWER, features, "a", "linear", **options).tiles == 1
    monkeypatch.setattr(tiles, "memory", lambda device: 1_000_000)
    monkeypatch.setattr(tiles, "TILE", TILE)
    with pytest.warns(
        ReconstructWarning, match=r"a picture of 65 x 91 takes about .* GB by linear from a, and .*6 tiles"
    ):
        found = reconstruct.invert(FEWER, features, "a", "linear", **options)
    assert found.tiles == 6


def test_what_is_not_cut(picture: torch.Tensor) -> None:
    features = FEWER.features(picture, "b")
    with pytest.raises(CallError, match="tiles for b have sides of at least 40 pixels, not 30"):
        reconstruct.invert(FEWER, features, "b", size=(TALL, WIDE), tile=30)
    assert reconstruct.invert(FEWER, features, "b", "linear", size=(TALL, WIDE), tile=WIDE, budget=2).tiles == 1

    class Sums(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images + self.a(images).relu()

    net = reconstruct.from_torch(Sums().eval(), input_size=(TALL, WIDE))
    name = net.layer_names[-1]
    with pytest.raises(CallError, match="for chains of layers"):
        layouts([Part(net, net.features(picture, name), name, 0.0)], (TALL, WIDE), 30)
