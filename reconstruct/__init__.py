"""What does a layer of a convolutional network still know about the image?

The public names; torch is imported when the first of them is used, so that ``reconstruct --help`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from reconstruct.version import __version__

if TYPE_CHECKING:
    from reconstruct.errors import CallError, FeatureError, ImageError, ModelError, ReconstructError, ReconstructWarning
    from reconstruct.images.files import load_image, save_image
    from reconstruct.images.quality import Quality, quality
    from reconstruct.inversion.disturb import disturb
    from reconstruct.inversion.invert import invert
    from reconstruct.inversion.problem import Problem
    from reconstruct.inversion.result import Inverted, Result
    from reconstruct.network.activations import linear_responses
    from reconstruct.network.architecture import Architecture
    from reconstruct.network.module import from_torch
    from reconstruct.network.network import Network
    from reconstruct.network.surgery import fold_batch_norm
    from reconstruct.operators.as_scipy import linear_operator
    from reconstruct.operators.convolution import Convolution, frame
    from reconstruct.zoo.describe import describe
    from reconstruct.zoo.huggingface import save_pretrained
    from reconstruct.zoo.load import load_model
    from reconstruct.zoo.registry import model_names


_HOMES = {
    "errors": ["CallError", "FeatureError", "ImageError", "ModelError", "ReconstructError", "ReconstructWarning"],
    "images.files": ["load_image", "save_image"],
    "images.quality": ["Quality", "quality"],
    "inversion.disturb": ["disturb"],
    "inversion.invert": ["invert"],
    "inversion.problem": ["Problem"],
    "inversion.result": ["Inverted", "Result"],
    "network.activations": ["linear_responses"],
    "network.architecture": ["Architecture"],
    "network.module": ["from_torch"],
    "network.network": ["Network"],
    "network.surgery": ["fold_batch_norm"],
    "operators.as_scipy": ["linear_operator"],
    "operators.convolution": ["Convolution", "frame"],
    "zoo.describe": ["describe"],
    "zoo.huggingface": ["save_pretrained"],
    "zoo.load": ["load_model"],
    "zoo.registry": ["model_names"],
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
    "ReconstructWarning",
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
