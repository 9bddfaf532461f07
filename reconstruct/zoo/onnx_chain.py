"""The chain of convolutions with which an ONNX graph begins, followed node by node.

It goes from the image on, for as long as the graph is what a ``Network`` can be: an optional normalisation,
convolutions (batch normalisation is folded into them), activations, poolings. Where it is something else, as at a
branch or a fully connected layer, the chain ends, and says so. What looks like a layer and is not one of ours, such as
a convolution with uneven padding, is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy

from reconstruct.errors import ModelError
from reconstruct.network.architecture import Layer, decimals
from reconstruct.network.surgery import folded
from reconstruct.zoo.onnx_file import Array, Graph, Node, attributes, called, numbers

_ARITHMETIC = ("Sub", "Div", "Mul", "Add")


@dataclass(frozen=True)
class Chain:
    """The part of the graph that has been read: layers, their weights and nodes, the normalisation (x - mean) / std.

    ``fresh``: whether the last layer is a convolution with nothing after it yet, so that a batch normalisation or an
    activation belongs to it. ``pad``: zeros on every side that the next layer takes as its padding.
    """

    layers: tuple[Layer, ...] = ()
    nodes: tuple[Node, ...] = ()
    weights: tuple[tuple[Array, Array], ...] = ()
    mean: Array | None = None
    std: Array | None = None
    fresh: bool = False
    pad: int = 0
    used: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()


class EndError(Exception):
    """The chain ends at a node; the message says which one, and why."""


def follow(graph: Graph) -> tuple[Chain, EndError | None]:
    """The chain from the image on, and how it ends: None where the graph does."""
    chain, value = Chain(), graph.input
    try:
        while graph.readers.get(value):
            chain, value = _step(graph, chain, value)
    except EndError as end:
        return chain, EndError(f"{end}, and the zeros before it are no layer's") if chain.pad else end
    return chain, EndError("zeros are put around what the last layer gives") if chain.pad else None


def _step(graph: Graph, chain: Chain, value: str) -> tuple[Chain, str]:
    """One more node of the chain, or the nodes of a CReLU; and the value that they give.

    Raises
    ------
    EndError : the graph goes on otherwise.
    ModelError : the next layer is one that no layer here can be.
    """
    readers = graph.readers[value]
    if chain.fresh and len(readers) == 2 and (pair := _crelu(graph, value, readers)):
        activation, slope, nodes = pair
        return _activated(chain, activation, slope, nodes), nodes[-1].output[0]
    if len(readers) > 1:
        branches = " and ".join(called(node) for node in readers[:3])
        raise EndError(f"{value} goes to {len(readers)} nodes, {branches}")
    (node,) = readers
    if node.domain not in ("", "ai.onnx"):
        raise EndError(f"{called(node)} is of the domain {node.domain}")
    if node.op_type in _ARITHMETIC and not chain.layers and not chain.pad:
        return _normalised(graph, chain, node, value), node.output[0]
    if node.input[0] != value:
        raise EndError(f"{called(node)} takes {value} as something else than its input")
    if node.op_type not in _STEPS:
        raise EndError(f"{called(node)} is no part of a chain of convolutions and poolings")
    return _STEPS[node.op_type](graph, chain, node), node.output[0]


def _passed(graph: Graph, chain: Chain, node: Node) -> Chain:
    """The chain as it is: the node does nothing once a network is trained."""
    if len(node.input) > 2 and node.input[2]:
        raise EndError(f"{called(node)} may be of training")
    return replace(chain, used=chain.used | {id(node)})


def _convolved(graph: Graph, chain: Chain, node: Node) -> Chain:
    file = graph.file
    weight = _constant(graph, node, 1, "weights")
    if weight.ndim != 4:
        _refuse(file, node, f"has weights of {weight.ndim} axes; those of images have 4")
    filters, inputs, kernel, _ = weight.shape
    bias = _constant(graph, node, 2, "biases") if len(node.input) > 2 and node.input[2] else numpy.zeros(filters)
    if bias.shape != (filters,):
        _refuse(file, node, f"has {filters} filters, and biases of shape {bias.shape}")
    given = attributes(node)
    groups = given.get("group", 1)
    if type(groups) is not int or groups < 1 or filters % groups:
        _refuse(file, node, f"has {filters} filters in {groups} groups")
    if list(given.get("kernel_shape", weight.shape[2:])) != list(weight.shape[2:]):
        _refuse(file, node, f"says that its kernel is {given['kernel_shape']}, and it is {list(weight.shape[2:])}")
    expected = chain.layers[-1].channels if chain.layers else graph.channels or inputs * groups
    if inputs * groups != expected:
        _refuse(file, node, f"takes {inputs * groups} channels, and {expected} come in")
    if not weight.size:
        _refuse(file, node, "has no weights at all")
    kernel, stride, padding, dilation = _window(file, node, list(weight.shape[2:]))
    chain, padding = replace(chain, pad=0), padding + chain.pad
    layer = Layer("", filters, kernel, stride, padding, activation="none", groups=groups, dilation=dilation)
    return replace(
        chain,
        layers=(*chain.layers, layer),
        nodes=(*chain.nodes, node),
        weights=(*chain.weights, (weight, bias)),
        fresh=True,
        used=chain.used | {id(node)},
    )


def _folded(graph: Graph, chain: Chain, node: Node) -> Chain:
    """Batch normalisation in the convolution before it: weights times g, biases (b - mean) g + beta."""
    if not chain.fresh:
        raise EndError(f"{called(node)} normalises what is no convolution's")
    if sum(1 for output in node.output if output) > 1 or attributes(node).get("training_mode", 0):
        _refuse(graph.file, node, "is of training, whose statistics are those of a batch")
    if attributes(node).get("spatial", 1) != 1:
        _refuse(graph.file, node, "normalises every position by itself")
    names = ("scale", "biases", "means", "variances")
    gamma, beta, mean, variance = (_constant(graph, node, i, name) for i, name in enumerate(names, 1))
    filters = chain.layers[-1].filters
    for array, name in zip((gamma, beta, mean, variance), names, strict=True):
        if array.shape != (filters,):
            _refuse(graph.file, node, f"has {name} of shape {array.shape} for {filters} filters")
    eps = attributes(node).get("epsilon", 1e-5)
    if not (variance + eps > 0).all():
        _refuse(graph.file, node, "has variances that are not above 0")
    weights = folded(*chain.weights[-1], gamma, beta, mean, variance, eps)
    return replace(chain, weights=(*chain.weights[:-1], weights), used=chain.used | {id(node)})


def _rectified(graph: Graph, chain: Chain, node: Node) -> Chain:
    activation = {"Relu": "relu", "LeakyRelu": "leaky_relu", "Abs": "avr"}[node.op_type]
    return _rectified_by(chain, node, activation, _slope(graph, node))


def _rectified_by(chain: Chain, node: Node, activation: str, slope: float) -> Chain:
    if chain.pad:
        raise EndError(f"{called(node)} rectifies zeros that are put around")
    if chain.fresh:
        return _activated(chain, activation, slope, [node])
    last = chain.layers[-2:]
    pooled = len(last) == 2 and last[1].kind == "max_pool" and last[0].has_weights and last[0].activation == "none"
    if not pooled or activation == "avr":
        raise EndError(f"{called(node)} rectifies what is no convolution's")
    rectified = replace(last[0], activation=activation, slope=slope)
    note = f"{called(node)} rectifies after {called(chain.nodes[-1])}; here before it, and what comes out is the same"
    return replace(
        chain,
        layers=(*chain.layers[:-2], rectified, last[1]),
        used=chain.used | {id(node)},
        notes=(*chain.notes, note),
    )


def _activated(chain: Chain, activation: str, slope: float, nodes: Sequence[Node]) -> Chain:
    layer = replace(chain.layers[-1], activation=activation, slope=slope)
    used = chain.used | {id(node) for node in nodes}
    return replace(chain, layers=(*chain.layers[:-1], layer), fresh=False, used=used)


def _slope(graph: Graph, node: Node) -> float:
    """The slope of a leaky rectifier below 0; other rectifiers have 0."""
    if node.op_type != "LeakyRelu":
        return 0.0
    (slope,) = decimals([attributes(node).get("alpha", 0.01)])
    if not 0 <= slope < 1:
        _refuse(graph.file, node, f"has the slope {slope:g}; slopes here are at least 0 and below 1")
    return slope


def _crelu(graph: Graph, value: str, readers: Sequence[Node]) -> tuple[str, float, list[Node]] | None:
    """Concat(Relu(z), Relu(-z)), or Relu(Concat(z, -z)): the activation, its slope and its nodes, the last one last."""
    negations = [node for node in readers if _is_negation(graph, node)]
    if len(negations) != 1:
        return None
    (negation,) = negations
    (other,) = (node for node in readers if node is not negation)
    negative = _only_reader(graph, negation)
    if other.op_type == "Concat":
        joined, last = other, _only_reader(graph, other)
        rectifiers, inputs = [last], [value, negation.output[0]]
        nodes = [negation, joined, last]
        whole = negative is joined
    else:
        joined = _only_reader(graph, other)
        rectifiers = [other, negative]
        inputs = [node.output[0] for node in rectifiers if node is not None]
        nodes = [negation, *rectifiers, joined]
        whole = negative is not None and _only_reader(graph, negative) is joined
    kinds = {None if node is None else node.op_type for node in rectifiers}
    if not whole or joined is None or joined.op_type != "Concat" or kinds not in ({"Relu"}, {"LeakyRelu"}):
        return None
    slopes = {_slope(graph, node) for node in rectifiers}
    if len(slopes) > 1 or attributes(joined).get("axis") not in (1, -3) or {*joined.input} != {*inputs}:
        return None
    if list(joined.input) == inputs[::-1]:
        _refuse(graph.file, joined, "has the negative phases first; CReLU here has the positive ones first")
    if list(joined.input) != inputs:
        return None
    return ("crelu" if kinds == {"Relu"} else "leaky_crelu"), slopes.pop(), nodes


def _only_reader(graph: Graph, node: Node) -> Node | None:
    readers = graph.readers.get(node.output[0], [])
    return readers[0] if len(readers) == 1 else None


def _is_negation(graph: Graph, node: Node) -> bool:
    if node.op_type != "Mul":
        return bool(node.op_type == "Neg")
    factors = [numbers(graph, name) for name in node.input]
    return any(factor is not None and factor.size == 1 and bool((factor == -1).all()) for factor in factors)


def _pooled(graph: Graph, chain: Chain, node: Node) -> Chain:
    given = attributes(node)
    if not chain.layers:
        raise EndError(f"{called(node)} pools the image itself")
    ceil_mode = bool(given.get("ceil_mode", 0))
    if ceil_mode and node.op_type != "MaxPool":
        _refuse(graph.file, node, "rounds its grid up (ceil_mode), to means of fewer numbers, which none here has")
    kernel, stride, padding, dilation = _window(graph.file, node, list(given["kernel_shape"]))
    if dilation != 1:
        _refuse(graph.file, node, f"has the dilation {dilation}; poolings here have none")
    kind = "max_pool" if node.op_type == "MaxPool" else "avg_pool"
    if kind == "avg_pool" and padding and not given.get("count_include_pad", 0):
        _refuse(graph.file, node, "leaves its padding out of the means (count_include_pad); here it counts")
    if 2 * padding > kernel:
        _refuse(graph.file, node, f"has a padding of {padding}, more than half of its kernel {kernel}")
    if chain.pad:
        chain, padding = _with_pad(graph, chain, node, kind, kernel, padding)
    channels = chain.layers[-1].channels
    layer = Layer("", channels, kernel, stride, padding, activation="none", kind=kind, ceil_mode=ceil_mode)
    return replace(
        chain,
        layers=(*chain.layers, layer),
        nodes=(*chain.nodes, node),
        fresh=False,
        used=chain.used | {id(node)},
    )


def _with_pad(graph: Graph, chain: Chain, node: Node, kind: str, kernel: int, padding: int) -> tuple[Chain, int]:
    """A pooling's padding with the zeros before it: a maximum takes them for nothing where nothing is below 0."""
    whole = padding + chain.pad
    last = next(layer for layer in reversed(chain.layers) if layer.has_weights)
    if 2 * whole > kernel or (kind == "max_pool" and last.activation not in ("relu", "relu6", "crelu", "avr")):
        raise EndError(f"{called(node)} pools zeros that are not its padding")
    return replace(chain, pad=0), whole


