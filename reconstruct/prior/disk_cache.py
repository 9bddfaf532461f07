"""Tensors in files of the user's cache folder, found again by a digest of all that they depend on."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from reconstruct.images.atomic import write_atomically


def cached(
    name: str, device: torch.device, estimate: Callable[[], dict[str, torch.Tensor]]
) -> tuple[dict[str, torch.Tensor], bool]:
    """The tensors of this name, and whether they had to be estimated, which writes them down for the next time.

    A file that is damaged counts as none, and a folder that cannot be written to is no error: the estimate is made anew
    each time, and nothing else is lost.
    """
    path = folder() / f"{name}.safetensors"
    with suppress(OSError, SafetensorError), safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key).to(device) for key in file.keys()}, False  # noqa: SIM118
    found = estimate()
    with suppress(OSError):
        write_atomically(path, save({key: values.cpu().contiguous() for key, values in found.items()}))
    return found, True


def folder() -> Path:
    """The user's cache folder, or the one that RECONSTRUCT_CACHE names."""
    named = os.environ.get("RECONSTRUCT_CACHE")
    return Path(named) if named else user_cache_path("reconstruct", appauthor=False)
