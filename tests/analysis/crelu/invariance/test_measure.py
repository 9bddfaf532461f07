import cmath
import json
import math
from collections import defaultdict
from collections.abc import Sequence

import numpy
import pytest
import torch

from reconstruct.analysis.crelu.invariance.measure import invariance
from reconstruct.analysis.crelu.invariance.transformations import Point, Transformation, transform
from reconstruct.analysis.crelu.quantile import QuantileSketch
from reconstruct.errors import CallError, FeatureError
from reconstruct.network.architecture import Layer
from reconstruct.network.network import Network
from tests.builders.networks import exact_net
from tests.builders.synthetic import smooth_noise

FLIP = Transformation("flip")
STAY = Transformation("translation", 0.0)


def binary(count: int, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Noise of multiples of 1/256: sums with such weights are exact in float64, in any order."""
    return torch.randint(0, 257, (count, 3, *size), generator=generator).double() / 256


@torch.no_grad()
def fill(net: Network, layer: str, filters: torch.Tensor, bias: float = 0.0) -> None:
    """Weights rounded to multiples of 1/256."""
    convolution = net.convolution(layer)
    convolution.weight.copy_((256 * filters).round() / 256)
    assert convolution.bias is not None
    convolution.bias.fill_(bias)


def test_nothing_changes_under_no_transformation(generator: torch.Generator) -> None:
    """L is 1 for every unit, and its score 1 / G."""
    net = exact_net(Layer("a", 6, 3, stride=2, padding=1, activation="crelu"), Layer("b", 5, 3, activation="avr"))
    images = [smooth_noise(3, (40, 36), generator) for _ in range(3)]
    for result in invariance(net, images, ["a", "b"], transformations=[STAY], best=1.0):
        (score,) = result.scores.values()
        assert result.curve == {"translation": {0.0: 1.0}}
        start, step = net.architecture.grid(result.layer)
        least, most = [], []
        for features in torch.cat([net.features(batch, result.layer) for batch in images]).transpose(0, 1):
            rows, columns = (
                [k for k in range(count) if 0.1 * side <= start + step * k <= 0.9 * side]
                for count, side in zip(features.shape[1:], (40, 36), strict=True)
            )
            values = features[:, rows][:, :, columns].flatten()
            quantile = values.sort().values[math.floor(0.99 * (len(values) - 1))]
            # The threshold is below the quantile, by at most 0.4 %.
            least.append(float((values >= quantile).double().mean()))
            most.append(float((values > 0.996 * quantile).double().mean()))
        units = len(least)
        assert sum(least) / units <= result.rate <= sum(most) / units
        assert sum(1 / rate for rate in most) / units <= score.mean <= sum(1 / rate for rate in least) / units
        assert score.best == pytest.approx(score.mean)
        assert (result.best, result.mean) == (score.best, score.mean)
        assert result.silent == result.sparse == 0
    (alone,) = invariance(exact_net(Layer("a", 1, 3)), images, ["a"], transformations=[STAY])
    assert alone.best * alone.rate == pytest.approx(1)
    assert (alone.scores["translation"].deviation, alone.held_out) == (0, pytest.approx(alone.best))


def test_units_fire_at_the_rate_asked_for(generator: torch.Generator) -> None:
    """Within the thresholds' 0.4 %, of smooth features: 1 / 10 of this in G, at log-densities up to 25 a unit."""
    net = exact_net(Layer("a", 20, 3), Layer("p", kernel=3, stride=2, kind="max_pool"), Layer("b", 20, 3))
    images = [smooth_noise(8, (40, 40), generator)]
    for rate in (0.01, 0.05):
        for result in invariance(net, images, ["a", "p", "b"], transformations=[STAY], rate=rate):
            places = 8 * {"a": 32**2, "p": 16**2, "b": 16**2}[result.layer]
            assert rate <= result.rate <= 1.1 * rate + 2 / places


@pytest.mark.parametrize("size", [(64, 64), (61, 66), (62, 63), (60, 65)])
@pytest.mark.parametrize("kernel", [3, 4])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (2, 2)])
def test_mirrored_filters_are_exactly_invariant_to_flips(
    strides: tuple[int, int], kernel: int, size: tuple[int, int], generator: torch.Generator
) -> None:
    """At steps of 1, 2 and 4, on whole and half pixels: every position is compared, and fires on; others do not."""
    layers = [
        Layer(name, 8, kernel, stride=stride, padding=1, activation="relu")
        for name, stride in zip("ab", strides, strict=True)
    ]
    net = exact_net(*layers)
    images = [binary(4, size, generator)]
    random = invariance(net, images, ["a", "b"], transformations=[FLIP], rate=0.05)
    assert all(result.curve["flip"][1.0] < 0.5 for result in random)
    for name in "ab":
        weight = net.convolution(name).weight
        fill(net, name, weight + weight.flip(3))
    for result in invariance(net, images, ["b", "a"], transformations=[FLIP], rate=0.05, best=1.0):
        assert result.curve["flip"] == {1.0: 1.0}
        start, step = net.architecture.grid(result.layer)
        inside = math.prod(sum(0.1 * side <= start + step * k <= 0.9 * side for k in range(-2, 99)) for side in size)
        # Half a step off the middle at most, so that at most one column is lost at the inner part's border.
        tested, rows = result.scores["flip"].trials, 4 * size[0] / step
        assert tested >= result.rate * (4 * inside - rows) - 4 * math.sqrt(result.rate * rows)


