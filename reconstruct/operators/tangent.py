"""A layer's linear responses near one image as an affine map, J x + offset: for solvers of linear systems."""

from __future__ import annotations

import torch

from reconstruct.errors import CallError
from reconstruct.network.architecture import Size
from reconstruct.network.protocol import AnyNetwork
from reconstruct.operators.layer_stack import LayerStack, Linearised


class Tangent:
    """The affine map that a layer's responses (of a pooling: what it gives) are near an image.

    It is the layer itself on all images that give the same signs and switches on the way, for a first layer on all
    images.

    Parameters
    ----------
    size : height and width of the images.
    at : the image, 3 x H x W in [0, 1]; None for a layer that is affine: no activation and no max-pooling below it.
    dtype : of images and responses.

    Attributes
    ----------
    offset : 1 x K x h x w, the value at x = 0: f(at) - J at.

    Raises
    ------
    CallError : no ``at`` for a layer that is not affine, or one of another shape.
    """

    def __init__(
        self,
        net: AnyNetwork,
        layer: str,
        size: Size,
        *,
        at: torch.Tensor | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.shape = (net.channels, *size)
        chain = net.as_chain(layer)
        if chain is None:
            raise CallError(f"{net.name} is no chain of convolutions up to {layer}: there is no linear map to give")
        if at is None:
            layers = chain.up_to(layer)
            bends = [each for each in layers[:-1] if each.activation != "none"]
            bends += [each for each in layers if each.kind == "max_pool"]
            if bends:
                what = "max-pooling" if bends[0].kind == "max_pool" else bends[0].activation
                raise CallError(f"{layer} is not linear because of the {what} of {bends[0].name}: give the image, at=")
            at = net.mean.new_zeros(self.shape)
        if tuple(at.shape) != self.shape:
            raise CallError(f"the image is {' x '.join(map(str, self.shape))}, not {' x '.join(map(str, at.shape))}")
        chain.shapes(size, layer)  # refuses a size that does not reach the layer
        self.stack = LayerStack(chain, layer, size, dtype=dtype)
        self.dtype = dtype
        with torch.no_grad():
            image = at[None].to(net.mean.device, dtype)
            self._at = self.stack.linearise(image)
            self.offset = self._at.responses - self.stack.product(self._at, image)

    def product(self, images: torch.Tensor) -> torch.Tensor:
        """J v of a batch: N x 3 x H x W to N x K x h x w."""
        return self.stack.product(self._of(len(images)), images)

    def transposed(self, responses: torch.Tensor) -> torch.Tensor:
        """J^T u of a batch: N x K x h x w to N x 3 x H x W."""
        return self.stack.transposed(self._of(len(responses)), responses)

    def _of(self, count: int) -> Linearised:
        """The one image's slopes and switches for a batch."""
        slopes = [each.expand(count, *each.shape[1:]) for each in self._at.slopes]
        return Linearised(self._at.responses, slopes)
