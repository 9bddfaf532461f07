"""What does a layer of a convolutional network still know about the image?

The public names; torch is imported when the first of them is used, so that ``reconstruct --help`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reconstruct.activations import linear_responses
    from reconstruct.convolution import Convolution, frame
    from reconstruct.errors import CallError, FeatureError, ImageError, ModelError, ReconstructError
    from reconstruct.images import load_image, save_image
    from reconstruct.inversion import Result, disturb, invert
    from reconstruct.inversion.inverted import Inverted
    from reconstruct.inversion.problem import Problem
    from reconstruct.linear_operator import linear_operator
    from reconstruct.metrics import Quality, quality
    from reconstruct.network import Architecture, Network, fold_batch_norm
    from reconstruct.pretrained import save_pretrained
    from reconstruct.torch_network import from_torch
    from reconstruct.zoo import describe, load_model, model_names

__version__ = "0.1.0"

_HOMES = {
    "activations": ["linear_responses"],
    "convolution": ["Convolution", "frame"],
    "errors": ["CallError", "FeatureError", "ImageError", "ModelError", "ReconstructError"],
    "images": ["load_image", "save_image"],
    "inversion": ["Result", "disturb", "invert"],
    "inversion.inverted": ["Inverted"],
    "inversion.problem": ["Problem"],
    "linear_operator": ["linear_operator"],
    "metrics": ["Quality", "quality"],
    "network": ["Architecture", "Network", "fold_batch_norm"],
    "pretrained": ["save_pretrained"],
    "torch_network": ["from_torch"],
    "zoo": ["describe", "load_model", "model_names"],
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Architecture",
    "CallError",
    "Convolution",
    "FeatureError",
    "ImageError",
    "Inverted",
    "ModelError",
    "Network",
    "Problem",
    "Quality",
    "ReconstructError",
    "Result",
    "__version__",
    "describe",
    "disturb",
    "fold_batch_norm",
    "frame",
    "from_torch",
    "invert",
    "linear_operator",
    "linear_responses",
    "load_image",
    "load_model",
    "model_names",
    "quality",
    "save_image",
    "save_pretrained",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'reconstruct' has no attribute '{name}'")
    value = getattr(import_module(f"reconstruct.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
