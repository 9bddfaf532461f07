"""ReLU's DC as a feature: one filter and a mean tell tones apart, untrained (Kechris et al. 2024, V-D, Figure 5).

A filter scales a tone of frequency f by |H(f)|, and the mean of ReLU of a tone of amplitude a is a / pi. The DC behind
one filter, ReLU and an average over time is thus |H(f)| / pi: the frequency, read by the filter's slope. Without ReLU
the mean of a tone is about 0, and nothing is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import conv1d, pad

from reconstruct.errors import CallError

FREQUENCIES, DEVIATION = (3.0, 5.0, 10.0), 0.1
"""The mean frequency of each class, and the standard deviation within a class, Hz."""
RATE, SAMPLES = 32.0, 256


@dataclass(frozen=True)
class Cosines:
    """Classes of cosines of amplitude 1, sampled at 32 Hz for 8 s.

    Attributes
    ----------
    waves : N x 1 x 256, float32.
    classes : N, int64, class by class.
    frequencies : N, Hz.
    """

    waves: torch.Tensor
    classes: torch.Tensor
    frequencies: torch.Tensor


def cosines(count: int, seed: int, random_phases: bool = False) -> Cosines:
    """Cosines of each class, with frequencies that are normal about 3, 5 and 10 Hz with a deviation of 0.1 Hz.

    The paper's all begin at their peak, phase 0. Over 8 s, which are no whole number of periods, that leaves means of
    some thousandths, with a sign and size that depend on the frequency; random phases take the sign away.

    Parameters
    ----------
    count : how many of each class, at least 2.
    random_phases : phases are uniform, and not all 0.

    Raises
    ------
    CallError : fewer than 2 of a class.
    """
    if count < 2:
        raise CallError(f"a class has at least 2 cosines, not {count}")
    generator = torch.Generator().manual_seed(seed)
    means = torch.tensor(FREQUENCIES).repeat_interleave(count)
    frequencies = means + DEVIATION * torch.randn(len(means), generator=generator)
    time = torch.arange(SAMPLES) / RATE
    angles = 2 * math.pi * frequencies[:, None] * time
    if random_phases:
        angles = angles + 2 * math.pi * torch.rand(len(means), 1, generator=generator)
    waves = torch.cos(angles)
    classes = torch.arange(len(FREQUENCIES)).repeat_interleave(count)
    return Cosines(waves[:, None], classes, frequencies)


def glorot_uniform(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Weights, out x in x kernel (or out x in), uniform within sqrt(6 / (fan in + fan out)): Glorot, Bengio 2010."""
    taps = math.prod(shape[2:])
    limit = math.sqrt(6 / ((shape[0] + shape[1]) * taps))
    return (2 * torch.rand(shape, generator=generator) - 1) * limit


def response(taps: torch.Tensor, frequencies: torch.Tensor, rate: float) -> torch.Tensor:
    """The modulus |H(f)| of the response of causal filters y(t) = sum_k taps[k] x(t - k): S x F, float64.

    Parameters
    ----------
    taps : S x n.
    frequencies : F, Hz.
    rate : samples a second.
    """
    delays = torch.arange(taps.shape[1], dtype=torch.float64)
    angles = 2 * math.pi / rate * torch.outer(delays, frequencies.double())
    return (taps.to(torch.complex128) @ torch.polar(torch.ones_like(angles), -angles)).abs()


@dataclass(frozen=True)
class DcFeatures:
    """DC features of cosines behind random filters of 2 taps, one filter a seed.

    Attributes
    ----------
    cosines : the N cosines.
    taps : S x 2, of x(t) and x(t - 1).
    features : S x N, the means of ReLU of the filtered waves.
    predicted : S x N, |H(f)| / pi.
    accuracy : S, balanced accuracy (the mean of the classes' recalls; a guess has 1/3) of the nearest class mean, that
        is, of two thresholds half-way between means; means from the even-numbered cosines, accuracy on the odd.
    gap : S, the smallest distance between two class means in pooled standard deviations of a class.
    error : S, the root mean square of features - predicted, over that of the features.
    """

    cosines: Cosines
    taps: torch.Tensor
    features: torch.Tensor
    predicted: torch.Tensor
    accuracy: torch.Tensor
    gap: torch.Tensor
    error: torch.Tensor

    @property
    def usual(self) -> int:
        """The number of the filter whose gap is the median."""
        return int(self.gap.argsort()[len(self.gap) // 2])

    def records(self) -> list[dict[str, Any]]:
        """Plain numbers for JSON, one record a filter."""
        columns = (self.taps.tolist(), self.accuracy.tolist(), self.gap.tolist(), self.error.tolist())
        return [
            {"filter": number, "taps": taps, "balanced_accuracy": accuracy, "gap": gap, "prediction_error": error}
            for number, (taps, accuracy, gap, error) in enumerate(zip(*columns, strict=True))
        ]


def dc_features(seeds: int = 20, count: int = 1024, seed: int = 0) -> DcFeatures:
    """DC features behind random filters, never trained, and how far they separate the classes.

    The filters start as Keras's do (``glorot_uniform``, here within 1.22) and have no bias. |H(f)|^2 = u^2 + v^2 +
    2 u v cos(2 pi f / rate) of taps u and v rises or falls all the way from 0 to half of the rate, so the only 2-tap
    filters that cannot tell two frequencies apart are those with a tap near 0, whose response is flat.

    Parameters
    ----------
    seeds : how many filters.
    count : cosines a class.
    seed : of the cosines; filter s is drawn from ``seed`` + s.
    """
    waves = cosines(count, seed)
    taps = torch.cat([_taps(seed + number) for number in range(seeds)])
    features = measured_dc(waves.waves, taps)
    predicted = response(taps, waves.frequencies, RATE) / math.pi
    accuracy, gap = _separability(features, waves.classes)
    error = (features - predicted).square().mean(1).sqrt() / features.square().mean(1).sqrt()
    return DcFeatures(waves, taps, features, predicted, accuracy, gap, error)


def measured_dc(waves: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """The mean over time of ReLU of each causal filter's output: S x N, float64.

    Zeros stand before the first sample, as in a causal convolution.

    Parameters
    ----------
    waves : N x 1 x T.
    taps : S x n.
    """
    # A torch convolution correlates: the last weight is that of the present.
    weights = taps.double().flip(1)[:, None]
    filtered = conv1d(pad(waves.double(), (taps.shape[1] - 1, 0)), weights)
    return filtered.relu().mean(2).T


def _taps(seed: int) -> torch.Tensor:
    """The two taps that a seed gives: 1 x 2, float64."""
    return glorot_uniform((1, 1, 2), torch.Generator().manual_seed(seed))[0].double()


def _separability(features: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Balanced accuracy on the odd-numbered of each class by means of the even-numbered, and the smallest gap: S, S."""
    count = len(FREQUENCIES)
    each = [features[:, classes == number] for number in range(count)]
    fitted = torch.stack([values[:, ::2].mean(1) for values in each], dim=1)
    recalls = [
        ((values[:, 1::2, None] - fitted[:, None]).abs().argmin(2) == number).double().mean(1)
        for number, values in enumerate(each)
    ]
    means = torch.stack([values.mean(1) for values in each], dim=1).sort(dim=1).values
    pooled = torch.stack([values.var(1) for values in each], dim=1).mean(1).sqrt()
    return torch.stack(recalls).mean(0), means.diff(dim=1).min(1).values / pooled
