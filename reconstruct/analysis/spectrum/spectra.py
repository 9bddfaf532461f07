"""Spectra of a layer's values before and after its activation: of 1-D modules, and of the zoo's networks in 2-D.

What an activation does to a spectrum is in ``series``, after Kechris et al. 2024: it keeps the input's, adds harmonics
and a DC component, and CReLU's difference of phases has neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from reconstruct.analysis.spectrum.series import Spectrum, amplitude_spectrum
from reconstruct.errors import CallError
from reconstruct.network.architecture import KINDS
from reconstruct.network.network import Network

SIGNALS = ("responses", "relu", "negative", "sum", "difference")
"""What ``layer_spectra_2d`` compares: z; [z]+, of ReLU and CReLU's positive phase; [-z]+, its negative phase; the sum
of the phases, |z|, which is AVR; their difference."""


@dataclass(frozen=True)
class LayerSpectra:
    """Amplitude spectra before and after one activation.

    ``name`` : the activation's, as ``named_modules`` has it; a second call of one module is ``NAME:2``.
    ``rate`` : samples a second at that layer.
    ``before``, ``after`` : amplitudes N x C x F.
    """

    name: str
    rate: float
    before: Spectrum
    after: Spectrum


def activation_names(module: nn.Module) -> list[str]:
    """Names, as ``named_modules`` has them, of a module's activations: those of ``torch.nn.modules.activation``.

    Attention is in that file too, and is left out.
    """
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


@dataclass(frozen=True)
class ImageSpectra:
    """Power of a layer's values by spatial frequency, as shares of the whole power of its linear responses.

    Means over images and channels come before the division, and no window is applied. Of every signal of ``SIGNALS``:
    ``dc``, a number; ``rings``, B, the sums over rings of frequencies (centres ``frequencies``, cycles per sample of
    the layer's grid, up to 0.5); ``corners``, what lies beyond 0.5. dc + rings + corners is 1 for the responses, the
    sum and the difference, and 1 for the two phases together, since at each position one of them is 0.

    ``counts`` : B, how many frequencies each ring has. ``identity_error`` : the largest |mean(p) - mean(q) - mean(z)|
    of a channel, p and q CReLU's phases: rounding. ``spectrum_error`` : the largest difference between the power of
    p - q and that of z at a frequency, as a share of the whole power.
    """

    layer: str
    frequencies: torch.Tensor
    counts: torch.Tensor
    dc: dict[str, float]
    rings: dict[str, torch.Tensor]
    corners: dict[str, float]
    identity_error: float
    spectrum_error: float

    def energy(self, signal: str) -> float:
        """The signal's whole power, as a share of the responses'."""
        return self.dc[signal] + float(self.rings[signal].sum()) + self.corners[signal]

    def dc_share(self, signal: str) -> float:
        """How much of the signal's own power is its DC, from 0 to 1; 0 of a signal that is 0."""
        energy = self.energy(signal)
        return self.dc[signal] / energy if energy else 0.0

    def radial(self, signal: str) -> torch.Tensor:
        """The radially averaged power spectrum: B, the mean power of a frequency of each ring."""
        return self.rings[signal] / self.counts.clamp_min(1)

    def record(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "layer": self.layer,
            "frequencies": self.frequencies.tolist(),
            "power": {name: self.radial(name).tolist() for name in SIGNALS},
            "dc_share": {name: self.dc_share(name) for name in SIGNALS},
            "energy": {name: self.energy(name) for name in SIGNALS},
            "identity_error": self.identity_error,
            "spectrum_error": self.spectrum_error,
        }


@torch.no_grad()
def layer_spectra_2d(net: Network, images: torch.Tensor, layer: str) -> ImageSpectra:
    """Radially averaged power spectra of a layer's linear responses, and of what activations make of them.

    Whatever the layer's own activation, ReLU, CReLU and AVR are applied to the same responses, so that they compare.

    Parameters
    ----------
    images : N x 3 x H x W in [0, 1].
    layer : a convolution's name.

    Raises
    ------
    CallError : as from ``net.responses``, a pooling, which has no activation, or responses that are 0 throughout.
    """
    known = net.layer(layer)
    if not known.has_weights:
        having = ", ".join(each.name for each in net.layers_with_weights)
        raise CallError(f"the {KINDS[known.kind]} {layer} has no activation; {having} have one")
    # Float64: the identities below hold to its rounding, and a spectrum spans many decades.
    responses = net.responses(images, layer).double()
    total = float(responses.square().mean())
    if total == 0:
        raise CallError(f"all linear responses of {layer} are 0: there are no shares of their power")
    positive, negative = responses.relu(), (-responses).relu()
    index, rings = _rings(responses.shape[2], responses.shape[3], responses.device)
    counts = torch.bincount(index.flatten(), minlength=rings + 2)[1 : rings + 1]
    dc, ringed, corners, powers = {}, {}, {}, {}
    signals = (responses, positive, negative, positive + negative, positive - negative)
    for name, values in zip(SIGNALS, signals, strict=True):
        power = _power(values) / total
        sums = torch.zeros(rings + 2, dtype=torch.float64, device=power.device)
        sums.index_add_(0, index.flatten(), power.flatten())
        dc[name], ringed[name], corners[name] = float(sums[0]), sums[1:-1].cpu(), float(sums[-1])
        powers[name] = power
    means = positive.mean((2, 3)) - negative.mean((2, 3)) - responses.mean((2, 3))
    centres = torch.arange(1, rings + 1, dtype=torch.float64) / min(responses.shape[2:])
    return ImageSpectra(
        layer,
        centres,
        counts.cpu(),
        dc,
        ringed,
        corners,
        float(means.abs().max()),
        float((powers["difference"] - powers["responses"]).abs().max()),
    )


def _is_activation(module: nn.Module) -> bool:
    classes = (each.__module__ for each in type(module).__mro__)
    return "torch.nn.modules.activation" in classes and not isinstance(module, nn.MultiheadAttention)


def _relative_rate(length: int, here: int) -> float:
    """The rate at a layer of this length, over that of an input of ``length``."""
    return 1 / round(length / here) if here <= length else float(round(here / length))


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """In evaluation mode, and each part back in its own mode after it."""
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


def _power(values: torch.Tensor) -> torch.Tensor:
    """Power spectra of N x K x h x w, the mean over images and channels: h x w, whose sum is the mean square."""
    area = values.shape[2] * values.shape[3]
    return torch.stack([(torch.fft.fft2(each).abs() / area).square().mean(0) for each in values]).mean(0)


def _rings(height: int, width: int, device: torch.device) -> tuple[torch.Tensor, int]:
    """The ring of each frequency of ``fft2``: 0 the DC, 1 ... B rings, B + 1 the corners beyond; and B.

    Rings are as wide as the spacing of frequencies on the grid's shorter side, and their centres multiples of it.
    """
    short = min(height, width)
    rows = torch.fft.fftfreq(height, dtype=torch.float64, device=device)
    columns = torch.fft.fftfreq(width, dtype=torch.float64, device=device)
    radius = (rows[:, None].square() + columns.square()).sqrt()
    count = short // 2
    index = (radius * short).round().long().clamp(1, count + 1)
    index[0, 0] = 0
    return index, count
