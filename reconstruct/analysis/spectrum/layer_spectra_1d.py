"""Spectra inside any 1-D module: of what goes into each activation, and of what comes out.

What an activation does to a spectrum is in ``series``, after Kechris et al. 2024: it keeps the input's and adds
harmonics and a DC component.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from reconstruct.analysis.spectrum.amplitude import Spectrum, amplitude_spectrum, dc_share
from reconstruct.errors import CallError


@dataclass(frozen=True)
class LayerSpectra:
    """Amplitude spectra before and after one activation.

    Attributes
    ----------
    name : the activation's, as ``named_modules`` has it; a second call of one module is ``NAME:2``.
    rate : samples a second at that layer.
    before, after : spectra with amplitudes N x C x F.
    """

    name: str
    rate: float
    before: Spectrum
    after: Spectrum

    def record(self) -> dict[str, Any]:
        """Plain numbers, for JSON: the DC's shares of the power before and after."""
        return {
            "activation": self.name,
            "rate": self.rate,
            "dc_share_before": dc_share(self.before),
            "dc_share_after": dc_share(self.after),
        }


def activation_names(module: nn.Module) -> list[str]:
    """The names, as ``named_modules`` has them, of a module's activations: those of ``torch.nn.modules.activation``."""
    return [name for name, each in module.named_modules() if _is_activation(each)]


def layer_spectra_1d(
    module: nn.Module, x: torch.Tensor, names: Sequence[str] | None = None, *, rate: float = 1.0
) -> list[LayerSpectra]:
    """Amplitude spectra before and after each activation of any 1-D module, in the order in which they are called.

    The module is run once in evaluation mode, without gradients, and is left as it was. A layer's sampling rate is the
    input's divided by the whole number nearest to how many times shorter its signals are (or multiplied, where they are
    longer): strides are whole, and an unpadded convolution shortens a signal without slowing it down.

    Parameters
    ----------
    x : N x C x T, on the module's device and of its type.
    names : activations to return, as ``activation_names`` has them; None takes all whose values are N x C x length
        (one behind a global pooling has no axis of time).
    rate : of ``x``, samples a second; frequencies are cycles per sample of ``x`` where it is 1.

    Raises
    ------
    CallError : ``x`` of another shape, a module without such activations, an unknown name, or a named one that is not
        called or whose values have no axis of time.
    """
    if x.ndim != 3:
        raise CallError(f"signals are N x C x T; these are {' x '.join(map(str, x.shape))}")
    known = activation_names(module)
    if not known:
        raise CallError(f"{type(module).__name__} has no activation of torch.nn, such as nn.ReLU, as a module")
    for name in names or ():
        if name not in known:
            raise CallError(f"there is no activation '{name}'; there are {', '.join(known)}")
    captured: list[tuple[str, int, torch.Tensor, torch.Tensor]] = []
    with torch.no_grad(), _evaluating(module), _capturing(module, known if names is None else names, captured):
        module(x)
    found = []
    for name, call, before, after in captured:
        if before.ndim == 3 and after.ndim == 3:
            layer_rate = rate * _relative_rate(x.shape[-1], before.shape[-1])
            spectra = (amplitude_spectrum(values, layer_rate) for values in (before, after))
            found.append(LayerSpectra(name if call == 1 else f"{name}:{call}", layer_rate, *spectra))
        elif names is not None:
            shape = " x ".join(map(str, before.shape))
            raise CallError(f"the values at {name} are {shape}: no N x C x length, and so no spectrum")
    for name in names or ():
        if name not in {each for each, *_ in captured}:
            raise CallError(f"the activation {name} is not called by {type(module).__name__}'s forward")
    if not found:
        raise CallError(f"no activation of {type(module).__name__} has values N x C x length: no spectra")
    return found


def _is_activation(module: nn.Module) -> bool:
    classes = (each.__module__ for each in type(module).__mro__)
    return "torch.nn.modules.activation" in classes and not isinstance(module, nn.MultiheadAttention)


def _relative_rate(length: int, here: int) -> float:
    """The rate at a layer of this length, over that of an input of ``length``."""
    return 1 / round(length / here) if here <= length else float(round(here / length))


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """The module is in evaluation mode within, and each part back in its own mode afterwards."""
    training = {each: each.training for each in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for each, mode in training.items():
            each.training = mode


@contextmanager
def _capturing(
    module: nn.Module, names: Sequence[str], captured: list[tuple[str, int, torch.Tensor, torch.Tensor]]
) -> Iterator[None]:
    """Copies of what goes into the named modules and comes out: name, number of the call, before, after.

    Copies, because an activation in place writes over its input, and so may a layer after it over its output.
    """
    inputs: dict[str, list[torch.Tensor]] = {name: [] for name in names}

    def hooks(name: str) -> tuple[Any, Any]:
        def before(_: nn.Module, given: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
            inputs[name].append((*given, *named.values())[0].detach().clone())

        def after(_: nn.Module, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
            captured.append((name, len(inputs[name]), inputs[name][-1], result.detach().clone()))

        return before, after

    handles = []
    try:
        for name in inputs:
            before, after = hooks(name)
            activation = module.get_submodule(name)
            handles += [
                activation.register_forward_pre_hook(before, with_kwargs=True),
                activation.register_forward_hook(after),
            ]
        yield
    finally:
        for handle in handles:
            handle.remove()
