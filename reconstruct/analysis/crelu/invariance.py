"""Invariance scores: what moves, turns, scales or mirrors an image, and do a layer's units fire on?

Sources: Goodfellow, Le, Saxe, Lee, Ng 2009, "Measuring invariances in deep networks", for the score; Shang, Sohn,
Almeida, Lee 2016, Figure 4, for its use on CReLU beside ReLU.

A unit is a channel of a layer, the same weights at every position. It fires where its feature exceeds its threshold,
which is such that it fires at a given share of positions of untransformed images, its global rate G, 1 %. Of the
positions where it fires, its local rate L is the share at which it still fires once the image is transformed: moved
under the unit, or turned, scaled or mirrored about the centre of what the unit looks at. Its score is L / G: 1 / G,
about 100, is perfect invariance, and 1 that of a unit that fires at random.

**One pass for all positions.** A whole image is transformed about one point c. The content around p goes to p' = M(p),
transformed about itself, so the unit at p' of the transformed image sees what the unit at p saw. p' is rarely the
centre of a position, so only those p are used whose p' lies within an eighth of the layer's step of one, down and
across: of 2 x 1/8 of the step each way, a sixteenth of the positions, and no more translation than that is mixed in.
c is the centre of a position of the network's deepest layer, nearest the image's middle, so that each layer has a p
that stays; for flips also half a step from one, where positions go onto positions exactly. A layer for which another's
point is none of these has its own. Translations are by whole pixels, under units that stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from reconstruct.analysis.crelu.quantile import QuantileSketch
from reconstruct.errors import CallError, FeatureError
from reconstruct.network.architecture import Size
from reconstruct.network.network import Network

KINDS = ("translation", "rotation", "scale", "flip")

MARGIN = 0.1
"""Of the image's sides: positions whose centre is nearer to the border are not used."""

NEAR = 1 / 8
"""Of a layer's step: how far a moved centre may be from the position that it is compared at, down and across."""

Point = tuple[float, float]
"""Down and across from the image's top left corner, in pixels; pixel i extends from i to i + 1."""

Batches = Iterable[torch.Tensor] | Callable[[], Iterable[torch.Tensor]]


@dataclass(frozen=True)
class Transformation:
    """One change of an image.

    Attributes
    ----------
    kind : ``translation``, ``rotation``, ``scale`` or ``flip`` (left and right are swapped).
    magnitude : radius in pixels, angle in degrees (positive: anticlockwise as seen), factor (above 1: content grows);
        of a flip nothing. Rates are told by kind and magnitude: transformations that agree in both are averaged.
    shift : of a translation alone, rows down and columns to the right by which content moves.
    """

    kind: str
    magnitude: float = 1.0
    shift: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise CallError(f"unknown kind of transformation '{self.kind}'; there are {', '.join(KINDS)}")
        if self.kind == "scale" and not 0 < self.magnitude < math.inf:
            raise CallError(f"a scale's factor is above 0, not {self.magnitude:g}")
        if self.kind != "translation" and self.shift != (0, 0):
            raise CallError(f"only a translation has a shift, not a {self.kind}")


@dataclass(frozen=True)
class Score:
    """L / G of a layer's units under one kind of transformation; NaN where no unit could be tested.

    Attributes
    ----------
    best : mean over the best share of the units.
    deviation : standard deviation over the same.
    mean : over all units.
    held_out : ``best`` with the units chosen on every other image and scored on the rest, averaged over both ways.
        Of scores from few trials the best are the luckiest too, and ``best`` is too high. This is not; it is rather
        too low, as half of the images tell less well which units are the best.
    trials : the median over units of how often a unit was tested: firing positions times transformations.
    """

    best: float
    deviation: float
    mean: float
    held_out: float
    trials: int


