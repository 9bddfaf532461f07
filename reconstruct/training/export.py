"""A trained network as files that anybody can load: specification, weights, classes and card."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from safetensors.torch import save

from reconstruct.files import write_atomically
from reconstruct.network import Architecture, Layer, Network, fold_batch_norm


def export(net: Network, folder: Path, *, classes: list[str], card: str) -> Path:
    """Write NAME.toml, NAME.safetensors, NAME.classes.json and NAME.md; batch normalisation is folded.

    Parameters
    ----------
    card : what the weights were trained on, how, for how long, and how well they do.

    Returns
    -------
    The specification's path, which ``load_model`` takes.
    """
    folded = fold_batch_norm(net)
    state = {key: value.cpu().contiguous() for key, value in folded.state_dict().items()}
    name = net.name
    write_atomically(folder / f"{name}.safetensors", save(state))
    write_atomically(folder / f"{name}.md", card.encode())
    write_atomically(folder / f"{name}.classes.json", (json.dumps(classes, indent=1) + "\n").encode())
    path = folder / f"{name}.toml"
    write_atomically(path, specification(folded.architecture, f"{name}.safetensors").encode())
    return path


def specification(architecture: Architecture, weights: str) -> str:
    """An architecture as a TOML specification without a base."""
    lines = [
        f"source = {json.dumps(architecture.source)}",
        f"input_size = {architecture.input_size}",
        f"mean = {list(architecture.mean)}",
        f"std = {list(architecture.std)}",
        f"weights = {json.dumps(weights)}",
    ]
    if architecture.input_dropout:
        lines.append(f"input_dropout = {architecture.input_dropout}")
    lines += ["", "layers = [", *(f"    {_layer(layer)}," for layer in architecture.layers), "]", ""]
    if architecture.splits:
        points = architecture.splits.items()
        lines += ["[splits]", *(f'{name} = {{ layer = "{at.layer}", tap = "{at.tap}" }}' for name, at in points), ""]
    return "\n".join(lines)


_ALWAYS = ("name", "kernel")


def _layer(layer: Layer) -> str:
    defaults = Layer(layer.name)
    ignored = set() if layer.has_weights else {"filters", "activation"}
    values = {each.name: getattr(layer, each.name) for each in fields(layer) if each.name not in ignored}
    stated = {key: value for key, value in values.items() if key in _ALWAYS or value != getattr(defaults, key)}
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in stated.items()) + " }"
