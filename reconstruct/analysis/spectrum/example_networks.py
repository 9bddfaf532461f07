"""Two networks of fixed weights, and what they do to the spectrum of tones (Kechris et al. 2024, V-A, Figure 2)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from reconstruct.analysis.spectrum.amplitude import Spectrum, amplitude_spectrum
from reconstruct.analysis.spectrum.tones import Tones

DIFFERENCES, AVERAGES, WINDOW = 2, 5, 9
"""How many differences, how many averages, and over how many samples, the networks of the authors' code take."""


def differentiating(rate: float) -> nn.Sequential:
    """ReLU, then twice: the first difference times the rate, a derivative in units per second, and ReLU.

    N x 1 x T to N x 1 x (T - 2), float64. Differences raise the upper harmonics, in proportion to their frequency.
    """
    return _chain("difference", DIFFERENCES, torch.tensor([-rate, rate], dtype=torch.float64))


def averaging() -> nn.Sequential:
    """ReLU, then five times: the moving average of 9 samples, where it fits, and ReLU.

    N x 1 x T to N x 1 x (T - 40), float64. The DC stays and the upper harmonics go. Means of values from 0 up are from
    0 up: every ReLU but the first is idle.
    """
    return _chain("average", AVERAGES, torch.full((WINDOW,), 1 / WINDOW, dtype=torch.float64))


def network_spectra(tones: Tones) -> dict[str, Spectrum]:
    """Amplitude spectra of the signal (``input``), and of what both networks give of it, by the networks' names.

    The signal is continued periodically to the left, as far as the network shortens it, so that the output is one
    period too and its spectrum has lines without skirts.
    """
    x = tones.signal()
    found = {"input": amplitude_spectrum(x, tones.rate)}
    with torch.no_grad():
        for name, network in (("differentiating", differentiating(tones.rate)), ("averaging", averaging())):
            lost = len(x) - network(x[None, None]).shape[-1]
            output = network(torch.cat((x[-lost:], x))[None, None])[0, 0]
            found[name] = amplitude_spectrum(output, tones.rate)
    return found


def _chain(what: str, times: int, weights: torch.Tensor) -> nn.Sequential:
    """ReLU, and then this often a convolution of these weights and ReLU, named ``what1``, ``relu1`` and so on."""
    modules: OrderedDict[str, nn.Module] = OrderedDict(relu=nn.ReLU())
    for number in range(1, times + 1):
        convolution = nn.Conv1d(1, 1, len(weights), bias=False, dtype=weights.dtype)
        convolution.weight = nn.Parameter(weights.view(1, 1, -1).clone(), requires_grad=False)
        modules[f"{what}{number}"] = convolution
        modules[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(modules)
