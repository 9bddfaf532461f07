"""Which positions of a layer are compared: where they lie in the image, and where they go under a transformation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from reconstruct.analysis.crelu.invariance.transformations import Point, Transformation, grid_points
from reconstruct.errors import CallError
from reconstruct.network.architecture import Size
from reconstruct.network.network import Network

MARGIN = 0.1
"""Positions whose centre is nearer to the border than this share of the image's side are not used."""

NEAR = 1 / 8
"""How far a moved centre may be from the position that it is compared at, down and across, in steps of the layer."""


def inner(net: Network, layer: str, size: Size) -> tuple[slice, slice]:
    """Rows and columns of a layer's grid whose centres lie in the inner part of an image (``MARGIN``).

    Parameters
    ----------
    size : (H, W) of the images, in pixels.

    Raises
    ------
    CallError : there are none.
    """
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


def centres(net: Network, size: Size, kind: str, layers: Sequence[str]) -> dict[Point | None, list[str]]:
    """The points that stay, and the layers that are compared under a transformation about each.

    They are chosen for all layers of the network, deepest first, so that what is asked for does not change them. A
    translation needs none: None stands for it.
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


def partners(
    net: Network, layer: str, size: Size, grid: Size, transformation: Transformation, centre: Point | None
) -> torch.Tensor:
    """The position at which what each position saw is seen once the image is transformed, -1 where there is none.

    That the position compared at is an inner one is asked here; ``Tally.fire`` asks it of the firing one.

    Parameters
    ----------
    size : (H, W) of the images, in pixels.
    grid : h x w, the layer's.
    centre : the point that stays; not read for a translation.

    Returns
    -------
    h w indices through the rows of the grid, int64, on the network's device.
    """
    start, step = net.architecture.grid(layer)
    points = grid_points(start, step, grid)
    if transformation.kind == "translation":
        # The unit stays; what it sees then was elsewhere, and must have been in the image.
        place = torch.arange(grid[0] * grid[1])
        source = points - torch.tensor(transformation.shift, dtype=torch.float64)
        used = ((source >= 0) & (source <= torch.tensor(size))).all(-1)
    else:
        fixed = torch.tensor(centre, dtype=torch.float64)
        moved = (points - fixed) @ transformation.matrix().T + fixed
        nearest = ((moved - start) / step).round()
        # A millionth of a pixel for rounding.
        near = ((moved - (start + step * nearest)).abs() <= NEAR * step + 1e-6).all(-1)
        exists = ((nearest >= 0) & (nearest < torch.tensor(grid))).all(-1)
        used = near & exists & _is_inner(start + step * nearest, size)
        place = (nearest[..., 0] * grid[1] + nearest[..., 1]).long().flatten()
    return torch.where(used.flatten(), place, -1).to(net.mean.device)


def _is_inner(points: torch.Tensor, size: Size) -> torch.Tensor:
    """For each point, ... x 2, whether it lies in the inner part of an image of this size."""
    sides = torch.tensor(size, dtype=torch.float64)
    return ((points >= MARGIN * sides) & (points <= (1 - MARGIN) * sides)).all(-1)
