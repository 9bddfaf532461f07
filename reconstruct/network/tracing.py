"""Chains of convolutions, activations and poolings in a torch module, as a ``Network`` of the same weights.

``torch.fx`` traces the module; from the layer that is asked for the way is followed down to the image, node by node
(``operations``). What is no chain of the zoo's kind (a sum, a concatenation other than CReLU's, an uneven padding) ends
the search: there is no chain, and automatic differentiation takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import fx, nn

from reconstruct.network.architecture import Architecture, Layer, decimals
from reconstruct.network.incoming import OnOneDevice
from reconstruct.network.network import Network
from reconstruct.network.operations import (
    Activation,
    Affine,
    Convolution,
    NoOperationError,
    Nothing,
    Padding,
    Pool,
    Reordered,
    is_normalisation,
    operation,
)

_POSITIVE = ("relu", "relu6", "crelu", "avr")
_IDEMPOTENT = ("relu", "relu6", "avr")
_MONOTONE = ("relu", "relu6", "leaky_relu")
"""Activations that give nothing below 0; that change nothing the second time; and that keep maxima maxima."""


@dataclass
class _Step:
    """A layer on the way, as they are found from above, and the weights of a convolution."""

    layer: Layer
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None


@dataclass(frozen=True)
class Place:
    """A layer's name, and the call of a part of a module, the ``number``-th of it, whose value the layer is."""

    name: str
    part: str
    number: int


@dataclass
class _Found:
    """Steps from the top downwards; ``activation`` and ``affine`` wait for the convolution below them.

    ``positive``: what comes below may not give anything below 0, because a max-pooling has taken zeros for its padding.
    """

    steps: list[_Step] = field(default_factory=list)
    activation: Activation | None = None
    affine: Affine | None = None
    positive: bool = False


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_normalisation(m) or super().is_leaf_module(m, module_qualified_name)


def trace(module: nn.Module) -> fx.Graph | None:
    """The module as a graph, as far as its code can be followed: to where it decides by values, for instance.

    None where nothing can be followed.
    """
    tracer, (module, _) = _Tracer(), _inner(module)
    try:
        tracer.trace(module)
    except Exception:  # torch.fx raises anything over such code
        if not hasattr(tracer, "graph"):
            return None
    tracer.graph.owning_module = module  # type: ignore[assignment]  # which has the constants that tracing has found
    return tracer.graph


def chain_in(module: nn.Module, graph: fx.Graph, end: Place, like: Architecture) -> Network | None:
    """The chain of layers from the image up to a place of a module, or None if there is none.

    Parameters
    ----------
    graph : the module's, as ``trace`` gives it.
    end : the chain's last layer goes by its name.
    like : an architecture whose name, input and normalisation the chain has; its layers are left aside. What the module
        does to the image as a normalisation of its own is added to that.

    Returns
    -------
    A network of its own, float32, with copies of the module's weights, batch normalisation folded in. Nobody has
    compared it with the module yet.
    """
    module, prefix = _inner(module)
    try:
        found = _followed(module, graph, _node(graph, _inside(end, prefix)), prefix)
        normalised = _normalised(like, found.affine)
    except NoOperationError:
        return None
    steps = found.steps[::-1]
    names = [step.layer.name for step in steps]
    if all(step.weight is None for step in steps) or len(set(names)) < len(names):
        return None
    steps[-1].layer = replace(steps[-1].layer, name=end.name)
    source = f"the chain up to {end.name} of {like.name}"
    chain = Network(replace(normalised, layers=tuple(step.layer for step in steps), source=source))
    with torch.no_grad():
        for step in steps:
            if step.weight is not None:
                chain.convolution(step.layer.name).load_state_dict({"weight": step.weight, "bias": step.bias})
    return chain.eval().requires_grad_(False)


def _inner(module: nn.Module) -> tuple[nn.Module, str]:
    """What there is to follow of a module, and what its parts' names begin with in the module's own."""
    if not isinstance(module, OnOneDevice):
        return module, ""
    inner, prefix = _inner(module.module)
    return inner, f"module.{prefix}"


