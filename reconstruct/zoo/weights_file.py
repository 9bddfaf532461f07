"""A file of weights as tensors by name, read without running anything in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from reconstruct.errors import CallError, ModelError
from reconstruct.images.tensor_files import form_of, read_safetensors, read_torch

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which training scripts keep the weights, beside what else they keep."""


FILES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".npz")
"""Endings of the names of files of weights."""


def is_weights_file(name: str) -> bool:
    """Whether a name is that of a file of weights, by its ending."""
    return Path(name).suffix in FILES


def held_in(file: Path) -> Any:
    """What a checkpoint holds: tensors, numbers and text, in dictionaries and lists; nothing of it is run.

    Raises
    ------
    ModelError : there is no such file, it is damaged, or it holds more than that.
    """
    if not file.is_file():
        raise ModelError(f"there is no checkpoint {file}")
    try:
        return read_safetensors(file)[0] if form_of(file) == "safetensors" else read_torch(file)
    except CallError as error:
        raise ModelError(str(error)) from error


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file, a checkpoint of a training run or weights alone.

    Raises
    ------
    ModelError : there is no such file, it is damaged, or it holds more than tensors and plain data.
    """
    held = held_in(file)
    if isinstance(held, Mapping):
        held = next((held[key] for key in _WRAPPERS if isinstance(held.get(key), Mapping)), held)
    if not isinstance(held, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in held.items()
    ):
        raise ModelError(f"{file} is not a state dict: it does not hold tensors by name")
    return {_unwrapped(key): value for key, value in held.items()}


def _unwrapped(key: str) -> str:
    """A tensor's name without what data parallel training and compilation put before it."""
    while key.startswith(("module.", "_orig_mod.")):
        key = key.partition(".")[2]
    return key
