"""Pooling as linear operators: an average pooling is one, a max-pooling at given *switches*, where its maxima are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from reconstruct.errors import CallError
from reconstruct.network.architecture import Layer, Size
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
            self.operator = Convolution(weight, layer.stride, layer.sides or layer.padding, size, dtype)
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
        if not self.periodic and layer.sides is not None:
            top, left, bottom, right = layer.sides
            padded = torch.nn.functional.pad(values, (left, right, top, bottom), value=-math.inf)
            found = _positions(padded, layer.kernel, layer.stride, 0)
            rows, columns = found // padded.shape[3] - top, found % padded.shape[3] - left
            return rows * self.size[1] + columns
        if not self.periodic:
            return _positions(values, layer.kernel, layer.stride, layer.padding, layer.ceil_mode)
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


def _positions(values: torch.Tensor, kernel: int, stride: int, padding: int, ceil: bool = False) -> torch.Tensor:
    _, positions = torch.nn.functional.max_pool2d(values, kernel, stride, padding, ceil_mode=ceil, return_indices=True)
    return positions
