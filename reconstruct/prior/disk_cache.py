"""Tensors in files of the user's cache folder, found again by a digest of all that they depend on."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from reconstruct.images.atomic import write_atomically

SUM = "crc32"
"""The checksum's name in a file's header."""


def cached(
    name: str, device: torch.device, estimate: Callable[[], dict[str, torch.Tensor]]
) -> tuple[dict[str, torch.Tensor], bool]:
    """The tensors of this name, and whether they had to be estimated, which writes them down for the next time.

    A file that is damaged counts as none, and a folder that cannot be written to is no error: the estimate is made anew
    each time, and nothing else is lost.
    """
    path = folder() / f"{name}.safetensors"
    with suppress(OSError, SafetensorError), safe_open(path, framework="pt") as file:
        held = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        # A byte that has changed on disk would otherwise be a wrong answer that nobody notices.
        if (file.metadata() or {}).get(SUM) == _sum(held):
            return {key: values.to(device) for key, values in held.items()}, False
    found = estimate()
    with suppress(OSError):
        kept = {key: values.cpu().contiguous() for key, values in found.items()}
        write_atomically(path, save(kept, {SUM: _sum(kept)}))
    return found, True


def _sum(tensors: dict[str, torch.Tensor]) -> str:
    """A checksum of all values."""
    total = 0
    for key in sorted(tensors):
        total = zlib.crc32(tensors[key].numpy().data, zlib.crc32(key.encode(), total))
    return str(total)


def folder() -> Path:
    """The user's cache folder, or the one that RECONSTRUCT_CACHE names."""
    named = os.environ.get("RECONSTRUCT_CACHE")
    return Path(named) if named else user_cache_path("reconstruct", appauthor=False)
