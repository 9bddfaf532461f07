"""The activations of torch modules on average of Gaussian responses: E[f(z + s n)], n standard normal, in closed form.

All are made of Phi(z / s) and s phi(z / s), ``activations.smoothed_step``: kinks where f bends, and for the smooth ones
a mixture of normal distribution functions Phi((z - m) / k), whose means are Phi((z - m) / r) with r^2 = k^2 + s^2. The
logistic function is such a mixture exactly (Monahan and Stefanski 1992), of infinitely many; a few are close enough.
A Gauss-Hermite sum of 16 nodes is dearer, and for s = 4 wrong by 1 % of z where the mixtures are by 1e-5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from reconstruct.network.activations import smoothed, smoothed_step

Mean = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Responses z, N x C x ..., and their spread s, 1 x C x 1 ..., to E[f(z + s n)] and its derivative by z. Both have
z's shape, and can be differentiated by autograd."""


@dataclass(frozen=True)
class Mixture:
    """A function that climbs from 0 to 1: the sum of weights, 1 in all, times Phi((z - shift) / scale)."""

    weights: tuple[float, ...]
    scales: tuple[float, ...]
    shifts: tuple[float, ...]


SMALLEST = 1e-6
"""The least spread that exponentials are averaged over; a smaller one counts as this."""
NORMAL = Mixture((1.0,), (1.0,), (0.0,))
"""Phi itself, the gate of GELU."""
LOGISTIC = Mixture(
    (0.1097555883, 0.4605249607, 0.3698406483, 0.0598788027),
    (0.9812606266, 1.4371985291, 2.1118030126, 3.1203056008),
    (0.0,) * 4,
)
"""1 / (1 + exp(-z)) to within 6e-6. A fifth part would make that 7e-7, and take a quarter longer."""
TANH_GATE = Mixture(
    (1 - 0.0974859639, 0.04874298195, 0.04874298195),
    (0.9420924421, 0.8085522562, 0.8085522562),
    (0.0, 1.1716604791, -1.1716604791),
)
"""(1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) / 2, the gate of GELU's approximation, to within 2e-5."""
MISH_GATE = Mixture(
    (0.0820208175, 0.3827003057, 0.3751966386, 0.1911226315, -0.0426350947, 0.0115947014),
    (0.7148920235, 1.0153966161, 1.3995736526, 2.0143401213, 1.8667723106, 2.6897481676),
    (0.1580335239, -0.0663316796, -0.5367271751, -0.9445826993, 0.2955737486, -2.7492744286),
)
"""tanh(log(1 + exp(z))) to within 5e-6."""
SOFTSIGN = Mixture(
    (0.0235757401, 0.128985652, 0.2622133303, 0.2733429777, 0.1821918309, 0.0888156551, 0.0327712471, 0.0081035669),
    (0.085357124, 0.3072790276, 0.7980837591, 1.9644395731, 5.0901662511, 15.0662253769, 57.8923305914, 427.6516800005),
    (0.0,) * 8,
)
"""(1 + z / (1 + |z|)) / 2 to within 4e-4: its cusp and its tails are far from normal."""


def mean_of(activation: str, slope: float = 0.0) -> Mean:
    """Of an activation of ``activations.ACTIVATIONS`` with one phase."""
    return lambda responses, spread: smoothed(responses, activation, slope, spread)


