"""NumPy or CuPy: the one module that asks which library an array belongs to.

Linear algebra is written against ``xp``, which is NumPy for arrays in main memory and CuPy for arrays on an
NVIDIA GPU. Convolutions run in torch. Arrays cross between the two by DLPack, without a copy, on torch's
current CUDA stream and out of torch's memory pool (two pools on one device starve each other).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy
import torch
from threadpoolctl import threadpool_limits
from torch.utils.dlpack import from_dlpack

from reconstruct.errors import CallError
from reconstruct.extras import install_hint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    # CuPy has no type stubs; its arrays are typed as NumPy's, whose interface the code keeps to.
    Array = NDArray[Any]


def namespace(array: Array) -> ModuleType:
    """The module, ``numpy`` or ``cupy``, whose functions take this array."""
    return numpy if isinstance(array, numpy.ndarray) else _cupy()


def array_of(tensor: torch.Tensor) -> Array:
    """The tensor as an array on its own device: the same memory, no gradient."""
    tensor = tensor.detach()
    return numpy.from_dlpack(tensor) if tensor.device.type == "cpu" else _cupy().from_dlpack(tensor)


def to_torch(array: Array) -> torch.Tensor:
    """The array as a tensor on its own device: the same memory, or a copy where the array is read-only."""
    if isinstance(array, numpy.ndarray) and not array.flags.writeable:
        array = array.copy()
    return from_dlpack(array)


def as_tensor(features: object) -> torch.Tensor:
    """A torch, NumPy or CuPy array as a torch tensor on the device where it lies.

    Raises
    ------
    CallError : it is something else.
    """
    if isinstance(features, torch.Tensor):
        return features.detach()
    if isinstance(features, numpy.ndarray) or hasattr(features, "__dlpack__"):
        return to_torch(features)  # type: ignore[arg-type]
    raise CallError(f"features are a torch, NumPy or CuPy array, not {type(features).__name__}")


@contextmanager
def using(device: torch.device) -> Iterator[None]:
    """Run the array work inside on torch's current stream and memory pool of this device.

    On a CPU, NumPy's BLAS is held to one thread: its threads and torch's wait for work by spinning, and an
    alternation of the two halves the speed of both (2 cores: 100 ms a step of conv4's solve against 51). On a GPU,
    CuPy is given torch's current stream, so that neither library reads what the other has not finished writing,
    and torch's caching allocator; and convolutions keep to full float32, because TF32's three digits would end a
    conjugate-gradient iteration early.
    """
    if device.type == "cpu":
        with threadpool_limits(limits=1, user_api="blas"):
            yield
        return
    cupy = _cupy()
    stream = cupy.cuda.Stream.from_external(torch.cuda.current_stream(device))
    cudnn = torch.backends.cudnn
    precise = cudnn.flags(True, cudnn.benchmark, cudnn.benchmark_limit, cudnn.deterministic, allow_tf32=False)
    with cupy.cuda.Device(device.index or 0), stream, cupy.cuda.using_allocator(_torch_allocator()), precise:
        yield


def memory(device: torch.device) -> int:
    """Bytes of memory that the device has in all; without end where the system does not say (Windows)."""
    if device.type != "cpu":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else sys.maxsize


@cache
def _torch_allocator() -> Any:
    """CuPy's view of torch's caching allocator."""
    cupy = _cupy()

    def allocate(size: int, device: int) -> int:
        return torch.cuda.caching_allocator_alloc(size, device, cupy.cuda.get_current_stream().ptr)

    def free(pointer: int, device: int) -> None:
        torch.cuda.caching_allocator_delete(pointer)

    return cupy.cuda.PythonFunctionAllocator(allocate, free).malloc


def _cupy() -> ModuleType:
    try:
        import cupy
    except ImportError as error:
        raise CallError(
            f"arrays on a GPU need CuPy, which is not installed: {install_hint('gpu')}, or use the CPU"
        ) from error
    return cupy
