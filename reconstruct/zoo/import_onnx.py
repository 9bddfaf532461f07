"""Chains of convolutions in ONNX files as models of ours: a specification, and weights that cannot run code.

``onnx_chain`` follows the graph; here what it has found gets names, a normalisation and a size, and is written.
Nothing of the file is executed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
import torch
from safetensors.torch import save

from reconstruct.errors import CallError, ModelError
from reconstruct.images.atomic import write_atomically
from reconstruct.network.architecture import Architecture, decimals
from reconstruct.network.network import is_layer_name
from reconstruct.zoo.onnx_chain import Chain, EndError, follow
from reconstruct.zoo.onnx_file import Graph, Node, called, read_graph
from reconstruct.zoo.registry import is_model_name
from reconstruct.zoo.specification import plain_architecture
from reconstruct.zoo.specification_text import specification_text


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
    chain, end = follow(graph)
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


def _input_note(chain: Chain, mean: object, std: object) -> tuple[str, ...]:
    if chain.mean is not None or mean is not None or std is not None:
        return ()
    return (
        "the graph does not normalise its images, and they go in as they are, in [0, 1]: "
        "--mean and --std say what its training did",
    )


def _normalisation(
    chain: Chain, channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
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
    return decimals(centre), decimals(spread)


def _side(graph: Graph, size: int | None) -> int:
    if size is not None:
        return size
    height, width = graph.sides
    if height is None or height != width:
        stated = f"images of {height or 'any'} x {width or 'any'} pixels"
        raise ModelError(f"{graph.file} is for {stated}: say the side of the model's square ones, --size 224")
    return height


def _named(chain: Chain, side: int, mean: tuple[float, ...], std: tuple[float, ...], name: str) -> Architecture:
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


def _left_out(graph: Graph, chain: Chain, end: EndError | None) -> str | None:
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
