"""How much memory an inversion takes, about, before it begins: bytes for one picture.

Each takes a network, a layer's name, height and width, and the options of the method.
"""

from __future__ import annotations

import math

from reconstruct.network.architecture import Layer, Size
from reconstruct.network.protocol import AnyNetwork

COMPLEX, FLOAT = 8, 4
LAYER_COPIES, COVARIANCE_COPIES = 5, 7
"""Copies of the matrices, one a frequency, that ``linear`` holds of a layer and ``map`` of a covariance: peaks at
499 x 639 pixels, less what was there before, were 3.4 times and 7 times the matrices of conv1 of the default model."""
COPIES = 12
"""How many copies of an image and all its features a method holds: measured 0.6 (linear, conv4 of the default model) to
9.6 (gradient, conv1 of a small one)."""


def of_values(net: AnyNetwork, layer: str, size: Size, **options: object) -> float:
    """What every method holds: the picture and its features up to the layer."""
    grids = net.shapes(size, layer)
    values = net.channels * math.prod(size)
    values += sum(net.layer(name).channels * math.prod(grid) for name, grid in grids.items())
    return float(FLOAT * COPIES * values)


def of_layers(net: AnyNetwork, layer: str, size: Size, **options: object) -> float:
    """Of a method that inverts layer by layer: preconditioners of all whose windows overlap, and the values."""
    if options.get("linear_form") == "patch":
        return of_values(net, layer, size)
    return of_values(net, layer, size) + LAYER_COPIES * _matrices(net, layer, size, ("overlapping",))


def of_covariances(net: AnyNetwork, layer: str, size: Size, **options: object) -> float:
    """Of a method that weighs the layer's residual and the image by their covariances, and the values."""
    return of_values(net, layer, size) + COVARIANCE_COPIES * _matrices(net, layer, size, ("first", "last"))


def _matrices(net: AnyNetwork, layer: str, size: Size, which: tuple[str, ...]) -> float:
    """Bytes of one copy of the complex matrices, one a frequency of half of each layer's grid."""
    chain = net.as_chain(layer)
    if chain is None:
        return 0.0
    layers, grids, total = chain.up_to(layer), chain.shapes(size, layer), 0.0
    for place, each in enumerate(layers):
        sides = _sides(each, chain.architecture.in_channels(each.name), place, len(layers), which)
        total += sum(COMPLEX * math.prod(grids[each.name]) / 2 * side**2 for side in sides)
    return total


def _sides(layer: Layer, channels: int, place: int, count: int, which: tuple[str, ...]) -> set[float]:
    """How many rows the matrices of a layer have, of those kinds that are asked for; blocks of groups as one."""
    unknowns, filters = channels * layer.stride**2, layer.filters
    sides: set[float] = set()
    if "overlapping" in which and layer.has_weights and layer.extent > layer.stride:
        sides.add(min(unknowns, filters) / layer.groups**0.5)
    if "first" in which and place == 0:
        sides.add(unknowns)
    if "last" in which and place == count - 1:
        sides.add(filters)
    return sides
