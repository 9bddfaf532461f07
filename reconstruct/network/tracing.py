"""Chains of convolutions, activations and poolings in a torch module, as a ``Network`` of the same weights.

``torch.fx`` traces the module; from the layer that is asked for the way is followed down to the image. What is no chain
of the zoo's kind (a sum, a concatenation other than CReLU's, a depthwise or dilated convolution, an uneven padding)
ends the search: there is no chain, and automatic differentiation takes its place.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from reconstruct.network.architecture import Architecture, Layer
from reconstruct.network.network import Network
from reconstruct.network.surgery import folded_convolution


class _NoChainError(Exception):
    """The way up to the layer is no chain."""


@dataclass
class _Step:
    """A layer on the way and its parts, as they are found from above."""

    layer: Layer
    convolution: nn.Conv2d | None = None
    norm: nn.BatchNorm2d | None = None


@dataclass(frozen=True)
class Place:
    """A layer's name, and the call of a part of a module, the ``number``-th of it, whose value the layer is."""

    name: str
    part: str
    number: int


@dataclass
class _Found:
    """Steps from the top downwards; ``activation`` and ``norm`` wait for the convolution below them."""

    steps: list[_Step] = field(default_factory=list)
    activation: tuple[str, float] | None = None
    norm: nn.BatchNorm2d | None = None


def trace(module: nn.Module) -> fx.Graph | None:
    """The module as a graph; None where its code decides by values, or is otherwise none that can be followed."""
    try:
        return fx.Tracer().trace(module)
    except Exception:  # torch.fx raises anything over such code
        return None


def chain_in(module: nn.Module, graph: fx.Graph, end: Place, like: Architecture) -> Network | None:
    """The chain of layers from the image up to a place of a module, or None if there is none.

    Parameters
    ----------
    graph : the module's, as ``trace`` gives it.
    end : the chain's last layer goes by its name.
    like : an architecture whose name, input and normalisation the chain has; its layers are left aside.

    Returns
    -------
    A network of its own, float32, with copies of the module's weights, batch normalisation folded in. Nobody has
    compared it with the module yet.
    """
    try:
        steps = _steps(module, _node(graph, end))
    except _NoChainError:
        return None
    names = [step.layer.name for step in steps]
    if not steps or len(set(names)) < len(names):
        return None
    steps[-1].layer = replace(steps[-1].layer, name=end.name)
    source = f"the chain up to {end.name} of {like.name}"
    chain = Network(replace(like, layers=tuple(step.layer for step in steps), source=source))
    with torch.no_grad():
        for step in steps:
            if step.convolution is not None:
                weight, bias = folded_convolution(step.convolution, step.norm)
                target = chain.convolution(step.layer.name)
                target.load_state_dict({"weight": weight, "bias": bias})
    return chain.eval().requires_grad_(False)


def _node(graph: fx.Graph, end: Place) -> fx.Node:
    """The node whose value is the place's: of a part with parts of its own, the last inside of it; of the module
    itself, whose name is empty, what it gives."""
    if not end.part:
        given = next(node.args[0] for node in graph.nodes if node.op == "output")
        if not isinstance(given, fx.Node):
            raise _NoChainError
        return given
    number = 0
    inside: list[fx.Node] = []
    for node in graph.nodes:
        if node.op == "call_module" and node.target == end.part:
            number += 1
            if number == end.number:
                return node
        stack = [str(path) for path, _ in node.meta.get("nn_module_stack", {}).values()]
        if end.part in stack:
            inside.append(node)
    if not inside or end.number > 1:
        raise _NoChainError
    return inside[-1]


def _steps(module: nn.Module, node: fx.Node) -> list[_Step]:
    """The layers from the image up to a node, lowest first."""
    found = _Found()
    while node.op != "placeholder":
        node = _below(module, node, found)
    if found.activation is not None or found.norm is not None:
        raise _NoChainError
    return found.steps[::-1]


