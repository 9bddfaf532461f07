"""The filters of any network's layer: of a chain's, or of any other convolution of a module."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from reconstruct.errors import CallError
from reconstruct.network.module import ModuleNetwork
from reconstruct.network.network import Network
from reconstruct.network.protocol import AnyNetwork


@dataclass(frozen=True)
class Filters:
    """The filters of a convolution.

    Attributes
    ----------
    weight : K x C x h x w, C the channels that one filter sees.
    groups : how many; filters k of the g-th K / groups see the g-th C channels.
    activation : the layer's; ``none`` of a convolution that is read without what follows it.
    of_image : whether it is the first convolution, so that three channels are RGB.
    """

    weight: torch.Tensor
    groups: int
    activation: str
    of_image: bool


def filters_of(net: AnyNetwork, layer: str) -> Filters:
    """The filters of a layer.

    What normalises a filter scales it, and by a negative number turns it round: that is folded in where the layer is
    one of the chain that a network begins with. Of a module's other convolutions the filters are taken as they are.

    Raises
    ------
    CallError : no such layer, no weights for it, a pooling, or a part of a module that is no convolution.
    """
    if isinstance(net, Network):
        each = net.layer(layer)
        return Filters(
            net.convolution(layer).weight.detach(), each.groups, each.activation, layer == net.layer_names[0]
        )
    assert isinstance(net, ModuleNetwork)
    chain = net.as_chain(layer)
    if chain is not None:
        longest = net.longest_chain()
        return filters_of(longest if layer in longest.layer_names else chain, layer)
    part = net.module.get_submodule(net.call(layer).part)
    if not isinstance(part, nn.Conv2d):
        raise CallError(f"{layer} of {net.name} is no convolution, and has no filters: it is a {type(part).__name__}")
    first = layer == net.layers_with_weights[0].name
    return Filters(part.weight.detach(), part.groups, net.layer(layer).activation, first)
