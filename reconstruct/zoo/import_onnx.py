"""Chains of convolutions in ONNX files as models of ours: a specification, and weights that cannot run code.

The graph is read from its input on, node by node, for as long as it is what a ``Network`` can be: an optional
normalisation, convolutions (batch normalisation is folded into them), activations, poolings. Where it is something
else, as at a branch or a fully connected layer, the import stops, and says so. What looks like a layer and is not one
of ours, such as a convolution with uneven padding, is refused by name. Nothing of the file is executed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy
import torch
from safetensors.torch import save

from reconstruct.errors import CallError, ModelError
from reconstruct.images.atomic import write_atomically
from reconstruct.network.architecture import Architecture, Layer
from reconstruct.network.network import is_layer_name
from reconstruct.network.surgery import folded
from reconstruct.zoo.onnx_file import Array, Graph, Node, attributes, called, numbers, read_graph
from reconstruct.zoo.registry import is_model_name
from reconstruct.zoo.specification import plain_architecture
from reconstruct.zoo.specification_text import specification_text

_ARITHMETIC = ("Sub", "Div", "Mul", "Add")


@dataclass(frozen=True)
class Imported:
    """The model that was made of an ONNX file.

    Attributes
    ----------
    path : the specification, which ``load_model`` takes.
    layers : the name of each layer, and the node that it was.
    left_out : the node at which the chain ends and why, and what else there is above it; None where that is nothing.
    notes : what a reader should know besides, a sentence each.
    """

    path: Path
    layers: dict[str, str]
    left_out: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Chain:
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


class _EndError(Exception):
    """The chain ends at a node; the message says which one, and why."""


def import_onnx(
    file: Path,
    folder: Path,
    *,
    name: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
) -> Imported:
    """Write NAME.safetensors and NAME.toml: the chain of convolutions with which an ONNX graph begins.

    Parameters
    ----------
    file : ``.onnx``, of opset 7 or later, its weights inside or in files of the same folder.
    folder : where both are written, the weights first (float32).
    name : the model's name; default the file's.
    mean, std : what is done with an image in [0, 1] before it goes into the graph, (x - mean) / std, one number or one
        a channel; default 0 and 1. A normalisation at the graph's beginning comes after it.
    size : side of the model's images; default the graph's own, where it states a square one.

    Layers are called after their weights or nodes if all such names can be used and differ, else conv1, conv2, ... and
    pool1, pool2, ... A ReLU after a max-pooling is taken before it, which gives the same (rectifying is monotone).

    Raises
    ------
    CallError : the package ``onnx`` is missing, or ``mean`` or ``std`` does not fit the channels.
    ModelError : there is no such file, or it is no ONNX model as ONNX's checker defines it; it has data outside of its
        folder, sizes that do not fit, or a number that is not finite; the chain has asymmetric padding or stride,
        means rounded up, computed weights, or another thing that no layer here has; it has no convolution at all; or
        nobody says the images' size.
    """
    chosen = name if name is not None else re.sub(r"[^\w.-]+", "_", file.stem).lstrip("_.-")
    if not is_model_name(chosen):
        raise ModelError(f"the model's name is {chosen!r}; letters, digits, _, . and - make one (--as NAME)")
    graph = read_graph(file)
    chain, end = _follow(graph)
    if not chain.layers:
        raise ModelError(f"{file} does not begin with a convolution: {end or 'it has none'}")
    channels = chain.weights[0][0].shape[1] * chain.layers[0].groups
    centre, spread = _normalisation(chain, channels, mean, std)
    architecture = _named(chain, _side(graph, size), centre, spread, chosen)
    path = folder / f"{chosen}.toml"
    weights = f"{chosen}.safetensors"
    text = specification_text(architecture, weights)
    plain_architecture(path, text)  # refuses what could not be loaded again
    state = {}
    convolutions = [layer.name for layer in architecture.layers if layer.has_weights]
    for layer, (weight, bias) in zip(convolutions, chain.weights, strict=True):
        for key, value in ((f"{layer}.weight", weight), (f"{layer}.bias", bias)):
            with numpy.errstate(over="ignore"):  # refused below
                state[key] = torch.from_numpy(value.astype(numpy.float32))
            if not state[key].isfinite().all():
                raise ModelError(f"{file}: {key} holds a number that is not finite in float32")
    write_atomically(folder / weights, save(state))
    write_atomically(path, text.encode())
    made_of = {layer.name: called(node) for layer, node in zip(architecture.layers, chain.nodes, strict=True)}
    return Imported(path, made_of, _left_out(graph, chain, end), (*chain.notes, *_input_note(chain, mean, std)))


def _input_note(chain: _Chain, mean: object, std: object) -> tuple[str, ...]:
    if chain.mean is not None or mean is not None or std is not None:
        return ()
    return (
        "the graph does not normalise its images, and they go in as they are, in [0, 1]: "
        "--mean and --std say what its training did",
    )


def _follow(graph: Graph) -> tuple[_Chain, _EndError | None]:
    """The chain from the image on, and how it ends: None where the graph does."""
    chain, value = _Chain(), graph.input
    try:
        while graph.readers.get(value):
            chain, value = _step(graph, chain, value)
    except _EndError as end:
        return chain, _EndError(f"{end}, and the zeros before it are no layer's") if chain.pad else end
    return chain, _EndError("zeros are put around what the last layer gives") if chain.pad else None


def _step(graph: Graph, chain: _Chain, value: str) -> tuple[_Chain, str]:
    """One more node of the chain, or the nodes of a CReLU; and the value that they give.

    Raises
    ------
    _EndError : the graph goes on otherwise.
    ModelError : the next layer is one that no layer here can be.
    """
    readers = graph.readers[value]
    if chain.fresh and len(readers) == 2 and (pair := _crelu(graph, value, readers)):
        activation, slope, nodes = pair
        return _activated(chain, activation, slope, nodes), nodes[-1].output[0]
    if len(readers) > 1:
        branches = " and ".join(called(node) for node in readers[:3])
        raise _EndError(f"{value} goes to {len(readers)} nodes, {branches}")
    (node,) = readers
    if node.domain not in ("", "ai.onnx"):
        raise _EndError(f"{called(node)} is of the domain {node.domain}")
    if node.op_type in _ARITHMETIC and not chain.layers and not chain.pad:
        return _normalised(graph, chain, node, value), node.output[0]
    if node.input[0] != value:
        raise _EndError(f"{called(node)} takes {value} as something else than its input")
    if node.op_type not in _STEPS:
        raise _EndError(f"{called(node)} is no part of a chain of convolutions and poolings")
    return _STEPS[node.op_type](graph, chain, node), node.output[0]


def _passed(graph: Graph, chain: _Chain, node: Node) -> _Chain:
    """The chain as it is: the node does nothing once a network is trained."""
    if len(node.input) > 2 and node.input[2]:
        raise _EndError(f"{called(node)} may be of training")
    return replace(chain, used=chain.used | {id(node)})


def _convolved(graph: Graph, chain: _Chain, node: Node) -> _Chain:
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


def _folded(graph: Graph, chain: _Chain, node: Node) -> _Chain:
    """Batch normalisation in the convolution before it: weights times g, biases (b - mean) g + beta."""
    if not chain.fresh:
        raise _EndError(f"{called(node)} normalises what is no convolution's")
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


def _rectified(graph: Graph, chain: _Chain, node: Node) -> _Chain:
    activation = {"Relu": "relu", "LeakyRelu": "leaky_relu", "Abs": "avr"}[node.op_type]
    return _rectified_by(chain, node, activation, _slope(graph, node))


def _rectified_by(chain: _Chain, node: Node, activation: str, slope: float) -> _Chain:
    if chain.pad:
        raise _EndError(f"{called(node)} rectifies zeros that are put around")
    if chain.fresh:
        return _activated(chain, activation, slope, [node])
    last = chain.layers[-2:]
    pooled = len(last) == 2 and last[1].kind == "max_pool" and last[0].has_weights and last[0].activation == "none"
    if not pooled or activation == "avr":
        raise _EndError(f"{called(node)} rectifies what is no convolution's")
    rectified = replace(last[0], activation=activation, slope=slope)
    note = f"{called(node)} rectifies after {called(chain.nodes[-1])}; here before it, and what comes out is the same"
    return replace(
        chain,
        layers=(*chain.layers[:-2], rectified, last[1]),
        used=chain.used | {id(node)},
        notes=(*chain.notes, note),
    )


def _activated(chain: _Chain, activation: str, slope: float, nodes: Sequence[Node]) -> _Chain:
    layer = replace(chain.layers[-1], activation=activation, slope=slope)
    used = chain.used | {id(node) for node in nodes}
    return replace(chain, layers=(*chain.layers[:-1], layer), fresh=False, used=used)


def _slope(graph: Graph, node: Node) -> float:
    """The slope of a leaky rectifier below 0; other rectifiers have 0."""
    if node.op_type != "LeakyRelu":
        return 0.0
    (slope,) = _short(numpy.asarray([attributes(node).get("alpha", 0.01)]))
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


def _pooled(graph: Graph, chain: _Chain, node: Node) -> _Chain:
    given = attributes(node)
    if not chain.layers:
        raise _EndError(f"{called(node)} pools the image itself")
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


def _with_pad(graph: Graph, chain: _Chain, node: Node, kind: str, kernel: int, padding: int) -> tuple[_Chain, int]:
    """A pooling's padding with the zeros before it: a maximum takes them for nothing where nothing is below 0."""
    whole = padding + chain.pad
    last = next(layer for layer in reversed(chain.layers) if layer.has_weights)
    if 2 * whole > kernel or (kind == "max_pool" and last.activation not in ("relu", "relu6", "crelu", "avr")):
        raise _EndError(f"{called(node)} pools zeros that are not its padding")
    return replace(chain, pad=0), whole


