"""How weights start: so that the responses of every layer have the same variance, whatever stands between the layers.

He et al. 2015 derive it for ReLU, which passes on half of a response's second moment: weights of variance 2 / fan-in.
The rule here is theirs for whatever a ``Network`` consists of: a convolution that takes in numbers of second moment m
starts with weights of variance 1 / (fan-in m).

AVR needs two things more. |z| of a normal z knows nothing of z's sign, and nine such layers scramble what they are
given; and most of it is what all pictures have in common, a mean of 0.8 beside a deviation of 0.6. So its biases start
at one standard deviation of the responses, and |z + 1| follows z as closely as ReLU does (the correlation is 0.85); and
the filters above it sum to zero, so that the common part goes no further.

A last layer with ReLU, as Springenberg et al.'s have it, needs more. Its first gradients lower most scores of most
pictures, and where all its responses are negative, nothing is learned any more. Cross entropy does not see what all
scores have in common, so its biases start at ten standard deviations of the responses, where ReLU cuts off nothing
until the scores have been learned. (Krizhevsky et al. 2012 start biases at 1 for the same reason.)
"""

from __future__ import annotations

import math

import numpy
import torch

from reconstruct.network.activations import activate
from reconstruct.network.architecture import Architecture, Layer
from reconstruct.network.network import Network, part_of

LAST_BIAS = 10.0
AVR_BIAS = 1.0
Distribution = tuple[numpy.ndarray, numpy.ndarray]
"""Values in rising order, and their probabilities."""


@torch.no_grad()
def start_evenly(net: Network, seed: int) -> Network:
    """Fill a network with random weights, the same for the same seed, and biases: 0 but for AVR and a last ReLU.

    Every convolution's responses then begin training with variance 1 or a little less, with the network's dropout.
    """
    generator = torch.Generator().manual_seed(seed)
    centred = False
    for layer, moment in zip(net.layers_with_weights, incoming_moments(net.architecture), strict=True):
        convolution = getattr(net, part_of(layer.name))
        fan_in = math.prod(convolution.weight.shape[1:])
        weights = torch.randn(convolution.weight.shape, generator=generator) / math.sqrt(fan_in * moment)
        if centred:
            weights -= weights.mean((1, 2, 3), keepdim=True)
        convolution.weight.copy_(weights)
        centred = layer.activation == "avr"
        convolution.bias.fill_(AVR_BIAS if centred else 0)
    last = net.architecture.layers[-1]
    if last.has_weights and last.activation == "relu" and not last.batch_norm:
        getattr(net, part_of(last.name)).bias.fill_(LAST_BIAS)
    return net


def incoming_moments(architecture: Architecture) -> list[float]:
    """The second moment m of the numbers that each convolution takes in, where all responses have variance 1.

    A normalised picture has 1. ReLU passes on 1/2, and so does each phase of CReLU, whose fan-in counts both, so that a
    pair passes on 1. Dropout with probability p multiplies by 1 / (1 - p), that is, adds p / (1 - p) of it. Of AVR's
    |z + 1| the mean is left out (filters above it sum to zero), but dropout's share is still one of the whole. A
    pooling is taken to pool independent normal responses: neighbours resemble each other, and it passes on less than
    this, but not less than what it pools.
    """
    found = []
    values = _normal()
    moment = _second_moment(values) / (1 - architecture.input_dropout)
    centred = False
    for layer in architecture.layers:
        if layer.has_weights:
            found.append(moment)
            centred = layer.activation == "avr"
        values = _passed_on(values, layer)
        moment = _second_moment(values) / (1 - layer.dropout) - (_mean(values) ** 2 if centred else 0)
    return found


def _passed_on(values: Distribution, layer: Layer) -> Distribution:
    """The distribution of what a layer gives: of a convolution's features, or of a pooling of independent values."""
    if layer.has_weights:
        responses, shares = _normal()
        responses = responses + AVR_BIAS if layer.activation == "avr" else responses
        features = activate(torch.from_numpy(responses)[None], layer.activation, layer.slope)[0].numpy()
        shares = numpy.resize(shares, features.size) * (responses.size / features.size)  # CReLU has two phases
        order = numpy.argsort(features, kind="stable")
        return features[order], shares[order]
    each, shares = values
    count = layer.kernel**2
    if layer.kind == "max_pool":
        below = numpy.minimum(numpy.cumsum(shares), 1) ** count
        return each, numpy.diff(below, prepend=0)
    mean = _mean(values)
    deviation = math.sqrt(max(_second_moment(values) - mean**2, 0) / count)
    responses, shares = _normal()
    return mean + deviation * responses, shares


def _normal() -> Distribution:
    """The standard normal distribution on a grid."""
    grid = numpy.linspace(-8, 8, 3201)
    density = numpy.exp(-(grid**2) / 2)
    return grid, density / density.sum()


def _mean(values: Distribution) -> float:
    return float(values[0] @ values[1])


def _second_moment(values: Distribution) -> float:
    return float(values[0] ** 2 @ values[1])
