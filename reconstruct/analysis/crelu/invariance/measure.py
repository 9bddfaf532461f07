"""The measurement of invariance: images go through the network twice, for thresholds and for counts of firing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from reconstruct.analysis.crelu.invariance.firing import Tally
from reconstruct.analysis.crelu.invariance.positions import centres, inner, partners
from reconstruct.analysis.crelu.invariance.scores import LayerInvariance, layer_invariance
from reconstruct.analysis.crelu.invariance.transformations import Transformation, transform
from reconstruct.analysis.crelu.invariance.transformations import transformations as default_transformations
from reconstruct.analysis.crelu.quantile import QuantileSketch
from reconstruct.errors import CallError, FeatureError
from reconstruct.network.architecture import Size
from reconstruct.network.network import Network

Batches = Iterable[torch.Tensor] | Callable[[], Iterable[torch.Tensor]]
"""Batches of images that can be read more than once: a collection of them, or a function that gives them anew."""


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
    """Invariance scores of layers, in the order asked for; see the package for what they are.

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
    tried = default_transformations(min(size)) if transformations is None else tuple(transformations)
    tallies = {name: Tally(each, tried) for name, each in thresholds.items()}
    grids = net.architecture.response_sizes(size)
    passes = [
        (number, centre, {name: partners(net, name, size, grids[name], each, centre) for name in group})
        for number, each in enumerate(tried)
        for centre, group in centres(net, size, each.kind, list(tallies)).items()
    ]
    seen = 0
    for batch in _batches(net, images, size):
        found = net.features_of(batch, layers)
        fired = {name: tallies[name].fire(each, inner(net, name, size), seen) for name, each in found.items()}
        del found
        for number, centre, compared in passes:
            moved = net.features_of(transform(batch, tried[number], centre), compared)
            for name, features in moved.items():
                tallies[name].compare(features, fired[name], compared[name], number)
        seen += len(batch)
        if advance is not None:
            advance(len(batch))
    if seen != count:
        raise CallError(f"the batches gave {count} images at first and {seen} afterwards: they are to be the same")
    return [layer_invariance(tallies[name], name, net.layer(name).activation, best) for name in dict.fromkeys(layers)]


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
            sketches[name].add(features[(..., *inner(net, name, size))])
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
