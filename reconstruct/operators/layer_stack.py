"""A network up to one layer's linear responses, with its Jacobian: J v and J^T u without forming J.

Convolutions with piecewise-linear activations and poolings between them are linear as long as no response changes its
sign and no window its maximum. The Jacobian at an image is the same convolutions with each activation replaced by its
slopes there, and each max-pooling by its switches, the positions of its maxima. An average pooling is linear as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from reconstruct.errors import CallError
from reconstruct.network.activations import activate, derivative, deviations, phases, smoothed
from reconstruct.network.architecture import Layer, Size
from reconstruct.network.network import Network
from reconstruct.operators.convolution import Convolution, PeriodicConvolution, convolution_of
from reconstruct.operators.pooling import AvgPool, MaxPool


@dataclass(frozen=True)
class Linearised:
    """The responses at some images, N x K x h x w, and the slopes of the activations on the way, lowest first.

    In the place of a max-pooling's slopes, 1 or 0, are its switches, those of the last layer included.
    """

    responses: torch.Tensor
    slopes: list[torch.Tensor]

    def __getitem__(self, chosen: torch.Tensor) -> Linearised:
        """The same at some images of the batch."""
        return Linearised(self.responses[chosen], [each[chosen] for each in self.slopes])


class LayerStack:
    """The layers of a chain from the image to the responses of ``layer`` (of a pooling: its features), for one size.

    Parameters
    ----------
    size : height and width of the images.
    periodic : on a torus, every layer's borders included; ``size`` is then a multiple of the product of the strides.
    dtype : of images, responses and weights; float64 for solvers that a residual of 1e-6 does not satisfy.
    """

    def __init__(
        self, net: Network, layer: str, size: Size, *, periodic: bool = False, dtype: torch.dtype = torch.float32
    ) -> None:
        self.layers = net.up_to(layer)
        self.mean, self.std = (each.detach().to(dtype) for each in (net.mean, net.std))
        self.operators: list[Convolution | PeriodicConvolution | AvgPool | MaxPool] = []
        self.biases: list[torch.Tensor | None] = []
        area = size
        for each in self.layers:
            if not each.has_weights:
                average = each.kind == "avg_pool"
                device = net.mean.device
                pool = (
                    AvgPool(each, area, periodic, dtype=dtype, device=device)
                    if average
                    else MaxPool(each, area, periodic)
                )
                self.biases.append(None)
                self.operators.append(pool)
                area = pool.grid
                continue
            convolution = net.convolution(each.name)
            weight, bias = convolution.weight.detach().to(dtype), convolution.bias
            self.biases.append(None if bias is None else bias.detach().to(dtype).view(1, -1, 1, 1))
            if periodic:
                torus = PeriodicConvolution(weight, each.stride, each.padding, area, each.groups, each.dilation)
                self.operators.append(torus)
                area = torus.grid
            else:
                operator = convolution_of(each, weight, area, dtype)
                self.operators.append(operator)
                area = (operator.output_shape[1], operator.output_shape[2])
        self.grid = area

    @property
    def layer(self) -> Layer:
        """The last layer."""
        return self.layers[-1]

    @property
    def step(self) -> int:
        """The stride of the first layer, on whose polyphase components its responses are a convolution of stride 1."""
        return self.layers[0].stride

    @property
    def bends(self) -> int:
        """How many rectifications and max-poolings there are on the way, each convolution below counting as one."""
        *below, last = (each.kind for each in self.layers)
        return sum(kind != "avg_pool" for kind in below) + (last == "max_pool")

    def linearise(self, images: torch.Tensor, spreads: Sequence[torch.Tensor | None] | None = None) -> Linearised:
        """Responses and slopes at images N x 3 x H x W in [0, 1]: one forward pass.

        Parameters
        ----------
        spreads : one of each layer below the last, 1 x C x 1 x 1, as ``spreads`` gives them or scaled: its activation
            is replaced by its mean under Gaussian uncertainty of its responses (``activations.smoothed``). None, for
            one layer or for all, leaves the activation as it is; poolings are as they are anyhow.

        Raises
        ------
        CallError : there are more spreads, or fewer, than layers below the last.
        """
        if spreads is not None and len(spreads) != len(self.layers) - 1:
            raise CallError(
                f"{len(self.layers) - 1} layers are below {self.layer.name}, and {len(spreads)} spreads given"
            )
        values = (images - self.mean) / self.std
        slopes = []
        for i, (layer, operator, bias) in enumerate(zip(self.layers, self.operators, self.biases, strict=True)):
            if isinstance(operator, MaxPool):
                slopes.append(operator.switches(values))
                values = operator.gather(values, slopes[-1])
                continue
            values = operator.convolve(values)
            if bias is not None:
                values = values + bias
            if i < len(self.layers) - 1:
                spread = spreads[i] if spreads is not None and layer.has_weights else None
                values, slope = _activated(values, layer, spread)
                slopes.append(slope)
        return Linearised(values, slopes)

    def spreads(self, images: torch.Tensor) -> list[torch.Tensor | None]:
        """The standard deviation of each channel's responses at these images, N x 3 x H x W, over all of them.

        Returns
        -------
        One of each layer below the last, 1 x C x 1 x 1; None for a pooling.
        """
        values = (images - self.mean) / self.std
        found: list[torch.Tensor | None] = []
        for layer, operator, bias in zip(self.layers[:-1], self.operators, self.biases, strict=False):
            if isinstance(operator, MaxPool):
                values = operator.gather(values, operator.switches(values))
            else:
                values = operator.convolve(values)
            if bias is not None:
                values = values + bias
            found.append(deviations(values) if layer.has_weights else None)
            values = activate(values, layer.activation, layer.slope)
        return found

    def linear_maps(self) -> list[tuple[Layer, Convolution | PeriodicConvolution | AvgPool, torch.Tensor | None]]:
        """Layers, operators and biases, lowest first, where all layers are convolutions or average poolings.

        Raises
        ------
        CallError : one is a max-pooling.
        """
        found = []
        for layer, operator, bias in zip(self.layers, self.operators, self.biases, strict=True):
            if isinstance(operator, MaxPool):
                raise CallError(f"{layer.name} is a max-pooling, and no affine map stands for it")
            found.append((layer, operator, bias))
        return found

    def affine(self, images: torch.Tensor, slopes: list[torch.Tensor], offsets: list[torch.Tensor]) -> torch.Tensor:
        """Responses if every activation were an affine map of its responses, one slope and offset a feature.

        Raises
        ------
        CallError : there is a max-pooling on the way.
        """
        values = (images - self.mean) / self.std
        for i, (layer, operator, bias) in enumerate(self.linear_maps()):
            values = operator.convolve(values)
            if bias is not None:
                values = values + bias
            if i < len(slopes):
                values = torch.cat((values, values), 1) if phases(layer.activation) == 2 else values
                values = values * slopes[i] + offsets[i]
        return values

    def product(self, at: Linearised, images: torch.Tensor) -> torch.Tensor:
        """J v: the change of the responses, N x K x h x w, for a change of the images, N x 3 x H x W."""
        values = images / self.std
        for i, (layer, operator) in enumerate(zip(self.layers, self.operators, strict=True)):
            if isinstance(operator, MaxPool):
                values = operator.gather(values, at.slopes[i])
                continue
            values = operator.convolve(values)
            if i < len(at.slopes):
                values = (torch.cat((values, values), 1) if phases(layer.activation) == 2 else values) * at.slopes[i]
        return values

    def transposed(self, at: Linearised, responses: torch.Tensor) -> torch.Tensor:
        """J^T u: N x K x h x w to N x 3 x H x W."""
        values = responses
        for i in reversed(range(len(self.layers))):
            layer, operator = self.layers[i], self.operators[i]
            if isinstance(operator, MaxPool):
                values = operator.scatter(values, at.slopes[i])
                continue
            if i < len(at.slopes):
                values = values * at.slopes[i]
                if phases(layer.activation) == 2:
                    first, second = values.chunk(2, dim=1)
                    values = first + second
            values = operator.transpose(values)
        return values / self.std


def _activated(responses: torch.Tensor, layer: Layer, spread: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer's features and their slopes, of its responses as they are or as uncertain as ``spread`` says."""
    if spread is not None:
        return smoothed(responses, layer.activation, layer.slope, spread)
    slopes = derivative(responses, layer.activation, layer.slope)
    return activate(responses, layer.activation, layer.slope), slopes
