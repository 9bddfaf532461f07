"""The zoo: TOML specification and safetensors weights to ``Network``. The one module that knows where models lie."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from reconstruct.errors import CallError, ModelError
from reconstruct.network.activations import ACTIVATIONS, TAPS
from reconstruct.network.architecture import KINDS, Architecture, Layer, Split
from reconstruct.network.module import ModuleNetwork
from reconstruct.network.network import Network, is_layer_name
from reconstruct.network.protocol import AnyNetwork
from reconstruct.network.surgery import fold_batch_norm, randomise, with_classes
from reconstruct.operators.convolution import Convolution, frame
from reconstruct.user_function import is_function_name
from reconstruct.zoo.published import is_external, load_external
from reconstruct.zoo.user_module import load_user_module

_PACKAGE = Path(__file__).parent.parent
_PACKAGED = _PACKAGE / "models"  # in a wheel
MODELS = _PACKAGED if _PACKAGED.is_dir() else _PACKAGE.parent / "models"  # in a checkout

_COMMON_KEYS = {"source", "weights", "damping", "splits"}
_BASE_KEYS = _COMMON_KEYS | {"input_size", "mean", "std", "layers", "input_dropout", "torchvision"}
_VARIANT_KEYS = _COMMON_KEYS | {"base", "slope", "halve_filters", "double_filters", "classes"}
CONFIG = "config.json"
"""What describes a model in a folder of the Hugging Face layout, beside ``PRETRAINED``."""
PRETRAINED = "model.safetensors"
CONFIG_FORMAT = 1
CRELU_ORDER = "positive phases first"
"""Of the channels of CReLU features, as a config says it: there is no other here."""
_CONFIG_KEYS = {"library_name", "library_version", "format", "dtype", "name", "base", "crelu_order", "id2label"}
_MOST_CONFIG_BYTES = 10**6
_FLOATS = ("F16", "BF16", "F32", "F64")
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
}
_POOL_KEYS = ("name", "kind", "kernel", "stride", "padding", "dropout")


def model_names() -> list[str]:
    """Names of the models in the zoo, bases first."""
    names = sorted(path.stem for path in MODELS.glob("*.toml"))
    return sorted(names, key=lambda name: (read_architecture(name).base is not None, name))


def load_model(
    name: str | Path, *, random_weights: int | None = None, device: str | torch.device = "cpu"
) -> AnyNetwork:
    """A network of the zoo, of a TOML file or of a folder, in evaluation mode and without gradients.

    Batch normalisation is folded into the convolutions (``fold_batch_norm``).

    Parameters
    ----------
    name : a name in the zoo; the path of a TOML specification; a folder that ``save_pretrained`` wrote, with
        ``config.json`` and ``model.safetensors`` (a name of the zoo goes first); ``efficientnet_lite0`` or
        ``torchvision:resnet18`` (``external``); or ``package.module:function``, which gives a torch module
        (``network.module``).
    random_weights : a seed: every layer gets random weights (He et al. 2015), in place of a weights file.
    device : where the network is put.

    Raises
    ------
    ModelError : an unknown name (with the nearest ones), a faulty specification, no weights, or a weights file that
        does not fit; the file is checked against the specification before a number is read from it.
    """
    name = str(name)
    if is_external(name):
        return load_external(name, random_weights).to(device)
    if is_function_name(name):
        if random_weights is not None:
            raise ModelError(f"{name} makes its own weights: leave out random weights")
        return load_user_module(name, device)
    architecture = read_architecture(name)
    if random_weights is not None:
        net = randomise(Network(architecture), random_weights)
    elif architecture.weights is None:
        raise ModelError(
            f"{architecture.name} has no weights; random ones serve to try it: "
            "--random-weights SEED, or random_weights=SEED"
        )
    else:
        net = _load_weights(architecture, Path(architecture.weights))
    if any(layer.batch_norm for layer in net.layers):
        net = fold_batch_norm(net)
    return net.eval().requires_grad_(False).to(device)


def is_module(name: str) -> bool:
    """Whether a model's name is of a torch module, and of no specification."""
    return is_external(name) or is_function_name(name)