@dataclass(frozen=True)
class LayerInvariance:
    """The invariance of a layer's units.

    Attributes
    ----------
    layer, activation : its name; its activation, ``none`` of a pooling.
    units : its channels.
    silent : those that never fire, which are left out of everything else.
    sparse : those that are above 0 too rarely for the rate asked for. Their threshold is 0 and their G, which is
        below the rate, as measured; so their L / G may be above 1 / rate.
    rate : G, the mean over the units that fire.
    scores : by kind.
    curve : L by kind and magnitude, the mean over the units that were tested; magnitudes as the transformations go.
    """

    layer: str
    activation: str
    units: int
    silent: int
    sparse: int
    rate: float
    scores: dict[str, Score]
    curve: dict[str, dict[float, float]]

    @property
    def best(self) -> float:
        """The best units' score, averaged over the kinds of transformation that could be tested."""
        return _mean([score.best for score in self.scores.values()])

    @property
    def held_out(self) -> float:
        """``Score.held_out``, averaged in the same way."""
        return _mean([score.held_out for score in self.scores.values()])

    @property
    def mean(self) -> float:
        """All units' score, averaged in the same way."""
        return _mean([score.mean for score in self.scores.values()])

    def record(self) -> dict[str, Any]:
        """In plain types of JSON: None for NaN, and the curve as pairs of magnitude and L."""
        scores = {
            kind: {name: _plain(value) for name, value in vars(score).items()} for kind, score in self.scores.items()
        }
        curve = {kind: [[size, _plain(rate)] for size, rate in rates.items()] for kind, rates in self.curve.items()}
        return {
            "layer": self.layer,
            "activation": self.activation,
            "units": self.units,
            "silent": self.silent,
            "sparse": self.sparse,
            "rate": _plain(self.rate),
            "best": _plain(self.best),
            "held_out": _plain(self.held_out),
            "mean": _plain(self.mean),
            "scores": scores,
            "curve": curve,
        }


def transformations(side: int) -> tuple[Transformation, ...]:
    """The default transformations of images of this side, in pixels.

    Translations by a 64th, 32nd and 16th of it, rounded to distinct whole pixels, in eight directions (diagonal ones
    rounded to whole pixels down and across, so that those of 1 and of 2 pixels are the same); rotations by 5, 10, 20
    and 40 degrees both ways; scales by 1.1, 1.25 and 1.5 both ways; the flip.
    """
    radii = sorted({max(1, round(side / part)) for part in (64, 32, 16)})
    moves = [
        Transformation("translation", float(radius), (round(-radius * math.sin(turn)), round(radius * math.cos(turn))))
        for radius in radii
        for turn in (math.pi / 4 * eighth for eighth in range(8))
    ]
    angles = [Transformation("rotation", float(angle)) for angle in (-40, -20, -10, -5, 5, 10, 20, 40)]
    scales = [Transformation("scale", factor) for factor in (1 / 1.5, 1 / 1.25, 1 / 1.1, 1.1, 1.25, 1.5)]
    return (*moves, *angles, *scales, Transformation("flip"))


_default_transformations = transformations  # ``invariance`` has an argument of this name


def transform(images: torch.Tensor, transformation: Transformation, centre: Point | None = None) -> torch.Tensor:
    """Transformed images, N x C x H x W in [0, 1] to the same.

    Translations and flips are exact; rotations and scales are resampled bicubically (``grid_sample``; enlarging and
    shrinking alike, without a filter against aliasing) and clipped to [0, 1]. What comes in from outside the image is
    its mirror image.

    Parameters
    ----------
    centre : the point that stays; default the image's middle. A flip stays on whole pixels: twice what ``centre`` says
        across must be a whole number.
    """
    height, width = images.shape[2:]
    down, across = (height / 2, width / 2) if centre is None else centre
    if transformation.kind in ("translation", "flip"):
        rows = torch.arange(height) - transformation.shift[0]
        if transformation.kind == "flip":
            if not float(2 * across).is_integer():
                raise CallError(f"a flip's centre is a whole number of half pixels across, not {across:g}")
            columns = int(2 * across) - 1 - torch.arange(width)
        else:
            columns = torch.arange(width) - transformation.shift[1]
        rows, columns = (_mirrored(*each).to(images.device) for each in ((rows, height), (columns, width)))
        return images.index_select(2, rows).index_select(3, columns)
    fixed = torch.tensor((down, across), dtype=torch.float64)
    sides = torch.tensor((height, width), dtype=torch.float64)
    pixels = _points(0.5, 1, (height, width))
    source = (pixels - fixed) @ torch.linalg.inv(_matrix(transformation)).T + fixed
    # Across before down, and the image's borders at -1 and 1.
    sampled = (2 * source / sides - 1).flip(-1).to(images)
    every = sampled.expand(len(images), -1, -1, -1)
    resampled = torch.nn.functional.grid_sample(images, every, "bicubic", "reflection", align_corners=False)
    return resampled.clamp(0, 1)


