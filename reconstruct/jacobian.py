"""A network up to one layer's linear responses, with its Jacobian: J v and J^T u without forming J.

Convolutions with piecewise-linear activations between them are linear as long as no response changes its sign, and
the Jacobian at an image is the same convolutions with each activation replaced by its slopes there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from reconstruct.activations import activate, derivative, phases
from reconstruct.convolution import Convolution, PeriodicConvolution
from reconstruct.network import Network, Size


@dataclass(frozen=True)
class Linearised:
    """The responses at some images, N x K x h x w, and the slopes of the activations on the way, lowest first."""

    responses: torch.Tensor
    slopes: list[torch.Tensor]

    def __getitem__(self, chosen: torch.Tensor) -> Linearised:
        """Of some images of the batch."""
        return Linearised(self.responses[chosen], [each[chosen] for each in self.slopes])


class Chain:
    """The layers from the image to the responses of ``layer``, for images of one size.

    Parameters
    ----------
    size : height and width of the images.
    periodic : on a torus, every layer's borders included; ``size`` is then a multiple of the product of the strides.
    """

    def __init__(self, net: Network, layer: str, size: Size, *, periodic: bool = False) -> None:
        self.net = net
        self.layers = net.chain(layer)
        self.operators: list[Convolution | PeriodicConvolution] = []
        self.biases: list[torch.Tensor | None] = []
        area = size
        for each in self.layers:
            convolution = net.convolution(each.name)
            weight, bias = convolution.weight.detach().float(), convolution.bias
            self.biases.append(None if bias is None else bias.detach().float().view(1, -1, 1, 1))
            if periodic:
                torus = PeriodicConvolution(weight, each.stride, each.padding, area)
                self.operators.append(torus)
                area = torus.grid
            else:
                operator = Convolution(weight, each.stride, each.padding, area, torch.float32)
                self.operators.append(operator)
                area = (operator.output_shape[1], operator.output_shape[2])
        self.grid = area

    @property
    def filters(self) -> int:
        return self.layers[-1].filters

    def linearise(self, images: torch.Tensor) -> Linearised:
        """Responses and slopes at images N x 3 x H x W in [0, 1]: one forward pass."""
        values = (images - self.net.mean) / self.net.std
        slopes = []
        for i, (layer, operator, bias) in enumerate(zip(self.layers, self.operators, self.biases, strict=True)):
            values = operator.convolve(values)
            if bias is not None:
                values = values + bias
            if i < len(self.layers) - 1:
                slopes.append(derivative(values, layer.activation, layer.slope))
                values = activate(values, layer.activation, layer.slope)
        return Linearised(values, slopes)

    def affine(self, images: torch.Tensor, slopes: list[torch.Tensor], offsets: list[torch.Tensor]) -> torch.Tensor:
        """Responses if every activation were an affine map of its responses, one slope and offset a feature."""
        values = (images - self.net.mean) / self.net.std
        for i, (layer, operator, bias) in enumerate(zip(self.layers, self.operators, self.biases, strict=True)):
            values = operator.convolve(values)
            if bias is not None:
                values = values + bias
            if i < len(slopes):
                values = torch.cat((values, values), 1) if phases(layer.activation) == 2 else values
                values = values * slopes[i] + offsets[i]
        return values

    def product(self, at: Linearised, images: torch.Tensor) -> torch.Tensor:
        """J v: the change of the responses, N x K x h x w, for a change of the images, N x 3 x H x W."""
        values = images / self.net.std
        for i, (layer, operator) in enumerate(zip(self.layers, self.operators, strict=True)):
            values = operator.convolve(values)
            if i < len(at.slopes):
                values = (torch.cat((values, values), 1) if phases(layer.activation) == 2 else values) * at.slopes[i]
        return values

    def transposed(self, at: Linearised, responses: torch.Tensor) -> torch.Tensor:
        """J^T u: N x K x h x w to N x 3 x H x W."""
        values = responses
        for i in reversed(range(len(self.layers))):
            values = self.operators[i].transpose(values)
            if i:
                values = values * at.slopes[i - 1]
                if phases(self.layers[i - 1].activation) == 2:
                    first, second = values.chunk(2, dim=1)
                    values = first + second
        return values / self.net.std


def multiplications(net: Network, layer: str, size: Size) -> dict[str, int]:
    """Multiplications of a forward pass on one image, for every layer up to ``layer``."""
    sizes = net.architecture.response_sizes(size)
    return {
        each.name: each.filters * math.prod(sizes[each.name]) * net.architecture.in_channels(each.name) * each.kernel**2
        for each in net.chain(layer)
    }
