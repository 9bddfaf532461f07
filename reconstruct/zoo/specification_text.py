"""Architectures written down, the way back of ``specification``: as TOML without a base, and layers as tables."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from reconstruct.network.architecture import Architecture, Layer

_POOL_FIELDS = {"name", "kernel", "stride", "padding", "dropout", "kind", "ceil_mode"}
# Newer than the format of a config: stated where they differ from the defaults, so that older versions read the rest.
_NEWER = {"groups", "dilation", "ceil_mode", "sides"}
_ALWAYS = {"name", "kernel"}


def specification_text(architecture: Architecture, weights: str) -> str:
    """An architecture as a TOML specification without a base; ``weights`` names the file of its weights."""
    lines = [
        f"source = {json.dumps(architecture.source, ensure_ascii=False)}",
        f"input_size = {architecture.input_size}",
        f"mean = {list(architecture.mean)}",
        f"std = {list(architecture.std)}",
        f"weights = {json.dumps(weights)}",
    ]
    if architecture.input_dropout:
        lines.append(f"input_dropout = {architecture.input_dropout}")
    lines += ["", "layers = [", *(f"    {_line(layer)}," for layer in architecture.layers), "]", ""]
    if architecture.splits:
        points = architecture.splits.items()
        lines += ["[splits]", *(f'{name} = {{ layer = "{at.layer}", tap = "{at.tap}" }}' for name, at in points), ""]
    return "\n".join(lines)


def layer_table(layer: Layer) -> dict[str, Any]:
    """Everything that a specification may say of a layer, a pooling has no filters or activation.

    Defaults are included, but for what older versions do not know.
    """
    names = [each.name for each in fields(layer) if layer.has_weights or each.name in _POOL_FIELDS]
    defaults = Layer(layer.name)
    kept = (name for name in names if name not in _NEWER or getattr(layer, name) != getattr(defaults, name))
    return {name: getattr(layer, name) for name in kept}


def _line(layer: Layer) -> str:
    """A layer as an inline table of TOML, which says what differs from the defaults."""
    defaults = Layer(layer.name)
    stated = {
        key: value for key, value in layer_table(layer).items() if key in _ALWAYS or value != getattr(defaults, key)
    }
    return "{ " + ", ".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in stated.items()) + " }"
