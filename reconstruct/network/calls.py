"""A torch module run with hooks on its parts: which are called, in which order, and what goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any

import torch
from torch import nn

from reconstruct.errors import CallError
from reconstruct.network.architecture import Layer, Size

_HOOKED = RLock()
"""Held while a module runs with hooks on it, which would hear another thread's run as well: pictures are fitted to a
network, which may ask it for its shapes, while others are inverted."""


@dataclass(frozen=True)
class Call:
    """A part's call, the ``number``-th of it; ``made_by`` the call of the activation that gives its values, if any."""

    part: str
    number: int
    layer: Layer
    made_by: tuple[str, int] | None
    multiplications: int
    size: Size


def calls_of(module: nn.Module, images: torch.Tensor, name: str) -> dict[str, Call]:
    """The calls of a module's parts that give N x C x h x w, by layer name, in the order in which they end.

    Raises
    ------
    CallError : the module cannot be run on such images, or no part of it gives such features.
    """
    calls: dict[str, Call] = {}
    counts: dict[str, int] = {}
    made_by: dict[int, tuple[str, int, str, float]] = {}
    kept: list[Any] = []  # what is looked up by id must live
    work = 0

    def ended(part: str, each: nn.Module, result: Any) -> None:
        nonlocal work
        counts[part] = number = counts.get(part, 0) + 1
        if not isinstance(result, torch.Tensor):
            return
        kept.append(result)
        if not any(each.children()):
            known = _activation(each)
            if known is None:
                made_by.pop(id(result), None)
            else:
                made_by[id(result)] = (part, number, *known)
            if isinstance(each, nn.Conv2d):
                work += result.numel() * each.weight[0].numel()
            elif isinstance(each, nn.Linear):
                work += result.numel() * each.in_features
        if result.ndim != 4:
            return
        label = part if number == 1 else f"{part}:{number}"
        maker = made_by.get(id(result))
        activation, slope = ("none", 0.0) if maker is None else maker[2:]
        layer = Layer(label, int(result.shape[1]), activation=activation, slope=slope, kind="module")
        calls[label] = Call(
            part, number, layer, None if maker is None else maker[:2], work, (result.shape[2], result.shape[3])
        )

    with _HOOKED, _hooked(module, ended), torch.no_grad():
        try:
            module(images)
        except Exception as error:  # whatever the user's own code raises
            size = f"{images.shape[2]} x {images.shape[3]}"
            reason = " ".join(str(error).split()) or type(error).__name__
            raise CallError(f"{name} cannot be run on images of {size} pixels: {reason}") from error
    if not calls:
        raise CallError(f"no part of {name} gives N x C x h x w: there is no layer to invert")
    return calls


@contextmanager
def _hooked(module: nn.Module, ended: Callable[[str, nn.Module, Any], None]) -> Iterator[None]:
    hooks = [
        part.register_forward_hook(lambda each, _, result, name=name: ended(name, each, result))
        for name, part in module.named_modules()
        if name
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


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


def taken(module: nn.Module, inputs: torch.Tensor, part: str, number: int, *, before: bool) -> torch.Tensor:
    """What goes into a part's call of this number, or comes out of it, a copy; the module runs no further.

    A copy, because an activation in place would write over it.

    Raises
    ------
    CallError : the part was not called so often.
    """
    seen = 0

    def into(_: nn.Module, given: tuple[Any, ...]) -> None:
        nonlocal seen
        seen += 1
        if before and seen == number:
            raise _TakenError(given[0].clone())

    def out(_: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        if not before and seen == number:
            raise _TakenError(result.clone())

    target = module.get_submodule(part)
    with _HOOKED:
        hooks = (target.register_forward_pre_hook(into), target.register_forward_hook(out))
        try:
            module(inputs)
        except _TakenError as taken:
            return taken.values
        finally:
            for hook in hooks:
                hook.remove()
    raise CallError(f"{type(module).__name__} did not call {part} {number} times")


class _TakenError(Exception):
    """Ends a run of a module where what is wanted of it is there."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values = values