def test_opposite_phases_do_not_fire_after_flips(generator: torch.Generator) -> None:
    """A filter that is its mirror image's opposite: the flip takes each response to its opposite, the other phase."""
    net = exact_net(Layer("a", 6, 5, stride=2, activation="crelu"))
    weight = net.a.weight
    fill(net, "a", weight - weight.flip(3))
    (result,) = invariance(net, [binary(4, (41, 40), generator)], ["a"], transformations=[FLIP], rate=0.1)
    assert result.units == 12
    assert result.curve["flip"][1.0] == 0
    assert result.mean == result.best == result.held_out == 0


def test_round_filters_turn_with_the_image(generator: torch.Generator) -> None:
    """A Gaussian's response is turned with its image, where the image is smooth; that of its derivative is not."""
    net = exact_net(Layer("a", 2, 13))
    reach = torch.arange(-6, 7, dtype=torch.float64)
    blob = (-(reach[:, None] ** 2 + reach[None] ** 2) / 8).exp().expand(3, -1, -1)
    with torch.no_grad():
        net.a.weight.copy_(torch.stack((blob, blob * reach)) / 10)
    turns = [Transformation("rotation", angle) for angle in (-40.0, 20.0, 40.0)]
    images = [smooth_noise(4, (80, 80), generator, width=3)]
    round_, edge = (
        invariance(part, images, ["a"], transformations=[*turns, FLIP], rate=0.05)[0]
        for part in (_only(net, 0), _only(net, 1))
    )
    # Positions are off by up to an eighth of a pixel each way, of features that vary over 3 or more: of the firing
    # areas, some 7 pixels across, a rim of an eighth of a pixel is 4/8/7 = 7 % at most.
    assert all(rate > 0.93 for rate in round_.curve["rotation"].values())
    assert round_.curve["flip"][1.0] > 0.999
    assert edge.curve["rotation"][40.0] < 0.8
    assert edge.curve["flip"][1.0] == 0


def _only(net: Network, channel: int) -> Network:
    """The network with one filter."""
    part = exact_net(Layer("a", 1, 13))
    with torch.no_grad():
        part.a.weight.copy_(net.a.weight[channel : channel + 1])
    return part


LAYERS = (Layer("a", 3, 3, stride=2, padding=1, activation="crelu"), Layer("p", kernel=2, stride=2, kind="max_pool"))
TRIED = (
    Transformation("translation", 2.0, (2, -1)),
    Transformation("translation", 2.0, (-1, 2)),
    Transformation("translation", 5.0, (0, 5)),
    Transformation("rotation", 10.0),
    Transformation("rotation", -35.0),
    Transformation("scale", 0.8),
    Transformation("scale", 1.3),
    FLIP,
)
# Step 2 from 0.5 (a) and step 4 from 1.5 (p), images of 40 x 36 with the middle at (20, 18): the nearest centres are
# these, and a has none at p's. Flips take half the step, and p's point serves both.
GRIDS = {"a": (0.5, 2), "p": (1.5, 4)}
FIXED: dict[str, Point] = {"a": (20.5, 18.5), "p": (21.5, 17.5)}
MIRROR: Point = (19.5, 17.5)


def goes_to(each: Transformation, layer: str, point: Point) -> Point:
    """Where the unit is that sees what the unit at a point saw; in complex numbers, up is positive."""
    if each.kind == "translation":
        return point
    down, across = MIRROR if each.kind == "flip" else FIXED[layer]
    place = complex(point[1] - across, down - point[0])
    if each.kind == "flip":
        place = -place.conjugate()
    else:
        place *= cmath.rect(1, math.radians(each.magnitude)) if each.kind == "rotation" else each.magnitude
    return down - place.imag, across + place.real