def _padded(graph: Graph, chain: _Chain, node: Node) -> _Chain:
    """Zeros around, which become the padding of the layer after it."""
    given = attributes(node)
    stated = numbers(graph, node.input[1]) if len(node.input) > 1 else numpy.asarray(given.get("pads", []))
    value = numbers(graph, node.input[2]) if len(node.input) > 2 and node.input[2] else given.get("value", 0)
    if stated is None or value is None or not numpy.isfinite(stated).all():
        raise _EndError(f"{called(node)} pads by numbers that are computed, as PyTorch's older exporter writes them")
    if given.get("mode", b"constant") != b"constant" or len(node.input) > 3:
        raise _EndError(f"{called(node)} pads with something else than zeros, or not all of the picture")
    pads = [int(each) for each in stated.reshape(-1)]
    sides = {*pads[2:4], *pads[6:8]}
    if len(pads) != 8 or any(pads[:2] + pads[4:6]) or len(sides) != 1 or min(sides) < 0 or numpy.any(value):
        raise _EndError(f"{called(node)} has the paddings {pads}; here they are zeros, as many on all sides")
    return replace(chain, pad=chain.pad + sides.pop(), fresh=False, used=chain.used | {id(node)})


def _clipped(graph: Graph, chain: _Chain, node: Node) -> _Chain:
    """A clip to 0 and more, or to 0 to 6: ReLU and ReLU6."""
    given = attributes(node)
    bounds = []
    for place, name, default in ((1, "min", -numpy.inf), (2, "max", numpy.inf)):
        stated: Any = given.get(name, default)
        if len(node.input) > place and node.input[place]:
            stated = numbers(graph, node.input[place])
        if stated is None or numpy.size(stated) != 1:
            raise _EndError(f"{called(node)} has bounds that are computed")
        bounds.append(float(numpy.reshape(stated, ())))
    kinds = {(0.0, 6.0): "relu6", (0.0, numpy.inf): "relu", (0.0, float(numpy.finfo(numpy.float32).max)): "relu"}
    if tuple(bounds) not in kinds:
        raise _EndError(f"{called(node)} clips to {bounds[0]:g} and {bounds[1]:g}; activations here to 0 and 6")
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


def _normalised(graph: Graph, chain: _Chain, node: Node, value: str) -> _Chain:
    """One more operation of a normalisation at the beginning, in the form (x - mean) / std."""
    first, second = node.input
    constant = numbers(graph, second if first == value else first)
    if constant is None:
        raise _EndError(f"{called(node)} is with something that is computed")
    if node.op_type in ("Sub", "Div") and first != value:
        raise _EndError(f"{called(node)} turns the image around: it is on the wrong side")
    shape = constant.shape
    if constant.size > 1 and not (len(shape) in (3, 4) and shape[-3] == constant.size):
        raise _EndError(f"{called(node)} is with an array of shape {shape}, not one number a channel")
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
        raise _EndError(f"{called(node)} scales the image by a number that is not above 0")
    return replace(chain, mean=mean, std=std, used=chain.used | {id(node)})


def _normalisation(
    chain: _Chain, channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std a channel: the caller's first, then the graph's, ((x - m) / s - M) / S = (x - m - s M) / (s S)."""
    found = []
    for option, given, default, own in (("--mean", mean, 0.0, chain.mean), ("--std", std, 1.0, chain.std)):
        values = numpy.asarray([default] if given is None else given, dtype=numpy.float64)
        if values.size not in (1, channels) or not numpy.isfinite(values).all():
            raise CallError(f"{option} is one number, or one for each of the {channels} channels")
        if own is not None and own.size not in (1, channels):
            raise ModelError(f"the graph normalises {own.size} channels, and its first convolution takes {channels}")
        found.append((numpy.broadcast_to(values, channels), numpy.asarray(default if own is None else own)))
    (first, then), (scale, again) = found
    if not (scale > 0).all():
        raise CallError("--std is above 0")
    centre, spread = first + scale * then, scale * again
    return _short(centre), _short(spread)


def _short(values: Array) -> tuple[float, ...]:
    """The shortest decimals that are the same numbers in float32, in which a network has them."""
    with numpy.errstate(over="ignore"):  # what a specification refuses
        return tuple(float(str(value)) for value in values.astype(numpy.float32))


def _side(graph: Graph, size: int | None) -> int:
    if size is not None:
        return size
    height, width = graph.sides
    if height is None or height != width:
        stated = f"images of {height or 'any'} x {width or 'any'} pixels"
        raise ModelError(f"{graph.file} is for {stated}: say the side of the model's square ones, --size 224")
    return height


def _named(chain: _Chain, side: int, mean: tuple[float, ...], std: tuple[float, ...], name: str) -> Architecture:
    names: dict[int, str] = {}
    for fallback, kind in (("conv", True), ("pool", False)):
        places = [i for i, layer in enumerate(chain.layers) if layer.has_weights == kind]
        wanted = [_wish(chain.nodes[i]) for i in places]
        clash = len({*wanted, *names.values()}) < len(wanted) + len(names)
        numbered = [f"{fallback}{number}" for number in range(1, len(places) + 1)]
        names |= dict(zip(places, numbered if clash or not all(wanted) else wanted, strict=True))
    if len({*names.values()}) < len(names):  # a convolution called pool1
        names = {i: f"layer{i + 1}" for i in names}
    layers = tuple(
        replace(layer, name=each)
        for layer, each in zip(chain.layers, (names[i] for i in range(len(names))), strict=True)
    )
    return Architecture(name, layers, side, mean, std, source="imported from ONNX")


def _wish(node: Node) -> str:
    """A layer's name by its weights (``conv1.weight``) or its node (``conv1``, ``/conv1/Conv``), or ""."""
    candidates = [re.sub(r"[./_](weight|kernel|W|w)$", "", node.input[1])] if node.op_type == "Conv" else []
    path = [part for part in node.name.split("/") if part]
    candidates += path[-2:-1] if path and path[-1] == node.op_type else path[-1:]
    # Names that an exporter has made up: Conv_3, node_conv2d_1.
    made = re.compile(rf"node_.*|{node.op_type}(_\d+)?")
    return next((each for each in candidates if is_layer_name(each) and not made.fullmatch(each)), "")


def _left_out(graph: Graph, chain: _Chain, end: _EndError | None) -> str | None:
    unused = [node for node in graph.nodes if id(node) not in chain.used and not _is_constant(graph, node)]
    if end is None and not unused:
        return None
    counts = Counter(node.op_type for node in unused)
    listed = ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in counts.most_common(8))
    more = f", {len(counts) - 8} more kinds" if len(counts) > 8 else ""
    why = "" if end is None else f"{end}; "
    return f"{why}left out: {listed}{more}"


def _is_constant(graph: Graph, node: Node) -> bool:
    return node.op_type == "Constant" or all(output in graph.constants for output in node.output)


def _constant(graph: Graph, node: Node, place: int, what: str) -> Array:
    name = node.input[place]
    found = numbers(graph, name)
    if found is None:
        _refuse(graph.file, node, f"has {what} that are no constants of floating-point numbers ({name})")
    return found


def _refuse(file: Path, node: Node, complaint: str) -> NoReturn:
    raise ModelError(f"{file}: {called(node)} {complaint}")


_STEPS: dict[str, Callable[[Graph, _Chain, Node], _Chain]] = {
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
