"""timm's networks by name or from a folder, with their own preprocessing: ``timm:resnet18.a1_in1k``."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reconstruct.errors import CallError, ModelError, words_of
from reconstruct.extras import install_hint
from reconstruct.network.module import ModuleNetwork, from_torch
from reconstruct.network.preprocessing import timm_preprocessing
from reconstruct.zoo.checks import is_there
from reconstruct.zoo.registry import CONFIG, read_specification
from reconstruct.zoo.weights_file import read_weights

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""The files in which the hub has weights, in the order in which timm looks for them."""


def timm_network(name: str, file: str | None, random_weights: int | None) -> ModuleNetwork:
    """A network of timm's by name, normalised as its ``pretrained_cfg`` says.

    Parameters
    ----------
    name : as timm calls it, ``resnet18`` or ``resnet18.a1_in1k``; without the tag timm's default weights are meant.
    file : a file of weights; None: what lies in the hub's cache, or in torch's.
    random_weights : a seed for random weights in place of them.

    Raises
    ------
    CallError : timm is not installed.
    ModelError : it has no such network, its weights are not there or of another, or its pictures are no squares.
        Nothing is downloaded.
    """
    timm = _timm()
    config = _config(timm, name)
    how = timm_preprocessing(config, f"timm's {name}")
    if random_weights is not None:
        module = _random(timm, name, random_weights)
    else:
        path = Path(file) if file is not None else _cached(name, config)
        module = _with_weights(timm, name, path, config)
    net = from_torch(module, (how.mean, how.std), input_size=how.size, name=name)
    net.preprocessing = how
    net.source = f"timm's {name}, {'random weights' if random_weights is not None else path.name}"
    return net


def is_timm_folder(name: str) -> bool:
    """Whether a name is that of a folder whose ``config.json`` is timm's, as it writes it for the Hugging Face Hub."""
    config = Path(name) / CONFIG
    if not is_there(config):
        return False
    try:
        held = read_specification(config)
    except ModelError:  # whoever reads it next says so
        return False
    return isinstance(held.get("architecture"), str) and ("pretrained_cfg" in held or "num_classes" in held)


def timm_folder(folder: str, random_weights: int | None) -> ModuleNetwork:
    """The network in such a folder: timm's code, and the folder's weights and preprocessing.

    Raises
    ------
    CallError : timm is not installed.
    ModelError : timm cannot make the network or read the weights, or its pictures are no squares.
    """
    timm = _timm()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(random_weights or 0)
            # Without a seed for random weights timm reads the folder's, and from a pickle nothing but tensors.
            module = timm.create_model(f"local-dir:{folder}", pretrained=random_weights is None)
    except Exception as error:  # whatever a config makes timm do
        raise ModelError(f"timm cannot make the network in {folder}: {words_of(error)}") from error
    how = timm_preprocessing(module.pretrained_cfg, f"{folder}/{CONFIG}")
    name = Path(folder).resolve().name
    net = from_torch(module, (how.mean, how.std), input_size=how.size, name=name)
    net.preprocessing = how
    net.source = f"timm's {module.pretrained_cfg['architecture']}, from {folder}"
    return net


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise CallError(f"timm's networks need the package timm: {install_hint('timm')}") from error
    except RuntimeError as error:  # torchvision, which it imports, is built for another torch
        raise ModelError(f"the torchvision that timm needs does not fit this torch: {error}") from error
    return timm


def _config(timm: Any, name: str) -> dict[str, Any]:
    """timm's ``pretrained_cfg`` of a network and its weights."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = ", ".join(get_close_matches(architecture, timm.list_models(), n=3))
        raise ModelError(f"timm has no model '{architecture}'{f'; did you mean {near}?' if near else ''}")
    tags = [each.partition(".")[2] for each in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        raise ModelError(f"timm has no weights '{tag}' of {architecture}; it has {', '.join(tags) or 'none'}")
    known: dict[str, Any] = timm.get_pretrained_cfg(name).to_dict()
    return known


def _cached(name: str, config: dict[str, Any]) -> Path:
    """Where timm's weights lie on this machine: in the hub's cache, or in torch's.

    Raises
    ------
    ModelError : they are in neither.
    """
    places = []
    if repository := config.get("hf_hub_id"):
        from huggingface_hub import try_to_load_from_cache

        files = [config["hf_hub_filename"]] if config.get("hf_hub_filename") else _HUB_FILES
        for file in files:
            found = try_to_load_from_cache(repository, file)
            if isinstance(found, str):
                return Path(found)
        places.append(f"{repository} in the Hugging Face Hub's cache")
    if url := config.get("url"):
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
        if path.is_file():
            return path
        places.append(f"{url} as {path}")
    where = "timm publishes no weights of it"
    if places:
        where = f"{'neither ' if len(places) > 1 else 'no '}{', nor '.join(places)}, is there"
    raise ModelError(
        f"timm:{name}: {where}, and nothing is downloaded; name a file of weights, timm:{name}:FILE, or random ones, "
        f"timm:{name}:random"
    )


def _random(timm: Any, name: str, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module: nn.Module = timm.create_model(name, pretrained=False)
    return module


def _with_weights(timm: Any, name: str, file: Path, config: Mapping[str, Any]) -> nn.Module:
    """The network with a file's weights, which timm's own code fits to it, and with as many classes as the file has."""
    options = {}
    if file.suffix == ".npz":
        # Of another library's layout, which the network itself reads, without pickles.
        if not file.is_file():
            raise ModelError(f"there is no checkpoint {file}")
        overlay: dict[str, Any] = {"file": str(file), "custom_load": True}
    else:
        state = read_weights(file)
        overlay = {"state_dict": state, "custom_load": False}
        named = config.get("classifier")  # of networks with a second one for distillation a pair
        last = state.get(f"{named[0] if isinstance(named, list | tuple) and named else named}.weight")
        if last is not None and last.ndim:
            # Said in both places: where the two differ, timm would leave the classifier's weights out.
            options = {"num_classes": len(last)}
            overlay |= options
    try:
        module: nn.Module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except Exception as error:  # load_state_dict and timm's filters raise nearly any
        raise ModelError(f"{file} does not hold weights of timm's {name}: {words_of(error)}") from error
    for known in ("pretrained_cfg", "default_cfg"):
        getattr(module, known, {}).pop("state_dict", None)  # it would be copied with the module
    return module