def counted_by_loops(
    net: Network, images: torch.Tensor, layer: str, rate: float
) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """G by unit; what fires and what fires on, by half of the images, transformation and unit."""
    start, step = GRIDS[layer]
    features = net.features(images, layer)
    channels, height, width = features.shape[1:]

    def inner(down: float, across: float) -> bool:
        return 4 <= down <= 36 and 3.6 <= across <= 32.4

    grid = [(i, j) for i in range(height) for j in range(width)]
    inside = [(i, j) for i, j in grid if inner(start + step * i, start + step * j)]
    sketch = QuantileSketch(channels)
    sketch.add(torch.stack([features[:, :, i, j] for i, j in inside], -1))
    thresholds = (0.998 * sketch.quantile(1 - rate)).numpy()
    fires = features.numpy() > thresholds[:, None, None]
    fired = sum(fires[:, :, i, j].sum(0) for i, j in inside) / (len(images) * len(inside))
    tested, kept = numpy.zeros((2, 2, len(TRIED), channels))
    for number, each in enumerate(TRIED):
        about = {"translation": None, "flip": MIRROR}.get(each.kind, FIXED[layer])
        after = net.features(transform(images, each, about), layer).numpy() > thresholds[:, None, None]
        for i, j in inside:
            down, across = goes_to(each, layer, (start + step * i, start + step * j))
            k, m = round((down - start) / step), round((across - start) / step)
            off = max(abs(start + step * k - down), abs(start + step * m - across))
            if off > step / 8 + 1e-9 or not inner(start + step * k, start + step * m):
                continue
            if each.kind == "translation":
                y, x = start + step * i - each.shift[0], start + step * j - each.shift[1]
                if not (0 <= y <= 40 and 0 <= x <= 36):
                    continue
            for n, c in zip(*fires[:, :, i, j].nonzero(), strict=True):
                tested[n % 2, number, c] += 1
                kept[n % 2, number, c] += after[n, c, k, m]
    return fired, tested, kept


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:Mean of empty:RuntimeWarning")
def test_scores_are_those_of_explicit_loops(generator: torch.Generator) -> None:
    """Every number, by loops over images, units, positions and transformations."""
    net, rate, best = exact_net(*LAYERS), 0.15, 0.4
    images = smooth_noise(7, (40, 36), generator, width=3)
    results = invariance(net, images.split((2, 3, 2)), ["p", "a"], transformations=TRIED, rate=rate, best=best)
    assert [result.layer for result in results] == ["p", "a"]
    for result in results:
        fired, tested, kept = counted_by_loops(net, images, result.layer, rate)
        assert (tested.sum((0, 1)) > 0).all()
        assert result.rate == pytest.approx(fired.mean())
        local = kept.sum(0) / tested.sum(0)
        numbers = defaultdict(list)
        for number, each in enumerate(TRIED):
            numbers[each.kind].append(number)
        for kind, chosen in numbers.items():
            score, (even, odd) = (
                numpy.nanmean(rates[..., chosen, :], axis=-2) / fired for rates in (local, kept / tested)
            )
            top = numpy.sort(score[~numpy.isnan(score)])
            top = top[-round(best * len(top)) :]
            found = result.scores[kind]
            assert found.mean == pytest.approx(numpy.nanmean(score))
            assert (found.best, found.deviation) == pytest.approx((top.mean(), top.std()))
            assert found.trials == int(numpy.median(tested[:, chosen].sum((0, 1))))
            assert found.held_out == pytest.approx((_held_out(even, odd, best) + _held_out(odd, even, best)) / 2)
        assert result.curve["translation"] == {
            2.0: pytest.approx(numpy.nanmean(local[:2].mean(0))),
            5.0: pytest.approx(numpy.nanmean(local[2])),
        }
        assert result.curve["scale"] == {
            0.8: pytest.approx(numpy.nanmean(local[5])),
            1.3: pytest.approx(numpy.nanmean(local[6])),
        }
        assert result.mean == pytest.approx(sum(score.mean for score in result.scores.values()) / 4)


def _held_out(chosen_on: numpy.ndarray, scored_on: numpy.ndarray, best: float) -> float:
    known = [unit for unit in numpy.argsort(-chosen_on, kind="stable") if not math.isnan(chosen_on[unit])]
    return float(numpy.nanmean(scored_on[known[: round(best * len(known))]]))


def test_silent_and_sparse_units(generator: torch.Generator) -> None:
    """One never fires, and is left out; one is above 0 at four positions of 4 x 1024: it fires there, as measured."""
    net = exact_net(Layer("a", 3, 1))
    with torch.no_grad():
        net.a.weight.zero_()
        net.a.weight[1, 0], net.a.weight[2, 1] = 1, 1
        net.a.bias.copy_(torch.tensor([-1.0, -1.5, 2.0]))
    images = torch.rand(4, 3, 40, 40, generator=generator, dtype=torch.float64)
    images[:, 0] *= 0.5
    images[:, 0, 7, 20] = 1
    (result,) = invariance(net, [images], ["a"], transformations=[STAY], best=1.0)
    assert (result.units, result.silent, result.sparse) == (3, 1, 1)
    ordinary = 2 * result.rate - 1 / 1024
    values = net.features(images, "a")[:, 2, 4:36, 4:36].flatten()
    exact = values.sort().values[math.floor(0.99 * (len(values) - 1))]
    # Thresholds are up to 0.4 % below the quantile.
    assert float((values >= exact).sum()) / 4096 <= ordinary <= float((values > 0.996 * exact).sum()) / 4096
    assert result.mean == pytest.approx((1024 + 1 / ordinary) / 2)
    (nothing,) = invariance(net, [images.zero_()], ["a"], transformations=[STAY])
    assert nothing.silent == 3
    assert nothing.record()["scores"]["translation"]["best"] is nothing.record()["rate"] is None


