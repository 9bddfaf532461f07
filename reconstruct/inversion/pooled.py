"""Images from what a max-pooling leaves of a layer: responses known at switches, bounds of all of them, or both.

Which responses are known, or between which bounds, is a ``known.Box``; the most probable image in it is found as by
method ``map`` (``invert_known``). For a first layer this is a convex problem: least squares on the known responses, and
on those outside their bounds.

Bounds alone have no middle for the prior to find: without biases the flat picture of the mean colour is always between
them. From intervals, the image is therefore first sought in their middle halves, and then moved as far as they ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from reconstruct.errors import CallError
from reconstruct.inversion.checks import check_limits
from reconstruct.inversion.known import Box, at_switches, intervals
from reconstruct.inversion.most_probable.method import BUDGET, TOLERANCE, invert_known, invert_map
from reconstruct.inversion.most_probable.task import Reading
from reconstruct.inversion.result import Inverted, Watch
from reconstruct.network.activations import check_features
from reconstruct.network.architecture import Size
from reconstruct.network.network import Network
from reconstruct.network.surgery import pooled_layer
from reconstruct.operators.pooling import MaxPool

Knowing = Callable[[MaxPool, torch.Tensor, torch.Tensor, str], Box]
"""Pooling, its features, its switches and the activation below it to what is known of the responses."""


def _both(pool: MaxPool, features: torch.Tensor, switches: torch.Tensor, activation: str) -> Box:
    return intervals(pool, features, activation).narrowed(at_switches(pool, features, switches, activation))


def _centres(pool: MaxPool, features: torch.Tensor, switches: torch.Tensor, activation: str) -> Box:
    """Each maximum at its window's centre, where it hardly ever was; of two phases only the larger can be there."""
    if activation == "crelu":
        positive, negative = features.chunk(2, dim=1)
        larger = positive >= negative
        features = torch.cat((positive * larger, negative * ~larger), dim=1)
    return at_switches(pool, features, pool.centres(features), activation)


KNOWN: dict[str, Knowing] = {
    "switches": at_switches,
    "intervals": lambda pool, features, _, activation: intervals(pool, features, activation),
    "both": _both,
    "centres": _centres,
}
"""What is taken from pooled features; ``both`` and ``switches`` need the switches."""

MIDDLE, MIDDLE_SHARE = 1 / 2, 1 / 3
"""The middle of each interval, where the image is sought first, and the share of the budget for that."""


def invert_pooled(
    net: Network,
    features: torch.Tensor,
    layer: str,
    size: Size,
    known: str,
    *,
    switches: torch.Tensor | None = None,
    tolerance: float = TOLERANCE,
    budget: float = BUDGET,
    watch: Watch | None = None,
) -> Inverted:
    """Images, N x 3 x H x W, from pooled features; without switches ``invert`` with method ``map`` is often better.

    Parameters
    ----------
    features : N x C x h x w, features of the max-pooling ``layer``, right above a convolution.
    known : ``switches``: the responses at the maxima; ``intervals``: bounds of every response; ``both``; ``centres``:
        the maxima as if each were at its window's centre.
    switches : N x C x h x w, positions of the maxima in the rows of the pooling's input (``Network.switches``).
    tolerance, budget, watch : as of ``invert_map``; the budget in passes through the convolution.

    Raises
    ------
    CallError : not a max-pooling of a convolution; switches are missing, of a wrong shape or out of their windows; an
        activation that this is not known of.
    """
    check_limits(tolerance, budget)
    if known not in KNOWN:
        raise CallError(f"known is one of {', '.join(KNOWN)}, not '{known}'")
    below, pooling = pooled_layer(net, layer)
    pool = MaxPool(pooling, net.shapes(size, layer)[below.name])
    values = features.float()
    if values.shape[1:] != (below.channels, *pool.grid):
        wanted, given = ((" x ".join(map(str, shape))) for shape in ((below.channels, *pool.grid), values.shape[1:]))
        raise CallError(f"images of {size[0]} x {size[1]} give {layer} features of {wanted}, not {given}")
    check_features(values, below.activation, below.slope, pooled=True)
    if switches is None:
        if known in ("switches", "both"):
            raise CallError(f"'{known}' needs the switches of {layer}")
        switches = pool.centres(values)
    pool.check(switches, values)
    box = KNOWN[known](pool, values, switches, below.activation)

    def solve(box: Box, budget: float, start: torch.Tensor | None = None, watch: Watch | None = None) -> Inverted:
        readings = [Reading(net, below.name, box)]
        return invert_known(readings, size, tolerance=tolerance, budget=budget, start=start, watch=watch)

    # ReLU bounds from one side, and the middle of AVR's intervals is 0 whatever the image.
    if known != "intervals" or below.activation != "crelu":
        return solve(box, budget=budget, watch=watch)
    first = solve(box.inner(MIDDLE), budget=MIDDLE_SHARE * budget, watch=watch)
    spent = max(first.forward_passes, default=0.0)
    later = None if watch is None else lambda done, images: watch(spent + done, images)
    then = solve(box, budget=budget - spent, start=first.images, watch=later)
    return replace(
        then,
        iterations=[before + after for before, after in zip(first.iterations, then.iterations, strict=True)],
        forward_passes=[
            before + after for before, after in zip(first.forward_passes, then.forward_passes, strict=True)
        ],
        prepare_seconds=first.prepare_seconds + then.prepare_seconds,
        prepare_passes=first.prepare_passes + then.prepare_passes,
    )


def rebuild(
    net: Network, images: torch.Tensor, layer: str, *, budget: float | None = None
) -> Iterator[tuple[str, Inverted]]:
    """Images rebuilt from their own pooled features in every way of ``KNOWN``, and by ``map`` through the pooling.

    Ways that the activation does not allow are left out. Arguments as of ``invert_pooled``.
    """
    size = (images.shape[2], images.shape[3])
    below, _ = pooled_layer(net, layer)
    features, switches = net.features(images, layer), net.switches(images, layer)
    given = BUDGET if budget is None else budget
    for known in KNOWN:
        if below.activation != "avr" or known == "intervals":
            yield known, invert_pooled(net, features, layer, size, known, switches=switches, budget=given)
    yield "map", invert_map(net, features, layer, size, budget=budget)
