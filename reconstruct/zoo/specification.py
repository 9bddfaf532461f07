"""Specifications to architectures: what a TOML file or a ``config.json`` says, checked, as an ``Architecture``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconstruct.errors import CallError, ModelError
from reconstruct.network.activations import ACTIVATIONS, TAPS
from reconstruct.network.architecture import KINDS, Architecture, Layer, Split
from reconstruct.network.network import is_layer_name
from reconstruct.network.surgery import with_classes
from reconstruct.zoo.checks import (
    LONGEST_NAME,
    are_finite,
    are_numbers,
    are_positive,
    expect,
    hint,
    is_there,
    is_whole,
    table_of,
)
from reconstruct.zoo.not_models import whose_config
from reconstruct.zoo.registry import (
    CONFIG,
    PRETRAINED,
    file_beside,
    is_model_name,
    labels_of,
    read_specification,
    specification_path,
)

CONFIG_FORMAT = 1
CRELU_ORDER = "positive phases first"
"""The order of the channels of CReLU features, as a config says it: there is no other here."""
_COMMON_KEYS = {"source", "weights", "damping", "splits"}
_BASE_KEYS = _COMMON_KEYS | {"input_size", "mean", "std", "layers", "input_dropout", "torchvision"}
_VARIANT_KEYS = _COMMON_KEYS | {"base", "slope", "halve_filters", "double_filters", "classes"}
_CONFIG_KEYS = {"library_name", "library_version", "format", "dtype", "name", "base", "crelu_order", "id2label"}
_LONGEST_CHAIN = 20  # of bases
_MOST_LAYERS = 10_000
_MOST_PIXELS = 16_384
"""The side of an image, and the stride, kernel and padding of a layer."""
_MOST_FILTERS = 1 << 20
_MOST_PARAMETERS = 1 << 33
_SWAPS = tuple(name for name in ACTIVATIONS if name != "none")
_LAYER_KEYS = {
    "name": str,
    "filters": int,
    "kernel": int,
    "stride": int,
    "padding": int,
    "activation": str,
    "slope": float,
    "dropout": float,
    "batch_norm": bool,
    "kind": str,
    "groups": int,
    "dilation": int,
    "ceil_mode": bool,
}
_POOL_KEYS = ("name", "kind", "kernel", "stride", "padding", "dropout", "ceil_mode")


def read_architecture(name: str) -> Architecture:
    """The architecture that a specification describes.

    Parameters
    ----------
    name : a name in the zoo, the path of a TOML specification, or a folder with ``config.json``
        (``registry.specification_path``).

    Raises
    ------
    ModelError : there is no such model, or its specification is faulty; the message says where.
    """
    return _read(specification_path(name), ())


def plain_architecture(path: Path, text: str) -> Architecture:
    """The architecture of a specification without base that is not yet written to its path.

    Raises
    ------
    ModelError : the specification is faulty.
    """
    return _base(path, tomllib.loads(text))


def _read(path: Path, above: tuple[Path, ...]) -> Architecture:
    spec = read_specification(path)
    if path.name == CONFIG:
        return _configured(path, spec)
    weights = spec.get("weights")
    expect(isinstance(weights, str | None), path, f"weights is a file name, not {weights!r}")
    architecture = _variant(path, spec, above) if "base" in spec else _base(path, spec)
    return replace(
        architecture,
        name=path.stem,
        source=str(spec.get("source", "")),
        weights=None if weights is None else str(file_beside(path, weights)),
        damping=_damping(path, spec.get("damping", {}), architecture),
        splits=architecture.splits | _splits(path, spec.get("splits", {}), architecture),
    )


def _configured(path: Path, spec: dict[str, Any]) -> Architecture:
    """The architecture of a ``config.json``, which states everything: it has no base to differ from."""
    library = spec.get("library_name")
    theirs = whose_config(spec) or f"library_name is {library!r}: no model of reconstruct's"
    expect(library == "reconstruct", path, theirs)
    written = spec.get("format")
    expect(written == CONFIG_FORMAT, path, f"format is {written!r}, and this version reads {CONFIG_FORMAT}")
    order = spec.get("crelu_order", CRELU_ORDER)
    expect(order == CRELU_ORDER, path, f"crelu_order is '{CRELU_ORDER}', not {order!r}")
    name, base = spec.get("name"), spec.get("base")
    expect(isinstance(name, str) and is_model_name(name), path, f"name is a plain word, not {name!r}")
    expect(isinstance(base, str | None), path, f"base is a model's name or null, not {base!r}")
    if "id2label" in spec:
        labels_of(path, spec["id2label"])
    plain = {key: value for key, value in spec.items() if key not in _CONFIG_KEYS}
    expect("weights" not in plain, path, f"weights are in {PRETRAINED}: a config names no file")
    architecture = _base(path, plain)
    return replace(
        architecture,
        name=str(name),
        base=base,
        source=str(spec.get("source", "")),
        weights=str(path.parent / PRETRAINED),
        splits=_splits(path, spec.get("splits", {}), architecture),
        damping=_damping(path, spec.get("damping", {}), architecture),
    )


def _base(path: Path, spec: Mapping[str, Any]) -> Architecture:
    _known_keys(path, spec, _BASE_KEYS)
    for key in ("input_size", "mean", "std", "layers"):
        expect(key in spec, path, f"a specification without base needs {key}")
    mean, std = spec["mean"], spec["std"]
    expect(
        isinstance(mean, list) and are_finite(mean) and len(mean) > 0,
        path,
        "mean is a list of numbers that float32 holds",
    )
    expect(isinstance(std, list) and are_positive(std), path, "std is a list of numbers above 0 that float32 holds")
    expect(len(mean) <= _MOST_FILTERS, path, f"mean has {len(mean):,} channels, too many for an image")
    expect(len(mean) == len(std), path, "mean and std are one number a channel")
    expect(
        is_whole(spec["input_size"], 1, _MOST_PIXELS),
        path,
        f"input_size is a whole number of pixels, 1 to {_MOST_PIXELS}",
    )
    dropout = spec.get("input_dropout", 0.0)
    expect(are_numbers([dropout]) and 0 <= dropout < 1, path, "input_dropout lies in [0, 1)")
    listed = isinstance(spec["layers"], list) and 0 < len(spec["layers"]) <= _MOST_LAYERS
    expect(listed, path, f"layers is a list of tables, at most {_MOST_LAYERS:,}")
    layers = tuple(_layer(path, entry) for entry in spec["layers"])
    names = [layer.name for layer in layers]
    taken = [*names, *(f"{layer.name}_bn" for layer in layers if layer.batch_norm)]
    expect(len(set(taken)) == len(taken), path, "two layers have the same name")
    expect(layers[0].has_weights, path, f"the first layer is a convolution, and {names[0]} is {layers[0].kind}")
    architecture = Architecture(
        path.stem,
        layers,
        spec["input_size"],
        tuple(mean),
        tuple(std),
        input_dropout=float(dropout),
        torchvision=_torchvision(path, spec.get("torchvision", {}), layers),
    )
    _fitting_groups(path, architecture)
    parameters = architecture.parameters()
    expect(parameters <= _MOST_PARAMETERS, path, f"its layers have {parameters:.3g} weights, too many for a network")
    smallest = min(min(size) for size in architecture.response_sizes((spec["input_size"],) * 2).values())
    expect(smallest >= 1, path, f"images of {spec['input_size']} pixels vanish on the way through the layers")
    return architecture


def _torchvision(path: Path, table: object, layers: tuple[Layer, ...]) -> dict[str, str]:
    """``[torchvision]``: for every layer with weights where a checkpoint has it, or nothing at all."""
    complaint = 'torchvision is a table, layer = "key of a checkpoint"'
    table = table_of(table, path, complaint)
    expect(all(isinstance(key, str) for key in table.values()), path, complaint)
    names = {layer.name for layer in layers if layer.has_weights}
    wrong = sorted(table.keys() ^ names) if table else []
    expect(not wrong, path, f"torchvision names every layer with weights and no other: not so {', '.join(wrong)}")
    expect(len(set(table.values())) == len(table), path, "torchvision gives two layers the same key")
    return table


def _layer(path: Path, entry: object) -> Layer:
    entry = table_of(entry, path, f"a layer is a table, not {entry!r}")
    name = entry.get("name", "without name")
    for key, value in entry.items():
        expect(key in _LAYER_KEYS, path, f"layer {name}: unknown key '{key}'{hint(key, _LAYER_KEYS)}")
        wanted = _LAYER_KEYS[key]
        fits = isinstance(value, int | float) if wanted is float else type(value) is wanted
        expect(fits, path, f"layer {name}: {key} is {value!r}, not a {wanted.__name__}")
    kind = entry.get("kind", "conv")
    kinds = [known for known in KINDS if known != "module"]
    expect(kind in kinds, path, f"layer {name}: kind is one of {', '.join(kinds)}, not '{kind}'")
    pool = kind != "conv"
    for key in entry if pool else ():
        expect(key in _POOL_KEYS, path, f"layer {name}: {kind} has no {key}; it has {', '.join(_POOL_KEYS)}")
    for key in ("name", "kernel") if pool else ("name", "filters", "kernel"):
        expect(key in entry, path, f"layer {name} has no {key}")
    layer = Layer(**entry)
    expect(layer.name.isidentifier(), path, f"layer name {layer.name!r} is not a plain word")
    expect(is_layer_name(layer.name), path, f"no layer can be called {layer.name!r}: the word has a meaning already")
    sizes = (layer.kernel, layer.stride, layer.groups, layer.dilation, *(() if pool else (layer.filters,)))
    expect(min(sizes) >= 1, path, f"layer {name}: sizes are at least 1")
    expect(layer.padding >= 0, path, f"layer {name}: padding is at least 0")
    largest = max(layer.dilation * layer.kernel, layer.stride, layer.padding)
    expect(largest <= _MOST_PIXELS, path, f"layer {name}: kernel, stride and padding are at most {_MOST_PIXELS}")
    expect(layer.filters <= _MOST_FILTERS, path, f"layer {name}: filters are at most {_MOST_FILTERS:,}")
    expect(len(layer.name) <= LONGEST_NAME, path, f"layer name {layer.name!r} has more than {LONGEST_NAME} characters")
    # Beyond that a window could see nothing but padding.
    fits = not pool or 2 * layer.padding <= layer.kernel
    expect(fits, path, f"layer {name}: padding of {kind} is at most half its kernel")
    expect(kind == "max_pool" or not layer.ceil_mode, path, f"layer {name}: ceil_mode is of max_pool, not of {kind}")
    expect(layer.activation in ACTIVATIONS, path, f"layer {name}: activation is one of {', '.join(ACTIVATIONS)}")
    expect(0 <= layer.slope < 1 and 0 <= layer.dropout < 1, path, f"layer {name}: slope and dropout lie in [0, 1)")
    return layer


def _variant(path: Path, spec: Mapping[str, Any], above: tuple[Path, ...]) -> Architecture:
    _known_keys(path, spec, _VARIANT_KEYS | set(_SWAPS))
    name = spec["base"]
    expect(isinstance(name, str), path, f"base is a model's name, not {name!r}")
    beside = path.parent / name
    base_path = beside if name.endswith(".toml") and is_there(beside) else specification_path(name)
    resolved = base_path.resolve()
    expect(resolved not in (*above, path.resolve()), path, f"base {name} leads back to this file")
    expect(len(above) < _LONGEST_CHAIN, path, f"a base has a base, and so on, more than {_LONGEST_CHAIN} times")
    base = _read(base_path, (*above, path.resolve()))
    slope = spec.get("slope", 0.0)
    expect(are_numbers([slope]) and 0 <= slope < 1, path, "slope lies in [0, 1)")
    halve, double = (spec.get(key, False) for key in ("halve_filters", "double_filters"))
    expect(type(halve) is bool and type(double) is bool, path, "halve_filters and double_filters are true or false")
    expect(not (halve and double), path, "halve_filters and double_filters contradict each other")
    layers = {layer.name: layer for layer in base.layers}
    # The last layer's filters are the classes.
    for layer in base.layers[:-1] if double else ():
        layers[layer.name] = replace(layer, filters=2 * layer.filters)
    for activation in _SWAPS:
        for layer_name in spec.get(activation, []):
            expect(
                layer_name in layers, path, f"{activation}: there is no layer '{layer_name}'{hint(layer_name, layers)}"
            )
            layer = layers[layer_name]
            expect(layer.has_weights, path, f"{activation}: {layer_name} is {layer.kind} and has no activation")
            filters = layer.filters
            if halve and activation in ("crelu", "leaky_crelu"):
                expect(filters % 2 == 0, path, f"{layer_name} has {filters} filters, which cannot be halved")
                filters //= 2
            own = slope if activation.startswith("leaky") else 0.0
            layers[layer_name] = replace(layer, activation=activation, filters=filters, slope=float(own))
    variant = replace(base, base=base.name, layers=tuple(layers.values()))
    _fitting_groups(path, variant)
    if "classes" not in spec:
        return variant
    expect(is_whole(spec["classes"], 1), path, f"classes is a whole number of 1 or above, not {spec['classes']!r}")
    try:
        return with_classes(variant, spec["classes"])
    except CallError as error:
        raise ModelError(f"{path}: {error}") from error


def _fitting_groups(path: Path, architecture: Architecture) -> None:
    """Refuse groups that do not divide a convolution's filters and the channels of its input."""
    for layer in architecture.layers:
        inputs = architecture.in_channels(layer.name)
        fits = layer.filters % layer.groups == 0 and inputs % layer.groups == 0
        expect(
            fits,
            path,
            f"layer {layer.name}: {layer.groups} groups divide neither or one of its {layer.filters} "
            f"filters and {inputs} channels, and they divide both",
        )


