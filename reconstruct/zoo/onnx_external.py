"""Weights of an ONNX file that lie in files beside it, as ``torch.onnx.export`` writes them: read as bytes, no more."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from reconstruct.errors import ModelError, cut

MOST_BYTES = 2**31 - 1
"""The most that is read of all files beside a graph together: what the graph could hold itself."""

_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16}
"""How many bits an entry has, by the data types of ``onnx.TensorProto``."""


def take_in(file: Path, tensors: dict[str, Any]) -> None:
    """Put what tensors have in files beside ``file`` into the tensors themselves.

    Raises
    ------
    ModelError : a location outside of the file's folder, which is never opened; a file that is not there, or holds
        another number of entries than the tensor claims; more than ``MOST_BYTES``.
    """
    read = 0
    for name, tensor in tensors.items():
        if tensor.data_location != tensor.EXTERNAL and not tensor.external_data:
            continue
        given = {each.key: each.value for each in tensor.external_data}
        path = _beside(file, name, given.get("location", ""))
        offset, length = _extent(file, name, tensor, given, path)
        read += length
        if read > MOST_BYTES:
            raise ModelError(f"{file} has more than {MOST_BYTES} bytes of weights in files beside it")
        try:
            with path.open("rb") as source:
                source.seek(offset)
                data = source.read(length)
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
        if len(data) != length:
            raise ModelError(f"{path} ends before the weights {cut(name, 80)} of {file}")
        tensor.raw_data = data
        del tensor.external_data[:]
        tensor.data_location = tensor.DEFAULT


def _beside(file: Path, name: str, location: str) -> Path:
    """The file that a location names, which lies in the folder of the ONNX file, links followed."""
    folder = file.parent.resolve()
    said = cut(location, 80)
    try:
        path = (folder / location).resolve()
        inside = bool(location) and path.is_relative_to(folder) and path != folder
        there = inside and path.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, with a null byte, links in a circle
        inside = there = False
    if not inside:
        raise ModelError(f"{file}: {cut(name, 80)} is in {said!r}, which is no file of the folder that the graph is in")
    if not there:
        raise ModelError(f"{file}: {cut(name, 80)} is in {said!r}, and there is no such file beside it")
    return path


def _extent(file: Path, name: str, tensor: Any, given: dict[str, str], path: Path) -> tuple[int, int]:
    """Where in its file a tensor begins, and how many bytes it has."""
    size = path.stat().st_size
    try:
        offset = int(given.get("offset", "0"))
        length = int(given.get("length", str(size - offset)))
    except ValueError:
        raise ModelError(f"{file}: {cut(name, 80)} has a place in its file that is no number") from None
    bits = _BITS.get(tensor.data_type)
    count = math.prod(tensor.dims)
    claimed = length if bits is None else count * bits // 8
    if min(tensor.dims, default=1) < 0 or length != claimed or offset < 0 or length < 0 or offset + length > size:
        shape = " x ".join(map(str, tensor.dims))
        raise ModelError(
            f"{file}: {cut(name, 80)} claims to be {shape}, and {path.name} holds another number of entries"
        )
    return offset, length
