"""Networks made of networks: batch normalisation folded in, a pooling on top, another activation, another precision."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from reconstruct.errors import CallError
from reconstruct.network.activations import TAPS, phases
from reconstruct.network.architecture import KINDS, Architecture, Layer
from reconstruct.network.incoming import deep_copy
from reconstruct.network.kept import kept
from reconstruct.network.network import Network, part_of
from reconstruct.network.protocol import AnyNetwork

if TYPE_CHECKING:
    from numpy.typing import NDArray

Net = TypeVar("Net", bound=AnyNetwork)
Array = TypeVar("Array", torch.Tensor, "NDArray[Any]")


@torch.no_grad()
def fold_batch_norm(net: Network) -> Network:
    """A copy of the network with each batch normalisation folded into the convolution before it.

    In evaluation mode the copy gives the same features, up to rounding (``folded``).

    Examples
    --------
    >>> import reconstruct, torch
    >>> from reconstruct.network.surgery import with_batch_norm
    >>> net = reconstruct.load_model("convpool_cnn_c_crelu")
    >>> trained = reconstruct.Network(with_batch_norm(net.architecture)).eval()
    >>> plain = reconstruct.fold_batch_norm(trained)
    >>> images = torch.rand(1, 3, 32, 32)
    >>> torch.allclose(trained.features(images, "conv2"), plain.features(images, "conv2"), atol=1e-5)
    True
    """
    layers = tuple(replace(layer, batch_norm=False) for layer in net.architecture.layers)
    plain = Network(replace(net.architecture, layers=layers), len(net.layers)).eval()
    for layer in net.layers_with_weights:
        source, target = getattr(net, part_of(layer.name)), getattr(plain, part_of(layer.name))
        weight, bias = source.weight, source.bias
        if layer.batch_norm:
            norm = getattr(net, f"{part_of(layer.name)}_bn")
            weight, bias = folded(weight, bias, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)
        target.weight.copy_(weight)
        target.bias.copy_(bias)
    return plain.to(net.mean.device)


def folded(
    weight: Array, bias: Array, gain: Array, offset: Array, mean: Array, variance: Array, eps: float
) -> tuple[Array, Array]:
    """The weight, K x C x h x w, and bias, K, of a convolution followed by a batch normalisation.

    ``y = gain (W x + b - mean) / sqrt(variance + eps) + offset`` is the convolution with weights ``W g`` and bias
    ``(b - mean) g + offset``, ``g = gain / sqrt(variance + eps)``. All are tensors, or all are NumPy arrays.
    """
    scale = gain / (variance + eps) ** 0.5
    return weight * scale.reshape(-1, 1, 1, 1), (bias - mean) * scale + offset


@torch.no_grad()
def randomise(net: Network, seed: int) -> Network:
    """Fill a network with random weights, the same for the same seed: He et al. 2015, biases 0."""
    generator = torch.Generator().manual_seed(seed)
    for layer in net.layers_with_weights:
        convolution = getattr(net, part_of(layer.name))
        fan_in = math.prod(convolution.weight.shape[1:])
        weights = torch.randn(convolution.weight.shape, generator=generator) * math.sqrt(2 / fan_in)
        convolution.weight.copy_(weights)
        convolution.bias.zero_()
    return net


def pooled_layer(net: Network, pool: str) -> tuple[Layer, Layer]:
    """A convolution and the max-pooling of its features that is asked for.

    Raises
    ------
    CallError : the layer is not a max-pooling, or not right above a convolution.
    """
    layers = net.up_to(pool)
    if layers[-1].kind != "max_pool" or not layers[-2].has_weights:
        pools = [upper.name for lower, upper in pairwise(net.layers) if upper.kind == "max_pool" and lower.has_weights]
        has = f"it has {', '.join(pools)}" if pools else "it has none"
        raise CallError(f"{pool} of {net.name} is not a max-pooling of a convolution's features; {has}")
    return layers[-2], layers[-1]


def with_pool(net: Network, layer: str, kernel: int, stride: int) -> Network:
    """The network up to a convolution, then a max-pooling of its features, ``LAYER_pool``; weights are shared.

    Raises
    ------
    CallError : a layer without weights, sizes below 1, or windows larger than the layer's grid for the model's images.
    """
    layers = net.up_to(layer)
    if not layers[-1].has_weights:
        raise CallError(f"{layer} is a pooling itself: name the convolution whose features are to be pooled")
    if min(kernel, stride) < 1:
        raise CallError(f"a pooling's kernel and stride are at least 1, not {kernel} and {stride}")
    height, width = net.shapes(net.input_area)[layer]
    if kernel > min(height, width):
        raise CallError(f"windows of {kernel} do not fit the {height} x {width} positions of {layer}")
    pool = Layer(f"{layer}_pool", kernel=kernel, stride=stride, kind="max_pool")
    return net.sharing((*layers, pool))


def with_tap(net: AnyNetwork, layer: str, tap: str) -> AnyNetwork:
    """The network (a chain: up to this layer) with the layer's activation replaced; weights are shared.

    What the layer would give if another activation followed its responses: a ReLU network's layer read through CReLU
    keeps both phases, and through ``responses`` keeps them as they are.

    Parameters
    ----------
    tap : one of ``activations.TAPS``: ``responses`` (before any activation), ``relu``, ``crelu``, ``avr``.

    Raises
    ------
    CallError : an unknown tap, a layer without weights for it, or a pooling, which has no activation.
    """
    if tap not in TAPS:
        raise CallError(f"unknown tap '{tap}'; there are {', '.join(TAPS)}")
    return net.with_activation(layer, TAPS[tap])


def in_float32(net: Net) -> Net:
    """The network itself where all its numbers are float32, as inversion wants them; otherwise a copy that is kept."""
    floating = (values.dtype for values in chain(net.parameters(), net.buffers()) if values.is_floating_point())
    if all(dtype == torch.float32 for dtype in floating):
        return net
    return kept(net, "float32", lambda: deep_copy(net).to(torch.float32))


def with_classes(architecture: Architecture, classes: int) -> Architecture:
    """The architecture with this many outputs: of its last layer, whose filters are half of them after CReLU.

    Raises
    ------
    CallError : fewer than 1, a number that CReLU's pairs cannot give, or a last layer without weights.
    """
    last = architecture.layers[-1]
    if not last.has_weights:
        raise CallError(f"{architecture.name} ends in the {KINDS[last.kind]} {last.name}: it has no layer of classes")
    if classes < 1:
        raise CallError(f"classes are at least 1, not {classes}")
    each = phases(last.activation)
    if classes % each:
        raise CallError(f"{last.name} of {architecture.name} is {last.activation}: its classes are even, not {classes}")
    if classes // each % last.groups:
        raise CallError(
            f"{last.name} of {architecture.name} has {last.groups} groups, which {classes} classes do not fit"
        )
    return replace(architecture, layers=(*architecture.layers[:-1], replace(last, filters=classes // each)))


def with_batch_norm(architecture: Architecture) -> Architecture:
    """The architecture with batch normalisation after every convolution; ``fold_batch_norm`` takes it off again."""
    layers = tuple(replace(layer, batch_norm=layer.has_weights) for layer in architecture.layers)
    return replace(architecture, layers=layers)


def without_dropout(architecture: Architecture) -> Architecture:
    """The architecture with no dropout anywhere, for runs too short to over-fit."""
    layers = tuple(replace(layer, dropout=0.0) for layer in architecture.layers)
    return replace(architecture, layers=layers, input_dropout=0.0)


def with_dropout(architecture: Architecture, rate: float) -> Architecture:
    """The architecture with another dropout wherever it has one between layers; that of the input stays.

    Raises
    ------
    CallError : the rate is not from 0 to less than 1.
    """
    if not 0 <= rate < 1:
        raise CallError(f"a dropout rate is from 0 to less than 1, not {rate:g}")
    layers = tuple(replace(layer, dropout=rate if layer.dropout else 0.0) for layer in architecture.layers)
    return replace(architecture, layers=layers)