def test_equal_values_fire_together() -> None:
    """A fortieth of each image is evenly white: its 0.99-quantile is that white, and G the white share."""
    net = exact_net(Layer("a", 1, 1))
    fill(net, "a", torch.ones(1, 3, 1, 1))
    images = torch.zeros(2, 3, 40, 40, dtype=torch.float64)
    images[:, :, 20] = 1
    (result,) = invariance(net, [images], ["a"], transformations=[STAY])
    assert result.rate == 1 / 32
    assert result.best == pytest.approx(32)


def test_negative_features_never_fire(generator: torch.Generator) -> None:
    """Units without activation are those with ReLU."""
    images = [smooth_noise(4, (40, 40), generator)]
    relu, none = (
        invariance(exact_net(Layer("a", 8, 3, stride=2, activation=kind)), images, ["a"], rate=0.6)[0].record()
        for kind in ("relu", "none")
    )
    assert relu.pop("activation") == "relu"
    assert none.pop("activation") == "none"
    assert relu == none


def test_a_layers_scores_do_not_depend_on_what_else_is_asked(generator: torch.Generator) -> None:
    """Nor on batches; a function is as good as a list; progress is told."""
    net = exact_net(*LAYERS, Layer("b", 4, 3, padding=1))
    images = smooth_noise(6, (40, 36), generator)
    told: list[int] = []
    every = invariance(net, lambda: iter(images.split(4)), ["b", "a", "p"], rate=0.1, advance=told.append)
    assert told == [4, 2, 4, 2]
    for result in every:
        (alone,) = invariance(net, [images], [result.layer], rate=0.1)
        assert alone.record() == result.record()
        assert json.loads(json.dumps(result.record(), allow_nan=False)) == result.record()


def test_what_could_not_be_tested_is_not_a_number() -> None:
    """One bright pixel a fifth of the way in: the scale by 1/2 takes it to no position, and there is no score."""
    net = exact_net(Layer("a", 1, 1))
    fill(net, "a", torch.ones(1, 3, 1, 1))
    images = torch.zeros(1, 3, 40, 40, dtype=torch.float64)
    images[:, :, 9, 9] = 1
    (result,) = invariance(net, [images], ["a"], transformations=[STAY, Transformation("scale", 0.5)])
    assert math.isnan(result.scores["scale"].best)
    assert math.isnan(result.scores["scale"].held_out)
    assert result.scores["scale"].trials == 0
    assert result.best == result.scores["translation"].best
    record = result.record()
    assert record["scores"]["scale"]["best"] is None
    assert record["curve"]["scale"] == [[0.5, None]]


def test_wrong_calls_are_refused() -> None:
    net = exact_net(Layer("a", 4, 5, stride=4), Layer("b", 4, 3, padding=1), size=32)
    images = [torch.rand(2, 3, 40, 40, dtype=torch.float64)]

    def refused(message: str, given: object = images, layers: Sequence[str] = ("a",), **options: object) -> None:
        with pytest.raises(CallError, match=message):
            invariance(net, given, layers, **options)  # type: ignore[arg-type]

    refused("no layer 'c'", layers=["c"])
    refused("no layer named", layers=[])
    refused("no images", given=[])
    refused("read twice", given=iter(images))
    twice = iter(images)
    refused("gave 2 images at first and 0 afterwards", given=lambda: twice)
    refused("smaller than the receptive field of b, 13 x 13", given=[images[0][..., :12]], layers=["b"])
    refused("of one size here, not of 40 x 40 and 36 x 40", given=[images[0], images[0][:, :, :36]])
    refused("images are N x 3 x H x W", given=images[0])
    refused(r"rate lies in \(0, 1\)", rate=1.0)
    refused(r"best in \(0, 1\]", best=0.0)
    refused("no transformation is given", transformations=[])
    small = exact_net(Layer("a", 4, 1, stride=64))
    with pytest.raises(CallError, match="no position of a is centred in the inner part of images of 40 x 40 pixels"):
        invariance(small, images, ["a"])
    with torch.no_grad():
        net.a.weight[0] = math.nan
    with pytest.raises(FeatureError, match="features of a are not finite"):
        invariance(net, images, ["b", "a"])
