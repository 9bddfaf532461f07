"""Large pictures in tiles: inverted one by one in the memory that one of them takes, and joined without seams.

The network of a tile gives what the whole picture's gives there (``network.parts``), so that its features are cut out
of the picture's. What its borders lack dies out within the layer's receptive field and some pixels more. Tiles overlap
by twice that, and a band in between, over which one passes into the next.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from reconstruct.errors import CallError, ReconstructWarning
from reconstruct.inversion.joint import Part
from reconstruct.inversion.methods import Method
from reconstruct.inversion.result import Inverted, Watch
from reconstruct.network.architecture import Size
from reconstruct.network.network import Network
from reconstruct.network.parts import Area, Span, for_part, not_cut
from reconstruct.operators.arrays import memory

TILE = 512
"""The side of a tile, in pixels, where nobody asks for another."""
BEYOND = 24
"""Pixels beyond the receptive field at the border of a tile that are not used. 24 to 32 pixels from there tile and
whole differ by 50 to 72 dB at conv1 to conv3 by ``linear`` and at conv1 by ``map``. At conv3 by ``map``, which finds
signs by searching, by 39 dB, but the tile is as good as the whole from 24 pixels on (docs/pictures.md)."""
BAND = 16
"""Pixels, at least, over which one tile passes into the next."""
SHARE = 0.8
"""Of the memory that there is: a picture that would take more is cut into tiles."""
MOST_NOISE = 0.99
"""The largest share of a tile's features that is taken for noise."""

Solve = Callable[[Sequence[Part], Size, Watch | None], Inverted]
"""Parts, and the height and width of their images, to images."""


class Layout(NamedTuple):
    """How one side of a picture is cut: where tiles begin and end, and what of their borders is not used."""

    spans: list[Span]
    unused: int

    def weight(self, place: int) -> torch.Tensor:
        """How much each pixel of a tile counts, from 0 to 1; over all tiles it is 1 everywhere."""
        span = self.spans[place]
        pixels = torch.arange(span.first, span.last) + 0.5
        rise = self._rise(place, pixels) if place else torch.ones_like(pixels)
        return rise - self._rise(place + 1, pixels) if place + 1 < len(self.spans) else rise

    def _rise(self, place: int, pixels: torch.Tensor) -> torch.Tensor:
        """From 0 to 1 over the band in which a tile takes over from the one before."""
        first, last = self.spans[place].first + self.unused, self.spans[place - 1].last - self.unused
        return ((pixels - first) / (last - first)).clamp(0, 1)


def layout(side: int, tile: int, step: int, unused: int) -> Layout:
    """Tiles of nearly equal length over a side, each at a multiple of ``step``.

    Parameters
    ----------
    tile : their length, about, in pixels.
    step : the product of the layers' strides.
    unused : pixels at a tile's border that are not used.
    """
    overlap = step * math.ceil((2 * unused + BAND) / step)
    if side <= max(tile, overlap):
        return Layout([Span(0, side)], unused)
    count = math.ceil((side - overlap) / max(step, tile - overlap))
    stride = step * math.ceil((side - overlap) / (count * step))
    count = math.ceil((side - overlap) / stride)
    return Layout([Span(i * stride, min(side, (i + 1) * stride + overlap)) for i in range(count)], unused)


def cut_for(
    parts: Sequence[Part], size: Size, tile: int | None, method: Method, options: Mapping[str, object]
) -> tuple[Layout, Layout] | None:
    """How a picture is cut for a method; None where it is inverted as a whole.

    Parameters
    ----------
    tile : the side of tiles that is asked for; None: none, or ``TILE`` where memory would not suffice.
    options : of the method.

    Raises
    ------
    CallError : see ``layouts``.

    Warns
    -----
    ReconstructWarning : memory would not suffice.
    """
    if tile is not None:
        return None if tile >= max(size) else layouts(parts, size, tile)
    needed = sum(method.memory(part.net, part.layer, size, **options) for part in parts)
    there = memory(parts[0].features.device)
    if needed <= SHARE * there or max(size) <= TILE or any(_refusal(part) for part in parts):
        return None
    cut = layouts(parts, size, TILE)
    count = len(cut[0].spans) * len(cut[1].spans)
    layers = " and ".join(part.layer for part in parts)
    warnings.warn(
        f"a picture of {size[0]} x {size[1]} takes about {needed / 1e9:.0f} GB by {method.name} from {layers}, and "
        f"{there / 1e9:.0f} GB are there: it is inverted in {count} tiles that overlap",
        ReconstructWarning,
        stacklevel=3,
    )
    return cut


def layouts(parts: Sequence[Part], size: Size, tile: int) -> tuple[Layout, Layout]:
    """How a picture is cut down and across, for the layers of all parts.

    Raises
    ------
    CallError : a layer is not a chain's, or the tile is too small for it.
    """
    step, field = 1, 1
    for part in parts:
        if reason := _refusal(part):
            raise CallError(reason)
        chain = _chain(part)
        step = math.lcm(step, math.prod(each.stride for each in chain.up_to(part.layer)))
        field = max(field, chain.receptive_field(part.layer))
    unused = field + BEYOND
    least = step * math.ceil((2 * unused + BAND) / step) + max(step, BAND)
    if tile < least and tile < max(size):
        raise CallError(
            f"tiles for {' and '.join(part.layer for part in parts)} have sides of at least {least} pixels, not {tile}"
        )
    down, across = (layout(side, tile, step, unused) for side in size)
    return down, across