def _inside(place: Place, prefix: str) -> Place:
    """A place of a module as one of what there is to follow of it."""
    if not f"{place.part}.".startswith(prefix):  # around it, and what it gives is what that gives
        return replace(place, part="")
    return replace(place, part=place.part[len(prefix) :])


def _node(graph: fx.Graph, end: Place) -> fx.Node:
    """The node whose value is the place's: of a part with parts of its own, the last inside of it; of the module
    itself, whose name is empty, what it gives."""
    number = 0
    inside: list[fx.Node] = []
    # As torch.fx calls a part's calls.
    call = end.part if end.number == 1 else f"{end.part}@{end.number - 1}"
    for node in graph.nodes:
        if node.op == "call_module" and node.target == end.part:
            number += 1
            if number == end.number:
                return node
        given = node.args[0] if node.op == "output" and not end.part else None
        if isinstance(given, fx.Node):
            return given
        if call in node.meta.get("nn_module_stack", {}):
            inside.append(node)
    if not inside:
        raise NoOperationError
    return inside[-1]


def _followed(module: nn.Module, graph: fx.Graph, node: fx.Node, prefix: str) -> _Found:
    """The layers from a node down to the image; what is left over is the image's normalisation."""
    found = _Found()
    names = _names(graph)
    while node.op != "placeholder":
        node = (
            _joined(module, node, found) if node.target in _JOINS else _below(module, node, prefix + names[node], found)
        )
    if found.activation is not None or found.positive:
        raise NoOperationError
    return found


def _names(graph: fx.Graph) -> dict[fx.Node, str]:
    """What a layer that a node is goes by: its part, with the number of a call again, or torch.fx's own name."""
    names, counts = {}, dict[str, int]()
    for node in graph.nodes:
        names[node] = node.name
        if node.op == "call_module":
            part = str(node.target)
            counts[part] = number = counts.get(part, 0) + 1
            names[node] = part if number == 1 else f"{part}:{number}"
    return names


def _below(module: nn.Module, node: fx.Node, name: str, found: _Found) -> fx.Node:
    """Takes up what a node is, and goes to the one that it is of."""
    known, below = operation(module, node)
    match known:
        case Nothing():
            pass
        case Activation():
            _activate(found, known)
        case Affine():
            found.affine = known if found.affine is None else found.affine.after(known)
        case Convolution():
            _convolve(found, known, name)
        case Pool():
            _pool(found, known, name)
        case Padding():
            _pad(found, known.by)
        case Reordered():
            _reorder(found, known.order)
    return below


def _activate(found: _Found, activation: Activation) -> None:
    _take_in(found)
    # A second activation that changes something is no layer of the zoo's.
    again = found.activation == activation and activation.name in _IDEMPOTENT
    if found.activation is not None and not again:
        raise NoOperationError
    found.activation = activation


def _take_in(found: _Found) -> None:
    """What waits below a convolution becomes its own: w (g x + c) + b = (w g) x + (w c + b)."""
    if found.affine is None:
        return
    step = _convolution_above(found)
    assert step.weight is not None
    assert step.bias is not None
    weight = step.weight.double()
    gain, offset = (values.expand(weight.shape[1]) for values in (found.affine.gain, found.affine.offset))
    # Zeros for padding come after the offset, which the outermost responses would see less of.
    if step.layer.padding and bool((offset != 0).any()):
        raise NoOperationError
    step.bias = (step.bias.double() + (weight * offset.view(1, -1, 1, 1)).sum((1, 2, 3))).float()
    step.weight = (weight * gain.view(1, -1, 1, 1)).float()
    found.affine = None


def _reorder(found: _Found, order: tuple[int, ...] | None) -> None:
    """Another order of the channels becomes that of the filters above."""
    step = _convolution_above(found)
    assert step.weight is not None
    count = step.weight.shape[1]
    order = tuple(reversed(range(count))) if order is None else order
    if len(order) != count:
        raise NoOperationError
    places = torch.tensor(order).argsort()
    step.weight = step.weight[:, places]
    if found.affine is not None:
        gain, offset = (values.expand(count)[places] for values in (found.affine.gain, found.affine.offset))
        found.affine = Affine(gain, offset)


