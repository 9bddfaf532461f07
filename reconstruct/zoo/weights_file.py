"""A file of weights as tensors by name, read without running anything in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import dropwhile
from pathlib import Path
from typing import Any

import torch

from reconstruct.errors import CallError, ModelError
from reconstruct.images.tensor_files import form_of, read_safetensors, read_torch

HOLDERS = (
    "state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net", "network", "module", "weights",
)  # fmt: skip
"""Under what training scripts keep the state dict, beside epochs and optimisers. The mean of a training's last weights
goes first: it is what such scripts evaluate, and timm loads."""
WRAPPERS = ("module", "_orig_mod")
"""What DataParallel and torch.compile put into keys, at the beginning or, around a part of a network, inside."""
OWNERS = ("model", "net", "network", "student")
"""What keys begin with where the network is an attribute of what was saved."""
COUNTER = "n_averaged"
"""What ``torch.optim.swa_utils.AveragedModel`` keeps beside the weights, of how many it is the mean."""

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
    state = read_state(file)
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"{file} is not a state dict: it does not hold tensors by name")
    return state


def read_state(file: Path, wanted: Collection[str] = ()) -> dict[str, Any]:
    """What a checkpoint has under a network's own names, not yet checked; nothing of the file is run.

    Parameters
    ----------
    file : ``.safetensors``, or what ``torch.save`` wrote: a state dict, or dictionaries that have it somewhere
        (``HOLDERS``), with more in its keys (``WRAPPERS``, ``OWNERS``).
    wanted : the names that will be looked for, where they are known: then they are left as they are.

    Raises
    ------
    ModelError : there is no such file, it is damaged, it holds more than tensors and plain data, or no tensors by name,
        or one of them twice.
    """
    state = _held_in(file)
    for _ in range(3):  # Lightning's, of a script of somebody's
        if not isinstance(state, Mapping):
            break
        held = next((state[key] for key in HOLDERS if isinstance(state.get(key), Mapping)), None)
        if held is None:
            break
        state = held
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise ModelError(f"{file} is not a state dict: it does not hold tensors by name")
    return _own_names(file, dict(state), wanted)


def _own_names(file: Path, state: dict[str, Any], wanted: Collection[str]) -> dict[str, Any]:
    """Values by their keys without what wrappers put into them, as far as no key that is wanted has it."""
    if wanted and set(wanted) <= state.keys():
        return state
    found: dict[str, Any] = {}
    for key, value in state.items():
        plain = _unwrapped(key, inside=bool(wanted))
        if plain in found:
            raise ModelError(f"{file} holds {plain} twice, once as {key}")
        found[plain] = value
    if COUNTER not in wanted:
        found.pop(COUNTER, None)
    first = {key.partition(".")[0] for key in found}
    # Classifiers of one are called so, too: none of the wanted keys may begin with it.
    if len(first) == 1 and first <= set(OWNERS) and not any(key.partition(".")[0] in first for key in wanted):
        found = {key.partition(".")[2]: value for key, value in found.items()}
    return found


def _unwrapped(key: str, inside: bool) -> str:
    """A key without wrappers at its beginning; ``inside`` : and without those in it, which a part may be called too."""
    parts = key.split(".")
    if inside:
        return ".".join(part for part in parts if part not in WRAPPERS)
    return ".".join(dropwhile(lambda part: part in WRAPPERS, parts))


def _held_in(file: Path) -> Any:
    """What a checkpoint holds: tensors, numbers and text, in dictionaries and lists."""
    if not file.is_file():
        raise ModelError(f"there is no checkpoint {file}")
    try:
        return read_safetensors(file)[0] if form_of(file) == "safetensors" else read_torch(file)
    except CallError as error:
        raise ModelError(str(error)) from error