def invert_in_tiles(
    parts: Sequence[Part], size: Size, cut: tuple[Layout, Layout], solve: Solve, watch: Watch | None
) -> Inverted:
    """Images, N x C x H x W, of which one tile of one image is inverted at a time.

    Work is counted in forward passes of the whole picture, overlaps included; a limit on it holds for each tile. The
    noise of features is the picture's: in a tile of little contrast it is a larger share.

    Parameters
    ----------
    parts, size : of the whole pictures.
    cut : as ``layouts`` gives it.
    solve : inverts a tile.
    """
    net, count = parts[0].net, len(parts[0].features)
    images = net.mean.new_zeros(count, net.channels, *size)
    status, iterations, passes = ["converged"] * count, [0] * count, [0.0] * count
    seconds, prepared = 0.0, 0.0
    work = _work(parts, size)
    powers = [part.features.square().mean((1, 2, 3)).sqrt() for part in parts]
    for own, tiles in _alike(parts, size, cut):
        for tile, weight, where in tiles:
            share = _work(own, tile.size) / work
            for image in range(count):
                given = [
                    _of_tile(part, powers[place][image], image, area)
                    for place, (part, area) in enumerate(zip(own, where, strict=True))
                ]
                report = _watching(watch, images, image, tile, weight, max(passes), share)
                found = solve(given, tile.size, report)
                images[(image, slice(None), *tile.slices)] += weight * found.images[0].to(images.dtype)
                iterations[image] = max(iterations[image], found.iterations[0])
                passes[image] += share * found.forward_passes[0]
                if found.status[0] != "converged":
                    status[image] = found.status[0]
                seconds += found.prepare_seconds
                prepared += share * found.prepare_passes
    return Inverted(images, status, iterations, passes, seconds, prepared)


class Tile(NamedTuple):
    """A tile of a picture, how much each of its pixels counts, and which positions of each layer are its own."""

    area: Area
    weight: torch.Tensor
    positions: list[Area]


def _alike(
    parts: Sequence[Part], size: Size, cut: tuple[Layout, Layout]
) -> Iterator[tuple[Sequence[Part], list[Tile]]]:
    """The tiles whose networks are alike, together, and those networks: what is prepared for one tile serves the next.

    It is given up with the networks when the next ones are asked for.
    """
    down, across = cut
    kinds: dict[Hashable, tuple[Sequence[Part], list[Tile]]] = {}
    for row, rows in enumerate(down.spans):
        for column, columns in enumerate(across.spans):
            area = Area(rows, columns)
            made = [for_part(_chain(part), part.layer, size, area) for part in parts]
            kind = (area.size, *(tuple(layer.padded for layer in net.layers) for net, _ in made))
            if kind not in kinds:
                kinds[kind] = ([part._replace(net=net) for part, (net, _) in zip(parts, made, strict=True)], [])
            weight = (down.weight(row)[:, None] * across.weight(column)).to(parts[0].features.device)
            kinds[kind][1].append(Tile(area, weight, [positions for _, positions in made]))
    while kinds:
        yield kinds.pop(next(iter(kinds)))


def _refusal(part: Part) -> str | None:
    """Why pictures are not cut for a layer, in a sentence; None where they are."""
    chain = part.net.as_chain(part.layer)
    if chain is None:
        return f"pictures are cut into tiles for chains of layers, and {part.net.name} is none up to {part.layer}"
    return not_cut(chain, part.layer)


def _chain(part: Part) -> Network:
    chain = part.net.as_chain(part.layer)
    assert chain is not None  # as ``_refusal`` has found
    return chain


def _of_tile(part: Part, power: torch.Tensor, image: int, area: Area) -> Part:
    """The features of a tile of one image, and how noisy they are."""
    features = part.features[(slice(image, image + 1), slice(None), *area.slices)].contiguous()
    if not part.noise:
        return part._replace(features=features)
    share = float(power / features.square().mean().sqrt().clamp_min(1e-30))
    return part._replace(features=features, noise=min(MOST_NOISE, part.noise * share))


def _work(parts: Sequence[Part], size: Size) -> int:
    """Multiplications of a forward pass through the layers of all parts."""
    return sum(sum(part.net.multiplications(part.layer, size).values()) for part in parts)


def _watching(
    watch: Watch | None, images: torch.Tensor, image: int, tile: Area, weight: torch.Tensor, spent: float, share: float
) -> Watch | None:
    """What shows the picture with a tile in it that is not done yet."""
    if watch is None:
        return None

    def report(done: float, found: torch.Tensor) -> None:
        shown = images.clone()
        shown[(image, slice(None), *tile.slices)] += weight * found[0]
        watch(spent + share * done, shown)

    return report
