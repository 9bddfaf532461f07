"""A torch module run with hooks on its parts: which are called, in which order, and what goes in and comes out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import Any

import torch
from torch import nn

from reconstruct.errors import CallError, ReconstructError, words_of
from reconstruct.network.activations import activate
from reconstruct.network.architecture import Layer, Size
from reconstruct.network.checkpointing import without_checkpointing
from reconstruct.network.layout import Layout, tensor_at, tensors_in

WHOLE = "(output)"
"""What the module gives, as the name of a layer."""
SAMPLES = 4096
"""Numbers of a result by which it is compared with another."""

_HOOKED = RLock()
"""Held while a module runs with hooks on it, which would hear another thread's run as well: pictures are fitted to a
network, which may ask it for its shapes, while others are inverted."""

Way = tuple[int | str, ...]
"""Where a tensor is in what a part gives: () where that is a tensor, (1,) for the second of a tuple."""
Place = tuple[str, int, Way]
"""A part, the number of its call, and the way."""


@dataclass(frozen=True)
class Call:
    """A part's call, the ``number``-th of it, and where in its result the features are.

    ``made_by`` is the call of the activation that gives its values, if any; ``alone``: whether each image has to go in
    by itself.
    """

    part: str
    number: int
    way: Way
    layout: Layout
    layer: Layer
    made_by: tuple[str, int] | None
    multiplications: int
    size: Size
    alone: bool = False


@dataclass(frozen=True)
class Heard:
    """A tensor among the results of a call, as its hook saw it.

    Attributes
    ----------
    made_by : the activation's call whose result this is, unchanged, and the activation and its slope.
    work : multiplications up to here.
    repeats : whether it is the result of a part that has been heard already, unchanged.
    noted : what the listener made of it.
    """

    shape: tuple[int, ...]
    numbers: torch.dtype
    made_by: tuple[str, int, str, float] | None
    work: int
    repeats: bool
    noted: Any


def heard(
    module: nn.Module, images: torch.Tensor, name: str, note: Callable[[Place, torch.Tensor], Any]
) -> dict[Place, Heard]:
    """Every tensor that a module's parts and itself give in a run on images, in the order in which the calls end.

    Whether a tensor is still what an activation gave is decided by what was written into it since, and by its values:
    a part that goes on to add something in place gives another.

    Parameters
    ----------
    note : what is to be kept of each: called while it has its values, which may be written over later.

    Raises
    ------
    CallError : the module cannot be run on such images.
    """
    found: dict[Place, Heard] = {}
    counts: dict[str, int] = {}
    results: dict[int, tuple[torch.Tensor, int | None, torch.Tensor]] = {}  # what is looked up by id must live
    makers: dict[int, tuple[str, int, str, float]] = {}
    work = 0

    def ended(part: str, each: nn.Module, given: torch.Tensor | None, result: Any) -> None:
        nonlocal work
        counts[part] = number = counts.get(part, 0) + 1
        for way, tensor in tensors_in(result).items():
            known = _activation(each)
            if known is not None and isinstance(given, torch.Tensor) and torch.equal(activate(given, *known), tensor):
                makers[id(tensor)] = (part, number, *known)
                results.pop(id(tensor), None)
            elif not way and isinstance(each, nn.Conv2d):
                work += tensor.numel() * each.weight[0].numel()
            elif not way and isinstance(each, nn.Linear):
                work += tensor.numel() * each.in_features
            before, values = results.get(id(tensor)), sample(tensor)
            same = before is not None and before[1] == _version(tensor) and torch.equal(before[2], values)
            if not same:
                if before is not None:
                    makers.pop(id(tensor), None)
                results[id(tensor)] = (tensor, _version(tensor), values)
            place = (part, number, way)
            found[place] = Heard(
                tuple(tensor.shape), tensor.dtype, makers.get(id(tensor)), work, same, note(place, tensor)
            )

    with _HOOKED, _hooked(module, ended), torch.no_grad():
        ran(module, images, name)
    return found


def ran(module: nn.Module, images: torch.Tensor, name: str) -> Any:
    """What a module gives for images.

    Raises
    ------
    CallError : it cannot be run on them, with what it says itself.
    """
    try:
        with without_checkpointing():
            return module(images)
    except (ReconstructError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever the user's own code raises
        size = f"{images.shape[2]} x {images.shape[3]}"
        how = " with a gradient" if torch.is_grad_enabled() and images.requires_grad else ""
        raise CallError(f"{name} cannot be run on images of {size} pixels{how}: {words_of(error)}") from error


@contextmanager
def without_torchs_doubts() -> Iterator[None]:
    """Within it torch does not warn that a part has no derivative: what comes of it is told."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*an autograd kernel was not registered")
        yield