def _padded(graph: Graph, chain: Chain, node: Node) -> Chain:
    """Zeros around, which become the padding of the layer after it."""
    given = attributes(node)
    stated = numbers(graph, node.input[1]) if len(node.input) > 1 else numpy.asarray(given.get("pads", []))
    value = numbers(graph, node.input[2]) if len(node.input) > 2 and node.input[2] else given.get("value", 0)
    if stated is None or value is None or not numpy.isfinite(stated).all():
        raise EndError(f"{called(node)} pads by numbers that are computed, as PyTorch's older exporter writes them")
    if given.get("mode", b"constant") != b"constant" or len(node.input) > 3:
        raise EndError(f"{called(node)} pads with something else than zeros, or not all of the picture")
    pads = [int(each) for each in stated.reshape(-1)]
    sides = {*pads[2:4], *pads[6:8]}
    if len(pads) != 8 or any(pads[:2] + pads[4:6]) or len(sides) != 1 or min(sides) < 0 or numpy.any(value):
        raise EndError(f"{called(node)} has the paddings {pads}; here they are zeros, as many on all sides")
    return replace(chain, pad=chain.pad + sides.pop(), fresh=False, used=chain.used | {id(node)})


def _clipped(graph: Graph, chain: Chain, node: Node) -> Chain:
    """A clip to 0 and more, or to 0 to 6: ReLU and ReLU6."""
    given = attributes(node)
    bounds = []
    for place, name, default in ((1, "min", -numpy.inf), (2, "max", numpy.inf)):
        stated: Any = given.get(name, default)
        if len(node.input) > place and node.input[place]:
            stated = numbers(graph, node.input[place])
        if stated is None or numpy.size(stated) != 1:
            raise EndError(f"{called(node)} has bounds that are computed")
        bounds.append(float(numpy.reshape(stated, ())))
    kinds = {(0.0, 6.0): "relu6", (0.0, numpy.inf): "relu", (0.0, float(numpy.finfo(numpy.float32).max)): "relu"}
    if tuple(bounds) not in kinds:
        raise EndError(f"{called(node)} clips to {bounds[0]:g} and {bounds[1]:g}; activations here to 0 and 6")
    return _rectified_by(chain, node, kinds[bounds[0], bounds[1]], 0.0)