@torch.no_grad()
def invariance(
    net: Network,
    images: Batches,
    layers: Sequence[str],
    *,
    transformations: Sequence[Transformation] | None = None,
    rate: float = 0.01,
    best: float = 0.2,
    advance: Callable[[int], None] | None = None,
) -> list[LayerInvariance]:
    """Invariance scores of layers, in the order asked for; see the module for what they are.

    Batches are gone through twice: for the thresholds, which are quantiles within 0.2 % of their value
    (``QuantileSketch``), and for the rates, G measured anew with these thresholds. Firing is counted at the positions
    whose centres are in the image's inner part (``MARGIN``), both before and after transformation. Borders are seen
    from there too where receptive fields are large. Of activations with negative features the positive part counts.

    A unit's score under a kind of transformation is the mean of its L under each of them, of those under which it
    could be tested, over G.

    Parameters
    ----------
    images : batches of N x 3 x H x W in [0, 1], all of one size: a list or another collection of them, or a function
        that gives them anew at each call. They are taken to the network's device.
    layers : names; all are evaluated in one pass.
    transformations : default those that the function ``transformations`` gives for the shorter side.
    rate : of firing, G, in (0, 1).
    best : share of the units that counts as the best, in (0, 1]; at least one unit does.
    advance : told how many images have been done, each image twice.

    Raises
    ------
    CallError : an unknown layer, no images, batches that can be read once only or differ in size, images that are too
        small for a layer, numbers out of range.
    FeatureError : features that are not finite.
    """
    if not 0 < rate < 1 or not 0 < best <= 1:
        raise CallError(f"rate lies in (0, 1) and best in (0, 1], not {rate:g} and {best:g}")
    if transformations is not None and not transformations:
        raise CallError("no transformation is given; the function transformations makes the default ones")
    size, count, thresholds = _thresholds(net, images, layers, rate, advance)
    tried = _default_transformations(min(size)) if transformations is None else tuple(transformations)
    tallies = {name: _Tally(each, tried) for name, each in thresholds.items()}
    grids = net.architecture.response_sizes(size)
    passes = [
        (number, centre, {name: _partners(net, name, size, grids[name], each, centre) for name in group})
        for number, each in enumerate(tried)
        for centre, group in _centres(net, size, each.kind, list(tallies)).items()
    ]
    seen = 0
    for batch in _batches(net, images, size):
        found = net.features_of(batch, layers)
        fired = {name: tallies[name].fire(each, _inner(net, name, size), seen) for name, each in found.items()}
        del found
        for number, centre, partners in passes:
            moved = net.features_of(transform(batch, tried[number], centre), partners)
            for name, features in moved.items():
                tallies[name].compare(features, fired[name], partners[name], number)
        seen += len(batch)
        if advance is not None:
            advance(len(batch))
    if seen != count:
        raise CallError(f"the batches gave {count} images at first and {seen} afterwards: they are to be the same")
    return [tallies[name].result(net, name, best) for name in dict.fromkeys(layers)]


@dataclass
class _Firing:
    """Where units fire on untransformed images, one entry a firing: image of the batch, half of the set, channel, and
    position through the rows of the grid."""

    image: torch.Tensor
    half: torch.Tensor
    channel: torch.Tensor
    position: torch.Tensor


