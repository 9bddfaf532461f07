"""Power spectra of a layer's responses to images, and of what ReLU, CReLU and AVR make of them.

What an activation does to a spectrum is in ``series``, after Kechris et al. 2024: it keeps the input's and adds
harmonics and a DC component, and CReLU's difference of phases has neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from reconstruct.errors import CallError
from reconstruct.network.architecture import KINDS
from reconstruct.network.network import Network

SIGNALS = ("responses", "relu", "negative", "sum", "difference")
"""What ``layer_spectra_2d`` compares: z; [z]+, of ReLU and CReLU's positive phase; [-z]+, its negative phase; the sum
of the phases, |z|, which is AVR; their difference."""


@dataclass(frozen=True)
class ImageSpectra:
    """Power of a layer's values by spatial frequency, as shares of the whole power of its linear responses.

    Means over images and channels come before the division, and no window is applied. dc + rings + corners is 1 for the
    responses, the sum and the difference, and 1 for the two phases together, since at each position one of them is 0.

    Attributes
    ----------
    layer : its name.
    frequencies : B, the centres of the rings, cycles per sample of the layer's grid, up to 0.5.
    counts : B, how many frequencies each ring has.
    dc : a number for each of ``SIGNALS``.
    rings : B for each of ``SIGNALS``, the sums over the rings.
    corners : for each of ``SIGNALS``, what lies beyond 0.5.
    identity_error : the largest |mean(p) - mean(q) - mean(z)| of a channel, p and q CReLU's phases: rounding.
    spectrum_error : the largest difference between the power of p - q and that of z at a frequency, as a share of the
        whole power.
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
        """The share of the signal's own power that is its DC, from 0 to 1; 0 for a signal that is 0."""
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
