"""A file of weights as tensors by name, read without running anything in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from reconstruct.errors import ModelError

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which training scripts keep the weights, beside what else they keep."""


FILES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".npz")
"""Endings of the names of files of weights."""


def is_weights_file(name: str) -> bool:
    """Whether a name is that of a file of weights, by its ending."""
    return Path(name).suffix in FILES


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file, a checkpoint of a training run or weights alone.

    Raises
    ------
    ModelError : there is no such file, it is damaged, or it holds more than tensors and plain data.
    """
    if not file.is_file():
        raise ModelError(f"there is no checkpoint {file}")
    try:
        if file.suffix == ".safetensors":
            held: Any = load_file(file)
        else:
            held = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a hostile or damaged file can raise nearly any
        raise ModelError(f"{file} is damaged or holds more than tensors; nothing of it was run") from error
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
