"""A network that reads the heart rate from synthetic pulse waves: a trained example to look into.

It stands in for the heart-rate network of Kechris et al. 2024 (section V-B, Figure 3), whose recordings are not
redistributed here. Its layers are those of the authors' code: three blocks of three ReLU convolutions with an average
pooling at the end of each, 32, 48 and 64 filters, poolings by 4, 2 and 2, then attention of every sample to every other
in four heads, a normalisation and two dense layers. Their dropout of a half behind each pooling is left out: these
waves are made afresh for every step, and none is seen twice. Start and training are ours.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from reconstruct.errors import CallError

RATE, SAMPLES = 32.0, 256
SLOWEST, FASTEST = 45.0, 160.0
"""The lowest and the highest heart rate, beats a minute; heart rates are uniform between them."""
MIDDLE, SPREAD = (SLOWEST + FASTEST) / 2, (FASTEST - SLOWEST) / math.sqrt(12)
"""The mean and the standard deviation of heart rates: the network's unit."""
FILTERS, POOLS = (32, 48, 64), (4, 2, 2)
"""Of each block: the filters of its convolutions, and by how much its pooling shortens the wave."""
CONVOLUTIONS, TAPS, DILATION = 3, 5, 2
HEADS, DENSE = 4, 32
"""Heads of the attention, of 16 channels each, and units of the dense layer behind it."""
NOISE = 0.3
"""The standard deviation of the white noise, where the fundamental's amplitude is 1."""


@dataclass(frozen=True)
class PulseWaves:
    """Synthetic pulse waves, 8 s at 32 Hz.

    Attributes
    ----------
    waves : N x 1 x 256, of mean 0 and variance 1.
    heart_rates : N, beats a minute.
    """

    waves: torch.Tensor
    heart_rates: torch.Tensor


@dataclass(frozen=True)
class TrainedPulse:
    """A trained network, and how well it reads heart rates.

    Attributes
    ----------
    module : in evaluation mode, N x 1 x 256 to N x 1, the heart rate as (beats a minute - 102.5) / 33.2.
    error : its mean absolute error on held-out waves, beats a minute.
    constant_error : that of the middle of the range as everybody's guess.
    losses : the mean squared error of every step's batch, in the network's unit.
    """

    module: nn.Sequential
    error: float
    constant_error: float
    losses: tuple[float, ...]

    def record(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {"error_bpm": self.error, "constant_guess_bpm": self.constant_error}


def pulse_waves(count: int, seed: int) -> PulseWaves:
    """Synthetic pulse waves: a cosine at the heart rate, its first harmonic, and white noise.

    Phases are uniform; the harmonic's amplitude is uniform between 0.2 and 0.7 of the fundamental's.
    """
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(4, count, 1, generator=generator)
    heart_rates = SLOWEST + (FASTEST - SLOWEST) * uniform[0]
    angle = 2 * math.pi * heart_rates / 60 * (torch.arange(SAMPLES) / RATE)
    strength = 0.2 + 0.5 * uniform[1]
    waves = torch.cos(angle + 2 * math.pi * uniform[2]) + strength * torch.cos(2 * angle + 2 * math.pi * uniform[3])
    waves = waves + NOISE * torch.randn(waves.shape, generator=generator)
    waves = (waves - waves.mean(1, keepdim=True)) / waves.std(1, keepdim=True)
    return PulseWaves(waves[:, None], heart_rates[:, 0])


class SelfAttention(nn.Module):
    """Attention of every sample to every other, scaled by the root of a head's channels: N x C x T to N x T x C."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        samples = x.mT  # N x T x C
        several = [
            each(samples).unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (self.query, self.key, self.value)
        ]
        attended = scaled_dot_product_attention(*several)  # N x heads x T x C / heads
        result: torch.Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return result


def pulse_network(seed: int) -> nn.Sequential:
    """The untrained network: modules ``block1_conv1``, ``block1_relu1`` ... ``block3_pool``, ``attention`` and on.

    Causal convolutions of 5 taps, dilation 2; grids of 256, 64, 32 and 16. Weights are He et al.'s 2015, biases 0.
    """
    generator = torch.Generator().manual_seed(seed)
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 1
    for block, (filters, pool) in enumerate(zip(FILTERS, POOLS, strict=True), 1):
        for number in range(1, CONVOLUTIONS + 1):
            convolution = nn.Conv1d(channels, filters, TAPS, dilation=DILATION)
            modules[f"block{block}_pad{number}"] = nn.ConstantPad1d((DILATION * (TAPS - 1), 0), 0.0)
            modules[f"block{block}_conv{number}"] = convolution
            modules[f"block{block}_relu{number}"] = nn.ReLU()
            channels = filters
        modules[f"block{block}_pool"] = nn.AvgPool1d(pool)
    modules["attention"] = SelfAttention(channels, HEADS)
    modules["norm"] = nn.LayerNorm(channels, eps=1e-3)
    modules["flat"] = nn.Flatten()
    modules["dense"] = nn.Linear(channels * SAMPLES // math.prod(POOLS), DENSE)
    modules["dense_relu"] = nn.ReLU()
    modules["line"] = nn.Linear(DENSE, 1)
    network = nn.Sequential(modules)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                fan_in = math.prod(module.weight.shape[1:])
                drawn = torch.randn(module.weight.shape, generator=generator)
                module.weight.copy_(drawn * math.sqrt(2 / fan_in))
                assert module.bias is not None
                module.bias.zero_()
    return network


def train_pulse(seed: int = 0, steps: int = 400, batch: int = 64, held_out: int = 512) -> TrainedPulse:
    """Train the network on fresh waves at every step, and measure it on others.

    Squared error; Adam, its rate rising to 3e-3 over the first tenth of the steps and falling to 0 along a cosine.

    Parameters
    ----------
    seed : of the network's start; the waves of training and those held out have the two seeds after it.
    steps : how many, each on a batch of its own.
    batch : waves a step.
    held_out : waves that the network is measured on.

    Raises
    ------
    CallError : fewer than 1 step, waves in a batch or held-out waves.
    """
    if min(steps, batch, held_out) < 1:
        raise CallError(f"steps, batch and held-out waves are at least 1, not {steps}, {batch} and {held_out}")
    module = pulse_network(seed)
    optimiser = torch.optim.Adam(module.parameters(), 3e-3)
    data = pulse_waves(steps * batch, seed + 1)
    targets = (data.heart_rates - MIDDLE) / SPREAD
    losses = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * _ramp(step / steps)
        picked = slice(step * batch, (step + 1) * batch)
        loss = (module(data.waves[picked])[:, 0] - targets[picked]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    module.eval().requires_grad_(False)
    held = pulse_waves(held_out, seed + 2)
    constant = float((held.heart_rates - MIDDLE).abs().mean())
    error = float((heart_rate(module, held.waves) - held.heart_rates).abs().mean())
    return TrainedPulse(module, error, constant, tuple(losses))


@torch.no_grad()
def heart_rate(module: nn.Module, waves: torch.Tensor) -> torch.Tensor:
    """The network's answers in beats a minute: N."""
    return module(waves)[:, 0] * SPREAD + MIDDLE


def _ramp(progress: float) -> float:
    """The learning rate as a share of its highest: up to 1 over the first tenth, then down a cosine to 0."""
    return min(1.0, 10 * progress + 0.01) * (1 + math.cos(math.pi * progress)) / 2