def mean_of_at_least(low: float) -> Mean:
    """Of max(z, low)."""

    def mean(responses: torch.Tensor, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, slopes = smoothed(responses - low, "relu", 0.0, spread)
        return value + low, slopes

    return mean


def mean_of_at_most(high: float) -> Mean:
    """Of min(z, high)."""

    def mean(responses: torch.Tensor, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, slopes = smoothed(high - responses, "relu", 0.0, spread)
        return high - value, slopes

    return mean


def mean_of_between(low: float, high: float) -> Mean:
    """Of min(max(z, low), high), low below high."""

    def mean(responses: torch.Tensor, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        above, bump = smoothed_step(responses - low if low else responses, spread)
        beyond, far_bump = smoothed_step(responses - high, spread)
        inside = above - beyond
        value = torch.addcmul(bump - far_bump, responses, inside).add_(beyond, alpha=high)
        return value.add_(1 - above, alpha=low) if low else value, inside

    return mean


def mean_of_hard_sigmoid(responses: torch.Tensor, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of min(max(z / 6 + 1 / 2, 0), 1)."""
    mean, slopes = mean_of_between(-3.0, 3.0)(responses, spread)
    return (mean + 3) / 6, slopes / 6


def mean_of_hard_swish(responses: torch.Tensor, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of z h(z), h the hard sigmoid: z E[h] + s^2 E[h'], by Stein's identity."""
    spread = spread.to(responses)
    above, bump = smoothed_step(responses + 3, spread)
    beyond, far_bump = smoothed_step(responses - 3, spread)
    steepness, bend = (above - beyond) / 6, (bump - far_bump) / 6  # E[h'] and s^2 E[h'']
    gate = torch.addcmul(bend, responses + 3, steepness) + beyond
    mean = responses * gate + spread.square() * steepness
    return mean, gate + responses * steepness + bend


def mean_of_prelu(weight: torch.Tensor) -> Mean:
    """Of max(z, 0) + a min(z, 0), a of its own for each channel or one for all."""

    def mean(responses: torch.Tensor, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        leak = weight.detach().to(responses).view(1, -1, *(1,) * (responses.ndim - 2))
        step, bump = smoothed_step(responses, spread)
        slopes = step * (1 - leak) + leak
        return responses * slopes + bump * (1 - leak), slopes

    return mean


def mean_of_elu(drop: float, rate: float = 1.0, scale: float = 1.0) -> Mean:
    """Of scale z above 0, and scale drop (exp(rate z) - 1) below."""

    def mean(responses: torch.Tensor, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        spread = torch.where(spread > SMALLEST, spread, SMALLEST).to(responses)
        step, bump = smoothed_step(responses, spread)
        decay = _mean_decay(responses, spread, rate)
        value = responses * step + bump + drop * (decay - (1 - step))
        return scale * value, scale * (step + drop * rate * decay)

    return mean


def _mean_decay(responses: torch.Tensor, spread: torch.Tensor, rate: float) -> torch.Tensor:
    """E[exp(rate (z + s n)); z + s n < 0] = exp(rate z + (rate s)^2 / 2) Phi(-u), u = z / s + rate s."""
    scaled = responses / spread
    edge = scaled + rate * spread
    above = edge > 0
    # Above 0 the first factor overflows where the second vanishes; their product is exp(-(z / s)^2 / 2) erfcx(u) / 2.
    scaled_tail = torch.special.erfcx(torch.where(above, edge, 0) * math.sqrt(0.5))
    exponent = torch.where(above, 0, rate * responses + (rate * spread).square() / 2)
    return (
        torch.where(
            above, (-scaled.square() / 2).exp() * scaled_tail, exponent.exp() * torch.erfc(edge * math.sqrt(0.5))
        )
        / 2
    )


def mean_of_mixture(mixture: Mixture, low: float = 0.0, high: float = 1.0, rate: float = 1.0) -> Mean:
    """Of low + (high - low) g(rate z), g a mixture."""

    def mean(responses: torch.Tensor, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, slopes = torch.full_like(responses, low), torch.zeros_like(responses)
        for part in _parts(mixture, responses, spread, rate):
            value.add_(part.step, alpha=(high - low) * part.weight)
            slopes.addcmul_(part.bump, (high - low) * part.weight / part.variance)
        return value, slopes

    return mean


def mean_of_softplus(beta: float = 1.0) -> Mean:
    """Of log(1 + exp(beta z)) / beta, whose derivative is logistic: the same mixture of smoothed ReLUs."""

    def mean(responses: torch.Tensor, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        bumps, slopes = torch.zeros_like(responses), torch.zeros_like(responses)
        for part in _parts(LOGISTIC, responses, spread, beta):
            bumps.add_(part.bump, alpha=part.weight)
            slopes.add_(part.step, alpha=part.weight)
        return torch.addcmul(bumps, responses, slopes), slopes

    return mean


def mean_of_gated(gate: Mixture) -> Mean:
    """Of z g(z), g a mixture: z E[g] + s^2 E[g'], by Stein's identity."""

    def mean(responses: torch.Tensor, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        noise = spread.to(responses).square()
        opening, steepness, lean, bend = (torch.zeros_like(responses) for _ in range(4))
        for part in _parts(gate, responses, spread):
            opening.add_(part.step, alpha=part.weight)
            density = part.weight / part.variance
            steepness.addcmul_(part.bump, density)
            # Of z g' + s^2 g'', which is g' times z - s^2 (z - m) / r^2: what is multiplied by z, and the rest.
            lean.addcmul_(part.bump, density * (1 - noise / part.variance))
            if part.shift:
                bend.addcmul_(part.bump, density * noise * (part.shift / part.variance))
        slopes = torch.addcmul(opening + bend, responses, lean)
        return torch.addcmul(noise * steepness, responses, opening), slopes

    return mean


@dataclass(frozen=True)
class _Part:
    """One normal distribution of a mixture on average: Phi and r phi of (z - shift) / r, ``variance`` r^2."""

    weight: float
    shift: float
    variance: torch.Tensor
    step: torch.Tensor
    bump: torch.Tensor


def _parts(mixture: Mixture, responses: torch.Tensor, spread: torch.Tensor, rate: float = 1.0) -> Iterator[_Part]:
    for weight, scale, shift in zip(mixture.weights, mixture.scales, mixture.shifts, strict=True):
        variance = spread.to(responses).square() + (scale / rate) ** 2
        step, bump = smoothed_step(responses - shift / rate if shift else responses, variance.sqrt())
        yield _Part(weight, shift / rate, variance, step, bump)
