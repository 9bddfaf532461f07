"""Features in files: written as a sender would send them, and read as somebody who has nothing else.

``.npy`` holds the numbers alone. ``.safetensors`` also says, where ``write_features`` wrote it, which model and layer
they are of, the images' size, and how much they were disturbed. What others wrote may be ``.npz`` or torch's ``.pt``,
and of whole numbers with a scale and a zero point. Nothing of a file is run (``tensor_files``).
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import torch
from safetensors.torch import save

from reconstruct.errors import CallError, FeatureError
from reconstruct.images.atomic import write_atomically
from reconstruct.images.tensor_files import (
    form_of,
    is_plain,
    named_tensors,
    names_in_safetensors,
    read_npy,
    read_npz,
    read_safetensors,
    read_torch,
)
from reconstruct.network.protocol import AnyNetwork

TENSOR = "features"
"""The name that ``write_features`` gives the tensor of a ``.safetensors`` file."""

FORMATS = ("safetensors", "npy")
_FLOATS = {
    torch.float64: (52, -1022),
    torch.float32: (23, -126),
    torch.float16: (10, -14),
    torch.bfloat16: (7, -126),
    torch.float8_e4m3fn: (3, -6),
    torch.float8_e5m2: (2, -14),
}
"""Types of features: bits of the fraction, and the smallest exponent of a normal number."""
_WHOLE = (torch.int8, torch.uint8)
"""Types of whole numbers that are taken without a scale: what a quantised device sends."""
_QUANTISED = (*_WHOLE, torch.int16, torch.uint16, torch.int32)
_SCALES, _ZERO_POINTS = ("scale", "scales"), ("zero_point", "zero_points")


@dataclass(frozen=True)
class Stored:
    """Features of a file, N x C x h x w, and what the file says of them.

    Attributes
    ----------
    values : in the file's own precision; float32 where that has 8 bits, or is bfloat16.
    said : the file's own words, as ``write_features`` writes them.
    rounded : how far they may be from what was rounded to 8 bits or bfloat16, as ``rounding`` has it; None for others.
    note : what was taken for granted, for whoever reads them; empty where nothing was.
    """

    values: torch.Tensor
    said: Mapping[str, str] = field(default_factory=dict)
    rounded: float | None = None
    note: str = ""


def read_features(file: str | Path, of: tuple[AnyNetwork, str] | None = None) -> Stored:
    """Features that somebody extracted.

    Parameters
    ----------
    file : ``.npy``, or ``.npz``, ``.safetensors`` or ``.pt`` with one tensor; or ``FILE.npz:NAME``, one of several.
        Float16, bfloat16, float32, float64 or 8-bit floating-point numbers, N x C x h x w or C x h x w (then N is 1).
        Of a layer whose part lays them out in another way, N x T x C or N x C, also so, with N or without it.
        Whole numbers of 8 to 32 bits are (number - zero point) * scale: the tensors ``scale`` and ``zero_point`` beside
        them (also ``NAME.scale``, ``NAME_scale``) have one number, or one a channel. Of 8 bits the scale may be
        missing; ``note`` then says that 1 is taken.
    of : the network and its layer that they are of, which tell how they may be laid out.

    Raises
    ------
    FeatureError : there is no such file, it is of another kind, damaged, or its header does not fit its length; the
        numbers have another type, or the array another number of axes; there are no features at all; or a number is
        not finite (the message says where).
    """
    path, name = path_and_name(str(file))
    try:
        if not path.is_file():
            raise FeatureError(f"{path} {'is not a file' if path.exists() else 'does not exist'}")
        held, said = _held(path, name)
        stored = _decoded(path, held, said, of)
    except CallError as error:
        raise FeatureError(str(error)) from error
    except (OSError, ValueError) as error:  # a name that no file can have
        raise FeatureError(f"{path} cannot be read: {error}") from error
    values = stored.values
    if not (finite := values.isfinite()).all():
        index = [int(i) for i in (~finite).nonzero()[0]]
        raise FeatureError(f"{path}: features{index} = {float(values[tuple(index)]):g} is not finite")
    return stored


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
    return _rounded(values) if values.dtype == torch.float16 else 0.0


def _rounded(values: torch.Tensor) -> float:
    """``rounding`` of features of any floating-point type."""
    fraction, least = _FLOATS[values.dtype]
    # In float64: squares of float16's smallest numbers vanish in float32.
    exact = values.double().flatten(1)
    exponent = exact.abs().log2().floor().clamp_min(least)  # subnormal numbers have the smallest normal one's unit
    return _share(exact, torch.where(exact == 0, 0.0, 2 ** (exponent - fraction)))


def _share(exact: torch.Tensor, unit: torch.Tensor) -> float:
    """The norm of a uniform error of so many units as a share of the features' own, the mean over images."""
    norm = exact.norm(dim=1)
    share = (unit.square().sum(dim=1) / 12).sqrt() / torch.where(norm > 0, norm, 1)
    return float(share.mean())