class _Tally:
    """A layer's counts: of firing, by channel, and under transformations, by half of the images (even and odd),
    transformation and channel, of the firing positions tested and of those that fire on."""

    def __init__(self, thresholds: torch.Tensor, tried: tuple[Transformation, ...]) -> None:
        self.thresholds, self.tried = thresholds, tried
        channels, device = len(thresholds), thresholds.device
        self.places = 0
        self.fired = torch.zeros(channels, dtype=torch.int64, device=device)
        self.tested = torch.zeros(2, len(tried), channels, dtype=torch.int64, device=device)
        self.kept = torch.zeros_like(self.tested)

    def fire(self, features: torch.Tensor, inner: tuple[slice, slice], seen: int) -> _Firing:
        """Count the firing of untransformed images, and say where it is."""
        part = features[(..., *inner)]
        self.places += part[:, 0].numel()
        image, channel, row, column = (part > self.thresholds.to(part).view(-1, 1, 1)).nonzero(as_tuple=True)
        self.fired += torch.bincount(channel, minlength=len(self.fired))
        position = (row + inner[0].start) * features.shape[3] + column + inner[1].start
        return _Firing(image, (image + seen) % 2, channel, position)

    def compare(self, features: torch.Tensor, fired: _Firing, partners: torch.Tensor, number: int) -> None:
        """Count what still fires under a transformation; ``partners``: which position each is compared at, or -1."""
        position = partners[fired.position]
        used = position >= 0
        image, half, channel = fired.image[used], fired.half[used], fired.channel[used]
        again = features.flatten(2)[image, channel, position[used]] > self.thresholds.to(features)[channel]
        channels = len(self.fired)
        place = half * channels + channel
        self.tested[:, number] += torch.bincount(place, minlength=2 * channels).view(2, channels)
        self.kept[:, number] += torch.bincount(place[again], minlength=2 * channels).view(2, channels)

    def result(self, net: Network, layer: str, best: float) -> LayerInvariance:
        """The scores of these counts."""
        firing = self.fired > 0
        rate = self.fired[firing].double() / self.places
        tested, kept = self.tested[:, :, firing].double().cpu(), self.kept[:, :, firing].double().cpu()
        # 0 / 0, a unit that was never tested, is NaN, which the means below leave out.
        local, halves = kept.sum(0) / tested.sum(0), kept / tested
        scores: dict[str, Score] = {}
        curve: dict[str, dict[float, float]] = {}
        for kind in dict.fromkeys(each.kind for each in self.tried):
            chosen = [number for number, each in enumerate(self.tried) if each.kind == kind]
            score = local[chosen].nanmean(0) / rate.cpu()
            even, odd = halves[:, chosen].nanmean(1) / rate.cpu()
            top = _best(score, best)
            scores[kind] = Score(
                best=float(score[top].mean()),
                deviation=float((score[top] - score[top].mean()).square().mean().sqrt()),
                mean=float(score.nanmean()),
                held_out=_mean(
                    [float(second[_best(first, best)].nanmean()) for first, second in ((even, odd), (odd, even))]
                ),
                trials=int(tested[:, chosen].sum((0, 1)).quantile(0.5)) if len(score) else 0,
            )
            curve[kind] = {
                size: float(local[[n for n in chosen if self.tried[n].magnitude == size]].nanmean(0).nanmean())
                for size in dict.fromkeys(self.tried[number].magnitude for number in chosen)
            }
        return LayerInvariance(
            layer=layer,
            activation=net.layer(layer).activation,
            units=len(firing),
            silent=int((~firing).sum()),
            sparse=int((firing & (self.thresholds == 0)).sum()),
            rate=float(rate.mean()),
            scores=scores,
            curve=curve,
        )


def _thresholds(
    net: Network, images: Batches, layers: Sequence[str], rate: float, advance: Callable[[int], None] | None
) -> tuple[Size, int, dict[str, torch.Tensor]]:
    """The images' size, their number, and each layer's thresholds, C, float64.

    They lie below the quantile by up to twice the sketch's accuracy, so that values equal to it fire: evenly white
    areas give many positions one value, and G could be anything below the rate.
    """
    size, count = (0, 0), 0
    sketches: dict[str, QuantileSketch] = {}
    for batch in _batches(net, images, size):
        found = net.features_of(batch, layers)
        if not sketches:
            size = (batch.shape[2], batch.shape[3])
            sketches = {name: QuantileSketch(each.shape[1], device=each.device) for name, each in found.items()}
        for name, features in found.items():
            if not features.isfinite().all():
                raise FeatureError(f"features of {name} are not finite: do the weights or the images hold NaN?")
            sketches[name].add(features[(..., *_inner(net, name, size))])
        count += len(batch)
        if advance is not None:
            advance(len(batch))
    if count == 0:
        raise CallError("no images: nothing to measure invariance on")
    return size, count, {name: (1 - sketch.accuracy) * sketch.quantile(1 - rate) for name, sketch in sketches.items()}


def _batches(net: Network, images: Batches, size: Size) -> Iterable[torch.Tensor]:
    """The batches on the network's device, all of this size, or of the first one's if it is (0, 0)."""
    given = images() if callable(images) else images
    if not callable(images) and iter(given) is given:
        raise CallError("the batches are read twice: give a list of them or a function, and not an iterator")
    for batch in given:
        if batch.ndim == 4:
            size = (batch.shape[2], batch.shape[3]) if size == (0, 0) else size
            if batch.shape[2:] != size:
                shown = " and ".join(f"{height} x {width}" for height, width in (size, batch.shape[2:]))
                raise CallError(f"images are of one size here, not of {shown} pixels")
        yield batch.to(net.mean.device)


def _inner(net: Network, layer: str, size: Size) -> tuple[slice, slice]:
    """Rows and columns of a layer's grid whose centres lie in the inner part of an image."""
    start, step = net.architecture.grid(layer)
    slices = []
    for side, count in zip(size, net.architecture.response_sizes(size)[layer], strict=True):
        low, high = MARGIN * side, (1 - MARGIN) * side
        first, last = max(0, math.ceil((low - start) / step)), min(count - 1, math.floor((high - start) / step))
        if first > last:
            raise CallError(
                f"no position of {layer} is centred in the inner part of images of {size[0]} x {size[1]} pixels"
            )
        slices.append(slice(first, last + 1))
    return slices[0], slices[1]


