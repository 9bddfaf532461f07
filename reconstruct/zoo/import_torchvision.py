"""Published checkpoints of torchvision as models of ours: a specification and weights that cannot run code."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save

from reconstruct.errors import ModelError
from reconstruct.images.atomic import write_atomically
from reconstruct.images.tensor_files import is_plain
from reconstruct.network.architecture import Architecture
from reconstruct.network.network import Network
from reconstruct.zoo.registry import model_names, specification_path
from reconstruct.zoo.specification import read_architecture
from reconstruct.zoo.weights_file import read_state

State = dict[str, torch.Tensor]


def import_checkpoint(file: Path, model: str, folder: Path) -> Path:
    """Write NAME.safetensors and NAME.toml, a variant of the model with these weights.

    Parameters
    ----------
    file : a state dict with torchvision's keys, or what a training script wrote that has it
        (``weights_file.read_state``).
    model : a name in the zoo, or the path of a TOML specification; its table ``[torchvision]`` says where the
        checkpoint has each layer. A fully connected layer there is a convolution here.
    folder : where both files are written, the weights first.

    Returns
    -------
    The specification's path, which ``load_model`` takes.

    Raises
    ------
    ModelError : the model has no such table; the file is not a state dict of plain tensors; keys are missing or left
        over, a shape is wrong, a number is not finite; or the model's own specification lies in the folder.
    """
    base = specification_path(model)
    architecture = read_architecture(model)
    if not architecture.torchvision:
        known = ", ".join(name for name in model_names() if read_architecture(name).torchvision)
        raise ModelError(f"{base} has no table [torchvision] for a checkpoint's layers; {known} have one")
    path = folder / f"{architecture.name}.toml"
    if path.resolve() == base.resolve():
        raise ModelError(f"{path} is the specification that the import is based on; write to another folder")
    state = _renamed(file, architecture)
    weights = f"{architecture.name}.safetensors"
    write_atomically(folder / weights, save(state))
    # A path is meant from the current folder, and there another call may not be.
    name = str(base.resolve()) if model.endswith(".toml") else model
    stated = {"base": name, "weights": weights, "source": architecture.source}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in stated.items()]
    write_atomically(path, "".join(lines).encode())
    return path


def _renamed(file: Path, architecture: Architecture) -> State:
    """The file's tensors under our names and in our shapes, float32, after everything about them has been checked."""
    for layer in architecture.layers:
        if layer.batch_norm:
            raise ModelError(f"{layer.name} of {architecture.name} has batch normalisation: no import fills it")
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in Network(architecture).state_dict().items()}
    theirs = {}
    for key in shapes:
        name, _, part = key.rpartition(".")
        theirs[f"{architecture.torchvision[name]}.{part}"] = key
    state = read_state(file, theirs)
    if missing := theirs.keys() - state.keys():
        raise ModelError(f"{file} lacks {min(missing)}, {theirs[min(missing)]} of {architecture.name}")
    if extra := state.keys() - theirs.keys():
        raise ModelError(f"{file} holds {min(extra)}, which {architecture.name} has no place for")
    return {own: _checked(file, key, state[key], shapes[own]) for key, own in theirs.items()}


def _checked(file: Path, key: str, value: object, shape: tuple[int, ...]) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or not is_plain(value) or not value.is_floating_point():
        raise ModelError(f"{file}: {key} is no plain tensor of floating-point numbers")
    # A fully connected layer sees its input's channels one after the other, each row by row.
    flat = (shape[0], math.prod(shape[1:]))
    if tuple(value.shape) != shape and (len(shape) == 1 or tuple(value.shape) != flat):
        raise ModelError(f"{file}: {key} is {tuple(value.shape)}, and {shape} is needed")
    # A copy: tensors of a checkpoint may share their memory, and those of a weights file must not.
    copied = value.detach().to(torch.float32, copy=True).reshape(shape).contiguous()
    if not copied.isfinite().all():
        raise ModelError(f"{file}: {key} holds a number that is not finite")
    return copied