def path_and_name(file: str) -> tuple[Path, str | None]:
    """``FILE.safetensors:NAME`` in its parts; a file whose own name has a colon goes first."""
    before, colon, name = file.rpartition(":")
    if not colon or Path(file).is_file() or not before.endswith((".safetensors", ".npz", ".pt", ".pth")):
        return Path(file), None
    return Path(before), name


Held = dict[str, torch.Tensor]
"""Tensors of a file by name; the first is the one of features."""


def _held(path: Path, name: str | None) -> tuple[Held, dict[str, str]]:
    """The tensor that is meant, those that say its scale and zero point, and what the file says besides."""
    match form_of(path):
        case "npy":
            return {path.stem: _tensor(path, read_npy(path))}, {}
        case "npz":
            arrays = read_npz(path)
            return {key: _tensor(path, arrays[key]) for key in _chosen(path, list(arrays), name)}, {}
        case "safetensors":
            return read_safetensors(path, _chosen(path, names_in_safetensors(path), name))
        case "pt":
            found = named_tensors(read_torch(path))
            # A number by itself is an epoch or the like.
            found = {key: each for key, each in found.items() if each.ndim or key.endswith((*_SCALES, *_ZERO_POINTS))}
            return {key: found[key] for key in _chosen(path, list(found), name)}, {}
        case _:
            raise FeatureError(f"features are read from .npy, .npz, .safetensors and .pt files, not from {path}")


def _tensor(path: Path, array: numpy.ndarray) -> torch.Tensor:
    try:
        return torch.from_numpy(array)
    except TypeError:
        # NumPy has no bfloat16, and writes down that it is two bytes of something.
        kind = "numbers of two bytes, as of bfloat16" if array.dtype.str == "|V2" else str(array.dtype)
        raise FeatureError(f"{path} holds {kind}; features are float16, float32 or float64") from None


def _chosen(path: Path, names: list[str], name: str | None) -> list[str]:
    """The name of the tensor that is meant, and those beside it that say its scale and zero point."""
    beside = {
        own: [f"{prefix}{word}" for prefix in ("", f"{own}.", f"{own}_") for word in (*_SCALES, *_ZERO_POINTS)]
        for own in names
    }
    said = {word for words in beside.values() for word in words}
    if name is None:
        meant = [each for each in names if each not in said] or names
        if len(meant) != 1:
            what = "no tensor" if not names else f"{len(meant)} tensors, {_listed(meant)}"
            raise FeatureError(f"{path} holds {what}: name one, {path}:{meant[0] if meant else 'NAME'}")
        name = meant[0]
    if name not in names:
        raise FeatureError(f"{path} holds no tensor '{name}'; it has {_listed(names)}")
    return [name, *(each for each in beside[name] if each in names and each != name)]