def _convolution_above(found: _Found) -> _Step:
    """The convolution that takes what comes next, if nothing is between; of groups each would take its own part."""
    step = found.steps[-1] if found.steps and found.activation is None else None
    if step is None or step.weight is None or step.layer.groups != 1:
        raise NoOperationError
    return step


def _convolve(found: _Found, known: Convolution, name: str) -> None:
    weight, bias = known.weight, known.bias
    if found.affine is not None:
        gain, offset = (values.expand(len(weight)) for values in (found.affine.gain, found.affine.offset))
        weight, bias = weight * gain.view(-1, 1, 1, 1), bias * gain + offset
    activation = found.activation or Activation("none")
    if found.positive and activation.name not in _POSITIVE:
        raise NoOperationError
    layer = Layer(
        name, len(weight), weight.shape[2], known.stride, known.padding, activation.name, activation.slope,
        groups=known.groups, dilation=known.dilation,
    )  # fmt: skip
    found.steps.append(_Step(layer, weight.float(), bias.float()))
    found.activation, found.affine, found.positive = None, None, False


def _pool(found: _Found, known: Pool, name: str) -> None:
    _take_in(found)
    # What keeps maxima maxima is taken before a max-pooling, which gives the same.
    waiting = found.activation is not None and (known.kind != "max_pool" or found.activation.name not in _MONOTONE)
    if waiting:
        raise NoOperationError
    layer = Layer(name, 0, known.kernel, known.stride, known.padding, kind=known.kind, ceil_mode=known.ceil_mode)
    found.steps.append(_Step(layer))


def _pad(found: _Found, by: int) -> None:
    """Zeros become the padding of what takes them; an activation between keeps them zeros."""
    if found.affine is not None or not found.steps:
        raise NoOperationError
    layer = found.steps[-1].layer
    layer = replace(layer, padding=layer.padding + by)
    if not layer.has_weights and 2 * layer.padding > layer.kernel:
        raise NoOperationError
    found.steps[-1].layer = layer
    found.positive = found.positive or (layer.kind == "max_pool" and by > 0)


def _joined(module: nn.Module, node: fx.Node, found: _Found) -> fx.Node:
    """cat((relu(z), relu(-z)), 1), or relu(cat((z, -z), 1)), leaky or not."""
    parts = node.args[0] if node.args else None
    dimension = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    if dimension not in (1, -3) or not isinstance(parts, list | tuple) or len(parts) != 2 or found.affine is not None:
        raise NoOperationError
    first, second = parts
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
        raise NoOperationError
    known = found.activation
    if known is None:
        (rectified, first), (other, second) = (operation(module, each) for each in (first, second))
        if rectified != other or not isinstance(rectified, Activation):
            raise NoOperationError
        known = rectified
    negation, of = operation(module, second)
    negates = isinstance(negation, Affine) and bool((negation.gain == -1).all() and (negation.offset == 0).all())
    if not negates or of is not first or known.name not in ("relu", "leaky_relu"):
        raise NoOperationError
    found.activation = Activation("crelu" if known.name == "relu" else "leaky_crelu", known.slope)
    return first


_JOINS = (torch.cat, torch.concat, torch.concatenate)


def _normalised(like: Architecture, affine: Affine | None) -> Architecture:
    """An architecture whose normalisation has another one after it: g (x - m) / s + c = (x - m + c s / g) / (s / g)."""
    if affine is None:
        return like
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (like.mean, like.std))
    if affine.gain.numel() not in (1, len(mean)) or not bool((affine.gain > 0).all()):
        raise NoOperationError
    centre, spread = mean - affine.offset * std / affine.gain, std / affine.gain
    return replace(like, mean=decimals(centre.tolist()), std=decimals(spread.tolist()))
