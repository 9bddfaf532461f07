"""What a layer is as an operator: a stack of convolutions and poolings where it is one, differentiation where not.

Here alone that is decided. Solvers and methods ask an operator, and not a network, for what they need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from reconstruct.network.architecture import Layer, Size
from reconstruct.network.protocol import AnyNetwork
from reconstruct.operators.autodiff import Differentiation
from reconstruct.operators.layer_stack import LayerStack


class Jacobian(Protocol):
    """A network up to a layer's responses for images of one size; ``LayerStack`` and ``Differentiation``.

    Attributes
    ----------
    grid : height and width of the responses.
    """

    grid: Size

    @property
    def layer(self) -> Layer:
        """The layer whose responses these are."""

    @property
    def step(self) -> int:
        """The stride of the first layer, 1 where none is known."""

    @property
    def bends(self) -> float:
        """How many rectifications and max-poolings there are on the way; infinite where nobody knows."""

    def linearise(self, images: torch.Tensor, spreads: Sequence[torch.Tensor | None] | None = None) -> Any:
        """The responses at images, N x C x H x W, as ``.responses``, and what J there is made of.

        ``spreads`` : as ``spreads`` gives them or scaled; every activation on the way is then replaced by its mean
            under Gaussian uncertainty of what goes into it, of that standard deviation for each channel.
        """

    def spreads(self, images: torch.Tensor) -> list[torch.Tensor | None]:
        """The standard deviation, for each channel, of what goes into the activations on the way at these images.

        1 x C x 1 x 1 each, in an order of the operator's own; None where there is nothing to smooth.
        """

    def product(self, at: Any, images: torch.Tensor) -> torch.Tensor:
        """J v: N x C x H x W to N x K x h x w."""

    def transposed(self, at: Any, responses: torch.Tensor) -> torch.Tensor:
        """J^T u: N x K x h x w to N x C x H x W."""


def jacobian_of(
    net: AnyNetwork, layer: str, size: Size, dtype: torch.dtype = torch.float32
) -> LayerStack | Differentiation:
    """The layers up to one as a linear operator near any image, for images of one size.

    Its weights are those of now: it is made anew for each inversion, and not kept.
    """
    chain = net.as_chain(layer)
    return Differentiation(net, layer, size) if chain is None else LayerStack(chain, layer, size, dtype=dtype)