def _decoded(path: Path, held: Held, said: dict[str, str], of: tuple[AnyNetwork, str] | None) -> Stored:
    """The features themselves, N x C x h x w, of whatever numbers stand for them."""
    (name, values), *_ = held.items()
    if values.is_quantized:
        held, values = _quantised(path, values), values.int_repr()
    if values.layout is not torch.strided:
        raise FeatureError(f"{path} holds a sparse tensor: save its to_dense()")
    if not is_plain(values):
        raise FeatureError(f"{name} of {path} is no plain tensor of numbers")
    if not values.numel():
        raise FeatureError(f"{path} holds no features: it is {' x '.join(map(str, values.shape))}")
    # A copy: what torch saved may lie in memory in any order.
    values = _laid_out(path, values.detach(), of).contiguous()
    scale, zero = (_beside(path, name, held, said, words) for words in (_SCALES, _ZERO_POINTS))
    if values.dtype in _FLOATS:
        if scale is not None or zero is not None:
            raise FeatureError(f"{path} has a scale or a zero point, and its features are no whole numbers")
        if values.dtype.itemsize > 1 and values.dtype != torch.bfloat16:
            return Stored(values, said)
        return Stored(values.float(), said, _rounded(values))
    if values.dtype not in _QUANTISED or (scale is None and values.dtype not in _WHOLE):
        kind = str(values.dtype).removeprefix("torch.")
        raise FeatureError(
            f"{path} holds {kind}; features are float16, float32 or float64, or whole numbers with a scale beside them"
        )
    factor = torch.ones(1) if scale is None else _per_channel(path, "scale", scale, values.shape[1])
    origin = torch.zeros(1) if zero is None else _per_channel(path, "zero point", zero, values.shape[1])
    if not (factor > 0).all():
        raise FeatureError(f"the scale of {path} is above 0, not {float(factor.min()):g}")
    steps = values.float() - origin
    share = _share((steps * factor).double().flatten(1), torch.where(steps == 0, 0.0, factor).double().flatten(1))
    kind = str(values.dtype).removeprefix("torch.")
    note = f"{path} holds {kind} and no scale: the numbers are taken as they are, by a scale of 1"
    return Stored(steps * factor, said, share, note if scale is None else "")


def _quantised(path: Path, values: torch.Tensor) -> Held:
    """The scale and zero point of a tensor that torch has quantised, of all of it or along an axis."""
    if values.qscheme() == torch.per_tensor_affine:
        return {"scale": torch.tensor(values.q_scale()), "zero_point": torch.tensor(float(values.q_zero_point()))}
    axis = values.q_per_channel_axis()
    if values.ndim - axis != 3:
        raise FeatureError(
            f"{path} has a scale for each place along axis {axis}, and not for each channel of C x h x w"
        )
    return {"scale": values.q_per_channel_scales(), "zero_point": values.q_per_channel_zero_points()}


def _laid_out(path: Path, values: torch.Tensor, of: tuple[AnyNetwork, str] | None) -> torch.Tensor:
    """Numbers of a file as N x C x h x w: they may be laid out as a layer's part does, and be of one image alone."""
    for each in (values, values[None]):
        seen = each if of is None else of[0].as_features(each, of[1])
        if seen.ndim == 4:
            return seen
    shape = " x ".join(map(str, values.shape)) or "a single number"
    if of is None:
        raise FeatureError(f"features are N x C x h x w or C x h x w; {path} holds {shape}")
    net, layer = of
    raise FeatureError(f"{layer} of {net.name} gives {net.axes(layer)} features; {path} holds {shape}")


def _beside(path: Path, name: str, held: Held, said: Mapping[str, str], words: tuple[str, ...]) -> torch.Tensor | None:
    """What a file says of its features' scale, or zero point, in a tensor of its own or in words."""
    for key in (f"{prefix}{word}" for prefix in (f"{name}.", f"{name}_", "") for word in words):
        if key in held and key != name:
            return held[key]
        if key in said:
            try:
                return torch.tensor(float(said[key]))
            except ValueError:
                raise FeatureError(f"{path} says {key} = {said[key]!r}, and that is a number") from None
    return None


def _per_channel(path: Path, what: str, values: torch.Tensor, channels: int) -> torch.Tensor:
    """A scale or zero point as 1 x 1 x 1 x 1 or 1 x C x 1 x 1, float32."""
    if not is_plain(values) or values.is_complex() or values.numel() not in (1, channels):
        raise FeatureError(f"the {what} of {path} is one number, or one for each of {channels} channels")
    numbers = values.detach().flatten().float()
    if not numbers.isfinite().all():
        raise FeatureError(f"the {what} of {path} is not finite")
    return numbers.view(1, -1, 1, 1)


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
        return rounding(stored.values) if stored.rounded is None else stored.rounded
    try:
        level = float(stored.said["noise"])
    except ValueError:
        level = math.nan
    if not 0 <= level < 1:
        raise FeatureError(f"the file says noise = {stored.said['noise']!r}, and that is a share, 0 to 1")
    return level