def _window(file: Path, node: Node, shape: list[int]) -> tuple[int, int, int, int]:
    """Kernel, stride, padding and dilation of a square window, the same on all four sides."""
    given = attributes(node)
    strides, dilations = list(given.get("strides", [1, 1])), list(given.get("dilations", [1, 1]))
    pads = list(given.get("pads", [0, 0, 0, 0]))
    if len(shape) != 2 or len(strides) != 2 or len(dilations) != 2 or len(pads) != 4:
        _refuse(file, node, f"is not of two axes: its kernel is {shape}")
    if dilations[0] != dilations[1] or dilations[0] < 1:
        _refuse(file, node, f"has the dilation {dilations[0]} x {dilations[1]}; here it is the same on both sides")
    if shape[0] != shape[1] or strides[0] != strides[1]:
        _refuse(file, node, f"has a kernel of {shape[0]} x {shape[1]} and strides of {strides}; both are square here")
    automatic = given.get("auto_pad", b"NOTSET")
    if automatic in (b"SAME_UPPER", b"SAME_LOWER"):
        if strides != [1, 1] or shape[0] % 2 == 0:
            _refuse(file, node, f"has the padding {automatic.decode()}, which is not the same on all sides")
        pads = [dilations[0] * (shape[0] // 2)] * 4
    elif automatic not in (b"NOTSET", b"VALID"):
        _refuse(file, node, f"has the unknown padding {automatic!r}")
    if len(set(pads)) != 1 or pads[0] < 0:
        _refuse(file, node, f"has the paddings {pads}; here they are the same on all sides")
    if min(shape[0], strides[0]) < 1:
        _refuse(file, node, f"has a kernel of {shape[0]} and a stride of {strides[0]}; both are at least 1")
    return int(shape[0]), int(strides[0]), int(pads[0]), int(dilations[0])


def _normalised(graph: Graph, chain: Chain, node: Node, value: str) -> Chain:
    """One more operation of a normalisation at the beginning, in the form (x - mean) / std."""
    first, second = node.input
    constant = numbers(graph, second if first == value else first)
    if constant is None:
        raise EndError(f"{called(node)} is with something that is computed")
    if node.op_type in ("Sub", "Div") and first != value:
        raise EndError(f"{called(node)} turns the image around: it is on the wrong side")
    shape = constant.shape
    if constant.size > 1 and not (len(shape) in (3, 4) and shape[-3] == constant.size):
        raise EndError(f"{called(node)} is with an array of shape {shape}, not one number a channel")
    factors = constant.reshape(-1)
    mean: Array = numpy.zeros(1) if chain.mean is None else chain.mean
    std: Array = numpy.ones(1) if chain.std is None else chain.std
    known = max(mean.size, std.size)
    if factors.size > 1 and known not in (1, factors.size):
        _refuse(graph.file, node, f"is with {factors.size} channels, where there are {known}")
    match node.op_type:
        case "Sub":
            mean = mean + factors * std
        case "Add":
            mean = mean - factors * std
        case "Div":
            std = std * factors
        case _:
            with numpy.errstate(divide="ignore"):
                std = std / factors
    if not (numpy.isfinite(mean).all() and numpy.isfinite(std).all() and (std > 0).all()):
        raise EndError(f"{called(node)} scales the image by a number that is not above 0")
    return replace(chain, mean=mean, std=std, used=chain.used | {id(node)})


def _constant(graph: Graph, node: Node, place: int, what: str) -> Array:
    name = node.input[place]
    found = numbers(graph, name)
    if found is None:
        _refuse(graph.file, node, f"has {what} that are no constants of floating-point numbers ({name})")
    return found


def _refuse(file: Path, node: Node, complaint: str) -> NoReturn:
    raise ModelError(f"{file}: {called(node)} {complaint}")


_STEPS: dict[str, Callable[[Graph, Chain, Node], Chain]] = {
    "Identity": _passed,
    "Dropout": _passed,
    "Conv": _convolved,
    "BatchNormalization": _folded,
    "Relu": _rectified,
    "LeakyRelu": _rectified,
    "Abs": _rectified,
    "Clip": _clipped,
    "Pad": _padded,
    "MaxPool": _pooled,
    "AveragePool": _pooled,
}
