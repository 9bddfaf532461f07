"""Pooling as linear operators: an average pooling is one, a max-pooling at given *switches*, where its maxima are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from reconstruct.errors import CallError
from reconstruct.network.network import Layer, Size
from reconstruct.operators.convolution import Convolution, PeriodicConvolution


class AvgPool:
    """An average pooling layer for inputs of one height and width: a convolution of every channel with one kernel.

    Padded with zeros that count, or on a torus (``periodic``).

    Attributes
    ----------
    operator : of one channel, 1 x 1 x H x W to 1 x 1 x h x w.

    Raises
    ------
    CallError : a torus whose sides are no multiples of the stride, or that does not hold the kernel.
    """

    def __init__(
        self,
        layer: Layer,
        size: Size,
        periodic: bool = False,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        weight = torch.full((1, 1, layer.kernel, layer.kernel), 1 / layer.kernel**2, dtype=dtype, device=device)
        self.operator: Convolution | PeriodicConvolution
        self.grid: Size
        if periodic:
            self.operator = PeriodicConvolution(weight, layer.stride, layer.padding, size)
            self.grid = self.operator.grid
        else:
            self.operator = Convolution(weight, layer.stride, layer.padding, size, dtype)
            self.grid = self.operator.output_shape[1:]

    def convolve(self, values: torch.Tensor) -> torch.Tensor:
        """The windows' means: N x C x H x W to N x C x h x w."""
        return self.operator.convolve(values.flatten(0, 1).unsqueeze(1)).reshape(*values.shape[:2], *self.grid)

    def transpose(self, values: torch.Tensor) -> torch.Tensor:
        """The adjoint: N x C x h x w to N x C x H x W."""
        spread = self.operator.transpose(values.flatten(0, 1).unsqueeze(1))
        return spread.reshape(*values.shape[:2], *spread.shape[2:])


@dataclass(frozen=True)
class MaxPool:
    """A max-pooling layer for inputs of one height and width.

    Attributes
    ----------
    size : height and width of the input.
    periodic : on a torus, as ``convolution.PeriodicConvolution``; otherwise padded with minus infinity.

    Raises
    ------
    CallError : a torus whose sides are no multiples of the stride, or that does not hold the kernel.
    """

    layer: Layer
    size: Size
    periodic: bool = False

    def __post_init__(self) -> None:
        kernel, stride = self.layer.kernel, self.layer.stride
        if self.periodic and any(side % stride or kernel > side for side in self.size):
            torus = f"a torus of {self.size[0]} x {self.size[1]}"
            raise CallError(f"{torus} does not hold a max-pooling of {kernel} with stride {stride}")

    @property
    def grid(self) -> Size:
        """Height and width of the output."""
        if self.periodic:
            return self.size[0] // self.layer.stride, self.size[1] // self.layer.stride
        return self.layer.output_size(self.size)

    def switches(self, values: torch.Tensor) -> torch.Tensor:
        """Where each window has its maximum, the first of equal ones: N x C x H x W to N x C x h x w, int64.

        Positions count through the input's rows, from 0 to H W - 1.
        """
        layer = self.layer
        if not self.periodic:
            return _positions(values, layer.kernel, layer.stride, layer.padding)
        seen = (torch.arange(side - layer.stride + layer.kernel, device=values.device) for side in self.size)
        rows, columns = ((each - layer.padding) % side for each, side in zip(seen, self.size, strict=True))
        found = _positions(values[:, :, rows][:, :, :, columns], layer.kernel, layer.stride, 0)
        return rows[found // len(columns)] * self.size[1] + columns[found % len(columns)]

    def tightest(self, values: torch.Tensor) -> torch.Tensor:
        """For every position of the input the least value of the windows that see it: N x C x h x w to N x C x H x W.

        Infinity where none does. Not on a torus.
        """
        layer, (height, width) = self.layer, self.grid
        side = [(count - 1) * layer.stride + layer.kernel for count in self.grid]
        side = [max(each, own + layer.padding) for each, own in zip(side, self.size, strict=True)]
        least = values.new_full((*values.shape[:2], *side), math.inf)
        for down in range(layer.kernel):
            for right in range(layer.kernel):
                seen = least[:, :, down :: layer.stride, right :: layer.stride][:, :, :height, :width]
                torch.minimum(seen, values, out=seen)
        first = layer.padding
        return least[:, :, first : first + self.size[0], first : first + self.size[1]]

    def centres(self, features: torch.Tensor) -> torch.Tensor:
        """The position in the middle of each window, at most the input's border, for features N x C x h x w: int64."""
        layer = self.layer
        rows, columns = (
            (torch.arange(count, device=features.device) * layer.stride - layer.padding + layer.kernel // 2).clamp(
                0, side - 1
            )
            for count, side in zip(self.grid, self.size, strict=True)
        )
        return (rows.view(-1, 1) * self.size[1] + columns).expand(features.shape)

    def check(self, switches: torch.Tensor, features: torch.Tensor) -> None:
        """Refuse switches that are not one position of its window for each feature. Not on a torus."""
        if switches.shape != features.shape or switches.dtype != torch.int64:
            shape = " x ".join(map(str, switches.shape))
            raise CallError(
                f"switches are int64, one a feature ({' x '.join(map(str, features.shape))}); these are {shape}, "
                f"{switches.dtype}"
            )
        layer = self.layer
        for side, places, dim in ((0, switches // self.size[1], 2), (1, switches % self.size[1], 3)):
            first = torch.arange(self.grid[side], device=places.device) * layer.stride - layer.padding
            within = places - first.view(-1, *[1] * (3 - dim))
            if ((within < 0) | (within >= layer.kernel) | (places < 0) | (places >= self.size[side])).any():
                raise CallError(f"a switch of {layer.name} lies outside its window")

    def gather(self, values: torch.Tensor, switches: torch.Tensor) -> torch.Tensor:
        """The values at the switches: N x C x H x W to N x C x h x w."""
        return values.flatten(2).gather(2, switches.flatten(2)).unflatten(2, self.grid)

    def scatter(self, values: torch.Tensor, switches: torch.Tensor) -> torch.Tensor:
        """The adjoint of ``gather``: what several windows took from one position adds up there."""
        flat = values.new_zeros(*values.shape[:2], self.size[0] * self.size[1])
        return flat.scatter_add_(2, switches.flatten(2), values.flatten(2)).unflatten(2, self.size)


@dataclass(frozen=True)
class Box:
    """What is known of linear responses z: ``lower <= z <= upper``, N x K x h x w; equal where z itself is known."""

    lower: torch.Tensor
    upper: torch.Tensor

    def __len__(self) -> int:
        return len(self.lower)

    def __getitem__(self, chosen: torch.Tensor) -> Box:
        """Of some images of the batch."""
        upper = self.upper[chosen]
        return Box(upper if self.exact else self.lower[chosen], upper)

    @property
    def exact(self) -> bool:
        """Everything is known: ``Box(z, z)``."""
        return self.lower is self.upper

    @property
    def known(self) -> torch.Tensor:
        """Where z itself is known."""
        return self.lower == self.upper

    def norm(self) -> torch.Tensor:
        """Of each image, the norm of the responses that are known; where none is, of the bounds that there are."""
        known = self.known.flatten(1)
        sides = torch.stack((self.lower, self.upper)).flatten(2).abs()
        bounds = torch.where(sides.isfinite(), sides, 0).amax(0)
        counted = known | ~known.any(1, keepdim=True)
        return torch.where(counted, bounds, 0).norm(dim=1)

    def inner(self, share: float) -> Box:
        """Of every interval the middle, with this share of its length; one that is open to a side stays as it is."""
        middle, half = (self.lower + self.upper) / 2, share * (self.upper - self.lower) / 2
        closed = self.lower.isfinite() & self.upper.isfinite()
        return Box(torch.where(closed, middle - half, self.lower), torch.where(closed, middle + half, self.upper))

    def narrowed(self, known: Box) -> Box:
        """With the responses that another box knows; where it knows none, as it was."""
        there = known.known
        return Box(torch.where(there, known.lower, self.lower), torch.where(there, known.upper, self.upper))

    def residual(self, responses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The shortest way back into the box, and (1 or 0; None: everywhere) where it changes with the responses."""
        if self.exact:
            return self.upper - responses, None
        nearest = torch.minimum(torch.maximum(responses, self.lower), self.upper)
        active = self.known | (nearest != responses)
        return nearest - responses, active.to(responses.dtype)


def intervals(pool: MaxPool, features: torch.Tensor, activation: str) -> Box:
    """Bounds of every response below a max-pooling, from what it gives: N x C x h x w to N x K x H x W.

    Of every window that sees a response, the tightest: at most the window's largest positive phase, and after CReLU at
    least minus its largest negative one (after AVR minus its largest value). Where no window looks: no bounds.

    Raises
    ------
    CallError : an activation whose pooled features bound nothing.
    """
    if activation == "relu":
        upper = pool.tightest(features)
        return Box(torch.full_like(upper, -math.inf), upper)
    if activation == "avr":
        upper = pool.tightest(features)
        return Box(-upper, upper)
    if activation != "crelu":
        raise CallError(f"intervals are of pooled CReLU, ReLU and AVR features, not of {activation}")
    positive, negative = pool.tightest(features).chunk(2, dim=1)
    return Box(-negative, positive)


def at_switches(pool: MaxPool, features: torch.Tensor, switches: torch.Tensor, activation: str) -> Box:
    """The responses at the switches, and nothing of the others; where a phase's maximum is 0, nothing either.

    Raises
    ------
    CallError : AVR, whose |z| does not tell the sign.
    """
    if activation not in ("crelu", "relu"):
        raise CallError(f"switches give responses of pooled CReLU and ReLU features, not of {activation}")
    count = features.shape[1] // (2 if activation == "crelu" else 1)
    flat = features.new_full((len(features), count, pool.size[0] * pool.size[1]), torch.nan)
    for sign, first in ((1, 0), (-1, count))[: features.shape[1] // count]:
        values = sign * features[:, first : first + count]
        # Several windows that share a maximum agree on it. A maximum of 0 is written nowhere: past the end.
        places = torch.where(values == 0, flat.shape[2], switches[:, first : first + count])
        room = torch.cat((flat, flat[:, :, :1]), 2)
        flat = room.scatter(2, places.flatten(2), values.flatten(2))[:, :, :-1]
    flat = flat.unflatten(2, pool.size)
    return Box(flat.nan_to_num(-math.inf), flat.nan_to_num(math.inf))


def _positions(values: torch.Tensor, kernel: int, stride: int, padding: int) -> torch.Tensor:
    _, positions = torch.nn.functional.max_pool2d(values, kernel, stride, padding, return_indices=True)
    return positions