def _below(module: nn.Module, node: fx.Node, found: _Found) -> fx.Node:
    """Takes up what a node is, and goes to the one that it is of."""
    if node.op == "call_module":
        below = node.all_input_nodes
        if len(below) != 1:
            raise _NoChainError
        _take(module.get_submodule(str(node.target)), str(node.target), found)
        return below[0]
    if node.op == "call_function" and node.target is torch.cat:
        return _crelu(module, node, found)
    below = node.all_input_nodes
    if len(below) != 1:
        raise _NoChainError
    if node.target in (torch.relu, functional.relu, "relu", "relu_"):
        _activate(found, "relu", 0.0)
    elif node.target in (functional.relu6,):
        _activate(found, "relu6", 0.0)
    elif node.target in (torch.abs, operator.abs, "abs"):
        _activate(found, "avr", 0.0)
    elif node.target in (functional.dropout, functional.dropout2d, "contiguous"):
        pass
    else:
        raise _NoChainError
    return below[0]


def _crelu(module: nn.Module, node: fx.Node, found: _Found) -> fx.Node:
    """cat((relu(z), relu(-z)), 1)."""
    parts = node.args[0]
    dimension = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    if dimension != 1 or not isinstance(parts, list | tuple) or len(parts) != 2:
        raise _NoChainError
    positive, negative = (_rectified(module, part) for part in parts)
    negated = negative.op in ("call_function", "call_method") and negative.target in (torch.neg, operator.neg, "neg")
    if not negated or negative.all_input_nodes != [positive]:
        raise _NoChainError
    _activate(found, "crelu", 0.0)
    return positive


def _rectified(module: nn.Module, node: Any) -> fx.Node:
    """What a node is the ReLU of."""
    if not isinstance(node, fx.Node) or len(node.all_input_nodes) != 1:
        raise _NoChainError
    if node.op == "call_module":
        rectifies = type(module.get_submodule(str(node.target))) is nn.ReLU
    else:
        rectifies = node.target in (torch.relu, functional.relu, "relu", "relu_")
    if not rectifies:
        raise _NoChainError
    return node.all_input_nodes[0]


def _activate(found: _Found, activation: str, slope: float) -> None:
    # A second activation above, or a norm or pooling between it and the convolution, is no layer of the zoo's.
    if found.activation is not None or found.norm is not None:
        raise _NoChainError
    found.activation = (activation, slope)


def _take(part: nn.Module, name: str, found: _Found) -> None:
    match part:
        case nn.Identity() | nn.Dropout() | nn.Dropout2d():
            pass
        case nn.ReLU6():
            _activate(found, "relu6", 0.0)
        case nn.ReLU():
            _activate(found, "relu", 0.0)
        case nn.LeakyReLU() if 0 <= part.negative_slope < 1:
            _activate(found, "leaky_relu", float(part.negative_slope))
        case nn.BatchNorm2d() if found.norm is None and part.track_running_stats:
            found.norm = part
        case nn.Conv2d():
            kernel, stride, padding = _square(part.kernel_size), _square(part.stride), _square(part.padding)
            plain = part.groups == 1 and _square(part.dilation) == 1 and part.padding_mode == "zeros"
            if not plain:
                raise _NoChainError
            activation, slope = found.activation or ("none", 0.0)
            layer = Layer(name, part.out_channels, kernel, stride, padding, activation, slope)
            found.steps.append(_Step(layer, part, found.norm))
            found.activation = found.norm = None
        case nn.MaxPool2d() if not part.ceil_mode and _square(part.dilation) == 1:
            _pool(found, name, "max_pool", part)
        case nn.AvgPool2d() if not part.ceil_mode and part.divisor_override is None:
            if _square(part.padding) and not part.count_include_pad:
                raise _NoChainError
            _pool(found, name, "avg_pool", part)
        case _:
            raise _NoChainError


def _pool(found: _Found, name: str, kind: str, part: Any) -> None:
    if found.activation is not None or found.norm is not None:
        raise _NoChainError
    stride = part.kernel_size if part.stride is None else part.stride
    layer = Layer(name, 0, _square(part.kernel_size), _square(stride), _square(part.padding), kind=kind)
    found.steps.append(_Step(layer))


def _square(value: Any) -> int:
    """One number for both directions."""
    if isinstance(value, int):
        return value
    if isinstance(value, tuple) and len(value) == 2 and value[0] == value[1]:
        return int(value[0])
    raise _NoChainError
