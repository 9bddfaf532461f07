"""Features in files: written as a sender would send them, and read as somebody who has nothing else.

``.npy`` holds the numbers alone. ``.safetensors`` also says, where ``write_features`` wrote it, which model and layer
they are of, the images' size, and how much they were disturbed. Nothing is read by pickle, and no size that a header
claims is believed before the file has been found to be as long.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from reconstruct.errors import FeatureError
from reconstruct.images.atomic import write_atomically

TENSOR = "features"
"""The name that ``write_features`` gives the tensor of a ``.safetensors`` file."""

FORMATS = ("safetensors", "npy")
_TYPES = {"F16": "float16", "F32": "float32", "F64": "float64"}
_MOST_HEADER_BYTES = 10_000  # of .npy: ast reads it, and a longer one only keeps it busy


@dataclass(frozen=True)
class Stored:
    """Features of a file, N x C x h x w in the file's own precision, and what the file says of them."""

    values: torch.Tensor
    said: Mapping[str, str] = field(default_factory=dict)


def read_features(file: str | Path) -> Stored:
    """Features that somebody extracted.

    Parameters
    ----------
    file : ``.npy``; ``.safetensors`` with one tensor; or ``FILE.safetensors:NAME``, one of several. Float16, float32 or
        float64, N x C x h x w or C x h x w (then N is 1).

    Raises
    ------
    FeatureError : there is no such file, it is of another kind, damaged, or its header does not fit its length; the
        numbers have another type, or the array another number of axes; there are no features at all; or a number is
        not finite (the message says where).
    """
    path, name = _path_and_name(str(file))
    if not path.is_file():
        raise FeatureError(f"{path} {'is not a file' if path.exists() else 'does not exist'}")
    match path.suffix:
        case ".npy":
            stored = Stored(_read_npy(path))
        case ".safetensors":
            stored = _read_safetensors(path, name)
        case _:
            raise FeatureError(f"features are read from .npy and .safetensors files, not from {path}")
    values = stored.values
    shape = " x ".join(map(str, values.shape)) or "a single number"
    if values.ndim not in (3, 4):
        raise FeatureError(f"features are N x C x h x w or C x h x w; {path} holds {shape}")
    if not values.numel():
        raise FeatureError(f"{path} holds no features: it is {shape}")
    values = values if values.ndim == 4 else values[None]
    if not (finite := values.isfinite()).all():
        index = [int(i) for i in (~finite).nonzero()[0]]
        raise FeatureError(f"{path}: features{index} = {float(values[tuple(index)]):g} is not finite")
    return Stored(values, stored.said)


def write_features(values: torch.Tensor, path: Path, said: Mapping[str, str]) -> None:
    """Write N x C x h x w, or C x h x w, as the path's ending says; ``.npy`` leaves out what is ``said`` of them."""
    values = values.detach().cpu().contiguous()
    if path.suffix == ".npy":
        buffer = io.BytesIO()
        numpy.lib.format.write_array(buffer, values.numpy(), allow_pickle=False)
        write_atomically(path, buffer.getvalue())
    else:
        write_atomically(path, save({TENSOR: values}, metadata=dict(said)))


def rounding(values: torch.Tensor) -> float:
    """How far float16 features may be from what was rounded to them, as a share of their norm; 0 for other types.

    The error of rounding is uniform within half a unit in the last place, u, of either side: u^2 / 12 is its mean
    square. Zeros were zeros: where activations cut off, nothing is rounded. The mean over images.
    """
    if values.dtype != torch.float16:
        return 0.0
    # In float64: squares of float16's smallest numbers vanish in float32.
    exact = values.double().flatten(1)
    exponent = exact.abs().log2().floor().clamp_min(-14)  # subnormal numbers have the smallest normal one's unit
    unit = torch.where(exact == 0, 0.0, 2 ** (exponent - 10))
    norm = exact.norm(dim=1)
    share = (unit.square().sum(dim=1) / 12).sqrt() / torch.where(norm > 0, norm, 1)
    return float(share.mean())


def _path_and_name(file: str) -> tuple[Path, str | None]:
    """``FILE.safetensors:NAME`` in its parts; a file whose own name has a colon goes first."""
    before, colon, name = file.rpartition(":")
    if not colon or Path(file).is_file() or not before.endswith(".safetensors"):
        return Path(file), None
    return Path(before), name


def _read_npy(path: Path) -> torch.Tensor:
    try:
        with path.open("rb") as file:
            version = numpy.lib.format.read_magic(file)
            length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
        if length > _MOST_HEADER_BYTES:
            raise FeatureError(f"{path} is damaged: its header claims {length} bytes")
        mapped = numpy.lib.format.open_memmap(path, mode="r")  # fails where the file is shorter than its shape
    except FeatureError:
        raise
    except Exception as error:  # a hostile or damaged header can raise nearly any
        raise FeatureError(f"{path} is damaged, cut off, or no .npy file of numbers; nothing of it was run") from error
    if mapped.dtype.kind != "f" or mapped.dtype.itemsize not in (2, 4, 8):
        raise FeatureError(f"{path} holds {mapped.dtype}; features are float16, float32 or float64")
    if (left := path.stat().st_size - mapped.offset - mapped.nbytes) > 0:
        raise FeatureError(f"{path} is damaged: {left} bytes follow the array")
    # A copy, in this machine's byte order and C's order of axes.
    return torch.from_numpy(numpy.array(mapped, dtype=mapped.dtype.newbyteorder("="), order="C"))


def _read_safetensors(path: Path, name: str | None) -> Stored:
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            if name is None and len(names) != 1:
                what = "no tensor" if not names else f"{len(names)} tensors, {_listed(names)}"
                raise FeatureError(f"{path} holds {what}: name one, {path}:{names[0] if names else 'NAME'}")
            chosen = names[0] if name is None else name
            if chosen not in names:
                raise FeatureError(f"{path} holds no tensor '{chosen}'; it has {_listed(names)}")
            kind = file.get_slice(chosen).get_dtype()
            if kind not in _TYPES:
                raise FeatureError(f"{chosen} of {path} is {kind}; features are float16, float32 or float64")
            return Stored(file.get_tensor(chosen), dict(file.metadata() or {}))
    except (OSError, SafetensorError) as error:
        raise FeatureError(f"{path} is damaged, cut off, or no .safetensors file: {error}") from error


def _listed(names: list[str]) -> str:
    shown = sorted(names)[:5]
    return ", ".join(shown) + (" ..." if len(names) > len(shown) else "")


def recorded_noise(stored: Stored) -> float:
    """The level of disturbance that a file states, or else that of its rounding; 0 for exact features.

    Raises
    ------
    FeatureError : the file states another thing than a share of at least 0 and below 1.
    """
    if "noise" not in stored.said:
        return rounding(stored.values)
    try:
        level = float(stored.said["noise"])
    except ValueError:
        level = math.nan
    if not 0 <= level < 1:
        raise FeatureError(f"the file says noise = {stored.said['noise']!r}, and that is a share, 0 to 1")
    return level
