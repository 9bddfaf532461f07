"""Everything about a model as plain numbers."""

from __future__ import annotations

from typing import Any

from reconstruct.network.architecture import side_or_area
from reconstruct.network.protocol import AnyNetwork
from reconstruct.operators.convolution import Frame, convolution_of, frame
from reconstruct.zoo.load import is_module, load_module, load_network
from reconstruct.zoo.specification import read_architecture


def describe(name: str, *, random_weights: int | None = None) -> dict[str, Any]:
    """Everything about a model as plain numbers: what ``reconstruct models NAME --json`` prints.

    The numbers of a layer are those at the model's own input size. ``unknowns`` counts the degrees of freedom of what
    feeds the layer (pixels, or the linear responses below: CReLU features have twice as many entries, of which half are
    known to be 0; or all that a pooling gives), ``equations`` its linear responses. Where there are weights,
    ``frame_bounds``, ``condition_number`` and ``dimensions_lost`` are those of the layer's operator, from its symbol
    (``operators.convolution.Frame``); a layer whose weights are all 0 has no condition number, None. Filters and
    activation of a pooling are None.

    Parameters
    ----------
    name, random_weights : as in ``load_model``. A model without weights is described all the same, less its frames.

    Returns
    -------
    What can be written as JSON: ``name``, ``input_size``, ``parameters``, ``layers`` and more.

    Raises
    ------
    ModelError : as in ``load_model``.

    Examples
    --------
    >>> import reconstruct
    >>> described = reconstruct.describe("vgg16")
    >>> described["input_size"], described["parameters"], len(described["layers"])
    (224, 138344128, 21)
    >>> described["layers"][0]["output_shape"]
    [64, 224, 224]
    """
    if is_module(name):
        return _describe_module(load_module(name, random_weights=random_weights))
    architecture = read_architecture(name)
    net = None
    if architecture.weights is not None or random_weights is not None:
        net = load_network(name, random_weights=random_weights)
    side = (architecture.input_size, architecture.input_size)
    sizes = architecture.response_sizes(side)
    layers = []
    freedom, area = len(architecture.mean), side
    for layer in architecture.layers:
        height, width = sizes[layer.name]
        bounds = None
        if net is not None and layer.has_weights and layer.name in net.layer_names:
            weight = net.convolution(layer.name).weight
            bounds = frame(convolution_of(layer, weight, area))
        layers.append(
            {
                "name": layer.name,
                "kind": layer.kind,
                "filters": layer.filters if layer.has_weights else None,
                "kernel": layer.kernel,
                "stride": layer.stride,
                "padding": layer.padding,
                "groups": layer.groups if layer.has_weights else None,
                "dilation": layer.dilation if layer.has_weights else None,
                "activation": layer.activation if layer.has_weights else None,
                "output_shape": [layer.channels, height, width],
                "receptive_field": architecture.receptive_field(layer.name),
                "parameters": architecture.parameters(layer.name),
                "unknowns": freedom * area[0] * area[1],
                "equations": layer.filters * height * width,
                **_frame_record(bounds),
            }
        )
        freedom, area = layer.filters, (height, width)
    return {
        "name": architecture.name,
        "base": architecture.base,
        "source": architecture.source,
        "input_size": architecture.input_size,
        "weights": architecture.weights,
        "parameters": architecture.parameters(),
        "layers": layers,
        "splits": {name: {"layer": split.layer, "tap": split.tap} for name, split in architecture.splits.items()},
        "mean": list(architecture.mean),
        "std": list(architecture.std),
        "prepared": None,
    }


def _describe_module(net: AnyNetwork) -> dict[str, Any]:
    """What ``describe`` gives of a torch module: frame bounds only where a layer is a chain of one convolution."""
    size = net.input_area
    layers = []
    for name, (height, width) in net.shapes(size).items():
        layer, chain = net.layer(name), net.as_chain(name)
        last = None if chain is None else chain.layers[-1]
        bounds = None
        if chain is not None and last is not None and last.has_weights and len(chain.layers) == 1:
            bounds = frame(convolution_of(last, chain.convolution(name).weight, size))
        layers.append(
            {
                "name": name,
                "kind": "module",
                "filters": layer.filters,
                "kernel": None if last is None else last.kernel,
                "stride": None if last is None else last.stride,
                "padding": None if last is None else last.padding,
                "groups": None if last is None or not last.has_weights else last.groups,
                "dilation": None if last is None or not last.has_weights else last.dilation,
                "activation": layer.activation,
                "output_shape": [layer.channels, height, width],
                "receptive_field": net.receptive_field(name),
                "parameters": net.weight_count(name),
                "unknowns": None,
                "equations": layer.filters * height * width,
                **_frame_record(bounds),
                "chain": chain is not None,
            }
        )
    return {
        "name": net.name,
        "base": None,
        "source": net.source,
        "input_size": side_or_area(net.input_area),
        "weights": None,
        "own_weights": "the module's own",
        "mean": list(net.normalisation[0]),
        "std": list(net.normalisation[1]),
        "prepared": None if net.preprocessing is None else net.preprocessing.record(),
        "splits": {},
        "parameters": net.weight_count(),
        "layers": layers,
    }


def _frame_record(bounds: Frame | None) -> dict[str, Any]:
    """What a layer's symbol says, as JSON holds it; a layer of zeros has no condition number."""
    if bounds is None:
        return dict.fromkeys(("frame_bounds", "condition_number", "dimensions_lost"))
    return {
        "frame_bounds": [bounds.lower, bounds.upper],
        "condition_number": bounds.condition_number if bounds.lower else None,
        "dimensions_lost": bounds.lost,
    }
