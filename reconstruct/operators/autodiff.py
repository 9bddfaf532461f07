"""The Jacobian of any network up to a layer, by automatic differentiation: what ``LayerStack`` is for a chain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from reconstruct.errors import ReconstructError, words_of
from reconstruct.network.architecture import Layer, Size
from reconstruct.network.calls import without_torchs_doubts
from reconstruct.network.kept import kept
from reconstruct.network.protocol import AnyNetwork
from reconstruct.network.smoothing import recorded, smoothing
from reconstruct.network.surgery import in_float32

_NONE_REACHES_IT = (
    "none reaches it, as inside no_grad, reentrant checkpointing or a detached branch, "
    "or behind whole numbers: quantisation, or the nearest of a table's vectors"
)


@dataclass(frozen=True)
class Differentiated:
    """The responses at some images, N x K x h x w, and the graph that they came by.

    ``rows`` : which of the graph's images these are. ``spreads`` : those that the activations are smoothed by, if any.
    """

    responses: torch.Tensor
    images: torch.Tensor
    graph: torch.Tensor
    rows: torch.Tensor
    spreads: Sequence[torch.Tensor | None] | None = None

    def __getitem__(self, chosen: torch.Tensor) -> Differentiated:
        """The same at some images of the batch."""
        return Differentiated(self.responses[chosen], self.images, self.graph, self.rows[chosen], self.spreads)


class Differentiation:
    """A network up to the responses of ``layer``, for images of one size; products with its Jacobian.

    Attributes
    ----------
    grid : height and width of the responses.
    layer : what is known of the layer.
    step : 1: no stride is known.
    bends : infinite: nobody knows how many rectifications there are on the way.
    """

    step = 1
    bends = math.inf

    def __init__(self, net: AnyNetwork, layer: str, size: Size) -> None:
        self.net = net
        self.layer: Layer = net.layer(layer)
        self.grid = net.shapes(size, layer)[layer]
        self.size = size

    def linearise(self, images: torch.Tensor, spreads: Sequence[torch.Tensor | None] | None = None) -> Differentiated:
        """Responses at images N x C x H x W in [0, 1]: one forward pass.

        Parameters
        ----------
        spreads : one of each activation's call, as ``spreads`` gives them or scaled: the activation is replaced by its
            mean under Gaussian uncertainty of what goes into it (``network/smoothing.py``). None, for one or for all,
            leaves it as it is.

        Raises
        ------
        CallError : the spreads are not those of the activations that are called on the way.
        """
        spreads = self._fitting(spreads)
        with torch.enable_grad():
            leaf = images.detach().requires_grad_(True)
            graph = self._reached(leaf, spreads)
        rows = torch.arange(len(images), device=images.device)
        return Differentiated(graph.detach(), leaf, graph, rows, spreads)

    def spreads(self, images: torch.Tensor) -> list[torch.Tensor | None]:
        """The standard deviation, for each channel, of what goes into each activation's call at these images.

        N x C x H x W to 1 x C x 1 x 1 each, in the order of the calls; none of them where the module is a script. One
        for all, 1 x 1 x 1, where the images are on the axis of the channels. None of them as well where the calls are
        more for more images, because each goes in alone.
        """
        found = self._recorded(images)
        if all(each is None for each in found):
            return found
        other = self._recorded(images[:1] if len(images) > 1 else images.expand(2, -1, -1, -1))
        if len(other) != len(found):
            return []
        return _of_channels(found, [None if each is None else each.shape for each in other])

    def _recorded(self, images: torch.Tensor) -> list[torch.Tensor | None]:
        return recorded(lambda leaf: self.net.responses(leaf, self.layer.name), images)

    def product(self, at: Differentiated, images: torch.Tensor) -> torch.Tensor:
        """J v: N x C x H x W to N x K x h x w, as the derivative of u -> J^T u: a forward pass and two backward.

        More parts have two derivatives than forward differentiation; where one has not, that is tried.
        """
        # The plain attention: fused ones have one derivative only.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            leaf = at.images.detach()[at.rows].requires_grad_(True)
            reached = self._reached(leaf, at.spreads)
            weights = torch.zeros_like(reached, requires_grad=True)
            (pulled,) = torch.autograd.grad(reached, leaf, weights, create_graph=True)
            try:
                (changed,) = torch.autograd.grad(pulled, weights, images)
            except RuntimeError as error:
                if "is not implemented" not in str(error):
                    raise
                changed = self._pushed(at, images)
        return changed.detach()

    def _pushed(self, at: Differentiated, images: torch.Tensor) -> torch.Tensor:
        """J v by forward differentiation, for parts that have no second derivative, such as ``nn.Hardsigmoid``."""
        with forward_ad.dual_level():
            moving = forward_ad.make_dual(at.images.detach()[at.rows], images)
            changed: torch.Tensor | None = forward_ad.unpack_dual(self._reached(moving, at.spreads)).tangent
        return torch.zeros_like(at.responses) if changed is None else changed

    def transposed(self, at: Differentiated, responses: torch.Tensor) -> torch.Tensor:
        """J^T u: N x K x h x w to N x C x H x W, by the graph that ``linearise`` has kept."""
        whole = torch.zeros_like(at.graph)
        whole[at.rows] = responses
        (pulled,) = torch.autograd.grad(at.graph, at.images, whole, retain_graph=True)
        return pulled[at.rows]

    @cached_property
    def _shapes(self) -> list[torch.Size | None]:
        """Those of the spreads for images of this size."""
        mean = self.net.mean.expand(1, -1, *self.size)
        return [None if spread is None else spread.shape for spread in self.spreads(mean)]

    def _fitting(self, spreads: Sequence[torch.Tensor | None] | None) -> Sequence[torch.Tensor | None] | None:
        """Spreads that were measured on images of the network's own size, for images of this one.

        An activation of N x T x C or N x h x w x C has positions where others have channels, as many as the image has.
        """
        if spreads is None or self.size == self.net.input_area or len(spreads) != len(self._shapes):
            return spreads
        return _of_channels(spreads, self._shapes)

    def _reached(self, images: torch.Tensor, spreads: Sequence[torch.Tensor | None] | None) -> torch.Tensor:
        if spreads is None:
            return self.net.responses(images, self.layer.name)
        with smoothing(spreads):
            return self.net.responses(images, self.layer.name)


def _of_channels(
    spreads: Sequence[torch.Tensor | None], shapes: Sequence[torch.Size | None]
) -> list[torch.Tensor | None]:
    """Spreads as they are where others of the same calls have their shapes, and the mean one where they have not."""
    return [
        spread
        if spread is None or shape is None or spread.shape == shape
        else spread.square().mean().sqrt().view((1,) * spread.ndim)
        for spread, shape in zip(spreads, shapes, strict=True)
    ]


def no_gradient(net: AnyNetwork, layer: str, *, twice: bool = False) -> str | None:
    """Why the responses of a layer cannot be differentiated by the image, in half a sentence; None where they can.

    Tried out once on noise; a chain of layers is not differentiated, and not tried.

    twice : whether products with the Jacobian are asked for, which ``Differentiation`` differentiates twice for.
    """
    net = in_float32(net)
    if net.as_chain(layer) is not None:
        return None
    return kept(net, ("no gradient", layer, twice), lambda: _no_gradient(net, layer, twice))


def _no_gradient(net: AnyNetwork, layer: str, twice: bool) -> str | None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, net.channels, *net.input_area, generator=generator).to(net.mean)
    operator = Differentiation(net, layer, net.input_area)
    try:
        with without_torchs_doubts():
            return _tried(operator, images, generator, twice)
    except ReconstructError:
        raise
    except Exception as error:  # whatever the user's own derivatives raise
        if "have been used in the graph" in str(error):  # torch's words for it
            return _NONE_REACHES_IT
        return f"torch says that {words_of(error)}"


def _tried(operator: Differentiation, images: torch.Tensor, generator: torch.Generator, twice: bool) -> str | None:
    at = operator.linearise(images)
    if not at.graph.requires_grad:
        return _NONE_REACHES_IT
    if twice:
        operator.product(at, images)
    elif not operator.transposed(at, torch.randn(at.responses.shape, generator=generator).to(images)).any():
        return "it is 0 everywhere, as behind rounding"
    return None
