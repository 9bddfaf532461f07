"""ONNX files, read as data: their graph and its constants, after everything that could do harm has been refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from reconstruct.errors import CallError, ModelError, words_of
from reconstruct.extras import install_hint
from reconstruct.zoo.onnx_external import take_in

MOST_BYTES = 2**31 - 1
"""The largest file that Protocol Buffers can hold. Larger models have their weights in files beside them."""

OLDEST_OPSET = 7
"""Before it, the arithmetic nodes broadcast by other rules."""

Array = numpy.ndarray
Node = Any
"""``onnx.NodeProto``: without the package there is nothing to name."""


@dataclass(frozen=True)
class Graph:
    """A file's graph with one input, ready to be followed.

    Attributes
    ----------
    input, channels, sides : name of the image, its channels, height and width; None where the file leaves them open.
    readers : the nodes that take a value, by its name.
    constants : tensors as the file has them, since a classifier's may be large and are never read; or numbers.
    """

    file: Path
    input: str
    channels: int | None
    sides: tuple[int | None, int | None]
    nodes: Sequence[Node]
    readers: dict[str, list[Node]]
    constants: dict[str, Any]


def read_graph(file: Path) -> Graph:
    """The graph of an ``.onnx`` file.

    Raises
    ------
    CallError : the package ``onnx`` is missing.
    ModelError : there is no such file, it is no ONNX model as ONNX's checker defines it, its weights are in a file
        of another folder, its opset is older than ``OLDEST_OPSET``, or its input is another than one N x C x H x W.
    """
    model = _load(file)
    tensors = _tensors(file, model)
    _check(file, model)
    inputs = [each for each in model.graph.input if each.name not in tensors]
    if len(inputs) != 1:
        raise ModelError(f"{file} has {len(inputs)} inputs, and a chain has one, the image")
    shape = [each.dim_value if each.dim_value > 0 else None for each in inputs[0].type.tensor_type.shape.dim]
    if inputs[0].type.tensor_type.HasField("shape") and len(shape) != 4:
        raise ModelError(f"{file}: its input {inputs[0].name} has {len(shape)} axes, and images are N x C x H x W")
    _, channels, height, width = shape or [None] * 4
    readers: dict[str, list[Node]] = {}
    nodes = list(model.graph.node)
    for node in nodes:
        for source in dict.fromkeys(node.input):
            readers.setdefault(source, []).append(node)
    return Graph(file, inputs[0].name, channels, (height, width), nodes, readers, _with_numbers(nodes, tensors))


def numbers(graph: Graph, name: str) -> Array | None:
    """A constant in float64, after its size has been compared with what is there; None for whatever is no such thing.

    In float64, so that folding rounds once.
    """
    from onnx import TensorProto, numpy_helper

    tensor = graph.constants.get(name)
    if tensor is None or isinstance(tensor, numpy.ndarray):
        return tensor
    sizes = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.DOUBLE: 8, TensorProto.INT64: 8}
    if tensor.data_type not in sizes:
        return None
    # The checker of onnx 1.23 compares them as well; that others do is not relied on.
    count = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        fits = len(tensor.raw_data) == count * sizes[tensor.data_type]
    else:
        # float16 is kept as whole numbers.
        fits = count in (
            len(tensor.float_data),
            len(tensor.double_data),
            len(tensor.int32_data),
            len(tensor.int64_data),
        )
    # NumPy refuses an empty array whose other sides are beyond it.
    beyond = math.prod(max(side, 1) for side in tensor.dims) >= 2**48
    if min(tensor.dims, default=1) < 0 or beyond or not fits:
        shape = " x ".join(map(str, tensor.dims))
        raise ModelError(f"{graph.file}: {name} claims to be {shape}, and holds another number of entries")
    with numpy.errstate(invalid="ignore"):  # what is no number stays none, and is refused by whoever uses it
        found: Array = numpy_helper.to_array(tensor).astype(numpy.float64)
    return found


def attributes(node: Node) -> dict[str, Any]:
    """The attributes of a node by name; texts are bytes."""
    from onnx import helper

    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def called(node: Node) -> str:
    """What messages call a node: ``Conv 'conv1'``; a node without a name is called by its output."""
    return f"{node.op_type} '{node.name or (node.output[0] if node.output else '')}'"


def _load(file: Path) -> Any:
    try:
        import onnx
    except ImportError:
        raise CallError(f"reading ONNX files needs the package onnx: {install_hint('onnx')}") from None
    if not file.is_file():
        raise ModelError(f"there is no ONNX file {file}")
    if file.stat().st_size > MOST_BYTES:
        raise ModelError(f"{file} is larger than {MOST_BYTES} bytes, and no ONNX file is")
    try:
        return onnx.load(str(file), format="protobuf", load_external_data=False)
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged file can raise nearly any
        raise ModelError(f"{file} is damaged, or no ONNX file") from error


def _tensors(file: Path, model: Any) -> dict[str, Any]:
    """Initializers, and the values of Constant nodes, with what they have in files beside this one.

    Refused where other tensors are in files: the checker would look.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output:
            for each in node.attribute:
                if each.name == "value":
                    tensors[node.output[0]] = each.t
    take_in(file, tensors)
    if _outside(model.graph):
        raise ModelError(f"{file}: a constant inside of a node is in another file; save the model with it inside")
    return tensors


def _outside(graph: Any) -> bool:
    """Whether a tensor of a graph is in another file, those of its nodes' own graphs included."""
    held = [*graph.initializer, *(each.values for each in graph.sparse_initializer)]
    held += [each.indices for each in graph.sparse_initializer]
    for node in graph.node:
        for each in node.attribute:
            held += [each.t, *each.tensors]
            if any(_outside(inner) for inner in [*([each.g] if each.HasField("g") else []), *each.graphs]):
                return True
    return any(tensor.data_location == tensor.EXTERNAL or tensor.external_data for tensor in held)


def _check(file: Path, model: Any) -> None:
    from onnx import checker

    try:
        checker.check_model(model)
    except Exception as error:  # of several kinds
        raise ModelError(f"{file} is no valid ONNX model: {words_of(error)}") from error
    opset = max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=0)
    if opset < OLDEST_OPSET:
        raise ModelError(f"{file} is of opset {opset}; from {OLDEST_OPSET} on they can be read")


def _with_numbers(nodes: Sequence[Node], tensors: dict[str, Any]) -> dict[str, Any]:
    """Tensors, numbers that are attributes, and the copies that exporters make of what two layers share."""
    held = dict(tensors)
    for node in nodes:
        if node.op_type == "Constant" and node.output[0] not in held:
            given = attributes(node)
            stated = (given.get(f"value_{kind}") for kind in ("float", "floats", "int", "ints"))
            number = next((each for each in stated if each is not None), None)
            if number is not None:
                held[node.output[0]] = numpy.asarray(number, dtype=numpy.float64)
        elif node.op_type == "Identity" and node.input[0] in held:
            held[node.output[0]] = held[node.input[0]]
    return held
