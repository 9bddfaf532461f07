"""Quantiles of many channels in one pass and bounded memory: a sketch with a bound on its relative error.

Source: DDSketch, Masson, Rim, Lee, VLDB 2019, section 2: bins whose edges are powers of one number, so that whatever
lies in a bin lies near its representative, relative to itself.
"""

from __future__ import annotations

import math

import torch

from reconstruct.errors import CallError


class QuantileSketch:
    """Counts of the values of C channels in bins with logarithmic edges.

    Its quantiles q' keep |q' - q| <= accuracy q for every exact quantile q in [smallest, largest]. A value below
    ``smallest`` counts as 0, negative ones too, and one above ``largest`` as if it were just that. Between the default
    limits are 6,908 bins: 55 kB a channel, however many values there are.

    Parameters
    ----------
    channels : C.
    accuracy : alpha of the paper, in (0, 1).
    smallest, largest : the range of the guarantee, 0 < smallest < largest, in the values' units.
    device : where the counts are kept, and the values come from.

    Attributes
    ----------
    counts : C x (1 + bins), int64; the first column counts zeros. Bin i, from 1, is
        [smallest gamma^(i - 1), smallest gamma^i) with gamma = (1 + alpha) / (1 - alpha).
    """

    def __init__(
        self, channels: int, *, accuracy: float = 0.002, smallest: float = 1e-6, largest: float = 1e6,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        if not 0 < accuracy < 1 or not 0 < smallest < largest < math.inf:
            raise CallError(
                "a sketch needs 0 < accuracy < 1 and 0 < smallest < largest, "
                f"not accuracy {accuracy:g}, smallest {smallest:g}, largest {largest:g}"
            )
        self.accuracy, self.smallest, self.largest = accuracy, smallest, largest
        self._log_gamma = math.log1p(accuracy) - math.log1p(-accuracy)
        bins = math.floor(math.log(largest / smallest) / self._log_gamma) + 1
        self.counts = torch.zeros(channels, 1 + bins, dtype=torch.int64, device=device)

    def add(self, values: torch.Tensor) -> None:
        """Count values.

        Parameters
        ----------
        values : N x C or N x C x ..., none of them NaN.

        Raises
        ------
        CallError : another number of channels.
        """
        channels, slots = self.counts.shape
        if values.ndim < 2 or values.shape[1] != channels:
            shape = " x ".join(map(str, values.shape))
            raise CallError(f"this sketch counts values of N x {channels} or N x {channels} x ...; these are {shape}")
        # float64: in float32 the logarithm is off by 1e-6, some thousandths of a bin, and values would change bins.
        ratios = values.transpose(0, 1).reshape(channels, -1).clamp_min(0).double() / self.smallest
        slot = ratios.log_().div_(self._log_gamma).floor_().add_(1).clamp_(0, slots - 1).long()
        slot += slots * torch.arange(channels, device=slot.device).view(-1, 1)
        self.counts += torch.bincount(slot.flatten(), minlength=channels * slots).view(channels, slots)

    def merge(self, other: QuantileSketch) -> None:
        """Count all that another sketch has counted.

        Raises
        ------
        CallError : the other has other channels, another accuracy or another range.
        """
        mine, its = ((s.counts.shape[0], s.accuracy, s.smallest, s.largest) for s in (self, other))
        if mine != its:
            raise CallError(f"sketches merge if channels, accuracy and range are equal, not {mine} and {its}")
        self.counts += other.counts.to(self.counts.device)

    def quantile(self, share: float) -> torch.Tensor:
        """The quantile of each channel: C, float64.

        The exact one is the value of rank floor(q (n - 1)), from 0, among n sorted ones: ``numpy.quantile`` with
        ``method="lower"``, to which the guarantee refers.

        Parameters
        ----------
        share : q, in [0, 1].

        Raises
        ------
        CallError : a share outside [0, 1], or nothing counted yet.
        """
        if not 0 <= share <= 1:
            raise CallError(f"a quantile's share lies in [0, 1], not {share:g}")
        total = int(self.counts[0].sum()) if len(self.counts) else 0
        if total == 0:
            raise CallError("nothing has been counted yet: no quantile")
        rank = math.floor(share * (total - 1))
        slot = (self.counts.cumsum(1) <= rank).sum(1).double()
        # The value that is off by at most alpha, relatively, from both edges of its bin.
        representative = self.smallest * (slot * self._log_gamma).exp() * (1 - self.accuracy)
        return torch.where(slot > 0, representative, 0.0)
