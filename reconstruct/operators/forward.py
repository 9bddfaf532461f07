"""The forward map that an inversion undoes: images to a layer's linear responses, or else its features, and its J.

Linear responses where the activation keeps them (CReLU) and of a pooling what it gives; features otherwise (ReLU, AVR).
``Result.feature_residual`` compares the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from reconstruct.network.activations import activate, derivative, is_invertible, linear_responses
from reconstruct.network.architecture import Size
from reconstruct.network.protocol import AnyNetwork
from reconstruct.operators.autodiff import Differentiation
from reconstruct.operators.jacobian import jacobian_of
from reconstruct.operators.layer_stack import LayerStack


@dataclass(frozen=True)
class Reached:
    """What ``Forward`` gives at some images, N x K x h x w, and what its Jacobian there is made of.

    ``slopes`` are those of the last activation, N x K x h x w, where features are compared; None for responses.
    """

    values: torch.Tensor
    at: Any
    slopes: torch.Tensor | None

    def __getitem__(self, chosen: torch.Tensor) -> Reached:
        """The same at some images of the batch."""
        return Reached(self.values[chosen], self.at[chosen], None if self.slopes is None else self.slopes[chosen])


class Forward:
    """f: images, N x 3 x H x W in [0, 1], to what is known of a layer.

    f itself asks for ``responses`` and ``features`` alone; J is of a stack of layers, or differentiates.
    """

    def __init__(self, net: AnyNetwork, layer: str) -> None:
        self.net = net
        self.layer = net.layer(layer)
        self.linear = is_invertible(self.layer.activation, self.layer.slope)
        """Whether f gives linear responses."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """f(x), N x K x h x w; differentiable."""
        given = self.net.responses if self.linear else self.net.features
        return given(images, self.layer.name)

    def target(self, features: torch.Tensor) -> torch.Tensor:
        """What f is to reach, N x K x h x w, of the layer's features N x C x h x w."""
        return linear_responses(features, self.layer.activation, self.layer.slope) if self.linear else features

    def chain(self, size: Size, dtype: torch.dtype = torch.float32) -> LayerStack | Differentiation:
        """The layers as linear operators, for images of one size."""
        return jacobian_of(self.net, self.layer.name, size, dtype)

    def linearise(self, images: torch.Tensor) -> Reached:
        """f and its slopes at images N x 3 x H x W: one forward pass, in the images' precision."""
        at = self._of(images).linearise(images)
        if self.linear:
            return Reached(at.responses, at, None)
        # Activations that lose the sign have one phase.
        slopes = derivative(at.responses, self.layer.activation, self.layer.slope)
        return Reached(activate(at.responses, self.layer.activation, self.layer.slope), at, slopes)

    def product(self, reached: Reached, images: torch.Tensor) -> torch.Tensor:
        """J v: the change of f, N x K x h x w, for a change of the images, N x 3 x H x W."""
        values = self._of(images).product(reached.at, images)
        return values if reached.slopes is None else reached.slopes * values

    def transposed(self, reached: Reached, values: torch.Tensor, size: Size) -> torch.Tensor:
        """J^T u: N x K x h x w to N x 3 x H x W, of images of this size."""
        given = values if reached.slopes is None else reached.slopes * values
        return self.chain(size, values.dtype).transposed(reached.at, given)

    def _of(self, images: torch.Tensor) -> LayerStack | Differentiation:
        return self.chain((images.shape[2], images.shape[3]), images.dtype)
