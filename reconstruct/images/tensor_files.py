"""Tensors in files of every form they are saved in, read without running anything of the file.

What a file is, its content decides. No size that a header claims is believed before it has been compared with the
file's length, and what is packed is not unpacked beyond a bound.
"""

from __future__ import annotations

import argparse
import io
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import SafetensorError, safe_open

from reconstruct.errors import CallError

MOST_UNPACKED = 1 << 28
"""Bytes that an array may have which a file holds in fewer."""
_MOST_HEADER_BYTES = 10_000  # of .npy: ast reads it, and a longer one only keeps it busy
_MOST_NAMES = 100_000
_DEEPEST = 6
_ZIP = b"PK\x03\x04"


def form_of(path: Path) -> str | None:
    """How a file holds tensors: ``npy``, ``npz``, ``safetensors`` or ``pt``; None where it is none of these.

    Raises
    ------
    CallError : it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
        if head.startswith(_ZIP):
            with zipfile.ZipFile(path) as packed:
                return "npz" if all(name.endswith(".npy") for name in packed.namelist()) else "pt"
    except OSError as error:
        raise CallError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception:  # a damaged directory can raise nearly any
        return "npz" if path.suffix == ".npz" else "pt"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head[8:9] == b"{":
        return "safetensors"
    # Damaged, or written by a torch of before 2020, whose files have no mark of their own.
    known = {".npy": "npy", ".npz": "npz", ".safetensors": "safetensors"}
    pickled = head.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))
    return known.get(path.suffix) or ("pt" if pickled or path.suffix in (".pt", ".pth", ".ckpt", ".bin") else None)


def read_npy(path: Path) -> numpy.ndarray:
    """The array in an ``.npy`` file, in the file's own precision, as a copy in this machine's order of bytes.

    Raises
    ------
    CallError : it is damaged, or holds other than numbers.
    """
    try:
        with path.open("rb") as file:
            version = numpy.lib.format.read_magic(file)
            length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
        if length > _MOST_HEADER_BYTES:
            raise CallError(f"{path} is damaged: its header claims {length} bytes")
        mapped = numpy.lib.format.open_memmap(path, mode="r")  # fails where the file is shorter than its shape
        left = path.stat().st_size - mapped.offset - mapped.nbytes
    except CallError:
        raise
    except Exception as error:  # a hostile or damaged header can raise nearly any
        raise CallError(f"{path} is damaged, cut off, or no .npy file of numbers; nothing of it was run") from error
    if left > 0:
        raise CallError(f"{path} is damaged: {left} bytes follow the array")
    return _native(mapped)


def read_npz(path: Path) -> dict[str, numpy.ndarray]:
    """The arrays of an ``.npz`` file by name.

    Raises
    ------
    CallError : it is damaged, holds other than numbers, or unpacked has more than ``MOST_UNPACKED`` bytes.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(info.file_size for info in packed.infolist())
            if size > max(MOST_UNPACKED, path.stat().st_size):
                raise CallError(f"{path} is too large: unpacked it has {size:,} bytes")
            return {
                info.filename.removesuffix(".npy"): _native(_unpacked(packed.read(info))) for info in packed.infolist()
            }
    except CallError:
        raise
    except Exception as error:  # a hostile or damaged header can raise nearly any
        raise CallError(f"{path} is damaged, cut off, or no .npz file of numbers; nothing of it was run") from error


def _unpacked(content: bytes) -> numpy.ndarray:
    return numpy.lib.format.read_array(io.BytesIO(content), allow_pickle=False, max_header_size=_MOST_HEADER_BYTES)


def _native(array: numpy.ndarray) -> numpy.ndarray:
    """A copy in this machine's byte order and C's order of axes."""
    return numpy.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def read_safetensors(path: Path, names: list[str] | None = None) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a ``.safetensors`` file by name, all or some, and what it says besides.

    Raises
    ------
    CallError : it is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            wanted = list(file.keys()) if names is None else names
            return {name: file.get_tensor(name) for name in wanted}, dict(file.metadata() or {})
    except CallError:
        raise
    except Exception as error:  # SafetensorError, OSError, and what torch says of a type it does not have
        raise CallError(f"{path} is damaged, cut off, or no .safetensors file: {error}") from error


def names_in_safetensors(path: Path) -> list[str]:
    """The names of a ``.safetensors`` file's tensors; errors as in ``read_safetensors``."""
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise CallError(f"{path} is damaged, cut off, or no .safetensors file: {error}") from error


def read_torch(path: Path) -> Any:
    """What ``torch.save`` wrote: tensors, numbers and text, in dictionaries and lists.

    Raises
    ------
    CallError : it is damaged, or holds more than that. Nothing of it is run.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                # torch packs nothing: whoever did wants to see it unpacked.
                if any(info.compress_type != zipfile.ZIP_STORED for info in packed.infolist()):
                    raise CallError(f"{path} is packed, and torch.save packs nothing")
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # of what is not used here
            return torch.load(path, map_location="cpu", weights_only=True)
    except CallError:
        raise
    except OSError as error:
        raise CallError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a hostile or damaged file can raise nearly any
        raise CallError(f"{path} is damaged or holds more than tensors; nothing of it was run") from error


def named_tensors(value: Any) -> dict[str, torch.Tensor]:
    """The tensors and numbers in nested dictionaries and lists, by names with dots between; ``0`` is a lone one."""
    found: dict[str, torch.Tensor] = {}
    for count, (name, each) in enumerate(_walked(value, "", _DEEPEST)):
        if count > _MOST_NAMES:
            raise CallError(f"a file holds more than {_MOST_NAMES:,} things: name none of them")
        found[name or "0"] = each
    return found


def _walked(value: Any, name: str, deeper: int) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, float | int) and not isinstance(value, bool):
        yield name, torch.tensor(float(value) if abs(value) < 1e30 else torch.nan)
    elif deeper and isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, each in pairs:
            if isinstance(key, str | int):
                yield from _walked(each, f"{name}.{key}" if name else str(key), deeper - 1)


def is_plain(value: object) -> bool:
    """Whether this is a tensor of numbers as they lie in memory: not sparse, nested, quantised, or elsewhere.

    Nor one that is larger than the memory it shows, which a file may say of a single number.
    """
    return (
        isinstance(value, torch.Tensor)
        and not value.is_nested
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )
