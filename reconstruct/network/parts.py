"""Networks of parts of pictures: what they give of a part is what the network gives there of the whole picture.

A layer pads at the picture's borders alone. Where a part of the picture is cut off, what lies beyond is not known, and
the windows that look there are left out. So a part's responses are fewer than those of a picture of its size, and
each of them is one of the whole picture's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from reconstruct.errors import CallError
from reconstruct.network.architecture import Layer, Size
from reconstruct.network.network import Network


class Span(NamedTuple):
    """Rows or columns from the first to before the last."""

    first: int
    last: int

    @property
    def slice(self) -> slice:
        """What takes them out of a whole."""
        return slice(self.first, self.last)

    @property
    def length(self) -> int:
        """How many there are."""
        return self.last - self.first


class Area(NamedTuple):
    """A rectangle of pixels, or of positions of a grid."""

    rows: Span
    columns: Span

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.rows.length, self.columns.length

    @property
    def slices(self) -> tuple[slice, slice]:
        """What takes them out of a whole."""
        return self.rows.slice, self.columns.slice


def not_cut(net: Network, layer: str) -> str | None:
    """Why no part of a picture has a network of its own up to a layer, in a sentence; None where it has."""
    for each in net.up_to(layer):
        if each.ceil_mode:
            return (
                f"pictures are not cut into tiles for {layer} of {net.name}: {each.name} rounds its grid up (ceil_mode)"
            )
    return None


def for_part(net: Network, layer: str, size: Size, part: Area) -> tuple[Network, Area]:
    """The network up to a layer for a part of a picture, and which of the picture's positions its responses are.

    Weights are shared.

    Parameters
    ----------
    size : height and width of the whole picture.
    part : in pixels; larger than the receptive field of the layer.

    Raises
    ------
    CallError : no window of a layer lies inside the part; or see ``not_cut``.
    """
    if reason := not_cut(net, layer):
        raise CallError(reason)
    layers = net.up_to(layer)
    down, rows = _padding(layers, size, part.rows, 0)
    across, columns = _padding(layers, size, part.columns, 1)
    own = []
    for each, (top, bottom), (left, right) in zip(layers, down, across, strict=True):
        sides = (top, left, bottom, right)
        own.append(each if sides == each.padded else replace(each, sides=sides))
    return net.sharing(tuple(own)), Area(rows, columns)


def _padding(layers: Sequence[Layer], size: Size, part: Span, axis: int) -> tuple[list[tuple[int, int]], Span]:
    """The padding before and after of every layer, and the last one's positions, in one direction."""
    found, side = [], size[axis]
    for each in layers:
        # Position i looks at whole inputs from i stride - padding on.
        first = -(-(part.first + each.padding) // each.stride) if part.first else 0
        before = part.first + each.padding - first * each.stride
        after = each.padding if part.last == side else 0
        count = (part.length + before + after - each.extent) // each.stride + 1
        if count < 1:
            raise CallError(f"a part of {part.length} positions is too small for {each.name}, which sees {each.extent}")
        found.append((before, after))
        side = each.output_side(side, axis)
        part = Span(first, first + count)
    return found, part
