"""Networks of random weights, random tensors, and an operator as the matrix that it is."""

import numpy
import torch

from reconstruct.network.architecture import Architecture, Layer
from reconstruct.network.network import Network
from reconstruct.network.surgery import randomise
from reconstruct.operators.convolution import Convolution


def random_net(*layers: Layer, channels: int = 3, biases: bool = True) -> Network:
    net = Network(Architecture("random", layers, 48, (0.4, 0.5, 0.6)[:channels], (0.2, 0.25, 0.3)[:channels]))
    randomise(net, 0).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for layer in net.layers_with_weights if biases else ():
        net.convolution(layer.name).bias.normal_(generator=generator)
    return net


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def operator(filters: int, channels: int, kernel: tuple[int, int], stride: int, padding: int, size: tuple[int, int]):
    generator = torch.Generator().manual_seed(filters * 100 + channels * 10 + stride)
    weight = torch.randn(filters, channels, *kernel, generator=generator, dtype=torch.float64)
    return Convolution(weight, stride, padding, size)


def dense(operator: Convolution) -> numpy.ndarray:
    """The operator as a matrix, rows x columns."""
    units = numpy.eye(operator.columns).reshape(-1, *operator.input_shape)
    return operator.apply(units).reshape(operator.columns, -1).T


def identity_net(layers: tuple[Layer, ...] = (Layer("a", 1, 1),)) -> Network:
    """A network whose first layer's responses are the first channel of its images."""
    net = Network(Architecture("test", layers, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))).double().eval()
    with torch.no_grad():
        net.a.weight.zero_()
        net.a.weight[:, 0] = 1
        net.a.bias.zero_()
    return net


def exact_net(*layers: Layer, size: int = 8) -> Network:
    """Random, in float64, without gradients; the normalisation is exact in binary."""
    architecture = Architecture("test", layers, size, (0.5,) * 3, (0.25,) * 3)
    return randomise(Network(architecture), 0).double().eval().requires_grad_(False)
