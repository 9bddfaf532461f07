"""Stationary operators on a torus, of which the Fourier transform makes one matrix a frequency."""

from __future__ import annotations

from collections.abc import Callable

import torch


def quick_length(least: int) -> int:
    """The smallest length that Fourier transforms are quick at: a product of 2, 3 and 5, and no less than ``least``.

    ``scipy.fft.next_fast_len`` of real values, whose import takes longer than the transforms.

    Examples
    --------
    >>> from reconstruct.operators.torus import quick_length
    >>> quick_length(7), quick_length(241)
    (8, 243)
    """
    length = max(1, least)
    while not _is_quick(length):
        length += 1
    return length


def _is_quick(length: int) -> bool:
    for factor in (2, 3, 5):
        while length % factor == 0:
            length //= factor
    return length == 1


def inverse(matrices: torch.Tensor, shift: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """The map (M + shift I)^-1 on a torus: N x K x g x g' to the same.

    Parameters
    ----------
    matrices : g x (g'/2 + 1) x K x K, complex64, Hermitian and at least 0: M at every frequency of half the torus. Of
        blocks on the diagonal, one a group of channels: g x (g'/2 + 1) x groups x K/groups x K/groups. A 1 x 1 matrix
        stands for that multiple of the identity, whatever K is.
    """
    eye = torch.eye(matrices.shape[-1], device=matrices.device)
    # By Cholesky: MKL's batched LU of complex matrices from about 192 x 192 fails on some threads.
    inverses = torch.cholesky_inverse(torch.linalg.cholesky(matrices + shift * eye)).contiguous()

    def solve(values: torch.Tensor) -> torch.Tensor:
        if not len(values):  # which MKL's Fourier transform refuses
            return values
        # As rows on the left: the product of a matrix and one column takes up to twice as long.
        waves = torch.fft.rfft2(values).permute(2, 3, 0, 1).contiguous()
        if matrices.ndim == 5:
            waves = torch.einsum("fgnai,fgaij->fgnaj", waves.unflatten(3, (matrices.shape[2], -1)), inverses.mT)
            waves = waves.flatten(3)
        elif matrices.shape[-1] == 1:
            waves = waves * inverses
        else:
            waves = waves @ inverses.mT
        return torch.fft.irfft2(waves.permute(2, 3, 0, 1), s=values.shape[2:])

    return solve