def read_architecture(name: str) -> Architecture:
    """The architecture that a specification describes; arguments and errors as in ``load_model``."""
    return _read(specification_path(name), ())


def class_names(name: str) -> list[str] | None:
    """Names of a model's classes in the order of its outputs, None where nothing tells them.

    They are in ``NAME.classes.json``, beside the specification or in its folder ``weights``; those of a folder in
    ``id2label`` of its ``config.json``.
    """
    model = specification_path(name)
    if model.name == CONFIG:
        labels = _parsed(model).get("id2label")
        return None if labels is None else _labels(model, labels)
    path = _beside(model, f"{model.stem}.classes.json")
    if not path.is_file():
        return None
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    _expect(isinstance(names, list) and all(isinstance(each, str) for each in names), path, "this is no list of names")
    return names


def describe(name: str, *, random_weights: int | None = None) -> dict[str, Any]:
    """Everything about a model as plain numbers: what ``reconstruct models NAME --json`` prints.

    For each layer, at the model's own input size: ``unknowns``, degrees of freedom of what feeds it (pixels, or the
    linear responses below: CReLU features have twice as many entries, of which half are known to be 0; or all that a
    pooling gives); ``equations``, its linear responses; and, where there are weights, ``frame_bounds``,
    ``condition_number`` and ``dimensions_lost`` of its operator from the symbol (``convolution.Frame``). Filters and
    activation of a pooling are None.
    """
    if is_module(name):
        module = load_model(name, random_weights=random_weights)
        assert isinstance(module, ModuleNetwork)
        return _describe_module(module)
    architecture = read_architecture(name)
    net = None
    if architecture.weights is not None or random_weights is not None:
        net = load_model(name, random_weights=random_weights)
    side = (architecture.input_size, architecture.input_size)
    sizes = architecture.response_sizes(side)
    layers = []
    freedom, area = len(architecture.mean), side
    for layer in architecture.layers:
        height, width = sizes[layer.name]
        bounds = None
        if net is not None and layer.has_weights and layer.name in net.layer_names:
            weight = net.convolution(layer.name).weight
            bounds = frame(Convolution(weight, layer.stride, layer.padding, area))
        layers.append(
            {
                "name": layer.name,
                "kind": layer.kind,
                "filters": layer.filters if layer.has_weights else None,
                "kernel": layer.kernel,
                "stride": layer.stride,
                "padding": layer.padding,
                "activation": layer.activation if layer.has_weights else None,
                "output_shape": [layer.channels, height, width],
                "receptive_field": architecture.receptive_field(layer.name),
                "parameters": architecture.parameters(layer.name),
                "unknowns": freedom * area[0] * area[1],
                "equations": layer.filters * height * width,
                "frame_bounds": None if bounds is None else [bounds.lower, bounds.upper],
                "condition_number": None if bounds is None else bounds.condition_number,
                "dimensions_lost": None if bounds is None else bounds.lost,
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
    }


def _describe_module(net: ModuleNetwork) -> dict[str, Any]:
    """``describe`` of a torch module: frame bounds and the like only where a layer's way from the image is a chain."""
    size = (net.input_size, net.input_size)
    layers = []
    for name, call in net.calls(size).items():
        chain = net.as_chain(name)
        last = None if chain is None else chain.layers[-1]
        bounds = None
        if chain is not None and last is not None and last.has_weights and len(chain.layers) == 1:
            bounds = frame(Convolution(chain.convolution(name).weight, last.stride, last.padding, size))
        layers.append(
            {
                "name": name,
                "kind": "module",
                "filters": call.layer.filters,
                "kernel": None if last is None else last.kernel,
                "stride": None if last is None else last.stride,
                "padding": None if last is None else last.padding,
                "activation": call.layer.activation,
                "output_shape": [call.layer.channels, *call.size],
                "receptive_field": net.receptive_field(name),
                "parameters": net.weight_count(name),
                "unknowns": None,
                "equations": call.layer.filters * math.prod(call.size),
                "frame_bounds": None if bounds is None else [bounds.lower, bounds.upper],
                "condition_number": None if bounds is None else bounds.condition_number,
                "dimensions_lost": None if bounds is None else bounds.lost,
                "chain": chain is not None,
            }
        )
    return {
        "name": net.name,
        "base": None,
        "source": f"torch module {type(net.module).__name__}",
        "input_size": net.input_size,
        "weights": None,
        "own_weights": "the module's own",
        "splits": {},
        "parameters": net.weight_count(),
        "layers": layers,
    }


def specification_path(name: str) -> Path:
    """The file of a model given by name or path; errors as of ``load_model``."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise ModelError(f"there is no specification {name}")
        return path
    known = {path.stem: path for path in MODELS.glob("*.toml")}
    if name in known:
        return known[name]
    if Path(name).is_dir():
        config = Path(name) / CONFIG
        if not config.is_file():
            raise ModelError(f"the folder {name} holds no {CONFIG}; name the .toml file of a model in it")
        return config
    near = get_close_matches(name, known, n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise ModelError(
        f"there is no model '{name}'{hint} Models: {', '.join(sorted(known))}, the path of a .toml file, or a folder"
    )


def _read(path: Path, above: tuple[Path, ...]) -> Architecture:
    spec = _parsed(path)
    if path.name == CONFIG:
        return _configured(path, spec)
    weights = spec.get("weights")
    _expect(isinstance(weights, str | None), path, f"weights is a file name, not {weights!r}")
    architecture = _variant(path, spec, above) if "base" in spec else _base(path, spec)
    return replace(
        architecture,
        name=path.stem,
        source=str(spec.get("source", "")),
        weights=None if weights is None else str(_beside(path, weights)),
        damping=_damping(path, spec.get("damping", {}), architecture),
        splits=architecture.splits | _splits(path, spec.get("splits", {}), architecture),
    )


def plain_architecture(path: Path, text: str) -> Architecture:
    """What a specification without base would describe, not yet written to its path; errors as of ``load_model``."""
    return _base(path, tomllib.loads(text))


def _parsed(path: Path) -> dict[str, Any]:
    what = "JSON" if path.name == CONFIG else "TOML"
    try:
        if what == "TOML":
            return tomllib.loads(path.read_text(encoding="utf-8"))
        _expect(path.stat().st_size <= _MOST_CONFIG_BYTES, path, f"a config is smaller than {_MOST_CONFIG_BYTES} bytes")
        spec = json.loads(path.read_text(encoding="utf-8"))
    except ModelError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # the parsers' own errors are values, too
        raise ModelError(f"{path} cannot be read as {what}: {error}") from error
    _expect(isinstance(spec, dict), path, "a config is one JSON object")
    return spec


def _configured(path: Path, spec: dict[str, Any]) -> Architecture:
    """The architecture of a ``config.json``, which states everything: it has no base to differ from."""
    library = spec.get("library_name")
    _expect(library == "reconstruct", path, f"library_name is {library!r}: no model of reconstruct's")
    written = spec.get("format")
    _expect(written == CONFIG_FORMAT, path, f"format is {written!r}, and this version reads {CONFIG_FORMAT}")
    order = spec.get("crelu_order", CRELU_ORDER)
    _expect(order == CRELU_ORDER, path, f"crelu_order is '{CRELU_ORDER}', not {order!r}")
    name, base = spec.get("name"), spec.get("base")
    _expect(isinstance(name, str) and is_model_name(name), path, f"name is a plain word, not {name!r}")
    _expect(isinstance(base, str | None), path, f"base is a model's name or null, not {base!r}")
    if "id2label" in spec:
        _labels(path, spec["id2label"])
    plain = {key: value for key, value in spec.items() if key not in _CONFIG_KEYS}
    _expect("weights" not in plain, path, f"weights are in {PRETRAINED}: a config names no file")
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


def is_model_name(name: str) -> bool:
    """Whether it serves in file names: letters, digits, ``_``, ``.`` and ``-``, the first a letter or digit."""
    return re.fullmatch(r"[^\W_][\w.-]*", name) is not None


def _labels(path: Path, labels: object) -> list[str]:
    """``id2label``: a class's number, as a string, and its name; every number from 0 on."""
    complaint = 'id2label has a name for every class, {"0": ..., "1": ...}'
    _expect(isinstance(labels, dict), path, complaint)
    assert isinstance(labels, dict)
    _expect(labels.keys() == {str(number) for number in range(len(labels))}, path, complaint)
    _expect(all(isinstance(each, str) for each in labels.values()), path, complaint)
    return [labels[str(number)] for number in range(len(labels))]


def _base(path: Path, spec: Mapping[str, Any]) -> Architecture:
    _known_keys(path, spec, _BASE_KEYS)
    for key in ("input_size", "mean", "std", "layers"):
        _expect(key in spec, path, f"a specification without base needs {key}")
    mean, std = spec["mean"], spec["std"]
    _expect(isinstance(mean, list) and _finite(mean) and len(mean) > 0, path, "mean is a list of numbers")
    _expect(isinstance(std, list) and _positive(std), path, "std is a list of numbers above 0")
    _expect(len(mean) == len(std), path, "mean and std are one number a channel")
    _expect(_whole(spec["input_size"], 1), path, "input_size is a whole number of pixels")
    dropout = spec.get("input_dropout", 0.0)
    _expect(_numbers([dropout]) and 0 <= dropout < 1, path, "input_dropout lies in [0, 1)")
    _expect(isinstance(spec["layers"], list) and len(spec["layers"]) > 0, path, "layers is a list of tables")
    layers = tuple(_layer(path, entry) for entry in spec["layers"])
    names = [layer.name for layer in layers]
    taken = [*names, *(f"{layer.name}_bn" for layer in layers if layer.batch_norm)]
    _expect(len(set(taken)) == len(taken), path, "two layers have the same name")
    _expect(layers[0].has_weights, path, f"the first layer is a convolution, and {names[0]} is {layers[0].kind}")
    architecture = Architecture(
        path.stem,
        layers,
        spec["input_size"],
        tuple(mean),
        tuple(std),
        input_dropout=float(dropout),
        torchvision=_torchvision(path, spec.get("torchvision", {}), layers),
    )
    smallest = min(min(size) for size in architecture.response_sizes((spec["input_size"],) * 2).values())
    _expect(smallest >= 1, path, f"images of {spec['input_size']} pixels vanish on the way through the layers")
    return architecture


def _torchvision(path: Path, table: object, layers: tuple[Layer, ...]) -> dict[str, str]:
    """``[torchvision]``: for every layer with weights where a checkpoint has it, or nothing at all."""
    strings = isinstance(table, dict) and all(isinstance(key, str) for key in table.values())
    _expect(strings, path, 'torchvision is a table, layer = "key of a checkpoint"')
    assert isinstance(table, dict)
    names = {layer.name for layer in layers if layer.has_weights}
    wrong = sorted(table.keys() ^ names) if table else []
    _expect(not wrong, path, f"torchvision names every layer with weights and no other: not so {', '.join(wrong)}")
    _expect(len(set(table.values())) == len(table), path, "torchvision gives two layers the same key")
    return table


def _layer(path: Path, entry: object) -> Layer:
    _expect(isinstance(entry, dict), path, f"a layer is a table, not {entry!r}")
    assert isinstance(entry, dict)
    name = entry.get("name", "without name")
    for key, value in entry.items():
        _expect(key in _LAYER_KEYS, path, f"layer {name}: unknown key '{key}'{_hint(key, _LAYER_KEYS)}")
        wanted = _LAYER_KEYS[key]
        fits = isinstance(value, int | float) if wanted is float else type(value) is wanted
        _expect(fits, path, f"layer {name}: {key} is {value!r}, not a {wanted.__name__}")
    kind = entry.get("kind", "conv")
    kinds = [known for known in KINDS if known != "module"]
    _expect(kind in kinds, path, f"layer {name}: kind is one of {', '.join(kinds)}, not '{kind}'")
    pool = kind != "conv"
    for key in entry if pool else ():
        _expect(key in _POOL_KEYS, path, f"layer {name}: {kind} has no {key}; it has {', '.join(_POOL_KEYS)}")
    for key in ("name", "kernel") if pool else ("name", "filters", "kernel"):
        _expect(key in entry, path, f"layer {name} has no {key}")
    layer = Layer(**entry)
    _expect(layer.name.isidentifier(), path, f"layer name {layer.name!r} is not a plain word")
    _expect(is_layer_name(layer.name), path, f"no layer can be called {layer.name!r}: the word has a meaning already")
    sizes = (layer.kernel, layer.stride) if pool else (layer.filters, layer.kernel, layer.stride)
    _expect(min(sizes) >= 1, path, f"layer {name}: sizes are at least 1")
    _expect(layer.padding >= 0, path, f"layer {name}: padding is at least 0")
    # Beyond that a window could see nothing but padding.
    fits = not pool or 2 * layer.padding <= layer.kernel
    _expect(fits, path, f"layer {name}: padding of {kind} is at most half its kernel")
    _expect(layer.activation in ACTIVATIONS, path, f"layer {name}: activation is one of {', '.join(ACTIVATIONS)}")
    _expect(0 <= layer.slope < 1 and 0 <= layer.dropout < 1, path, f"layer {name}: slope and dropout lie in [0, 1)")
    return layer


def _variant(path: Path, spec: Mapping[str, Any], above: tuple[Path, ...]) -> Architecture:
    _known_keys(path, spec, _VARIANT_KEYS | set(_SWAPS))
    name = spec["base"]
    _expect(isinstance(name, str), path, f"base is a model's name, not {name!r}")
    beside = path.parent / name
    base_path = beside if name.endswith(".toml") and beside.is_file() else specification_path(name)
    resolved = base_path.resolve()
    _expect(resolved not in (*above, path.resolve()), path, f"base {name} leads back to this file")
    base = _read(base_path, (*above, path.resolve()))
    slope = spec.get("slope", 0.0)
    _expect(_numbers([slope]) and 0 <= slope < 1, path, "slope lies in [0, 1)")
    halve, double = (spec.get(key, False) for key in ("halve_filters", "double_filters"))
    _expect(type(halve) is bool and type(double) is bool, path, "halve_filters and double_filters are true or false")
    _expect(not (halve and double), path, "halve_filters and double_filters contradict each other")
    layers = {layer.name: layer for layer in base.layers}
    # The last layer's filters are the classes.
    for layer in base.layers[:-1] if double else ():
        layers[layer.name] = replace(layer, filters=2 * layer.filters)
    for activation in _SWAPS:
        for layer_name in spec.get(activation, []):
            layer = layers[base.layers[base.index(layer_name)].name]
            _expect(layer.has_weights, path, f"{activation}: {layer_name} is {layer.kind} and has no activation")
            filters = layer.filters
            if halve and activation in ("crelu", "leaky_crelu"):
                _expect(filters % 2 == 0, path, f"{layer_name} has {filters} filters, which cannot be halved")
                filters //= 2
            own = slope if activation.startswith("leaky") else 0.0
            layers[layer_name] = replace(layer, activation=activation, filters=filters, slope=float(own))
    variant = replace(base, base=base.name, layers=tuple(layers.values()))
    if "classes" not in spec:
        return variant
    _expect(_whole(spec["classes"], 1), path, f"classes is a whole number of 1 or above, not {spec['classes']!r}")
    try:
        return with_classes(variant, spec["classes"])
    except CallError as error:
        raise ModelError(f"{path}: {error}") from error


def _damping(path: Path, recorded: object, architecture: Architecture) -> dict[str, dict[str, float]]:
    """``[damping]``: for each layer to invert from, a table with a number for every layer up to it."""
    complaint = "damping is a table of tables, layer.layer = number of 0 or above"
    _expect(isinstance(recorded, dict), path, complaint)
    assert isinstance(recorded, dict)
    for layer, factors in recorded.items():
        _expect(isinstance(factors, dict) and _positive(factors.values(), zero=True), path, complaint)
        chain = {each.name for each in architecture.layers[: architecture.index(layer) + 1]}
        _expect(factors.keys() == chain, path, f"damping of {layer} must name {', '.join(sorted(chain))}")
    return {layer: {name: float(value) for name, value in table.items()} for layer, table in recorded.items()}


def _splits(path: Path, table: object, architecture: Architecture) -> dict[str, Split]:
    """``[splits]``: for each point a convolution and a tap."""
    complaint = 'splits is a table, name = { layer = "a convolution", tap = "..." }'
    _expect(isinstance(table, dict), path, complaint)
    assert isinstance(table, dict)
    layers = {layer.name: layer for layer in architecture.layers}
    for name, entry in table.items():
        plain = isinstance(entry, dict) and all(isinstance(value, str) for value in entry.values())
        _expect(plain and entry.keys() == {"layer", "tap"}, path, complaint)
        _expect(name.isidentifier() and name != "all", path, f"the split point's name {name!r} is not a plain word")
        layer, tap = entry["layer"], entry["tap"]
        _expect(layer in layers, path, f"split point {name}: there is no layer '{layer}'{_hint(layer, layers)}")
        _expect(layers[layer].has_weights, path, f"split point {name}: {layer} is a pooling and has no tap")
        _expect(tap in TAPS, path, f"split point {name}: tap is one of {', '.join(TAPS)}, not '{tap}'")
        _expect(name == layer or name not in layers, path, f"split point {name} is of {layer}, and {name} is a layer")
    return {name: Split(**entry) for name, entry in table.items()}


def _load_weights(architecture: Architecture, path: Path) -> Network:
    """A network as deep as the weights file: its layers must be the first of the architecture.

    The poolings between them and right after them need no weights and belong to it.
    """
    try:
        with safe_open(path, "pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            depth = 0
            for layer in architecture.layers:
                if layer.has_weights and f"{layer.name}.weight" not in shapes:
                    break
                depth += 1
            if not depth:
                raise ModelError(f"{path} has no weights for {architecture.layers[0].name}")
            with torch.device("meta"):
                expected = {key: tuple(value.shape) for key, value in Network(architecture, depth).state_dict().items()}
            for key in sorted(shapes.keys() | expected.keys()):
                if key not in expected:
                    raise ModelError(f"{path} holds {key}, which {architecture.name} has no place for")
                if key not in shapes:
                    raise ModelError(f"{path} lacks {key}")
                if shapes[key] != expected[key]:
                    raise ModelError(f"{path}: {key} is {shapes[key]}, {architecture.name} needs {expected[key]}")
                kind = file.get_slice(key).get_dtype()
                if kind not in _FLOATS and not key.endswith("num_batches_tracked"):
                    raise ModelError(f"{path}: {key} is {kind}, and weights are {', '.join(_FLOATS)}")
            state = {key: file.get_tensor(key) for key in expected}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read as safetensors: {error}") from error
    for key, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ModelError(f"{path}: {key} holds a number that is not finite")
        if key.endswith("running_var") and (value < 0).any():
            raise ModelError(f"{path}: {key} holds a negative number, and it is of variances")
    net = Network(architecture, depth)
    net.load_state_dict(state)
    return net


def _beside(path: Path, weights: str) -> Path:
    """A weights file named in a specification: beside it, or in its folder ``weights``."""
    inside = path.parent / "weights" / weights
    return inside if inside.is_file() else path.parent / weights


def _known_keys(path: Path, spec: Mapping[str, Any], known: set[str]) -> None:
    for key in spec:
        _expect(key in known, path, f"unknown key '{key}'{_hint(key, known)}")
        if key in _SWAPS:
            names = spec[key]
            listed = isinstance(names, list) and all(isinstance(name, str) for name in names)
            _expect(listed, path, f"{key} is a list of layer names")


def _hint(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, list(known), n=1)
    return f", did you mean '{near[0]}'?" if near else ""


def _expect(condition: bool, path: Path, complaint: str) -> None:
    if not condition:
        raise ModelError(f"{path}: {complaint}")


def _numbers(values: Iterable[object]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _finite(values: Iterable[Any]) -> bool:
    values = list(values)
    return _numbers(values) and all(math.isfinite(value) for value in values)


def _positive(values: Iterable[Any], zero: bool = False) -> bool:
    values = list(values)
    return _numbers(values) and all(0 < value < float("inf") or (zero and value == 0) for value in values)


def _whole(value: object, least: int) -> bool:
    return type(value) is int and value >= least
