"""Max-pooling as an operator that is linear at given *switches*: the positions of the windows' maxima."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from reconstruct.errors import CallError
from reconstruct.network import Layer, Size


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

    def gather(self, values: torch.Tensor, switches: torch.Tensor) -> torch.Tensor:
        """The values at the switches: N x C x H x W to N x C x h x w."""
        return values.flatten(2).gather(2, switches.flatten(2)).unflatten(2, self.grid)

    def scatter(self, values: torch.Tensor, switches: torch.Tensor) -> torch.Tensor:
        """The adjoint of ``gather``: what several windows took from one position adds up there."""
        flat = values.new_zeros(*values.shape[:2], self.size[0] * self.size[1])
        return flat.scatter_add_(2, switches.flatten(2), values.flatten(2)).unflatten(2, self.size)


def _positions(values: torch.Tensor, kernel: int, stride: int, padding: int) -> torch.Tensor:
    _, positions = torch.nn.functional.max_pool2d(values, kernel, stride, padding, return_indices=True)
    return positions