def sample(values: torch.Tensor) -> torch.Tensor:
    """Some of a tensor's numbers, a copy: enough to tell whether it is another one."""
    flat = (values.dequantize() if values.is_quantized else values).reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    if len(flat) > SAMPLES:
        flat = flat[torch.linspace(0, len(flat) - 1, SAMPLES, device=flat.device, dtype=torch.float64).long()]
    return flat.to(torch.float32, copy=True)


def differ(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far two samples are apart, relative to the larger's norm."""
    if one.shape != other.shape:
        return 1.0
    scale = torch.maximum(one.norm(), other.norm())
    return float((one - other).norm() / scale) if scale > 0 else 0.0


def taken(module: nn.Module, inputs: torch.Tensor, place: Place, name: str, *, before: bool) -> torch.Tensor:
    """What goes into a part's call, or a tensor of what comes out of it, a copy; the module runs no further.

    A copy, because an activation in place would write over it.

    Raises
    ------
    CallError : the part was not called so often, or the module cannot be run on such images.
    """
    part, number, way = place
    seen = 0

    def into(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal seen
        seen += 1
        if before and seen == number:
            raise _Taken(_first(given, named).clone())

    def out(_: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        if not before and seen == number:
            raise _Taken(tensor_at(result, way).clone())

    target = module.get_submodule(part)
    with _HOOKED:
        hooks = (target.register_forward_pre_hook(into, with_kwargs=True), target.register_forward_hook(out))
        try:
            ran(module, inputs, name)
        except _Taken as end:
            return end.values
        finally:
            for hook in hooks:
                hook.remove()
    raise CallError(f"{name} did not call {part or 'itself'} {number} times")


def label_of(part: str, number: int, way: Way) -> str:
    """What a layer is called: ``layer1.0``, ``relu:2`` where it is the second call, ``pool[0]`` of a tuple."""
    return f"{part or WHOLE}{'' if number == 1 else f':{number}'}{''.join(f'[{key}]' for key in way)}"


@contextmanager
def _hooked(module: nn.Module, ended: Callable[[str, nn.Module, torch.Tensor | None, Any], None]) -> Iterator[None]:
    hooks = []
    inputs: list[torch.Tensor] = []  # of the activations that are running

    def into(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        inputs.append(_first(given, named).clone())

    def out(each: nn.Module, _: Any, result: Any, *, name: str, rectifies: bool) -> None:
        ended(name, each, inputs.pop() if rectifies else None, result)

    try:
        for name, part in module.named_modules():
            if isinstance(part, torch.jit.ScriptModule):  # which take no hooks
                continue
            rectifies = _activation(part) is not None
            if rectifies:
                hooks.append(part.register_forward_pre_hook(into, with_kwargs=True))
            hooks.append(part.register_forward_hook(partial(out, name=name, rectifies=rectifies)))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _first(given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """What goes into an activation, by whichever name."""
    return given[0] if given else next(iter(named.values()))


def _version(tensor: torch.Tensor) -> int | None:
    """How often a tensor has been written into; torch does not count it for those of inference mode."""
    return None if tensor.is_inference() else tensor._version


def _activation(module: nn.Module) -> tuple[str, float] | None:
    """The activation that a part is, as ``activations`` names it, and its slope."""
    match module:
        case nn.ReLU6():
            return "relu6", 0.0
        case nn.ReLU():
            return "relu", 0.0
        case nn.LeakyReLU() if 0 <= module.negative_slope < 1:
            return "leaky_relu", float(module.negative_slope)
    return None


class _Taken(BaseException):
    """Ends a run of a module where what is wanted of it is there; no error, which a module's own code might catch."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values = values