def _damping(path: Path, recorded: object, architecture: Architecture) -> dict[str, dict[str, float]]:
    """``[damping]``: for each layer to invert from, a table with a number for every layer up to it."""
    complaint = "damping is a table of tables, layer.layer = number of 0 or above"
    recorded = table_of(recorded, path, complaint)
    names = [each.name for each in architecture.layers]
    for layer, factors in recorded.items():
        expect(layer in names, path, f"damping of '{layer}': there is no such layer{hint(layer, names)}")
        expect(isinstance(factors, dict) and are_positive(factors.values(), zero=True), path, complaint)
        chain = set(names[: names.index(layer) + 1])
        expect(factors.keys() == chain, path, f"damping of {layer} must name {', '.join(sorted(chain))}")
    return {layer: {name: float(value) for name, value in table.items()} for layer, table in recorded.items()}


def _splits(path: Path, table: object, architecture: Architecture) -> dict[str, Split]:
    """``[splits]``: for each point a convolution and a tap."""
    complaint = 'splits is a table, name = { layer = "a convolution", tap = "..." }'
    table = table_of(table, path, complaint)
    layers = {layer.name: layer for layer in architecture.layers}
    for name, entry in table.items():
        plain = isinstance(entry, dict) and all(isinstance(value, str) for value in entry.values())
        expect(plain and entry.keys() == {"layer", "tap"}, path, complaint)
        plain = name.isidentifier() and name != "all" and len(name) <= LONGEST_NAME
        expect(plain, path, f"the split point's name {name!r} is not a plain word")
        layer, tap = entry["layer"], entry["tap"]
        expect(layer in layers, path, f"split point {name}: there is no layer '{layer}'{hint(layer, layers)}")
        expect(layers[layer].has_weights, path, f"split point {name}: {layer} is a pooling and has no tap")
        expect(tap in TAPS, path, f"split point {name}: tap is one of {', '.join(TAPS)}, not '{tap}'")
        expect(name == layer or name not in layers, path, f"split point {name} is of {layer}, and {name} is a layer")
    return {name: Split(**entry) for name, entry in table.items()}


def _known_keys(path: Path, spec: Mapping[str, Any], known: set[str]) -> None:
    for key in spec:
        expect(key in known, path, f"unknown key '{key}'{hint(key, known)}")
        if key in _SWAPS:
            names = spec[key]
            listed = isinstance(names, list) and all(isinstance(name, str) for name in names)
            expect(listed, path, f"{key} is a list of layer names")
