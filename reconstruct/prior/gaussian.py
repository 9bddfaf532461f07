"""The natural-image prior: a Gaussian with a power-law spectrum and the colours of photographs.

Images are ``mean + M crop(S w)``: w is white noise, three channels on a torus somewhat larger than the image, so that
opposite borders are independent; S is the amplitude spectrum 1 / f^a; M takes three independent channels to the
correlated colours RGB.
"""

from __future__ import annotations

import math

import torch

from reconstruct.network.architecture import Size
from reconstruct.operators.torus import quick_length
from reconstruct.solvers.conjugate_gradients import conjugate_gradients

EXPONENT = 0.75
"""The exponent of the amplitude. Photographs have 1.0 to 1.3 (benchmarks/measure_prior.py: 1.26), because of their
edges, which are not Gaussian at all; inversion by a Gaussian does best with a flatter spectrum, see docs/map.md."""

SLOWEST = 1 / 240
"""The lowest frequency of the power law, in cycles a pixel; slower ones have its amplitude."""

MEAN = (0.485, 0.456, 0.406)
VARIANCE = 0.0511
"""ImageNet's training images, RGB in [0, 1]: means, and the mean of the three channels' variances."""

AXES = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
SPREAD = (0.2175, 0.0188, 0.0045)
"""Principal axes of ImageNet's colours (columns: light, blue to orange, green to magenta) and their variances up to a
factor: the published constants of AlexNet's colour augmentation (Krizhevsky, Sutskever, Hinton 2012)."""

MARGIN = 13
"""Pixels, at least, between opposite borders of an image on its torus."""


class Prior:
    """The prior for images of one size.

    Parameters
    ----------
    size : height and width of the images.
    channels : 3 for RGB; with any other number the channels are independent, each with the mean variance.
    step : the torus is a multiple of this in both directions.
    torus : is the image itself periodic, for statistics: the torus is then ``size``.
    exponent : of the amplitude.
    """

    def __init__(
        self,
        size: Size,
        channels: int = 3,
        *,
        step: int = 1,
        torus: bool = False,
        exponent: float = EXPONENT,
        device: torch.device | str = "cpu",
    ) -> None:
        self.size = size
        height, width = (side if torus else step * quick_length(math.ceil((side + MARGIN) / step)) for side in size)
        self.shape = (channels, height, width)
        # A unit of variance a pixel on the torus of 240: one density of power at every size of the torus.
        self.amplitude = (
            (_power(height, width, exponent) / _power(240, 240, exponent, half=False).mean()).sqrt().to(device)
        )
        if channels == 3:
            axes, spread = torch.tensor(AXES), torch.tensor(SPREAD)
            colour = axes * (spread * (3 * VARIANCE / spread.sum())).sqrt()
            mean = torch.tensor(MEAN)
        else:
            colour = VARIANCE**0.5 * torch.eye(channels)
            mean = torch.full((channels,), sum(MEAN) / 3)
        self.mean = mean.view(1, -1, 1, 1).to(device)
        self.colour = colour.to(device)
        self._uncolour = torch.linalg.inv(colour).to(device)

    def field(self, white: torch.Tensor) -> torch.Tensor:
        """M S w on the whole torus, N x C x H' x W' to the same."""
        return torch.einsum("ij,njhw->nihw", self.colour, self._filter(white, self.amplitude))

    def field_adjoint(self, values: torch.Tensor) -> torch.Tensor:
        """The adjoint of ``field``."""
        return self._filter(torch.einsum("ij,nihw->njhw", self.colour, values), self.amplitude)

    def whiten(self, field: torch.Tensor) -> torch.Tensor:
        """The inverse of ``field``: w of a field on the torus."""
        return self._filter(torch.einsum("ij,njhw->nihw", self._uncolour, field), 1 / self.amplitude)

    def whiten_adjoint(self, white: torch.Tensor) -> torch.Tensor:
        """The adjoint of ``whiten``."""
        return torch.einsum("ij,nihw->njhw", self._uncolour, self._filter(white, 1 / self.amplitude))

    def fill(self, field: torch.Tensor, seen: Size, iterations: int = 30) -> torch.Tensor:
        """The field with all but its first rows and columns replaced by the most probable values given those.

        Conjugate gradients on the free part of S^-2, preconditioned by that of S^2.
        """
        free = torch.ones(1, 1, *self.shape[1:], device=field.device)
        free[:, :, : seen[0], : seen[1]] = 0
        known = field * (1 - free)
        return known + conjugate_gradients(
            lambda values: free * self.whiten_adjoint(self.whiten(values)),
            -free * self.whiten_adjoint(self.whiten(known)),
            lambda values: free * self.field(self.field_adjoint(values)),
            iterations,
        )

    def crop(self, field: torch.Tensor) -> torch.Tensor:
        """The image's part of the torus."""
        return field[:, :, : self.size[0], : self.size[1]]

    def extend(self, values: torch.Tensor) -> torch.Tensor:
        """The adjoint of ``crop``: zeros outside the image."""
        _, height, width = self.shape
        return torch.nn.functional.pad(values, (0, width - self.size[1], 0, height - self.size[0]))

    def image(self, white: torch.Tensor) -> torch.Tensor:
        """Images, N x C x H x W around [0, 1], of white noise N x C x H' x W'."""
        return self.mean + self.crop(self.field(white))

    def white(self, images: torch.Tensor) -> torch.Tensor:
        """The most probable w of images: N x C x H x W to N x C x H' x W', of which ``image`` makes them."""
        return self.whiten(self.fill(self.extend(images - self.mean), self.size))

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """White noise for ``count`` images, the same on every device."""
        return torch.randn(count, *self.shape, generator=generator).to(self.mean.device)

    def precision(self, step: int) -> torch.Tensor:
        """The inverse covariance on step x step polyphase components of the torus.

        h x (w/2 + 1) x C s^2 x C s^2, complex64, h x w the torus in steps: the form of ``Convolution.gram("inputs")``.
        """
        channels, height, width = self.shape
        kernel = torch.fft.irfft2(self.amplitude.double() ** -2, s=(height, width))
        offsets = torch.arange(step, device=kernel.device)
        difference = offsets[:, None] - offsets[None, :]
        down = step * torch.arange(height // step, device=kernel.device)[:, None, None] + difference
        right = step * torch.arange(width // step, device=kernel.device)[:, None, None] + difference
        parts = kernel[down[:, None, :, None, :, None] % height, right[None, :, None, :, None, :] % width]
        waves = torch.fft.rfft2(parts, dim=(0, 1)).reshape(height // step, -1, step**2, step**2)
        inverse = (self._uncolour.T @ self._uncolour).to(waves.dtype)
        n = channels * step**2
        return torch.einsum("ij,yxpq->yxipjq", inverse, waves).reshape(*waves.shape[:2], n, n).to(torch.complex64)

    def _filter(self, values: torch.Tensor, amplitude: torch.Tensor) -> torch.Tensor:
        if not len(values):  # which MKL's Fourier transform refuses
            return values
        return torch.fft.irfft2(torch.fft.rfft2(values) * amplitude, s=self.shape[1:])


def _power(height: int, width: int, exponent: float, half: bool = True) -> torch.Tensor:
    """1 / f^2a on a torus's frequencies, the right half of them or all."""
    down = torch.fft.fftfreq(height)[:, None]
    right = (torch.fft.rfftfreq(width) if half else torch.fft.fftfreq(width))[None, :]
    return (down**2 + right**2).clamp_min(SLOWEST**2) ** -exponent
