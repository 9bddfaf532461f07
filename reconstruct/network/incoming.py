"""A module of the user's as it comes in: out of what is wrapped around it, and copied, or refused in a sentence."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from reconstruct.errors import CallError, words_of

Copied = TypeVar("Copied")


def incoming(module: object, name: str | None) -> nn.Module:
    """A copy of what a user gives as a module, in evaluation mode, float32, without gradients of its own.

    Of a program that ``torch.export`` has made the parts become modules again. What ``torch.compile`` and
    ``DataParallel`` have wrapped is taken out of it: they give the same numbers, and hide the parts.

    Raises
    ------
    CallError : it is no module, has lazy parts without weights or weights without numbers, or cannot be copied.
    """
    called = name or name_of(module)
    if type(module).__name__ == "ExportedProgram":  # by name: to import the class takes as long as torch itself
        module = _taken_apart(module, called)
    if not isinstance(module, nn.Module):
        raise CallError(f"{called} is no torch module, but of the type {type(module).__name__}")
    module = _unwrapped(module)
    called = name or name_of(module)
    for part, values in chain(module.named_parameters(), module.named_buffers()):
        if is_lazy(values):
            raise CallError(
                f"{called} has no weights yet: {part} is lazy, and is drawn when the module runs for the first time; "
                "run it on an image before"
            )
        if values.is_meta:
            raise CallError(f"{called} has no weights: {part} is on the device meta; load them before")
    try:
        found = deep_copy(module).float().eval()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever the user's own code raises
        raise CallError(f"{called} cannot be copied and set to evaluation mode: {words_of(error)}") from error
    for values in found.parameters():  # a TorchScript has no requires_grad_ of its own
        values.requires_grad_(False)
    return Script(found) if isinstance(found, torch.jit.ScriptModule) else found


def name_of(module: object) -> str:
    """The name of a module's class; of a TorchScript that of the class that it was made of."""
    return str(getattr(module, "original_name", type(module).__name__))


class OnOneDevice(nn.Module):
    """In place of ``DataParallel``: what it holds, by the name that it has there, on the device where it is."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.module(*inputs, **named)


class Script(nn.Module):
    """A TorchScript as a part of a module: it takes no hooks of its own, and its parts none either."""

    def __init__(self, script: nn.Module) -> None:
        super().__init__()
        self.script = script

    def forward(self, images: torch.Tensor) -> Any:
        """What the script gives."""
        return self.script(images)


def deep_copy(module: Copied) -> Copied:
    """A copy whose tensors are its own; those that a run has computed and a part holds on to, detached.

    ``copy.deepcopy`` refuses tensors that gradients flow through, such as the weight that weight normalisation computes
    of its two.
    """
    memo: dict[int, Any] = {}
    for part in module.modules() if isinstance(module, nn.Module) else ():
        for values in _tensors(vars(part)):
            if values.grad_fn is not None:
                memo[id(values)] = values.detach().clone()
    # torch warns of what its own exported programs hold.
    with torch.no_grad(), warnings.catch_warnings():  # or the weights of a TorchScript's copy are computed ones
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", message="TypedStorage is deprecated")  # by which torch itself copies int8
        return copy.deepcopy(module, memo)


def device_of(module: nn.Module) -> torch.device:
    """Where the module's numbers are: the device of the first, the CPU if it has none."""
    first = next(chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def _taken_apart(program: Any, called: str) -> nn.Module:
    """The parts of a program that ``torch.export`` has made, by the names that they had."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's, of itself
            module: nn.Module = torch.export.unflatten(program)
    except Exception as error:  # torch's own, over whatever it has no way to undo
        raise CallError(
            f"{called} is an ExportedProgram whose parts cannot be told from each other; give the module that it was "
            f"exported from: {words_of(error)}"
        ) from error
    for part in module.modules():
        graph = getattr(part, "graph", None)
        for node in graph.nodes if isinstance(graph, torch.fx.Graph) else ():
            node.meta = {}  # tensors without numbers, which nothing copies
    return module


def _unwrapped(module: nn.Module) -> nn.Module:
    """The module without what wraps it; its parts likewise, in a copy of those that hold wrapped ones."""
    while "_orig_mod" in module._modules:  # torch.compile
        module = module.get_submodule("_orig_mod")
    if _is_parallel(module):
        return OnOneDevice(_unwrapped(module.get_submodule("module")))
    if not any(_is_wrapped(part) for part in module.modules()):
        return module
    found = copy.copy(module)
    found._modules = {name: None if part is None else _unwrapped(part) for name, part in module._modules.items()}
    return found


def _is_wrapped(module: nn.Module) -> bool:
    return _is_parallel(module) or "_orig_mod" in module._modules


def _is_parallel(module: nn.Module) -> bool:
    return isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel)


def _tensors(held: Any, depth: int = 3) -> Iterator[torch.Tensor]:
    """The tensors in what a part holds, in containers and in those within; parts see to their own."""
    if isinstance(held, torch.Tensor):
        yield held
    elif depth and isinstance(held, dict):
        for each in held.values():
            yield from _tensors(each, depth - 1)
    elif depth and isinstance(held, list | tuple | set):
        for each in held:
            yield from _tensors(each, depth - 1)