def _centres(net: Network, size: Size, kind: str, layers: Sequence[str]) -> dict[Point | None, list[str]]:
    """The points that stay, and the layers that are compared under a transformation about each.

    They are chosen for all layers of the network, deepest first, so that what is asked for does not change them.
    """
    if kind == "translation":
        return {None: list(layers)}
    points: list[Point] = []
    found: dict[Point | None, list[str]] = {}
    for layer in reversed(net.layers):
        start, step = net.architecture.grid(layer.name)
        # Mirrored about half a step beside a position, positions go onto positions too.
        unit = step / 2 if kind == "flip" else float(step)
        fitting = [point for point in points if all(((each - start) / unit).is_integer() for each in point)]
        if not fitting:
            down, across = (start + unit * round((side / 2 - start) / unit) for side in size)
            fitting = [(down, across)]
            points += fitting
        if layer.name in layers:
            found.setdefault(fitting[0], []).append(layer.name)
    return found


def _partners(
    net: Network, layer: str, size: Size, grid: Size, transformation: Transformation, centre: Point | None
) -> torch.Tensor:
    """The position at which what each position saw is seen once the image is transformed, -1 where there is none.

    ``grid`` : h x w, the layer's. Returns h w indices through the rows of the grid, int64. That the position compared
    at is an inner one is asked here; of the firing one ``_Tally.fire`` asks it.
    """
    start, step = net.architecture.grid(layer)
    points = _points(start, step, grid)
    if transformation.kind == "translation":
        # The unit stays; what it sees then was elsewhere, and must have been in the image.
        place = torch.arange(grid[0] * grid[1])
        source = points - torch.tensor(transformation.shift, dtype=torch.float64)
        used = ((source >= 0) & (source <= torch.tensor(size))).all(-1)
    else:
        fixed = torch.tensor(centre, dtype=torch.float64)
        moved = (points - fixed) @ _matrix(transformation).T + fixed
        nearest = ((moved - start) / step).round()
        # A millionth of a pixel for rounding.
        near = ((moved - (start + step * nearest)).abs() <= NEAR * step + 1e-6).all(-1)
        exists = ((nearest >= 0) & (nearest < torch.tensor(grid))).all(-1)
        used = near & exists & _is_inner(start + step * nearest, size)
        place = (nearest[..., 0] * grid[1] + nearest[..., 1]).long().flatten()
    return torch.where(used.flatten(), place, -1).to(net.mean.device)


def _is_inner(points: torch.Tensor, size: Size) -> torch.Tensor:
    sides = torch.tensor(size, dtype=torch.float64)
    return ((points >= MARGIN * sides) & (points <= (1 - MARGIN) * sides)).all(-1)


def _points(start: float, step: int, grid: Size) -> torch.Tensor:
    """h x w x 2, float64: where the positions of a grid lie, down and across."""
    rows, columns = (start + step * torch.arange(count, dtype=torch.float64) for count in grid)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)


def _matrix(transformation: Transformation) -> torch.Tensor:
    """2 x 2, float64: what it does to a vector (down, across) from the point that stays."""
    match transformation.kind:
        case "rotation":
            turn = math.radians(transformation.magnitude)
            rows = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        case "scale":
            rows = [[transformation.magnitude, 0.0], [0.0, transformation.magnitude]]
        case _:
            rows = [[1.0, 0.0], [0.0, -1.0]]
    return torch.tensor(rows, dtype=torch.float64)


def _mirrored(indices: torch.Tensor, side: int) -> torch.Tensor:
    """Indices of any size into a row of pixels that goes on as its own mirror image, border pixels twice."""
    within = indices % (2 * side)
    return torch.minimum(within, 2 * side - 1 - within)


def _best(scores: torch.Tensor, share: float) -> torch.Tensor:
    """Which units have the highest scores, NaN aside: this share of them, at least one if there is any."""
    known = int((~scores.isnan()).sum())
    count = min(known, max(1, round(share * known)))
    # Stable: of equal scores, which are common, the first units are taken on every device.
    return scores.nan_to_num(-1.0).sort(descending=True, stable=True).indices[:count]


def _mean(values: Sequence[float]) -> float:
    """Of those that are known; NaN if none is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
